//! Along an axis.

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::places::{Places, around, axes, axis, strides};
use super::shape::given_axes;

pub(super) fn arg(node: &Node) -> Result<Kernel, Refused> {
    let (along, keep) = (node.int("axis").unwrap_or(0), node.int("keepdims").unwrap_or(1) != 0);
    if node.int("select_last_index") == Some(1) {
        return Err(node.refuse("the last of equal elements"));
    }
    let greatest = node.operator == "ArgMax";
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let along = axis(along, array.shape().len())?;
        let (before, size, after) = around(array.shape(), along);
        let mut shape = array.shape().to_vec();
        if keep {
            shape.iter_mut().skip(along).take(1).for_each(|size| *size = 1);
        } else {
            shape.remove(along);
        }
        room(&shape)?;
        if size == 0 {
            return Err(Fault::input("leaves nothing to choose from"));
        }
        let indexes = match array.data() {
            Data::F32(elements) => best(elements, (before, size, after), greatest),
            Data::F64(elements) => best(elements, (before, size, after), greatest),
            Data::I64(elements) => best(elements, (before, size, after), greatest),
            Data::I32(elements) => best(elements, (before, size, after), greatest),
            other => return Err(Fault::unsupported(format!("{} as its input", other.datatype()))),
        };
        Ok(vec![Array::new(shape, Data::I64(indexes))?])
    }))
}

/// The first place of the greatest (or smallest) element along the middle axis.
fn best<T: PartialOrd>(
    elements: &[T],
    (before, size, after): (usize, usize, usize),
    greatest: bool,
) -> Vec<i64> {
    let mut indexes = Vec::with_capacity(before * after);
    for block in elements.chunks_exact((size * after).max(1)) {
        for at in 0..after {
            let mut best: Option<(usize, &T)> = None;
            for (index, element) in block.iter().skip(at).step_by(after).enumerate() {
                let better =
                    best.is_none_or(|(_, best)| if greatest { element > best } else { element < best });
                if better {
                    best = Some((index, element));
                }
            }
            indexes.push(best.map_or(0, |(index, _)| index as i64));
        }
    }
    indexes
}

/// How numbers are drawn together: where it starts, what each adds, and the last touch.
struct Fold {
    start: f64,
    add: fn(f64, f64) -> f64,
    finish: fn(f64, f64) -> f64,
}

/// The logarithm of a sum out of the logarithms of its parts, without leaving the range of numbers.
fn log_add(a: f64, b: f64) -> f64 {
    let (small, great) = if a < b { (a, b) } else { (b, a) };
    if great == f64::NEG_INFINITY { great } else { great + (small - great).exp().ln_1p() }
}

pub(super) fn reduce(node: &Node) -> Result<Kernel, Refused> {
    let fold = match node.operator.as_str() {
        "ReduceSum" => Fold { start: 0.0, add: |sum, x| sum + x, finish: |sum, _| sum },
        "ReduceMean" => Fold { start: 0.0, add: |sum, x| sum + x, finish: |sum, count| sum / count },
        "ReduceProd" => Fold { start: 1.0, add: |product, x| product * x, finish: |product, _| product },
        "ReduceL1" => Fold { start: 0.0, add: |sum, x| sum + x.abs(), finish: |sum, _| sum },
        "ReduceL2" => Fold { start: 0.0, add: |sum, x| sum + x * x, finish: |sum, _| sum.sqrt() },
        "ReduceSumSquare" => Fold { start: 0.0, add: |sum, x| sum + x * x, finish: |sum, _| sum },
        "ReduceLogSumExp" => Fold { start: f64::NEG_INFINITY, add: log_add, finish: |sum, _| sum },
        "ReduceMax" => Fold {
            start: f64::NEG_INFINITY,
            add: |best, x| if best.is_nan() || best > x { best } else { x },
            finish: |best, _| best,
        },
        "ReduceMin" => Fold {
            start: f64::INFINITY,
            add: |best, x| if best.is_nan() || best < x { best } else { x },
            finish: |best, _| best,
        },
        other => return Err(node.refuse(format!("{other} is not done"))),
    };
    let (attribute, keep) = (node.ints("axes").to_vec(), node.int("keepdims").unwrap_or(1) != 0);
    let nothing_for_none = node.int("noop_with_empty_axes") == Some(1);
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let given = given_axes(arguments, &attribute)?;
        if given.is_empty() && nothing_for_none {
            return Ok(vec![array.clone()]);
        }
        let rank = array.shape().len();
        let gone = if given.is_empty() { (0..rank).collect() } else { axes(&given, rank)? };
        Ok(vec![folded(&fold, array, &gone, keep)?])
    }))
}

fn folded(fold: &Fold, array: &Array, gone: &[usize], keep: bool) -> Result<Array, Fault> {
    let own = strides(array.shape());
    let pick = |inside: bool| {
        let axes =
            array.shape().iter().zip(&own).enumerate().filter(move |(axis, _)| gone.contains(axis) == inside);
        axes.map(|(_, (&size, &stride))| (size, stride)).unzip::<usize, isize, Vec<_>, Vec<_>>()
    };
    let ((kept, outer), (lost, inner)) = (pick(false), pick(true));
    let numbers = array.f64s()?;
    let count = lost.iter().product::<usize>() as f64;
    let mut results = Vec::with_capacity(room(&kept)?);
    for start in Places::new(&kept, outer, 0) {
        let inside = Places::new(&lost, inner.clone(), start as isize);
        let numbers = inside.filter_map(|place| numbers.get(place).copied());
        results.push((fold.finish)(numbers.fold(fold.start, fold.add), count));
    }
    let shape = if keep {
        let sizes = array.shape().iter().enumerate();
        sizes.map(|(axis, &size)| if gone.contains(&axis) { 1 } else { size }).collect()
    } else {
        kept
    };
    let data = match array.data() {
        Data::F32(_) => Data::F32(results.into_iter().map(|x| x as f32).collect()),
        Data::F64(_) => Data::F64(results),
        Data::I64(_) => Data::I64(results.into_iter().map(|x| x as i64).collect()),
        Data::I32(_) => Data::I32(results.into_iter().map(|x| x as i32).collect()),
        other => return Err(Fault::unsupported(format!("{} as its input", other.datatype()))),
    };
    Array::new(shape, data)
}

pub(super) fn softmax(node: &Node) -> Result<Kernel, Refused> {
    // Before version 13 everything after the axis is one row.
    let (old, along) = (node.opset < 13, node.int("axis"));
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let rank = array.shape().len();
        let along = axis(along.unwrap_or(if old { 1 } else { -1 }), rank)?;
        let (_, size, after) = around(array.shape(), along);
        if !old && after != 1 {
            return Err(Fault::unsupported("an axis that is not the last"));
        }
        let Data::F32(elements) = array.data() else {
            return Err(Fault::unsupported(format!("{} as its input", array.datatype())));
        };
        let mut elements = elements.clone();
        elements.chunks_exact_mut((size * after).max(1)).for_each(super::post::softmax);
        Ok(vec![Array::new(array.shape(), Data::F32(elements))?])
    }))
}
