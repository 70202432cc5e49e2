//! The classification extension: the best classes of an output as text, `score:index[:label]`.

use std::cmp::Ordering;

use half::{bf16, f16};
use inference::{Datatype, Element, Model, Tensor, TensorSpec};

use crate::error::ApiError;
use crate::state::ServerState;

/// How many classes are wanted of each output, in the order asked for; 0 stands for the output itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Classes(Vec<usize>);

impl Classes {
    pub fn push(&mut self, count: u64) {
        self.0.push(usize::try_from(count).unwrap_or(usize::MAX));
    }

    /// Puts classes in the place of the outputs that they are wanted of.
    ///
    /// # Errors
    /// When such an output holds no numbers.
    pub fn apply(
        &self,
        state: &ServerState,
        model: &Model,
        outputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, ApiError> {
        if self.0.iter().all(|count| *count == 0) {
            return Ok(outputs);
        }
        let counts = self.0.iter().copied().chain(std::iter::repeat(0));
        let classified = outputs.into_iter().zip(counts).map(|(output, count)| {
            if count == 0 {
                return Ok(output);
            }
            let labels = state.control.labels(model.name(), model.version(), output.name());
            classify(
                &output,
                model.signature().output(output.name()),
                count,
                labels.as_deref().or(model.labels(output.name())),
            )
        });
        classified.collect()
    }
}

/// The `count` best classes of each sample, best first, as BYTES. Where the model leaves the first dimension open
/// each of its rows is a sample; otherwise the whole output is one.
///
/// # Errors
/// When the output holds no numbers.
fn classify(
    output: &Tensor,
    spec: Option<&TensorSpec>,
    count: usize,
    labels: Option<&[String]>,
) -> Result<Tensor, ApiError> {
    let open = spec.and_then(|spec| spec.shape.as_ref()).and_then(|shape| shape.first()) == Some(&-1);
    let rows = match output.shape() {
        [rows, _, ..] if open => Some(*rows),
        _ => None,
    };
    let scores = Scores { output, rows, count, labels };
    match output.datatype() {
        Datatype::Uint8 => scores.integers::<u8>(),
        Datatype::Uint16 => scores.integers::<u16>(),
        Datatype::Uint32 => scores.integers::<u32>(),
        Datatype::Uint64 => scores.integers::<u64>(),
        Datatype::Int8 => scores.integers::<i8>(),
        Datatype::Int16 => scores.integers::<i16>(),
        Datatype::Int32 => scores.integers::<i32>(),
        Datatype::Int64 => scores.integers::<i64>(),
        Datatype::Fp16 => scores.floats(|half: f16| f64::from(half)),
        Datatype::Bf16 => scores.floats(|half: bf16| f64::from(half)),
        Datatype::Fp32 => scores.floats(|float: f32| f64::from(float)),
        Datatype::Fp64 => scores.floats(|double: f64| double),
        datatype @ (Datatype::Bool | Datatype::Bytes) => Err(ApiError::BadRequest(format!(
            "class result not available for output '{}' of datatype {datatype}; ask for it without `classification`",
            output.name()
        ))),
    }
}

struct Scores<'a> {
    output: &'a Tensor,
    /// How many samples; `None` for one without a dimension of its own.
    rows: Option<usize>,
    count: usize,
    labels: Option<&'a [String]>,
}

impl Scores<'_> {
    fn integers<T: Element + Ord + ToString>(&self) -> Result<Tensor, ApiError> {
        self.best::<T>(T::cmp, ToString::to_string)
    }

    fn floats<T: Element>(&self, wide: impl Fn(T) -> f64) -> Result<Tensor, ApiError> {
        // NaN is no score: it comes last.
        let rank = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
        let order = |a: &T, b: &T| rank(wide(*a)).total_cmp(&rank(wide(*b)));
        self.best::<T>(order, |score| format!("{:.6}", wide(*score)))
    }

    fn best<T: Element>(
        &self,
        order: impl Fn(&T, &T) -> Ordering,
        text: impl Fn(&T) -> String,
    ) -> Result<Tensor, ApiError> {
        let scores = self.output.elements::<T>()?;
        let classes: usize = match self.rows {
            Some(_) => self.output.shape().iter().skip(1).product(),
            None => scores.len(),
        };
        let count = self.count.min(classes);
        let mut lines = Vec::with_capacity(count.saturating_mul(self.rows.unwrap_or(1)));
        for row in scores.chunks_exact(classes.max(1)) {
            let mut ranked: Vec<(usize, &T)> = row.iter().enumerate().collect();
            let better = |a: &(usize, &T), b: &(usize, &T)| order(b.1, a.1).then(a.0.cmp(&b.0));
            if count < ranked.len() {
                ranked.select_nth_unstable_by(count, better);
                ranked.truncate(count);
            }
            ranked.sort_unstable_by(better);
            lines.extend(ranked.into_iter().map(|(index, score)| {
                let label = self.labels.and_then(|labels| labels.get(index));
                let label = label.map(|label| format!(":{label}")).unwrap_or_default();
                format!("{}:{index}{label}", text(score))
            }));
        }
        let shape: Vec<usize> = self.rows.into_iter().chain([count]).collect();
        Ok(Tensor::from_strings(self.output.name(), shape, lines)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "y".into(), datatype: Datatype::Fp32, shape: Some(shape.to_vec()) }
    }

    fn lines(tensor: &Tensor) -> Vec<String> {
        tensor.strings().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_row_of_an_open_batch_has_its_own_best_classes() {
        let output = Tensor::from_vec("y", [2, 3], vec![0.25_f32, 0.5, 0.25, f32::NAN, -1.0, 3.0]).unwrap();
        let best = classify(&output, Some(&spec(&[-1, 3])), 2, None).unwrap();
        assert_eq!(best.shape(), [2, 2]);
        assert_eq!(lines(&best), ["0.500000:1", "0.250000:0", "3.000000:2", "-1.000000:1"]);
    }

    #[test]
    fn without_a_batch_the_whole_output_is_ranked_and_labels_follow() {
        let output = Tensor::from_vec("y", [1, 3], vec![7_i64, 9, -2]).unwrap();
        let labels = ["cat", "dog"].map(str::to_owned);
        let best = classify(&output, Some(&spec(&[1, 3])), 9, Some(&labels)).unwrap();
        assert_eq!(best.shape(), [3]);
        assert_eq!(lines(&best), ["9:1:dog", "7:0:cat", "-2:2"]);
    }

    #[test]
    fn empty_outputs_have_no_classes_and_text_is_refused() {
        let empty = Tensor::from_vec("y", [0, 3], Vec::<f32>::new()).unwrap();
        assert_eq!(classify(&empty, Some(&spec(&[-1, 3])), 2, None).unwrap().shape(), [0, 2]);
        let none = Tensor::from_vec("y", [2, 0], Vec::<f32>::new()).unwrap();
        assert_eq!(classify(&none, Some(&spec(&[-1, 0])), 2, None).unwrap().shape(), [2, 0]);
        let text = Tensor::from_strings("y", [1], ["a"]).unwrap();
        assert!(classify(&text, None, 1, None).is_err());
    }
}
