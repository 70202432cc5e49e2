//! What an application is at one time: its components with the functions and models that they name.

use std::collections::{BTreeMap, BTreeSet};

use planner::{ComponentPlan, Resolver, plan_application};
use types::{
    Application, ApplicationRevision, ApplicationRevisionSpec, AssignedFunction, AssignedModel, Component,
    Digest, FunctionSpec, ModelSpec, ObjectMeta, OwnerReference, names::label,
};

use crate::Snapshot;
use crate::placement::Decision;

/// What is wanted of an application now.
pub(super) struct Wanted {
    /// All that can be run; its number is none yet.
    pub content: ApplicationRevisionSpec,
    /// Components that can't, and why.
    pub problems: BTreeMap<String, String>,
}

/// Looks up what the components name. What is gone stays as it was in the revision that runs (promise 1); a component
/// that names what was never there is left out.
pub(super) fn wanted(
    snapshot: &Snapshot,
    application: &Application,
    running: Option<&ApplicationRevisionSpec>,
) -> Wanted {
    let namespace = application.namespace();
    let function = |name: &str| {
        Snapshot::named(&snapshot.functions, namespace, name).map(|function| function.spec.clone())
    };
    let model =
        |name: &str| Snapshot::named(&snapshot.models, namespace, name).map(|model| model.spec.clone());
    let mut wanted = Wanted {
        content: ApplicationRevisionSpec {
            application: application.name().to_owned(),
            number: 0,
            components: vec![],
            functions: vec![],
            models: vec![],
        },
        problems: BTreeMap::new(),
    };
    let (mut functions, mut models) = (BTreeMap::new(), BTreeMap::<String, Model>::new());
    for component in &application.spec.components {
        let found = find_function(component, &function, running)
            .and_then(|function| Ok((function, find_models(component, &model, running)?)));
        match found {
            Ok((function, found)) => {
                functions.extend(function);
                for (name, new) in found {
                    models.entry(name).or_insert_with(|| Model::of(new.spec.clone())).add(new);
                }
                wanted.content.components.push(component.clone());
            }
            Err(problem) => {
                wanted.problems.insert(component.name.clone(), problem);
            }
        }
    }
    let functions = functions.into_iter().map(|(name, spec)| AssignedFunction { name, spec });
    wanted.content.functions = functions.collect();
    wanted.content.models = models.into_iter().filter_map(|(name, model)| model.assigned(name)).collect();
    wanted
}

/// A model as one or several components want it.
struct Model {
    spec: ModelSpec,
    /// Whether a component takes what the Model says at any time.
    floats: bool,
    pinned: BTreeSet<String>,
}

struct Found {
    spec: ModelSpec,
    version: Option<String>,
}

impl Model {
    fn of(spec: ModelSpec) -> Self {
        Self { spec, floats: false, pinned: BTreeSet::new() }
    }

    fn add(&mut self, found: Found) {
        match found.version {
            None => {
                self.floats = true;
                self.spec = found.spec;
            }
            Some(version) => {
                self.pinned.insert(version);
            }
        }
    }

    /// Just what is wanted of it, so that other versions are no change.
    fn assigned(self, name: String) -> Option<AssignedModel> {
        if self.floats {
            return Some(AssignedModel { name, spec: self.spec, pinned: false });
        }
        let pinned: Vec<&str> = self.pinned.iter().map(String::as_str).collect();
        Some(AssignedModel { name, spec: self.spec.narrowed(&pinned)?, pinned: true })
    }
}

fn find_function(
    component: &Component,
    function: &impl Fn(&str) -> Option<FunctionSpec>,
    running: Option<&ApplicationRevisionSpec>,
) -> Result<Option<(String, FunctionSpec)>, String> {
    let Some(name) = &component.function else { return Ok(None) };
    let was = || running?.functions.iter().find(|was| was.name == *name).map(|was| was.spec.clone());
    let spec = function(name).or_else(was).ok_or_else(|| planner::missing("Function", name))?;
    Ok(Some((name.clone(), spec)))
}

fn find_models(
    component: &Component,
    model: &impl Fn(&str) -> Option<ModelSpec>,
    running: Option<&ApplicationRevisionSpec>,
) -> Result<Vec<(String, Found)>, String> {
    let mut all = Vec::new();
    for wanted in component.model_references() {
        let was = || running?.models.iter().find(|was| was.name == wanted.name).map(|was| was.spec.clone());
        let has = |spec: &ModelSpec| {
            wanted.version.is_none_or(|name| spec.versions.iter().any(|version| version.name == name))
        };
        let now = model(wanted.name);
        let exists = now.is_some();
        let spec = now.filter(has).or_else(|| was().filter(has)).ok_or_else(|| match wanted.version {
            Some(version) if exists => planner::missing_version(wanted.name, version),
            _ => planner::missing("Model", wanted.name),
        })?;
        all.push((wanted.name.to_owned(), Found { spec, version: wanted.version.map(str::to_owned) }));
    }
    Ok(all)
}

/// Whether two revisions say the same, whatever their numbers.
pub(super) fn is_same(one: &ApplicationRevisionSpec, other: &ApplicationRevisionSpec) -> bool {
    one.components == other.components && one.functions == other.functions && one.models == other.models
}

/// How much of an application's name is in the names of its revisions, in bytes.
const LONGEST_NAME: usize = 200;

/// A revision of an application, which goes when the application does.
pub(super) fn new_revision(
    application: &Application,
    content: ApplicationRevisionSpec,
) -> ApplicationRevision {
    // Two contents never share a name: what the name is made of holds the number, too.
    let text = serde_json::to_string(&content).unwrap_or_default();
    let hash: String = Digest::of(text.as_bytes()).hex().chars().take(10).collect();
    let prefix: String = application.name().chars().take(LONGEST_NAME).collect();
    let owner = OwnerReference {
        api_version: application.api_version.clone(),
        kind: application.kind.clone(),
        name: application.name().to_owned(),
        uid: application.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    };
    let metadata = ObjectMeta {
        name: format!("{}-{hash}", prefix.trim_end_matches(['.', '-'])),
        namespace: application.namespace().to_owned(),
        labels: [(label::APPLICATION.to_owned(), application.name().to_owned())].into(),
        owner_references: vec![owner],
        ..ObjectMeta::default()
    };
    ApplicationRevision::new(metadata, content)
}

/// What each site has to run of a revision, wherever placements put its components now.
pub(super) fn plan(
    snapshot: &Snapshot,
    application: &Application,
    revision: &ApplicationRevisionSpec,
) -> Vec<ComponentPlan> {
    let mut as_it_was = application.clone();
    as_it_was.spec.components.clone_from(&revision.components);
    let resolver = Then { snapshot, namespace: application.namespace(), revision };
    plan_application(&as_it_was, &resolver, &snapshot.sites)
}

/// Functions and models of a revision, and decisions of now.
struct Then<'a> {
    snapshot: &'a Snapshot,
    namespace: &'a str,
    revision: &'a ApplicationRevisionSpec,
}

impl Resolver for Then<'_> {
    fn sites_of(&self, placement: &str) -> Option<Vec<String>> {
        let decision = Decision::of(self.snapshot, self.namespace, placement);
        decision.is_made().then(|| decision.names())
    }

    fn function(&self, name: &str) -> Option<FunctionSpec> {
        let mut functions = self.revision.functions.iter();
        Some(functions.find(|function| function.name == name)?.spec.clone())
    }

    fn model(&self, name: &str) -> Option<ModelSpec> {
        let mut models = self.revision.models.iter();
        Some(models.find(|model| model.name == name)?.spec.clone())
    }
}
