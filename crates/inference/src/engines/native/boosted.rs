//! What models of XGBoost and LightGBM have in common: one table of features in, scores through a link out.
//!
//! The input is `input`, FP32 `[rows, features]`, where NaN stands for a missing value. The outputs are, by what the
//! model was trained for:
//! - classes: `label`, INT64 `[rows]`, the number of the class, and `probabilities`, FP32 `[rows, classes]`;
//! - anything else: `prediction`, FP32 `[rows, targets]`.

use super::forest::{Forest, Number, Weights, add_up};
use super::{Fault, Refused};
use crate::{Datatype, EngineError, LoadedModel, Signature, Tensor, TensorSpec};

const INPUT: &str = "input";
const LABEL: &str = "label";
const PROBABILITIES: &str = "probabilities";
const PREDICTION: &str = "prediction";

/// Most features and most scores per row.
pub(super) const MAX_FEATURES: usize = 1 << 22;
pub(super) const MAX_SCORES: usize = 1 << 16;
/// Most scores that one run makes.
const MAX_RESULTS: usize = 128 << 20;

/// From the sum of what all trees say to what the model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Identity,
    Exp,
    /// The square with the sum's sign.
    SignedSquare,
    /// The logarithm of one more than e to the sum.
    Softplus,
    /// A share, with this factor on the sum.
    Logistic(f64),
    /// 0 or 1.
    Hinge,
    /// Two classes, with this factor on the sum.
    Binary(f64),
    /// Classes whose scores compete.
    Softmax,
    /// Classes that each have their own share.
    Each(f64),
}

impl Link {
    fn classifies(self) -> bool {
        matches!(self, Link::Binary(_) | Link::Softmax | Link::Each(_))
    }
}

/// How a row becomes sums.
pub(super) enum Scorer {
    /// Trees of f32 with f32 sums.
    Single(Forest<f32>, Weights<f32>),
    /// Trees of f64 with f64 sums.
    Double(Forest<f64>, Weights<f64>),
    /// A weight per feature, then per score.
    Linear(Vec<f32>),
}

/// A loaded model.
pub(super) struct Boosted {
    signature: Signature,
    features: usize,
    scorer: Scorer,
    /// What each score starts from; as many as scores.
    bases: Vec<f64>,
    /// What the sums are divided by.
    divisor: f64,
    link: Link,
}

impl Boosted {
    /// # Errors
    /// When the model has no or too many features or scores, or trees that ask for more features.
    pub fn new(
        features: usize,
        scorer: Scorer,
        bases: Vec<f64>,
        divisor: f64,
        link: Link,
    ) -> Result<Boosted, Refused> {
        let scores = bases.len();
        if !(1..=MAX_FEATURES).contains(&features) || !(1..=MAX_SCORES).contains(&scores) {
            return Err(Refused::new(format!("{features} features and {scores} scores per row")));
        }
        let asked = match &scorer {
            Scorer::Single(forest, _) => forest.features(),
            Scorer::Double(forest, _) => forest.features(),
            Scorer::Linear(weights) if weights.len() == features * scores => features,
            Scorer::Linear(weights) => {
                return Err(Refused::new(format!("{} weights for {features} features", weights.len())));
            }
        };
        if asked > features {
            return Err(Refused::new(format!(
                "its trees ask for feature {}, and it has {features}",
                asked - 1
            )));
        }
        if matches!(link, Link::Binary(_)) && scores != 1
            || matches!(link, Link::Softmax | Link::Each(_)) && scores < 2
        {
            return Err(Refused::new(format!("{scores} scores per row for its objective")));
        }
        let spec = |name: &str, datatype, shape: &[usize]| {
            let sizes = shape.iter().map(|&size| i64::try_from(size).unwrap_or(-1));
            TensorSpec { name: name.into(), datatype, shape: Some([-1].into_iter().chain(sizes).collect()) }
        };
        let classes = if scores == 1 { 2 } else { scores };
        let outputs = if link.classifies() {
            vec![spec(LABEL, Datatype::Int64, &[]), spec(PROBABILITIES, Datatype::Fp32, &[classes])]
        } else {
            vec![spec(PREDICTION, Datatype::Fp32, &[scores])]
        };
        let signature = Signature { inputs: vec![spec(INPUT, Datatype::Fp32, &[features])], outputs };
        Ok(Boosted { signature, features, scorer, bases, divisor, link })
    }

    /// The sums of all rows, as many per row as there are scores.
    fn sums(&self, rows: &[f32], count: usize) -> Result<Vec<f64>, Fault> {
        let scores = self.bases.len();
        if count.saturating_mul(scores) > MAX_RESULTS {
            return Err(Fault::input(format!("asks for more than {MAX_RESULTS} scores; send fewer rows")));
        }
        let mut sums: Vec<f64> = match &self.scorer {
            Scorer::Single(forest, weights) => {
                let mut sums = self.started::<f32>(count);
                add_up(forest, weights, rows, self.features, scores, &mut sums);
                sums.into_iter().map(f64::from).collect()
            }
            Scorer::Double(forest, weights) => {
                let rows: Vec<f64> = rows.iter().map(|&x| x.into()).collect();
                let mut sums = self.started::<f64>(count);
                add_up(forest, weights, &rows, self.features, scores, &mut sums);
                sums
            }
            Scorer::Linear(weights) => {
                let mut sums = self.started::<f32>(count);
                for (sums, row) in sums.chunks_exact_mut(scores).zip(rows.chunks_exact(self.features)) {
                    for (&x, weights) in row.iter().zip(weights.chunks_exact(scores)) {
                        // A missing value adds nothing.
                        let x = if x.is_nan() { 0.0 } else { x };
                        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
                    }
                }
                sums.into_iter().map(f64::from).collect()
            }
        };
        if self.divisor != 1.0 {
            sums.iter_mut().for_each(|sum| *sum /= self.divisor);
        }
        Ok(sums)
    }

    fn started<T: Number>(&self, count: usize) -> Vec<T> {
        let bases: Vec<T> = self.bases.iter().map(|&base| T::nearest(base)).collect();
        bases.repeat(count)
    }

    /// What the sums say, as many numbers per row as the second output, or the only one, has columns.
    fn linked(&self, sums: Vec<f64>) -> Vec<f32> {
        let logistic = |sum: f64, factor: f64| 1.0 / (1.0 + (-factor * sum).exp());
        let each = |link: &dyn Fn(f64) -> f64| sums.iter().map(|&sum| link(sum) as f32).collect();
        match self.link {
            Link::Identity => each(&|sum| sum),
            Link::Exp => each(&f64::exp),
            Link::SignedSquare => each(&|sum| sum * sum.abs()),
            Link::Softplus => each(&|sum| sum.exp().ln_1p()),
            Link::Hinge => each(&|sum| if sum > 0.0 { 1.0 } else { 0.0 }),
            Link::Logistic(factor) | Link::Each(factor) => each(&|sum| logistic(sum, factor)),
            Link::Binary(factor) => {
                let both = |&sum: &f64| {
                    let second = logistic(sum, factor) as f32;
                    [1.0 - second, second]
                };
                sums.iter().flat_map(both).collect()
            }
            Link::Softmax => {
                let mut sums = sums;
                for row in sums.chunks_exact_mut(self.bases.len()) {
                    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    row.iter_mut().for_each(|sum| *sum = (*sum - greatest).exp());
                    let total: f64 = row.iter().sum();
                    row.iter_mut().for_each(|share| *share /= total);
                }
                sums.into_iter().map(|share| share as f32).collect()
            }
        }
    }
}

impl LoadedModel for Boosted {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let input = inputs.iter().find(|tensor| tensor.name() == INPUT);
        let input = input.ok_or_else(|| EngineError::Failed(format!("input `{INPUT}` is missing")))?;
        let rows = input.elements::<f32>().map_err(|error| EngineError::Input(error.into()))?;
        let count = rows.len() / self.features;
        if input.shape() != [count, self.features] {
            return Err(
                Fault::input(format!("has a shape other than [-1, {}]", self.features)).into_error(INPUT)
            );
        }
        let given = self.linked(self.sums(&rows, count).map_err(|fault| fault.into_error(INPUT))?);
        let width = if matches!(self.link, Link::Binary(_)) { 2 } else { self.bases.len() };
        let tensor = |&name: &&str| {
            let made = if name == LABEL && self.link.classifies() {
                let labels =
                    given.chunks_exact(width).map(|row| super::operators::greatest(row) as i64).collect();
                Tensor::from_vec::<i64>(name, [count], labels)
            } else {
                Tensor::from_vec(name, [count, width], given.clone())
            };
            made.map_err(EngineError::failed)
        };
        outputs.iter().map(tensor).collect()
    }
}
