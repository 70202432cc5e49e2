//! How wide the ways to locations are: a document there is fetched once a day, and no more of it than tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use types::MeasuredLocation;

use super::{TELLING, WEIGHT};

/// How many ways are measured at most.
const MOST: usize = 32;
/// How much of a document is read at most, in bytes.
const ENOUGH: u64 = 1 << 20;
/// How long that may take; a way so narrow that it takes longer is as wide as what came until then.
const LONGEST: Duration = Duration::from_secs(10);
/// How often a way is measured, and how soon after it could not be.
const EVERY: Duration = Duration::from_secs(24 * 3600);
const AGAIN: Duration = Duration::from_secs(3600);
/// After how many failures a width is no longer told.
const FAILURES: u32 = 3;
/// How many documents may be fetched one after the other, and how long it takes until one more may: who names new ones all
/// the time has nobody fetch more.
const AT_ONCE: u32 = 16;
const ONE_MORE: Duration = Duration::from_secs(1800);

#[derive(Debug, Default)]
struct Way {
    url: String,
    megabits_per_second: Option<f64>,
    due: Option<Instant>,
    failures: u32,
}

/// What is known of the ways to locations, by their names.
#[derive(Debug)]
pub(super) struct Widths {
    /// Those that the site's operator named, with what is fetched there.
    own: BTreeMap<String, String>,
    /// Locations that the operator named: the hub says nothing of them.
    taken: BTreeSet<String>,
    ways: BTreeMap<String, Way>,
    left: u32,
    refilled: Option<Instant>,
}

impl Default for Widths {
    fn default() -> Self {
        Self::new(BTreeMap::new(), BTreeSet::new())
    }
}

impl Widths {
    pub fn new(own: BTreeMap<String, String>, taken: BTreeSet<String>) -> Self {
        let mut widths = Self { own, taken, ways: BTreeMap::new(), left: AT_ONCE, refilled: None };
        widths.declare(&[]);
        widths
    }

    /// Takes over what the hub names. What is fetched from the same place as before is known still.
    pub fn declare(&mut self, declared: &[MeasuredLocation]) {
        let mut wanted: BTreeMap<String, String> = self.own.clone().into_iter().take(MOST).collect();
        for one in declared.iter().filter(|one| !one.probe.is_empty() && !self.taken.contains(&one.location))
        {
            if wanted.len() < MOST {
                wanted.entry(one.location.clone()).or_insert(one.probe.clone());
            }
        }
        let mut known = std::mem::take(&mut self.ways);
        let keep = |(name, url): (String, String)| {
            let same = known.remove(&name).filter(|known| known.url == url);
            (name, same.unwrap_or(Way { url, ..Way::default() }))
        };
        self.ways = wanted.into_iter().map(keep).collect();
    }

    /// A way to measure now, if there is one: the location and what is fetched there.
    pub fn next(&mut self, now: Instant) -> Option<(String, String)> {
        let refilled = *self.refilled.get_or_insert(now);
        let more = now.saturating_duration_since(refilled).as_secs() / ONE_MORE.as_secs();
        if more > 0 {
            self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(AT_ONCE)).min(AT_ONCE);
            self.refilled = Some(now);
        }
        let is_due = |way: &Way| way.due.is_none_or(|due| due <= now);
        let (name, way) = self.ways.iter_mut().find(|(_, way)| is_due(way))?;
        self.left = self.left.checked_sub(1)?;
        way.due = Some(now + AGAIN);
        Some((name.clone(), way.url.clone()))
    }

    /// Notes how wide a way was found, or that it could not be measured.
    pub fn note(&mut self, name: &str, url: &str, found: Option<f64>, now: Instant) {
        let Some(way) = self.ways.get_mut(name).filter(|way| way.url == url) else { return };
        let Some(found) = found else {
            way.failures = way.failures.saturating_add(1);
            if way.failures >= FAILURES {
                way.megabits_per_second = None;
            }
            return;
        };
        let known = way.megabits_per_second;
        let megabits = known.map_or(found, |known| known + WEIGHT * (found - known));
        way.megabits_per_second = Some((megabits * 100.0).round() / 100.0);
        (way.failures, way.due) = (0, Some(now + EVERY));
    }

    /// The width of the way to a location, where it is known.
    pub fn of(&self, name: &str) -> Option<f64> {
        self.ways.get(name)?.megabits_per_second
    }
}

/// Fetches what tells how wide the way is; answers megabits in a second.
pub(super) async fn fetch(url: &str) -> Result<f64, String> {
    // Made anew each time: once a day is seldom, and a connection that is kept tells nothing of the way.
    // A machine without a list of authorities can still ask over plain HTTP.
    let tls = daemon::tls::client_of_all().or_else(|_| daemon::tls::client_of_nobody());
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.map_err(|error| error.to_string())?)
        .connect_timeout(LONGEST)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let begin = Instant::now();
    let asked = client.get(url).header("range", format!("bytes=0-{}", ENOUGH - 1)).send();
    let answer = tokio::time::timeout(LONGEST, asked).await.map_err(|_| "does not answer".to_owned())?;
    let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
    if answer.status().is_redirection() {
        return Err(format!("answers {}, which is not followed", answer.status()));
    }
    let mut chunks = answer.bytes_stream();
    let mut received = 0_u64;
    let reading = async {
        while received < ENOUGH
            && let Some(chunk) = chunks.next().await
        {
            received += chunk.map_err(|error| error.to_string())?.len() as u64;
        }
        Ok::<_, String>(())
    };
    let ended = tokio::time::timeout(LONGEST.saturating_sub(begin.elapsed()), reading).await;
    let is_cut_off = ended.is_err();
    ended.unwrap_or(Ok(()))?;
    width(received, begin.elapsed(), is_cut_off)
}

/// Short documents tell more of the round trip than of the way, unless they took as long as may be.
fn width(bytes: u64, within: Duration, is_cut_off: bool) -> Result<f64, String> {
    if bytes == 0 || bytes < TELLING && !is_cut_off {
        return Err(format!("has {bytes} bytes, which is too little to tell; at least {TELLING} are needed"));
    }
    Ok(bytes as f64 * 8.0 / 1e6 / within.as_secs_f64().max(1e-6))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn declared(names: &[(&str, &str)]) -> Vec<MeasuredLocation> {
        let one = |(location, probe): &(&str, &str)| MeasuredLocation {
            location: (*location).to_owned(),
            address: "a:1".to_owned(),
            probe: (*probe).to_owned(),
        };
        names.iter().map(one).collect()
    }

    fn named(names: &[(&str, &str)]) -> Widths {
        let mut widths = Widths::default();
        widths.declare(&declared(names));
        widths
    }

    #[test]
    fn a_way_is_measured_once_a_day_and_those_without_a_document_never() {
        let start = Instant::now();
        let mut widths = named(&[("line-7", "http://a/x"), ("gate", "")]);
        assert_eq!(widths.next(start), Some(("line-7".to_owned(), "http://a/x".to_owned())));
        assert_eq!(widths.next(start), None);
        widths.note("line-7", "http://a/x", Some(80.0), start);
        assert_eq!((widths.of("line-7"), widths.of("gate")), (Some(80.0), None));
        assert_eq!(widths.next(start + EVERY - Duration::from_secs(1)), None);
        assert!(widths.next(start + EVERY).is_some());
        widths.note("line-7", "http://a/x", Some(40.0), start);
        assert_eq!(widths.of("line-7"), Some(68.0), "as with the parent's: the last ones count");
    }

    #[test]
    fn a_way_that_can_not_be_measured_any_more_is_not_told_any_more() {
        let mut now = Instant::now();
        let mut widths = named(&[("line-7", "http://a/x")]);
        widths.note("line-7", "http://a/x", Some(80.0), now);
        for failure in 1..=FAILURES {
            now += EVERY;
            assert!(widths.next(now).is_some());
            widths.note("line-7", "http://a/x", None, now);
            assert_eq!(widths.of("line-7").is_some(), failure < FAILURES);
        }
        widths.note("line-7", "http://elsewhere/", Some(1.0), now);
        assert_eq!(widths.of("line-7"), None, "that is another way");
    }

    #[test]
    fn the_hub_says_nothing_of_locations_that_the_operator_named() {
        let own = BTreeMap::from([("wide".to_owned(), "http://own/x".to_owned())]);
        let mut widths = Widths::new(own, ["wide".to_owned(), "far".to_owned()].into());
        widths.declare(&declared(&[("wide", "http://b/"), ("far", "http://b/"), ("new", "http://b/")]));
        let urls: Vec<&str> = widths.ways.values().map(|way| way.url.as_str()).collect();
        assert_eq!(urls, ["http://b/", "http://own/x"]);
    }

    #[test]
    fn who_names_new_documents_all_the_time_has_nobody_fetch_more() {
        let (mut widths, mut now, mut fetched) = (Widths::default(), Instant::now(), 0_u32);
        for round in 0..8640 {
            let url = format!("http://a/{round}");
            widths.declare(&declared(&[("a", &url), ("b", &url)]));
            while widths.next(now).is_some() {
                fetched += 1;
            }
            now += Duration::from_secs(10);
        }
        assert!((48..=48 + AT_ONCE).contains(&fetched), "{fetched} in a day");
    }

    #[test]
    fn what_is_too_short_tells_nothing() {
        let second = Duration::from_secs(1);
        assert_eq!(width(1_000_000, second, false), Ok(8.0));
        assert!(width(1000, second, false).unwrap_err().contains("too little to tell"));
        assert_eq!(width(12_500, 10 * second, true), Ok(0.01), "a narrow way");
        assert!(width(0, 10 * second, true).is_err());
    }

    /// A server that answers one request with a head and so many bytes.
    fn server(head: &'static str, bytes: usize) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes());
            // Who has enough doesn't listen to the end.
            let _ = stream.write_all(&vec![0; bytes]);
        });
        url
    }

    #[tokio::test]
    async fn no_more_is_read_than_tells_and_nobody_is_followed_elsewhere() {
        // It never ends by itself.
        let endless = server("HTTP/1.1 200 OK\r\ncontent-length: 99000000\r\n\r\n", 4 << 20);
        assert!(fetch(&endless).await.unwrap() > 0.0);
        let short = server("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 10);
        assert!(fetch(&short).await.unwrap_err().contains("has 10 bytes"));
        let moved =
            server("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 0);
        assert!(fetch(&moved).await.unwrap_err().contains("302"));
        assert!(fetch("http://127.0.0.1:1/").await.is_err());
    }
}
