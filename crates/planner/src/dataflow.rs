//! From an application and the sites of its components to one assignment a site and component.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use types::{
    Application, AssignedFunction, AssignedModel, AssignedOutput, AssignmentSpec, Component, FunctionSpec,
    ModelReference, ModelSpec, Site,
};

use crate::Distances;

/// What the plan needs to look up.
pub trait Resolver {
    /// The sites that a placement of the application's namespace selected; `None` if nothing was decided yet.
    fn sites_of(&self, placement: &str) -> Option<Vec<String>>;
    /// The function of that name in the application's namespace.
    fn function(&self, name: &str) -> Option<FunctionSpec>;
    /// The model of that name in the application's namespace.
    fn model(&self, name: &str) -> Option<ModelSpec>;
}

/// What keeps a component from being assigned: a sentence that names what is missing.
pub type Blocked = String;

/// What is to be done for one component.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentPlan {
    /// The component.
    pub component: String,
    /// What each of its sites must run. On `Err`, what is assigned already must stay as it is (promise 1).
    pub assignments: Result<BTreeMap<String, AssignmentSpec>, Blocked>,
}

/// Plans every component of an application.
pub fn plan_application(
    application: &Application,
    resolver: &impl Resolver,
    sites: &[Site],
) -> Vec<ComponentPlan> {
    let components = &application.spec.components;
    components
        .iter()
        .map(|component| ComponentPlan {
            component: component.name.clone(),
            assignments: plan_component(application, component, resolver, sites),
        })
        .collect()
}

fn plan_component(
    application: &Application,
    component: &Component,
    resolver: &impl Resolver,
    sites: &[Site],
) -> Result<BTreeMap<String, AssignmentSpec>, Blocked> {
    let placed = sites_of(component, resolver)?;
    let function = component.function.as_ref().map(|name| {
        let spec = resolver.function(name).ok_or_else(|| missing("Function", name))?;
        Ok::<_, Blocked>(AssignedFunction { name: name.clone(), spec })
    });
    let function = function.transpose()?;
    let models = models_of(component, resolver)?;
    placed
        .into_iter()
        .map(|site| {
            let spec = AssignmentSpec {
                application_namespace: application.namespace().to_owned(),
                application: application.name().to_owned(),
                application_uid: application.metadata.uid.clone(),
                component: component.name.clone(),
                function: function.clone(),
                models: models.clone(),
                inputs: component.inputs.clone(),
                outputs: route(application, component, &site, resolver, sites)?,
                offload: component.offload.clone(),
            };
            Ok((site, spec))
        })
        .collect()
}

/// Most models of a component, those of ensembles among them.
const MOST_MODELS: usize = 64;

/// The component's models, each behind those that it needs: the members of an ensemble come before it.
fn models_of(component: &Component, resolver: &impl Resolver) -> Result<Vec<AssignedModel>, Blocked> {
    let mut models = Vec::new();
    for model in component.model_references() {
        add_model(model, &mut Vec::new(), &mut models, resolver)?;
    }
    Ok(models)
}

fn add_model(
    model: ModelReference<'_>,
    within: &mut Vec<String>,
    models: &mut Vec<AssignedModel>,
    resolver: &impl Resolver,
) -> Result<(), Blocked> {
    let ModelReference { name, version } = model;
    if models.iter().any(|model| model.name == name) {
        return Ok(());
    }
    if within.iter().any(|ensemble| ensemble == name) {
        let way = within.join(" → ");
        return Err(format!("ensembles can't use each other in a circle: {way} → {name}"));
    }
    let spec = resolver.model(name).ok_or_else(|| match within.last() {
        Some(ensemble) => {
            format!("Model `{name}`, a step of the ensemble `{ensemble}`, does not exist in this namespace; apply it")
        }
        None => missing("Model", name),
    })?;
    within.push(name.to_owned());
    for step in spec.ensemble.iter().flat_map(|ensemble| &ensemble.steps) {
        add_model(ModelReference { name: &step.model, version: None }, within, models, resolver)?;
    }
    within.pop();
    if models.len() >= MOST_MODELS {
        return Err(format!("its models, with those of ensembles, are more than {MOST_MODELS}; use fewer"));
    }
    let spec = match version {
        Some(version) => spec.narrowed(&[version]).ok_or_else(|| missing_version(name, version))?,
        None => spec,
    };
    models.push(AssignedModel { name: name.to_owned(), spec, pinned: version.is_some() });
    Ok(())
}

/// Says that a resource is missing.
pub fn missing(kind: &str, name: &str) -> Blocked {
    format!("{kind} `{name}` does not exist in this namespace; apply it")
}

/// Says that a model lacks the version that a component pins.
pub fn missing_version(model: &str, version: &str) -> Blocked {
    format!("Model `{model}` has no version `{version}`; add it to its spec.versions, or name another one")
}

fn sites_of(component: &Component, resolver: &impl Resolver) -> Result<Vec<String>, Blocked> {
    match resolver.sites_of(&component.placement) {
        None => Err(format!(
            "Placement `{}` does not exist in this namespace or is not decided yet; apply it",
            component.placement
        )),
        Some(sites) if sites.is_empty() => Err(format!(
            "Placement `{0}` selects no site; see `avocet explain placement/{0}`",
            component.placement
        )),
        Some(sites) => Ok(sites),
    }
}

/// Where each output of a component on `site` goes: for every component that reads it, to the nearest of its
/// sites (the same site where possible); where nobody reads it, it stays.
fn route(
    application: &Application,
    component: &Component,
    site: &str,
    resolver: &impl Resolver,
    sites: &[Site],
) -> Result<Vec<AssignedOutput>, Blocked> {
    // Of thousands of sites most are never asked for their distances.
    let distances = LazyCell::new(|| Distances::from(site, sites));
    let mut routed = Vec::new();
    for output in &component.outputs {
        let mut destinations = Vec::new();
        for reader in &application.spec.components {
            let reads = |input: &types::BucketPath| {
                input.bucket() == output.bucket() && output.key_prefix().starts_with(&input.key_prefix())
            };
            if !reader.inputs.iter().any(reads) {
                continue;
            }
            let readers = sites_of(reader, resolver)
                .map_err(|why| format!("its output `{}` has nowhere to go: {why}", output.path))?;
            if readers.iter().any(|reader| reader == site) {
                destinations.push(site.to_owned());
                continue;
            }
            let nearest = readers.into_iter().min_by(|a, b| {
                let distance = |name: &str| distances.to(name).unwrap_or(f64::INFINITY);
                distance(a).total_cmp(&distance(b)).then_with(|| a.cmp(b))
            });
            destinations.extend(nearest);
        }
        destinations.sort();
        destinations.dedup();
        if destinations.is_empty() {
            destinations.push(site.to_owned());
        }
        routed.push(AssignedOutput { to: output.clone(), sites: destinations });
    }
    Ok(routed)
}
