//! Support vector machines, as libsvm computes them.

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::linear::{Labels, greatest};
use super::post::{Post, logistic};

/// How alike two vectors are.
#[derive(Clone, Copy)]
enum Likeness {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Likeness {
    fn of(node: &Node) -> Result<Likeness, Refused> {
        let (gamma, coef0, degree) = match node.floats("kernel_params") {
            [gamma, coef0, degree, ..] => (*gamma, *coef0, *degree),
            _ => (0.0, 0.0, 0.0),
        };
        Ok(match node.text("kernel_type") {
            None | Some(b"LINEAR") => Likeness::Linear,
            Some(b"POLY") => Likeness::Poly { gamma, coef0, degree },
            Some(b"RBF") => Likeness::Rbf { gamma },
            Some(b"SIGMOID") => Likeness::Sigmoid { gamma, coef0 },
            Some(other) => {
                return Err(node.refuse(format!("kernel_type {:?}", String::from_utf8_lossy(other))));
            }
        })
    }

    fn between(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Likeness::Linear => dot(a, b),
            Likeness::Poly { gamma, coef0, degree } => (gamma * dot(a, b) + coef0).powf(degree),
            Likeness::Rbf { gamma } => {
                let distance: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                (-gamma * distance).exp()
            }
            Likeness::Sigmoid { gamma, coef0 } => (gamma * dot(a, b) + coef0).tanh(),
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The rows of a table of the width that a model was trained with.
fn rows(array: &Array, features: usize) -> Result<usize, Fault> {
    let (rows, width) = array.rows()?;
    if width == features {
        return Ok(rows);
    }
    Err(Fault::input(format!("has {width} features where {features} are asked for")))
}

pub(super) fn regressor(node: &Node) -> Result<Kernel, Refused> {
    let supports = usize::try_from(node.int("n_supports").unwrap_or(0)).unwrap_or(0);
    let (coefficients, vectors) =
        (node.floats("coefficients").to_vec(), node.floats("support_vectors").to_vec());
    let rho = node.floats("rho").first().copied().unwrap_or(0.0);
    let one_class = node.int("one_class").unwrap_or(0) != 0;
    let (likeness, post) =
        (if supports > 0 { Likeness::of(node)? } else { Likeness::Linear }, Post::of(node)?);
    let features = vectors.len().checked_div(supports).unwrap_or(coefficients.len());
    if features == 0
        || (supports > 0 && (coefficients.len() != supports || vectors.len() != supports * features))
    {
        return Err(node.refuse("support vectors and coefficients that don't fit"));
    }
    Ok(Box::new(move |arguments| {
        let array = arguments.get(0)?;
        let count = rows(array, features)?;
        let score = |row: &[f32]| {
            let sum: f32 = if supports == 0 {
                dot(row, &coefficients)
            } else {
                let weighted = vectors.chunks_exact(features).zip(&coefficients);
                weighted.map(|(vector, weight)| weight * likeness.between(row, vector)).sum()
            };
            let score = sum + rho;
            let mut score = [if one_class { if score > 0.0 { 1.0 } else { -1.0 } } else { score }];
            post.apply(&mut score);
            score
        };
        let scores = array.f32s()?.chunks_exact(features).flat_map(score).collect();
        Ok(vec![Array::new([count, 1], Data::F32(scores))?])
    }))
}

struct Classifier {
    labels: Labels,
    likeness: Likeness,
    post: Post,
    features: usize,
    /// Support vectors one after the other; none where the model is linear.
    vectors: Vec<f32>,
    /// The support vectors of each class: the first and how many.
    of_class: Vec<(usize, usize)>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Of the sigmoid that makes scores probabilities, per pair of classes.
    sigmoids: Vec<(f32, f32)>,
}

pub(super) fn classifier(node: &Node) -> Result<Kernel, Refused> {
    let labels = Labels::of(node, "classlabels_ints");
    let classes = labels.len();
    let mut of_class = Vec::new();
    let mut supports = 0_usize;
    for &count in node.ints("vectors_per_class") {
        let count =
            usize::try_from(count).ok().filter(|&count| count <= node.floats("support_vectors").len());
        let count = count.ok_or_else(|| node.refuse("a number of support vectors that can't be"))?;
        of_class.push((supports, count));
        supports = supports.saturating_add(count);
    }
    let (coefficients, vectors) =
        (node.floats("coefficients").to_vec(), node.floats("support_vectors").to_vec());
    let rho = node.floats("rho").to_vec();
    let sigmoids: Vec<_> =
        node.floats("prob_a").iter().copied().zip(node.floats("prob_b").iter().copied()).collect();
    let pairs = classes * classes.saturating_sub(1) / 2;
    let fits = if supports > 0 {
        let known = of_class.len() == classes && rho.len() == pairs && vectors.len().is_multiple_of(supports);
        known
            && coefficients.len() == supports.saturating_mul(classes - 1)
            && (sigmoids.is_empty() || sigmoids.len() == pairs)
    } else {
        !rho.is_empty() && sigmoids.is_empty() && coefficients.len().is_multiple_of(classes.max(1))
    };
    let features = vectors.len().checked_div(supports).unwrap_or(coefficients.len() / classes.max(1));
    if classes < 2 || features == 0 || !fits {
        return Err(node.refuse("support vectors, coefficients and classes that don't fit"));
    }
    let likeness = if supports > 0 { Likeness::of(node)? } else { Likeness::Linear };
    let post = Post::of(node)?;
    let vectors = if supports > 0 { vectors } else { Vec::new() };
    let model =
        Classifier { labels, likeness, post, features, vectors, of_class, coefficients, rho, sigmoids };
    Ok(Box::new(move |arguments| model.run(arguments.get(0)?)))
}

impl Classifier {
    fn run(&self, array: &Array) -> Result<Vec<Array>, Fault> {
        let count = rows(array, self.features)?;
        let classes = self.labels.len();
        let (mut chosen, mut all) = (Vec::with_capacity(count), Vec::new());
        let mut width = 0;
        for row in array.f32s()?.chunks_exact(self.features) {
            let (class, mut scores) = if self.vectors.is_empty() {
                self.linear(row)
            } else {
                let (votes, scores) = self.duels(row);
                let scores = if self.sigmoids.is_empty() { scores } else { self.probabilities(&scores) };
                (greatest(&votes), scores)
            };
            if let ([score], true) = (scores.as_slice(), classes == 2) {
                scores = match self.post {
                    Post::Logistic => vec![logistic(-score), logistic(*score)],
                    _ => vec![-score, *score],
                };
            }
            self.post_unless_doubled(&mut scores, classes);
            width = scores.len();
            if all.is_empty() {
                all.reserve(room(&[count, width])?);
            }
            chosen.push(class);
            all.append(&mut scores);
        }
        Ok(vec![self.labels.named(&chosen)?, Array::new([count, width], Data::F32(all))?])
    }

    /// Two scores made of one have had their post-transform.
    fn post_unless_doubled(&self, scores: &mut [f32], classes: usize) {
        let doubled = classes == 2 && !self.vectors.is_empty() && self.sigmoids.is_empty();
        if !(doubled && self.post == Post::Logistic) {
            self.post.apply(scores);
        }
    }

    fn linear(&self, row: &[f32]) -> (usize, Vec<f32>) {
        let rho = self.rho.first().copied().unwrap_or(0.0);
        let scores: Vec<f32> =
            self.coefficients.chunks_exact(self.features).map(|weights| rho + dot(row, weights)).collect();
        (greatest(&scores), scores)
    }

    /// Each pair of classes fights for the row; gives the victories per class and the score of each fight.
    fn duels(&self, row: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let alike: Vec<f32> = self
            .vectors
            .chunks_exact(self.features)
            .map(|vector| self.likeness.between(row, vector))
            .collect();
        let part = |class: usize, (start, count): (usize, usize)| -> f64 {
            let weights = self.coefficients.iter().skip(class * alike.len() + start).take(count);
            let alike = alike.iter().skip(start).take(count);
            weights.zip(alike).map(|(&weight, &alike)| f64::from(weight) * f64::from(alike)).sum()
        };
        let mut votes = vec![0.0; self.of_class.len()];
        let mut scores = Vec::with_capacity(self.rho.len());
        let mut rho = self.rho.iter();
        for (i, &vectors_i) in self.of_class.iter().enumerate() {
            for (j, &vectors_j) in self.of_class.iter().enumerate().skip(i + 1) {
                let sum = part(j - 1, vectors_i) + part(i, vectors_j);
                let score = (f64::from(rho.next().copied().unwrap_or(0.0)) + sum) as f32;
                scores.push(score);
                if let Some(votes) = votes.get_mut(if score > 0.0 { i } else { j }) {
                    *votes += 1.0;
                }
            }
        }
        (votes, scores)
    }

    /// Probabilities of classes out of those of pairs: the second method of Wu, Lin and Weng (2004).
    fn probabilities(&self, scores: &[f32]) -> Vec<f32> {
        let classes = self.labels.len();
        let mut pair = vec![vec![0.0_f32; classes]; classes];
        let mut known = scores.iter().zip(&self.sigmoids);
        for i in 0..classes {
            for j in i + 1..classes {
                let Some((score, (a, b))) = known.next() else { continue };
                let wins = (1.0 - logistic(score * a + b)).clamp(1e-7, 1.0 - 1e-7);
                set(&mut pair, i, j, wins);
                set(&mut pair, j, i, 1.0 - wins);
            }
        }
        couple(&pair)
    }
}

fn set(table: &mut [Vec<f32>], row: usize, column: usize, value: f32) {
    if let Some(place) = table.get_mut(row).and_then(|row| row.get_mut(column)) {
        *place = value;
    }
}

fn get(table: &[Vec<f32>], row: usize, column: usize) -> f32 {
    table.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0.0)
}

fn couple(pair: &[Vec<f32>]) -> Vec<f32> {
    let classes = pair.len();
    let enough = 0.005 / classes as f32;
    let mut q = vec![vec![0.0_f32; classes]; classes];
    for t in 0..classes {
        let others = || (0..classes).filter(move |&j| j != t);
        set(&mut q, t, t, others().map(|j| get(pair, j, t) * get(pair, j, t)).sum());
        others().for_each(|j| set(&mut q, t, j, -get(pair, j, t) * get(pair, t, j)));
    }
    let mut p = vec![1.0 / classes as f32; classes];
    for _ in 0..classes.max(100) {
        let mut qp: Vec<f32> = q.iter().map(|row| dot(row, &p)).collect();
        let mut pqp = dot(&p, &qp);
        let error = qp.iter().map(|x| (x - pqp).abs()).fold(0.0, f32::max);
        if error < enough {
            break;
        }
        for t in 0..classes {
            let own = get(&q, t, t);
            let change = (pqp - qp.get(t).copied().unwrap_or(0.0)) / own;
            if let Some(p) = p.get_mut(t) {
                *p += change;
            }
            let at_t = qp.get(t).copied().unwrap_or(0.0);
            pqp = (pqp + change * (change * own + 2.0 * at_t)) / (1.0 + change) / (1.0 + change);
            let row = q.get(t).map(Vec::as_slice).unwrap_or_default();
            qp.iter_mut().zip(row).for_each(|(qp, q)| *qp = (*qp + change * q) / (1.0 + change));
            p.iter_mut().for_each(|p| *p /= 1.0 + change);
        }
    }
    p
}
