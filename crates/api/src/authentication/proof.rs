//! Why a key may become that of a site.

use store::ledger::Tables;
use types::Digest;

use super::tokens::is_granted;
use super::{User, join_tokens};
use crate::ApiError;

/// Why a key may become that of a site. It is looked at in the transaction that makes it so: a request may be under way
/// for long.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The join token that the key has used.
    JoinToken(String),
    /// What the bearer token hashes to that the site came with.
    Bearer(Digest),
    /// The key that the site has until now, which it came with.
    Key(Digest),
}

impl Proof {
    /// Whether it still holds for a new key of a site, where `is_own` tells whether a key is the site's.
    ///
    /// # Errors
    /// 401 that says what became of it.
    pub(super) fn check(
        &self,
        tables: &Tables,
        site: &str,
        new: Digest,
        is_own: impl FnOnce(Digest) -> bool,
    ) -> Result<(), ApiError> {
        let (holds, problem) = match self {
            Self::JoinToken(token) => (join_tokens::is_used_by(tables, token, new)?, join_tokens::outlived()),
            Self::Bearer(token) => {
                let granted = is_granted(tables, &token.hex(), &User::site_agent(site).name)?;
                (granted, ApiError::unauthorized("the bearer token was replaced or revoked just now"))
            }
            Self::Key(key) => {
                (is_own(*key), ApiError::unauthorized("the key was replaced or revoked just now"))
            }
        };
        if holds { Ok(()) } else { Err(problem) }
    }
}
