//! Runs waiting invocations, as many at once as their functions allow.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::{Shutdown, Tasks};
use objects::Objects;
use runtimes::{Run, Runtimes};
use serde_json::json;
use tracing::{debug, info, warn};
use types::{AssignedFunction, Assignment};

use crate::Error;
use crate::assignments::{Assigned, Assignments};
use crate::bundles::Bundles;
use crate::invocations::{Bounds, Invocation, Invocations, State};
use crate::offload::Rates;
use crate::outbox::Outbox;
use crate::prepare::served_name;
use crate::publish::{collect, files_below, publish};
use crate::storage::Storage;

/// How often an invocation may be cut off by the end of the agent before it is taken to be the cause.
const MOST_INTERRUPTIONS: u32 = 5;
/// How soon what failed for reasons of the site's own is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How many invocations of all functions run at once at most.
const MOST_RUNNING: usize = 64;

/// How many invocations are dismissed in one commit.
const DISMISSED_AT_ONCE: usize = 500;
/// After how many looks at the queue old invocations are looked for.
const FORGET_EVERY: u32 = 256;

/// What running takes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Worker {
    pub work: PathBuf,
    pub bundles: Bundles,
    pub storage: Storage,
    pub runtimes: Runtimes,
    pub objects: Objects,
    pub outbox: Outbox,
    pub invocations: Invocations,
    pub assignments: Assignments,
    /// Where the site's models answer.
    pub inference: String,
    pub inference_port: u16,
    pub running: Arc<Mutex<HashMap<String, usize>>>,
    /// How fast functions were here.
    pub rates: Rates,
}

/// Starts invocations until the shutdown.
pub(crate) async fn run(worker: Worker, tasks: Tasks, shutdown: Shutdown) -> Result<(), Error> {
    let (mut invoked, mut assigned) = (worker.invocations.subscribe(), worker.assignments.subscribe());
    let mut stored = worker.storage.subscribe();
    let mut looks = 0_u32;
    loop {
        invoked.borrow_and_update();
        assigned.borrow_and_update();
        stored.borrow_and_update();
        if looks.is_multiple_of(FORGET_EVERY) {
            worker.invocations.forget_oldest(Bounds::default()).await?;
        }
        looks = looks.wrapping_add(1);
        let all = worker.assignments.all();
        worker.dismiss_others(&all, &tasks).await?;
        // What functions make would need the space that is left.
        if !worker.storage.is_paused() {
            all.iter().for_each(|known| worker.start_waiting(known, &tasks));
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = invoked.changed() => {}
            _ = assigned.changed() => {}
            _ = stored.changed() => {}
        }
    }
}

/// A place among those that may run; gives it back when dropped, and tells those who wait for one.
pub(crate) struct Place {
    assignment: String,
    running: Arc<Mutex<HashMap<String, usize>>>,
    invocations: Invocations,
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = running.get_mut(&self.assignment) {
                *count -= 1;
            }
        }
        self.invocations.tell();
    }
}

impl Worker {
    fn start_waiting(&self, known: &Assigned, tasks: &Tasks) {
        let assignment = known.effective();
        let (Some(function), Some(bundle)) = (&assignment.spec.function, known.progress.bundle()) else {
            return;
        };
        let name = assignment.name();
        while self.invocations.has_waiting(name) {
            let Some(place) = self.take_place(name, function) else { return };
            let Some(id) = self.invocations.take_waiting(name) else { return };
            let (worker, assignment, bundle) = (self.clone(), assignment.clone(), bundle.clone());
            let retries = tasks.clone();
            tasks.spawn("invocation", async move {
                let outcome = worker.process(&assignment, &bundle, &id, &retries).await;
                drop(place);
                let wait = match outcome {
                    Ok(wait) => wait,
                    Err(error) => {
                        warn!(id, error = %daemon::chain(&error), "invocation can't go on; it is tried again");
                        Some(AGAIN)
                    }
                };
                if let Some(wait) = wait {
                    worker.wait_again(assignment.name(), id, wait, &retries);
                }
            });
        }
    }

    /// Ends what waits for components that are not at the site any more.
    async fn dismiss_others(&self, all: &[Assigned], tasks: &Tasks) -> Result<(), Error> {
        let names: BTreeSet<String> = all.iter().map(|known| known.assignment.name().to_owned()).collect();
        let mut failure = None;
        for (name, ids) in self.invocations.take_others(&names) {
            for ids in ids.chunks(DISMISSED_AT_ONCE) {
                if failure.is_none() {
                    failure = self.dismiss(ids.to_vec(), tasks).await.err();
                }
                if failure.is_some() {
                    ids.iter().for_each(|id| self.wait_again(&name, id.clone(), AGAIN, tasks));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Ends invocations whose component is not at the site any more. Of those that had run the outputs are published.
    async fn dismiss(&self, ids: Vec<String>, tasks: &Tasks) -> Result<(), Error> {
        for invocation in self.invocations.dismiss(ids).await? {
            let (worker, retries) = (self.clone(), tasks.clone());
            let (name, id) = (invocation.assignment.clone(), invocation.id.clone());
            tasks.spawn("invocation", async move {
                if let Err(error) = worker.finish(invocation).await {
                    warn!(id, error = %daemon::chain(&error), "outputs can't be published; it is tried again");
                    worker.wait_again(&name, id, AGAIN, &retries);
                }
            });
        }
        Ok(())
    }

    /// Puts an invocation back into the queue after a while.
    pub(crate) fn wait_again(&self, assignment: &str, id: String, wait: Duration, tasks: &Tasks) {
        let (invocations, assignment, shutdown) =
            (self.invocations.clone(), assignment.to_owned(), tasks.shutdown());
        tasks.spawn("invocation-retry", async move {
            if shutdown.sleep(wait).await {
                invocations.wait(&assignment, id);
            }
        });
    }

    /// How many runs of an assignment's function are under way, and how many of all.
    pub(crate) fn under_way(&self, assignment: &str) -> (usize, usize) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        (running.get(assignment).copied().unwrap_or(0), running.values().sum())
    }

    /// A place to run an assignment's function in, if one is free.
    pub(crate) fn take_place(&self, assignment: &str, function: &AssignedFunction) -> Option<Place> {
        let parallelism = usize::try_from(function.spec.parallelism).unwrap_or(1);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = running.values().sum();
        let own = running.entry(assignment.to_owned()).or_default();
        if *own >= parallelism || all >= MOST_RUNNING {
            return None;
        }
        *own += 1;
        Some(Place {
            assignment: assignment.to_owned(),
            running: self.running.clone(),
            invocations: self.invocations.clone(),
        })
    }

    /// Takes an invocation as far as it goes; answers after how long it is to be tried again, if it is.
    async fn process(
        &self,
        assignment: &Assignment,
        bundle: &Path,
        id: &str,
        tasks: &Tasks,
    ) -> Result<Option<Duration>, Error> {
        let Some(mut invocation) = self.invocations.get(id)? else { return Ok(None) };
        if invocation.has_ended() || invocation.state == State::Offloaded {
            return Ok(None);
        }
        if invocation.state != State::Publishing && !invocation.is_of(assignment) {
            self.dismiss(vec![id.to_owned()], tasks).await?;
            return Ok(None);
        }
        let folder = self.work.join(id);
        if self.invocations.was_cut_off(id) {
            invocation.interruptions += 1;
        }
        if invocation.interruptions > MOST_INTERRUPTIONS {
            let message =
                format!("the agent ended {MOST_INTERRUPTIONS} times while it ran; replay it to try again");
            return self.fail(invocation, &folder, "Interrupted", message).await;
        }
        if invocation.state != State::Publishing {
            let Some(function) = &assignment.spec.function else { return Ok(None) };
            // Something else is wanted by now, and what was before has made room for it.
            let Some(_held) = self.bundles.hold(bundle) else { return Ok(Some(AGAIN)) };
            invocation.state = State::Running;
            invocation.ran_at.clear();
            invocation.changed = daemon::now();
            self.invocations.update(&invocation).await?;
            let Some(name) = file_name(&invocation.key).map(str::to_owned) else {
                let message = "the last part of its key can't be the name of a file; write up to 255 bytes";
                return self.fail(invocation, &folder, "InputName", message.to_owned()).await;
            };
            let input = match self.stage(&invocation, &name, &folder).await {
                Ok(input) => input,
                Err(error @ (objects::Error::NoSuchKey { .. } | objects::Error::NoSuchBucket(_))) => {
                    let message = format!("its input is gone: {error}");
                    return self.fail(invocation, &folder, "InputMissing", message).await;
                }
                Err(error) => return Err(error.into()),
            };
            let Some(input) = input else {
                let message = "its input was replaced by newer content, which has an invocation of its own";
                return self.fail(invocation, &folder, "Superseded", message.to_owned()).await;
            };
            let run = self.describe(&invocation, assignment, function, bundle, &folder, input);
            let shutdown = tasks.shutdown();
            let outcome = tokio::select! {
                outcome = self.runtimes.run(&run) => outcome,
                () = shutdown.wait() => {
                    // Cut off on purpose: that is no fault of the invocation.
                    invocation.state = State::Pending;
                    self.invocations.update(&invocation).await?;
                    return Ok(None);
                }
            };
            invocation.attempts += 1;
            invocation.duration_milliseconds =
                u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX);
            if !outcome.succeeded() {
                let (reason, message) = (outcome.reason(), outcome.message());
                return self.retry_or_fail(invocation, function, &folder, reason, message).await;
            }
            let made = files_below(&run.output).map_or(0, |files| files.iter().map(|(_, size)| size).sum());
            self.rates.add(function, outcome.duration, made);
            return self.settle(invocation, assignment).await;
        }
        self.finish(invocation).await
    }

    /// Takes an invocation whose outputs lie in its folder to its end.
    pub(crate) async fn settle(
        &self,
        mut invocation: Invocation,
        assignment: &Assignment,
    ) -> Result<Option<Duration>, Error> {
        let folder = self.work.join(&invocation.id);
        let made = folder.join("out");
        match collect(assignment, &made) {
            Ok(outputs) => invocation.outputs = outputs,
            Err(error @ Error::TooManyOutputs(_)) => {
                return self.fail(invocation, &folder, "TooManyOutputs", error.to_string()).await;
            }
            Err(error @ Error::OutputName(_)) => {
                return self.fail(invocation, &folder, "OutputName", error.to_string()).await;
            }
            Err(error) => return Err(error),
        }
        for output in &invocation.outputs {
            let path = made.join(&output.file);
            let file = tokio::fs::File::open(&path).await.map_err(|error| Error::disk(&path, error))?;
            file.sync_all().await.map_err(|error| Error::disk(&path, error))?;
        }
        invocation.state = State::Publishing;
        self.invocations.update(&invocation).await?;
        self.finish(invocation).await
    }

    async fn finish(&self, mut invocation: Invocation) -> Result<Option<Duration>, Error> {
        let folder = self.work.join(&invocation.id);
        publish(&invocation, &folder.join("out"), &self.objects, &self.outbox).await?;
        invocation.state = State::Succeeded;
        invocation.changed = daemon::now();
        invocation.reason.clear();
        invocation.message.clear();
        self.invocations.update(&invocation).await?;
        debug!(id = invocation.id, key = invocation.key, "succeeded");
        self.clean(&folder).await?;
        Ok(None)
    }

    /// Empty folders for the invocation and its input in place; `None` if the object is another by now.
    async fn stage(
        &self,
        invocation: &Invocation,
        name: &str,
        folder: &Path,
    ) -> Result<Option<PathBuf>, objects::Error> {
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| objects::Error::Disk { path, source }
        };
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(folder)(error)),
            _ => {}
        }
        for name in ["in", "out", "tmp"] {
            let path = folder.join(name);
            tokio::fs::create_dir_all(&path).await.map_err(disk(&path))?;
        }
        let (info, mut object) = self.objects.get(&invocation.bucket, &invocation.key).await?;
        if info.etag != invocation.etag {
            return Ok(None);
        }
        let path = folder.join("in").join(name);
        let mut file = tokio::fs::File::create(&path).await.map_err(disk(&path))?;
        tokio::io::copy(&mut object, &mut file).await.map_err(disk(&path))?;
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(disk(&path))?;
        Ok(Some(path))
    }

    /// What the runtime is to run.
    pub(crate) fn describe(
        &self,
        invocation: &Invocation,
        assignment: &Assignment,
        function: &AssignedFunction,
        bundle: &Path,
        folder: &Path,
        input: PathBuf,
    ) -> Run {
        let spec = &function.spec;
        let mut environment = spec.environment.clone();
        environment.insert("AVOCET_INFERENCE_URL".into(), self.inference.clone());
        environment.insert("AVOCET_SITE".into(), invocation.site.clone());
        environment.insert("AVOCET_INVOCATION".into(), invocation.id.clone());
        let pinned = assignment.spec.models.iter().filter(|model| model.pinned);
        let pinned: BTreeMap<String, String> = pinned
            .filter_map(|model| {
                let name = served_name(&assignment.spec.application_namespace, &model.name);
                Some((name, model.spec.default_version()?.to_owned()))
            })
            .collect();
        if !pinned.is_empty() {
            environment.insert("AVOCET_MODEL_VERSIONS".into(), json!(pinned).to_string());
        }
        let is_event = !invocation.bucket.is_empty();
        let object = json!({"key": invocation.key, "eTag": invocation.etag});
        // The shape that S3 notifications have, which functions of this field know how to read.
        let event = json!({
            "Key": format!("{}/{}", invocation.bucket, invocation.key),
            "Records": [{
                "eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put", "eventTime": invocation.created,
                "s3": {"bucket": {"name": invocation.bucket}, "object": object},
            }],
        });
        Run {
            runtime: spec.runtime,
            bundle: bundle.to_owned(),
            handler: spec.handler.clone(),
            environment,
            input,
            workdir: folder.join("tmp"),
            output: folder.join("out"),
            log: self.invocations.log_file(&invocation.id),
            timeout: Duration::from_secs(spec.timeout_seconds.into()),
            memory_bytes: spec.memory.bytes(),
            tcp_ports: vec![self.inference_port],
            event: is_event.then(|| event.to_string()),
            storage_object_key: is_event.then(|| invocation.key.clone()),
        }
    }

    pub(crate) async fn retry_or_fail(
        &self,
        mut invocation: Invocation,
        function: &AssignedFunction,
        folder: &Path,
        reason: &str,
        message: String,
    ) -> Result<Option<Duration>, Error> {
        if invocation.attempts >= function.spec.max_attempts {
            return self.fail(invocation, folder, reason, message).await;
        }
        reason.clone_into(&mut invocation.reason);
        invocation.message = message;
        invocation.state = State::Pending;
        invocation.changed = daemon::now();
        self.invocations.update(&invocation).await?;
        Ok(Some(Duration::from_secs(1 << invocation.attempts.min(8))))
    }

    async fn fail(
        &self,
        mut invocation: Invocation,
        folder: &Path,
        reason: &str,
        message: String,
    ) -> Result<Option<Duration>, Error> {
        info!(id = invocation.id, key = invocation.key, reason, message, "invocation failed");
        invocation.state = State::Failed;
        invocation.changed = daemon::now();
        reason.clone_into(&mut invocation.reason);
        invocation.message = message;
        self.invocations.update(&invocation).await?;
        self.clean(folder).await?;
        Ok(None)
    }

    pub(crate) async fn clean(&self, folder: &Path) -> Result<(), Error> {
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::disk(folder, error)),
            _ => Ok(()),
        }
    }
}

/// How long the name of a file may be, in bytes.
const LONGEST_NAME: usize = 255;

/// What the input of a key is called, if a file can be called so.
pub(crate) fn file_name(key: &str) -> Option<&str> {
    let name = key.rsplit('/').next()?;
    let is_name = !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME;
    is_name.then_some(name)
}
