//! The locations to which the way is measured, and how often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use types::MeasuredLocation;

use super::{ENOUGH, RoundTrips};

/// How many locations are measured at most.
const MOST: usize = 32;
/// How often a connection to each location is opened.
const EVERY: Duration = Duration::from_secs(300);
/// How often where a location is new, until there is enough to tell of.
const AT_FIRST: Duration = Duration::from_secs(5);
/// How many rounds may be that early before as many calm ones have passed: who names new locations all the time has
/// nobody asked more often.
const EARLY: u32 = 10;

/// After how many attempts in a row that failed nothing is known of the way any more.
const LOST: u32 = 3;

/// A location and what is known of the way there.
#[derive(Debug, Default)]
struct Location {
    url: String,
    round_trips: RoundTrips,
    attempts: usize,
    /// Attempts that failed since the last that did not.
    failures: u32,
}

/// All locations, by name.
#[derive(Debug, Default)]
pub(super) struct Locations {
    /// Those that the site's operator named, with their URLs.
    own: BTreeMap<String, String>,
    all: BTreeMap<String, Location>,
}

impl Locations {
    pub fn new(own: BTreeMap<String, String>) -> Self {
        let mut locations = Self { own, all: BTreeMap::new() };
        locations.declare(&[]);
        locations
    }

    /// Takes over which ones the hub names. Those of the site's operator come first, and are not given another address.
    pub fn declare(&mut self, declared: &[MeasuredLocation]) {
        let named = declared.iter().map(|one| (one.location.clone(), format!("tcp://{}", one.address)));
        let mut wanted: BTreeMap<String, String> = self.own.clone().into_iter().take(MOST).collect();
        for (location, url) in named {
            if wanted.len() < MOST {
                wanted.entry(location).or_insert(url);
            }
        }
        let mut known = std::mem::take(&mut self.all);
        let keep = |(name, url): (String, String)| {
            let same = known.remove(&name).filter(|known| known.url == url);
            (name, same.unwrap_or(Location { url, ..Location::default() }))
        };
        self.all = wanted.into_iter().map(keep).collect();
    }

    /// Their names and URLs.
    pub fn urls(&self) -> Vec<(String, String)> {
        self.all.iter().map(|(name, location)| (name.clone(), location.url.clone())).collect()
    }

    /// Notes an attempt to get to a location at its URL, and how long it took if it got there. Where several fail in a row,
    /// how far it was is not told any more.
    pub fn note(&mut self, name: &str, url: &str, took: Option<Duration>) {
        let Some(location) = self.all.get_mut(name).filter(|location| location.url == url) else { return };
        location.attempts = location.attempts.saturating_add(1);
        match took {
            Some(took) => {
                location.failures = 0;
                location.round_trips.add(took.as_secs_f64() * 1000.0);
            }
            None => {
                location.failures = location.failures.saturating_add(1);
                if location.failures >= LOST {
                    location.round_trips = RoundTrips::default();
                }
            }
        }
    }

    pub fn round_trips(&self) -> impl Iterator<Item = (&String, &RoundTrips)> {
        self.all.iter().map(|(name, location)| (name, &location.round_trips))
    }

    /// Whether there are some of which too little is known yet, though not for want of trying.
    pub fn are_new(&self) -> bool {
        self.all.values().any(|location| location.attempts < ENOUGH)
    }
}

/// When the next round is due.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    early: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last: None, early: EARLY }
    }
}

impl Pace {
    /// For how long to wait.
    pub fn wait(&self, are_new: bool, now: Instant) -> Duration {
        let pause = if are_new && self.early > 0 { AT_FIRST } else { EVERY };
        self.last.map_or(Duration::ZERO, |last| pause.saturating_sub(now.saturating_duration_since(last)))
    }

    /// Whether any round was made.
    pub fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// A round is made.
    pub fn begin(&mut self, now: Instant) {
        // Pauses vary, so that sites that started together don't stay together.
        let is_calm = self.last.is_some_and(|last| now.saturating_duration_since(last) >= EVERY / 2);
        self.early = if is_calm { (self.early + 1).min(EARLY) } else { self.early.saturating_sub(1) };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(names: &[(&str, &str)]) -> Vec<MeasuredLocation> {
        let one = |(location, address): &(&str, &str)| MeasuredLocation {
            location: (*location).to_owned(),
            address: (*address).to_owned(),
            probe: String::new(),
        };
        names.iter().map(one).collect()
    }

    fn urls(locations: &Locations) -> Vec<String> {
        locations.urls().into_iter().map(|(name, url)| format!("{name}={url}")).collect()
    }

    #[test]
    fn what_the_hub_names_joins_what_the_operator_named_and_does_not_replace_it() {
        let own = [("here".to_owned(), "http://here:80".to_owned())].into();
        let mut locations = Locations::new(own);
        locations.declare(&declared(&[("gateway", "[::1]:502"), ("here", "elsewhere:1")]));
        assert_eq!(urls(&locations), ["gateway=tcp://[::1]:502", "here=http://here:80"]);
        locations.note("gateway", "tcp://[::1]:502", Some(Duration::from_millis(3)));
        let known = |locations: &Locations| -> Vec<Option<f64>> {
            locations.round_trips().map(|(_, round_trips)| round_trips.median()).collect()
        };
        assert_eq!(known(&locations), [Some(3.0), None]);
        locations.declare(&declared(&[("gateway", "[::1]:502")]));
        assert_eq!(known(&locations), [Some(3.0), None], "what stays is known");
        locations.declare(&declared(&[("gateway", "[::1]:503")]));
        assert_eq!(known(&locations), [None, None], "elsewhere is another way");
        locations.note("gateway", "tcp://[::1]:502", Some(Duration::from_millis(3)));
        assert_eq!(known(&locations), [None, None], "an answer from where it was");
        locations.declare(&[]);
        assert_eq!(urls(&locations), ["here=http://here:80"]);
    }

    #[test]
    fn a_location_that_is_not_reached_any_more_is_no_longer_told_of_until_it_is() {
        let mut locations = Locations::new([("gateway".to_owned(), "tcp://a:1".to_owned())].into());
        let mut median = |took: Option<u64>| {
            locations.note("gateway", "tcp://a:1", took.map(Duration::from_millis));
            locations.round_trips().next().and_then(|(_, round_trips)| round_trips.median())
        };
        assert_eq!(median(Some(3)), Some(3.0));
        for _ in 1..LOST {
            assert_eq!(median(None), Some(3.0), "one connection that fails tells little");
        }
        assert_eq!(median(Some(5)), Some(5.0));
        for _ in 1..LOST {
            median(None);
        }
        assert_eq!(median(None), None);
        assert_eq!(median(Some(7)), Some(7.0), "of before it was lost nothing counts");
    }

    #[test]
    fn no_more_locations_are_measured_than_may_be() {
        let names: Vec<String> = (0..100).map(|number| format!("l{number}")).collect();
        let named: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a:1")).collect();
        let mut locations = Locations::new([("zzz".to_owned(), "http://own:1".to_owned())].into());
        locations.declare(&declared(&named));
        assert_eq!(locations.urls().len(), MOST);
        assert!(urls(&locations).contains(&"zzz=http://own:1".to_owned()));
    }

    #[test]
    fn a_location_is_new_until_it_was_tried_often_enough() {
        let mut locations = Locations::default();
        assert!(!locations.are_new());
        locations.declare(&declared(&[("a", "a:1")]));
        for _ in 0..ENOUGH {
            assert!(locations.are_new());
            locations.note("a", "tcp://a:1", None);
        }
        assert!(!locations.are_new());
    }

    #[test]
    fn who_names_new_locations_all_the_time_has_nobody_asked_more_often() {
        let (mut pace, mut now, mut rounds) = (Pace::default(), Instant::now(), 0_u32);
        let end = now + Duration::from_secs(24 * 3600);
        while now < end {
            now += pace.wait(true, now);
            pace.begin(now);
            rounds += 1;
        }
        let calm = u32::try_from(24 * 3600 / EVERY.as_secs()).unwrap();
        assert!(rounds <= 2 * calm + EARLY, "{rounds} rounds, {calm} calm ones");
        assert!(pace.wait(false, now) > AT_FIRST);
    }
}
