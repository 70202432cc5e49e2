//! Triton's `model_warmup`: requests that a version answers before anybody else's.

use std::collections::BTreeMap;

use inference::{Datatype, Tensor, TensorError};
use serde::Deserialize;

use super::{ModelConfig, number};
use crate::scramble;

/// Most bytes of all tensors of a model's warm-up.
const MOST_BYTES: usize = 64 << 20;
/// Most requests of a model's warm-up, each as often as it is asked.
const MOST_REQUESTS: u64 = 1000;

/// A request to warm up with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WarmUp {
    /// What messages call it.
    pub name: String,
    /// Samples in it, where the model takes batches; 0 stands for 1.
    #[serde(deserialize_with = "number::read")]
    pub batch_size: u64,
    /// What each input gets.
    pub inputs: BTreeMap<String, WarmUpInput>,
    /// How often it is asked; 0 stands for 1.
    #[serde(deserialize_with = "number::read")]
    pub count: u64,
}

/// What an input gets: zeros unless something else is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WarmUpInput {
    /// Such as `TYPE_FP32`.
    pub data_type: String,
    /// Its dimensions without that of the batch.
    pub dims: Vec<i64>,
    /// Small random numbers, from 0 to 1, the same each time.
    pub random_data: bool,
    /// A file in the folder `warmup` beside the configuration: little-endian, row by row.
    pub input_data_file: String,
}

/// Why a warm-up can't be done.
#[derive(Debug, thiserror::Error)]
#[error("model_warmup `{request}`, input `{input}`: {problem}")]
pub struct WarmUpError {
    request: String,
    input: String,
    problem: String,
}

impl ModelConfig {
    /// The requests that it asks to warm up with. `read` gives the content of a file in the folder `warmup`.
    ///
    /// # Errors
    /// When one names a type or shape that isn't one, its data don't fit it, or all of them are too large.
    pub fn warm_up(
        &self,
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Vec<inference::WarmUp>, WarmUpError> {
        let mut room = MOST_BYTES;
        let mut times_left = MOST_REQUESTS;
        let mut all = Vec::new();
        for (place, request) in self.model_warmup.iter().enumerate() {
            let name = match request.name.as_str() {
                "" => format!("#{}", place + 1),
                name => name.chars().take(128).collect(),
            };
            let batch = (self.max_batch_size > 0).then_some(request.batch_size.max(1));
            let mut inputs = Vec::new();
            for (input, said) in &request.inputs {
                let failed = |problem: String| WarmUpError {
                    request: name.clone(),
                    input: input.chars().take(128).collect(),
                    problem,
                };
                let tensor = said.tensor(input, batch, room, &read).map_err(failed)?;
                room = room.saturating_sub(tensor.data().len());
                inputs.push(tensor);
            }
            let times = request.count.max(1);
            times_left = times_left.checked_sub(times).ok_or_else(|| WarmUpError {
                request: name.clone(),
                input: "all".into(),
                problem: format!("a model is warmed up with at most {MOST_REQUESTS} requests; lower `count`"),
            })?;
            all.push(inference::WarmUp { name, inputs, times: u32::try_from(times).unwrap_or(u32::MAX) });
        }
        Ok(all)
    }
}

impl WarmUpInput {
    fn tensor(
        &self,
        name: &str,
        batch: Option<u64>,
        room: usize,
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Tensor, String> {
        let kind = self.data_type.strip_prefix("TYPE_").unwrap_or_default();
        let kind = if kind == "STRING" { "BYTES" } else { kind };
        let datatype: Datatype = kind
            .parse()
            .map_err(|_| format!("data_type `{}` is none of Triton's", short(&self.data_type)))?;
        let dims = self.dims.iter().map(|&size| u64::try_from(size).ok());
        let shape = batch.map(Some).into_iter().chain(dims).map(|size| usize::try_from(size?).ok());
        let shape: Vec<usize> = shape
            .collect::<Option<_>>()
            .ok_or_else(|| format!("dims {:?} aren't all 0 or more: a request has a size", self.dims))?;
        let size = datatype.size().unwrap_or(4);
        let bytes = shape.iter().try_fold(size, |product, &size| product.checked_mul(size));
        let bytes = bytes
            .filter(|bytes| *bytes <= room)
            .ok_or_else(|| format!("all of a model's warm-up may have {MOST_BYTES} bytes; this is more"))?;
        let problem = |error: TensorError| error.to_string();
        match self.input_data_file.as_str() {
            "" if self.random_data => random(name, datatype, shape, bytes / size).map_err(problem),
            "" => Tensor::from_bytes(name, datatype, shape, vec![0; bytes].into()).map_err(problem),
            file => {
                let content = read(file).map_err(|error| format!("file `{}`: {error}", short(file)))?;
                if content.len() > room {
                    return Err(format!(
                        "file `{}` makes the warm-up larger than {MOST_BYTES} bytes",
                        short(file)
                    ));
                }
                Tensor::from_bytes(name, datatype, shape, content.into()).map_err(problem)
            }
        }
    }
}

/// Numbers from 0 to 1; whole ones are 0 or 1, which are classes and words of every model, and texts are words.
fn random(name: &str, datatype: Datatype, shape: Vec<usize>, count: usize) -> Result<Tensor, TensorError> {
    let bits = (0_u64..).map(scramble).take(count);
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let shares = || bits.clone().map(|bits| (bits >> 40) as f32 / (1_u64 << 24) as f32);
    let data: Vec<u8> = match datatype {
        Datatype::Bytes => {
            return Tensor::from_strings(name, shape, bits.map(|bits| format!("word-{}", bits % 1000)));
        }
        Datatype::Fp32 => shares().flat_map(f32::to_le_bytes).collect(),
        Datatype::Fp64 => shares().flat_map(|share| f64::from(share).to_le_bytes()).collect(),
        Datatype::Fp16 => shares().flat_map(|share| half::f16::from_f32(share).to_le_bytes()).collect(),
        Datatype::Bf16 => shares().flat_map(|share| half::bf16::from_f32(share).to_le_bytes()).collect(),
        whole => {
            let rest = whole.size().unwrap_or(1).saturating_sub(1);
            bits.flat_map(|bits| {
                let lowest = u8::from(bits & 1 == 1);
                std::iter::once(lowest).chain(std::iter::repeat_n(0, rest))
            })
            .collect()
        }
    };
    Tensor::from_bytes(name, datatype, shape, data.into())
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<inference::WarmUp>, WarmUpError> {
        let config = ModelConfig::from_text(text.as_bytes()).unwrap();
        config.warm_up(|file| match file {
            "two" => Ok([1.5_f32, 2.0].into_iter().flat_map(f32::to_le_bytes).collect()),
            _ => Err("it isn't there".into()),
        })
    }

    fn request(input: &str) -> String {
        format!("model_warmup {{ name: \"w\" count: 2 inputs {{ key: \"x\" value {{ {input} }} }} }}")
    }

    #[test]
    fn zeros_random_numbers_and_files_make_requests() {
        let one = |input: &str| read(&request(input)).unwrap().remove(0);
        let zeros = one("data_type: TYPE_FP32 dims: [ 2 ] zero_data: true");
        assert_eq!((zeros.name.as_str(), zeros.times), ("w", 2));
        assert_eq!(zeros.inputs, [Tensor::from_vec("x", [2], vec![0_f32; 2]).unwrap()]);
        let file = one("data_type: TYPE_FP32 dims: [ 2 ] input_data_file: \"two\"");
        assert_eq!(file.inputs, [Tensor::from_vec("x", [2], vec![1.5_f32, 2.0]).unwrap()]);
        for (kind, datatype) in [
            ("FP16", Datatype::Fp16),
            ("BF16", Datatype::Bf16),
            ("FP64", Datatype::Fp64),
            ("BOOL", Datatype::Bool),
            ("INT64", Datatype::Int64),
            ("STRING", Datatype::Bytes),
        ] {
            let random = one(&format!("data_type: TYPE_{kind} dims: [ 3, 4 ] random_data: true"));
            assert_eq!((random.inputs[0].datatype(), random.inputs[0].count()), (datatype, 12));
        }
        let random = one("data_type: TYPE_FP32 dims: [ 64 ] random_data: true");
        let values = random.inputs[0].elements::<f32>().unwrap().into_owned();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.windows(2).any(|pair| pair[0] != pair[1]));
        let batch = format!("max_batch_size: 8 {}", request("data_type: TYPE_FP32 dims: [ 2 ]"));
        assert_eq!(read(&batch).unwrap()[0].inputs[0].shape(), [1, 2]);
    }

    #[test]
    fn what_is_no_request_is_refused_by_name() {
        for (input, told) in [
            ("data_type: TYPE_FP8 dims: [ 2 ]", "`w`, input `x`: data_type `TYPE_FP8`"),
            ("data_type: TYPE_FP32 dims: [ -1 ]", "dims [-1]"),
            ("data_type: TYPE_FP32 dims: [ 100000, 100000 ]", "this is more"),
            ("data_type: TYPE_FP32 dims: [ 3 ] input_data_file: \"two\"", "needs 12 bytes but has 8"),
            ("data_type: TYPE_FP32 dims: [ 2 ] input_data_file: \"gone\"", "file `gone`: it isn't there"),
        ] {
            let error = read(&request(input)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let often = request("data_type: TYPE_FP32 dims: [ 1 ]").replace("count: 2", "count: 2000");
        assert!(read(&often).unwrap_err().to_string().contains("at most 1000 requests"));
    }
}
