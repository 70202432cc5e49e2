//! Many decision trees in one flat array, and the walk from their roots to their leaves.
//!
//! The two children of a split lie side by side, so that a step is one comparison and one addition. A leaf is a
//! split that leads to itself: eight walks go on side by side until none of them moves, which keeps the processor
//! busy where a single walk would wait for memory. What a leaf stands for is up to who asks.

mod build;

use std::ops::{AddAssign, Not};

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

/// Trees ready to walk. Invariant: all places are inside, and no way goes round.
pub(super) struct Forest<T> {
    nodes: Vec<Node<T>>,
    /// The leaf at each place; meaningless where a split is.
    leaves: Vec<u32>,
    roots: Vec<u32>,
    sets: Vec<Set>,
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
    pub fn walk(&self, data: &[T], width: usize, visit: impl FnMut(usize, u32)) {
        let rows: Vec<&[T]> = data.chunks_exact(width.max(1)).collect();
        if self.mixed { self.walk_rows::<true>(&rows, visit) } else { self.walk_rows::<false>(&rows, visit) }
    }

    fn walk_rows<const MIXED: bool>(&self, rows: &[&[T]], mut visit: impl FnMut(usize, u32)) {
        for (block, rows) in rows.chunks(ROWS).enumerate() {
            let (full, rest) = rows.as_chunks::<LANES>();
            for &root in &self.roots {
                for (group, lanes) in full.iter().enumerate() {
                    let ends = self.descend::<MIXED>([root; LANES], lanes);
                    for (lane, end) in ends.into_iter().enumerate() {
                        visit(block * ROWS + group * LANES + lane, self.leaf(end));
                    }
                }
            }
            for (index, &row) in rest.iter().enumerate() {
                self.walk_row::<MIXED>(row, |leaf| visit(block * ROWS + full.len() * LANES + index, leaf));
            }
        }
    }

    /// One row through all trees, several trees side by side.
    fn walk_row<const MIXED: bool>(&self, row: &[T], mut visit: impl FnMut(u32)) {
        let (full, rest) = self.roots.as_chunks::<LANES>();
        for &roots in full {
            self.descend::<MIXED>(roots, &[row; LANES]).into_iter().for_each(|end| visit(self.leaf(end)));
        }
        let (Some(&last), true) = (rest.last(), !rest.is_empty()) else { return };
        let mut roots = [last; LANES];
        roots.iter_mut().zip(rest).for_each(|(place, &root)| *place = root);
        let ends = self.descend::<MIXED>(roots, &[row; LANES]);
        ends.into_iter().take(rest.len()).for_each(|end| visit(self.leaf(end)));
    }

    #[inline]
    fn descend<const MIXED: bool>(&self, mut places: [u32; LANES], rows: &[&[T]; LANES]) -> [u32; LANES] {
        loop {
            let mut moved = 0;
            for (place, row) in places.iter_mut().zip(rows) {
                let next = self.step::<MIXED>(*place, row);
                moved |= next ^ *place;
                *place = next;
            }
            if moved == 0 {
                return places;
            }
        }
    }

    #[inline]
    fn step<const MIXED: bool>(&self, place: u32, row: &[T]) -> u32 {
        let Some(node) = self.nodes.get(place as usize) else { return place };
        let x = row.get((node.feature & FEATURE) as usize).copied().unwrap_or_default();
        let nan_right = node.feature & NAN_RIGHT != 0;
        if MIXED && node.feature & (IN_SET | ZERO_IS_NAN) != 0 {
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

/// What leaves add to which targets: for each leaf a few pairs of target and weight.
pub(super) struct Weights<T> {
    /// Where each leaf's pairs begin, and where the last one's end.
    starts: Vec<u32>,
    pairs: Vec<(u32, T)>,
}

impl<T: Number> Default for Weights<T> {
    fn default() -> Self {
        Weights { starts: vec![0], pairs: Vec::new() }
    }
}

impl<T: Number> Weights<T> {
    /// Takes the next leaf's pairs and gives its number.
    pub fn push(&mut self, pairs: impl IntoIterator<Item = (u32, T)>) -> u32 {
        self.pairs.extend(pairs);
        self.starts.push(u32::try_from(self.pairs.len()).unwrap_or(u32::MAX));
        u32::try_from(self.starts.len() - 2).unwrap_or(u32::MAX)
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
    forest.walk(data, width, |row, leaf| {
        for &(target, weight) in weights.of(leaf) {
            if let Some(score) = scores.get_mut(row * targets + target as usize) {
                *score += weight;
            }
        }
    });
}
