//! Whether two engines' outputs are the same but for rounding.

use std::fmt;

use half::{bf16, f16};

use crate::{Datatype, Tensor};

/// How far outputs are apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// The largest distance of two elements.
    pub absolute: f64,
    /// The largest distance in relation to the reference's element, where that is not near zero.
    pub relative: f64,
    /// What can't be told in numbers: another shape, another text, a NaN on one side.
    pub other: Option<String>,
}

impl Difference {
    /// Whether the outputs are equal.
    pub fn is_none(&self) -> bool {
        self.absolute == 0.0 && self.other.is_none()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.other {
            Some(other) => f.write_str(other),
            None => write!(f, "differs by {:.0e}", self.absolute),
        }
    }
}

/// Distances that are only rounding: absolute, and in relation to the expected element; an element may use both.
struct Tolerance {
    absolute: f64,
    relative: f64,
}

fn tolerance(datatype: Datatype) -> Tolerance {
    let (absolute, relative) = match datatype {
        Datatype::Fp32 | Datatype::Fp64 => (1e-4, 1e-3),
        Datatype::Fp16 => (1e-2, 1e-2),
        Datatype::Bf16 => (5e-2, 5e-2),
        // Quantized outputs round to one side or the other.
        Datatype::Int8 | Datatype::Uint8 => (1.0, 0.0),
        _ => (0.0, 0.0),
    };
    Tolerance { absolute, relative }
}

/// The difference of outputs, as an error where it is more than rounding.
pub(crate) fn compare(expected: &[Tensor], given: &[Tensor]) -> Result<Difference, Difference> {
    let mut worst = Difference::default();
    let mut agree = expected.len() == given.len();
    for (expected, given) in expected.iter().zip(given) {
        agree &= compare_tensor(expected, given, &mut worst);
    }
    if agree { Ok(worst) } else { Err(worst) }
}

fn compare_tensor(expected: &Tensor, given: &Tensor, worst: &mut Difference) -> bool {
    let name = expected.name();
    if expected.shape() != given.shape() || expected.datatype() != given.datatype() {
        let shown = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
        worst.other = Some(format!("gives `{name}` as {}, not {}", shown(given), shown(expected)));
        return false;
    }
    let (Some(expected_numbers), Some(given_numbers)) = (numbers(expected), numbers(given)) else {
        let same = expected.data() == given.data();
        if !same {
            worst.other = Some(format!("gives other values in `{name}`"));
        }
        return same;
    };
    let tolerance = tolerance(expected.datatype());
    let mut agree = true;
    for (expected, given) in expected_numbers.into_iter().zip(given_numbers) {
        if expected == given || (expected.is_nan() && given.is_nan()) {
            continue;
        }
        let distance = (expected - given).abs();
        if !distance.is_finite() {
            worst.other = Some(format!("gives {given} in `{name}` instead of {expected}"));
            agree = false;
            continue;
        }
        worst.absolute = worst.absolute.max(distance);
        if expected.abs() > 1e-3 {
            worst.relative = worst.relative.max(distance / expected.abs());
        }
        agree &= distance <= tolerance.absolute + tolerance.relative * expected.abs();
    }
    agree
}

/// Elements as f64 where that is exact or the type is a float; 64-bit integers and texts are compared as bytes.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    fn of<T: crate::Element + Copy>(tensor: &Tensor, number: impl Fn(T) -> f64) -> Option<Vec<f64>> {
        Some(tensor.elements::<T>().ok()?.iter().map(|&element| number(element)).collect())
    }
    match tensor.datatype() {
        Datatype::Fp32 => of::<f32>(tensor, f64::from),
        Datatype::Fp64 => of::<f64>(tensor, |element| element),
        Datatype::Fp16 => of::<f16>(tensor, f64::from),
        Datatype::Bf16 => of::<bf16>(tensor, f64::from),
        Datatype::Int8 => of::<i8>(tensor, f64::from),
        Datatype::Uint8 => of::<u8>(tensor, f64::from),
        Datatype::Int16 => of::<i16>(tensor, f64::from),
        Datatype::Uint16 => of::<u16>(tensor, f64::from),
        Datatype::Int32 => of::<i32>(tensor, f64::from),
        Datatype::Uint32 => of::<u32>(tensor, f64::from),
        Datatype::Bool | Datatype::Int64 | Datatype::Uint64 | Datatype::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> [Tensor; 1] {
        [Tensor::from_vec("y", [values.len()], values.to_vec()).unwrap()]
    }

    #[test]
    fn rounding_agrees_and_its_size_is_told() {
        let found = compare(&floats(&[1.0, 100.0]), &floats(&[1.00005, 100.05])).unwrap();
        assert!((0.04..0.06).contains(&found.absolute) && (4e-4..6e-4).contains(&found.relative));
        assert!(!found.is_none());
    }

    #[test]
    fn equal_values_have_no_difference_even_if_not_numbers() {
        let odd = floats(&[f32::NAN, f32::INFINITY, -0.0]);
        assert!(compare(&odd, &floats(&[f32::NAN, f32::INFINITY, 0.0])).unwrap().is_none());
    }

    #[test]
    fn other_values_shapes_and_types_disagree() {
        let one = floats(&[1.0, 2.0]);
        for other in [floats(&[1.0, 2.1]), floats(&[1.0, f32::NAN]), floats(&[1.0])] {
            assert!(compare(&one, &other).is_err(), "{other:?}");
        }
        let whole = |value: i64| [Tensor::from_vec("y", [1], vec![value]).unwrap()];
        assert!(compare(&whole(1 << 60), &whole((1 << 60) + 1)).is_err());
        assert!(compare(&whole(7), &whole(7)).is_ok());
        assert!(compare(&whole(7), &one).unwrap_err().to_string().contains("FP32 [2]"));
    }
}
