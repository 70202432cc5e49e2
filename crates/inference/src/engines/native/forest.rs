//! Many decision trees in one flat array, and the walk from their roots to their leaves.
//!
//! The two children of a split lie side by side, so that a step is one comparison and one addition. A leaf is a
//! split that leads to itself: eight walks go on side by side until none of them moves, which keeps the processor
//! busy where a single walk would wait for memory. What a leaf stands for is up to who asks.

mod build;

use std::ops::{AddAssign, Not};
use std::sync::Arc;

pub(super) use build::{Builder, Draft, Set, Split, Test};

/// The floats that trees compare and add.
pub(super) trait Number:
    Copy + Default + PartialOrd + AddAssign + Into<f64> + Send + Sync + 'static
{
    const INFINITY: Self;
    /// The nearest number of this type.
    fn nearest(value: f64) -> Self;
    fn is_nan(self) -> bool;
    fn divided(self, by: f64) -> Self;
    /// The greatest number below this one.
    fn next_down(self) -> Self;
}

impl Number for f32 {
    const INFINITY: f32 = f32::INFINITY;

    fn nearest(value: f64) -> f32 {
        value as f32
    }

    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }

    fn divided(self, by: f64) -> f32 {
        self / by as f32
    }

    fn next_down(self) -> f32 {
        f32::next_down(self)
    }
}

impl Number for f64 {
    const INFINITY: f64 = f64::INFINITY;

    fn nearest(value: f64) -> f64 {
        value
    }

    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }

    fn divided(self, by: f64) -> f64 {
        self / by
    }

    fn next_down(self) -> f64 {
        f64::next_down(self)
    }
}

/// Greater than the threshold means right; the right child follows the left one.
#[derive(Clone, Copy)]
struct Node<T> {
    threshold: T,
    /// Which feature is asked, and the flags below.
    feature: u32,
    /// The left child; a leaf's own place.
    left: u32,
}

/// NaN goes right instead of left.
const NAN_RIGHT: u32 = 1 << 31;
/// The threshold is the number of a set; what is in it goes left.
const IN_SET: u32 = 1 << 30;
/// Zero goes where NaN goes.
const ZERO_IS_NAN: u32 = 1 << 29;
const FEATURE: u32 = ZERO_IS_NAN - 1;

/// What LightGBM takes for zero.
const ZERO: f64 = 1e-35_f32 as f64;

/// Walks side by side.
const LANES: usize = 8;
/// Rows that all trees see before the next ones come, so that they stay in the nearest cache.
const ROWS: usize = 256;

/// What a walk must look out for: nothing, NaN, or NaN and splits that need more than a comparison.
const PLAIN: u8 = 0;
const NAN: u8 = 1;
const MIXED: u8 = 2;

/// Trees ready to walk. Invariant: all places are inside, and no way goes round.
pub(super) struct Forest<T> {
    nodes: Vec<Node<T>>,
    /// The leaf at each place; meaningless where a split is.
    leaves: Vec<u32>,
    roots: Vec<u32>,
    sets: Vec<Arc<Set>>,
    /// Whether a split needs more than a comparison.
    mixed: bool,
    features: usize,
}

impl<T: Number> Forest<T> {
    /// How many features a row must have at least.
    pub fn features(&self) -> usize {
        self.features
    }

    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Calls `visit(row, leaf)` for each row of `width` numbers and each tree; for each row in the trees' order.
    pub fn walk(&self, data: &[T], width: usize, mut visit: impl FnMut(usize, u32)) {
        let mut cells = Vec::new();
        for (index, block) in data.chunks(width.max(1) * ROWS).enumerate() {
            let visit = |row: usize, leaf: u32| visit(index * ROWS + row, leaf);
            if self.mixed {
                self.walk_block::<MIXED>(block, width, &mut cells, visit);
            } else if block.iter().any(|x| x.is_nan()) {
                self.walk_block::<NAN>(block, width, &mut cells, visit);
            } else {
                self.walk_block::<PLAIN>(block, width, &mut cells, visit);
            }
        }
    }

    fn walk_block<const KIND: u8>(
        &self,
        block: &[T],
        width: usize,
        cells: &mut Vec<T>,
        mut visit: impl FnMut(usize, u32),
    ) {
        let groups = block.chunks_exact(width.max(1) * LANES);
        let (rest, first) = (groups.remainder(), block.len() / (width.max(1) * LANES) * LANES);
        turn(groups, width, cells);
        for &root in &self.roots {
            for (group, cells) in cells.chunks_exact(width.max(1) * LANES).enumerate() {
                let ends = self.descend::<KIND, true>([root; LANES], cells);
                ends.into_iter()
                    .enumerate()
                    .for_each(|(lane, end)| visit(group * LANES + lane, self.leaf(end)));
            }
        }
        for (index, row) in rest.chunks_exact(width.max(1)).enumerate() {
            self.walk_row::<KIND>(row, |leaf| visit(first + index, leaf));
        }
    }

    /// One row through all trees, several trees side by side.
    fn walk_row<const KIND: u8>(&self, row: &[T], mut visit: impl FnMut(u32)) {
        let (full, rest) = self.roots.as_chunks::<LANES>();
        for &roots in full {
            self.descend::<KIND, false>(roots, row).into_iter().for_each(|end| visit(self.leaf(end)));
        }
        let Some(&last) = rest.last() else { return };
        let mut roots = [last; LANES];
        roots.iter_mut().zip(rest).for_each(|(place, &root)| *place = root);
        let ends = self.descend::<KIND, false>(roots, row);
        ends.into_iter().take(rest.len()).for_each(|end| visit(self.leaf(end)));
    }

    /// Walks side by side, each with a row of its own (`MANY`, by feature and then by lane) or all with one row.
    #[inline]
    fn descend<const KIND: u8, const MANY: bool>(
        &self,
        mut places: [u32; LANES],
        cells: &[T],
    ) -> [u32; LANES] {
        loop {
            let mut moved = 0;
            for (lane, place) in places.iter_mut().enumerate() {
                let next = self.step::<KIND, MANY>(*place, cells, lane);
                moved |= next ^ *place;
                *place = next;
            }
            if moved == 0 {
                return places;
            }
        }
    }

    #[inline]
    fn step<const KIND: u8, const MANY: bool>(&self, place: u32, cells: &[T], lane: usize) -> u32 {
        let Some(node) = self.nodes.get(place as usize) else { return place };
        let feature = (node.feature & FEATURE) as usize;
        let cell = if MANY { feature * LANES + lane } else { feature };
        let x = cells.get(cell).copied().unwrap_or_default();
        if KIND == PLAIN {
            return node.left + u32::from(x > node.threshold);
        }
        let nan_right = node.feature & NAN_RIGHT != 0;
        if KIND == MIXED && node.feature & (IN_SET | ZERO_IS_NAN) != 0 {
            return node.left + u32::from(self.special(node, x, nan_right));
        }
        node.left + u32::from((x > node.threshold) | (x.is_nan() & nan_right))
    }

    fn special(&self, node: &Node<T>, x: T, nan_right: bool) -> bool {
        let value: f64 = x.into();
        if value.is_nan() || (node.feature & ZERO_IS_NAN != 0 && value.abs() <= ZERO) {
            return nan_right;
        }
        if node.feature & IN_SET == 0 {
            return x > node.threshold;
        }
        let number: f64 = node.threshold.into();
        !self.sets.get(number as usize).is_some_and(|set| set.contains(value))
    }

    fn leaf(&self, place: u32) -> u32 {
        self.leaves.get(place as usize).copied().unwrap_or_default()
    }
}

/// Lays groups of rows out by feature, so that the lanes' cells of one feature lie side by side.
fn turn<'a, T: Number>(groups: impl Iterator<Item = &'a [T]>, width: usize, cells: &mut Vec<T>) {
    cells.clear();
    for group in groups {
        for feature in 0..width {
            cells.extend(group.iter().skip(feature).step_by(width.max(1)));
        }
    }
}

/// What leaves add to which targets: for each leaf a few pairs of target and weight.
pub(super) struct Weights<T> {
    /// Where each leaf's pairs begin, and where the last one's end.
    starts: Vec<u32>,
    pairs: Vec<(u32, T)>,
    /// The weights alone, where each leaf has one for each target in order; else empty.
    full: Vec<T>,
}

impl<T: Number> Default for Weights<T> {
    fn default() -> Self {
        Weights { starts: vec![0], pairs: Vec::new(), full: Vec::new() }
    }
}

impl<T: Number> Weights<T> {
    /// Takes the next leaf's pairs and gives its number.
    pub fn push(&mut self, pairs: impl IntoIterator<Item = (u32, T)>) -> u32 {
        self.pairs.extend(pairs);
        self.starts.push(u32::try_from(self.pairs.len()).unwrap_or(u32::MAX));
        u32::try_from(self.starts.len() - 2).unwrap_or(u32::MAX)
    }

    /// To be called when all leaves are there: finds the quickest way to add them up.
    pub fn settle(mut self, targets: usize) -> Self {
        let even = (self.starts.len() - 1).checked_mul(targets) == Some(self.pairs.len());
        let mut leaves = self.starts.windows(2).zip(0_u32..);
        let even = even
            && leaves.all(|(_, leaf)| self.of(leaf).iter().map(|&(target, _)| target).eq(0..targets as u32));
        if even {
            self.full = self.pairs.iter().map(|&(_, weight)| weight).collect();
        }
        self
    }

    #[inline]
    pub fn of(&self, leaf: u32) -> &[(u32, T)] {
        let at = leaf as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(at), self.starts.get(at + 1)) else { return &[] };
        self.pairs.get(start as usize..end as usize).unwrap_or_default()
    }

    /// All pairs of all leaves.
    pub fn pairs(&self) -> &[(u32, T)] {
        &self.pairs
    }

    /// Whether some leaf says nothing.
    pub fn any_silent(&self) -> bool {
        self.starts.is_sorted_by(|start, end| start < end).not()
    }

    /// Whether each leaf says something about each of `targets`.
    pub fn all_targets(&self, targets: usize) -> bool {
        let mut seen = vec![false; targets];
        (0..self.starts.len() as u32 - 1).all(|leaf| {
            seen.fill(false);
            for &(target, _) in self.of(leaf) {
                if let Some(seen) = seen.get_mut(target as usize) {
                    *seen = true;
                }
            }
            seen.iter().all(|&seen| seen)
        })
    }
}

/// Adds each tree's weights to `scores`, which has `targets` numbers per row.
pub(super) fn add_up<T: Number>(
    forest: &Forest<T>,
    weights: &Weights<T>,
    data: &[T],
    width: usize,
    targets: usize,
    scores: &mut [T],
) {
    if !weights.full.is_empty() {
        let targets = targets.max(1);
        return forest.walk(data, width, |row, leaf| {
            let (at, from) = (row * targets, leaf as usize * targets);
            let (Some(scores), Some(weights)) =
                (scores.get_mut(at..at + targets), weights.full.get(from..from + targets))
            else {
                return;
            };
            scores.iter_mut().zip(weights).for_each(|(score, &weight)| *score += weight);
        });
    }
    forest.walk(data, width, |row, leaf| {
        for &(target, weight) in weights.of(leaf) {
            if let Some(score) = scores.get_mut(row * targets + target as usize) {
                *score += weight;
            }
        }
    });
}
