//! How far sites are from one another.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use types::Site;

/// Round-trip times in milliseconds from one site to all that can be reached over measured links.
#[derive(Debug, Clone, Default)]
pub struct Distances(BTreeMap<String, f64>);

#[derive(PartialEq)]
struct Reached<'a> {
    milliseconds: f64,
    site: &'a str,
}

impl Eq for Reached<'_> {}

impl PartialOrd for Reached<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reached<'_> {
    // Reversed: the heap gives the nearest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.milliseconds.total_cmp(&self.milliseconds).then_with(|| other.site.cmp(self.site))
    }
}

impl Distances {
    /// Shortest sums of round-trip times over links, which count in both directions (Dijkstra's algorithm).
    pub fn from(origin: &str, sites: &[Site]) -> Self {
        let mut links: BTreeMap<&str, Vec<(&str, f64)>> = BTreeMap::new();
        for site in sites {
            for link in &site.status.links {
                if link.round_trip_milliseconds.is_finite() && link.round_trip_milliseconds >= 0.0 {
                    links.entry(site.name()).or_default().push((&link.site, link.round_trip_milliseconds));
                    links.entry(&link.site).or_default().push((site.name(), link.round_trip_milliseconds));
                }
            }
        }
        let mut nearest = BTreeMap::new();
        let mut open = BinaryHeap::from([Reached { milliseconds: 0.0, site: origin }]);
        while let Some(Reached { milliseconds, site }) = open.pop() {
            if nearest.contains_key(site) {
                continue;
            }
            nearest.insert(site.to_owned(), milliseconds);
            for (next, step) in links.get(site).into_iter().flatten() {
                if !nearest.contains_key(*next) {
                    open.push(Reached { milliseconds: milliseconds + step, site: next });
                }
            }
        }
        Self(nearest)
    }

    /// The round-trip time to a site, where it is known.
    pub fn to(&self, site: &str) -> Option<f64> {
        self.0.get(site).copied()
    }
}
