//! From whom sites fetch an artifact that many of one place want at once.
//!
//! The first has it from the hub, the others from one another while it arrives: a tree, so that it leaves the hub about
//! once, and no site serves more than a few. A site that was let down asks again, and is sent to another or to the hub.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many sites are sent to one site at once.
pub const MOST_EACH: usize = 4;
/// After what time without another question a fetch counts as given up.
const GIVEN_UP: Duration = Duration::from_secs(1800);

/// How a site stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Has,
    /// From another site, or from the hub.
    Fetches {
        from: Option<String>,
        since: Duration,
    },
}

/// Who of one place has an artifact, and who fetches it from whom.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    sites: BTreeMap<String, Standing>,
}

impl Spread {
    /// From whom a site is to fetch it: a site that `serves` and is not among those that let it down; none for the hub.
    /// `now` is a span since any fixed moment.
    pub fn ask(
        &mut self,
        site: &str,
        let_down_by: &[String],
        now: Duration,
        serves: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.sites.remove(site);
        self.sites.retain(|_, standing| match standing {
            Standing::Has => true,
            Standing::Fetches { since, .. } => now.saturating_sub(*since) < GIVEN_UP,
        });
        let may_be_asked = |other: &str| {
            serves(other) && !let_down_by.iter().any(|bad| bad == other) && !self.depends(other, site)
        };
        let ranked = self.sites.keys().filter(|other| may_be_asked(other)).filter_map(|other| {
            let fetching = self.fetching_from(other);
            (fetching < MOST_EACH).then(|| (self.depth(other), fetching, other))
        });
        let from = ranked.min().map(|(_, _, other)| other.clone());
        self.sites.insert(site.to_owned(), Standing::Fetches { from: from.clone(), since: now });
        from
    }

    /// A site has all of it.
    pub fn has(&mut self, site: &str) {
        self.sites.insert(site.to_owned(), Standing::Has);
    }

    /// A site has it no more, if it had.
    pub fn lost(&mut self, site: &str) {
        if self.sites.get(site) == Some(&Standing::Has) {
            self.sites.remove(site);
        }
    }

    /// Whether nobody has it or fetches it.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    fn fetching_from(&self, source: &str) -> usize {
        let is_fed = |standing: &&Standing| matches!(standing, Standing::Fetches { from, .. } if from.as_deref() == Some(source));
        self.sites.values().filter(is_fed).count()
    }

    /// The sites that a site's bytes come through.
    fn sources<'a>(&'a self, site: &'a str) -> impl Iterator<Item = &'a str> {
        let next = |site: &&'a str| match self.sites.get(*site) {
            Some(Standing::Fetches { from: Some(from), .. }) => Some(from.as_str()),
            _ => None,
        };
        std::iter::successors(Some(site), next).take(self.sites.len() + 1)
    }

    /// Whether a site's bytes come through another one.
    fn depends(&self, site: &str, on: &str) -> bool {
        self.sources(site).any(|source| source == on)
    }

    /// How far from the hub: 0 for who has all of it.
    fn depth(&self, site: &str) -> usize {
        if self.sites.get(site) == Some(&Standing::Has) { 0 } else { self.sources(site).count() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOBODY: [String; 0] = [];

    fn name(number: usize) -> String {
        format!("site-{number:02}")
    }

    #[test]
    fn of_fifty_that_ask_at_once_one_is_sent_to_the_hub_and_nobody_serves_many() {
        let mut spread = Spread::default();
        let from: Vec<_> =
            (0..50).map(|site| spread.ask(&name(site), &NOBODY, Duration::ZERO, |_| true)).collect();
        assert_eq!(from.iter().filter(|from| from.is_none()).count(), 1);
        for site in 0..50 {
            let served = from.iter().flatten().filter(|from| **from == name(site)).count();
            assert!(served <= MOST_EACH, "{}: {served}", name(site));
            assert!(spread.depth(&name(site)) <= 4);
        }
    }

    #[test]
    fn who_was_let_down_by_all_is_sent_to_the_hub() {
        let mut spread = Spread::default();
        let ask = |spread: &mut Spread, bad: &[&str]| {
            let bad: Vec<String> = bad.iter().map(|&bad| bad.to_owned()).collect();
            spread.ask("c", &bad, Duration::ZERO, |_| true)
        };
        spread.has("a");
        spread.has("b");
        assert_eq!(ask(&mut spread, &[]).as_deref(), Some("a"));
        assert_eq!(ask(&mut spread, &["a"]).as_deref(), Some("b"));
        assert_eq!(ask(&mut spread, &["a", "b"]), None);
        spread.lost("a");
        assert_eq!(ask(&mut spread, &[]).as_deref(), Some("b"));
        assert_eq!(spread.ask("d", &NOBODY, Duration::ZERO, |site| site == "c").as_deref(), Some("c"));
    }

    #[test]
    fn nobody_waits_for_who_waits_for_them() {
        let mut spread = Spread::default();
        assert_eq!(spread.ask("a", &NOBODY, Duration::ZERO, |_| true), None);
        assert_eq!(spread.ask("b", &NOBODY, Duration::ZERO, |_| true).as_deref(), Some("a"));
        assert_eq!(spread.ask("a", &NOBODY, Duration::ZERO, |_| true), None, "b has its bytes from a");
    }

    #[test]
    fn a_fetch_that_nobody_heard_of_for_long_is_no_source() {
        let mut spread = Spread::default();
        spread.ask("a", &NOBODY, Duration::ZERO, |_| true);
        assert_eq!(spread.ask("b", &NOBODY, GIVEN_UP, |_| true), None);
    }

    proptest! {
        #[test]
        fn whoever_asks_and_ends_in_whatever_order_there_is_a_way_to_the_hub_and_nobody_serves_many(
            steps in proptest::collection::vec((0..12_usize, 0..12_usize, 0..4_u8), 1..200)
        ) {
            let mut spread = Spread::default();
            for (at, (site, other, what)) in steps.into_iter().enumerate() {
                let now = Duration::from_secs(at as u64);
                match what {
                    0 => spread.has(&name(site)),
                    1 => spread.lost(&name(site)),
                    _ => drop(spread.ask(&name(site), &[name(other)], now, |_| true)),
                }
                for site in spread.sites.keys() {
                    let way: Vec<&str> = spread.sources(site).collect();
                    let places: BTreeSet<&str> = way.iter().copied().collect();
                    prop_assert_eq!(way.len(), places.len(), "a circle at {}", site);
                    prop_assert!(spread.fetching_from(site) <= MOST_EACH);
                }
            }
        }
    }
}
