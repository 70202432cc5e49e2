//! `Application`: components, their data flow and their placement.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Condition, FieldError, InvocationCounts, Kind, Offload, Resource, Rollout, RolloutStatus, names,
};

/// An AI application over many sites.
pub type Application = Resource<ApplicationSpec>;

/// What the application consists of.
///
/// Data flow is stated by paths: what one component writes to a path goes to the sites of the components that
/// read it, and stays where it was made if none does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationSpec {
    /// The application's parts.
    #[schemars(length(min = 1, max = 256))]
    pub components: Vec<Component>,
    /// How changes of it, and of the functions and models that it names, reach its sites; absent changes all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// One part of an application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.__function__) || (has(self.models) && size(self.models) > 0)",
        "message": "has nothing to run: name a function, models, or both",
    },
    {
        "rule": "has(self.__function__) || ((!has(self.inputs) || size(self.inputs) == 0) && \
                 (!has(self.outputs) || size(self.outputs) == 0))",
        "message": "inputs and outputs need a function that reads and writes them",
        "fieldPath": ".function", "reason": "FieldValueRequired",
    },
    {
        "rule": "has(self.__function__) || !has(self.offload)",
        "message": "offload needs a function whose invocations others can run",
        "fieldPath": ".function", "reason": "FieldValueRequired",
    },
]))]
pub struct Component {
    /// Unique within the application.
    #[schemars(regex(pattern = names::DNS_LABEL), length(max = 63))]
    pub name: String,
    /// The Placement, in the same namespace, that says on which sites the component runs.
    #[schemars(length(min = 1, max = 253))]
    pub placement: String,
    /// The Function, in the same namespace, that runs for each new object in `inputs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub function: Option<String>,
    /// The Models, in the same namespace, that are served beside it: `NAME` for what the Model says at any time,
    /// `NAME@VERSION` for that version alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 317)))]
    pub models: Vec<String>,
    /// New objects there invoke the function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub inputs: Vec<BucketPath>,
    /// Where the function's outputs go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub outputs: Vec<BucketPath>,
    /// Lets its invocations run at other sites when its own are busy; absent keeps them, and their inputs, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
}

/// A model that a component names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelReference<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The one version that is wanted of it; `None` for what the Model says.
    pub version: Option<&'a str>,
}

impl Component {
    /// The models that it names.
    pub fn model_references(&self) -> impl Iterator<Item = ModelReference<'_>> {
        self.models.iter().map(|text| match text.split_once('@') {
            Some((name, version)) => ModelReference { name, version: Some(version) },
            None => ModelReference { name: text, version: None },
        })
    }
}

/// A bucket, and folders that are none of empty, `.` and `..`.
const BUCKET_PATH: &str = concat!(
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
    r"(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))*$",
);

/// A folder of a bucket, and which of its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BucketPath {
    /// `bucket/folder`, for example `photos/in`.
    #[schemars(
        regex(pattern = BUCKET_PATH),
        length(max = 576),
        extend("x-kubernetes-validations" = [{
            "rule": "size(self.split('/')[0]) >= 3 && size(self.split('/')[0]) <= 63",
            "message": "is not `bucket/folder`: a bucket has 3 to 63 of a-z, 0-9, '-' and '.'",
        }])
    )]
    pub path: String,
    /// Takes only names that end with one of these; empty takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub suffixes: Vec<String>,
}

impl BucketPath {
    /// The bucket.
    pub fn bucket(&self) -> &str {
        self.path.split_once('/').map_or(self.path.as_str(), |(bucket, _)| bucket)
    }

    /// What keys begin with: the folder and a slash, or nothing for a whole bucket.
    pub fn key_prefix(&self) -> String {
        match self.path.split_once('/') {
            Some((_, folder)) if !folder.is_empty() => format!("{}/", folder.trim_end_matches('/')),
            _ => String::new(),
        }
    }

    /// Whether an object with this key belongs to the path. Keys that end with `/` are folder markers and never do.
    pub fn matches(&self, bucket: &str, key: &str) -> bool {
        bucket == self.bucket()
            && key.strip_prefix(self.key_prefix().as_str()).is_some_and(|rest| !rest.is_empty())
            && !key.ends_with('/')
            && self.takes(key)
    }

    /// Whether a name has one of the suffixes.
    pub fn takes(&self, name: &str) -> bool {
        self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()))
    }
}

/// How an application stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationStatus {
    /// `Ready`: every component runs where it should. `Progressing`: a change is on its way to sites.
    pub conditions: Vec<Condition>,
    /// How the last change reaches the sites.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// How each component stands.
    pub components: Vec<ComponentStatus>,
    /// How many components are ready, of how many, for example `2/2`.
    pub ready: String,
    /// Invocations over all components and sites, as last reported.
    pub invocations: InvocationCounts,
    /// The generation that this status is about.
    pub observed_generation: i64,
}

/// How one component stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// The component.
    pub name: String,
    /// Where it is placed.
    pub sites: Vec<String>,
    /// On how many of them it runs.
    pub ready_sites: u32,
    /// What keeps it from running, if anything.
    #[serde(default)]
    pub message: String,
}

impl Kind for ApplicationSpec {
    const KIND: &'static str = "Application";
    const PLURAL: &'static str = "applications";
    type Status = ApplicationStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        self.check_cycles(errors);
    }
}

impl ApplicationSpec {
    /// Whether an object that lands under `output` would invoke a reader of `input`.
    fn feeds(output: &BucketPath, input: &BucketPath) -> bool {
        output.bucket() == input.bucket() && output.key_prefix().starts_with(&input.key_prefix())
    }

    /// A data flow that leads back to its own beginning would never end.
    fn check_cycles(&self, errors: &mut Vec<FieldError>) {
        let readers = |from: &Component| -> Vec<usize> {
            let feeds = |to: &Component| {
                from.outputs.iter().any(|output| to.inputs.iter().any(|input| Self::feeds(output, input)))
            };
            (0..self.components.len())
                .filter(|index| self.components.get(*index).is_some_and(feeds))
                .collect()
        };
        let edges: Vec<Vec<usize>> = self.components.iter().map(readers).collect();
        for start in 0..self.components.len() {
            let mut seen = vec![false; self.components.len()];
            let mut open: Vec<usize> = edges.get(start).cloned().unwrap_or_default();
            while let Some(next) = open.pop() {
                if next == start {
                    let name = self.components.get(start).map(|component| component.name.as_str());
                    errors.push(FieldError::new(
                        format!("spec.components[{start}].outputs"),
                        format!("{:?}", name.unwrap_or_default()),
                        "flows back into its own inputs, so it would never end: write to a folder that no \
                         earlier component reads",
                    ));
                    return;
                }
                if let Some(seen) = seen.get_mut(next).filter(|seen| !**seen) {
                    *seen = true;
                    open.extend(edges.get(next).into_iter().flatten());
                }
            }
        }
    }
}
