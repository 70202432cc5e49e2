//! What a model takes and gives, said by its owner.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Inputs and outputs as their owner knows them. A frozen TensorFlow graph, which doesn't tell its own, is served with
/// these; every other model has to have what is said here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ModelSignature {
    /// The inputs; empty says nothing about them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub inputs: Vec<DeclaredTensor>,
    /// The outputs; empty says nothing about them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub outputs: Vec<DeclaredTensor>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredTensor {
    /// Its name; in a TensorFlow graph that of an operation, or `OPERATION:NUMBER` for another output than its first.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The type of its elements; absent says nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datatype: Option<ElementType>,
    /// Its dimensions, -1 where any size goes; absent says nothing about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(range(min = -1)))]
    pub shape: Option<Vec<i64>>,
}

/// The type of a tensor's elements, as the Open Inference Protocol names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ElementType {
    /// One byte, 0 or 1.
    Bool,
    /// 8 bits.
    Uint8,
    /// 16 bits.
    Uint16,
    /// 32 bits.
    Uint32,
    /// 64 bits.
    Uint64,
    /// 8 bits with a sign.
    Int8,
    /// 16 bits with a sign.
    Int16,
    /// 32 bits with a sign.
    Int32,
    /// 64 bits with a sign.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// The upper half of a binary32.
    Bf16,
    /// Texts, or bytes of any length.
    Bytes,
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
