//! This site's work that others do.

mod leases;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::{Answer, Answers, Delivery, Note, Question, client};
use daemon::Shutdown;
use objects::Info;
use planner::offload::{Offer, Queue, Request, choose};
use reqwest::Method;
use tokio_util::io::ReaderStream;
use tracing::{debug, info, warn};
use types::{AssignedFunction, Assignment, Offload};

use super::counters::Happening;
use super::{Line, answer};
use crate::Error;
use crate::assignments::Assigned;
use crate::invocations::{Handover, Invocation, State};
use crate::work::Worker;
use leases::{Lease, Leases};

/// How many invocations others have at most.
const MOST_AWAY: usize = 256;
/// How often an invocation is handed to others before it stays.
const MOST_HANDOVERS: u32 = 3;
/// How many of those that wait longest are looked at for one that may go.
const LOOKED_AT: usize = 16;
/// How soon others are asked again after none took it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often leases are looked at while there are some.
const LOOK: Duration = Duration::from_millis(500);
/// How long a question may take, the way to the hub included.
const LONGEST_QUESTION: Duration = Duration::from_secs(3);
/// How much longer than it should an input may take to the hub.
const SLOWNESS: f64 = 4.0;

/// Offers what would wait for long, and minds what others have. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Asking {
    line: Line,
    worker: Worker,
    leases: Leases,
}

/// An invocation that may go.
struct Candidate {
    invocation: Invocation,
    input: Info,
    request: Request,
    /// How many wait before it.
    ahead: usize,
}

impl Asking {
    /// Goes on minding what others had when the agent last ended.
    ///
    /// # Errors
    /// If the records can't be read.
    pub(crate) fn open(line: Line, worker: Worker) -> Result<Self, Error> {
        let leases = Leases::default();
        for invocation in worker.invocations.offloaded()? {
            let Some(Handover { site, attempt }) = invocation.handover else { continue };
            let assigned = worker.assignments.get(&invocation.assignment);
            let offload = assigned.and_then(|known| known.effective().spec.offload.clone());
            leases.put(attempt, Lease::new(invocation.id, site, &offload.unwrap_or_default(), false));
        }
        Ok(Self { line, worker, leases })
    }

    /// Offers and minds until the shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let mut invoked = self.worker.invocations.subscribe();
        let mut assigned = self.worker.assignments.subscribe();
        let mut not_before: HashMap<String, Instant> = HashMap::new();
        loop {
            invoked.borrow_and_update();
            assigned.borrow_and_update();
            for attempt in self.leases.silent() {
                self.reclaim(&attempt, "the site that had taken it fell silent").await?;
            }
            not_before.retain(|_, until| *until > Instant::now());
            let mut is_full = false;
            for known in self.worker.assignments.all() {
                let name = known.effective().name();
                if not_before.contains_key(name) {
                    is_full = true;
                } else if !self.relieve(&known).await? {
                    is_full = true;
                    not_before.insert(name.to_owned(), Instant::now() + ASK_AGAIN);
                }
            }
            let pause = if is_full || !self.leases.is_empty() { LOOK } else { Duration::from_secs(3600) };
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                _ = invoked.changed() => {}
                _ = assigned.changed() => {}
            }
        }
    }

    /// Hands over what others would end earlier, one after the other; answers whether nothing is left to offer.
    async fn relieve(&self, known: &Assigned) -> Result<bool, Error> {
        let assignment = known.effective();
        let spec = &assignment.spec;
        let (Some(function), Some(offload)) = (&spec.function, &spec.offload) else { return Ok(true) };
        let name = assignment.name();
        loop {
            let (running, _) = self.worker.under_way(name);
            let places = function.spec.parallelism;
            let is_busy = known.progress.bundle().is_none() || running >= places as usize;
            if !is_busy || self.leases.count() >= MOST_AWAY {
                return Ok(true);
            }
            let candidate = self.candidate(assignment, function, offload).await?;
            let Some(candidate) = candidate else { return Ok(true) };
            let queue = Queue {
                places,
                running: u32::try_from(running).unwrap_or(u32::MAX),
                ahead: u32::try_from(candidate.ahead).unwrap_or(u32::MAX),
                rate: self.worker.rates.of(function),
            };
            let answers = match self.ask(name, function, candidate.request).await {
                Ok(answers) => answers,
                Err(error) => {
                    debug!(error = %daemon::chain(&error), "others can't be asked now");
                    return Ok(false);
                }
            };
            let Some(site) = self.best(&queue, &candidate.request, offload, &answers) else {
                return Ok(false);
            };
            // It may have begun here meanwhile.
            if self.worker.invocations.withdraw(name, &candidate.invocation.id) {
                self.hand_over(candidate, function, offload, site, answers.id).await?;
            }
        }
    }

    /// Of the invocations that would wait longest, the last that may go.
    async fn candidate(
        &self,
        assignment: &Assignment,
        function: &AssignedFunction,
        offload: &Offload,
    ) -> Result<Option<Candidate>, Error> {
        let invocations = &self.worker.invocations;
        let waiting = invocations.waiting(assignment.name());
        for (index, id) in invocations.last_waiting(assignment.name(), LOOKED_AT).into_iter().enumerate() {
            let Some(invocation) = invocations.get(&id)? else { continue };
            if !invocation.is_of(assignment) {
                continue;
            }
            if invocation.state != State::Pending || invocation.handovers >= MOST_HANDOVERS {
                continue;
            }
            // What became of its input is told when its turn comes.
            let Ok(input) = self.worker.objects.head(&invocation.bucket, &invocation.key).await else {
                continue;
            };
            if input.etag != invocation.etag || input.size > offload.max_input_bytes.bytes() {
                continue;
            }
            let rate = self.worker.rates.of(function);
            let age = (daemon::now().0.as_second() - invocation.created.0.as_second()).max(0) as f64;
            let left = offload.within_seconds.map(|within| f64::from(within) - age);
            let request = Request {
                input_bytes: input.size,
                output_bytes: rate.map_or(input.size, |rate| rate.output_bytes as u64),
                memory_bytes: function.spec.memory.bytes(),
                service_seconds: rate.map(|rate| rate.service_seconds),
                // Of what is late already the earliest end is best.
                within_seconds: left.filter(|left| *left > 0.0),
            };
            let ahead = waiting.saturating_sub(index + 1);
            return Ok(Some(Candidate { invocation, input, request, ahead }));
        }
        Ok(None)
    }

    async fn ask(
        &self,
        assignment: &str,
        function: &AssignedFunction,
        request: Request,
    ) -> Result<Answers, client::Error> {
        let question =
            Question { assignment: assignment.to_owned(), function: function.fingerprint(), request };
        let path = self.line.path("questions");
        let asked = self.line.client.request(Method::POST, &path).timeout(LONGEST_QUESTION);
        self.line.client.json(asked.json(&question)).await
    }

    /// The site that is handed it, if one is enough better than this one.
    fn best(&self, queue: &Queue, request: &Request, offload: &Offload, answers: &Answers) -> Option<String> {
        let mut offers: Vec<(&String, Offer)> = Vec::new();
        for (site, answer) in &answers.answers {
            match answer {
                Answer::Offer(offer) => offers.push((site, *offer)),
                Answer::Refusal(why) => self.line.counters.count(Happening::RefusedBy(*why)),
            }
        }
        let (sites, offers): (Vec<&String>, Vec<Offer>) = offers.into_iter().unzip();
        let way = self.line.links.way();
        let (index, _) = choose(queue.finish_seconds(), request, &way, &offers, offload.margin_percent)?;
        sites.get(index).map(|site| (*site).clone())
    }

    /// Notes durably who has it, then sends its input.
    async fn hand_over(
        &self,
        candidate: Candidate,
        function: &AssignedFunction,
        offload: &Offload,
        site: String,
        question: String,
    ) -> Result<(), Error> {
        let Candidate { mut invocation, input, .. } = candidate;
        let nonce = daemon::random_hex(8).map_err(|error| Error::disk("/dev/urandom".as_ref(), error))?;
        let begin: String = invocation.id.chars().take(24).collect();
        invocation.handovers += 1;
        let attempt = format!("{begin}-{}-{nonce}", invocation.handovers);
        invocation.state = State::Offloaded;
        invocation.changed = daemon::now();
        invocation.handover = Some(Handover { site: site.clone(), attempt: attempt.clone() });
        self.leases.put(attempt.clone(), Lease::new(invocation.id.clone(), site.clone(), offload, true));
        if let Err(error) = self.worker.invocations.update(&invocation).await {
            self.leases.take(&attempt, &site);
            self.worker.invocations.wait(&invocation.assignment, invocation.id);
            return Err(error.into());
        }
        info!(id = invocation.id, key = invocation.key, site, "handed to another site");
        self.line.counters.count(Happening::HandedOver);
        let (asking, fingerprint) = (self.clone(), function.fingerprint().to_string());
        self.line.tasks.spawn("offload-handover", async move {
            let digest = input.digest.to_string();
            let about = [
                ("assignment", &*invocation.assignment),
                ("function", &fingerprint),
                ("question", &question),
                ("invocation", &invocation.id),
                ("bucket", &invocation.bucket),
                ("key", &invocation.key),
                ("etag", &invocation.etag),
                ("digest", &digest),
            ];
            match asking.send(&attempt, &site, &invocation, input.size, &about).await {
                Ok(()) => {
                    asking.leases.heard(&attempt, &site);
                }
                Err(error) => {
                    let why = format!("site {site} could not be sent its input: {}", daemon::chain(&error));
                    asking.take_back(&attempt, &why).await;
                }
            }
        });
        Ok(())
    }

    async fn send(
        &self,
        attempt: &str,
        site: &str,
        invocation: &Invocation,
        size: u64,
        about: &[(&str, &str)],
    ) -> Result<(), Error> {
        let (info, file) = self.worker.objects.get(&invocation.bucket, &invocation.key).await?;
        if info.etag != invocation.etag {
            return Err(Error::Damaged("its input was replaced meanwhile".to_owned()));
        }
        let expected = Duration::try_from_secs_f64(self.line.links.way().seconds_for(size) * SLOWNESS);
        let client = self.line.client.clone().without_patience();
        let request = client
            .request(Method::PUT, &self.line.path(&format!("tasks/{site}/{attempt}")))
            .query(about)
            .header("content-length", size)
            .timeout(Duration::from_secs(30) + expected.unwrap_or_default())
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        client.send(request).await?;
        Ok(())
    }

    /// Another site is at an attempt.
    pub(super) fn progresses(&self, from: String, attempt: String) {
        if !self.leases.heard(&attempt, &from) {
            let note = Note::Cancel { from: self.line.site.clone(), attempt };
            self.line.tell(from, note);
        }
    }

    /// Another site does not do an attempt.
    pub(super) fn given_back(&self, from: &str, attempt: &str, reason: &str) {
        if !self.leases.is_of(attempt, from) {
            return;
        }
        let why = format!("site {from} gave it back: {}", reason.chars().take(500).collect::<String>());
        let (asking, attempt) = (self.clone(), attempt.to_owned());
        self.line.tasks.spawn("offload-given-back", async move { asking.take_back(&attempt, &why).await });
    }

    /// As [`Self::reclaim`]; where that fails, the lease's end repeats it.
    async fn take_back(&self, attempt: &str, why: &str) {
        if let Err(error) = self.reclaim(attempt, why).await {
            warn!(attempt, error = %daemon::chain(&error), "can't take an attempt back; it is tried again");
        }
    }

    /// Takes an invocation back: from now on no result of the attempt is taken, and it waits for its turn here.
    async fn reclaim(&self, attempt: &str, why: &str) -> Result<(), Error> {
        let Some(lease) = self.leases.take_any(attempt) else { return Ok(()) };
        let site = lease.site.clone();
        let taken_back = self.put_back(&lease, attempt, why).await;
        if taken_back.is_err() {
            self.leases.put(attempt.to_owned(), lease);
            return taken_back;
        }
        let note = Note::Cancel { from: self.line.site.clone(), attempt: attempt.to_owned() };
        self.line.tell(site, note);
        Ok(())
    }

    async fn put_back(&self, lease: &Lease, attempt: &str, why: &str) -> Result<(), Error> {
        let Some(mut invocation) = self.of_attempt(lease, attempt)? else { return Ok(()) };
        info!(id = invocation.id, site = lease.site, why, "taken back");
        self.line.counters.count(Happening::Reclaimed);
        invocation.state = State::Pending;
        invocation.changed = daemon::now();
        invocation.handover = None;
        invocation.reason = "Reclaimed".to_owned();
        invocation.message = why.to_owned();
        Ok(self.worker.invocations.reclaim(invocation).await?)
    }

    /// The invocation that an attempt is of, if it is its present one.
    fn of_attempt(&self, lease: &Lease, attempt: &str) -> Result<Option<Invocation>, Error> {
        let found = self.worker.invocations.get(&lease.invocation)?;
        let is_present = |handover: &Handover| handover.attempt == attempt && handover.site == lease.site;
        Ok(found.filter(|found| {
            found.state == State::Offloaded && found.handover.as_ref().is_some_and(is_present)
        }))
    }

    /// Takes what became of an attempt.
    pub(super) async fn receive(&self, address: &str, delivery: &Delivery) -> Result<(), Error> {
        let attempt = delivery.id.as_str();
        let from = delivery.about.get("from").map(String::as_str).unwrap_or_default();
        if !self.leases.is_of(attempt, from) {
            return self.drop_result(address, delivery, from).await;
        }
        let file = self.worker.work.join(format!("{attempt}.answer"));
        let comes = || {
            self.leases.heard(attempt, from);
        };
        comes();
        self.line.fetch(address, delivery, &file, comes).await?;
        // From here on it is this result that counts, unless the lease ended while it was fetched.
        let Some(lease) = self.leases.take(attempt, from) else {
            let _ = tokio::fs::remove_file(&file).await;
            return self.drop_result(address, delivery, from).await;
        };
        let taken = self.take_in(&lease, attempt, &file).await;
        let _ = tokio::fs::remove_file(&file).await;
        match taken {
            Ok(()) => self.line.confirm(address, attempt).await,
            // It is no result at all, and would not become one.
            Err(Error::Damaged(problem)) => {
                let why = format!("site {from} sent a result that can't be used: {problem}");
                self.put_back(&lease, attempt, &why).await?;
                self.line.confirm(address, attempt).await
            }
            Err(error) => {
                self.restore(lease, attempt)?;
                Err(error)
            }
        }
    }

    async fn drop_result(&self, address: &str, delivery: &Delivery, from: &str) -> Result<(), Error> {
        let attempt = delivery.id.as_str();
        self.line.forget(delivery);
        info!(attempt, from, "a result came that nobody waits for any more; it is dropped");
        self.line.counters.count(Happening::Dropped);
        self.line.confirm(address, attempt).await
    }

    /// Settles an invocation with what another site made.
    async fn take_in(&self, lease: &Lease, attempt: &str, file: &std::path::Path) -> Result<(), Error> {
        let Some(mut invocation) = self.of_attempt(lease, attempt)? else { return Ok(()) };
        let (name, id) = (invocation.assignment.clone(), invocation.id.clone());
        let assigned = self.worker.assignments.get(&name).map(|known| known.effective().clone());
        let assigned = assigned.filter(|assignment| invocation.is_of(assignment));
        let function = assigned.as_ref().and_then(|assignment| assignment.spec.function.as_ref());
        let (Some(assignment), Some(function)) = (&assigned, function) else {
            return self.put_back(lease, attempt, "its component is no longer assigned").await;
        };
        let folder = self.worker.work.join(&id);
        let (from, made, log) = (file.to_owned(), folder.join("out"), self.worker.invocations.log_file(&id));
        let unpacked = tokio::task::spawn_blocking(move || answer::unpack(&from, &made, &log)).await;
        let ended = unpacked.map_err(|_| Error::Interrupted)??;
        self.line.counters.count(Happening::Returned);
        invocation.attempts += 1;
        invocation.duration_milliseconds = ended.duration_milliseconds;
        invocation.ran_at.clone_from(&lease.site);
        invocation.handover = None;
        let wait = if ended.succeeded {
            self.worker.settle(invocation, assignment).await?
        } else {
            let message = format!("at site {}: {}", lease.site, ended.message);
            self.worker.retry_or_fail(invocation, function, &folder, &ended.reason, message).await?
        };
        if let Some(wait) = wait {
            self.worker.wait_again(&name, id, wait, &self.line.tasks);
        }
        Ok(())
    }

    /// After a failure of the disk: the delivery is told of again, or what was noted goes on here.
    fn restore(&self, lease: Lease, attempt: &str) -> Result<(), Error> {
        if self.of_attempt(&lease, attempt)?.is_some() {
            self.leases.put(attempt.to_owned(), lease);
            return Ok(());
        }
        let open = self.worker.invocations.get(&lease.invocation)?.filter(|found| !found.has_ended());
        if let Some(invocation) = open {
            self.worker.wait_again(&invocation.assignment, invocation.id, ASK_AGAIN, &self.line.tasks);
        }
        Ok(())
    }
}
