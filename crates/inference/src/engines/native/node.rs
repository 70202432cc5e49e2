//! What operators ask a node for.

use bytes::Bytes;

use super::array::Array;
use super::onnx::Node;
use super::{Fault, Refused};

/// One step of a graph: from arrays to arrays.
pub(super) type Kernel = Box<dyn Fn(&Arguments<'_>) -> Result<Vec<Array>, Fault> + Send + Sync>;

/// The inputs of a step; those that the graph leaves out are `None`.
pub(super) struct Arguments<'a>(pub Vec<Option<&'a Array>>);

impl<'a> Arguments<'a> {
    pub fn get(&self, index: usize) -> Result<&'a Array, Fault> {
        self.optional(index).ok_or_else(|| Fault::unsupported(format!("input {index} is missing")))
    }

    pub fn optional(&self, index: usize) -> Option<&'a Array> {
        self.0.get(index).copied().flatten()
    }

    /// All of them, without those that are left out.
    pub fn all(&self) -> impl Iterator<Item = &'a Array> {
        self.0.iter().copied().flatten()
    }
}

impl Node {
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attributes.get(name)?.int
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        self.attributes.get(name)?.float
    }

    pub fn text(&self, name: &str) -> Option<&[u8]> {
        self.attributes.get(name)?.text.as_deref()
    }

    pub fn tensor(&self, name: &str) -> Option<&Array> {
        self.attributes.get(name)?.tensor.as_ref()
    }

    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub fn ints(&self, name: &str) -> &[i64] {
        self.attributes.get(name).map(|attribute| attribute.ints.as_slice()).unwrap_or_default()
    }

    pub fn floats(&self, name: &str) -> &[f32] {
        self.attributes.get(name).map(|attribute| attribute.floats.as_slice()).unwrap_or_default()
    }

    pub fn texts(&self, name: &str) -> &[Bytes] {
        self.attributes.get(name).map(|attribute| attribute.texts.as_slice()).unwrap_or_default()
    }

    /// Numbers as a list or as a tensor beside it, whose name has `_as_tensor` at its end.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, Refused> {
        let floats = self.floats(name);
        if !floats.is_empty() {
            return Ok(floats.iter().map(|&value| value.into()).collect());
        }
        match self.tensor(&format!("{name}_as_tensor")).or_else(|| self.tensor(name)) {
            Some(tensor) => Ok(tensor.f64s().map_err(Refused::from)?.into_owned()),
            None => Ok(Vec::new()),
        }
    }

    pub fn refuse(&self, what: impl std::fmt::Display) -> Refused {
        Refused::new(format!("operator {}: {what}", self.operator))
    }
}
