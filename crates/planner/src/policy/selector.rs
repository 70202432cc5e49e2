//! Label selectors over columns.

use types::{LabelSelector, Operator, Site, names};

use super::Misconfigured;
use crate::fleet::{Columns, Fleet, Slot};

/// How a word is compared.
#[derive(Debug)]
pub(crate) enum How {
    In(Vec<u32>),
    NotIn { words: Vec<u32>, or_missing: bool },
    Exists,
    Missing,
}

/// One thing that is asked of a label or a claim.
#[derive(Debug)]
pub(crate) struct Test {
    pub column: usize,
    pub how: How,
    /// What asks for what, for explanations.
    pub asked: String,
}

impl Test {
    pub fn holds(&self, columns: &Columns, slot: Slot) -> bool {
        let word = columns.word_at(self.column, slot);
        match &self.how {
            How::In(words) => word != 0 && words.contains(&word),
            How::NotIn { or_missing, .. } if word == 0 => *or_missing,
            How::NotIn { words, .. } => !words.contains(&word),
            How::Exists => word != 0,
            How::Missing => word == 0,
        }
    }
}

/// Checks a selector as Kubernetes does before it is asked.
pub(crate) fn check(selector: &LabelSelector) -> Result<(), String> {
    for (key, value) in &selector.match_labels {
        check_key(key)?;
        check_value(value)?;
    }
    for requirement in &selector.match_expressions {
        check_key(&requirement.key)?;
        requirement.values.iter().try_for_each(|value| check_value(value))?;
        match requirement.operator {
            Operator::In | Operator::NotIn if requirement.values.is_empty() => {
                return Err("for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !requirement.values.is_empty() => {
                return Err("values set must be empty for exists and does not exist".into());
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), String> {
    if names::is_label_key(key) { Ok(()) } else { Err(format!("`{key}` is not a label's key")) }
}

fn check_value(value: &str) -> Result<(), String> {
    if names::is_label_value(value) { Ok(()) } else { Err(format!("`{value}` is not a label's value")) }
}

pub(super) fn compile(
    selector: &LabelSelector,
    is_claim: bool,
    field: &'static str,
    fleet: &mut Fleet,
) -> Result<Vec<Test>, Misconfigured> {
    check(selector).map_err(|problem| Misconfigured::new("Predicate", format!("{field}: {problem}")))?;
    let mut tests = Vec::new();
    for (key, value) in &selector.match_labels {
        let column = fleet.columns.text(is_claim, key);
        let how = How::In(vec![fleet.columns.word(column, value)]);
        tests.push(Test { column, how, asked: format!("spec.{field} asks for `{key}={value}`") });
    }
    for requirement in &selector.match_expressions {
        let column = fleet.columns.text(is_claim, &requirement.key);
        let words = requirement.values.iter().map(|value| fleet.columns.word(column, value)).collect();
        let how = match requirement.operator {
            Operator::In => How::In(words),
            Operator::NotIn => How::NotIn { words, or_missing: true },
            Operator::Exists => How::Exists,
            Operator::DoesNotExist => How::Missing,
        };
        let values = requirement.values.join(", ");
        let asked =
            format!("spec.{field} asks for `{} {:?} ({values})`", requirement.key, requirement.operator);
        tests.push(Test { column, how, asked });
    }
    Ok(tests)
}

pub(super) fn tiers(tiers: &[String], fleet: &mut Fleet) -> Test {
    let column = fleet.columns.text(false, names::label::TIER);
    let words = tiers.iter().map(|tier| fleet.columns.word(column, tier)).collect();
    Test { column, how: How::In(words), asked: format!("spec.tiers asks for {}", tiers.join(" or ")) }
}

/// Whether a site is selected by both, as groups ask it of the few sites that were selected.
pub(crate) fn selects(labels: &LabelSelector, claims: &LabelSelector, site: &Site) -> bool {
    let (own_labels, own_claims) = crate::fleet::texts(site);
    labels.matches(&own_labels) && claims.matches(&own_claims)
}
