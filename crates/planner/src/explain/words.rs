//! Sentences for people: why a site is or isn't selected, and what would have to change.

use types::names::label;

use crate::board::{Rejection, Standing, View};
use crate::fleet::Slot;
use crate::policy::Test;

/// The name of what filters.
pub(super) fn filter(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Absent | Rejection::Deleting => "Presence",
        Rejection::Unpinned => "PinnedSites",
        Rejection::Test(_) | Rejection::NoPredicate => "Predicate",
        Rejection::Taint(_) => "TaintToleration",
        Rejection::Cordoned | Rejection::NotReady => "Readiness",
        Rejection::Unconnected | Rejection::TooFar | Rejection::WidthUnknown | Rejection::TooNarrow => "Near",
        Rejection::Full(_) => "Requests",
        Rejection::Away(_) => "AntiAffinity",
        Rejection::NoMetric(_) | Rejection::Limit(_) => "Metrics",
    }
}

/// What `near` names.
fn near(view: &View) -> String {
    let Some(near) = &view.policy.spec.near else { return String::new() };
    match &near.component {
        Some(component) => format!("component `{}/{}`", component.application, component.name),
        None if near.site.is_empty() => format!("location `{}`", near.location),
        None => format!("`{}`", near.site),
    }
}

/// Why a site doesn't match, and what would have to change.
pub(super) fn rejection(view: &View, slot: Slot, rejection: Rejection) -> String {
    let spec = &view.policy.spec;
    let limits = spec.near.clone().unwrap_or_default();
    let milliseconds = view.field.and_then(|field| field.milliseconds(slot)).unwrap_or_default();
    let megabits = view.field.and_then(|field| field.megabits(slot)).unwrap_or_default();
    match rejection {
        Rejection::Absent => "is not there".into(),
        Rejection::Deleting => "is being removed".into(),
        Rejection::Unpinned => {
            "is none of spec.pinnedSites; add it there, or state spec.numberOfSites to take others too".into()
        }
        Rejection::Test(index) => {
            view.policy.must.get(index).map_or_else(String::new, |test| unmet(view, slot, test))
        }
        Rejection::NoPredicate => no_predicate(view, slot),
        Rejection::Taint(index) => view.fleet.taints(slot).get(index).map_or_else(String::new, |taint| {
            let matching = spec.tolerations.iter().find(|toleration| toleration.tolerates(taint));
            match matching.and_then(|toleration| toleration.toleration_seconds) {
                Some(seconds) => format!(
                    "has taint `{}={}:{:?}` for longer than the {seconds} s that spec.tolerations allow",
                    taint.key, taint.value, taint.effect
                ),
                None => format!(
                    "has taint `{}={}:{:?}`; add a matching entry to spec.tolerations to select it",
                    taint.key, taint.value, taint.effect
                ),
            }
        }),
        Rejection::Cordoned => "is cordoned; set its spec.unschedulable to false to select it".into(),
        Rejection::NotReady => {
            let why = view.fleet.not_ready(slot);
            format!("is not ready: {}", if why.is_empty() { "it has not reported yet" } else { why })
        }
        Rejection::Unconnected => format!("has no measured connection to {}", near(view)),
        Rejection::TooFar => format!(
            "is {milliseconds:.1} ms from {}, and spec.near.maxRoundTripMilliseconds allows {:.1}",
            near(view),
            limits.max_round_trip_milliseconds.unwrap_or_default()
        ),
        Rejection::WidthUnknown if limits.location.is_empty() => {
            format!("has no measured bandwidth to {}", near(view))
        }
        Rejection::WidthUnknown => format!(
            "has no measured bandwidth to {}; name a document there that it can fetch, as `probe` beside the location in \
             spec.measure of its Site, or with `--measure-width` at its agent",
            near(view)
        ),
        Rejection::TooNarrow => format!(
            "has {megabits:.1} Mbit/s to {}, and spec.near.minMegabitsPerSecond asks for {:.1}",
            near(view),
            limits.min_megabits_per_second.unwrap_or_default()
        ),
        Rejection::Full(index) => view.policy.requests.get(index).map_or_else(String::new, |request| {
            let Some(room) = view.room(&request.resource, request.column, slot) else {
                return format!(
                    "does not report how much {} it has, and spec.requests asks for some",
                    request.resource
                );
            };
            let room = room as f64 / 1000.0;
            format!(
                "has {room} {} left beside what other placements request, and spec.requests asks for {}",
                request.resource, request.amount
            )
        }),
        Rejection::Away(index) => spec.anti_affinity.get(index).map_or_else(String::new, |away| {
            let other = if away.placement.is_empty() {
                format!("application `{}`", away.application)
            } else {
                format!("placement `{}`", away.placement)
            };
            if away.topology_key.is_empty() {
                format!("is selected by {other}, which spec.antiAffinity keeps away from")
            } else {
                format!(
                    "has the same `{}` as a site of {other}, which spec.antiAffinity keeps away from",
                    away.topology_key
                )
            }
        }),
        Rejection::NoMetric(index) => {
            let metric = spec.metrics.get(index).map_or("", |metric| &metric.name);
            format!("has no value of metric `{metric}` that is in range")
        }
        Rejection::Limit(index) => view.policy.limits.get(index).map_or_else(String::new, |limit| {
            let weight = spec.metrics.get(limit.metric).map_or(1.0, |metric| metric.weight);
            let value = view.metric(limit.metric, slot).unwrap_or_default() * weight;
            let name = limit.constraint.metric();
            format!(
                "has a weighted `{name}` of {value:.3}, and spec.constraints.metrics asks for `{}`",
                limit.constraint
            )
        }),
    }
}

fn unmet(view: &View, slot: Slot, test: &Test) -> String {
    let columns = &view.fleet.columns;
    let key = columns.key_of(test.column);
    let has = match columns.text_at(test.column, slot) {
        Some(tier) if key == label::TIER && test.asked.starts_with("spec.tiers") => format!("tier `{tier}`"),
        Some(value) => format!("`{key}={value}`"),
        None if columns.is_claim(test.column) => "no such claim".to_owned(),
        None => "no such label".to_owned(),
    };
    format!("has {has}, and {}", test.asked)
}

fn no_predicate(view: &View, slot: Slot) -> String {
    let columns = &view.fleet.columns;
    let why = view.policy.ways.iter().enumerate().map(|(index, way)| {
        let unmet_test = way.tests.iter().find(|test| !test.holds(columns, slot));
        let why = match unmet_test {
            Some(test) => unmet(view, slot, test),
            None => {
                let untrue = way.truths.iter().find(|column| !columns.truth_at(**column, slot));
                let source = untrue.map_or("", |column| columns.expression(*column));
                format!("`{source}` is not true")
            }
        };
        format!("predicate {index}: {why}")
    });
    format!("matches none of spec.predicates ({})", why.collect::<Vec<_>>().join("; "))
}

/// Why a site that matches isn't selected.
pub(super) fn missed(view: &View, place: usize) -> String {
    match view.policy.wanted() {
        Some(wanted) if place > wanted => format!(
            "matches, but comes {place} in order and only {wanted} are wanted; raise spec.numberOfSites to select it \
             too"
        ),
        _ => "matches, but spec.spread leaves no room for it; raise maxSkew or add sites elsewhere to select it".into(),
    }
}

/// Why a site is selected.
pub(super) fn praise(view: &View, slot: Slot) -> String {
    if let Standing::Held(why) = view.standing(slot, &mut i64::MAX.clone()) {
        let seconds = view.policy.migration().hold_seconds;
        return format!(
            "does not match any more, and stays for the {seconds} s of spec.migration.holdSeconds: {}",
            rejection(view, slot, why)
        );
    }
    let mut reason = String::from("matches");
    if view.policy.spec.near.is_some() {
        let near = near(view);
        match view.field.and_then(|field| field.milliseconds(slot)) {
            Some(distance) => reason += &format!(", {distance:.1} ms from {near}"),
            None => reason += &format!(", distance to {near} not known"),
        }
    }
    if view.pinned.contains(&slot) {
        reason += "; is pinned";
    }
    let is_silent = !view.fleet.flags(slot).ready;
    if view.is_current(slot) && is_silent {
        reason += "; silent now, and stays selected because absence stops nothing";
    } else if view.is_current(slot) {
        reason += "; was selected before";
    }
    if view.is_avoided(slot) {
        reason += "; has a PreferNoSelect taint, so it comes after all others";
    }
    reason
}
