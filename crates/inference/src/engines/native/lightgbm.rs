//! LightGBM's model files: lines of `key=value`, a block of them per tree.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use super::Refused;
use super::boosted::{Boosted, Link, MAX_SCORES, Scorer};
use super::forest::{Builder, Draft, Set, Split, Test, Weights};

/// What bits of a split's `decision_type` say.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;
const MISSING_ZERO: u8 = 1;
const MISSING_NAN: u8 = 2;

/// The lines of one block; where a key stands alone its value is empty.
type Block<'a> = HashMap<&'a str, &'a str>;

pub(super) fn load(bytes: &[u8]) -> Result<Boosted, Refused> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Refused::new("it is no model of LightGBM: it is no text"))?;
    let model = text.split("\nend of trees").next().unwrap_or_default();
    let mut blocks = model.split("\nTree=");
    let head = block(blocks.next().unwrap_or_default());
    let per_iteration: usize = value(&head, "num_tree_per_iteration")?;
    let last_feature: usize = value(&head, "max_feature_idx")?;
    if !(1..=MAX_SCORES).contains(&per_iteration) {
        return Err(Refused::new(format!("num_tree_per_iteration is {per_iteration}")));
    }
    let link = link(head.get("objective").copied().unwrap_or_default())?;
    let (mut builder, mut weights, mut count) = (Builder::new(), Weights::default(), 0_usize);
    for (index, tree) in blocks.enumerate() {
        let score = (index % per_iteration) as u32;
        let tree = Tree::read(&block(tree), index)?;
        let leaves: Vec<u32> = tree.leaf_value.iter().map(|&value| weights.push([(score, value)])).collect();
        builder.trees(&tree.drafts(&leaves, index)?, &[0])?;
        count += 1;
    }
    let iterations = (count / per_iteration).max(1);
    let divisor = if head.contains_key("average_output") { iterations as f64 } else { 1.0 };
    let scorer = Scorer::Double(builder.finish(), weights.settle(per_iteration));
    Boosted::new(last_feature.saturating_add(1), scorer, vec![0.0; per_iteration], divisor, link)
}

fn block(text: &str) -> Block<'_> {
    text.lines().map(|line| line.split_once('=').unwrap_or((line, ""))).collect()
}

fn value<T: FromStr>(block: &Block<'_>, key: &str) -> Result<T, Refused> {
    let text = block.get(key).ok_or_else(|| Refused::new(format!("it is no model of LightGBM: no {key}")))?;
    text.trim().parse().map_err(|_| Refused::new(format!("{key} is `{}`", shortened(text))))
}

/// The numbers of a line; none where it is not there.
fn list<T: FromStr>(block: &Block<'_>, key: &str) -> Result<Vec<T>, Refused> {
    let words = block.get(key).copied().unwrap_or_default().split_ascii_whitespace();
    let number =
        |word: &str| word.parse().map_err(|_| Refused::new(format!("{key} has `{}`", shortened(word))));
    words.map(number).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The objective, such as `binary sigmoid:1`; none of its own means that sums are given as they are.
fn link(objective: &str) -> Result<Link, Refused> {
    let mut words = objective.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let sigmoid = words.iter().find_map(|word| word.strip_prefix("sigmoid:")).unwrap_or("1").parse();
    let sigmoid: f64 =
        sigmoid.map_err(|_| Refused::new(format!("the objective `{}`", shortened(objective))))?;
    Ok(match name {
        "binary" => Link::Binary(sigmoid),
        "multiclass" => Link::Softmax,
        "multiclassova" => Link::Each(sigmoid),
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape"
            if words.contains(&"sqrt") =>
        {
            Link::SignedSquare
        }
        "" | "custom" | "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape"
        | "lambdarank" | "rank_xendcg" => Link::Identity,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "cross_entropy" => Link::Logistic(1.0),
        "cross_entropy_lambda" => Link::Softplus,
        other => return Err(Refused::new(format!("the objective `{}` is not done", shortened(other)))),
    })
}

struct Tree {
    split_feature: Vec<usize>,
    threshold: Vec<f64>,
    decision_type: Vec<u8>,
    left_child: Vec<i64>,
    right_child: Vec<i64>,
    leaf_value: Vec<f64>,
    /// Where each set of categories begins in `cat_threshold`, in words of 32.
    cat_boundaries: Vec<usize>,
    cat_threshold: Vec<u32>,
}

impl Tree {
    fn read(block: &Block<'_>, index: usize) -> Result<Tree, Refused> {
        if block.get("is_linear").is_some_and(|&linear| linear.trim() != "0") {
            return Err(Refused::new("its leaves are linear models, which is not done"));
        }
        let tree = Tree {
            split_feature: list(block, "split_feature")?,
            threshold: list(block, "threshold")?,
            decision_type: list(block, "decision_type")?,
            left_child: list(block, "left_child")?,
            right_child: list(block, "right_child")?,
            leaf_value: list(block, "leaf_value")?,
            cat_boundaries: list(block, "cat_boundaries")?,
            cat_threshold: list(block, "cat_threshold")?,
        };
        let count = tree.split_feature.len();
        let lengths =
            [tree.threshold.len(), tree.decision_type.len(), tree.left_child.len(), tree.right_child.len()];
        if lengths.iter().any(|&length| length != count) || tree.leaf_value.is_empty() {
            return Err(Refused::new(format!("tree {index} is broken: its lists have different lengths")));
        }
        Ok(tree)
    }

    /// The splits, then the leaves.
    fn drafts(&self, leaves: &[u32], index: usize) -> Result<Vec<Draft<f64>>, Refused> {
        let broken = |what: &str| Refused::new(format!("tree {index} is broken: {what}"));
        let count = self.split_feature.len();
        // A negative child is a leaf: -1 the first.
        let child = |number: i64| {
            let place = if number < 0 {
                usize::try_from(!number).ok().map(|leaf| count + leaf)
            } else {
                number.try_into().ok()
            };
            place.ok_or_else(|| broken("a child is not there"))
        };
        let sets = self.sets().ok_or_else(|| broken("its sets of categories overlap or end too early"))?;
        let mut drafts = Vec::with_capacity(count + leaves.len());
        let columns = self.split_feature.iter().zip(&self.threshold).zip(&self.decision_type);
        let children = self.left_child.iter().zip(&self.right_child);
        for (((&feature, &threshold), &kind), (&left, &right)) in columns.zip(children) {
            let missing = (kind >> 2) & 3;
            let (test, nan_yes) = if kind & CATEGORICAL != 0 {
                let set = sets.get(threshold as usize);
                let set = set.ok_or_else(|| broken("a set of categories is not there"))?;
                (Test::In(Arc::clone(set)), false)
            } else if missing == MISSING_ZERO || missing == MISSING_NAN {
                (Test::AtMost(threshold), kind & DEFAULT_LEFT != 0)
            } else {
                // Where nothing was missing in training, NaN is taken for zero.
                (Test::AtMost(threshold), 0.0 <= threshold)
            };
            let zero_is_nan = kind & CATEGORICAL == 0 && missing == MISSING_ZERO;
            drafts.push(Draft::Split(Split {
                feature,
                test,
                yes: child(left)?,
                no: child(right)?,
                nan_yes,
                zero_is_nan,
            }));
        }
        drafts.extend(leaves.iter().map(|&leaf| Draft::Leaf(leaf)));
        Ok(drafts)
    }

    /// Sets of categories, which lie one behind the other.
    fn sets(&self) -> Option<Vec<Arc<Set>>> {
        let ends = self.cat_boundaries.iter().zip(self.cat_boundaries.iter().skip(1));
        let set = |(&start, &end): (&usize, &usize)| {
            Some(Arc::new(Set::of_bits(self.cat_threshold.get(start..end)?.to_vec())))
        };
        ends.map(set).collect()
    }
}
