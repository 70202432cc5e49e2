//! `Function`: code run on an event or a request.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Artifact, Condition, FieldError, Kind, Quantity, Resource};

/// Code that is run on an event or a request.
pub type Function = Resource<FunctionSpec>;

/// A path of parts that are none of empty, `.` and `..`.
const RELATIVE_FILE: &str =
    concat!(r"^([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)", r"(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))*$",);

/// What to run and how.
///
/// Each invocation is a process of its own, confined to its working folder. It finds its input in the file
/// `INPUT_FILE_PATH`, leaves its outputs in the folder `TMP_OUTPUT_DIR`, and succeeds if it exits with 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionSpec {
    /// What runs the handler.
    pub runtime: Runtime,
    /// The file in the artifact to run, for example `handler.py`.
    #[schemars(regex(pattern = RELATIVE_FILE), length(max = 512))]
    pub handler: String,
    /// A folder's content as a tar archive, or a single file.
    pub artifact: Artifact,
    /// Environment variables for the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "maxLength": 32_768}))]
    pub environment: BTreeMap<String, String>,
    /// How many invocations may run at once on a site.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub parallelism: u32,
    /// How long an invocation may take, in seconds, before it is killed.
    #[serde(default = "one_minute")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: u32,
    /// How much memory an invocation may allocate.
    #[serde(default = "default_memory")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "!quantity(self).isLessThan(quantity('16Mi'))",
        "message": "is too little for a process to start: write at least 16Mi",
    }]))]
    pub memory: Quantity,
    /// How many times a failing invocation is tried in all before it is left as failed, to be replayed by hand.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
}

fn one() -> u32 {
    1
}

fn one_minute() -> u32 {
    60
}

fn default_memory() -> Quantity {
    Quantity::mebibytes(1024)
}

/// What runs a function's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The site's Python 3.
    Python,
    /// The site's `/bin/sh`.
    Shell,
    /// The handler itself, an executable for the site's architecture.
    Binary,
}

impl Runtime {
    /// The word that manifests use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Shell => "shell",
            Self::Binary => "binary",
        }
    }
}

/// How a function stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionStatus {
    /// What is true of the function now.
    pub conditions: Vec<Condition>,
}

/// Names that the runtime sets itself.
const RESERVED: [&str; 6] =
    ["INPUT_FILE_PATH", "TMP_OUTPUT_DIR", "TMP_INPUT_DIR", "EVENT", "PATH", "STORAGE_OBJECT_KEY"];

impl Kind for FunctionSpec {
    const KIND: &'static str = "Function";
    const PLURAL: &'static str = "functions";
    type Status = FunctionStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        for key in self.environment.keys() {
            let valid = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !key.is_empty()
                && !key.starts_with(|c: char| c.is_ascii_digit());
            if !valid || RESERVED.contains(&key.as_str()) || key.starts_with("AVOCET_") {
                errors.push(FieldError::new(
                    format!("spec.environment[{key}]"),
                    "",
                    "can't be set: write a name of A-Z, a-z, 0-9 and '_' that the runtime does not set itself",
                ));
            }
        }
    }
}
