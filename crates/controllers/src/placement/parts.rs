//! What was decided for a placement, in parts. No object names more than a hundred sites, as in Open Cluster Management:
//! a site that comes or goes changes small objects, however many are selected.
//!
//! All parts of a decision are written together or not at all, so whoever lists them finds a whole one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use types::{
    DecisionGroup, Digest, ObjectMeta, OwnerReference, Placement, PlacementDecision, PlacementDecisionSpec,
    PlacementDecisionStatus, SiteDecision, names,
    names::label::{GROUP_INDEX, GROUP_NAME, PLACEMENT},
};

use super::Group;
use crate::{Snapshot, Write};

/// How many sites an object names at most.
const MOST: usize = 100;
/// How much of a placement's name is in the names of parts, in bytes.
const LONGEST_NAME: usize = 220;

/// All that was decided for a placement.
#[derive(Debug, Default)]
pub(crate) struct Decision<'a> {
    parts: Vec<&'a PlacementDecision>,
}

impl<'a> Decision<'a> {
    /// The parts in their order. The first may be a whole decision from when there were no parts, which has the
    /// placement's name.
    pub fn of(snapshot: &'a Snapshot, namespace: &str, placement: &str) -> Self {
        let prefix = prefix(placement);
        let decisions = &snapshot.decisions;
        let first =
            decisions.partition_point(|one| (one.namespace(), one.name()) < (namespace, prefix.as_str()));
        let of_prefix = decisions.get(first..).unwrap_or_default().iter().map_while(|one| {
            Some((one.name().strip_prefix(&prefix).filter(|_| one.namespace() == namespace)?, one))
        });
        let numbered = of_prefix.filter_map(|(number, one)| Some((number.parse::<usize>().ok()?, one)));
        let whole = Snapshot::named(decisions, namespace, placement).map(|one| (0, one));
        let mut parts: Vec<(usize, &PlacementDecision)> = whole.into_iter().chain(numbered).collect();
        parts.retain(|(_, part)| part.spec.placement == placement);
        parts.sort_by_key(|(number, _)| *number);
        Self { parts: parts.into_iter().map(|(_, part)| part).collect() }
    }

    /// Whether anything was decided, if only that no site is selected.
    pub fn is_made(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The selected sites, in their order.
    pub fn sites(&self) -> impl Iterator<Item = &'a SiteDecision> {
        self.parts.iter().flat_map(|part| &part.status.decisions)
    }

    /// The names of the selected sites.
    pub fn names(&self) -> Vec<String> {
        self.sites().map(|chosen| chosen.site.clone()).collect()
    }

    /// The version of each part.
    pub fn versions(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().map(|part| part.metadata.resource_version.as_str())
    }

    /// The generation of the placement that was followed; 0 where it isn't known.
    pub fn observed_generation(&self) -> i64 {
        self.parts.iter().map(|part| part.status.observed_generation).min().unwrap_or(0)
    }
}

/// What one object is to say.
#[derive(Debug)]
struct Part<'a> {
    group: u32,
    group_name: String,
    sites: Vec<Cow<'a, SiteDecision>>,
}

/// How a decision is to be.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    parts: Vec<Part<'a>>,
    observed_generation: i64,
}

impl<'a> Layout<'a> {
    /// Groups in their order, at least one.
    pub fn new(groups: Vec<Group<'a>>, observed_generation: i64) -> Self {
        let mut parts = Vec::new();
        for (group, (group_name, sites)) in (0..).zip(groups) {
            let mut left = sites.into_iter();
            loop {
                let sites: Vec<_> = left.by_ref().take(MOST).collect();
                if sites.is_empty() && !parts.is_empty() {
                    break;
                }
                let is_full = sites.len() == MOST;
                parts.push(Part { group, group_name: group_name.clone(), sites });
                if !is_full {
                    break;
                }
            }
        }
        Self { parts, observed_generation }
    }

    /// The selected sites, in their order.
    pub fn sites(&self) -> impl Iterator<Item = &SiteDecision> {
        self.parts.iter().flat_map(|part| &part.sites).map(AsRef::as_ref)
    }

    /// What is to be written so that nothing but this is decided, and the groups as the placement tells of them.
    pub fn writes(
        &self,
        snapshot: &Snapshot,
        placement: &Placement,
        before: &Decision,
    ) -> (Vec<Write>, Vec<DecisionGroup>) {
        let (mut writes, mut groups) = (Vec::new(), Vec::<DecisionGroup>::new());
        let mut stored: BTreeMap<&str, &PlacementDecision> =
            before.parts.iter().map(|part| (part.name(), *part)).collect();
        for (part, name) in self.parts.iter().zip(free_names(snapshot, placement)) {
            let stored = stored.remove(name.as_str());
            if !stored.is_some_and(|stored| part.is(stored, placement, self.observed_generation)) {
                let resource = part.resource(placement, &name, stored, self.observed_generation);
                writes.push(Write::put(&resource));
            }
            if groups.last().is_none_or(|group| group.index != part.group) {
                let name = part.group_name.clone();
                groups.push(DecisionGroup { index: part.group, name, ..DecisionGroup::default() });
            }
            if let Some(group) = groups.last_mut() {
                group.sites += u32::try_from(part.sites.len()).unwrap_or(u32::MAX);
                group.decisions.push(name);
            }
        }
        writes.extend(stored.into_values().map(Write::delete));
        (writes, groups)
    }
}

impl Part<'_> {
    /// The labels that say of what it is a part. Names may be longer than labels can be.
    fn labels(&self, placement: &Placement) -> impl Iterator<Item = (&'static str, String)> {
        let labels = [
            (PLACEMENT, placement.name().to_owned()),
            (GROUP_INDEX, self.group.to_string()),
            (GROUP_NAME, self.group_name.clone()),
        ];
        labels.into_iter().filter(|(_, value)| names::is_label_value(value))
    }

    /// Whether that is what is stored. Sites that stayed are borrowed from there, which is seen at once.
    fn is(&self, stored: &PlacementDecision, placement: &Placement, observed_generation: i64) -> bool {
        let same = |(one, other): (&SiteDecision, &Cow<SiteDecision>)| {
            std::ptr::eq(one, other.as_ref()) || one == other.as_ref()
        };
        let status = &stored.status;
        status.observed_generation == observed_generation
            && status.decisions.len() == self.sites.len()
            && status.decisions.iter().zip(&self.sites).all(same)
            && self.labels(placement).all(|(key, value)| stored.metadata.labels.get(key) == Some(&value))
    }

    /// The object that says so, with what else is stored of it.
    fn resource(
        &self,
        placement: &Placement,
        name: &str,
        stored: Option<&PlacementDecision>,
        observed_generation: i64,
    ) -> PlacementDecision {
        let mut metadata =
            stored.map_or_else(|| new_metadata(placement, name), |stored| stored.metadata.clone());
        metadata.labels.extend(self.labels(placement).map(|(key, value)| (key.to_owned(), value)));
        let spec = PlacementDecisionSpec { placement: placement.name().to_owned() };
        let decisions = self.sites.iter().map(|chosen| chosen.as_ref().clone()).collect();
        let status = PlacementDecisionStatus { decisions, observed_generation };
        PlacementDecision { status, ..PlacementDecision::new(metadata, spec) }
    }
}

/// What the names of a placement's parts begin with.
fn prefix(placement: &str) -> String {
    if placement.len() <= LONGEST_NAME {
        return format!("{placement}-decision-");
    }
    let hash: String = Digest::of(placement.as_bytes()).hex().chars().take(10).collect();
    let beginning: String = placement.chars().take(LONGEST_NAME - hash.len()).collect();
    format!("{}-{hash}-decision-", beginning.trim_end_matches(['.', '-']))
}

/// Names for parts, but for those that the decision of another placement has.
fn free_names(snapshot: &Snapshot, placement: &Placement) -> impl Iterator<Item = String> {
    let prefix = prefix(placement.name());
    (1_usize..).map(move |number| format!("{prefix}{number}")).filter(|name| {
        let taken = Snapshot::named(&snapshot.decisions, placement.namespace(), name);
        taken.is_none_or(|taken| taken.spec.placement == placement.name())
    })
}

fn new_metadata(placement: &Placement, name: &str) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: placement.api_version.clone(),
        kind: placement.kind.clone(),
        name: placement.name().to_owned(),
        uid: placement.metadata.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    };
    ObjectMeta {
        name: name.to_owned(),
        namespace: placement.namespace().to_owned(),
        owner_references: vec![owner],
        ..ObjectMeta::default()
    }
}
