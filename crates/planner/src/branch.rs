//! What a hub that is a site of another one brings down, takes away and tells of its sites.

use std::collections::{BTreeSet, HashSet};

use types::names::{annotation, label};
use types::{
    Assignment, AssignmentStatus, Condition, ConditionStatus, ObjectMeta, Site, SiteSpec, condition,
};

/// An Assignment of the hub above as it is kept here: with where it is from, and without what is only good there.
/// `origin` names the hub above.
pub fn brought(theirs: Assignment, origin: &str) -> Assignment {
    let ObjectMeta { name, namespace, uid, generation, mut labels, .. } = theirs.metadata;
    labels.insert(label::ORIGIN.to_owned(), origin.to_owned());
    let annotations = [
        (annotation::ORIGIN_UID.to_owned(), uid),
        (annotation::ORIGIN_GENERATION.to_owned(), generation.to_string()),
    ];
    let metadata =
        ObjectMeta { name, namespace, labels, annotations: annotations.into(), ..ObjectMeta::default() };
    Assignment::new(metadata, theirs.spec)
}

/// What is told of an Assignment that was brought: its uid above, and how it stands in generations of the hub above.
/// Nothing until the site reported on what is wanted now.
pub fn report(assignment: &Assignment) -> Option<(String, AssignmentStatus)> {
    let metadata = &assignment.metadata;
    if assignment.status.observed_generation != metadata.generation {
        return None;
    }
    let generation = metadata.annotations.get(annotation::ORIGIN_GENERATION)?.parse().ok()?;
    let translated = |condition: &Condition| Condition {
        observed_generation: if condition.observed_generation == metadata.generation {
            generation
        } else {
            0
        },
        ..condition.clone()
    };
    let status = AssignmentStatus {
        conditions: assignment.status.conditions.iter().map(translated).collect(),
        progress: None,
        observed_generation: generation,
        ..assignment.status.clone()
    };
    Some((metadata.annotations.get(annotation::ORIGIN_UID)?.clone(), status))
}

/// The site and name of an Assignment.
pub type Place = (String, String);

/// Which of those that were brought go, once all that the hub above has were listed; and whether others that aren't
/// there stay for now. A site that has just become known above may not have been assigned yet what it had.
pub fn gone(
    kept: impl IntoIterator<Item = Place>,
    listed: &HashSet<Place>,
    is_young: impl Fn(&str) -> bool,
) -> (Vec<Place>, Vec<Place>) {
    let missing = kept.into_iter().filter(|place| !listed.contains(place));
    missing.partition(|(site, _)| !is_young(site))
}

/// Whether a list of the hub above may be followed: one that is older than one that was seen would undo what is newer.
pub fn is_newer(listed: u64, seen: u64) -> bool {
    listed >= seen
}

/// Why a site is not ready, as its own hub sees it; none if it is.
pub fn problem(site: &Site) -> Option<String> {
    match condition(&site.status.conditions, "Ready") {
        Some(ready) if ready.status == ConditionStatus::True => None,
        Some(ready) => Some(ready.message.clone()),
        None => Some("it was not heard yet".to_owned()),
    }
}

/// The sites of the hub at `own`, but for itself and those that are being removed: parents before their children, and
/// each with its parent stated. What was stated before it joined names none.
pub fn families(sites: Vec<Site>, own: &str) -> Vec<Site> {
    let (mut waiting, mut placed) = (sites, BTreeSet::from([own.to_owned()]));
    waiting.retain(|site| site.name() != own && site.metadata.deletion_timestamp.is_none());
    let mut families = Vec::new();
    loop {
        let before = waiting.len();
        let mut rest = Vec::new();
        for mut site in waiting {
            let SiteSpec { parent, .. } = &mut site.spec;
            if parent.is_empty() {
                own.clone_into(parent);
            }
            if placed.contains(parent) {
                placed.insert(site.name().to_owned());
                families.push(site);
            } else {
                rest.push(site);
            }
        }
        if rest.len() == before {
            return families;
        }
        waiting = rest;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn relayed(generation: i64, observed: i64) -> Assignment {
        let condition = json!({
            "type": "Available", "status": "True", "observedGeneration": observed,
            "lastTransitionTime": "2030-01-01T00:00:00Z", "reason": "Running",
        });
        serde_json::from_value(json!({
            "apiVersion": types::API_VERSION, "kind": "Assignment",
            "metadata": {
                "name": "a", "namespace": "line", "uid": "here", "generation": generation,
                "annotations": {annotation::ORIGIN_UID: "there", annotation::ORIGIN_GENERATION: "70"},
            },
            "spec": {"applicationNamespace": "default", "application": "a", "applicationUid": "u", "component": "c"},
            "status": {"conditions": [condition], "observedGeneration": observed, "invocations": {"succeeded": 3}},
        }))
        .unwrap()
    }

    #[test]
    fn reports_count_generations_as_the_hub_above_does() {
        let (uid, status) = report(&relayed(4, 4)).unwrap();
        assert_eq!(uid, "there");
        assert_eq!((status.observed_generation, status.conditions[0].observed_generation), (70, 70));
        assert_eq!(status.invocations.succeeded, 3);
    }

    #[test]
    fn what_a_site_said_of_an_older_generation_is_not_told_as_if_it_were_of_the_newest() {
        assert_eq!(report(&relayed(5, 4)), None);
        assert_eq!(report(&relayed(1, 0)), None);
    }

    #[test]
    fn only_what_was_listed_as_gone_goes_and_not_yet_at_a_site_that_is_new_above() {
        let place = |site: &str, name: &str| (site.to_owned(), name.to_owned());
        let kept = [place("a", "1"), place("a", "2"), place("young", "1")];
        let listed = HashSet::from([place("a", "1")]);
        let (gone, stays) = gone(kept, &listed, |site| site == "young");
        assert_eq!((gone, stays), (vec![place("a", "2")], vec![place("young", "1")]));
        assert!(is_newer(7, 7) && !is_newer(6, 7));
    }

    #[test]
    fn families_are_told_of_parents_first_and_orphans_not_at_all() {
        let site = |name: &str, parent: &str| -> Site {
            serde_json::from_value(json!({"apiVersion": types::API_VERSION, "kind": "Site",
                "metadata": {"name": name}, "spec": {"tier": "edge", "parent": parent}}))
            .unwrap()
        };
        let sites = vec![site("leaf", "hall"), site("hall", ""), site("hub", ""), site("lost", "nowhere")];
        let families: Vec<(String, String)> = families(sites, "hub")
            .into_iter()
            .map(|site| (site.name().to_owned(), site.spec.parent))
            .collect();
        assert_eq!(families, [("hall".into(), "hub".into()), ("leaf".into(), "hall".into())]);
    }
}
