//! Outlooks as they are told: with limits, so that no answer is larger than who asks can take.

use std::collections::HashMap;

use planner::Verdict;
use types::{PlacementChange, PlacementExplanation, ScoreTerm, SiteChange, SiteMove, SiteVerdict};

use super::Outlook;

/// Why a placement selects the sites that it does: of so many sites at most, or of one.
pub fn tell_explanation(outlook: Outlook, site: Option<&str>, most: usize) -> PlacementExplanation {
    let last_decision_kept = outlook.is_kept();
    let (verdicts, warnings) =
        outlook.outcome.map_or((vec![], vec![]), |outcome| (outcome.verdicts, outcome.warnings));
    let is_wanted = |verdict: &Verdict| site.is_none_or(|site| verdict.site == site);
    let mut verdicts: Vec<Verdict> = verdicts.into_iter().filter(is_wanted).collect();
    let left_out = verdicts.len().saturating_sub(most);
    verdicts.truncate(most);
    PlacementExplanation {
        placement: outlook.placement.1,
        decided: outlook.decided,
        last_decision_kept,
        misconfigured: outlook.now.err().map(|wrong| format!("{}: {wrong}", wrong.plugin)),
        warnings,
        sites: verdicts.into_iter().map(tell_verdict).collect(),
        left_out,
    }
}

fn tell_verdict(verdict: Verdict) -> SiteVerdict {
    let scores = verdict.scores.into_iter();
    SiteVerdict {
        site: verdict.site,
        selected: verdict.selected,
        filter: verdict.filter.map(str::to_owned),
        reason: verdict.reason,
        round_trip_milliseconds: verdict.round_trip_milliseconds,
        scores: scores
            .map(|term| ScoreTerm { name: term.name, weight: term.weight, score: term.score })
            .collect(),
        total: verdict.total,
    }
}

/// What would become of placements. No more than so many names of sites are told, all placements together; those that
/// come and go first.
pub fn tell_changes(outlooks: Vec<Outlook>, most: usize) -> Vec<PlacementChange> {
    let mut left = most;
    let mut changes: Vec<PlacementChange> = Vec::new();
    for outlook in &outlooks {
        changes.push(tell_change(outlook, &mut left));
    }
    for (change, outlook) in changes.iter_mut().zip(outlooks) {
        let after = outlook.selected().to_vec();
        let names = outlook.decided.len() + after.len();
        if names <= left {
            left -= names;
            (change.before, change.after) = (outlook.decided, after);
        } else {
            change.left_out += names;
        }
    }
    changes
}

fn tell_change(outlook: &Outlook, left: &mut usize) -> PlacementChange {
    let verdicts = outlook.outcome.iter().flat_map(|outcome| &outcome.verdicts);
    let why: HashMap<&str, &str> =
        verdicts.map(|verdict| (verdict.site.as_str(), verdict.reason.as_str())).collect();
    let mut left_out = 0;
    let mut tell = |one: &[String], other: &[String]| -> Vec<SiteChange> {
        let other: std::collections::HashSet<&String> = other.iter().collect();
        let mut sites: Vec<&String> = one.iter().filter(|site| !other.contains(site)).collect();
        left_out += sites.len().saturating_sub(*left);
        sites.truncate(*left);
        *left -= sites.len();
        let told = sites.into_iter().map(|site| SiteChange {
            site: site.clone(),
            reason: why.get(site.as_str()).copied().unwrap_or("is not there").to_owned(),
        });
        told.collect()
    };
    let added = tell(outlook.selected(), &outlook.decided);
    let removed = tell(&outlook.decided, outlook.selected());
    let moves = removed
        .iter()
        .zip(&added)
        .map(|(from, to)| SiteMove { from: from.site.clone(), to: to.site.clone() })
        .collect();
    let note = match &outlook.now {
        Err(wrong) => Some(format!("{}: {wrong}; what was decided before would be kept", wrong.plugin)),
        Ok(_) if outlook.is_kept() => {
            Some("no site would match; what was decided before would be kept".to_owned())
        }
        Ok(_) => None,
    };
    let (namespace, placement) = outlook.placement.clone();
    PlacementChange {
        namespace,
        placement,
        added,
        removed,
        moves,
        last_decision_kept: outlook.is_kept(),
        note,
        left_out,
        ..PlacementChange::default()
    }
}
