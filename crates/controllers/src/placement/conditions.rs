//! How a placement stands, in conditions and events.

use planner::Misconfigured;
use types::{Condition, ConditionStatus, Placement, SiteDecision, Time, condition};

use crate::Occurrence;

/// What the conditions of a placement depend on.
pub(super) struct Standing<'a> {
    pub placement: &'a Placement,
    /// How many sites are selected now.
    pub selected: usize,
    /// The first of the sites that were selected before.
    pub kept: Vec<&'a str>,
    /// Whether that was decided before, and nothing could be decided now.
    pub is_kept: bool,
    pub wanted: Option<usize>,
    pub misconfigured: Option<&'a Misconfigured>,
    pub now: Time,
}

/// How many sites a message names.
const NAMED: usize = 20;

/// The first of these sites, of more than are named if there are more.
pub(super) fn first<'a>(sites: impl Iterator<Item = &'a SiteDecision>) -> Vec<&'a str> {
    sites.take(NAMED + 1).map(|chosen| chosen.site.as_str()).collect()
}

impl Standing<'_> {
    fn kept_names(&self) -> String {
        let mut names = self.kept.clone();
        if names.len() > NAMED {
            names.truncate(NAMED);
            names.push("…");
        }
        names.join(", ")
    }

    fn condition(&self, kind: &str, status: ConditionStatus, reason: &str, message: String) -> Condition {
        Condition {
            kind: kind.into(),
            status,
            observed_generation: self.placement.metadata.generation,
            last_transition_time: self.now,
            reason: reason.into(),
            message,
        }
    }

    /// `Satisfied`: as many sites as wanted are selected, now.
    pub fn satisfied(&self) -> Condition {
        let explain = format!("see `avocet explain placement/{}`", self.placement.name());
        let (selected, wanted) = (self.selected, self.wanted);
        let (status, reason, message) = if self.is_kept && selected > 0 {
            let why = match self.misconfigured {
                Some(_) => "can't be followed",
                None => "selects no site now",
            };
            let message =
                format!("{why}; what was decided before is kept ({}); {explain}", self.kept_names());
            (ConditionStatus::False, "LastDecisionKept", message)
        } else if selected > 0 && selected >= wanted.unwrap_or(1) {
            (ConditionStatus::True, "AllDecisionsScheduled", String::new())
        } else if selected == 0 {
            (ConditionStatus::False, "NoSiteMatched", format!("selects no site; {explain}"))
        } else {
            let wanted = wanted.unwrap_or_default();
            let message = format!("selects {selected} of {wanted} wanted sites; {explain}");
            (ConditionStatus::False, "NotAllDecisionsScheduled", message)
        };
        self.condition("Satisfied", status, reason, message)
    }

    /// `Misconfigured`: the spec can't be followed. Not told of placements that never were.
    pub fn misconfigured(&self) -> Option<Condition> {
        match self.misconfigured {
            Some(wrong) => {
                let kept = match self.kept_names() {
                    kept if kept.is_empty() => "nothing was decided before".to_owned(),
                    kept => format!("what was decided before is kept ({kept})"),
                };
                let message = format!("{}: {wrong}; {kept}; correct the spec", wrong.plugin);
                Some(self.condition("Misconfigured", ConditionStatus::True, "Misconfigured", message))
            }
            None => {
                condition(&self.placement.status.conditions, "Misconfigured")?;
                let reason = "SuccessfullyConfigured";
                Some(self.condition("Misconfigured", ConditionStatus::False, reason, String::new()))
            }
        }
    }
}

/// What keeps a placement from being satisfied, if that is new.
pub(super) fn tell(old: &Placement, new: &Placement) -> Vec<Occurrence> {
    let complaint = |placement: &Placement, kind: &str, status: ConditionStatus| {
        let found = condition(&placement.status.conditions, kind).filter(|found| found.status == status);
        found.map(|found| found.message.clone())
    };
    let kinds = [
        ("Misconfigured", ConditionStatus::True, "Misconfigured"),
        ("Satisfied", ConditionStatus::False, "Unsatisfied"),
    ];
    let news = kinds.into_iter().filter_map(|(kind, status, reason)| {
        let message = complaint(new, kind, status)?;
        let is_news = complaint(old, kind, status).as_ref() != Some(&message);
        is_news.then(|| Occurrence::warning(new, reason, message))
    });
    news.collect()
}
