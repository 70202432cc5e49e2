//! Some of the elements, or all of them in another order.

use super::super::array::{Array, room};
use super::super::node::{Arguments, Kernel};
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::places::{Places, around, axis, broadcast, stretched, strides};

/// Columns of the last axis; a vector becomes a table of one row.
pub(super) fn array_feature_extractor(_: &Node) -> Result<Kernel, Refused> {
    Ok(Box::new(|arguments| {
        let (array, wanted) = (arguments.get(0)?, arguments.get(1)?.i64s()?);
        let (rows, width) = match array.shape().split_last() {
            Some((&width, rows)) => (rows.iter().product::<usize>(), width),
            None => return Err(Fault::unsupported("a single number as its input")),
        };
        let columns =
            wanted.iter().map(|&column| usize::try_from(column).ok().filter(|&column| column < width));
        let columns: Option<Vec<usize>> = columns.collect();
        let columns =
            columns.ok_or_else(|| Fault::input(format!("has no feature {wanted:?}, only {width}")))?;
        let mut shape = if array.shape().len() == 1 { vec![1, 0] } else { array.shape().to_vec() };
        if let Some(size) = shape.last_mut() {
            *size = columns.len();
        }
        let places = (0..rows).flat_map(|row| columns.iter().map(move |column| row * width + column));
        Ok(vec![array.pick(shape, places)?])
    }))
}

pub(super) fn gather(node: &Node) -> Result<Kernel, Refused> {
    let along = node.int("axis").unwrap_or(0);
    Ok(Box::new(move |arguments| {
        let (array, wanted) = (arguments.get(0)?, arguments.get(1)?);
        let along = axis(along, array.shape().len())?;
        let (before, size, after) = around(array.shape(), along);
        let index = |&given: &i64| {
            let counted = if given < 0 { given.saturating_add(size as i64) } else { given };
            let index = usize::try_from(counted).ok().filter(|&index| index < size);
            index.ok_or_else(|| Fault::input(format!("asks for element {given} of {size}")))
        };
        let indexes = wanted.i64s()?.iter().map(index).collect::<Result<Vec<_>, _>>()?;
        let mut shape: Vec<usize> = array.shape().iter().take(along).copied().collect();
        shape.extend(wanted.shape());
        shape.extend(array.shape().iter().skip(along + 1));
        let indexes = &indexes;
        let places = (0..before).flat_map(move |block| {
            indexes
                .iter()
                .flat_map(move |index| (0..after).map(move |at| (block * size + index) * after + at))
        });
        Ok(vec![array.pick(shape, places)?])
    }))
}

/// Bounds of a slice: attributes in old graphs, inputs in newer ones.
struct Bounds {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

impl Bounds {
    fn given(&self, arguments: &Arguments<'_>) -> Result<Bounds, Fault> {
        let list = |index: usize, attribute: &[i64]| match arguments.optional(index) {
            Some(array) => Ok(array.i64s()?.into_owned()),
            None => Ok::<_, Fault>(attribute.to_vec()),
        };
        let (starts, ends) = (list(1, &self.starts)?, list(2, &self.ends)?);
        let (mut axes, mut steps) = (list(3, &self.axes)?, list(4, &self.steps)?);
        if axes.is_empty() {
            axes = (0..starts.len() as i64).collect();
        }
        if steps.is_empty() {
            steps = vec![1; starts.len()];
        }
        Ok(Bounds { starts, ends, axes, steps })
    }
}

pub(super) fn slice(node: &Node) -> Result<Kernel, Refused> {
    let list = |name| node.ints(name).to_vec();
    let attributes =
        Bounds { starts: list("starts"), ends: list("ends"), axes: list("axes"), steps: Vec::new() };
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let bounds = attributes.given(arguments)?;
        let mut shape = array.shape().to_vec();
        let mut strides = strides(&shape);
        let mut first = 0_isize;
        let ranges = bounds.starts.iter().zip(&bounds.ends).zip(bounds.axes.iter().zip(&bounds.steps));
        for ((&start, &end), (&along, &step)) in ranges {
            let along = axis(along, shape.len())?;
            let (Some(size), Some(stride)) = (shape.get_mut(along), strides.get_mut(along)) else { continue };
            let (from, count) = range(start, end, step, *size)?;
            first += from * *stride;
            *stride = stride.saturating_mul(isize::try_from(step).unwrap_or(isize::MAX));
            *size = count;
        }
        let places = Places::new(&shape, strides, first);
        Ok(vec![array.pick(shape, places)?])
    }))
}

/// The first place and the number of places of a slice along one axis.
fn range(start: i64, end: i64, step: i64, size: usize) -> Result<(isize, usize), Fault> {
    let size = size as i64;
    let counted = |place: i64| if place < 0 { place.saturating_add(size) } else { place };
    let (start, end) = (counted(start), counted(end));
    let (start, distance) = match step {
        1.. => {
            let start = start.clamp(0, size);
            (start, end.clamp(0, size) - start)
        }
        ..0 => {
            let start = start.clamp(-1, size - 1);
            (start, start - end.clamp(-1, size - 1))
        }
        0 => return Err(Fault::unsupported("steps of 0")),
    };
    let count = if distance <= 0 { 0 } else { (distance as u64).div_ceil(step.unsigned_abs()) };
    Ok((start.max(0) as isize, count as usize))
}

pub(super) fn transpose(node: &Node) -> Result<Kernel, Refused> {
    let given = node.ints("perm").to_vec();
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let rank = array.shape().len();
        let order: Vec<usize> = if given.is_empty() {
            (0..rank).rev().collect()
        } else {
            given.iter().map(|&given| axis(given, rank)).collect::<Result<_, _>>()?
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err(Fault::unsupported(format!("the order {given:?} of {rank} dimensions")));
        }
        let own = strides(array.shape());
        let shape: Vec<usize> = order.iter().filter_map(|&axis| array.shape().get(axis).copied()).collect();
        let strides = order.iter().filter_map(|&axis| own.get(axis).copied()).collect();
        let places = Places::new(&shape, strides, 0);
        Ok(vec![array.pick(shape, places)?])
    }))
}

/// `Where`: from one or the other, element by element.
pub(super) fn choose(_: &Node) -> Result<Kernel, Refused> {
    Ok(Box::new(|arguments| {
        let (condition, one, other) = (arguments.get(0)?, arguments.get(1)?, arguments.get(2)?);
        let shape = broadcast(&broadcast(condition.shape(), one.shape())?, other.shape())?;
        room(&shape)?;
        let super::super::array::Data::Bool(truths) = condition.data() else {
            return Err(Fault::unsupported("a condition that is not BOOL"));
        };
        let both =
            Array::join(vec![one.count() + other.count()], 1, &[(one, one.count()), (other, other.count())])?;
        let all = stretched(condition.shape(), &shape)
            .zip(stretched(one.shape(), &shape).zip(stretched(other.shape(), &shape)));
        let offset = one.count();
        let places = all.map(
            move |(truth, (one, other))| {
                if truths.get(truth).copied().unwrap_or(false) { one } else { offset + other }
            },
        );
        Ok(vec![both.pick(shape, places)?])
    }))
}
