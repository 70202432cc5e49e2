//! Work that this site does for others.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Answer, Ask, Delivery, Note, Upstream};
use artifacts::Blobs;
use artifacts::signature::TrustedKeys;
use planner::offload::{Refusal, Situation, judge};
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use types::{Artifact, AssignedFunction, AssignmentSpec, Runtime};

use super::counters::Happening;
use super::guests::{Guest, Guests};
use super::{Line, answer};
use crate::Error;
use crate::assignments::Progress;
use crate::outbox::{Parcel, ResultOf};
use crate::publish::files_below;
use crate::work::{Place, Worker, file_name};

/// For how long an offer holds, beside the time that the input may take.
const OFFER_HOLDS: Duration = Duration::from_secs(10);
/// How long it holds for once its input broke off.
const BREAK_LASTS: Duration = Duration::from_secs(60);
/// How often an attempt is begun anew after the agent ended in the middle.
const MOST_RUNS: u32 = 3;
/// How many signs of life are given within the other site's patience.
const SIGNS: u32 = 4;
/// How many attempts of others are here at once at most.
const MOST_GUESTS: usize = 256;

/// What a site judges and works by.
#[derive(Clone)]
pub(crate) struct Means {
    /// Whether it takes work of others at all.
    pub is_willing: bool,
    /// Where unpacked functions are.
    pub functions: PathBuf,
    pub blobs: Blobs,
    /// Whose signatures are needed, if any.
    pub signers: Option<TrustedKeys>,
    pub cpus: usize,
}

/// Judges what others ask, and runs what they hand over. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hosting {
    line: Line,
    worker: Worker,
    guests: Guests,
    means: Arc<Means>,
    offers: Arc<Mutex<HashMap<String, Offered>>>,
    at_work: Arc<Mutex<BTreeMap<String, Arc<AtWork>>>>,
    /// Held by who fetches a function.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// What was offered, until it is taken up.
struct Offered {
    ask: Ask,
    until: Instant,
}

/// A guest that is here.
struct AtWork {
    from: String,
    cancelled: Notify,
    is_running: std::sync::atomic::AtomicBool,
}

/// Why a guest's run ended.
enum End {
    /// Its result is in the outbox.
    Done,
    /// It can't be run here: a sentence.
    GivenBack(String),
}

impl Hosting {
    pub(crate) fn new(line: Line, worker: Worker, guests: Guests, means: Means) -> Self {
        Self {
            line,
            worker,
            guests,
            means: Arc::new(means),
            offers: Arc::default(),
            at_work: Arc::default(),
            fetching: Arc::default(),
        }
    }

    /// Goes on with what was taken before the agent last ended.
    ///
    /// # Errors
    /// If the records can't be read.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.guests.all()?.into_iter().for_each(|guest| self.begin(guest));
        Ok(())
    }

    fn offers(&self) -> MutexGuard<'_, HashMap<String, Offered>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_work(&self) -> MutexGuard<'_, BTreeMap<String, Arc<AtWork>>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whether this site would take what another one asks for.
    pub(super) fn asked(&self, ask: Ask) {
        let path = format!("answers/{}", ask.id);
        let answer = match self.judge(&ask) {
            Ok(offer) => {
                self.line.counters.count(Happening::Offered);
                let way = self.line.links.way().seconds_for(ask.request.input_bytes) * 3.0;
                let until =
                    Instant::now() + OFFER_HOLDS + Duration::try_from_secs_f64(way).unwrap_or_default();
                self.offers().insert(ask.id.clone(), Offered { ask, until });
                Answer::Offer(offer)
            }
            Err(refusal) => {
                self.line.counters.count(Happening::Refused(refusal));
                Answer::Refusal(refusal)
            }
        };
        let line = self.line.clone();
        self.line.tasks.spawn("offload-answer", async move {
            if let Err(error) = line.post(&path, &answer).await {
                debug!(error = %daemon::chain(&error), "an answer to another site is lost");
            }
        });
    }

    fn judge(&self, ask: &Ask) -> Result<planner::offload::Offer, Refusal> {
        if !self.means.is_willing {
            return Err(Refusal::Unwilling);
        }
        if self.worker.storage.is_paused() {
            return Err(Refusal::Full);
        }
        let function = ask.spec.function.as_ref().ok_or(Refusal::Unfit)?;
        if !self.is_fit(function, &ask.spec, &ask.architecture) {
            return Err(Refusal::Unfit);
        }
        judge(&ask.request, &self.situation(&ask.assignment, function), &self.line.links.way())
    }

    /// Whether all that the function needs is here, or can be fetched soon.
    fn is_fit(&self, function: &AssignedFunction, spec: &AssignmentSpec, architecture: &str) -> bool {
        let runtime = function.spec.runtime;
        let has_runtime = self.worker.runtimes.available().iter().any(|(available, _)| *available == runtime);
        let is_for_here = runtime != Runtime::Binary || architecture == std::env::consts::ARCH;
        let artifact = &function.spec.artifact;
        let is_signed = match (&self.means.signers, artifact.digest) {
            (Some(signers), Some(digest)) => {
                let read = |proof: &types::Digest| std::fs::read(self.means.blobs.path(proof)).ok();
                signers.check(&digest, &artifact.signatures, read).is_ok()
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let all = self.worker.assignments.all();
        let serves = |model: &types::AssignedModel| {
            all.iter().filter(|known| matches!(known.progress, Progress::Ready { .. })).any(|known| {
                let here = &known.assignment.spec;
                here.application_namespace == spec.application_namespace && here.models.contains(model)
            })
        };
        has_runtime && is_for_here && is_signed && spec.models.iter().all(serves)
    }

    fn situation(&self, assignment: &str, function: &AssignedFunction) -> Situation {
        let (same, all) = self.worker.under_way(assignment);
        let parallelism = usize::try_from(function.spec.parallelism).unwrap_or(1);
        let places = parallelism.min(self.means.cpus);
        let free = parallelism.saturating_sub(same).min(self.means.cpus.saturating_sub(all));
        let now = Instant::now();
        let offered = {
            let mut offers = self.offers();
            offers.retain(|_, offered| offered.until > now);
            offers.len()
        };
        let is_waiting = |guest: &&Arc<AtWork>| !guest.is_running.load(std::sync::atomic::Ordering::Relaxed);
        let (waiting, here) = {
            let at_work = self.at_work();
            (at_work.values().filter(is_waiting).count(), at_work.len())
        };
        let own = self.worker.assignments.all();
        let waits = |name: &str| self.worker.invocations.has_waiting(name);
        let is_busy =
            own.iter().any(|known| known.progress.bundle().is_some() && waits(known.effective().name()));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Situation {
            places: if here < MOST_GUESTS { count(places) } else { 0 },
            free: count(free),
            promised: count(offered + waiting),
            is_busy,
            free_memory_bytes: free_memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            rate: self.worker.rates.of(function),
            missing_bytes: self.missing(&function.spec.artifact),
        }
    }

    /// How much of a function's code would have to be fetched, in bytes.
    fn missing(&self, artifact: &Artifact) -> u64 {
        let here = artifact.digest.is_some_and(|digest| {
            self.means.functions.join(digest.hex()).exists() || self.means.blobs.has(&digest)
        });
        if here { 0 } else { artifact.size }
    }

    /// Takes an attempt that was handed over: durably before the hub hears that it was.
    pub(super) async fn receive(&self, address: &str, delivery: &Delivery) -> Result<(), Error> {
        let about = |name: &str| delivery.about.get(name).cloned().unwrap_or_default();
        let (attempt, from) = (delivery.id.clone(), about("from"));
        if self.guests.has(&attempt)? {
            return self.line.confirm(address, &attempt).await;
        }
        let offered = self.offers().remove(&about("question"));
        let offered = offered.filter(|offered| offered.ask.from == from);
        let (Some(offered), Some(name)) = (offered, file_name(&delivery.key)) else {
            self.line.forget(delivery);
            self.give_back(from, attempt.clone(), "this site offered nothing of the kind, or too long ago");
            return self.line.confirm(address, &attempt).await;
        };
        let inputs = self.worker.work.join(&attempt).join("in");
        tokio::fs::create_dir_all(&inputs).await.map_err(|error| Error::disk(&inputs, error))?;
        let file = inputs.join(name);
        let fetch = self.line.fetch(address, delivery, &file, || ());
        let patience = offered.ask.spec.offload.clone().unwrap_or_default().patience_seconds;
        if let Err(error) = self.with_signs(&from, &attempt, patience, fetch).await {
            // The delivery comes again, and what came of it is here still.
            let until = offered.until.max(Instant::now() + BREAK_LASTS);
            self.offers().insert(offered.ask.id.clone(), Offered { until, ..offered });
            return Err(error);
        }
        let guest = Guest {
            attempt: attempt.clone(),
            from,
            ticket: about("ticket"),
            assignment: offered.ask.assignment,
            spec: offered.ask.spec,
            invocation: about("invocation"),
            bucket: delivery.bucket.clone(),
            key: delivery.key.clone(),
            etag: about("etag"),
            taken: daemon::now(),
            runs: 0,
        };
        self.guests.put(&guest).await?;
        self.line.counters.count(Happening::Accepted);
        info!(attempt, from = guest.from, key = guest.key, "taken from another site");
        self.begin(guest);
        self.line.confirm(address, &attempt).await
    }

    fn give_back(&self, to: String, attempt: String, reason: &str) {
        self.line.counters.count(Happening::GivenUp);
        let note = Note::GivenBack { from: self.line.site.clone(), attempt, reason: reason.to_owned() };
        self.line.tell(to, note);
    }

    /// Ends an attempt that nobody waits for any more.
    pub(super) fn cancel(&self, from: &str, attempt: &str) {
        if let Some(guest) = self.at_work().get(attempt).filter(|guest| guest.from == from) {
            guest.cancelled.notify_one();
        }
    }

    fn begin(&self, guest: Guest) {
        let here = Arc::new(AtWork {
            from: guest.from.clone(),
            cancelled: Notify::new(),
            is_running: std::sync::atomic::AtomicBool::new(false),
        });
        self.at_work().insert(guest.attempt.clone(), here.clone());
        let hosting = self.clone();
        self.line.tasks.spawn("guest", async move { hosting.host(guest, &here).await });
    }

    /// Runs a guest to its end, and gives signs of life meanwhile.
    async fn host(&self, mut guest: Guest, here: &AtWork) {
        let shutdown = self.line.tasks.shutdown();
        let original = guest.clone();
        let patience = guest.spec.offload.clone().unwrap_or_default().patience_seconds;
        let work = async {
            tokio::select! {
                ended = self.run(&mut guest, here) => Some(ended),
                // It stays on the disk, and goes on at the next start.
                () = shutdown.wait() => None,
                () = here.cancelled.notified() => Some(Ok(None)),
            }
        };
        let ended = self.with_signs(&original.from, &original.attempt, patience, work).await;
        let Some(ended) = ended else { return };
        let attempt = original.attempt;
        let back = match ended {
            Ok(Some(End::Done)) => {
                self.line.counters.count(Happening::Done);
                None
            }
            Ok(Some(End::GivenBack(why))) => Some(why),
            Ok(None) => {
                info!(attempt, "called off by the site that it is of");
                self.line.counters.count(Happening::GivenUp);
                None
            }
            Err(error) => Some(daemon::chain(&error)),
        };
        if let Some(why) = back {
            warn!(attempt, why, "an attempt of another site is given back");
            self.give_back(original.from, attempt.clone(), &why);
        }
        if let Err(error) = self.forget(&attempt).await {
            warn!(attempt, error = %daemon::chain(&error), "can't clean up after another site's attempt");
        }
        self.at_work().remove(&attempt);
    }

    /// Works on an attempt, and gives its site signs of life meanwhile.
    async fn with_signs<T>(
        &self,
        from: &str,
        attempt: &str,
        patience_seconds: u32,
        work: impl Future<Output = T>,
    ) -> T {
        let mut signs = tokio::time::interval(Duration::from_secs(patience_seconds.into()) / SIGNS);
        signs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                ended = &mut work => return ended,
                _ = signs.tick() => {
                    let note = Note::Progress { from: self.line.site.clone(), attempt: attempt.to_owned() };
                    self.line.tell(from.to_owned(), note);
                }
            }
        }
    }

    async fn forget(&self, attempt: &str) -> Result<(), Error> {
        self.guests.remove(attempt).await?;
        let _ = tokio::fs::remove_file(self.worker.invocations.log_file(attempt)).await;
        self.worker.clean(&self.worker.work.join(attempt)).await
    }

    async fn run(&self, guest: &mut Guest, here: &AtWork) -> Result<Option<End>, Error> {
        let attempt = guest.attempt.clone();
        if self.worker.outbox.ids()?.contains(&attempt) {
            return Ok(Some(End::Done));
        }
        let assignment = guest.assignment(&self.line.site);
        let (Some(function), Some(invocation)) = (&assignment.spec.function, guest.invocation(&assignment))
        else {
            return Ok(Some(End::GivenBack("there is no function to run".to_owned())));
        };
        if guest.runs >= MOST_RUNS {
            return Ok(Some(End::GivenBack(format!("the agent ended {MOST_RUNS} times while it ran"))));
        }
        let bundle = match self.bundle(&function.spec.artifact).await {
            Ok(bundle) => bundle,
            Err(why) => return Ok(Some(End::GivenBack(why))),
        };
        let place = self.place(&guest.assignment, function).await;
        here.is_running.store(true, std::sync::atomic::Ordering::Relaxed);
        guest.runs += 1;
        self.guests.put(guest).await?;
        let folder = self.worker.work.join(&attempt);
        for name in ["out", "tmp"] {
            let path = folder.join(name);
            self.worker.clean(&path).await?;
            tokio::fs::create_dir_all(&path).await.map_err(|error| Error::disk(&path, error))?;
        }
        let input = folder.join("in").join(file_name(&guest.key).unwrap_or_default());
        let mut run = self.worker.describe(&invocation, &assignment, function, &bundle, &folder, input);
        run.environment.insert("AVOCET_INVOCATION".into(), guest.invocation.clone());
        let outcome = self.worker.runtimes.run(&run).await;
        drop(place);
        if outcome.succeeded() {
            let made = files_below(&run.output).map_or(0, |files| files.iter().map(|(_, size)| size).sum());
            self.worker.rates.add(function, outcome.duration, made);
        }
        let ended = answer::Ended {
            succeeded: outcome.succeeded(),
            reason: outcome.reason().to_owned(),
            message: outcome.message(),
            duration_milliseconds: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        };
        self.send(guest, ended, run.output, run.log).await?;
        Ok(Some(End::Done))
    }

    /// Puts what became of a guest into the outbox, durably.
    async fn send(
        &self,
        guest: &Guest,
        ended: answer::Ended,
        made: PathBuf,
        log: PathBuf,
    ) -> Result<(), Error> {
        let outbox = &self.worker.outbox;
        let into = outbox.file(&guest.attempt);
        let packed = tokio::task::spawn_blocking(move || answer::pack(ended, &made, &log, &into)).await;
        let (digest, size) = packed.map_err(|_| Error::Interrupted)??;
        daemon::sync_folder(outbox.folder()).map_err(|error| Error::disk(outbox.folder(), error))?;
        let result = ResultOf { site: self.line.site.clone(), ticket: guest.ticket.clone() };
        let parcel = Parcel {
            id: guest.attempt.clone(),
            assignment: String::new(),
            site: guest.from.clone(),
            bucket: String::new(),
            key: String::new(),
            digest,
            size,
            result: Some(result),
        };
        Ok(outbox.add(vec![parcel]).await?)
    }

    /// A place among those that may run here, as soon as one is free.
    async fn place(&self, assignment: &str, function: &AssignedFunction) -> Place {
        let mut changed = self.worker.invocations.subscribe();
        loop {
            changed.borrow_and_update();
            let (_, all) = self.worker.under_way(assignment);
            if all < self.means.cpus
                && let Some(place) = self.worker.take_place(assignment, function)
            {
                return place;
            }
            // The sender is one of ours, so this never fails.
            let _ = changed.changed().await;
        }
    }

    /// The function's unpacked code, fetched if it isn't here.
    async fn bundle(&self, artifact: &Artifact) -> Result<PathBuf, String> {
        let digest = artifact.digest.ok_or("the function's artifact has no digest")?;
        let bundle = self.means.functions.join(digest.hex());
        let _one_at_a_time = self.fetching.lock().await;
        if bundle.exists() {
            return Ok(bundle);
        }
        if !self.means.blobs.has(&digest) {
            let source = Upstream::to(self.line.client.clone());
            let fetched = artifacts::fetch(&self.means.blobs, &digest, artifact.size, &source).await;
            fetched.map_err(|error| format!("the function can't be fetched: {}", daemon::chain(&error)))?;
        }
        let (archive, into) = (self.means.blobs.path(&digest), bundle.clone());
        let unpacked = tokio::task::spawn_blocking(move || artifacts::bundle::unpack(&archive, &into)).await;
        let unpacked = unpacked.map_err(|_| "unpacking was cut off".to_owned())?;
        unpacked.map_err(|error| format!("the function can't be unpacked: {}", daemon::chain(&error)))?;
        Ok(bundle)
    }
}

/// The folders of unpacked functions that guests need.
pub(crate) fn function_folders(guests: &[Guest]) -> impl Iterator<Item = String> {
    let functions = guests.iter().filter_map(|guest| guest.spec.function.as_ref());
    functions.filter_map(|function| Some(function.spec.artifact.digest?.hex()))
}

/// The memory that can be allocated without swapping, as Linux tells it, in bytes; all there could be where it does not.
fn free_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.map_or(u64::MAX, |kibibytes| kibibytes * 1024)
}

/// How many runs a machine takes at once.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_as_linux_tells_it() {
        assert_eq!(free_memory("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), 2 << 20);
        assert_eq!(free_memory("nonsense"), u64::MAX);
    }
}
