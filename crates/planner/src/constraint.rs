//! Constraints in words, as Krake has them: `location is DE`, `tier in (edge, region)`, `load lesser than 5`.
//!
//! Spaces and tabs count for nothing but between a key and a word. A missing label meets no constraint, not even `!=`.

use std::fmt;

use types::SmallMap;

/// Not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It does not follow the grammar.
    #[error(
        "is not a constraint; write for example `location is DE`, `tier in (edge, region)` or `load lesser than 5`"
    )]
    Grammar,
    /// A key or a value has characters or a length that it may not have.
    #[error(
        "has the key or value `{0}`, which is none: letters, digits, `_`, `-` and `.`, at most 63 of them, at the ends no `-` or `.`"
    )]
    Validation(String),
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOperator {
    /// `=`, `==`, `is`.
    Equal,
    /// `!=`, `is not`.
    NotEqual,
    /// `in`.
    In,
    /// `not in`.
    NotIn,
}

/// What must hold of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelConstraint {
    key: String,
    operator: LabelOperator,
    values: Vec<String>,
}

/// How a metric is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricOperator {
    /// `=`, `==`, `is`.
    Equal,
    /// `!=`, `is not`.
    NotEqual,
    /// `>`, `gt`, `greater than`.
    Greater,
    /// `>=`, `=>`, `gte`, `greater than or equal`.
    GreaterOrEqual,
    /// `<`, `lt`, `lesser than`.
    Less,
    /// `<=`, `=<`, `lte`, `lesser than or equal`.
    LessOrEqual,
}

/// What must hold of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricConstraint {
    metric: String,
    operator: MetricOperator,
    text: String,
    value: Option<f64>,
}

/// What is left to be read of a constraint.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Behind a word, if it comes next.
    fn after(self, word: &str) -> Option<Self> {
        self.trimmed().0.strip_prefix(word).map(Self)
    }

    /// Behind several words, if they come next.
    fn after_all(self, words: &[&str]) -> Option<Self> {
        words.iter().try_fold(self, |rest, word| rest.after(word))
    }

    fn trimmed(self) -> Self {
        Self(self.0.trim_start_matches([' ', '\t']))
    }

    /// The name that comes next, if one does, and what is behind it.
    fn name(self) -> Option<(&'a str, Self)> {
        let rest = self.trimmed().0;
        // A tab within a name is part of it, as Krake has it, and then no name is right.
        let end = rest.find([' ', ',', '(', ')', '=', '!']).unwrap_or(rest.len());
        let (name, behind) = rest.split_at_checked(end)?;
        (!name.is_empty()).then_some((name, Self(behind)))
    }

    /// The name that is all there is left.
    fn last_name(self) -> Option<&'a str> {
        let (name, rest) = self.name()?;
        rest.trimmed().0.is_empty().then_some(name)
    }

    /// The names in brackets that are all there is left; commas may stand at the end.
    fn names(self) -> Option<Vec<&'a str>> {
        let mut rest = self.after("(")?;
        let mut names = Vec::new();
        loop {
            let (name, behind) = rest.name()?;
            names.push(name);
            rest = behind;
            let mut commas = 0;
            while let Some(behind) = rest.after(",") {
                (rest, commas) = (behind, commas + 1);
            }
            if let Some(behind) = rest.after(")") {
                return behind.trimmed().0.is_empty().then_some(names);
            }
            // Several commas may only stand at the end.
            if commas != 1 {
                return None;
            }
        }
    }
}

const LONGEST: usize = 4096;

impl LabelConstraint {
    /// Reads a constraint.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let (key, operator, values) = Self::read(text).ok_or(ConstraintError::Grammar)?;
        check_key(key)?;
        for value in &values {
            check_value(value)?;
        }
        let values = values.into_iter().map(str::to_owned).collect();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    fn read(text: &str) -> Option<(&str, LabelOperator, Vec<&str>)> {
        use LabelOperator::{Equal, In, NotEqual, NotIn};
        if text.len() > LONGEST {
            return None;
        }
        let (key, rest) = Rest(text).name()?;
        let listed = [(&["not", "in"][..], NotIn), (&["in"][..], In)];
        for (words, operator) in listed {
            if let Some(values) = rest.after_all(words).and_then(Rest::names) {
                return Some((key, operator, values));
            }
        }
        // `is not DE` is not equal to DE, `is notDE` is equal to notDE: a name must stand apart from `not`.
        let apart = |behind: &Rest| behind.0.starts_with([' ', '\t']);
        if let Some(value) =
            rest.after_all(&["is", "not"]).filter(apart).and_then(|behind| behind.last_name())
        {
            return Some((key, NotEqual, vec![value]));
        }
        let single = [("!=", NotEqual), ("==", Equal), ("=", Equal), ("is", Equal)];
        single.into_iter().find_map(|(word, operator)| {
            let value = rest.after(word)?.last_name()?;
            Some((key, operator, vec![value]))
        })
    }

    /// The label.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is compared.
    pub fn operator(&self) -> LabelOperator {
        self.operator
    }

    /// What it is compared with.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether it holds.
    pub fn matches(&self, labels: &SmallMap) -> bool {
        let Some(value) = labels.get(&self.key) else { return false };
        match self.operator {
            LabelOperator::Equal | LabelOperator::In => self.values.contains(value),
            LabelOperator::NotEqual | LabelOperator::NotIn => !self.values.contains(value),
        }
    }
}

impl fmt::Display for LabelConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(", ");
        match self.operator {
            LabelOperator::Equal => write!(f, "{} is {values}", self.key),
            LabelOperator::NotEqual => write!(f, "{} is not {values}", self.key),
            LabelOperator::In => write!(f, "{} in ({values})", self.key),
            LabelOperator::NotIn => write!(f, "{} not in ({values})", self.key),
        }
    }
}

impl MetricConstraint {
    /// Reads a constraint.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let (metric, operator, value) = Self::read(text).ok_or(ConstraintError::Grammar)?;
        check_key(metric)?;
        check_value(value)?;
        let number = value.parse().ok().filter(|number: &f64| number.is_finite());
        Ok(Self { metric: metric.to_owned(), operator, text: value.to_owned(), value: number })
    }

    fn read(text: &str) -> Option<(&str, MetricOperator, &str)> {
        use MetricOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        if text.len() > LONGEST {
            return None;
        }
        let (metric, rest) = Rest(text).name()?;
        let apart = |behind: &Rest| behind.0.starts_with([' ', '\t']);
        if let Some(value) =
            rest.after_all(&["is", "not"]).filter(apart).and_then(|behind| behind.last_name())
        {
            return Some((metric, NotEqual, value));
        }
        let operators: [(&[&str], MetricOperator); 18] = [
            (&["!="], NotEqual),
            (&["=>"], GreaterOrEqual),
            (&["=<"], LessOrEqual),
            (&["=="], Equal),
            (&["="], Equal),
            (&["is"], Equal),
            (&[">="], GreaterOrEqual),
            (&[">"], Greater),
            (&["gte"], GreaterOrEqual),
            (&["gt"], Greater),
            (&["greater", "than", "or", "equal"], GreaterOrEqual),
            (&["greater", "than"], Greater),
            (&["<="], LessOrEqual),
            (&["<"], Less),
            (&["lte"], LessOrEqual),
            (&["lt"], Less),
            (&["lesser", "than", "or", "equal"], LessOrEqual),
            (&["lesser", "than"], Less),
        ];
        operators.into_iter().find_map(|(words, operator)| {
            let value = rest.after_all(words)?.last_name()?;
            Some((metric, operator, value))
        })
    }

    /// The metric.
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// How it is compared.
    pub fn operator(&self) -> MetricOperator {
        self.operator
    }

    /// What it is compared with, as it was written.
    pub fn value_text(&self) -> &str {
        &self.text
    }

    /// What it is compared with, if that is a number.
    pub fn value(&self) -> Option<f64> {
        self.value
    }

    /// Whether it holds of a value. What is compared with no number holds of none.
    pub fn holds(&self, value: f64) -> bool {
        let Some(bound) = self.value else { return false };
        match self.operator {
            MetricOperator::Equal => value == bound,
            MetricOperator::NotEqual => value != bound,
            MetricOperator::Greater => value > bound,
            MetricOperator::GreaterOrEqual => value >= bound,
            MetricOperator::Less => value < bound,
            MetricOperator::LessOrEqual => value <= bound,
        }
    }
}

impl fmt::Display for MetricConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.operator {
            MetricOperator::Equal => "is",
            MetricOperator::NotEqual => "is not",
            MetricOperator::Greater => "greater than",
            MetricOperator::GreaterOrEqual => "greater than or equal",
            MetricOperator::Less => "lesser than",
            MetricOperator::LessOrEqual => "lesser than or equal",
        };
        write!(f, "{} {words} {}", self.metric, self.text)
    }
}

/// Whether the ends are letters, digits or `_`, and the rest those, `-` and `.`.
fn is_word(text: &str) -> bool {
    let is_edge = |c: char| c.is_alphanumeric() || c == '_';
    text.starts_with(is_edge)
        && text.ends_with(is_edge)
        && text.chars().all(|c| is_edge(c) || c == '-' || c == '.')
}

/// A key is a name of at most 63 characters, perhaps behind a prefix of at most 253 and a slash.
fn check_key(key: &str) -> Result<(), ConstraintError> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| is_word(prefix) && prefix.chars().count() <= 253;
    if is_word(name) && name.chars().count() <= 63 && prefix.is_none_or(is_prefix) {
        Ok(())
    } else {
        Err(ConstraintError::Validation(key.to_owned()))
    }
}

fn check_value(value: &str) -> Result<(), ConstraintError> {
    if is_word(value) && value.chars().count() <= 63 {
        Ok(())
    } else {
        Err(ConstraintError::Validation(value.to_owned()))
    }
}

/// Whether a label may be given to a site, as Krake has it.
///
/// # Errors
/// What is wrong with it.
pub fn check_label(key: &str, value: &str) -> Result<(), ConstraintError> {
    check_key(key)?;
    check_value(value)
}
