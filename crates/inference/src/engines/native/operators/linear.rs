//! Linear models: a sum of weighted features per class or target.

use bytes::Bytes;

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::matrix::multiply;
use super::places::{Places, strides};
use super::post::Post;

/// Weights by feature, then by target, and what is added per target.
struct Weights {
    features: usize,
    targets: usize,
    by_feature: Vec<f32>,
    intercepts: Vec<f32>,
}

impl Weights {
    fn of(node: &Node, targets: usize) -> Result<Weights, Refused> {
        let coefficients = node.floats("coefficients");
        let intercepts = node.floats("intercepts");
        let features = coefficients.len().checked_div(targets).unwrap_or(0);
        if features == 0 || features * targets != coefficients.len() {
            return Err(node.refuse(format!("{} coefficients for {targets} targets", coefficients.len())));
        }
        if !intercepts.is_empty() && intercepts.len() != targets {
            return Err(node.refuse(format!("{} intercepts for {targets} targets", intercepts.len())));
        }
        let mut turned = strides(&[targets, features]);
        turned.reverse();
        let places = Places::new(&[features, targets], turned, 0);
        let by_feature = places.filter_map(|place| coefficients.get(place).copied()).collect();
        Ok(Weights { features, targets, by_feature, intercepts: intercepts.to_vec() })
    }

    /// Rows and their scores, one per target.
    fn scores(&self, array: &Array) -> Result<(usize, Vec<f32>), Fault> {
        let (rows, width) = array.rows()?;
        if width != self.features {
            return Err(Fault::input(format!("has {width} features where {} are asked for", self.features)));
        }
        room(&[rows, self.targets])?;
        let mut scores = multiply(&array.f32s()?, &self.by_feature, rows, self.features, self.targets);
        if !self.intercepts.is_empty() {
            scores.iter_mut().zip(self.intercepts.iter().cycle()).for_each(|(score, add)| *score += add);
        }
        Ok((rows, scores))
    }
}

pub(super) fn regressor(node: &Node) -> Result<Kernel, Refused> {
    let targets = usize::try_from(node.int("targets").unwrap_or(1)).unwrap_or(0);
    let (weights, post) = (Weights::of(node, targets)?, Post::of(node)?);
    Ok(Box::new(move |arguments| {
        let (rows, mut scores) = weights.scores(arguments.get(0)?)?;
        scores.chunks_exact_mut(targets.max(1)).for_each(|row| post.apply(row));
        Ok(vec![Array::new([rows, targets], Data::F32(scores))?])
    }))
}

/// Names of classes, as numbers or texts.
#[derive(Clone)]
pub(in super::super) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<Bytes>),
}

impl Labels {
    /// Out of the attribute `ints` or, before it, `classlabels_strings`.
    pub fn of(node: &Node, ints: &str) -> Labels {
        match node.texts("classlabels_strings") {
            [] => Labels::Ints(node.ints(ints).to_vec()),
            texts => Labels::Texts(texts.to_vec()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Labels::Ints(labels) => labels.len(),
            Labels::Texts(labels) => labels.len(),
        }
    }

    /// A vector of labels, one for each of the chosen classes.
    pub fn named(&self, classes: &[usize]) -> Result<Array, Fault> {
        let missing = || Fault::unsupported("a class without a label");
        let data = match self {
            Labels::Ints(labels) => {
                let named = classes.iter().map(|&class| labels.get(class).copied());
                Data::I64(named.collect::<Option<_>>().ok_or_else(missing)?)
            }
            Labels::Texts(labels) => {
                let named = classes.iter().map(|&class| labels.get(class).cloned());
                Data::Text(named.collect::<Option<_>>().ok_or_else(missing)?)
            }
        };
        Array::new([classes.len()], data)
    }
}

/// The first place of the greatest score.
pub(in super::super) fn greatest(scores: &[f32]) -> usize {
    let mut best: Option<(usize, f32)> = None;
    for (index, &score) in scores.iter().enumerate() {
        if best.is_none_or(|(_, best)| score > best) {
            best = Some((index, score));
        }
    }
    best.map_or(0, |(index, _)| index)
}

pub(super) fn classifier(node: &Node) -> Result<Kernel, Refused> {
    let labels = Labels::of(node, "classlabels_ints");
    let targets = match node.floats("intercepts").len() {
        0 => labels.len(),
        targets => targets,
    };
    let (weights, post) = (Weights::of(node, targets)?, Post::of(node)?);
    if targets == 1 && labels.len() == 2 {
        return Ok(Box::new(move |arguments| {
            let (rows, scores) = weights.scores(arguments.get(0)?)?;
            let classes: Vec<usize> = scores.iter().map(|&score| usize::from(score > 0.0)).collect();
            let both = scores.into_iter().flat_map(|score| two(post, score)).collect();
            Ok(vec![labels.named(&classes)?, Array::new([rows, 2], Data::F32(both))?])
        }));
    }
    if targets != labels.len() || targets < 2 {
        return Err(node.refuse(format!("{targets} scores for {} classes", labels.len())));
    }
    Ok(Box::new(move |arguments| {
        let (rows, mut scores) = weights.scores(arguments.get(0)?)?;
        let classes: Vec<usize> = scores.chunks_exact(targets).map(greatest).collect();
        scores.chunks_exact_mut(targets).for_each(|row| post.apply(row));
        Ok(vec![labels.named(&classes)?, Array::new([rows, targets], Data::F32(scores))?])
    }))
}

/// The scores of both classes where the model has one score.
fn two(post: Post, score: f32) -> [f32; 2] {
    let mut row = [score];
    match post {
        Post::Logistic => {
            post.apply(&mut row);
            let [score] = row;
            [1.0 - score, score]
        }
        _ => [1.0 - score, score],
    }
}
