//! What is decided about each site, and why: filters and scores in words.
//!
//! A site that is selected already stays while it still matches, even when it is cordoned or silent: absence stops
//! nothing (promise 1).

mod words;

use jiff::Timestamp;
use types::{PlacementScore, PlacementSpec, Site};

use crate::board::{Board, MetricColumn, Rejection, Selected, Situation, View};
use crate::crowd::{Crowd, PlacementKey};
use crate::fleet::{Fleet, Slot};
use crate::policy::{Misconfigured, Policy, TermKind};

/// One of the scores of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermScore {
    /// What scores.
    pub name: String,
    /// How much it counts.
    pub weight: i64,
    /// From -100 to 100; `None` where the site has nothing to be scored by.
    pub score: Option<i64>,
}

/// What was decided about one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The site.
    pub site: String,
    /// Whether it was selected.
    pub selected: bool,
    /// What filtered it out; `None` if it matches.
    pub filter: Option<&'static str>,
    /// Why, and for a site that was not selected: what would have to change.
    pub reason: String,
    /// Round trip to what `near` names, in milliseconds, where known.
    pub round_trip_milliseconds: Option<f64>,
    /// The scores of a site that matches.
    pub scores: Vec<TermScore>,
    /// Their weighted sum.
    pub total: Option<i64>,
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
    /// When a selected site stops to be tolerated.
    pub requeue_at: Option<Timestamp>,
    /// What did not count though it was asked for.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Whether as many sites as wanted were selected, and at least one.
    pub fn is_satisfied(&self) -> bool {
        self.selected.len() >= self.wanted.unwrap_or(1)
    }
}

/// All that one placement's decision depends on.
pub struct Question<'a> {
    /// What is asked of sites.
    pub spec: &'a PlacementSpec,
    /// All sites.
    pub sites: &'a [Site],
    /// What others told of them.
    pub told: &'a [PlacementScore],
    /// The placement's namespace and name.
    pub key: PlacementKey,
    /// What was decided before, and since when.
    pub current: &'a [(String, Option<Timestamp>)],
    /// Whether that followed the same spec.
    pub is_settled: bool,
    /// What other placements decided: which, the sites, and what they request on each.
    pub others: &'a [(PlacementKey, Vec<String>, std::collections::BTreeMap<String, f64>)],
    /// The sites of the component to be near to, if one is named; `None` where that isn't known.
    pub component_sites: Option<&'a [String]>,
    /// The placements that each of `antiAffinity` keeps away from.
    pub avoided: &'a [Vec<PlacementKey>],
    /// The values of each of `metrics`, from 0 to 1, by site.
    pub metrics: &'a [std::collections::BTreeMap<String, f64>],
    /// The time.
    pub now: Timestamp,
}

impl<'a> Question<'a> {
    /// Of a placement alone.
    pub fn new(spec: &'a PlacementSpec, sites: &'a [Site], now: Timestamp) -> Self {
        Self {
            spec,
            sites,
            told: &[],
            key: PlacementKey::default(),
            current: &[],
            is_settled: true,
            others: &[],
            component_sites: None,
            avoided: &[],
            metrics: &[],
            now,
        }
    }
}

/// Selects sites, and says why. `current` are the sites of the last decision.
///
/// # Errors
/// [`Misconfigured`] where the spec can't be followed.
pub fn place(spec: &PlacementSpec, sites: &[Site], current: &[String]) -> Result<Outcome, Misconfigured> {
    let current: Vec<(String, Option<Timestamp>)> = current.iter().map(|site| (site.clone(), None)).collect();
    answer(
        &Question { current: &current, ..Question::new(spec, sites, Timestamp::UNIX_EPOCH) },
        Fleet::default(),
    )
}

/// The rows that a placement wants to be near to: those that `near` names, or those of the component that it names.
pub fn origins(
    spec: &PlacementSpec,
    component_sites: Option<&[String]>,
    fleet: &mut Fleet,
) -> Option<Vec<Slot>> {
    let near = spec.near.as_ref()?;
    if !near.site.is_empty() {
        return Some(vec![fleet.slot_for(&near.site)]);
    }
    if !near.location.is_empty() {
        return Some(vec![fleet.location(&near.location)]);
    }
    let sites = component_sites.filter(|sites| !sites.is_empty())?;
    Some(sites.iter().map(|site| fleet.slot_for(site)).collect())
}

/// Answers a question with a fleet that is empty yet.
///
/// # Errors
/// [`Misconfigured`] where the spec can't be followed.
pub fn answer(question: &Question, mut fleet: Fleet) -> Result<Outcome, Misconfigured> {
    let policy = Policy::compile(question.spec, &mut fleet)?;
    for site in question.sites {
        let told: Vec<&PlacementScore> =
            question.told.iter().filter(|told| told.namespace() == site.name()).collect();
        fleet.set(site, &told);
    }
    let mut crowd = Crowd::default();
    for (key, sites, requests) in question.others {
        let slots = Crowd::slots(&mut fleet, sites);
        crowd.set(key, slots, requests.clone());
    }
    let current: Vec<Selected> = question
        .current
        .iter()
        .map(|(site, since)| Selected { slot: fleet.slot_for(site), since: *since, unmatched_since: None })
        .collect();
    let origins = origins(question.spec, question.component_sites, &mut fleet);
    let metrics: Vec<MetricColumn> =
        question.metrics.iter().map(|values| metric_column(values, &fleet, 0)).collect();
    let situation = Situation {
        now: question.now,
        key: &question.key,
        current: &current,
        is_settled: question.is_settled,
        crowd: &crowd,
        origins: origins.as_deref(),
        avoided: question.avoided,
        metrics: &metrics,
    };
    let mut board = Board::new(policy);
    board.decide(&mut fleet, &situation);
    Ok(explain(&board, &fleet, &situation))
}

/// Values by site as a column of a fleet.
pub fn metric_column(
    values: &std::collections::BTreeMap<String, f64>,
    fleet: &Fleet,
    version: u64,
) -> MetricColumn {
    let mut column = vec![f64::NAN; fleet.rows()];
    for (site, value) in values {
        if let Some(cell) = fleet.slot(site).and_then(|slot| column.get_mut(slot as usize)) {
            *cell = *value;
        }
    }
    MetricColumn { version, values: column.into() }
}

/// Says why a board decided as it did.
pub fn explain(board: &Board, fleet: &Fleet, situation: &Situation) -> Outcome {
    let view = board.view(fleet, situation);
    let mut matching = Vec::new();
    let mut rejected = Vec::new();
    for slot in fleet.present() {
        match view.standing(slot, &mut i64::MAX.clone()).rejection() {
            None => matching.push(slot),
            Some(rejection) => rejected.push((slot, rejection)),
        }
    }
    let selected: std::collections::HashSet<Slot> = board.selected().iter().copied().collect();
    matching.sort_by_key(|slot| {
        (!selected.contains(slot), std::cmp::Reverse(view.key(*slot)), fleet.place(*slot))
    });
    let mut verdicts: Vec<Verdict> = matching
        .iter()
        .enumerate()
        .map(|(index, slot)| {
            let is_selected = selected.contains(slot);
            let reason =
                if is_selected { words::praise(&view, *slot) } else { words::missed(&view, index + 1) };
            verdict(&view, *slot, None, reason, is_selected)
        })
        .collect();
    let chosen = verdicts.iter().take_while(|verdict| verdict.selected).count();
    verdicts.get_mut(chosen..).unwrap_or_default().sort_by(|a, b| a.site.cmp(&b.site));
    rejected.sort_by_key(|(slot, _)| fleet.place(*slot));
    verdicts.extend(rejected.into_iter().map(|(slot, rejection)| {
        verdict(&view, slot, Some(rejection), words::rejection(&view, slot, rejection), false)
    }));
    Outcome {
        selected: board.selected().iter().map(|slot| fleet.name(*slot).to_owned()).collect(),
        verdicts,
        wanted: board.policy().wanted(),
        requeue_at: board.requeue_at(fleet, situation),
        warnings: warnings(&view, &matching),
    }
}

/// Why each of the selected sites is, in few words, best first.
pub fn reasons<'a>(
    board: &'a Board,
    fleet: &'a Fleet,
    situation: &'a Situation<'a>,
) -> impl Iterator<Item = (Slot, String)> + 'a {
    let view = board.view(fleet, situation);
    board.selected().iter().map(move |slot| (*slot, words::praise(&view, *slot)))
}

fn verdict(view: &View, slot: Slot, rejection: Option<Rejection>, reason: String, selected: bool) -> Verdict {
    let terms = &view.policy.terms;
    let scores = view.scores(slot).filter_map(|(index, score)| {
        let term = terms.get(index)?;
        Some(TermScore { name: term.name.clone(), weight: term.weight, score })
    });
    Verdict {
        site: view.fleet.name(slot).to_owned(),
        selected,
        filter: rejection.map(words::filter),
        reason,
        round_trip_milliseconds: view.field.and_then(|field| field.milliseconds(slot)),
        scores: if rejection.is_none() { scores.collect() } else { vec![] },
        total: rejection.is_none().then(|| view.total(slot)),
    }
}

/// The told scores that are not valid any more, a line a score.
fn warnings(view: &View, matching: &[Slot]) -> Vec<String> {
    let mut matching = matching.to_vec();
    matching.sort_by_key(|slot| view.fleet.place(*slot));
    let mut warnings = Vec::new();
    for term in &view.policy.terms {
        let TermKind::AddOn(column) = term.kind else { continue };
        let resource = term.name.split('/').nth(1).unwrap_or_default();
        let expired = matching.iter().filter(|slot| {
            let told = view.fleet.columns.score_at(column, **slot);
            told.is_told && view.is_expired(told.valid_until)
        });
        let expired: Vec<String> =
            expired.map(|slot| format!("{}/{resource}", view.fleet.name(*slot))).collect();
        let warning = format!("AddOnPlacementScores {} expired", expired.join(" "));
        if !expired.is_empty() && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}
