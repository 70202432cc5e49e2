//! The answers of two versions to one request, compared by whoever is done last.

use std::sync::{Arc, Mutex, PoisonError};

use super::Served;
use crate::{Datatype, Tensor};

/// Relative difference of floating-point outputs that counts as agreement.
const TOLERANCE: f64 = 1e-3;

/// One side of a comparison.
#[derive(Clone)]
pub(crate) struct Comparison {
    shadow: Arc<Served>,
    first: Arc<Mutex<Option<Vec<Tensor>>>>,
}

impl Comparison {
    /// To be cloned: one for each side.
    pub fn with(shadow: Arc<Served>) -> Comparison {
        Comparison { shadow, first: Arc::default() }
    }

    /// Takes one side's outputs; the second call compares and counts.
    pub fn offer(&self, outputs: &[Tensor]) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(other) = first.take() else {
            *first = Some(outputs.to_vec());
            return;
        };
        drop(first);
        let agreed = other.len() == outputs.len() && other.iter().zip(outputs).all(|(a, b)| agree(a, b));
        self.shadow.stats.compared(agreed);
        if !agreed {
            let Served { name, version, .. } = self.shadow.as_ref();
            tracing::debug!(model = name, version, "the shadow's answer differs");
        }
    }
}

fn agree(a: &Tensor, b: &Tensor) -> bool {
    if a.datatype() != b.datatype() || a.shape() != b.shape() {
        return false;
    }
    match (a.datatype(), a.elements::<f32>(), b.elements::<f32>()) {
        (Datatype::Fp32, Ok(a), Ok(b)) => {
            a.iter().zip(b.iter()).all(|(&a, &b)| close(f64::from(a), f64::from(b)))
        }
        _ => match (a.elements::<f64>(), b.elements::<f64>()) {
            (Ok(a), Ok(b)) => a.iter().zip(b.iter()).all(|(&a, &b)| close(a, b)),
            _ => a.data() == b.data(),
        },
    }
}

#[expect(clippy::float_cmp, reason = "equal infinities are close, whatever their difference")]
fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(TOLERANCE)
}
