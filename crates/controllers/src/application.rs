//! `Application` → `Assignment`s, and their reports back into its status.

use planner::{ComponentPlan, Resolver, plan_application};
use types::{
    Application, Assignment, AssignmentSpec, ComponentStatus, Condition, ConditionStatus, FunctionSpec,
    InvocationCounts, ModelSpec, ObjectMeta, Time, condition, names::label, set_condition,
};

use crate::{Occurrence, Snapshot, Write};

pub(crate) fn reconcile(snapshot: &Snapshot, now: Time) -> Vec<Write> {
    let mut writes = Vec::new();
    for application in snapshot.applications.iter().filter(|application| !application.is_deleting()) {
        let known = Known { snapshot, namespace: application.namespace() };
        let plans = plan_application(application, &known, &snapshot.sites);
        for plan in &plans {
            assign(snapshot, application, plan, &mut writes);
        }
        report(snapshot, application, &plans, now, &mut writes);
    }
    for assignment in &snapshot.assignments {
        if !is_wanted(snapshot, assignment) {
            writes.push(Write::delete(assignment));
        }
    }
    writes
}

struct Known<'a> {
    snapshot: &'a Snapshot,
    namespace: &'a str,
}

impl Resolver for Known<'_> {
    fn sites_of(&self, placement: &str) -> Option<Vec<String>> {
        let decision = self.snapshot.decisions.iter().find(|decision| {
            decision.namespace() == self.namespace && decision.spec.placement == placement
        })?;
        Some(decision.status.decisions.iter().map(|chosen| chosen.site.clone()).collect())
    }

    fn function(&self, name: &str) -> Option<FunctionSpec> {
        let mut functions = self.snapshot.functions.iter();
        let found =
            functions.find(|function| function.namespace() == self.namespace && function.name() == name)?;
        Some(found.spec.clone())
    }

    fn model(&self, name: &str) -> Option<ModelSpec> {
        let mut models = self.snapshot.models.iter();
        let found = models.find(|model| model.namespace() == self.namespace && model.name() == name)?;
        Some(found.spec.clone())
    }
}

/// Whether the application and the component that an assignment is for still exist.
fn is_wanted(snapshot: &Snapshot, assignment: &Assignment) -> bool {
    snapshot.applications.iter().any(|application| {
        !application.is_deleting()
            && belongs(assignment, application)
            && application.spec.components.iter().any(|part| part.name == assignment.spec.component)
    })
}

fn belongs(assignment: &Assignment, application: &Application) -> bool {
    assignment.spec.application == application.name()
        && assignment.spec.application_namespace == application.namespace()
}

fn of_component<'a>(
    snapshot: &'a Snapshot,
    application: &'a Application,
    component: &'a str,
) -> impl Iterator<Item = &'a Assignment> {
    snapshot
        .assignments
        .iter()
        .filter(move |assignment| belongs(assignment, application) && assignment.spec.component == component)
}

/// Makes the assignments of a component what the plan says; leaves them alone where the plan is blocked.
fn assign(snapshot: &Snapshot, application: &Application, plan: &ComponentPlan, writes: &mut Vec<Write>) {
    let Ok(wanted) = &plan.assignments else { return };
    for (site, spec) in wanted {
        match of_component(snapshot, application, &plan.component).find(|old| old.namespace() == site) {
            None => writes.push(Write::create(&new_assignment(site, spec))),
            Some(old) if old.spec != *spec => {
                let changed = Assignment { spec: spec.clone(), ..old.clone() };
                writes.push(Write::spec(&changed));
            }
            Some(_) => {}
        }
    }
    for old in of_component(snapshot, application, &plan.component) {
        if !wanted.contains_key(old.namespace()) {
            writes.push(Write::delete(old));
        }
    }
}

fn new_assignment(site: &str, spec: &AssignmentSpec) -> Assignment {
    // Dots can't be in these names' parts except the application's, so the whole is unambiguous.
    let metadata = ObjectMeta {
        name: format!("{}.{}.{}", spec.component, spec.application, spec.application_namespace),
        namespace: site.to_owned(),
        labels: [
            (label::APPLICATION.to_owned(), spec.application.clone()),
            (label::APPLICATION_NAMESPACE.to_owned(), spec.application_namespace.clone()),
            (label::COMPONENT.to_owned(), spec.component.clone()),
        ]
        .into(),
        ..ObjectMeta::default()
    };
    Assignment::new(metadata, spec.clone())
}

fn report(
    snapshot: &Snapshot,
    application: &Application,
    plans: &[ComponentPlan],
    now: Time,
    writes: &mut Vec<Write>,
) {
    let mut reported = application.clone();
    let mut counts = InvocationCounts::default();
    let mut components = Vec::new();
    let mut unready = Vec::new();
    for plan in plans {
        let (component, is_ready) = component_status(snapshot, application, plan, &mut counts);
        if !is_ready {
            unready.push(format!("{}: {}", component.name, component.message));
        }
        components.push(component);
    }
    reported.status.ready = format!("{}/{}", components.len() - unready.len(), components.len());
    reported.status.components = components;
    reported.status.invocations = counts;
    reported.status.observed_generation = application.metadata.generation;
    let (status, reason) = match unready.is_empty() {
        true => (ConditionStatus::True, "AllComponentsRun"),
        false => (ConditionStatus::False, "ComponentsNotReady"),
    };
    let condition = Condition {
        kind: "Ready".into(),
        status,
        observed_generation: application.metadata.generation,
        last_transition_time: now,
        reason: reason.into(),
        message: unready.join("; "),
    };
    set_condition(&mut reported.status.conditions, condition);
    if reported != *application {
        let told = tell(application, &reported, &failures(snapshot, application, plans));
        writes.push(Write::status(&reported).telling(told));
    }
}

/// The components that a site reports to have failed.
fn failures<'a>(snapshot: &Snapshot, application: &Application, plans: &'a [ComponentPlan]) -> Vec<&'a str> {
    let failed = |assignment: &Assignment| {
        condition(&assignment.status.conditions, "Available").is_some_and(|available| {
            available.status != ConditionStatus::True && available.reason != "Preparing"
        })
    };
    let components = plans.iter().map(|plan| plan.component.as_str());
    components.filter(|component| of_component(snapshot, application, component).any(failed)).collect()
}

/// Which components became available, and which stopped to be or failed.
fn tell(old: &Application, new: &Application, failures: &[&str]) -> Vec<Occurrence> {
    let mut told = Vec::new();
    for component in &new.status.components {
        let name = &component.name;
        let before = old.status.components.iter().find(|known| known.name == *name);
        let was_ready = before.is_some_and(|before| before.message.is_empty());
        let is_news = before.is_none_or(|before| before.message != component.message);
        if component.message.is_empty() && !was_ready {
            let message = format!("component {name} runs on {}", component.sites.join(", "));
            told.push(Occurrence::normal(new, "ComponentAvailable", message));
        } else if is_news && failures.contains(&name.as_str()) {
            let message = format!("component {name}: {}", component.message);
            told.push(Occurrence::warning(new, "ComponentFailed", message));
        } else if is_news && was_ready {
            let message = format!("component {name}: {}", component.message);
            told.push(Occurrence::normal(new, "ComponentNotAvailable", message));
        }
    }
    told
}

/// How a component stands: it is ready when every site it is assigned to runs its newest assignment.
fn component_status(
    snapshot: &Snapshot,
    application: &Application,
    plan: &ComponentPlan,
    counts: &mut InvocationCounts,
) -> (ComponentStatus, bool) {
    let mut sites = Vec::new();
    let mut ready_sites = 0;
    let mut problems: Vec<String> = plan.assignments.as_ref().err().cloned().into_iter().collect();
    for assignment in of_component(snapshot, application, &plan.component) {
        let site = assignment.namespace();
        sites.push(site.to_owned());
        *counts += assignment.status.invocations;
        let available = condition(&assignment.status.conditions, "Available");
        let silent = snapshot.site(site).is_none_or(|site| {
            condition(&site.status.conditions, "Ready")
                .is_none_or(|ready| ready.status != ConditionStatus::True)
        });
        match available {
            Some(available)
                if available.status == ConditionStatus::True
                    && available.observed_generation == assignment.metadata.generation =>
            {
                ready_sites += 1;
            }
            _ if silent => problems.push(format!("site `{site}` is silent and has not confirmed it yet")),
            Some(available) if available.status != ConditionStatus::True => {
                problems.push(format!("site `{site}`: {}", available.message));
            }
            _ => problems.push(format!("site `{site}` is being set up")),
        }
    }
    if sites.is_empty() && problems.is_empty() {
        problems.push("is being assigned".into());
    }
    let is_ready = problems.is_empty();
    let message = problems.join("; ");
    (ComponentStatus { name: plan.component.clone(), sites, ready_sites, message }, is_ready)
}
