//! XGBoost's own model files, in JSON and in UBJSON: two spellings of one document.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};

use super::Refused;
use super::boosted::{Boosted, Link, MAX_FEATURES, MAX_SCORES, Scorer};
use super::forest::{Builder, Draft, Set, Split, Test, Weights};
use super::ubjson::Document;

#[derive(Deserialize)]
struct File {
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    attributes: HashMap<String, String>,
    gradient_booster: Booster,
    learner_model_param: Parameters,
    objective: Objective,
}

#[derive(Deserialize)]
struct Parameters {
    base_score: String,
    #[serde(default)]
    num_class: String,
    num_feature: String,
    #[serde(default)]
    num_target: String,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

#[derive(Deserialize)]
struct Booster {
    name: String,
    model: Option<Model>,
    /// The trees of a `dart`, and the weight of each.
    gbtree: Option<Box<Booster>>,
    #[serde(default)]
    weight_drop: Vec<f32>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    trees: Vec<Tree>,
    #[serde(default)]
    tree_info: Vec<i64>,
    #[serde(default)]
    iteration_indptr: Vec<i64>,
    gbtree_model_param: Option<TreeParameters>,
    /// Of a linear model: by feature, then by score; the biases are last.
    #[serde(default)]
    weights: Vec<f32>,
}

#[derive(Deserialize)]
struct TreeParameters {
    #[serde(default)]
    num_parallel_tree: String,
}

#[derive(Deserialize)]
struct Tree {
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_indices: Vec<i64>,
    split_conditions: Vec<f32>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<Flag>,
    #[serde(default)]
    categories: Vec<i64>,
    #[serde(default)]
    categories_nodes: Vec<i64>,
    #[serde(default)]
    categories_segments: Vec<i64>,
    #[serde(default)]
    categories_sizes: Vec<i64>,
    tree_param: TreeShape,
}

#[derive(Deserialize)]
struct TreeShape {
    #[serde(default)]
    size_leaf_vector: String,
}

/// A truth that is a number in newer files.
#[derive(Clone, Copy)]
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Flag;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("0, 1, true or false")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Flag, E> {
                Ok(Flag(value != 0))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

pub(super) fn from_json(bytes: &[u8]) -> Result<Boosted, Refused> {
    let file: File = serde_json::from_slice(bytes).map_err(|error| no_model(&error))?;
    file.learner.load()
}

pub(super) fn from_ubj(bytes: &[u8]) -> Result<Boosted, Refused> {
    let file = File::deserialize(&mut Document::new(bytes)).map_err(|error| no_model(&error))?;
    file.learner.load()
}

fn no_model(error: &dyn std::error::Error) -> Refused {
    Refused::new(format!("it is no model of XGBoost: {error}"))
}

/// A number that the file writes as text; empty means zero.
fn number(text: &str, what: &str, most: usize) -> Result<usize, Refused> {
    let number = if text.is_empty() { Some(0) } else { text.parse().ok() };
    number
        .filter(|&number| number <= most)
        .ok_or_else(|| Refused::new(format!("{what} is `{}`", shortened(text))))
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

type ToMargin = fn(f64) -> f64;

/// What an objective does to its base score before the trees and to the sum after them.
fn objective(name: &str) -> Option<(ToMargin, Link)> {
    let same: ToMargin = |base| base;
    let logit: ToMargin = |base| -(1.0 / base - 1.0).ln();
    Some(match name {
        "binary:logistic" => (logit, Link::Binary(1.0)),
        "binary:logitraw" => (logit, Link::Identity),
        "binary:hinge" => (same, Link::Hinge),
        "multi:softprob" | "multi:softmax" => (same, Link::Softmax),
        "reg:logistic" => (logit, Link::Logistic(1.0)),
        "count:poisson" | "reg:gamma" | "reg:tweedie" => (f64::ln, Link::Exp),
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror"
        | "rank:ndcg"
        | "rank:map"
        | "rank:pairwise" => (same, Link::Identity),
        _ => return None,
    })
}

impl Learner {
    fn load(self) -> Result<Boosted, Refused> {
        let parameters = &self.learner_model_param;
        let features = number(&parameters.num_feature, "num_feature", MAX_FEATURES)?;
        let classes = number(&parameters.num_class, "num_class", MAX_SCORES)?;
        let targets = number(&parameters.num_target, "num_target", MAX_SCORES)?;
        let scores = classes.max(targets).max(1);
        let name = &self.objective.name;
        let (to_margin, link) = objective(name)
            .ok_or_else(|| Refused::new(format!("the objective `{}` is not done", shortened(name))))?;
        let bases: Vec<f64> = self.base_scores(scores)?.into_iter().map(to_margin).collect();
        if bases.iter().any(|base| !base.is_finite()) {
            return Err(Refused::new("base_score is out of the objective's range"));
        }
        let best =
            self.attributes.get("best_iteration").map(|best| number(best, "best_iteration", usize::MAX - 1));
        let mut booster = self.gradient_booster;
        let mut drops = Vec::new();
        if booster.name == "dart" {
            drops = booster.weight_drop;
            booster = *booster.gbtree.ok_or_else(|| Refused::new("a dart without trees"))?;
        }
        let model = booster.model.ok_or_else(|| Refused::new("the booster has no model"))?;
        match booster.name.as_str() {
            "gbtree" => {
                let scorer = model.forest(scores, best.transpose()?, &drops)?;
                Boosted::new(features, scorer, bases, 1.0, link)
            }
            "gblinear" => {
                let mut weights = model.weights;
                if weights.len() != (features + 1) * scores {
                    return Err(Refused::new(format!("{} weights for {features} features", weights.len())));
                }
                let biases = weights.split_off(features * scores);
                // Linear models of XGBoost start all scores from the first base score.
                let base = bases.first().copied().unwrap_or_default();
                let bases = biases.into_iter().map(|bias| base + f64::from(bias)).collect();
                Boosted::new(features, Scorer::Linear(weights), bases, 1.0, link)
            }
            other => Err(Refused::new(format!("the booster `{}` is not done", shortened(other)))),
        }
    }

    /// One base score per score: one number, or since version 3.1 a list in brackets.
    fn base_scores(&self, scores: usize) -> Result<Vec<f64>, Refused> {
        let text = &self.learner_model_param.base_score;
        let list = text.trim_start_matches('[').trim_end_matches(']').split(',');
        let bases: Result<Vec<f32>, _> = list.map(|number| number.trim().parse()).collect();
        let bases = bases.map_err(|_| Refused::new(format!("base_score is `{}`", shortened(text))))?;
        match bases.as_slice() {
            [one] => Ok(vec![f64::from(*one); scores]),
            many if many.len() == scores => Ok(many.iter().map(|&base| base.into()).collect()),
            many => Err(Refused::new(format!("{} base scores for {scores} scores", many.len()))),
        }
    }
}

impl Model {
    fn forest(&self, scores: usize, best: Option<usize>, drops: &[f32]) -> Result<Scorer, Refused> {
        let count = best.map_or(Ok(self.trees.len()), |best| self.trees_until(best, scores))?;
        if self.tree_info.len() != self.trees.len() || !(drops.is_empty() || drops.len() == self.trees.len())
        {
            return Err(Refused::new("it says something about more or fewer trees than it has"));
        }
        let (mut builder, mut weights) = (Builder::new(), Weights::default());
        for (index, (tree, &score)) in self.trees.iter().zip(&self.tree_info).take(count).enumerate() {
            let score = u32::try_from(score).ok().filter(|&score| (score as usize) < scores);
            let score = score
                .ok_or_else(|| Refused::new(format!("tree {index} is for a class that is not there")))?;
            let weight = drops.get(index).copied().unwrap_or(1.0);
            let drafts = tree.drafts(index, |value| weights.push([(score, value * weight)]))?;
            builder.trees(&drafts, &[0])?;
        }
        Ok(Scorer::Single(builder.finish(), weights.settle(scores)))
    }

    /// How many trees were there after the best iteration.
    fn trees_until(&self, best: usize, scores: usize) -> Result<usize, Refused> {
        if let Some(&end) = self.iteration_indptr.get(best + 1) {
            return usize::try_from(end).map_err(|_| Refused::new("iteration_indptr is negative"));
        }
        let parallel =
            self.gbtree_model_param.as_ref().map_or("", |parameters| &parameters.num_parallel_tree);
        let parallel = number(parallel, "num_parallel_tree", usize::MAX)?.max(1);
        Ok((best + 1).saturating_mul(parallel).saturating_mul(scores))
    }
}

impl Tree {
    fn drafts(&self, tree: usize, mut leaf: impl FnMut(f32) -> u32) -> Result<Vec<Draft<f32>>, Refused> {
        let broken = |what: &str| Refused::new(format!("tree {tree} is broken: {what}"));
        if !matches!(self.tree_param.size_leaf_vector.as_str(), "" | "0" | "1") {
            return Err(Refused::new("its leaves are vectors, which is not done"));
        }
        let count = self.left_children.len();
        let lengths = [
            self.right_children.len(),
            self.split_indices.len(),
            self.split_conditions.len(),
            self.default_left.len(),
        ];
        if lengths.iter().any(|&length| length != count)
            || !(self.split_type.is_empty() || self.split_type.len() == count)
        {
            return Err(broken("its lists have different lengths"));
        }
        let sets = self.sets().ok_or_else(|| broken("its categories are out of range"))?;
        let mut drafts = Vec::with_capacity(count);
        let children = self.left_children.iter().zip(&self.right_children);
        let splits = self.split_indices.iter().zip(&self.split_conditions).zip(&self.default_left);
        for (index, ((&left, &right), ((&feature, &condition), &Flag(default_left)))) in
            children.zip(splits).enumerate()
        {
            if left == -1 {
                drafts.push(Draft::Leaf(leaf(condition)));
                continue;
            }
            let child = |number: i64| usize::try_from(number).map_err(|_| broken("a child is not there"));
            let categorical = self.split_type.get(index).is_some_and(|flag| flag.0);
            let test = if categorical {
                // The categories of a set go right.
                Test::NotIn(sets.get(&index).map(Arc::clone).unwrap_or_default())
            } else {
                Test::Less(condition)
            };
            drafts.push(Draft::Split(Split {
                feature: usize::try_from(feature).map_err(|_| broken("a feature is negative"))?,
                test,
                yes: child(left)?,
                no: child(right)?,
                nan_yes: default_left,
                zero_is_nan: false,
            }));
        }
        Ok(drafts)
    }

    /// The categories of each node that has some; no two nodes share theirs.
    fn sets(&self) -> Option<HashMap<usize, Arc<Set>>> {
        let (mut sets, mut left) = (HashMap::new(), self.categories.len());
        let segments = self.categories_segments.iter().zip(&self.categories_sizes);
        for (&node, (&start, &size)) in self.categories_nodes.iter().zip(segments) {
            let (start, size) = (usize::try_from(start).ok()?, usize::try_from(size).ok()?);
            left = left.checked_sub(size)?;
            let set = Set::of_categories(self.categories.get(start..start.checked_add(size)?)?)?;
            sets.insert(usize::try_from(node).ok()?, Arc::new(set));
        }
        Some(sets)
    }
}
