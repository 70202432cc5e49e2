//! What is done to a row of scores at the end of a classical model, in f32 as ONNX Runtime does it.

use super::super::Refused;
use super::super::onnx::Node;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Post {
    None,
    Logistic,
    Softmax,
    /// Softmax that leaves zeros out.
    SoftmaxZero,
    Probit,
}

impl Post {
    pub fn of(node: &Node) -> Result<Post, Refused> {
        Ok(match node.text("post_transform") {
            None | Some(b"NONE") => Post::None,
            Some(b"LOGISTIC") => Post::Logistic,
            Some(b"SOFTMAX") => Post::Softmax,
            Some(b"SOFTMAX_ZERO") => Post::SoftmaxZero,
            Some(b"PROBIT") => Post::Probit,
            Some(other) => {
                return Err(node.refuse(format!("post_transform {:?}", String::from_utf8_lossy(other))));
            }
        })
    }

    /// The post-transform with this number, as `TreeEnsemble` writes it.
    pub fn numbered(node: &Node) -> Result<Post, Refused> {
        Ok(match node.int("post_transform").unwrap_or(0) {
            0 => Post::None,
            1 => Post::Softmax,
            2 => Post::Logistic,
            3 => Post::SoftmaxZero,
            4 => Post::Probit,
            other => return Err(node.refuse(format!("post_transform {other}"))),
        })
    }

    /// Changes one row of scores in place.
    pub fn apply(self, row: &mut [f32]) {
        match self {
            Post::None => {}
            Post::Logistic => row.iter_mut().for_each(|score| *score = logistic(*score)),
            Post::Probit => row.iter_mut().for_each(|score| *score = probit(*score)),
            Post::Softmax => softmax(row),
            Post::SoftmaxZero => softmax_zero(row),
        }
    }
}

pub(in super::super) fn logistic(x: f32) -> f32 {
    let of_distance = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - of_distance } else { of_distance }
}

pub(in super::super) fn softmax(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in row.iter_mut() {
        *score = (*score - greatest).exp();
        sum += *score;
    }
    row.iter_mut().for_each(|score| *score /= sum);
}

fn softmax_zero(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = (-greatest).exp();
    let mut sum = 0.0;
    for score in row.iter_mut() {
        *score = if score.abs() > 1e-7 { (*score - greatest).exp() } else { *score * scale };
        sum += *score;
    }
    row.iter_mut().for_each(|score| *score = if sum == 0.0 { 0.5 } else { *score / sum });
}

fn probit(x: f32) -> f32 {
    std::f32::consts::SQRT_2 * inverse_error_function(2.0 * x - 1.0)
}

/// Winitzki's approximation, which is what ONNX engines use.
fn inverse_error_function(x: f32) -> f32 {
    const A: f32 = 0.147;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let root = (half * half - log / A).sqrt() - half;
    root.sqrt().copysign(x)
}
