//! Made-up inputs: the same for the same signature, in the shapes that the model declares.
//!
//! An open first dimension is a batch, of one. Other open dimensions are lengths and sides of pictures, which many
//! models can't have as small as 1, or not as multiples of anything but 32: a few sizes are tried. A state that a model
//! takes back may have its batch further behind: where nothing else goes, the first open dimension is the batch.

use half::{bf16, f16};

use crate::{Datatype, EngineError, LoadedModel, Signature, Tensor, TensorError, TensorSpec};

/// Sizes of open dimensions, in the order in which they are tried; readers of text want 48.
const SIZES: [usize; 5] = [32, 48, 224, 320, 1];

/// The first made-up inputs that a model takes, with what it answers. An error says why the first ones were refused.
pub(crate) fn working(
    model: &dyn LoadedModel,
    maximum_elements: usize,
    run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, EngineError>,
) -> Result<(Vec<Tensor>, Vec<Tensor>), String> {
    let signature = model.signature();
    let opens = |spec: &TensorSpec| spec.shape.iter().flatten().skip(1).any(|&size| size < 0);
    let is_behind =
        |spec: &TensorSpec| opens(spec) && spec.shape.iter().flatten().next().is_some_and(|&size| size >= 0);
    let sizes = if signature.inputs.iter().any(opens) { SIZES.as_slice() } else { &[1] };
    let batches: &[Batch] = if signature.inputs.iter().any(is_behind) {
        &[Batch::First, Batch::FirstOpen]
    } else {
        &[Batch::First]
    };
    let mut refusal = None;
    for (&batch, &size) in batches.iter().flat_map(|batch| sizes.iter().map(move |size| (batch, size))) {
        let inputs = inputs(signature, size, batch, maximum_elements)?;
        match run(&inputs) {
            Ok(outputs) => return Ok((inputs, outputs)),
            Err(error) => _ = refusal.get_or_insert(format!("a made-up input fails: {error}")),
        }
    }
    Err(refusal.unwrap_or_default())
}

/// Which dimension is the batch, if it is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    First,
    FirstOpen,
}

/// One tensor for each input, with that size for open dimensions but the batch.
fn inputs(
    signature: &Signature,
    size: usize,
    batch: Batch,
    maximum_elements: usize,
) -> Result<Vec<Tensor>, String> {
    let mut budget = maximum_elements;
    let mut tensors = Vec::with_capacity(signature.inputs.len());
    for spec in &signature.inputs {
        let shape =
            shape(spec, size, batch).ok_or_else(|| format!("input `{}` is of any rank", spec.name))?;
        let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
        let left = count.and_then(|count| budget.checked_sub(count));
        budget = left.ok_or_else(|| format!("input `{}` is too large to make up", spec.name))?;
        tensors.push(tensor(spec, shape, count.unwrap_or(0)).map_err(|error| error.to_string())?);
    }
    Ok(tensors)
}

fn shape(spec: &TensorSpec, size: usize, batch: Batch) -> Option<Vec<usize>> {
    let first_open = spec.shape.as_ref()?.iter().position(|&declared| declared < 0);
    let batch = if batch == Batch::First { Some(0) } else { first_open };
    let open = |axis: usize| if Some(axis) == batch { 1 } else { size };
    let shape = spec.shape.as_ref()?.iter().enumerate();
    Some(shape.map(|(axis, &declared)| usize::try_from(declared).unwrap_or_else(|_| open(axis))).collect())
}

/// Numbers are between 0 and 1, which images, features and probabilities are; whole ones are 0 or 1, which is an index
/// into anything.
fn tensor(spec: &TensorSpec, shape: Vec<usize>, count: usize) -> Result<Tensor, TensorError> {
    let mut random = Random(0x0a_0c_e7);
    let name = spec.name.as_str();
    match spec.datatype {
        Datatype::Fp32 => Tensor::from_vec(name, shape, random.many(count, |random| random.unit())),
        Datatype::Fp64 => {
            Tensor::from_vec(name, shape, random.many(count, |random| f64::from(random.unit())))
        }
        Datatype::Fp16 => Tensor::from_vec(name, shape, random.many(count, |r| f16::from_f32(r.unit()))),
        Datatype::Bf16 => Tensor::from_vec(name, shape, random.many(count, |r| bf16::from_f32(r.unit()))),
        Datatype::Bool => Tensor::from_vec(name, shape, random.many(count, Random::bit)),
        Datatype::Bytes => Tensor::from_strings(name, shape, random.many(count, |_| "a")),
        datatype => {
            let size = datatype.size().unwrap_or(1);
            let mut data = vec![0_u8; count * size];
            data.chunks_exact_mut(size)
                .filter_map(<[u8]>::first_mut)
                .for_each(|low| *low = random.bit().into());
            Tensor::from_bytes(name, datatype, shape, data.into())
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1, in steps that f32 has.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }

    fn bit(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn many<T>(&mut self, count: usize, mut make: impl FnMut(&mut Random) -> T) -> Vec<T> {
        (0..count).map(|_| make(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(datatype: Datatype, shape: Option<&[i64]>) -> Signature {
        let spec = TensorSpec { name: "x".into(), datatype, shape: shape.map(<[i64]>::to_vec) };
        Signature { inputs: vec![spec], outputs: vec![] }
    }

    #[test]
    fn every_type_can_be_made_up_and_is_the_same_each_time() {
        use Datatype::*;
        for datatype in
            [Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64, Bytes]
        {
            let signature = spec(datatype, Some(&[-1, 3, -1]));
            let made = inputs(&signature, 2, Batch::First, 100).unwrap();
            assert_eq!((made[0].datatype(), made[0].shape()), (datatype, &[1, 3, 2][..]));
            assert!(signature.check::<&str>(&made, &[]).is_ok());
            assert_eq!(made[0].data(), inputs(&signature, 2, Batch::First, 100).unwrap()[0].data());
        }
    }

    #[test]
    fn a_batch_may_be_behind_what_is_fixed() {
        let state = spec(Datatype::Fp32, Some(&[2, -1, 128]));
        for (batch, expected) in [(Batch::First, [2, 32, 128]), (Batch::FirstOpen, [2, 1, 128])] {
            assert_eq!(inputs(&state, 32, batch, 10_000).unwrap()[0].shape(), expected);
        }
    }

    #[test]
    fn what_can_not_be_made_up_says_why() {
        assert!(inputs(&spec(Datatype::Fp32, None), 1, Batch::First, 100).unwrap_err().contains("any rank"));
        for huge in [&[11, 10][..], &[i64::MAX, i64::MAX]] {
            assert!(
                inputs(&spec(Datatype::Fp32, Some(huge)), 1, Batch::First, 100)
                    .unwrap_err()
                    .contains("too large")
            );
        }
    }
}
