//! What policies ask of sites, one column a question.

use std::collections::HashMap;
use std::sync::Arc;

use schema::cel::{Expression, Value as CelValue};
use serde_json::{Map, Value, json};
use types::{Amount, PlacementScore, Site, SmallMap, names::label};

use super::{Dialect, Slot};

/// What all expressions of one site may cost together.
const BUDGET: u64 = 1_000_000;

/// A text by which sites are selected: 0 where a site has none.
#[derive(Debug)]
struct Texts {
    is_claim: bool,
    key: String,
    rows: Vec<u32>,
    words: HashMap<Arc<str>, u32>,
    spelled: Vec<Arc<str>>,
}

/// A resource of a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Amounts {
    /// What can be given away; NaN where it isn't known.
    pub allocatable: f64,
    /// What there is; NaN where it isn't known.
    pub capacity: f64,
}

const UNKNOWN: Amounts = Amounts { allocatable: f64::NAN, capacity: f64::NAN };

/// A score that others told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    /// Whether the resource is there.
    pub is_told: bool,
    pub value: i32,
    /// In seconds; `i64::MAX` for ever.
    pub valid_until: i64,
}

const UNTOLD: Told = Told { is_told: false, value: 0, valid_until: i64::MAX };

/// All columns. Those of one kind are told apart by their index.
#[derive(Default)]
pub(crate) struct Columns {
    rows: usize,
    texts: Vec<Texts>,
    resources: Vec<(String, Vec<Amounts>)>,
    truths: Vec<(Expression, Vec<bool>)>,
    scores: Vec<((String, String), Vec<Told>)>,
    missing: bool,
}

impl Columns {
    /// One more row.
    pub fn grow(&mut self) {
        self.rows += 1;
        self.texts.iter_mut().for_each(|column| column.rows.push(0));
        self.resources.iter_mut().for_each(|(_, rows)| rows.push(UNKNOWN));
        self.truths.iter_mut().for_each(|(_, rows)| rows.push(false));
        self.scores.iter_mut().for_each(|(_, rows)| rows.push(UNTOLD));
    }

    pub fn are_missing(&self) -> bool {
        self.missing
    }

    pub fn filled(&mut self) {
        self.missing = false;
    }

    /// The column of a label or a claim.
    pub fn text(&mut self, is_claim: bool, key: &str) -> usize {
        let known = self.texts.iter().position(|column| column.is_claim == is_claim && column.key == key);
        known.unwrap_or_else(|| {
            self.missing = true;
            self.texts.push(Texts {
                is_claim,
                key: key.to_owned(),
                rows: vec![0; self.rows],
                words: HashMap::new(),
                spelled: vec![],
            });
            self.texts.len() - 1
        })
    }

    /// The number that stands for a word in a column of texts; never 0.
    pub fn word(&mut self, column: usize, word: &str) -> u32 {
        self.texts.get_mut(column).map_or(u32::MAX, |column| column.word(word))
    }

    /// The column of a resource.
    pub fn resource(&mut self, name: &str) -> usize {
        let known = self.resources.iter().position(|(known, _)| known == name);
        known.unwrap_or_else(|| {
            self.missing = true;
            self.resources.push((name.to_owned(), vec![UNKNOWN; self.rows]));
            self.resources.len() - 1
        })
    }

    /// The column of an expression.
    pub fn truth(&mut self, expression: Expression) -> usize {
        let known = self.truths.iter().position(|(known, _)| known.source() == expression.source());
        known.unwrap_or_else(|| {
            self.missing = true;
            self.truths.push((expression, vec![false; self.rows]));
            self.truths.len() - 1
        })
    }

    /// The column of a told score.
    pub fn score(&mut self, resource: &str, score: &str) -> usize {
        let known = self.scores.iter().position(|((known, name), _)| known == resource && name == score);
        known.unwrap_or_else(|| {
            self.missing = true;
            self.scores.push(((resource.to_owned(), score.to_owned()), vec![UNTOLD; self.rows]));
            self.scores.len() - 1
        })
    }

    pub fn word_at(&self, column: usize, slot: Slot) -> u32 {
        self.texts.get(column).and_then(|column| column.rows.get(slot as usize)).copied().unwrap_or(0)
    }

    pub fn text_at(&self, column: usize, slot: Slot) -> Option<&str> {
        let column = self.texts.get(column)?;
        let word = *column.rows.get(slot as usize)?;
        column.spelled.get((word as usize).checked_sub(1)?).map(AsRef::as_ref)
    }

    pub fn key_of(&self, column: usize) -> &str {
        self.texts.get(column).map_or("", |column| &column.key)
    }

    pub fn is_claim(&self, column: usize) -> bool {
        self.texts.get(column).is_some_and(|column| column.is_claim)
    }

    pub fn amounts_at(&self, column: usize, slot: Slot) -> Amounts {
        self.resources.get(column).and_then(|(_, rows)| rows.get(slot as usize)).copied().unwrap_or(UNKNOWN)
    }

    pub fn truth_at(&self, column: usize, slot: Slot) -> bool {
        self.truths.get(column).and_then(|(_, rows)| rows.get(slot as usize)).copied().unwrap_or(false)
    }

    pub fn expression(&self, column: usize) -> &str {
        self.truths.get(column).map_or("", |(expression, _)| expression.source())
    }

    pub fn score_at(&self, column: usize, slot: Slot) -> Told {
        self.scores.get(column).and_then(|(_, rows)| rows.get(slot as usize)).copied().unwrap_or(UNTOLD)
    }

    /// Writes a row into all columns.
    pub fn fill_row(&mut self, slot: Slot, site: &Site, told: &[&PlacementScore], dialect: Dialect) {
        let row = slot as usize;
        for column in &mut self.texts {
            column.fill(row, site);
        }
        for (name, rows) in &mut self.resources {
            if let Some(cell) = rows.get_mut(row) {
                *cell = amounts(site, name);
            }
        }
        for ((resource, score), rows) in &mut self.scores {
            if let Some(cell) = rows.get_mut(row) {
                *cell = told_score(told, resource, score);
            }
        }
        if self.truths.is_empty() {
            return;
        }
        let document = document(site, told, dialect);
        let mut budget = BUDGET;
        for (expression, rows) in &mut self.truths {
            let holds = holds(expression, &document, dialect.variable, &mut budget);
            if let Some(cell) = rows.get_mut(row) {
                *cell = holds;
            }
        }
    }
}

impl Texts {
    fn word(&mut self, word: &str) -> u32 {
        if let Some(known) = self.words.get(word) {
            return *known;
        }
        let word: Arc<str> = word.into();
        self.spelled.push(word.clone());
        let number = u32::try_from(self.spelled.len()).unwrap_or(u32::MAX);
        self.words.insert(word, number);
        number
    }

    fn fill(&mut self, row: usize, site: &Site) {
        let text = if self.is_claim {
            let claim = site.status.claims.iter().find(|claim| claim.name == self.key);
            claim.map(|claim| claim.value.as_str())
        } else if self.key == label::TIER {
            Some(site.spec.tier.as_str())
        } else {
            site.metadata.labels.get(&self.key).map(String::as_str)
        };
        let word = text.map_or(0, |text| self.word(text));
        if let Some(cell) = self.rows.get_mut(row) {
            *cell = word;
        }
    }
}

/// A resource as a site states it: what is allocatable is all there is where it doesn't say.
fn amounts(site: &Site, name: &str) -> Amounts {
    let capacity = &site.status.capacity;
    let extended = capacity.extended.get(name).map(Amount::value);
    let capacity = extended.or(match name {
        "cpu" if capacity.cpus > 0 => Some(f64::from(capacity.cpus)),
        "memory" if capacity.memory_bytes > 0 => Some(capacity.memory_bytes as f64),
        _ => None,
    });
    let allocatable = site.status.allocatable.get(name).map(Amount::value);
    let allocatable = allocatable.or(if site.status.allocatable.is_empty() { capacity } else { None });
    Amounts { allocatable: allocatable.unwrap_or(f64::NAN), capacity: capacity.unwrap_or(f64::NAN) }
}

fn told_score(told: &[&PlacementScore], resource: &str, score: &str) -> Told {
    let Some(told) = told.iter().find(|told| told.name() == resource) else { return UNTOLD };
    // Of two of the same name, the later counts.
    let value =
        told.spec.scores.iter().rev().find(|entry| entry.name == score).map_or(0, |entry| entry.value);
    let valid_until = told.spec.valid_until.map_or(i64::MAX, |until| until.0.as_second());
    Told { is_told: true, value, valid_until }
}

/// A site as expressions see it, with what others told of it.
fn document(site: &Site, told: &[&PlacementScore], dialect: Dialect) -> Value {
    let mut document = (dialect.document)(site);
    if let Some(fields) = document.as_object_mut() {
        let scores: Map<String, Value> =
            told.iter().map(|told| (told.name().to_owned(), json!(told.spec.scores))).collect();
        fields.insert("scores".to_owned(), Value::Object(scores));
    }
    document
}

fn holds(expression: &Expression, document: &Value, variable: &str, budget: &mut u64) -> bool {
    let value = expression.evaluate(&[(variable, CelValue::from(document))], budget);
    value.ok().and_then(|value| value.as_bool()).unwrap_or(false)
}

/// Whether all expressions hold of a document, and what that cost, which is more than `budget` where it was cut short.
pub fn holds_all(expressions: &[Expression], document: &Value, variable: &str, budget: u64) -> (bool, u64) {
    let mut left = budget;
    for expression in expressions {
        let value = expression.evaluate(&[(variable, CelValue::from(document))], &mut left);
        match value {
            Ok(value) if value.as_bool() == Some(true) => {}
            Err(schema::cel::EvaluationError::OutOfBudget) => return (false, budget + 1),
            _ => return (false, budget - left),
        }
    }
    (true, budget - left)
}

/// Labels and claims of a site outside a fleet.
pub(crate) fn texts(site: &Site) -> (SmallMap, SmallMap) {
    let mut labels = site.metadata.labels.clone();
    labels.insert(label::TIER.to_owned(), site.spec.tier.clone());
    let claims = site.status.claims.iter().map(|claim| (claim.name.clone(), claim.value.clone())).collect();
    (labels, claims)
}
