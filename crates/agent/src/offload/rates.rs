//! How fast functions were at this site, since the agent started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use planner::offload::Rate;
use types::{AssignedFunction, Digest};

/// How many functions are remembered.
const MOST: usize = 1024;

/// Rates by the fingerprints of functions. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Rates(Arc<Mutex<HashMap<Digest, Rate>>>);

impl Rates {
    /// A run succeeded and made so many bytes.
    pub(crate) fn add(&self, function: &AssignedFunction, took: Duration, bytes: u64) {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= MOST {
            rates.clear();
        }
        rates.entry(function.fingerprint()).or_default().add(took.as_secs_f64(), bytes as f64);
    }

    pub(crate) fn of(&self, function: &AssignedFunction) -> Option<Rate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&function.fingerprint()).copied()
    }
}
