//! The generic shape of a resource.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{API_VERSION, FieldError, ObjectMeta};

/// A kind of resource, told by its spec.
pub trait Kind: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// CamelCase singular, as manifests write it.
    const KIND: &'static str;
    /// Lower-case plural, as URLs write it.
    const PLURAL: &'static str;
    /// Whether objects live in a namespace.
    const NAMESPACED: bool = true;
    /// What controllers and agents report.
    type Status: Clone + Default + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// What serde can't see: ranges, formats, references inside the spec. Paths begin with `spec.`.
    fn check(&self, _errors: &mut Vec<FieldError>) {}
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "")]
pub struct Resource<S: Kind> {
    /// Always `avocet.dev/v1alpha1`.
    pub api_version: String,
    /// The kind's name.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What is.
    #[serde(default)]
    pub status: S::Status,
}

impl<S: Kind> Resource<S> {
    /// A resource with an empty status.
    pub fn new(metadata: ObjectMeta, spec: S) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: S::KIND.into(),
            metadata,
            spec,
            status: S::Status::default(),
        }
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The resource's namespace; empty for kinds without one.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}
