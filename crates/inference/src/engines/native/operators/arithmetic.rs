//! Element by element.

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::places::{broadcast, stretched};

/// What to do with two numbers, in each type; `None` where there is no answer.
#[derive(Clone, Copy)]
struct Two {
    f32: fn(f32, f32) -> f32,
    f64: fn(f64, f64) -> f64,
    i64: fn(i64, i64) -> Option<i64>,
}

/// Arithmetic on two arrays, or more where the operator says so.
pub(super) fn binary(node: &Node) -> Result<Kernel, Refused> {
    let two = match node.operator.as_str() {
        "Add" | "Sum" => Two { f32: |a, b| a + b, f64: |a, b| a + b, i64: |a, b| Some(a.wrapping_add(b)) },
        "Sub" => Two { f32: |a, b| a - b, f64: |a, b| a - b, i64: |a, b| Some(a.wrapping_sub(b)) },
        "Mul" => Two { f32: |a, b| a * b, f64: |a, b| a * b, i64: |a, b| Some(a.wrapping_mul(b)) },
        "Div" => Two { f32: |a, b| a / b, f64: |a, b| a / b, i64: i64::checked_div },
        "Pow" => Two { f32: f32::powf, f64: f64::powf, i64: |a, b| a.checked_pow(u32::try_from(b).ok()?) },
        "Max" => Two {
            f32: |a, b| if a.is_nan() || a > b { a } else { b },
            f64: |a, b| if a.is_nan() || a > b { a } else { b },
            i64: |a, b| Some(a.max(b)),
        },
        "Min" => Two {
            f32: |a, b| if a.is_nan() || a < b { a } else { b },
            f64: |a, b| if a.is_nan() || a < b { a } else { b },
            i64: |a, b| Some(a.min(b)),
        },
        other => return Err(node.refuse(format!("{other} is not done"))),
    };
    Ok(Box::new(move |arguments| {
        let mut all = arguments.all();
        let mut result = all.next().ok_or_else(|| Fault::unsupported("no input"))?.clone();
        for array in all {
            result = apply(two, &result, array)?;
        }
        Ok(vec![result])
    }))
}

fn apply(two: Two, a: &Array, b: &Array) -> Result<Array, Fault> {
    let shape = broadcast(a.shape(), b.shape())?;
    room(&shape)?;
    let shapes = (a.shape(), b.shape(), shape.as_slice());
    let whole = |a: &i64, b: &i64| {
        (two.i64)(*a, *b).ok_or_else(|| {
            Fault::input("makes the model divide by zero or raise a whole number out of range")
        })
    };
    let data = match (a.data(), b.data()) {
        (Data::F32(a), Data::F32(b)) => Data::F32(zip(shapes, a, b, |a, b| Ok((two.f32)(*a, *b)))?),
        (Data::F64(a), Data::F64(b)) => Data::F64(zip(shapes, a, b, |a, b| Ok((two.f64)(*a, *b)))?),
        (Data::I64(a), Data::I64(b)) => Data::I64(zip(shapes, a, b, whole)?),
        (Data::I32(a), Data::I32(b)) => {
            Data::I32(zip(shapes, a, b, |&a, &b| Ok(whole(&a.into(), &b.into())? as i32))?)
        }
        _ => return Err(Fault::unsupported(format!("{} with {}", a.datatype(), b.datatype()))),
    };
    Array::new(shape, data)
}

/// Pairs of two arrays' elements after stretching both to the last of the shapes.
pub(super) fn zip<A, B, T>(
    (a_shape, b_shape, shape): (&[usize], &[usize], &[usize]),
    a: &[A],
    b: &[B],
    with: impl Fn(&A, &B) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    if a_shape == b_shape {
        return a.iter().zip(b).map(|(a, b)| with(a, b)).collect();
    }
    let places = stretched(a_shape, shape).zip(stretched(b_shape, shape));
    places
        .map(|(at, bt)| match (a.get(at), b.get(bt)) {
            (Some(a), Some(b)) => with(a, b),
            _ => Err(Fault::unsupported("arrays that can't be stretched")),
        })
        .collect()
}

pub(super) fn comparison(node: &Node) -> Result<Kernel, Refused> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let holds: fn(Option<std::cmp::Ordering>) -> bool = match node.operator.as_str() {
        "Less" => |order| order == Some(Less),
        "LessOrEqual" => |order| matches!(order, Some(Less | Equal)),
        "Greater" => |order| order == Some(Greater),
        "GreaterOrEqual" => |order| matches!(order, Some(Greater | Equal)),
        _ => |order| order == Some(Equal),
    };
    fn compare<T: PartialOrd>(
        holds: fn(Option<std::cmp::Ordering>) -> bool,
    ) -> impl Fn(&T, &T) -> Result<bool, Fault> {
        move |a, b| Ok(holds(a.partial_cmp(b)))
    }
    Ok(Box::new(move |arguments| {
        let (a, b) = (arguments.get(0)?, arguments.get(1)?);
        let shape = broadcast(a.shape(), b.shape())?;
        room(&shape)?;
        let shapes = (a.shape(), b.shape(), shape.as_slice());
        let data = match (a.data(), b.data()) {
            (Data::F32(a), Data::F32(b)) => zip(shapes, a, b, compare(holds))?,
            (Data::F64(a), Data::F64(b)) => zip(shapes, a, b, compare(holds))?,
            (Data::I64(a), Data::I64(b)) => zip(shapes, a, b, compare(holds))?,
            (Data::I32(a), Data::I32(b)) => zip(shapes, a, b, compare(holds))?,
            (Data::Bool(a), Data::Bool(b)) => zip(shapes, a, b, compare(holds))?,
            (Data::Text(a), Data::Text(b)) => zip(shapes, a, b, compare(holds))?,
            _ => return Err(Fault::unsupported(format!("{} with {}", a.datatype(), b.datatype()))),
        };
        Ok(vec![Array::new(shape, Data::Bool(data))?])
    }))
}

pub(super) fn logic(node: &Node) -> Result<Kernel, Refused> {
    let truths = |array: &Array| match array.data() {
        Data::Bool(elements) => Ok(elements.clone()),
        other => Err(Fault::unsupported(format!("{} where BOOL is asked for", other.datatype()))),
    };
    if node.operator == "Not" {
        return Ok(Box::new(move |arguments| {
            let array = arguments.get(0)?;
            let data = truths(array)?.into_iter().map(|truth| !truth).collect();
            Ok(vec![Array::new(array.shape(), Data::Bool(data))?])
        }));
    }
    let two: fn(bool, bool) -> bool = match node.operator.as_str() {
        "And" => |a, b| a & b,
        "Or" => |a, b| a | b,
        _ => |a, b| a ^ b,
    };
    Ok(Box::new(move |arguments| {
        let (a, b) = (arguments.get(0)?, arguments.get(1)?);
        let shape = broadcast(a.shape(), b.shape())?;
        room(&shape)?;
        let data = zip((a.shape(), b.shape(), &shape), &truths(a)?, &truths(b)?, |&a, &b| Ok(two(a, b)))?;
        Ok(vec![Array::new(shape, Data::Bool(data))?])
    }))
}

/// What to do with one number, as f32, as f64, and as a whole number where that is done.
type One = (fn(f32) -> f32, fn(f64) -> f64, Option<fn(i64) -> i64>);

pub(super) fn unary(node: &Node) -> Result<Kernel, Refused> {
    let one: One = match node.operator.as_str() {
        "Abs" => (f32::abs, f64::abs, Some(i64::wrapping_abs)),
        "Ceil" => (f32::ceil, f64::ceil, None),
        "Exp" => (f32::exp, f64::exp, None),
        "Floor" => (f32::floor, f64::floor, None),
        "Log" => (f32::ln, f64::ln, None),
        "Neg" => (|x| -x, |x| -x, Some(i64::wrapping_neg)),
        "Reciprocal" => (|x| 1.0 / x, |x| 1.0 / x, None),
        "Relu" => (|x| if x < 0.0 { 0.0 } else { x }, |x| if x < 0.0 { 0.0 } else { x }, Some(|x| x.max(0))),
        "Sigmoid" => (super::post::logistic, |x| 1.0 / (1.0 + (-x).exp()), None),
        "Sign" => (
            |x| if x == 0.0 { 0.0 } else { x.signum() },
            |x| if x == 0.0 { 0.0 } else { x.signum() },
            Some(i64::signum),
        ),
        "Sqrt" => (f32::sqrt, f64::sqrt, None),
        "Tanh" => (f32::tanh, f64::tanh, None),
        other => return Err(node.refuse(format!("{other} is not done"))),
    };
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let data = match (array.data(), one.2) {
            (Data::F32(elements), _) => Data::F32(elements.iter().map(|&x| (one.0)(x)).collect()),
            (Data::F64(elements), _) => Data::F64(elements.iter().map(|&x| (one.1)(x)).collect()),
            (Data::I64(elements), Some(whole)) => Data::I64(elements.iter().map(|&x| whole(x)).collect()),
            (Data::I32(elements), Some(whole)) => {
                Data::I32(elements.iter().map(|&x| whole(x.into()) as i32).collect())
            }
            (other, _) => return Err(Fault::unsupported(format!("{} as its input", other.datatype()))),
        };
        Ok(vec![Array::new(array.shape(), data)?])
    }))
}

pub(super) fn is_nan(_: &Node) -> Result<Kernel, Refused> {
    Ok(Box::new(|arguments| {
        let array = arguments.get(0)?;
        let data = match array.data() {
            Data::F64(elements) => elements.iter().map(|x| x.is_nan()).collect(),
            _ => array.f32s()?.iter().map(|x| x.is_nan()).collect(),
        };
        Ok(vec![Array::new(array.shape(), Data::Bool(data))?])
    }))
}
