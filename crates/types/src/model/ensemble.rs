//! Several models as one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Models that answer together as one: tensors have names, steps take some of them and give others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ensemble {
    /// The tensors that a request brings.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub inputs: Vec<String>,
    /// What is computed, in any order: a step runs as soon as the tensors that it takes are there.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<EnsembleStep>,
    /// The tensors that are the answer.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    pub outputs: Vec<String>,
}

/// One run of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsembleStep {
    /// The step's name in the ensemble.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The model, of the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub model: String,
    /// The model's version or alias; absent leaves it to the model's default and traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,
    /// By input of the model, the tensor that it gets: one of the ensemble's inputs, or what another step gives.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    pub inputs: BTreeMap<String, String>,
    /// By output of the model, the name of the tensor that it gives; outputs that aren't named are not asked for.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    pub outputs: BTreeMap<String, String>,
}
