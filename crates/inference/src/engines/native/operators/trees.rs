//! Tree ensembles: the three forms in which ONNX writes them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::super::array::{Array, Data, room};
use super::super::forest::{Builder, Draft, Forest, Number, Set, Split, Test, Weights, add_up};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::linear::Labels;
use super::post::Post;

/// Most targets or classes.
const MAX_TARGETS: usize = 1 << 20;

/// A forest and what its leaves say.
struct Ensemble<T> {
    forest: Forest<T>,
    weights: Weights<T>,
    targets: usize,
}

/// How a target's numbers from all trees become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// The floats of one width in an array.
trait Floats: Number {
    fn of(array: &Array) -> Result<Cow<'_, [Self]>, Fault>;
    fn to_f32(self) -> f32;
}

impl Floats for f32 {
    fn of(array: &Array) -> Result<Cow<'_, [f32]>, Fault> {
        match array.data() {
            Data::F64(_) => Err(Fault::unsupported("FP64 features for trees of FP32")),
            _ => array.f32s(),
        }
    }

    fn to_f32(self) -> f32 {
        self
    }
}

impl Floats for f64 {
    fn of(array: &Array) -> Result<Cow<'_, [f64]>, Fault> {
        match array.data() {
            Data::F32(_) => Err(Fault::unsupported("FP32 features for trees of FP64")),
            _ => array.f64s(),
        }
    }

    fn to_f32(self) -> f32 {
        self as f32
    }
}

/// Scores of rows, `targets` per row.
struct Scores<T> {
    rows: usize,
    scores: Vec<T>,
    /// Which of them any leaf spoke about; empty where nobody asks.
    spoken: Vec<bool>,
}

impl<T: Floats> Ensemble<T> {
    fn score(&self, array: &Array, aggregate: Aggregate, ask_spoken: bool) -> Result<Scores<T>, Fault> {
        let (rows, width) = array.rows()?;
        if width < self.forest.features() {
            return Err(Fault::input(format!(
                "has {width} features where {} are asked for",
                self.forest.features()
            )));
        }
        let data = T::of(array)?;
        let targets = self.targets;
        let count = room(&[rows, targets])?;
        let mut scores = vec![T::default(); count];
        let whole = matches!(aggregate, Aggregate::Sum | Aggregate::Average);
        if whole && !ask_spoken {
            add_up(&self.forest, &self.weights, &data, width, targets, &mut scores);
            return Ok(Scores { rows, scores, spoken: Vec::new() });
        }
        let mut spoken = vec![false; count];
        self.forest.walk(&data, width, |row, leaf| {
            for &(target, weight) in self.weights.of(leaf) {
                let at = row * targets + target as usize;
                let (Some(score), Some(spoken)) = (scores.get_mut(at), spoken.get_mut(at)) else { continue };
                let takes = match aggregate {
                    Aggregate::Min => weight < *score,
                    Aggregate::Max => weight > *score,
                    Aggregate::Sum | Aggregate::Average => false,
                };
                if whole {
                    *score += weight;
                } else if takes || !*spoken {
                    *score = weight;
                }
                *spoken = true;
            }
        });
        Ok(Scores { rows, scores, spoken })
    }
}

/// Trees out of lists that name each node by its tree and its number.
fn listed<T: Floats>(node: &Node, leaves: &str, targets: usize) -> Result<Ensemble<T>, Refused> {
    let (trees, numbers) = (node.ints("nodes_treeids"), node.ints("nodes_nodeids"));
    let (modes, features) = (node.texts("nodes_modes"), node.ints("nodes_featureids"));
    let (yes, no) = (node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
    let (values, nan_yes) = (node.numbers("nodes_values")?, node.ints("nodes_missing_value_tracks_true"));
    let count = numbers.len();
    let lengths = [trees.len(), modes.len(), features.len(), yes.len(), no.len(), values.len()];
    if lengths.iter().any(|&length| length != count) || !(nan_yes.is_empty() || nan_yes.len() == count) {
        return Err(node.refuse("its lists have different lengths"));
    }
    if targets > MAX_TARGETS {
        return Err(node.refuse(format!("{targets} targets")));
    }
    let named: HashMap<(i64, i64), usize> =
        trees.iter().copied().zip(numbers.iter().copied()).zip(0..).collect();
    if named.len() != count {
        return Err(node.refuse("two nodes of one name"));
    }
    let (mut weights, leaf_of) = leaf_weights::<T>(node, leaves, targets, &named)?;
    let mut drafts = Vec::with_capacity(count);
    let mut roots = Vec::new();
    let mut last_tree = None;
    let columns =
        trees.iter().zip(modes).zip(features.iter().zip(&values)).zip(yes.iter().zip(no)).enumerate();
    for (index, (((&tree, mode), (&feature, &value)), (yes, no))) in columns {
        if last_tree != Some(tree) {
            roots.push(index);
            last_tree = Some(tree);
        }
        if mode.as_ref() == b"LEAF" {
            let leaf = leaf_of.get(&index).copied().unwrap_or_else(|| weights.push([]));
            drafts.push(Draft::Leaf(leaf));
            continue;
        }
        let child = |number: &i64| {
            named
                .get(&(tree, *number))
                .copied()
                .ok_or_else(|| node.refuse(format!("no node {number} in tree {tree}")))
        };
        drafts.push(Draft::Split(Split {
            feature: usize::try_from(feature).map_err(|_| node.refuse(format!("feature {feature}")))?,
            test: test(node, mode, T::nearest(value))?,
            yes: child(yes)?,
            no: child(no)?,
            nan_yes: nan_yes.get(index) == Some(&1) || mode.as_ref() == b"BRANCH_NEQ",
            zero_is_nan: false,
        }));
    }
    let mut builder = Builder::new();
    builder.trees(&drafts, &roots)?;
    Ok(Ensemble { forest: builder.finish(), weights: weights.settle(targets), targets })
}

fn test<T: Number>(node: &Node, mode: &[u8], value: T) -> Result<Test<T>, Refused> {
    let only = || Arc::new(Set::of_values(vec![value.into()]));
    Ok(match mode {
        b"BRANCH_LEQ" => Test::AtMost(value),
        b"BRANCH_LT" => Test::Less(value),
        b"BRANCH_GTE" => Test::AtLeast(value),
        b"BRANCH_GT" => Test::Greater(value),
        b"BRANCH_EQ" => Test::In(only()),
        b"BRANCH_NEQ" => Test::NotIn(only()),
        other => return Err(node.refuse(format!("mode {:?}", String::from_utf8_lossy(other)))),
    })
}

/// What the leaves say, and which node is which leaf.
fn leaf_weights<T: Number>(
    node: &Node,
    leaves: &str,
    targets: usize,
    named: &HashMap<(i64, i64), usize>,
) -> Result<(Weights<T>, HashMap<usize, u32>), Refused> {
    let list = |end: &str| node.ints(&format!("{leaves}_{end}"));
    let (trees, numbers, ids) = (list("treeids"), list("nodeids"), list("ids"));
    let values = node.numbers(&format!("{leaves}_weights"))?;
    if [trees.len(), numbers.len(), values.len()].iter().any(|&length| length != ids.len()) {
        return Err(node.refuse("its lists of weights have different lengths"));
    }
    let mut entries = Vec::with_capacity(ids.len());
    for (((&tree, &number), &target), &value) in trees.iter().zip(numbers).zip(ids).zip(&values) {
        let at =
            named.get(&(tree, number)).ok_or_else(|| node.refuse("a weight of a node that is not there"))?;
        let target = u32::try_from(target).ok().filter(|&target| (target as usize) < targets);
        let target = target.ok_or_else(|| node.refuse("a weight for a class or target that is not there"))?;
        entries.push((*at, target, T::nearest(value)));
    }
    entries.sort_by_key(|&(at, _, _)| at);
    let (mut weights, mut leaf_of) = (Weights::default(), HashMap::new());
    for leaf in entries.chunk_by(|(one, _, _), (other, _, _)| one == other) {
        if let Some(&(at, _, _)) = leaf.first() {
            leaf_of.insert(at, weights.push(leaf.iter().map(|&(_, target, value)| (target, value))));
        }
    }
    Ok((weights, leaf_of))
}

/// Whether the trees compare in FP64: their numbers are, or what they are asked about is.
fn is_double(node: &Node, name: &str) -> bool {
    node.double || node.tensor(name).is_some_and(|tensor| matches!(tensor.data(), Data::F64(_)))
}

fn targets(node: &Node) -> Result<usize, Refused> {
    let targets = node.int("n_targets").unwrap_or(1);
    let fits = usize::try_from(targets).ok().filter(|targets| (1..=MAX_TARGETS).contains(targets));
    fits.ok_or_else(|| node.refuse(format!("{targets} targets")))
}

pub(super) fn regressor(node: &Node) -> Result<Kernel, Refused> {
    let aggregate = match node.text("aggregate_function") {
        None | Some(b"SUM") => Aggregate::Sum,
        Some(b"AVERAGE") => Aggregate::Average,
        Some(b"MIN") => Aggregate::Min,
        Some(b"MAX") => Aggregate::Max,
        Some(other) => return Err(node.refuse(format!("aggregate {:?}", String::from_utf8_lossy(other)))),
    };
    let (post, bases) = (Post::of(node)?, node.numbers("base_values")?);
    if is_double(node, "nodes_values_as_tensor") {
        return Ok(regression(listed::<f64>(node, "target", targets(node)?)?, aggregate, bases, post));
    }
    Ok(regression(listed::<f32>(node, "target", targets(node)?)?, aggregate, bases, post))
}

fn regression<T: Floats>(ensemble: Ensemble<T>, aggregate: Aggregate, bases: Vec<f64>, post: Post) -> Kernel {
    let bases: Vec<T> = bases.into_iter().map(T::nearest).collect();
    Box::new(move |arguments| {
        let Scores { rows, scores, .. } = ensemble.score(arguments.get(0)?, aggregate, false)?;
        let mut scores = finished(&ensemble, scores, aggregate, &bases);
        let mut given: Vec<f32> = scores.drain(..).map(T::to_f32).collect();
        given.chunks_exact_mut(ensemble.targets.max(1)).for_each(|row| post.apply(row));
        Ok(vec![Array::new([rows, ensemble.targets], Data::F32(given))?])
    })
}

/// Averages where asked, and adds what each target starts from.
fn finished<T: Floats>(
    ensemble: &Ensemble<T>,
    mut scores: Vec<T>,
    aggregate: Aggregate,
    bases: &[T],
) -> Vec<T> {
    if aggregate == Aggregate::Average {
        let trees = ensemble.forest.trees() as f64;
        scores.iter_mut().for_each(|score| *score = score.divided(trees));
    }
    if bases.len() == ensemble.targets {
        scores.iter_mut().zip(bases.iter().cycle()).for_each(|(score, &base)| *score += base);
    }
    scores
}

pub(super) fn classifier(node: &Node) -> Result<Kernel, Refused> {
    if is_double(node, "nodes_values_as_tensor") {
        classifier_of::<f64>(node)
    } else {
        classifier_of::<f32>(node)
    }
}

fn classifier_of<T: Floats>(node: &Node) -> Result<Kernel, Refused> {
    let labels = Labels::of(node, "classlabels_int64s");
    let post = Post::of(node)?;
    let bases: Vec<T> = node.numbers("base_values")?.into_iter().map(T::nearest).collect();
    let ensemble = listed::<T>(node, "class", labels.len())?;
    match labels.len() {
        0 | 1 => Err(node.refuse("fewer than two classes")),
        2 => two_classes(node, ensemble, labels, &bases, post),
        _ => Ok(many_classes(ensemble, labels, bases, post)),
    }
}

fn many_classes<T: Floats>(ensemble: Ensemble<T>, labels: Labels, bases: Vec<T>, post: Post) -> Kernel {
    let classes = labels.len();
    let ask_spoken = bases.len() != classes && !ensemble.weights.all_targets(classes);
    Box::new(move |arguments| {
        let Scores { rows, scores, spoken } =
            ensemble.score(arguments.get(0)?, Aggregate::Sum, ask_spoken)?;
        let scores = finished(&ensemble, scores, Aggregate::Sum, &bases);
        let spoken = spoken.chunks_exact(classes).map(Some).chain(std::iter::repeat(None));
        let chosen: Vec<usize> =
            scores.chunks_exact(classes).zip(spoken).map(|(row, spoken)| best(row, spoken)).collect();
        let mut given: Vec<f32> = scores.into_iter().map(T::to_f32).collect();
        given.chunks_exact_mut(classes).for_each(|row| post.apply(row));
        Ok(vec![labels.named(&chosen)?, Array::new([rows, classes], Data::F32(given))?])
    })
}

/// Two classes have one score, from which the other is made. Which way depends on whether a weight is negative,
/// and on which class the weights are for: ONNX leaves it open, and this is how ONNX Runtime does it.
fn two_classes<T: Floats>(
    node: &Node,
    ensemble: Ensemble<T>,
    labels: Labels,
    bases: &[T],
    post: Post,
) -> Result<Kernel, Refused> {
    let pairs = ensemble.weights.pairs();
    let second = pairs.first().is_some_and(|&(class, _)| class == 1);
    if pairs.iter().any(|&(class, _)| (class == 1) != second) {
        return Err(node.refuse("weights for both of two classes"));
    }
    if post == Post::Probit
        || bases.len() > 1
        || (second && (!bases.is_empty() || ensemble.weights.any_silent()))
    {
        return Err(node.refuse("two classes with base values, silent leaves or PROBIT"));
    }
    let negative = pairs.iter().any(|&(_, weight)| weight < T::default());
    let (base, threshold) = (bases.first().copied().unwrap_or_default(), if negative { 0.0 } else { 0.5 });
    Ok(Box::new(move |arguments| {
        let Scores { rows, scores, .. } = ensemble.score(arguments.get(0)?, Aggregate::Sum, false)?;
        let (mut chosen, mut given) = (Vec::with_capacity(rows), Vec::with_capacity(scores.len()));
        for row in scores.as_chunks().0 {
            let [first, other] = *row;
            let mut score = if second { other } else { first };
            score += base;
            chosen.push(usize::from(score.into() > threshold));
            let score = score.to_f32();
            let mut both = match post {
                _ if second => [0.0, score],
                Post::Logistic => [-score, score],
                _ if negative => [-score, score],
                _ => [1.0 - score, score],
            };
            if second || post == Post::Logistic {
                post.apply(&mut both);
            }
            given.extend(both);
        }
        Ok(vec![labels.named(&chosen)?, Array::new([rows, 2], Data::F32(given))?])
    }))
}

/// The first class with the greatest score among those that a leaf spoke about.
fn best<T: Number>(row: &[T], spoken: Option<&[bool]>) -> usize {
    let mut best: Option<(usize, T)> = None;
    for (index, &score) in row.iter().enumerate() {
        let counts = spoken.is_none_or(|spoken| spoken.get(index) == Some(&true));
        if counts && best.is_none_or(|(_, best)| score > best) {
            best = Some((index, score));
        }
    }
    best.map_or(0, |(index, _)| index)
}

/// `TreeEnsemble`, whose splits and leaves are two lists that point into each other.
pub(super) fn ensemble(node: &Node) -> Result<Kernel, Refused> {
    if is_double(node, "nodes_splits") { ensemble_of::<f64>(node) } else { ensemble_of::<f32>(node) }
}

fn ensemble_of<T: Floats>(node: &Node) -> Result<Kernel, Refused> {
    let (targets, post) = (targets(node)?, Post::numbered(node)?);
    let aggregate = match node.int("aggregate_function").unwrap_or(1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(node.refuse(format!("aggregate_function {other}"))),
    };
    let mut weights = Weights::<T>::default();
    let leaves = node.ints("leaf_targetids").iter().zip(node.numbers("leaf_weights")?);
    let mut drafts: Vec<Draft<T>> = Vec::new();
    for (&target, weight) in leaves {
        let target = u32::try_from(target).ok().filter(|&target| (target as usize) < targets);
        let target = target.ok_or_else(|| node.refuse("a weight for a target that is not there"))?;
        drafts.push(Draft::Leaf(weights.push([(target, T::nearest(weight))])));
    }
    // A leaf may be the end of many ways, so each way gets one of its own.
    let leaves = std::mem::take(&mut drafts);
    let splits = splits::<T>(node, &leaves, &mut drafts)?;
    let roots =
        node.ints("tree_roots").iter().map(|&root| usize::try_from(root).ok().filter(|&root| root < splits));
    let roots: Option<Vec<usize>> = roots.collect();
    let mut builder = Builder::new();
    builder.trees(&drafts, &roots.ok_or_else(|| node.refuse("a root that is not there"))?)?;
    let ensemble = Ensemble { forest: builder.finish(), weights: weights.settle(targets), targets };
    Ok(if is_double(node, "nodes_splits") {
        Box::new(move |arguments| {
            let Scores { rows, scores, .. } = ensemble.score(arguments.get(0)?, aggregate, false)?;
            let scores = finished(&ensemble, scores, aggregate, &[]);
            if post != Post::None {
                return Err(Fault::unsupported("a post-transform in FP64"));
            }
            let scores = scores.into_iter().map(Into::into).collect();
            Ok(vec![Array::new([rows, targets], Data::F64(scores))?])
        })
    } else {
        regression(ensemble, aggregate, Vec::new(), post)
    })
}

/// Appends all splits to `drafts`, then their leaves, and gives the number of splits.
fn splits<T: Floats>(node: &Node, leaves: &[Draft<T>], drafts: &mut Vec<Draft<T>>) -> Result<usize, Refused> {
    let (features, thresholds) = (node.ints("nodes_featureids"), node.numbers("nodes_splits")?);
    let modes = node.tensor("nodes_modes").map(|modes| modes.i64s()).transpose()?.unwrap_or_default();
    let (yes, yes_leaf) = (node.ints("nodes_truenodeids"), node.ints("nodes_trueleafs"));
    let (no, no_leaf) = (node.ints("nodes_falsenodeids"), node.ints("nodes_falseleafs"));
    let nan_yes = node.ints("nodes_missing_value_tracks_true");
    let count = features.len();
    let lengths = [thresholds.len(), modes.len(), yes.len(), yes_leaf.len(), no.len(), no_leaf.len()];
    if lengths.iter().any(|&length| length != count) || !(nan_yes.is_empty() || nan_yes.len() == count) {
        return Err(node.refuse("its lists have different lengths"));
    }
    let members = node.numbers("membership_values")?;
    let mut members = members.split(|value| value.is_nan());
    let mut ends = Vec::new();
    let mut child = |number: i64, is_leaf: i64| {
        let number = usize::try_from(number).ok();
        if is_leaf == 0 {
            return number
                .filter(|&number| number < count)
                .ok_or_else(|| node.refuse("a child that is not there"));
        }
        let leaf = number.and_then(|number| leaves.get(number)).ok_or_else(|| node.refuse("no such leaf"))?;
        ends.push(leaf.clone());
        Ok(count + ends.len() - 1)
    };
    let columns = features
        .iter()
        .zip(&thresholds)
        .zip(modes.iter())
        .zip(yes.iter().zip(yes_leaf))
        .zip(no.iter().zip(no_leaf));
    for (index, ((((&feature, &threshold), &mode), yes), no)) in columns.enumerate() {
        let value = T::nearest(threshold);
        let set = |values: &[f64]| Arc::new(Set::of_values(values.to_vec()));
        let test = match mode {
            0 => Test::AtMost(value),
            1 => Test::Less(value),
            2 => Test::AtLeast(value),
            3 => Test::Greater(value),
            4 => Test::In(set(&[threshold])),
            5 => Test::NotIn(set(&[threshold])),
            6 => Test::In(set(members.next().ok_or_else(|| node.refuse("too few membership_values"))?)),
            other => return Err(node.refuse(format!("mode {other}"))),
        };
        drafts.push(Draft::Split(Split {
            feature: usize::try_from(feature).map_err(|_| node.refuse(format!("feature {feature}")))?,
            test,
            yes: child(*yes.0, *yes.1)?,
            no: child(*no.0, *no.1)?,
            nan_yes: nan_yes.get(index) == Some(&1) || mode == 5,
            zero_is_nan: false,
        }));
    }
    drafts.append(&mut ends);
    Ok(count)
}
