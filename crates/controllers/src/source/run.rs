//! The loop that gives Sources their turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::Shutdown;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use store::{Error, Store};
use types::{Kind, Source, SourceSpec};

use super::cluster::Cluster;
use super::errands::Errands;
use super::schedule::{Schedule, SourceQueue};
use super::work::Worker;
use crate::Events;

/// How many Sources have their turn at once.
const AT_ONCE: usize = 8;
/// How long nothing is looked at, at most: a watch tells what changes in between.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What Sources need beside the store.
#[derive(Clone)]
pub struct SourceOptions {
    /// What git may do, and where it keeps what it fetched.
    pub git: sources::Options,
    /// Who answers what is asked in the name of service accounts.
    pub cluster: Arc<dyn Cluster>,
    /// Who asks for Sources to be looked at.
    pub queue: SourceQueue,
    /// What sites are to fetch.
    pub errands: Errands,
}

/// Follows all Sources until the shutdown.
///
/// # Errors
/// Never yet; call it again if it does.
pub async fn run_sources(
    store: Store,
    events: Events,
    options: SourceOptions,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let SourceOptions { git, cluster, queue, errands } = options;
    let worker = Worker { store: store.clone(), events, cluster, git: Arc::new(git), errands };
    let mut schedule = Schedule::default();
    let mut turns = FuturesUnordered::new();
    let uids: Vec<String> = list(&store).into_iter().map(|source| source.metadata.uid).collect();
    sources::forget_all_but(&worker.git, &uids);
    loop {
        let version = store.version();
        let sources = list(&store);
        schedule.keep_only(&sources);
        queue.keep_only(&sources);
        let now = Instant::now();
        for source in sources {
            if turns.len() < AT_ONCE && schedule.begin(&source, &queue, now) {
                let worker = worker.clone();
                turns.push(async move { (worker.turn(&source).await, source) });
            }
        }
        let next = schedule.next().map_or(LOOK_AGAIN, |next| next.saturating_duration_since(now));
        // While all places are taken, only the end of a turn matters.
        let is_full = turns.len() >= AT_ONCE;
        let changed = async {
            match store.watch_kind(SourceSpec::PLURAL, version) {
                Ok(mut watch) => drop(watch.next().await),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            Some((is_well, source)) = turns.next(), if !turns.is_empty() => {
                schedule.end(&source, is_well, spread(), Instant::now());
            }
            () = changed, if !is_full => {}
            () = queue.asked(), if !is_full => {}
            () = tokio::time::sleep(next.min(LOOK_AGAIN)), if !is_full => {}
        }
    }
}

fn list(store: &Store) -> Vec<Source> {
    let (objects, _) = store.list(SourceSpec::PLURAL, None);
    objects.iter().filter_map(|object| object.resource().ok()).collect()
}

/// Something from 0 to 1.
fn spread() -> f64 {
    let mut random = [0];
    // Without random numbers Sources are just not kept apart.
    let _ = daemon::fill_random(&mut random);
    f64::from(random[0]) / 255.0
}
