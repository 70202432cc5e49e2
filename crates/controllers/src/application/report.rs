//! What an application's status says.

use std::collections::{BTreeMap, BTreeSet};

use planner::first_of;
use planner::rollout::{Outcome, Step};
use types::{
    Application, Assignment, ComponentStatus, Condition, ConditionStatus, InvocationCounts, Rejected,
    RolloutStatus, condition, set_condition,
};

use super::Controller;
use super::drive::Drive;
use super::target::is_rejected;
use crate::{Occurrence, Write};

/// Of how many sites a component's message says why it does not run there.
const PROBLEMS: usize = 5;
/// How many sites an event names.
const NAMES: usize = 20;

/// Why components can't be run, by component.
type Problems = BTreeMap<String, String>;

impl Controller<'_> {
    /// Says that nothing of the application can be run, and why.
    pub(super) fn report_nothing(&self, problems: &Problems, writes: &mut Vec<Write>) {
        let parts = self.application.spec.components.iter().map(|component| {
            let problem = problems.get(&component.name).cloned();
            (component.name.clone(), problem)
        });
        let mut reported = self.application.clone();
        self.describe(&mut reported, parts.collect());
        self.write_status(reported, vec![], writes);
    }

    /// Says how components stand, and how the rollout does.
    pub(super) fn report(
        &self,
        drive: &Drive,
        step: &Step,
        rejected: Option<Rejected>,
        problems: &Problems,
        writes: &mut Vec<Write>,
    ) {
        let mut parts = drive.plan.components.clone();
        for (component, problem) in problems {
            let problem = Some(problem.clone());
            parts
                .entry(component.clone())
                .and_modify(|known| *known = known.take().or(problem.clone()))
                .or_insert(problem);
        }
        // In the order of the manifest; what was gone back to may have further ones.
        let order = |name: &str| {
            self.application
                .spec
                .components
                .iter()
                .position(|component| component.name == name)
                .unwrap_or(usize::MAX)
        };
        let mut parts: Vec<(String, Option<String>)> = parts.into_iter().collect();
        parts.sort_by_key(|(name, _)| order(name));
        let mut reported = self.application.clone();
        self.describe(&mut reported, parts);
        let rollout = self.rollout_status(drive, step, rejected);
        let (status, reason, message) = progressing(drive, step, &rollout);
        set_condition(
            &mut reported.status.conditions,
            Condition {
                kind: "Progressing".into(),
                status,
                observed_generation: self.application.metadata.generation,
                last_transition_time: self.moment.now,
                reason: reason.into(),
                message,
            },
        );
        let told = tell_rollout(self.application, &rollout, reason, drive, writes, self.moment.now);
        reported.status.rollout = Some(rollout);
        self.write_status(reported, told, writes);
    }

    fn write_status(&self, reported: Application, told: Vec<Occurrence>, writes: &mut Vec<Write>) {
        if reported != *self.application {
            let mut all = tell(self.application, &reported, &self.failures(&reported));
            all.extend(told);
            writes.push(Write::status(&reported).telling(all));
        }
    }

    fn of_component<'b>(&'b self, component: &'b str) -> impl Iterator<Item = &'b Assignment> {
        self.assigned.values().filter_map(move |here| here.get(component).copied())
    }

    /// How the components stand: each with what keeps it from being assigned, if anything.
    fn describe(&self, reported: &mut Application, parts: Vec<(String, Option<String>)>) {
        let mut counts = InvocationCounts::default();
        let mut components = Vec::new();
        let mut unready = Vec::new();
        for (name, problem) in parts {
            let component = self.component_status(name, problem, &mut counts);
            if !component.message.is_empty() {
                unready.push(format!("{}: {}", component.name, component.message));
            }
            components.push(component);
        }
        reported.status.ready = format!("{}/{}", components.len() - unready.len(), components.len());
        reported.status.components = components;
        reported.status.invocations = counts;
        reported.status.observed_generation = self.application.metadata.generation;
        let (status, reason) = match unready.is_empty() {
            true => (ConditionStatus::True, "AllComponentsRun"),
            false => (ConditionStatus::False, "ComponentsNotReady"),
        };
        let condition = Condition {
            kind: "Ready".into(),
            status,
            observed_generation: self.application.metadata.generation,
            last_transition_time: self.moment.now,
            reason: reason.into(),
            message: unready.join("; "),
        };
        set_condition(&mut reported.status.conditions, condition);
    }

    /// How a component stands: it is ready when every site it is assigned to runs its newest assignment.
    fn component_status(
        &self,
        name: String,
        problem: Option<String>,
        counts: &mut InvocationCounts,
    ) -> ComponentStatus {
        let mut sites = Vec::new();
        let mut ready_sites = 0;
        let mut unready = Vec::new();
        for assignment in self.of_component(&name) {
            let site = assignment.namespace();
            sites.push(site.to_owned());
            *counts += assignment.status.invocations;
            if super::sites::runs(assignment) {
                ready_sites += 1;
            } else {
                unready.push(assignment);
            }
        }
        // Failures first: the others will pass.
        unready.sort_by_key(|assignment| !has_failed(assignment));
        let known = unready.iter().take(PROBLEMS).map(|assignment| self.problem_of(assignment));
        let mut problems: Vec<String> = problem.into_iter().chain(known).collect();
        match unready.len().saturating_sub(PROBLEMS) {
            0 => {}
            1 => problems.push("1 more site".into()),
            more => problems.push(format!("{more} more sites")),
        }
        if sites.is_empty() && problems.is_empty() {
            problems.push("is being assigned".into());
        }
        ComponentStatus { name, sites, ready_sites, message: problems.join("; ") }
    }

    /// Why a site does not run its newest assignment.
    fn problem_of(&self, assignment: &Assignment) -> String {
        let site = assignment.namespace();
        let is_heard = self.sites.get(site).is_some_and(|site| {
            condition(&site.status.conditions, "Ready")
                .is_some_and(|ready| ready.status == ConditionStatus::True)
        });
        match condition(&assignment.status.conditions, "Available") {
            _ if !is_heard => format!("site `{site}` is silent and has not confirmed it yet"),
            Some(available) if available.status != ConditionStatus::True => {
                format!("site `{site}`: {}", available.message)
            }
            _ => format!("site `{site}` is being set up"),
        }
    }

    /// The components that a site reports to have failed.
    fn failures(&self, reported: &Application) -> Vec<String> {
        let names = reported.status.components.iter().map(|component| component.name.clone());
        names.filter(|name| self.of_component(name).any(has_failed)).collect()
    }

    fn rollout_status(&self, drive: &Drive, step: &Step, rejected: Option<Rejected>) -> RolloutStatus {
        let before = self.application.status.rollout.clone().unwrap_or_default();
        let target = drive.target;
        let is_another = before.revision != target.revision.name();
        let is_complete = step.outcome == Outcome::Complete;
        let is_everywhere = is_everywhere(step) && rejected.is_none();
        let target_name = target.revision.name();
        let last_good =
            if is_everywhere { target_name.to_owned() } else { self.last_good(&before, target.revision) };
        let newest = self.newest(&before).max(target.wanted);
        // It stays known as long as the manifests ask for what was gone back from.
        let kept = before.rejected.filter(|kept| is_rejected(kept, self.application, target.candidate));
        RolloutStatus {
            revision: target_name.to_owned(),
            number: target.revision.spec.number,
            wanted: target.wanted,
            proven: is_everywhere || before.proven && last_good == before.last_good,
            last_good,
            newest,
            started: if is_another { Some(self.moment.now) } else { before.started },
            complete: is_complete,
            rejected: rejected.or(kept),
            sites: step.counts,
            message: message(drive, step),
        }
    }
}

/// Whether a site says that it can't run an assignment.
fn has_failed(assignment: &Assignment) -> bool {
    condition(&assignment.status.conditions, "Available")
        .is_some_and(|available| available.status != ConditionStatus::True && available.reason != "Preparing")
}

/// What a rollout waits for, if anything.
fn message(drive: &Drive, step: &Step) -> String {
    let is_complete = step.outcome == Outcome::Complete;
    let is_paused = drive.rollout.paused && !is_complete && !drive.target.is_rollback;
    let staying: BTreeSet<&str> = match is_complete {
        true => drive.stayers().into_iter().map(|(site, _)| site).collect(),
        false => BTreeSet::new(),
    };
    let staying = match staying.len() {
        0 => String::new(),
        1 => "1 site goes on in place of one that is selected".to_owned(),
        count => format!("{count} sites go on in place of those that are selected"),
    };
    let parts = [if is_paused { "paused" } else { "" }, &step.message, &staying];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Whether all sites run a revision, or tried to: none of them was away, or not to be changed.
fn is_everywhere(step: &Step) -> bool {
    step.outcome == Outcome::Complete && step.counts.offline == 0 && step.counts.held == 0
}

/// The condition `Progressing`: whether it holds, a word for programs, a sentence for people.
fn progressing(
    drive: &Drive,
    step: &Step,
    rollout: &RolloutStatus,
) -> (ConditionStatus, &'static str, String) {
    let number = rollout.number;
    let back = rollout.rejected.as_ref().map(|rejected| {
        let from = drive.target.candidate.spec.number;
        format!("revision {from} was gone back from: {}", rejected.message)
    });
    let with_rest = |said: String| {
        if rollout.message.is_empty() { said } else { format!("{said}; {}", rollout.message) }
    };
    match step.outcome {
        Outcome::Complete => match back {
            Some(back) => (
                ConditionStatus::False,
                "RolledBack",
                with_rest(format!("sites run revision {number}; {back}")),
            ),
            None => (ConditionStatus::False, "Complete", with_rest(format!("sites run revision {number}"))),
        },
        _ if drive.rollout.paused && rollout.rejected.is_none() => {
            (ConditionStatus::Unknown, "Paused", format!("revision {number}: {}", rollout.message))
        }
        Outcome::Breached if rollout.rejected.is_none() => (
            ConditionStatus::False,
            "FailureBudgetExceeded",
            format!("revision {number}: {}", rollout.message),
        ),
        _ => match back {
            Some(back) => (ConditionStatus::True, "RollingBack", with_rest(back)),
            None => (ConditionStatus::True, "RollingOut", with_rest(format!("revision {number}"))),
        },
    }
}

/// What is to be told of a rollout; notes at its revision how it ended.
fn tell_rollout(
    application: &Application,
    rollout: &RolloutStatus,
    reason: &'static str,
    drive: &Drive,
    writes: &mut Vec<Write>,
    now: types::Time,
) -> Vec<Occurrence> {
    let before = application.status.rollout.clone().unwrap_or_default();
    let number = rollout.number;
    let mut told = Vec::new();
    if rollout.rejected != before.rejected
        && let Some(rejected) = &rollout.rejected
    {
        let candidate = drive.target.candidate;
        let message = format!("revision {} is gone back from: {}", candidate.spec.number, rejected.message);
        told.push(Occurrence::warning(application, "RollingBack", message));
        let mut noted = candidate.clone();
        noted.status.rejected = format!("{}: {}", rejected.reason, rejected.message);
        writes.push(Write::status(&noted));
    } else if rollout.revision != before.revision && before.number > 0 {
        let message = format!("revision {number} goes to its sites");
        told.push(Occurrence::normal(application, "RolloutStarted", message));
    }
    let revision = drive.target.revision;
    let is_noted = revision.status.succeeded.is_some() && revision.status.rejected.is_empty();
    let was_through = before.complete && before.revision == rollout.revision;
    if rollout.complete && !(is_noted && was_through) {
        let mut noted = revision.clone();
        noted.status.succeeded = Some(now);
        noted.status.rejected.clear();
        writes.push(Write::status(&noted));
    }
    if rollout.complete && !was_through && before.number > 0 {
        let message = format!("sites run revision {number}");
        told.push(Occurrence::normal(application, "RolloutComplete", message));
    }
    let was = condition(&application.status.conditions, "Progressing").map(|was| was.reason.as_str());
    if reason == "FailureBudgetExceeded" && was != Some(reason) {
        told.push(Occurrence::warning(application, "RolloutStopped", rollout.message.clone()));
    }
    told
}

/// Which components became available, and which stopped to be or failed.
fn tell(old: &Application, new: &Application, failures: &[String]) -> Vec<Occurrence> {
    let mut told = Vec::new();
    for component in &new.status.components {
        let name = &component.name;
        let before = old.status.components.iter().find(|known| known.name == *name);
        let was_ready = before.is_some_and(|before| before.message.is_empty());
        let is_news = before.is_none_or(|before| before.message != component.message);
        if component.message.is_empty() && !was_ready {
            let message = format!("component {name} runs on {}", first_of(&component.sites, NAMES, ", "));
            told.push(Occurrence::normal(new, "ComponentAvailable", message));
        } else if is_news && failures.contains(name) {
            let message = format!("component {name}: {}", component.message);
            told.push(Occurrence::warning(new, "ComponentFailed", message));
        } else if is_news && was_ready {
            let message = format!("component {name}: {}", component.message);
            told.push(Occurrence::normal(new, "ComponentNotAvailable", message));
        }
    }
    told
}
