//! How Sources ask for objects and change them: as a service account, through the same door as everybody.

use futures::future::BoxFuture;
use serde_json::Value;
use types::KindInfo;

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tells it from others that had its name before.
    pub uid: String,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its kind.
    pub info: &'static KindInfo,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// `Kind namespace/name`, or `Kind name`.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.info.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.info.kind, self.name),
        }
    }
}

/// What is wanted of an object.
#[derive(Debug, Clone)]
pub enum Ask {
    /// To see it.
    Get,
    /// Server-side apply.
    Apply {
        /// What is stated.
        manifest: Value,
        /// Whether fields of others are taken over.
        force: bool,
        /// Whether nothing is kept.
        dry_run: bool,
    },
    /// To delete it, if it still is the one with that UID.
    Delete {
        /// The UID.
        uid: String,
    },
}

/// A refusal, in the words of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// Why.
    pub message: String,
}

/// Who answers. Field manager of what is applied is [`MANAGER`].
pub trait Cluster: Send + Sync {
    /// Does what is asked, if the account may; answers the object as it is then, or would be.
    ///
    /// # Errors
    /// [`Refusal`] as any client gets it; 404 for what is not there.
    fn ask<'a>(
        &'a self,
        account: &'a Account,
        place: &'a Place,
        ask: Ask,
    ) -> BoxFuture<'a, Result<Value, Refusal>>;
}

/// Who states what Sources apply.
pub const MANAGER: &str = "avocet-source";
