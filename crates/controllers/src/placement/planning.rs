//! What is kept between two looks: the index of sites, what all placements decided, and how each of them sees the sites.
//! All of it could be worked out again; it is kept because a change of one site then costs the work of one site.

use std::collections::{BTreeMap, HashMap, HashSet};

use planner::{
    Board, Crowd, Fleet, Misconfigured, PlacementKey, Policy, Selected, Situation, Slot, explain, origins,
    reasons,
};
use types::{Placement, PlacementSpec, Time};

use super::{Decision, Outlook, key};
use crate::measure::Columns;
use crate::{Measurements, Snapshot};

/// How a placement sees the sites.
struct Known {
    spec: PlacementSpec,
    board: Result<Board, Misconfigured>,
    metrics: Columns,
}

/// What was decided last, as it is in the store.
struct Decided {
    /// Of its parts.
    versions: Vec<String>,
    current: Vec<Selected>,
}

/// What is kept between two looks.
#[derive(Default)]
pub(crate) struct Planning {
    fleet: Fleet,
    is_filled: bool,
    crowd: Crowd,
    known: HashMap<PlacementKey, Known>,
    decided: HashMap<PlacementKey, Decided>,
}

/// A site that is to be selected.
pub(super) struct Choice {
    pub site: String,
    /// Why.
    pub reason: String,
    /// Whether it doesn't match any more, and stays for a while.
    pub is_held: bool,
}

/// What was found for a placement.
pub(super) struct Planned {
    /// The sites; `None` where those that are selected already stay as they are.
    pub selected: Option<Vec<Choice>>,
    /// Whether those selected already stay because nothing else could be decided.
    pub is_kept: bool,
    pub wanted: Option<usize>,
    pub misconfigured: Option<Misconfigured>,
}

impl Planning {
    /// Takes over what changed.
    pub(super) fn look(&mut self, snapshot: &Snapshot) {
        if !self.is_filled || self.fleet.is_bloated() {
            *self = Self { is_filled: true, ..Self::default() };
            for site in &snapshot.sites {
                self.fleet.set(site, &snapshot.scores_of(site.name()));
            }
            self.fleet.settle();
        } else {
            for name in &snapshot.changed_sites {
                match snapshot.site(name) {
                    Some(site) => self.fleet.set(site, &snapshot.scores_of(name)),
                    None => self.fleet.remove(name),
                }
            }
        }
        let placements: HashSet<PlacementKey> = snapshot.placements.iter().map(key).collect();
        self.known.retain(|key, _| placements.contains(key));
        self.decided.retain(|key, _| placements.contains(key));
        self.crowd.retain(|key| placements.contains(key));
        for placement in &snapshot.placements {
            self.take(placement, &Decision::of(snapshot, placement.namespace(), placement.name()));
        }
    }

    /// Takes over what was decided for a placement.
    fn take(&mut self, placement: &Placement, decision: &Decision) {
        let key = key(placement);
        let is_same_spec = self.known.get(&key).is_some_and(|known| known.spec == placement.spec);
        let is_same = |decided: &Decided| decision.versions().eq(decided.versions.iter().map(String::as_str));
        if is_same_spec && self.decided.get(&key).is_some_and(is_same) {
            return;
        }
        let current: Vec<Selected> = decision
            .sites()
            .map(|chosen| Selected {
                slot: self.fleet.slot_for(&chosen.site),
                since: chosen.since.map(|since| since.0),
                unmatched_since: chosen.unmatched_since.map(|since| since.0),
            })
            .collect();
        self.count(&key, &placement.spec, current.iter().map(|selected| selected.slot).collect());
        let versions = decision.versions().map(str::to_owned).collect();
        self.decided.insert(key, Decided { versions, current });
    }

    fn count(&mut self, key: &PlacementKey, spec: &PlacementSpec, slots: Vec<Slot>) {
        let requests: BTreeMap<String, f64> =
            spec.requests.iter().map(|(resource, amount)| (resource.clone(), amount.value())).collect();
        self.crowd.set(key, slots, requests);
    }

    /// Decides for a placement. What it decides counts at once for those that are asked next.
    pub(super) fn plan(
        &mut self,
        snapshot: &Snapshot,
        placement: &Placement,
        decision: &Decision,
        measurements: &Measurements,
        now: Time,
    ) -> Planned {
        let observed = decision.observed_generation();
        let generation = placement.metadata.generation;
        let planned =
            self.ask(snapshot, placement, observed, measurements, now, |board, fleet, situation| {
                let wanted = board.policy().wanted();
                let keeps = board.selected().is_empty() && !situation.current.is_empty();
                if keeps || (!board.is_changed() && observed == generation) {
                    return (Planned { wanted, is_kept: keeps, ..Planned::kept(None) }, None);
                }
                let selected = reasons(board, fleet, situation);
                let selected = selected.map(|(slot, reason)| Choice {
                    site: fleet.name(slot).to_owned(),
                    reason,
                    is_held: board.is_held(slot),
                });
                let selected = Some(selected.collect());
                let planned = Planned { selected, is_kept: false, wanted, misconfigured: None };
                (planned, Some(board.selected().to_vec()))
            });
        match planned {
            Ok((planned, slots)) => {
                if let Some(slots) = slots {
                    self.count(&key(placement), &placement.spec, slots);
                }
                planned
            }
            Err(wrong) => Planned::kept(Some(wrong)),
        }
    }

    /// Decides for a placement, and says why where `asks_why` wants to know that of the sites. What it decides counts at
    /// once for those that are asked next.
    pub(super) fn outlook(
        &mut self,
        snapshot: &Snapshot,
        placement: &Placement,
        decision: &Decision,
        measurements: &Measurements,
        now: Time,
        asks_why: impl FnOnce(&[String]) -> bool,
    ) -> Outlook {
        let (key, observed) = (key(placement), decision.observed_generation());
        let told = self.ask(snapshot, placement, observed, measurements, now, |board, fleet, situation| {
            let names: Vec<String> =
                board.selected().iter().map(|slot| fleet.name(*slot).to_owned()).collect();
            let why = asks_why(&names).then(|| explain(board, fleet, situation));
            (names, why, board.selected().to_vec())
        });
        let (now, outcome) = match told {
            Ok((names, why, slots)) => {
                if !slots.is_empty() {
                    self.count(&key, &placement.spec, slots);
                }
                (Ok(names), why)
            }
            Err(wrong) => (Err(wrong), None),
        };
        Outlook { placement: key, decided: decision.names(), now, outcome }
    }

    /// Lets a placement's board decide, and asks what came of it.
    fn ask<T>(
        &mut self,
        snapshot: &Snapshot,
        placement: &Placement,
        observed: i64,
        measurements: &Measurements,
        now: Time,
        ask: impl FnOnce(&Board, &Fleet, &Situation) -> T,
    ) -> Result<T, Misconfigured> {
        let key = key(placement);
        self.know(snapshot, placement);
        let component_sites = component_sites(snapshot, placement);
        let origins = origins(&placement.spec, component_sites.as_deref(), &mut self.fleet);
        let avoided = avoided(snapshot, placement);
        let Self { fleet, crowd, known, decided, .. } = self;
        let nothing = || Misconfigured { plugin: "Placement", message: "is not known".into() };
        let known = known.get_mut(&key).ok_or_else(nothing)?;
        known.metrics.update(measurements, &placement.spec, snapshot, fleet);
        let board = known.board.as_mut().map_err(|wrong| wrong.clone())?;
        let situation = Situation {
            now: now.0,
            key: &key,
            current: decided.get(&key).map_or(&[][..], |decided| &decided.current),
            is_settled: observed == 0 || observed == placement.metadata.generation,
            crowd,
            origins: origins.as_deref(),
            avoided: &avoided,
            metrics: known.metrics.all(),
        };
        board.decide(fleet, &situation);
        Ok(ask(board, fleet, &situation))
    }

    /// Compiles a placement's spec where it is new.
    fn know(&mut self, snapshot: &Snapshot, placement: &Placement) {
        let key = key(placement);
        if self.known.get(&key).is_some_and(|known| known.spec == placement.spec) {
            return;
        }
        let board = Policy::compile(&placement.spec, &mut self.fleet).map(Board::new);
        self.fleet.fill(&snapshot.sites, |site| snapshot.scores_of(site));
        self.known.insert(key, Known { spec: placement.spec.clone(), board, metrics: Columns::default() });
    }
}

impl Planned {
    fn kept(misconfigured: Option<Misconfigured>) -> Self {
        Self { selected: None, is_kept: true, wanted: None, misconfigured }
    }
}

/// The sites of the component that a placement wants to be near to.
fn component_sites(snapshot: &Snapshot, placement: &Placement) -> Option<Vec<String>> {
    let wanted = placement.spec.near.as_ref()?.component.as_ref()?;
    let namespace = placement.namespace();
    let application = Snapshot::named(&snapshot.applications, namespace, &wanted.application)?;
    let component = application.spec.components.iter().find(|component| component.name == wanted.name)?;
    if component.placement == placement.name() {
        return None;
    }
    let decision = Decision::of(snapshot, namespace, &component.placement);
    decision.is_made().then(|| decision.names())
}

/// The placements that each of `antiAffinity` keeps away from.
fn avoided(snapshot: &Snapshot, placement: &Placement) -> Vec<Vec<PlacementKey>> {
    let namespace = placement.namespace();
    let in_namespace = |name: &str| (namespace.to_owned(), name.to_owned());
    let avoided = placement.spec.anti_affinity.iter().map(|away| {
        if !away.placement.is_empty() {
            return vec![in_namespace(&away.placement)];
        }
        let application = Snapshot::named(&snapshot.applications, namespace, &away.application);
        let components = application.into_iter().flat_map(|application| &application.spec.components);
        components.map(|component| in_namespace(&component.placement)).collect()
    });
    avoided.collect()
}
