//! What a model takes and gives, and the check of a request against it.

use std::fmt;

use crate::{Datatype, Error, Tensor, TensorError};

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    /// Dimensions, -1 where any size goes; `None` where even the rank is open.
    pub shape: Option<Vec<i64>>,
}

impl TensorSpec {
    /// Whether a tensor of this shape may stand here.
    pub fn accepts(&self, given: &[usize]) -> bool {
        let Some(expected) = &self.shape else { return true };
        expected.len() == given.len()
            && expected.iter().zip(given).all(|(&expected, &given)| {
                expected < 0 || usize::try_from(expected).is_ok_and(|expected| expected == given)
            })
    }
}

impl TensorSpec {
    /// What is true of both, with this one's name; `None` where no tensor fits both.
    pub(crate) fn join(&self, other: &TensorSpec) -> Option<TensorSpec> {
        let shape = match (&self.shape, &other.shape) {
            (None, shape) | (shape, None) => shape.clone(),
            (Some(one), Some(other)) if one.len() == other.len() => {
                let sizes = one.iter().zip(other).map(|(&one, &other)| match (one, other) {
                    (-1, size) | (size, -1) => Some(size),
                    (one, other) => (one == other).then_some(one),
                });
                Some(sizes.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        (self.datatype == other.datatype).then(|| TensorSpec { shape, ..self.clone() })
    }

    /// Datatype and dimensions for people.
    pub(crate) fn shown(&self) -> String {
        match &self.shape {
            Some(shape) => format!("{} {shape:?}", self.datatype),
            None => format!("{} of any shape", self.datatype),
        }
    }
}

/// Inputs and outputs in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// Bounds on what a stranger may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most elements in one tensor.
    pub elements: usize,
    /// Most bytes in all inputs of one request.
    pub bytes: usize,
    /// Most dimensions of one tensor.
    pub rank: usize,
}

impl Limits {
    /// Checks a shape before anything of that size is made. A dimension of 0 counts as 1: engines make room for the
    /// other dimensions of an empty tensor, too.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        let refuse = |what, given, limit| Err(Error::TooLarge { what, given, limit });
        if shape.len() > self.rank {
            return refuse("a tensor's number of dimensions", shape.len(), self.rank);
        }
        let given = shape.iter().fold(1_usize, |product, &size| product.saturating_mul(size.max(1)));
        if given > self.elements { refuse("a tensor's element count", given, self.elements) } else { Ok(()) }
    }
}

impl Default for Limits {
    /// 64 Mi elements and 32 dimensions a tensor, 256 MiB a request: a 64 MiB body of JSON digits grows at most fourfold.
    fn default() -> Self {
        Limits { elements: 64 << 20, bytes: 256 << 20, rank: 32 }
    }
}

/// What is wrong with a request; each message says what to send instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInput {
    #[error("unexpected input `{input}`; the model takes {}", Names(.expected))]
    UnknownInput { input: String, expected: Vec<String> },
    #[error("input `{input}` is missing; the model takes {}", Names(.expected))]
    MissingInput { input: String, expected: Vec<String> },
    #[error("input `{input}` is given twice; send it once")]
    DuplicateInput { input: String },
    #[error("unexpected output `{output}`; the model gives {}", Names(.expected))]
    UnknownOutput { output: String, expected: Vec<String> },
    #[error("output `{output}` is asked for twice; ask once")]
    DuplicateOutput { output: String },
    #[error("input `{input}` has datatype {given} but the model takes {expected}; send {expected}")]
    Datatype { input: String, expected: Datatype, given: Datatype },
    #[error("input `{input}` has shape {given:?} but the model takes {expected:?}; -1 stands for any size")]
    Shape { input: String, expected: Vec<i64>, given: Vec<usize> },
    #[error(
        "a batch of {given} samples is over this model's `max_batch_size` of {limit}; send at most {limit} at once"
    )]
    Batch { given: usize, limit: usize },
    #[error(
        "input `{input}` holds a NaN or an infinity at element {index}; this model takes finite numbers only"
    )]
    NotFinite { input: String, index: usize },
    /// A value that the engine at hand can't represent.
    #[error("input `{input}` {problem}")]
    Value { input: String, problem: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        if self.0.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl Signature {
    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name == name)
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name == name)
    }

    /// Checks names, datatypes and shapes of a request; no outputs stands for all of them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check<S: AsRef<str>>(&self, inputs: &[Tensor], outputs: &[S]) -> Result<(), InvalidInput> {
        for (index, tensor) in inputs.iter().enumerate() {
            let Some(spec) = self.input(tensor.name()) else {
                return Err(InvalidInput::UnknownInput {
                    input: tensor.name().into(),
                    expected: names(&self.inputs),
                });
            };
            check_tensor(spec, tensor)?;
            if inputs.iter().take(index).any(|earlier| earlier.name() == tensor.name()) {
                return Err(InvalidInput::DuplicateInput { input: tensor.name().into() });
            }
        }
        for spec in &self.inputs {
            if !inputs.iter().any(|tensor| tensor.name() == spec.name) {
                return Err(InvalidInput::MissingInput {
                    input: spec.name.clone(),
                    expected: names(&self.inputs),
                });
            }
        }
        for (index, output) in outputs.iter().enumerate() {
            let output = output.as_ref();
            if self.output(output).is_none() {
                let expected = names(&self.outputs);
                return Err(InvalidInput::UnknownOutput { output: output.into(), expected });
            }
            if outputs.iter().take(index).any(|earlier| earlier.as_ref() == output) {
                return Err(InvalidInput::DuplicateOutput { output: output.into() });
            }
        }
        Ok(())
    }

    /// How many samples a checked request carries: the first dimension where the model leaves it open, else 1.
    pub(crate) fn batch(&self, inputs: &[Tensor]) -> u64 {
        let open = |spec: &TensorSpec| spec.shape.as_ref().and_then(|shape| shape.first()) == Some(&-1);
        let first = self.inputs.first().filter(|spec| open(spec));
        let given = first.and_then(|spec| inputs.iter().find(|tensor| tensor.name() == spec.name));
        given.and_then(|tensor| tensor.shape().first()).map_or(1, |&size| size as u64)
    }
}

fn check_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<(), InvalidInput> {
    if tensor.datatype() != spec.datatype {
        let (expected, given) = (spec.datatype, tensor.datatype());
        return Err(InvalidInput::Datatype { input: spec.name.clone(), expected, given });
    }
    if !spec.accepts(tensor.shape()) {
        let expected = spec.shape.clone().unwrap_or_default();
        let given = tensor.shape().to_vec();
        return Err(InvalidInput::Shape { input: spec.name.clone(), expected, given });
    }
    Ok(())
}

fn names(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(|spec| spec.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("a", Datatype::Fp32, &[-1, 2]), spec("b", Datatype::Int64, &[])],
            outputs: vec![spec("y", Datatype::Fp32, &[-1, 1])],
        }
    }

    fn a(rows: usize) -> Tensor {
        Tensor::from_vec("a", [rows, 2], vec![0_f32; rows * 2]).unwrap()
    }

    fn b() -> Tensor {
        Tensor::from_vec("b", [], vec![7_i64]).unwrap()
    }

    #[test]
    fn a_request_that_fits_passes_in_any_order() {
        assert_eq!(signature().check(&[b(), a(3)], &["y"]), Ok(()));
        assert_eq!(signature().check::<&str>(&[a(0), b()], &[]), Ok(()));
        assert_eq!(signature().batch(&[b(), a(3)]), 3);
    }

    #[test]
    fn every_mistake_is_named_with_what_to_do() {
        let wrong_type = Tensor::from_vec("a", [1, 2], vec![1_i32, 2]).unwrap();
        let wrong_rank = Tensor::from_vec("a", [2], vec![0_f32; 2]).unwrap();
        let stranger = Tensor::from_vec("z", [1], vec![0_f32]).unwrap();
        for (inputs, outputs, message) in [
            (vec![a(1), b(), stranger], vec!["y"], "unexpected input `z`; the model takes `a`, `b`"),
            (vec![a(1)], vec!["y"], "input `b` is missing; the model takes `a`, `b`"),
            (vec![a(1), b(), b()], vec![], "input `b` is given twice; send it once"),
            (
                vec![wrong_type, b()],
                vec![],
                "input `a` has datatype INT32 but the model takes FP32; send FP32",
            ),
            (
                vec![wrong_rank, b()],
                vec![],
                "input `a` has shape [2] but the model takes [-1, 2]; -1 stands for any size",
            ),
            (vec![a(1), b()], vec!["q"], "unexpected output `q`; the model gives `y`"),
            (vec![a(1), b()], vec!["y", "y"], "output `y` is asked for twice; ask once"),
        ] {
            assert_eq!(signature().check(&inputs, &outputs).unwrap_err().to_string(), message);
        }
    }
}
