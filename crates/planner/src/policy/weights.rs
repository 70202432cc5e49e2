//! Which scores count how much.

use types::{PlacementSpec, Prioritizer, PrioritizerMode, ScoreCoordinate, ScoreType};

use super::Misconfigured;
use crate::fleet::Fleet;

/// Where a score comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TermKind {
    /// The fewer other placements chose a site.
    Balance,
    /// Was selected before.
    Steady,
    /// The more of a resource there is, by column.
    Resource(usize),
    /// The fuller a site is already, so that others stay empty.
    Packing,
    /// The shorter the way.
    Latency,
    /// The wider the way.
    Bandwidth,
    /// The cheaper.
    Cost,
    /// The less it draws.
    Energy,
    /// What is measured.
    Metrics,
    /// What others told, by column.
    AddOn(usize),
}

impl TermKind {
    /// Whether the score depends on the least and the greatest value among the sites that match.
    pub fn is_relative(self) -> bool {
        matches!(self, Self::Resource(_) | Self::Cost | Self::Energy)
    }
}

/// One score and how much it counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Term {
    pub name: String,
    pub kind: TermKind,
    pub weight: i64,
}

fn built_in(name: &str) -> ScoreCoordinate {
    ScoreCoordinate { kind: ScoreType::BuiltIn, built_in: name.to_owned(), add_on: None }
}

fn defaults(spec: &PlacementSpec) -> Vec<(ScoreCoordinate, i32)> {
    let mut weights = vec![(built_in("Balance"), 1), (built_in("Steady"), 1)];
    if let Some(near) = &spec.near {
        weights.push((built_in("Latency"), 3));
        if near.min_megabits_per_second.is_some() {
            weights.push((built_in("Bandwidth"), 1));
        }
    }
    if !spec.metrics.is_empty() {
        weights.push((built_in("Metrics"), 3));
    }
    weights
}

/// The scores that count, those without weight left out.
pub(super) fn terms(spec: &PlacementSpec, fleet: &mut Fleet) -> Result<Vec<Term>, Misconfigured> {
    let policy = &spec.prioritizer_policy;
    let mut weights = match policy.mode {
        PrioritizerMode::Additive => defaults(spec),
        PrioritizerMode::Exact => vec![],
    };
    for Prioritizer { score_coordinate, weight } in &policy.configurations {
        // Of a builtin score the last weight counts; what add-ons tell counts each time that it is named.
        let is_same = |known: &ScoreCoordinate| known == score_coordinate && known.add_on.is_none();
        match weights.iter_mut().find(|(known, _)| is_same(known)) {
            Some((_, known)) => *known = *weight,
            None => weights.push((score_coordinate.clone(), *weight)),
        }
    }
    weights
        .into_iter()
        .filter(|(_, weight)| *weight != 0)
        .map(|(coordinate, weight)| term(&coordinate, i64::from(weight), fleet))
        .collect()
}

fn term(coordinate: &ScoreCoordinate, weight: i64, fleet: &mut Fleet) -> Result<Term, Misconfigured> {
    let wrong = |message: String| Misconfigured::new("Prioritizer", message);
    if coordinate.kind == ScoreType::AddOn {
        let add_on = coordinate.add_on.as_ref().ok_or_else(|| wrong("addOn should not be empty".into()))?;
        let column = fleet.columns.score(&add_on.resource_name, &add_on.score_name);
        let name = format!("AddOn/{}/{}", add_on.resource_name, add_on.score_name);
        return Ok(Term { name, kind: TermKind::AddOn(column), weight });
    }
    let kind = match coordinate.built_in.as_str() {
        "Balance" => TermKind::Balance,
        "Steady" => TermKind::Steady,
        "ResourceAllocatableCPU" => TermKind::Resource(fleet.columns.resource("cpu")),
        "ResourceAllocatableMemory" => TermKind::Resource(fleet.columns.resource("memory")),
        "Packing" => TermKind::Packing,
        "Latency" => TermKind::Latency,
        "Bandwidth" => TermKind::Bandwidth,
        "Cost" => TermKind::Cost,
        "Energy" => TermKind::Energy,
        "Metrics" => TermKind::Metrics,
        other => return Err(wrong(format!("incorrect builtin prioritizer: {other}"))),
    };
    Ok(Term { name: coordinate.built_in.clone(), kind, weight })
}
