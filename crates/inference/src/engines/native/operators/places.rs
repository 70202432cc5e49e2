//! Ways through an array: which element comes next under other strides.

use super::super::Fault;

/// Offsets of a row-major walk over `shape`, where each dimension has a stride of its own.
#[derive(Clone)]
pub(super) struct Places {
    shape: Vec<usize>,
    strides: Vec<isize>,
    index: Vec<usize>,
    at: isize,
    left: usize,
}

impl Places {
    /// Invariant of the caller: all offsets that come out are inside of what they are used on, or are refused there.
    pub fn new(shape: &[usize], strides: Vec<isize>, start: isize) -> Places {
        let left = shape.iter().product();
        Places { shape: shape.to_vec(), strides, index: vec![0; shape.len()], at: start, left }
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let place = usize::try_from(self.at).ok();
        let axes = self.index.iter_mut().zip(&self.shape).zip(&self.strides);
        for ((index, &size), &stride) in axes.rev() {
            *index += 1;
            self.at += stride;
            if *index < size {
                break;
            }
            self.at -= stride * size as isize;
            *index = 0;
        }
        place
    }
}

/// Elements between neighbours along each dimension of a row-major array.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1_isize;
    for (place, &size) in strides.iter_mut().zip(shape).rev() {
        *place = stride;
        stride = stride.saturating_mul(size.max(1) as isize);
    }
    strides
}

/// The shape that two shapes make together, where a 1 stretches to the other's size.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Fault> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).and_then(|axis| shape.get(axis).copied()).unwrap_or(1)
    };
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (1, size) | (size, 1) => Ok(size),
            (one, other) if one == other => Ok(one),
            _ => Err(Fault::input(format!("makes shapes {a:?} and {b:?} meet, which don't fit"))),
        })
        .collect()
}

/// The way through an array of shape `from` as if it had been stretched to `to`.
pub(super) fn stretched(from: &[usize], to: &[usize]) -> Places {
    let mut own = strides(from);
    own.iter_mut().zip(from).filter(|(_, size)| **size == 1).for_each(|(stride, _)| *stride = 0);
    let mut all = vec![0; to.len().saturating_sub(from.len())];
    all.append(&mut own);
    Places::new(to, all, 0)
}

/// An axis counted from the end where it is negative.
pub(super) fn axis(given: i64, rank: usize) -> Result<usize, Fault> {
    let counted = if given < 0 { given.saturating_add(rank as i64) } else { given };
    usize::try_from(counted)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| Fault::unsupported(format!("axis {given} of an array of {rank} dimensions")))
}

/// Axes, each at most once.
pub(super) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
    let mut axes = given.iter().map(|&given| axis(given, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    if axes.len() != given.len() {
        return Err(Fault::unsupported(format!("axes {given:?} name one twice")));
    }
    Ok(axes)
}

/// The number of elements before an axis, along it, and after it.
pub(super) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let (before, rest) = shape.split_at(axis.min(shape.len()));
    let (along, after) = rest.split_first().map_or((1, rest), |(&along, after)| (along, after));
    (before.iter().product(), along, after.iter().product())
}
