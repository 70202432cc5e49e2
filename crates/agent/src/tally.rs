//! Counts that are kept instead of counted again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many records there are of each name: counted at the start, and changed with the commits that change them. Cheap to
/// clone.
#[derive(Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.lock().get(name).copied().unwrap_or(0)
    }

    /// Notes that there are so many more or fewer.
    pub(crate) fn change(&self, name: &str, by: i64) {
        let mut counts = self.lock();
        let now = counts.get(name).copied().unwrap_or(0).saturating_add_signed(by);
        if now == 0 {
            counts.remove(name);
        } else {
            counts.insert(name.to_owned(), now);
        }
    }
}
