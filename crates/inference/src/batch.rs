//! Requests merged into one run along the first dimension, and its outputs taken apart again.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::{Signature, Tensor};

/// Whether the model leaves the first dimension of every input and output open, as merging needs.
pub(crate) fn batchable(signature: &Signature) -> bool {
    let all = signature.inputs.iter().chain(&signature.outputs);
    let open = |shape: &Option<Vec<i64>>| shape.as_ref().and_then(|shape| shape.first()) == Some(&-1);
    !signature.inputs.is_empty() && all.into_iter().all(|spec| open(&spec.shape))
}

/// The size that all inputs have in their first dimension; `None` where they differ.
pub(crate) fn samples(inputs: &[Tensor]) -> Option<usize> {
    let mut sizes = inputs.iter().map(|tensor| tensor.shape().first().copied());
    let first = sizes.next()??;
    sizes.all(|size| size == Some(first)).then_some(first)
}

/// Equal for requests that may run together: same dimensions but the first, same outputs. Inputs are in the
/// signature's order, so their names and datatypes agree.
pub(crate) fn bucket(inputs: &[Tensor], outputs: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for tensor in inputs {
        tensor.shape().get(1..).hash(&mut hasher);
    }
    outputs.hash(&mut hasher);
    hasher.finish()
}

/// One list of inputs out of several of the same bucket. `None` where they don't fit each other after all.
pub(crate) fn merge(requests: &[&[Tensor]]) -> Option<Vec<Tensor>> {
    let (first, rest) = requests.split_first()?;
    let merged = first.iter().enumerate().map(|(index, tensor)| {
        let parts = std::iter::once(Some(tensor)).chain(rest.iter().map(|request| request.get(index)));
        let parts: Vec<&Tensor> = parts.collect::<Option<_>>()?;
        let mut data = Vec::with_capacity(parts.iter().map(|part| part.data().len()).sum());
        let mut size = 0;
        for part in parts {
            if part.datatype() != tensor.datatype() || part.shape().get(1..) != tensor.shape().get(1..) {
                return None;
            }
            size += part.shape().first()?;
            data.extend_from_slice(part.data());
        }
        let mut shape = tensor.shape().to_vec();
        *shape.first_mut()? = size;
        Some(Tensor::trusted(tensor.name(), tensor.datatype(), shape, Bytes::from(data)))
    });
    merged.collect()
}

/// The outputs of a merged run, one list for each of the sizes, without a copy. `None` where an output doesn't have
/// as many rows as the requests together.
pub(crate) fn split(outputs: &[Tensor], sizes: &[usize]) -> Option<Vec<Vec<Tensor>>> {
    let mut answers: Vec<Vec<Tensor>> = sizes.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    let total: usize = sizes.iter().sum();
    for output in outputs {
        if output.shape().first() != Some(&total) {
            return None;
        }
        let row = output.shape().get(1..)?.iter().product::<usize>();
        let mut rest = output.data().clone();
        for (answer, &size) in answers.iter_mut().zip(sizes) {
            let elements = row.checked_mul(size)?;
            let length = match output.datatype().size() {
                Some(bytes) => elements.checked_mul(bytes)?,
                None => framed_length(&rest, elements)?,
            };
            if length > rest.len() {
                return None;
            }
            let mut shape = output.shape().to_vec();
            *shape.first_mut()? = size;
            answer.push(Tensor::trusted(output.name(), output.datatype(), shape, rest.split_to(length)));
        }
    }
    Some(answers)
}

/// How many bytes the first elements of BYTES data take.
fn framed_length(data: &[u8], elements: usize) -> Option<usize> {
    let mut at = 0_usize;
    for _ in 0..elements {
        let (length, _) = data.get(at..)?.split_first_chunk::<4>()?;
        at = at.checked_add(4)?.checked_add(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    }
    (at <= data.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(rows: usize, start: i32) -> Tensor {
        let values = (start..).take(rows * 2).collect();
        Tensor::from_vec("n", [rows, 2], values).unwrap()
    }

    fn words(rows: usize, start: i32) -> Tensor {
        let words: Vec<String> =
            (start..).take(rows).map(|n| "w".repeat(n.unsigned_abs() as usize % 7)).collect();
        Tensor::from_strings("w", [rows], words).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_merged_comes_apart_as_it_was(sizes in proptest::collection::vec(0_usize..5, 1..8)) {
            let requests: Vec<Vec<Tensor>> =
                sizes.iter().zip(0..).map(|(&rows, n)| vec![numbers(rows, n * 100), words(rows, n)]).collect();
            let views: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
            let merged = merge(&views).unwrap();
            prop_assert_eq!(samples(&merged), Some(sizes.iter().sum()));
            prop_assert_eq!(split(&merged, &sizes).unwrap(), requests);
        }
    }

    #[test]
    fn requests_of_other_shapes_are_not_merged() {
        let wide = Tensor::from_vec("n", [1, 3], vec![0_i32; 3]).unwrap();
        assert_eq!(merge(&[&[numbers(1, 0)], std::slice::from_ref(&wide)]), None);
        assert_ne!(bucket(&[numbers(1, 0)], &[]), bucket(&[wide], &[]));
        assert_eq!(bucket(&[numbers(1, 0)], &[]), bucket(&[numbers(7, 3)], &[]));
        assert_ne!(bucket(&[numbers(1, 0)], &[]), bucket(&[numbers(1, 0)], &["y".into()]));
        assert_eq!(samples(&[numbers(1, 0), words(2, 0)]), None);
    }

    #[test]
    fn an_output_that_is_not_one_row_a_sample_is_not_taken_apart() {
        assert_eq!(split(&[numbers(3, 0)], &[1, 1]), None);
        let scalar = Tensor::from_vec("s", [], vec![1_i32]).unwrap();
        assert_eq!(split(&[scalar], &[1]), None);
    }
}
