//! How far it is to the parent and to named locations, and how wide the way is.
//!
//! Round trips to the parent are those of heartbeats, which are sent anyway; to locations, which the site's operator or its
//! Site at the hub names, a connection is opened now and then. The width of the way is read from artifacts that are fetched anyway; where none are, a little is fetched
//! once a day to see. That of the way to a location is known where a document is named that can be fetched there.

mod locations;
mod widths;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::Client;
use daemon::Shutdown;
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::debug;
use types::{Link, MeasuredLocation, Time};

use crate::Error;
use locations::{Locations, Pace};
use widths::Widths;

/// How many round trips the median is taken of.
const ROUND_TRIPS: usize = 9;
/// From how many round trips on their spread is told.
const ENOUGH: usize = 5;
/// How long a connection may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Shorter transfers tell more of the round trip than of the way's width, in bytes.
const TELLING: u64 = 128 << 10;
/// For how long a width is good until it is looked at again, in seconds.
const DAY: i64 = 24 * 3600;
/// How much a new width counts beside those before.
const WEIGHT: f64 = 0.3;

/// The last round trips to one place, in milliseconds.
#[derive(Debug, Default, Clone)]
struct RoundTrips(VecDeque<f64>);

impl RoundTrips {
    fn add(&mut self, milliseconds: f64) {
        self.0.push_back(milliseconds);
        if self.0.len() > ROUND_TRIPS {
            self.0.pop_front();
        }
    }

    fn median(&self) -> Option<f64> {
        median(self.0.iter().copied())
    }

    /// The median distance from the median.
    fn jitter(&self) -> Option<f64> {
        let middle = self.median().filter(|_| self.0.len() >= ENOUGH)?;
        median(self.0.iter().map(|value| (value - middle).abs()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).map(|middle| (middle * 100.0).round() / 100.0)
}

/// Locations that the site's operator named.
#[derive(Debug, Default, Clone)]
pub(crate) struct Named {
    /// Their URLs, of which host and port count.
    pub locations: BTreeMap<String, String>,
    /// URLs of documents there.
    pub documents: BTreeMap<String, String>,
}

/// How wide the way from the parent is, as it is kept over restarts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Width {
    megabits_per_second: f64,
    /// By this machine's clock.
    at: Time,
}

#[derive(Default)]
struct Measured {
    parent: RoundTrips,
    width: Option<Width>,
    locations: Locations,
    widths: Widths,
}

/// What was measured. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Links {
    file: PathBuf,
    /// The name of the parent; empty where hub and site are one.
    parent: String,
    measured: Arc<Mutex<Measured>>,
    /// Other locations are named than before.
    changed: Arc<Notify>,
}

impl Links {
    /// With the width that was measured before the last start.
    pub(crate) fn open(file: PathBuf, parent: String, named: Named) -> Self {
        let text = std::fs::read(&file).unwrap_or_default();
        let measured = Measured {
            parent: RoundTrips::default(),
            width: serde_json::from_slice(&text).ok(),
            widths: Widths::new(named.documents, named.locations.keys().cloned().collect()),
            locations: Locations::new(named.locations),
        };
        Self { file, parent, measured: Arc::new(Mutex::new(measured)), changed: Arc::default() }
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hub names these locations, and none else any more.
    pub(crate) fn declare(&self, locations: &[MeasuredLocation]) {
        let mut measured = self.measured();
        measured.locations.declare(locations);
        measured.widths.declare(locations);
        drop(measured);
        self.changed.notify_one();
    }

    /// A heartbeat was answered.
    pub(crate) fn answered(&self, after: Duration) {
        self.measured().parent.add(after.as_secs_f64() * 1000.0);
    }

    /// So much came from the parent in so long.
    pub(crate) fn received(&self, bytes: u64, within: Duration) {
        let seconds = within.as_secs_f64();
        if bytes < TELLING || seconds <= 0.0 || self.parent.is_empty() {
            return;
        }
        let found = bytes as f64 * 8.0 / 1e6 / seconds;
        let width = {
            let mut measured = self.measured();
            let known = measured.width.map(|width| width.megabits_per_second);
            let megabits = known.map_or(found, |known| known + WEIGHT * (found - known));
            let width = Width { megabits_per_second: (megabits * 100.0).round() / 100.0, at: daemon::now() };
            measured.width = Some(width);
            width
        };
        // Of no account if it is lost.
        let _ = serde_json::to_vec(&width).map(|text| std::fs::write(&self.file, text));
    }

    /// The way to the hub, as far as it was measured.
    pub(crate) fn way(&self) -> planner::offload::Way {
        if self.parent.is_empty() {
            return planner::offload::Way::none();
        }
        let measured = self.measured();
        planner::offload::Way {
            round_trip_seconds: measured.parent.median().unwrap_or(0.0) / 1000.0,
            bytes_per_second: measured.width.map(|width| width.megabits_per_second * 1e6 / 8.0),
        }
    }

    /// As they are told to the hub.
    pub(crate) fn told(&self) -> Vec<Link> {
        let measured = self.measured();
        let mut links = Vec::new();
        if let Some(round_trip_milliseconds) = measured.parent.median().filter(|_| !self.parent.is_empty()) {
            links.push(Link {
                site: self.parent.clone(),
                round_trip_milliseconds,
                jitter_milliseconds: measured.parent.jitter(),
                megabits_per_second: measured.width.map(|width| width.megabits_per_second),
                ..Link::default()
            });
        }
        for (location, round_trips) in measured.locations.round_trips() {
            let Some(round_trip_milliseconds) = round_trips.median() else { continue };
            links.push(Link {
                location: location.clone(),
                round_trip_milliseconds,
                jitter_milliseconds: round_trips.jitter(),
                megabits_per_second: measured.widths.of(location),
                ..Link::default()
            });
        }
        links
    }

    fn is_width_old(&self) -> bool {
        let age = |width: Width| (daemon::now().0.as_second() - width.at.0.as_second()).abs();
        !self.parent.is_empty() && self.measured().width.is_none_or(|width| age(width) > DAY)
    }
}

/// Whether links changed so much that it matters to anybody: noise does not.
pub(crate) fn is_news(told: &[Link], now: &[Link]) -> bool {
    let same_place = |old: &Link, new: &Link| old.site == new.site && old.location == new.location;
    told.len() != now.len()
        || told.iter().zip(now).any(|(old, new)| {
            !same_place(old, new)
                || differs(old.round_trip_milliseconds, new.round_trip_milliseconds, 1.5, 1.0)
                || changed(old.jitter_milliseconds, new.jitter_milliseconds, 2.0, 2.0)
                || changed(old.megabits_per_second, new.megabits_per_second, 1.5, 0.1)
        })
}

fn changed(old: Option<f64>, new: Option<f64>, factor: f64, least: f64) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => differs(old, new, factor, least),
        (old, new) => old.is_some() != new.is_some(),
    }
}

/// By this factor, and by at least so much.
pub(crate) fn differs(one: f64, other: f64, factor: f64, least: f64) -> bool {
    let (low, high) = (one.min(other), one.max(other));
    high > low * factor && high - low > least
}

/// Measures until the shutdown.
pub(crate) async fn measure(
    links: Links,
    client: Client,
    site: String,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let mut pace = Pace::default();
    loop {
        let are_new = links.measured().locations.are_new();
        let pause = pace.wait(are_new, Instant::now()).mul_f64(0.75 + jitter() / 2.0);
        tokio::select! {
            is_on = shutdown.sleep(pause) => if !is_on { return Ok(()) },
            () = links.changed.notified() => continue,
        }
        // Not at once: sites that join together would ask together.
        if pace.has_begun() && links.is_width_old() {
            look_at_width(&links, &client, &site).await;
        }
        pace.begin(Instant::now());
        let locations = links.measured().locations.urls();
        for (location, url) in &locations {
            let took = round_trip(url).await;
            if let Err(error) = &took {
                debug!(location, url, %error, "can't be reached now");
            }
            links.measured().locations.note(location, url, took.ok());
        }
        look_at_widths(&links).await;
    }
}

/// Fetches what tells how wide the ways to locations are, where it is time to.
async fn look_at_widths(links: &Links) {
    loop {
        let next = links.measured().widths.next(Instant::now());
        let Some((location, url)) = next else { return };
        let found = widths::fetch(&url).await;
        if let Err(problem) = &found {
            debug!(location, url, problem, "can't see how wide the way is");
        }
        links.measured().widths.note(&location, &url, found.ok(), Instant::now());
    }
}

/// From 0 to 1.
fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness it is right, only less spread.
    let _ = daemon::fill_random(&mut byte);
    f64::from(byte[0]) / 255.0
}

/// How long it takes to open a connection.
async fn round_trip(url: &str) -> std::io::Result<Duration> {
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "no host and port");
    let url = Url::parse(url).map_err(|_| invalid())?;
    let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(invalid)?;
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let address = tokio::net::lookup_host(address).await?.next().ok_or_else(invalid)?;
    let started = Instant::now();
    tokio::time::timeout(LONGEST, TcpStream::connect(address)).await??;
    Ok(started.elapsed())
}

/// Fetches a little to see how wide the way is. Where that fails, or the hub is too old for it, nothing is known.
pub(crate) async fn look_at_width(links: &Links, client: &Client, site: &str) {
    let started = Instant::now();
    let asked = client.request(Method::GET, &format!("/avocet/v1/sites/{site}/probe"));
    let Ok(response) = client.send(asked).await else { return };
    let Ok(body) = client.read(response).await else { return };
    links.received(body.len() as u64, started.elapsed());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let folder = tempfile::tempdir().unwrap().keep();
        Links::open(folder.join("links.json"), "cloud".to_owned(), Named::default())
    }

    fn link(round_trip_milliseconds: f64, megabits_per_second: Option<f64>) -> Link {
        Link { site: "cloud".to_owned(), round_trip_milliseconds, megabits_per_second, ..Link::default() }
    }

    #[test]
    fn the_median_is_told_and_one_slow_answer_changes_nothing() {
        let links = links();
        assert_eq!(links.told(), []);
        for milliseconds in [20, 21, 19, 20, 900, 20, 22] {
            links.answered(Duration::from_millis(milliseconds));
        }
        let told = links.told();
        assert_eq!((told[0].round_trip_milliseconds, told[0].jitter_milliseconds), (20.0, Some(1.0)));
        assert_eq!(told[0].megabits_per_second, None);
    }

    #[test]
    fn the_width_is_read_from_large_transfers_and_outlives_a_restart() {
        let links = links();
        assert!(links.is_width_old());
        links.received(1000, Duration::from_millis(1));
        assert!(links.is_width_old(), "too little to tell");
        links.answered(Duration::from_millis(20));
        links.received(1_000_000, Duration::from_secs(1));
        assert_eq!(links.told()[0].megabits_per_second, Some(8.0));
        links.received(1_000_000, Duration::from_secs(4));
        assert_eq!(links.told()[0].megabits_per_second, Some(6.2));
        let again = Links::open(links.file.clone(), "cloud".to_owned(), Named::default());
        assert!(!again.is_width_old());
    }

    #[test]
    fn noise_is_no_news() {
        let told = [link(20.0, Some(8.0))];
        assert!(!is_news(&told, &[link(25.0, Some(9.0))]));
        assert!(is_news(&told, &[link(31.0, Some(8.0))]));
        assert!(is_news(&told, &[link(20.0, Some(3.0))]));
        assert!(is_news(&told, &[link(20.0, None)]));
        assert!(is_news(&[], &told));
        assert!(!is_news(&[link(0.2, None)], &[link(0.9, None)]));
    }

    #[tokio::test]
    async fn the_width_of_the_way_to_a_location_is_told_where_a_document_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let links = Links::open(folder.path().join("links.json"), String::new(), Named::default());
        let one = |probe: &str| MeasuredLocation {
            location: "line-7".to_owned(),
            address: "10.0.0.1:1".to_owned(),
            probe: probe.to_owned(),
        };
        links.declare(&[one("http://127.0.0.1:1/")]);
        links.measured().locations.note("line-7", "tcp://10.0.0.1:1", Some(Duration::from_millis(3)));
        look_at_widths(&links).await;
        assert_eq!(links.told()[0].megabits_per_second, None, "nobody answers there");
        links.measured().widths.note("line-7", "http://127.0.0.1:1/", Some(80.0), Instant::now());
        let told = links.told();
        assert_eq!((told[0].location.as_str(), told[0].megabits_per_second), ("line-7", Some(80.0)));
        links.declare(&[one("")]);
        assert_eq!(links.told()[0].megabits_per_second, None);
    }

    #[tokio::test]
    async fn a_location_is_as_far_as_a_connection_to_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        round_trip(&url).await.unwrap();
        assert!(round_trip("nonsense").await.is_err());
        drop(listener);
        assert!(round_trip(&url).await.is_err());
    }
}
