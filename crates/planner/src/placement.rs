//! Which sites a placement selects, and why not the others.
//!
//! Filters first (selector, tier, taints, cordon, readiness, distance), then an order: untolerated
//! `PreferNoSelect` taints last, then the nearer, then those selected already, then by name. A site that is
//! selected already stays while it still matches, even when it is cordoned or silent: absence stops nothing
//! (promise 1).

use std::collections::BTreeMap;

use types::{ConditionStatus, LabelSelector, PlacementSpec, Site, TaintEffect, condition, names::label};

use crate::Distances;

/// A site that is selected already counts as this much nearer, so that small changes of latency move nothing.
const STAY: f64 = 0.7;

/// What was decided about one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The site.
    pub site: String,
    /// Whether it was selected.
    pub selected: bool,
    /// Why, and for a site that was not: what would have to change.
    pub reason: String,
    /// Round trip to the site of `near`, in milliseconds, where known.
    pub round_trip_milliseconds: Option<f64>,
}

/// What was decided about all sites.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The selected sites, best first.
    pub selected: Vec<String>,
    /// One verdict a site: selected ones first in their order, then the others by name.
    pub verdicts: Vec<Verdict>,
    /// How many sites were wanted; `None` for all that match.
    pub wanted: Option<usize>,
}

impl Outcome {
    /// Whether as many sites as wanted were selected, and at least one.
    pub fn is_satisfied(&self) -> bool {
        self.selected.len() >= self.wanted.unwrap_or(1)
    }
}

struct Candidate<'a> {
    site: &'a Site,
    avoided: bool,
    current: bool,
    distance: Option<f64>,
}

impl Candidate<'_> {
    fn rank(&self) -> f64 {
        let distance = self.distance.unwrap_or(f64::INFINITY);
        if self.current { distance * STAY } else { distance }
    }
}

/// Selects sites. `current` are the sites of the last decision.
pub fn place(spec: &PlacementSpec, sites: &[Site], current: &[String]) -> Outcome {
    let distances = spec.near.as_ref().map(|near| Distances::from(&near.site, sites));
    let mut candidates = Vec::new();
    let mut rejected = Vec::new();
    for site in sites {
        let is_current = current.iter().any(|name| name == site.name());
        let distance = distances.as_ref().and_then(|distances| distances.to(site.name()));
        match reject(spec, site, is_current, distance) {
            Some(reason) => rejected.push(Verdict {
                site: site.name().to_owned(),
                selected: false,
                reason,
                round_trip_milliseconds: distance,
            }),
            None => {
                let avoided = untolerated(spec, site).any(|effect| effect == TaintEffect::PreferNoSelect);
                candidates.push(Candidate { site, avoided, current: is_current, distance });
            }
        }
    }
    candidates.sort_by(|a, b| {
        a.avoided
            .cmp(&b.avoided)
            .then_with(|| a.rank().total_cmp(&b.rank()))
            .then_with(|| b.current.cmp(&a.current))
            .then_with(|| a.site.name().cmp(b.site.name()))
    });
    let wanted = spec.number_of_sites.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
    let room = wanted.unwrap_or(usize::MAX);
    let mut verdicts: Vec<Verdict> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| Verdict {
            site: candidate.site.name().to_owned(),
            selected: index < room,
            reason: if index < room {
                praise(spec, candidate)
            } else {
                format!(
                    "matches, but comes {} in order and only {room} are wanted; raise spec.numberOfSites to \
                     select it too",
                    index + 1
                )
            },
            round_trip_milliseconds: candidate.distance,
        })
        .collect();
    let selected =
        verdicts.iter().filter(|verdict| verdict.selected).map(|verdict| verdict.site.clone()).collect();
    rejected.sort_by(|a, b| a.site.cmp(&b.site));
    verdicts.extend(rejected);
    Outcome { selected, verdicts, wanted }
}

/// Why a site can't be selected, if it can't.
fn reject(spec: &PlacementSpec, site: &Site, current: bool, distance: Option<f64>) -> Option<String> {
    if site.is_deleting() {
        return Some("is being removed".into());
    }
    let mut labels = site.metadata.labels.clone();
    labels.insert(label::TIER.into(), site.spec.tier.clone());
    if let Some(reason) = unmet(&spec.site_selector, &labels) {
        return Some(reason);
    }
    if !spec.tiers.is_empty() && !spec.tiers.contains(&site.spec.tier) {
        let wanted = spec.tiers.join(" or ");
        return Some(format!("has tier `{}`, and spec.tiers asks for {wanted}", site.spec.tier));
    }
    for taint in &site.spec.taints {
        let tolerated = spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
        let repels = match taint.effect {
            TaintEffect::NoSelect => true,
            TaintEffect::NoSelectIfNew => !current,
            TaintEffect::PreferNoSelect => false,
        };
        if repels && !tolerated {
            return Some(format!(
                "has taint `{}={}:{:?}`; add a matching entry to spec.tolerations to select it",
                taint.key, taint.value, taint.effect
            ));
        }
    }
    if !current && site.spec.unschedulable {
        return Some("is cordoned; set its spec.unschedulable to false to select it".into());
    }
    let ready = condition(&site.status.conditions, "Ready");
    if !current && ready.is_none_or(|ready| ready.status != ConditionStatus::True) {
        let why = ready.map_or("it has not reported yet", |ready| ready.message.as_str());
        return Some(format!("is not ready: {why}"));
    }
    if let Some(near) = &spec.near
        && let Some(limit) = near.max_round_trip_milliseconds
    {
        match distance {
            None => return Some(format!("has no measured connection to `{}`", near.site)),
            Some(distance) if distance > limit => {
                return Some(format!(
                    "is {distance:.1} ms from `{}`, and spec.near.maxRoundTripMilliseconds allows {limit:.1}",
                    near.site
                ));
            }
            Some(_) => {}
        }
    }
    None
}

fn unmet(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<String> {
    let has =
        |key: &str| labels.get(key).map_or("no such label".to_owned(), |value| format!("`{key}={value}`"));
    for (key, value) in &selector.match_labels {
        if labels.get(key) != Some(value) {
            return Some(format!("has {}, and spec.siteSelector asks for `{key}={value}`", has(key)));
        }
    }
    let failed = selector.match_expressions.iter().find(|requirement| !requirement.matches(labels))?;
    let values = failed.values.join(", ");
    Some(format!(
        "has {}, and spec.siteSelector asks for `{} {:?} ({values})`",
        has(&failed.key),
        failed.key,
        failed.operator
    ))
}

fn untolerated<'a>(spec: &'a PlacementSpec, site: &'a Site) -> impl Iterator<Item = TaintEffect> + 'a {
    let tolerated = |taint| spec.tolerations.iter().any(|toleration| toleration.tolerates(taint));
    site.spec.taints.iter().filter(move |taint| !tolerated(taint)).map(|taint| taint.effect)
}

fn praise(spec: &PlacementSpec, candidate: &Candidate) -> String {
    let mut reason = String::from("matches");
    if let Some(near) = &spec.near {
        match candidate.distance {
            Some(distance) => reason += &format!(", {distance:.1} ms from `{}`", near.site),
            None => reason += &format!(", distance to `{}` not known", near.site),
        }
    }
    let ready = condition(&candidate.site.status.conditions, "Ready");
    let silent = ready.is_none_or(|ready| ready.status != ConditionStatus::True);
    if candidate.current && silent {
        reason += "; silent now, and stays selected because absence stops nothing";
    } else if candidate.current {
        reason += "; was selected before";
    }
    if candidate.avoided {
        reason += "; has a PreferNoSelect taint, so it comes after all others";
    }
    reason
}
