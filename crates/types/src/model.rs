//! `Model`: something that sites serve.

mod ensemble;
mod processing;
mod serving;
mod signature;
mod traffic;

use std::collections::BTreeMap;

pub use ensemble::{Ensemble, EnsembleStep};
pub use processing::{
    Activation, Align, BoxFormat, BoxesOutput, Channels, ClassesOutput, CsvInput, Decoder, Header,
    ImageInput, Interpolation, Layout, Postprocessing, Preprocessing, Resize,
};
pub use serving::{Batching, Drift, Isolation, Payloads, PredictionCache, QueuePolicy, Serving};
pub use signature::{DeclaredTensor, ElementType, ModelSignature};
pub use traffic::{Rollback, Shadow, Share, Traffic};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Digest, Kind, Resource, names};

/// A model that sites serve.
pub type Model = Resource<ModelSpec>;

/// Which versions there are and how they are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.ensemble) || has(self.versions)",
    "message": "name at least one version, or an ensemble", "fieldPath": ".versions", "reason": "FieldValueRequired",
}, {
    "rule": "!has(self.ensemble) || !has(self.versions)",
    "message": "an ensemble has no versions: its steps name those of other models", "fieldPath": ".versions",
    "reason": "FieldValueForbidden",
}, {
    "rule": "!has(self.defaultVersion) || has(self.versions) && self.versions.exists(version, version.name == self.defaultVersion)",
    "message": "is none of spec.versions: name one of them", "fieldPath": ".defaultVersion",
}, {
    "rule": "!has(self.aliases) || has(self.versions) && self.aliases.all(alias, self.versions.exists(version, version.name == self.aliases[alias]))",
    "message": "names a version that is none of spec.versions: name one of them", "fieldPath": ".aliases",
}, {
    "rule": "!has(self.traffic) || !has(self.traffic.split) || has(self.versions) && self.traffic.split.all(share, self.versions.exists(version, version.name == share.version))",
    "message": "names a version that is none of spec.versions: name one of them", "fieldPath": ".traffic",
}, {
    "rule": "!has(self.traffic) || !has(self.traffic.shadow) || has(self.versions) && self.versions.exists(version, version.name == self.traffic.shadow.version)",
    "message": "names a version that is none of spec.versions: name one of them", "fieldPath": ".traffic",
}]))]
pub struct ModelSpec {
    /// The versions; each is immutable by its digest. An ensemble has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256))]
    pub versions: Vec<ModelVersion>,
    /// Other models that answer together as this one, in the place of versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// What the model takes and gives, where its file doesn't tell or is to be held to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ModelSignature>,
    /// The version that answers where a request names none; absent means the last of `versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub default_version: Option<String>,
    /// Further names of versions, for example `champion`; requests may name them wherever they may name a version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub aliases: BTreeMap<String, String>,
    /// How requests that name no version are shared among versions; absent sends them all to the default version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// The engine that runs it.
    #[serde(default)]
    pub engine: Engine,
    /// How it is run.
    #[serde(default, skip_serializing_if = "Serving::is_default")]
    pub serving: Serving,
}

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// `native` for classical models, else the fastest of those that take the model and agree, by a short trial.
    #[default]
    Auto,
    /// Avocet's own arithmetic for trees, linear models and the pipelines around them.
    Native,
    /// ONNX Runtime, from its shared library.
    OnnxRuntime,
    /// The built-in pure-Rust engine.
    Rten,
    /// TensorFlow, from its shared library.
    TensorFlow,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelVersion {
    /// The version's name, for example `1`.
    #[schemars(regex(pattern = names::DNS_LABEL), length(max = 63))]
    pub name: String,
    /// The model: ONNX, TFLite, a frozen TensorFlow graph, what XGBoost or LightGBM saved, or an archive of a
    /// SavedModel or of an ONNX file with its data.
    pub artifact: Artifact,
}

/// Content in the artifact store of the hub.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.path)",
        "message": "is on your machine, which the server can't see: use `avocet apply`, which uploads it, or run \
                    `avocet push` and write the digest that it prints",
        "fieldPath": ".path", "reason": "FieldValueForbidden",
    },
    {
        "rule": "has(self.path) || has(self.digest)",
        "message": "run `avocet push FILE` and write the digest that it prints",
        "fieldPath": ".digest", "reason": "FieldValueRequired",
    },
]))]
pub struct Artifact {
    /// The content's address, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Size in bytes.
    pub size: u64,
    /// Who vouches for it: `ed25519:KEY:SIGNATURE`, as `avocet artifact sign` prints it, or `cosign:PROOF:SIZE`, as
    /// `avocet apply` notes what it found in a registry. A site may demand one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 256)))]
    pub signatures: Vec<String>,
    /// Where it was taken from, if from a registry: `oci://…@sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub source: Option<String>,
    /// A file or folder beside the manifest, or `oci://` and a place in a registry. Only `avocet apply` takes it: it
    /// uploads the content and puts the digest in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
}

impl ModelSpec {
    /// The same with these versions alone, without a say about which requests go to which; `None` where it lacks one.
    pub fn narrowed(&self, versions: &[&str]) -> Option<Self> {
        let is_kept = |name: &str| versions.contains(&name);
        let kept: Vec<ModelVersion> =
            self.versions.iter().filter(|version| is_kept(&version.name)).cloned().collect();
        if versions.iter().any(|name| kept.iter().all(|version| version.name != *name)) {
            return None;
        }
        let aliases = self.aliases.iter().filter(|(_, version)| is_kept(version));
        let aliases = aliases.map(|(alias, version)| (alias.clone(), version.clone())).collect();
        Some(Self { versions: kept, default_version: None, aliases, traffic: None, ..self.clone() })
    }

    /// The name of the version that answers where a request names none.
    pub fn default_version(&self) -> Option<&str> {
        self.default_version.as_deref().or_else(|| self.versions.last().map(|version| version.name.as_str()))
    }
}

/// How a model stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelStatus {
    /// What is true of the model now.
    pub conditions: Vec<Condition>,
}

impl Kind for ModelSpec {
    const KIND: &'static str = "Model";
    const PLURAL: &'static str = "models";
    type Status = ModelStatus;
}
