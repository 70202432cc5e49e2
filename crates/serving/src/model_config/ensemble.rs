//! Triton's `ensemble_scheduling`, and what a configuration says of inputs and outputs.

use std::collections::BTreeMap;

use serde::Deserialize;
use types::{DeclaredTensor, ElementType, Ensemble, EnsembleStep, ModelSignature};

use super::{ConfigError, ModelConfig, Tensor};

/// The steps of an ensemble.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EnsembleScheduling {
    /// In any order.
    pub step: Vec<Step>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Step {
    /// The model that it runs.
    pub model_name: String,
    /// Its version; absent and -1 stand for the one that answers where none is named.
    pub model_version: Option<Version>,
    /// The ensemble's tensor by the model's input.
    pub input_map: BTreeMap<String, String>,
    /// The ensemble's tensor by the model's output.
    pub output_map: BTreeMap<String, String>,
}

/// A number, which protobuf's JSON may write as a text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Version {
    /// As it is.
    Number(i64),
    /// In quotes.
    Text(String),
}

impl Version {
    fn named(&self) -> Option<String> {
        let text = match self {
            Version::Number(number) => number.to_string(),
            Version::Text(text) => text.clone(),
        };
        (text != "-1").then_some(text)
    }
}

impl ModelConfig {
    /// The ensemble that it describes; `None` for a model with a file. Its inputs and outputs are those that the
    /// configuration names.
    pub fn ensemble(&self) -> Option<Ensemble> {
        let scheduling = self.ensemble_scheduling.as_ref()?;
        let named = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.name.clone()).collect();
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        let steps = scheduling.step.iter().map(|step| {
            let number = uses.entry(&step.model_name).and_modify(|number| *number += 1).or_insert(1);
            // Triton's steps have no names.
            let name = match number {
                1 => step.model_name.clone(),
                number => format!("{}-{number}", step.model_name),
            };
            EnsembleStep {
                name,
                model: step.model_name.clone(),
                version: step.model_version.as_ref().and_then(Version::named),
                inputs: step.input_map.clone(),
                outputs: step.output_map.clone(),
            }
        });
        Some(Ensemble { inputs: named(&self.input), steps: steps.collect(), outputs: named(&self.output) })
    }

    /// What it says that the model takes and gives; `None` where that is nothing.
    ///
    /// # Errors
    /// When a type is none of Triton's.
    pub fn signature(&self) -> Result<Option<ModelSignature>, ConfigError> {
        let batched = self.max_batch_size > 0;
        let declared = |tensors: &[Tensor]| -> Result<Vec<DeclaredTensor>, ConfigError> {
            let named = tensors.iter().filter(|tensor| !tensor.name.is_empty());
            named.map(|tensor| tensor.declared(batched)).collect()
        };
        let signature = ModelSignature { inputs: declared(&self.input)?, outputs: declared(&self.output)? };
        Ok((signature != ModelSignature::default()).then_some(signature))
    }
}

impl Tensor {
    fn declared(&self, batched: bool) -> Result<DeclaredTensor, ConfigError> {
        let datatype = match self.data_type.as_str() {
            "" | "TYPE_INVALID" => None,
            given => {
                let known = element_type(given);
                let unknown = || ConfigError::DataType(given.chars().take(64).collect());
                Some(known.ok_or_else(unknown)?)
            }
        };
        // With `reshape` the dimensions are those that clients see, not the model's.
        let told = !self.dims.is_empty() && self.reshape.is_none();
        let batch = batched.then_some(-1);
        let shape = told.then(|| batch.into_iter().chain(self.dims.iter().copied()).collect());
        Ok(DeclaredTensor { name: self.name.clone(), datatype, shape })
    }
}

fn element_type(name: &str) -> Option<ElementType> {
    Some(match name {
        "TYPE_BOOL" => ElementType::Bool,
        "TYPE_UINT8" => ElementType::Uint8,
        "TYPE_UINT16" => ElementType::Uint16,
        "TYPE_UINT32" => ElementType::Uint32,
        "TYPE_UINT64" => ElementType::Uint64,
        "TYPE_INT8" => ElementType::Int8,
        "TYPE_INT16" => ElementType::Int16,
        "TYPE_INT32" => ElementType::Int32,
        "TYPE_INT64" => ElementType::Int64,
        "TYPE_FP16" => ElementType::Fp16,
        "TYPE_FP32" => ElementType::Fp32,
        "TYPE_FP64" => ElementType::Fp64,
        "TYPE_BF16" => ElementType::Bf16,
        "TYPE_STRING" => ElementType::Bytes,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENSEMBLE: &[u8] = br#"
        name: "pipe"
        platform: "ensemble"
        max_batch_size: 8
        input [ { name: "IN", data_type: TYPE_FP32, dims: [ 4 ] } ]
        output [ { name: "OUT", data_type: TYPE_FP32, dims: [ -1 ] } ]
        ensemble_scheduling {
          step [
            { model_name: "a" model_version: -1
              input_map { key: "x" value: "IN" } output_map { key: "y" value: "mid" } },
            { model_name: "a" model_version: 3
              input_map { key: "x" value: "mid" } output_map { key: "y" value: "OUT" } }
          ]
        }
    "#;

    #[test]
    fn an_ensemble_is_read_as_triton_writes_it() {
        let config = ModelConfig::from_text(ENSEMBLE).unwrap();
        let ensemble = config.ensemble().unwrap();
        assert_eq!((ensemble.inputs, ensemble.outputs), (vec!["IN".to_owned()], vec!["OUT".to_owned()]));
        let [first, second] = ensemble.steps.as_slice() else { panic!("two steps") };
        assert_eq!((first.name.as_str(), first.version.as_deref()), ("a", None));
        assert_eq!((second.name.as_str(), second.version.as_deref()), ("a-2", Some("3")));
        assert_eq!((first.inputs["x"].as_str(), second.outputs["y"].as_str()), ("IN", "OUT"));
        assert_eq!(config.signature().unwrap().unwrap().inputs[0].shape, Some(vec![-1, 4]));
        let json = br#"{"ensemble_scheduling": {"step": [{"model_name": "a", "model_version": "-1"}]}}"#;
        assert_eq!(ModelConfig::from_json(json).unwrap().ensemble().unwrap().steps[0].version, None);
    }

    #[test]
    fn types_and_dimensions_are_the_models_own() {
        let read = |text: &str| ModelConfig::from_text(text.as_bytes()).unwrap().signature();
        let one = read(r#"input { name: "x" data_type: TYPE_STRING dims: [ 2, -1 ] }"#).unwrap().unwrap();
        assert_eq!(one.inputs[0].datatype, Some(ElementType::Bytes));
        assert_eq!(one.inputs[0].shape, Some(vec![2, -1]));
        assert_eq!(read("max_batch_size: 4"), Ok(None));
        let reshaped = read(r#"input { name: "x" dims: 1 reshape { shape: [ ] } }"#).unwrap().unwrap();
        assert_eq!(reshaped.inputs[0].shape, None);
        assert_eq!(
            read(r#"output { name: "y" data_type: TYPE_FP8 }"#),
            Err(ConfigError::DataType("TYPE_FP8".into()))
        );
    }
}
