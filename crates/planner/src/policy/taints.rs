//! Which taints keep a placement away, and until when.

use jiff::{SignedDuration, Timestamp};
use types::{Taint, TaintEffect, Toleration};

/// Whether something is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// It is not.
    Never,
    /// It is, as long as it lasts.
    Always,
    /// It is, but no longer than until then.
    Until(Timestamp),
}

impl Tolerance {
    /// Of two, the one that ends first.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Always, other) | (other, Self::Always) => other,
            (Self::Until(one), Self::Until(other)) => Self::Until(one.min(other)),
        }
    }
}

/// Whether all taints of a site are tolerated.
pub fn tolerance(
    taints: &[Taint],
    tolerations: &[Toleration],
    is_current: bool,
    now: Timestamp,
) -> Tolerance {
    taints.iter().fold(Tolerance::Always, |so_far, taint| match so_far {
        Tolerance::Never => Tolerance::Never,
        _ => so_far.and(tolerance_of(taint, tolerations, is_current, now)),
    })
}

/// Whether a taint is tolerated: by its effect, or by the first toleration that matches and still lasts.
pub fn tolerance_of(
    taint: &Taint,
    tolerations: &[Toleration],
    is_current: bool,
    now: Timestamp,
) -> Tolerance {
    match taint.effect {
        TaintEffect::PreferNoSelect => return Tolerance::Always,
        TaintEffect::NoSelectIfNew if is_current => return Tolerance::Always,
        _ => {}
    }
    let matching = tolerations.iter().filter(|toleration| toleration.tolerates(taint));
    matching
        .map(|toleration| lasts(taint, toleration, now))
        .find(|tolerance| *tolerance != Tolerance::Never)
        .unwrap_or(Tolerance::Never)
}

fn lasts(taint: &Taint, toleration: &Toleration, now: Timestamp) -> Tolerance {
    let Some(seconds) = toleration.toleration_seconds else { return Tolerance::Always };
    // A taint without a time came just now.
    let added = taint.time_added.map_or(now, |added| added.0);
    match added.checked_add(SignedDuration::from_secs(seconds)) {
        Ok(until) if now < until => Tolerance::Until(until),
        Ok(_) => Tolerance::Never,
        Err(_) if seconds > 0 => Tolerance::Always,
        Err(_) => Tolerance::Never,
    }
}

/// Whether a taint makes a site come after those without.
pub fn is_avoided(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    taints.iter().any(|taint| {
        taint.effect == TaintEffect::PreferNoSelect
            && !tolerations.iter().any(|toleration| toleration.tolerates(taint))
    })
}
