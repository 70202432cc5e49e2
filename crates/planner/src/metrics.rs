//! Measurements as shares from 0 to 1, and their weighted mean.

/// Why a measurement doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// It is less than the least or more than the most, or no number.
    #[error("is {value}, which is not from {least} to {most}")]
    OutOfRange {
        /// The value.
        value: f64,
        /// The least that it may be.
        least: f64,
        /// The most that it may be.
        most: f64,
    },
    /// It is none of those that there are.
    #[error("is {value}, which is none of the allowed values")]
    NotAllowed {
        /// The value.
        value: f64,
    },
}

/// A value as a share of the way from the least to the most.
///
/// # Errors
/// If the value is none that there may be.
pub fn normalize(value: f64, least: f64, most: f64, allowed: &[f64]) -> Result<f64, MetricError> {
    if !allowed.is_empty() && !allowed.contains(&value) {
        return Err(MetricError::NotAllowed { value });
    }
    if !(value >= least && value <= most) || most <= least {
        return Err(MetricError::OutOfRange { value, least, most });
    }
    Ok((value - least) / (most - least))
}

/// The weighted mean of shares, drawn towards 1 by the stickiness of a site that is used already. `None` where nothing
/// has a weight.
pub fn weighted(shares: impl IntoIterator<Item = (f64, f64)>, stickiness: f64) -> Option<f64> {
    let (sum, weights) = shares
        .into_iter()
        .fold((0.0, 0.0), |(sum, weights), (share, weight)| (sum + share * weight, weights + weight));
    let weights = weights + stickiness;
    (weights != 0.0).then(|| (sum + stickiness) / weights)
}

/// The scores of candidates for one place, by their metrics: `None` for those that others with metrics beat. `shares`
/// are values and weights, `stickiness` is 0 but for the site that is used already.
pub fn rank(candidates: &[(Vec<(f64, f64)>, f64)]) -> Vec<Option<f64>> {
    let has_metrics = |(shares, _): &(Vec<_>, f64)| !shares.is_empty();
    let measured = candidates.iter().any(has_metrics);
    candidates
        .iter()
        .map(|candidate| match candidate {
            (shares, stickiness) if !shares.is_empty() => weighted(shares.iter().copied(), *stickiness),
            (_, stickiness) => (!measured).then_some(*stickiness),
        })
        .collect()
}
