//! Ensembles: loaded after the models of their steps, and run by asking those, each through its own queue and cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use types::{Ensemble, Isolation};

use super::infer::{Answer, Checked, Model, Request, StepTiming, Timing};
use super::{Found, Inner, LoadRequest, Purpose, Repository, Served, Trial};
use crate::declared;
use crate::engine::chain;
use crate::engines::Loaded;
use crate::ensemble::{self, EnsembleError, Facade, Plan, PlannedStep, Source};
use crate::stats::{Failure, Spent};
use crate::{Error, LoadError, Signature, Tensor};

/// An ensemble that serves.
pub(crate) struct Steps {
    plan: Plan,
    /// Where its models are; an ensemble is in there itself.
    repository: Weak<Inner>,
}

impl Repository {
    /// Loads the models of an ensemble's steps and puts the steps together.
    ///
    /// # Errors
    /// When a model isn't there or can't be loaded, or the steps don't fit each other.
    pub(super) fn load_ensemble(
        &self,
        request: &LoadRequest,
        ensemble: &Ensemble,
    ) -> Result<(Loaded, Steps), LoadError> {
        refuse_settings(request)?;
        ensemble::check(ensemble)?;
        // Before anything is loaded: a circle would be loaded for ever.
        self.refuse_nesting(request)?;
        let members: Vec<Arc<Served>> =
            ensemble.steps.iter().map(|step| self.bring(step)).collect::<Result<_, _>>()?;
        let parts = ensemble.steps.iter().zip(&members);
        let signatures: Vec<Signature> = parts.map(|(step, member)| member.signature_for(step)).collect();
        let plan = ensemble::plan(ensemble, &signatures.iter().collect::<Vec<_>>())?;
        declared::check(&plan.signature, &request.signature.clone().unwrap_or_default())?;
        let mut labels = BTreeMap::new();
        for (spec, source) in plan.signature.outputs.iter().zip(&plan.outputs) {
            let Source::Step { step, output } = source else { continue };
            let name = plan.steps.get(*step).and_then(|step| step.outputs.get(*output));
            let named = name.zip(members.get(*step)).and_then(|(name, member)| member.labels(name));
            labels.extend(named.map(|labels| (spec.name.clone(), labels.to_vec())));
        }
        let steps: Vec<String> =
            plan.steps.iter().map(|step| format!("`{}` ({})", step.name, step.model)).collect();
        let instances = self.inner.shared.options.workers.max(1);
        let facade = Facade { signature: plan.signature.clone(), labels, instances };
        let why = format!("an ensemble of {}", steps.join(", "));
        let loaded = Loaded { model: Arc::new(facade), engine: "ensemble", why, tried: Vec::new() };
        Ok((loaded, Steps { plan, repository: Arc::downgrade(&self.inner) }))
    }

    /// A step's model, loaded.
    fn bring(&self, step: &types::EnsembleStep) -> Result<Arc<Served>, LoadError> {
        let found = self.read(|catalog| catalog.find(&step.model, step.version.as_deref()));
        let served = match found {
            Ok(Found::Ready(chosen)) => Ok(chosen.served),
            Ok(Found::Idle(request)) => {
                self.load_now(*request, Purpose::OnRequest, None).map_err(|error| chain(&error))
            }
            Err(error) => Err(error.to_string()),
        };
        let member = |problem| EnsembleError::Member { step: step.name.clone(), problem };
        Ok(served.map_err(member)?)
    }

    /// Refuses an ensemble that would use itself, by way of others.
    pub(super) fn refuse_nesting(&self, request: &LoadRequest) -> Result<(), EnsembleError> {
        let Some(ensemble) = &request.ensemble else { return Ok(()) };
        let mut seen = BTreeSet::new();
        let mut open: Vec<Vec<String>> =
            ensemble.steps.iter().map(|step| vec![request.name.clone(), step.model.clone()]).collect();
        while let Some(way) = open.pop() {
            let Some(last) = way.last() else { continue };
            if *last == request.name {
                return Err(EnsembleError::Nested(way.join(" → ")));
            }
            if seen.insert(last.clone()) {
                let below = self.read(|catalog| catalog.members(last));
                open.extend(below.into_iter().map(|model| [way.as_slice(), &[model]].concat()));
            }
        }
        Ok(())
    }
}

/// What is said of an ensemble and would do nothing.
fn refuse_settings(request: &LoadRequest) -> Result<(), EnsembleError> {
    let serving = &request.serving;
    let vain = [
        ("batching", serving.batching.is_some()),
        ("instances", serving.instances > 0),
        ("threads", serving.threads > 0),
        ("isolation", serving.isolation != Isolation::None),
        ("limit of waiting requests", serving.queue.max_requests > 0),
    ];
    match vain.into_iter().find(|(_, said)| *said) {
        Some((what, _)) => Err(EnsembleError::NotItsOwn(what)),
        None => Ok(()),
    }
}

type Running<'a> = BoxFuture<'a, Result<(usize, Answer), Error>>;

impl Model {
    /// Runs an ensemble: each step as soon as what it takes is there, steps that don't need each other at once.
    /// Boxed, because a step may be an ensemble.
    pub(super) fn run_steps<'a>(
        &'a self,
        steps: &'a Steps,
        trial: Option<&'a Trial>,
        checked: Checked,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(self.run_and_count(steps, trial, checked))
    }

    async fn run_and_count(
        &self,
        steps: &Steps,
        trial: Option<&Trial>,
        checked: Checked,
    ) -> Result<Answer, Error> {
        let submitted = checked.submitted;
        let mut hearing = Hearing { trial, model: self.served(), submitted };
        let samples = self.signature().batch(&checked.inputs);
        let bytes = checked.inputs.iter().map(|tensor| tensor.data().len()).sum();
        let stats = &self.served().stats;
        match self.ask_members(steps, checked).await {
            Ok((outputs, timings)) => {
                let took = submitted.elapsed();
                hearing.end(Some(true));
                let sum = |part: fn(&Timing) -> Duration| timings.iter().map(|step| part(&step.timing)).sum();
                let (queue, compute): (Duration, Duration) =
                    (sum(|timing| timing.queue), sum(|timing| timing.compute));
                let spent = Spent { infer: compute, ..Spent::default() };
                stats.ran(samples, bytes, spent);
                stats.succeeded(took, queue, spent);
                let timing =
                    Timing { took, queue, compute, samples, steps: timings, ..Timing::begun(submitted) };
                Ok(Answer { outputs, timing })
            }
            Err(error) => {
                let failure = failure(&error);
                // Else it is the request's fault, or that of a site with too much to do.
                hearing.end((failure == Failure::Engine).then_some(false));
                stats.failed(failure, submitted.elapsed());
                Err(error)
            }
        }
    }

    async fn ask_members(
        &self,
        steps: &Steps,
        checked: Checked,
    ) -> Result<(Vec<Tensor>, Vec<StepTiming>), Error> {
        let Checked { inputs, outputs, asked_priority: priority, timeout, submitted, .. } = checked;
        let plan = &steps.plan;
        let deadline = timeout.map(|timeout| submitted + timeout);
        let repository =
            steps.repository.upgrade().map(|inner| Repository { inner }).ok_or(Error::Stopped)?;
        let mut open = plan.needed(&outputs);
        // All of them before the first one runs: what is held isn't unloaded to make room for another.
        let members = open.iter().map(|at| self.member(&repository, plan, *at));
        let members: BTreeMap<usize, Model> = try_join_all(members).await?.into_iter().collect();
        let mut given: BTreeMap<usize, Vec<Tensor>> = BTreeMap::new();
        let mut running: FuturesUnordered<Running<'_>> = FuturesUnordered::new();
        let mut timings = Vec::with_capacity(open.len());
        loop {
            for (at, step) in plan.steps.iter().enumerate() {
                let (true, Some(member)) = (open.contains(&at), members.get(&at)) else { continue };
                let Some(tensors) = gather(step, &inputs, &given) else { continue };
                open.remove(&at);
                let timeout = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                    None => None,
                    Some(Some(left)) if !left.is_zero() => Some(left),
                    Some(_) => return Err(Error::Late { model: self.name().into() }),
                };
                let request = Request { inputs: tensors, outputs: step.outputs.clone(), priority, timeout };
                running.push(Box::pin(async move {
                    let answer = member.answer(request).await;
                    answer.map(|answer| (at, answer)).map_err(|error| self.blame(&step.name, error))
                }));
            }
            let Some(done) = running.next().await else { break };
            let (at, Answer { outputs, timing }) = done?;
            given.insert(at, outputs);
            if let (Some(step), Some(member)) = (plan.steps.get(at), members.get(&at)) {
                let (name, model, version) =
                    (step.name.clone(), step.model.clone(), member.version().to_owned());
                timings.push(StepTiming { name, model, version, timing });
            }
        }
        drop(running);
        let places = plan.signature.outputs.iter().zip(&plan.outputs);
        let answer = outputs.iter().map(|name| {
            let (_, source) = places.clone().find(|(spec, _)| spec.name == *name)?;
            tensor(source, &inputs, &given).map(|tensor| tensor.renamed(name))
        });
        // Every step that an output needs has run.
        let answer = answer.collect::<Option<Vec<_>>>().ok_or(Error::Stopped)?;
        Ok((answer, timings))
    }

    async fn member(&self, repository: &Repository, plan: &Plan, at: usize) -> Result<(usize, Model), Error> {
        let step = plan.steps.get(at).ok_or(Error::Stopped)?;
        let member = repository.obtain(&step.model, step.version.as_deref()).await;
        member.map(|member| (at, member)).map_err(|error| self.blame(&step.name, error))
    }

    fn blame(&self, step: &str, error: Error) -> Error {
        Error::Step { model: self.name().into(), step: step.to_owned(), cause: Box::new(error) }
    }
}

/// Judges an ensemble on trial. Nothing runs on when whoever asked goes away, so what it took until then counts where it
/// is too long already.
struct Hearing<'a> {
    trial: Option<&'a Trial>,
    model: &'a Served,
    submitted: Instant,
}

impl Hearing<'_> {
    /// `None` says nothing of the model.
    fn end(&mut self, went_well: Option<bool>) {
        if let (Some(trial), Some(went_well)) = (self.trial.take(), went_well) {
            trial.hear(self.model, went_well, self.submitted.elapsed());
        }
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        let too_slow = self.trial.is_some_and(|trial| trial.is_too_slow(self.submitted.elapsed()));
        self.end(too_slow.then_some(true));
    }
}

/// A step's inputs, named as its model names them, once all are there.
fn gather(
    step: &PlannedStep,
    inputs: &[Tensor],
    given: &BTreeMap<usize, Vec<Tensor>>,
) -> Option<Vec<Tensor>> {
    let tensors = step
        .inputs
        .iter()
        .map(|(name, source)| tensor(source, inputs, given).map(|tensor| tensor.renamed(name)));
    tensors.collect()
}

fn tensor<'a>(
    source: &Source,
    inputs: &'a [Tensor],
    given: &'a BTreeMap<usize, Vec<Tensor>>,
) -> Option<&'a Tensor> {
    match source {
        Source::Input(place) => inputs.get(*place),
        Source::Step { step, output } => given.get(step)?.get(*output),
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Step { cause, .. } => failure(cause),
        Error::Overloaded { .. }
        | Error::Crowded
        | Error::Late { .. }
        | Error::NotReady { .. }
        | Error::Stopped => Failure::Rejected,
        Error::Invalid { .. } | Error::TooLarge { .. } | Error::Content { .. } => Failure::Invalid,
        _ => Failure::Engine,
    }
}
