//! `Model`: something that sites serve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Digest, FieldError, Kind, Resource, names};

/// A model that sites serve.
pub type Model = Resource<ModelSpec>;

/// Which versions there are and how they are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSpec {
    /// The versions; each is immutable by its digest.
    pub versions: Vec<ModelVersion>,
    /// The version that answers where a request names none; absent means the last of `versions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_version: Option<String>,
    /// The engine that runs it.
    #[serde(default)]
    pub engine: Engine,
}

/// Which engine runs a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// ONNX Runtime where a site has it, otherwise the built-in engine.
    #[default]
    Auto,
    /// ONNX Runtime, from its shared library.
    OnnxRuntime,
    /// The built-in pure-Rust engine.
    Rten,
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelVersion {
    /// The version's name, for example `1`.
    pub name: String,
    /// The model file, in ONNX format.
    pub artifact: Artifact,
}

/// Content in the artifact store of the hub.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Artifact {
    /// The content's address, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Size in bytes.
    pub size: u64,
    /// A file or folder beside the manifest. Only `avocet apply` takes it: it uploads the content and puts the
    /// digest in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl Artifact {
    pub(crate) fn check(&self, errors: &mut Vec<FieldError>, field: &str) {
        if let Some(path) = &self.path {
            errors.push(FieldError::new(
                format!("{field}.path"),
                format!("{path:?}"),
                "is on your machine, which the server can't see: use `avocet apply`, which uploads it, or run \
                 `avocet push` and write the digest that it prints",
            ));
        } else if self.digest.is_none() {
            errors.push(FieldError::new(
                format!("{field}.digest"),
                "",
                "is missing: run `avocet push FILE` and write the digest that it prints",
            ));
        }
    }
}

impl ModelSpec {
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

    fn check(&self, errors: &mut Vec<FieldError>) {
        if self.versions.is_empty() {
            errors.push(FieldError::new(
                "spec.versions",
                "[]",
                "is empty: a model needs at least one version",
            ));
        }
        for (index, version) in self.versions.iter().enumerate() {
            names::check_dns_label(errors, &format!("spec.versions[{index}].name"), &version.name);
            version.artifact.check(errors, &format!("spec.versions[{index}].artifact"));
            if self.versions.iter().take(index).any(|earlier| earlier.name == version.name) {
                errors.push(FieldError::new(
                    format!("spec.versions[{index}].name"),
                    format!("{:?}", version.name),
                    "is there twice: give each version its own name",
                ));
            }
        }
        if let Some(default) = &self.default_version
            && !self.versions.iter().any(|version| version.name == *default)
        {
            errors.push(FieldError::new(
                "spec.defaultVersion",
                format!("{default:?}"),
                "is none of spec.versions: name one of them",
            ));
        }
    }
}
