//! Who waits for something of one site hears of that, and not of what is for all others.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use tokio::sync::Notify;

/// How many there are. Sites that share one wake each other for nothing: a thousandth of all that comes.
const BELLS: usize = 1024;

/// A bell for each site: the same for as long as this lives. Cheap to clone.
#[derive(Clone)]
pub struct Bells {
    bells: Arc<[Notify]>,
    by: RandomState,
}

impl Bells {
    pub fn new() -> Self {
        Self { bells: std::iter::repeat_with(Notify::new).take(BELLS).collect(), by: RandomState::new() }
    }

    /// The bell of a site. Who waits looks for what it waits for after the wait began, so that nothing comes in between.
    pub fn of(&self, site: &str) -> &Notify {
        let hash = usize::try_from(self.by.hash_one(site) % BELLS as u64).unwrap_or_default();
        self.bells.get(hash).unwrap_or(&SILENT)
    }
}

/// Rings for nobody: no site has it.
static SILENT: Notify = Notify::const_new();

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::pin::pin;
    use std::ptr;

    use super::*;

    #[tokio::test]
    async fn a_bell_rings_for_its_site() {
        let bells = Bells::new();
        let mut waits = pin!(bells.of("plant").notified());
        assert!(!waits.as_mut().enable());
        bells.clone().of("plant").notify_waiters();
        waits.await;
    }

    #[test]
    fn sites_are_spread_over_the_bells() {
        let bells = Bells::new();
        let used: HashSet<_> =
            (0..1000).map(|index| ptr::from_ref(bells.of(&format!("site-{index}")))).collect();
        assert!(used.len() > 400, "{}", used.len());
        assert!(!used.contains(&ptr::from_ref(&SILENT)));
    }
}
