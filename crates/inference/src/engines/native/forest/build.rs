//! From trees as files describe them to the flat form; whatever is no tree is refused here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::Refused;
use super::{FEATURE, Forest, IN_SET, NAN_RIGHT, Node, Number, ZERO_IS_NAN};

/// One node of a tree as a file has it.
#[derive(Clone)]
pub(in super::super) enum Draft<T> {
    Split(Split<T>),
    /// The number of a leaf.
    Leaf(u32),
}

/// A question and where its answers lead.
#[derive(Clone)]
pub(in super::super) struct Split<T> {
    pub feature: usize,
    pub test: Test<T>,
    /// Places in the tree's own list of drafts.
    pub yes: usize,
    pub no: usize,
    /// Where NaN goes.
    pub nan_yes: bool,
    /// Whether zero goes where NaN goes.
    pub zero_is_nan: bool,
}

#[derive(Clone)]
pub(in super::super) enum Test<T> {
    AtMost(T),
    Less(T),
    AtLeast(T),
    Greater(T),
    In(Arc<Set>),
    NotIn(Arc<Set>),
}

/// Numbers that go one way.
#[derive(Default)]
pub(in super::super) struct Set {
    /// Small whole numbers, one bit each; what is asked is cut to a whole number.
    bits: Vec<u32>,
    /// The same, in order, where bits would take more room.
    sparse: Vec<u32>,
    /// Any numbers.
    values: Vec<f64>,
}

/// Greatest category.
const MAX_CATEGORY: u32 = 1 << 20;

impl Set {
    pub fn of_bits(bits: Vec<u32>) -> Set {
        Set { bits, ..Set::default() }
    }

    pub fn of_values(values: Vec<f64>) -> Set {
        Set { values, ..Set::default() }
    }

    /// These categories, in no more room than they take in a file; `None` where one is negative or too great.
    pub fn of_categories(categories: &[i64]) -> Option<Set> {
        let categories = categories.iter().map(|&category| u32::try_from(category).ok());
        let mut sparse: Vec<u32> = categories
            .map(|category| category.filter(|&category| category < MAX_CATEGORY))
            .collect::<Option<_>>()?;
        sparse.sort_unstable();
        sparse.dedup();
        let words = sparse.last().map_or(0, |&last| last as usize / 32 + 1);
        if words > sparse.len() {
            return Some(Set { sparse, ..Set::default() });
        }
        let mut bits = vec![0_u32; words];
        for category in sparse {
            if let Some(word) = bits.get_mut(category as usize / 32) {
                *word |= 1 << (category % 32);
            }
        }
        Some(Set::of_bits(bits))
    }

    pub fn contains(&self, value: f64) -> bool {
        let is_category = value >= 0.0 && {
            let whole = value as usize;
            self.bits.get(whole / 32).is_some_and(|word| word >> (whole % 32) & 1 == 1)
                || u32::try_from(whole).is_ok_and(|whole| self.sparse.binary_search(&whole).is_ok())
        };
        is_category || self.values.contains(&value)
    }
}

/// Puts trees into a forest, one after the other.
pub(in super::super) struct Builder<T> {
    forest: Forest<T>,
}

impl<T: Number> Builder<T> {
    pub fn new() -> Self {
        let forest = Forest {
            nodes: Vec::new(),
            leaves: Vec::new(),
            roots: Vec::new(),
            sets: Vec::new(),
            mixed: false,
            features: 0,
        };
        Builder { forest }
    }

    /// Adds a tree for each of `roots`, which are places in `drafts`; what can't be reached is left out.
    ///
    /// # Errors
    /// When two ways lead to one node, a child is not there, or a number is out of range.
    pub fn trees(&mut self, drafts: &[Draft<T>], roots: &[usize]) -> Result<(), Refused> {
        let mut seen = vec![false; drafts.len()];
        roots.iter().try_for_each(|&root| self.tree(drafts, root, &mut seen))
    }

    fn tree(&mut self, drafts: &[Draft<T>], root: usize, seen: &mut [bool]) -> Result<(), Refused> {
        let tree = self.forest.roots.len();
        let first = self.room(1)?;
        self.forest.roots.push(first);
        let mut open = VecDeque::from([(root, first)]);
        while let Some((index, place)) = open.pop_front() {
            let draft = drafts.get(index).ok_or_else(|| broken(tree, "a child is not there"))?;
            match seen.get_mut(index) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(broken(tree, "two ways lead to one node")),
            }
            match draft {
                Draft::Leaf(leaf) => {
                    self.put(place, Node { threshold: T::INFINITY, feature: 0, left: place }, *leaf);
                }
                Draft::Split(split) => {
                    let left = self.room(2)?;
                    let (node, swapped) = self.node(split, left, tree)?;
                    self.put(place, node, 0);
                    let (one, other) = if swapped { (split.no, split.yes) } else { (split.yes, split.no) };
                    open.extend([(one, left), (other, left + 1)]);
                }
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Forest<T> {
        let mut forest = self.forest;
        forest.nodes.shrink_to_fit();
        forest.leaves.shrink_to_fit();
        forest
    }

    fn room(&mut self, count: usize) -> Result<u32, Refused> {
        let place = u32::try_from(self.forest.nodes.len()).ok().filter(|&place| place < u32::MAX - 2);
        let place = place.ok_or_else(|| Refused::new("the trees have more than 4 billion nodes"))?;
        let empty = Node { threshold: T::INFINITY, feature: 0, left: 0 };
        self.forest.nodes.extend(std::iter::repeat_n(empty, count));
        self.forest.leaves.extend(std::iter::repeat_n(0, count));
        Ok(place)
    }

    fn put(&mut self, place: u32, node: Node<T>, leaf: u32) {
        if let (Some(at), Some(number)) =
            (self.forest.nodes.get_mut(place as usize), self.forest.leaves.get_mut(place as usize))
        {
            *at = node;
            *number = leaf;
        }
    }

    /// The flat form of a split, and whether its `no` goes left.
    fn node(&mut self, split: &Split<T>, left: u32, tree: usize) -> Result<(Node<T>, bool), Refused> {
        let feature = u32::try_from(split.feature).ok().filter(|&feature| feature < FEATURE);
        let feature = feature.ok_or_else(|| broken(tree, "a feature's number is out of range"))?;
        self.forest.features = self.forest.features.max(split.feature + 1);
        let (threshold, swapped, set) = match &split.test {
            Test::AtMost(threshold) => (*threshold, false, None),
            Test::Greater(threshold) => (*threshold, true, None),
            // Nothing is less than minus infinity: the empty set says so.
            Test::Less(threshold) | Test::AtLeast(threshold) if (*threshold).into() == f64::NEG_INFINITY => {
                (T::default(), matches!(split.test, Test::AtLeast(_)), Some(Arc::default()))
            }
            Test::Less(threshold) => (threshold.next_down(), false, None),
            Test::AtLeast(threshold) => (threshold.next_down(), true, None),
            Test::In(set) => (T::default(), false, Some(Arc::clone(set))),
            Test::NotIn(set) => (T::default(), true, Some(Arc::clone(set))),
        };
        if threshold.is_nan() {
            return Err(broken(tree, "a threshold is not a number"));
        }
        let mut node = Node { threshold, feature, left };
        if split.nan_yes == swapped {
            node.feature |= NAN_RIGHT;
        }
        if split.zero_is_nan {
            node.feature |= ZERO_IS_NAN;
        }
        if let Some(set) = set {
            node.feature |= IN_SET;
            node.threshold = T::nearest(self.forest.sets.len() as f64);
            if node.threshold.into() as usize != self.forest.sets.len() {
                return Err(broken(tree, "too many sets of categories"));
            }
            self.forest.sets.push(set);
        }
        self.forest.mixed |= node.feature & (IN_SET | ZERO_IS_NAN) != 0;
        Ok((node, swapped))
    }
}

fn broken(tree: usize, what: &str) -> Refused {
    Refused::new(format!("tree {tree} is broken: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(test: Test<f32>, yes: usize, no: usize, nan_yes: bool) -> Draft<f32> {
        Draft::Split(Split { feature: 0, test, yes, no, nan_yes, zero_is_nan: false })
    }

    fn leaf_of(test: Test<f32>, nan_yes: bool, x: f32) -> u32 {
        let mut builder = Builder::new();
        builder.trees(&[split(test, 1, 2, nan_yes), Draft::Leaf(1), Draft::Leaf(0)], &[0]).unwrap();
        let mut given = None;
        builder.finish().walk(&[x], 1, |_, leaf| given = Some(leaf));
        given.unwrap()
    }

    #[test]
    fn each_test_says_what_its_comparison_says_at_the_border_and_at_the_ends() {
        let numbers =
            [f32::NEG_INFINITY, f32::MIN, -1.0, -0.0, 0.0, f32::from_bits(1), 1.0, 1.0000001, f32::INFINITY];
        for t in numbers {
            for x in numbers {
                for nan_yes in [true, false] {
                    assert_eq!(leaf_of(Test::AtMost(t), nan_yes, x), u32::from(x <= t), "{x} <= {t}");
                    assert_eq!(leaf_of(Test::Less(t), nan_yes, x), u32::from(x < t), "{x} < {t}");
                    assert_eq!(leaf_of(Test::AtLeast(t), nan_yes, x), u32::from(x >= t), "{x} >= {t}");
                    assert_eq!(leaf_of(Test::Greater(t), nan_yes, x), u32::from(x > t), "{x} > {t}");
                }
            }
            for test in [Test::AtMost(t), Test::Less(t), Test::AtLeast(t), Test::Greater(t)] {
                assert_eq!(leaf_of(test.clone(), true, f32::NAN), 1);
                assert_eq!(leaf_of(test, false, f32::NAN), 0);
            }
        }
    }

    #[test]
    fn sets_hold_whole_numbers_as_bits_and_others_as_they_are() {
        let set = Arc::new(Set { bits: vec![0b101, 1], values: vec![2.5], ..Set::default() });
        for (x, inside) in
            [(0.0, 1), (1.0, 0), (2.0, 1), (2.5, 1), (32.0, 1), (33.0, 0), (-1.0, 0), (1e20, 0)]
        {
            assert_eq!(leaf_of(Test::In(set.clone()), false, x), inside, "{x}");
            assert_eq!(leaf_of(Test::NotIn(set.clone()), false, x), 1 - inside, "{x}");
        }
    }

    #[test]
    fn sets_of_categories_take_no_more_room_than_the_file() {
        for categories in [vec![], vec![0, 2, 32], vec![2, 1_000_000, 0, 2], (0..500).collect::<Vec<i64>>()] {
            let set = Set::of_categories(&categories).unwrap();
            assert!(set.bits.len() + set.sparse.len() <= categories.len());
            for asked in (0..600).chain([999_999, 1_000_000, 1_048_575]) {
                assert_eq!(set.contains(asked as f64), categories.contains(&asked), "{asked}");
            }
            assert_eq!(set.contains(2.5), categories.contains(&2), "it is cut to a whole number");
        }
        assert!(
            Set::of_categories(&[-1]).is_none()
                && Set::of_categories(&[1 << 20]).is_none()
                && Set::of_categories(&[1 << 40]).is_none()
        );
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let rings = [
            vec![split(Test::AtMost(1.0), 0, 1, false), Draft::Leaf(0)],
            vec![split(Test::AtMost(1.0), 1, 1, false), Draft::Leaf(0)],
            vec![
                split(Test::AtMost(1.0), 1, 2, false),
                split(Test::AtMost(1.0), 0, 2, false),
                Draft::Leaf(0),
            ],
            vec![split(Test::AtMost(1.0), 1, 7, false), Draft::Leaf(0)],
            vec![split(Test::AtMost(f32::NAN), 1, 2, false), Draft::Leaf(0), Draft::Leaf(1)],
            vec![],
        ];
        for drafts in rings {
            assert!(Builder::new().trees(&drafts, &[0]).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn many_rows_and_one_row_at_a_time_end_in_the_same_leaves(
            seed in proptest::collection::vec((0_usize..3, -2.0_f32..2.0, proptest::bool::ANY), 1..120),
            rows in proptest::collection::vec(-2.5_f32..2.5, 3..900),
        ) {
            // A chain of splits per tree, each with a leaf at one side: the worst shape for walks side by side.
            let mut builder = Builder::new();
            for part in seed.chunks(7) {
                let mut drafts = Vec::new();
                for (index, &(feature, threshold, flip)) in part.iter().enumerate() {
                    let (leaf, next) = (2 * index + 1, 2 * index + 2);
                    let (yes, no) = if flip { (leaf, next) } else { (next, leaf) };
                    let test = Test::AtMost(threshold);
                    drafts.push(Draft::Split(Split { feature, test, yes, no, nan_yes: false, zero_is_nan: false }));
                    drafts.push(Draft::Leaf(index as u32));
                }
                drafts.push(Draft::Leaf(99));
                builder.trees(&drafts, &[0]).unwrap();
            }
            let forest = builder.finish();
            let rows = &rows[..rows.len() / 3 * 3];
            let mut together = vec![Vec::new(); rows.len() / 3];
            forest.walk(rows, 3, |row, leaf| together[row].push(leaf));
            for (index, row) in rows.chunks(3).enumerate() {
                let mut alone = Vec::new();
                forest.walk(row, 3, |_, leaf| alone.push(leaf));
                let mut plain = Vec::new();
                for part in seed.chunks(7) {
                    let out = part.iter().position(|&(f, t, flip)| (row[f] <= t) == flip);
                    plain.push(out.map_or(99, |index| index as u32));
                }
                proptest::prop_assert_eq!(&alone, &plain);
                proptest::prop_assert_eq!(&together[index], &plain);
            }
        }
    }
}
