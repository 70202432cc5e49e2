//! A placement's spec, compiled against the columns of a fleet.

mod selector;
pub mod taints;
mod weights;

use schema::cel::Expression;
use types::{Migration, PlacementSpec, Toleration, TolerationOperator};

use crate::constraint::{LabelConstraint, LabelOperator, MetricConstraint};
use crate::fleet::{Fleet, Slot};
use crate::groups;

pub(crate) use selector::{How, Test, check as check_selector, selects};
pub(crate) use weights::{Term, TermKind};

/// A spec that can't be followed. What was decided before is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Misconfigured {
    /// What can't follow it.
    pub plugin: &'static str,
    /// What is wrong, and where.
    pub message: String,
}

impl Misconfigured {
    pub(crate) fn new(plugin: &'static str, message: impl Into<String>) -> Self {
        Self { plugin, message: message.into() }
    }
}

/// One way to be selected.
#[derive(Debug, Default)]
pub(crate) struct Way {
    pub tests: Vec<Test>,
    /// Columns of expressions.
    pub truths: Vec<usize>,
}

/// What a site must have free.
#[derive(Debug)]
pub(crate) struct Request {
    pub resource: String,
    pub column: usize,
    pub amount: f64,
}

/// A label over whose values sites are spread.
#[derive(Debug)]
pub(crate) struct SpreadOver {
    pub column: usize,
    pub max_skew: u32,
    pub is_hard: bool,
}

/// A constraint of a metric, by its index.
#[derive(Debug)]
pub(crate) struct MetricLimit {
    pub metric: usize,
    pub constraint: MetricConstraint,
}

/// What a placement asks of sites, ready to be asked of any number of them.
#[derive(Debug)]
pub struct Policy {
    pub(crate) spec: PlacementSpec,
    /// From `siteSelector`, `tiers` and `constraints.labels`: all must hold.
    pub(crate) must: Vec<Test>,
    pub(crate) ways: Vec<Way>,
    pub(crate) terms: Vec<Term>,
    pub(crate) requests: Vec<Request>,
    pub(crate) pinned: Vec<Slot>,
    pub(crate) spread: Vec<SpreadOver>,
    /// The column of the topology of each of `antiAffinity`, if it has one.
    pub(crate) away: Vec<Option<usize>>,
    pub(crate) limits: Vec<MetricLimit>,
}

impl Policy {
    /// Compiles a spec. Afterwards the fleet must be filled, for it may ask what none asked before.
    ///
    /// # Errors
    /// [`Misconfigured`] says what can't be followed.
    pub fn compile(spec: &PlacementSpec, fleet: &mut Fleet) -> Result<Self, Misconfigured> {
        let mut must = selector::compile(&spec.site_selector, false, "siteSelector", fleet)?;
        if !spec.tiers.is_empty() {
            must.push(selector::tiers(&spec.tiers, fleet));
        }
        for constraint in &spec.constraints.labels {
            must.push(label_constraint(constraint, fleet)?);
        }
        let ways = spec
            .predicates
            .iter()
            .map(|predicate| {
                let mut tests = selector::compile(&predicate.label_selector, false, "labelSelector", fleet)?;
                tests.extend(selector::compile(&predicate.claim_selector, true, "claimSelector", fleet)?);
                let truths = predicate.cel_expressions.iter().map(|source| truth(source, fleet));
                Ok(Way { tests, truths: truths.collect::<Result<_, Misconfigured>>()? })
            })
            .collect::<Result<_, Misconfigured>>()?;
        check_tolerations(&spec.tolerations)?;
        spec.decision_groups.as_ref().map_or(Ok(()), groups::check)?;
        let terms = weights::terms(spec, fleet)?;
        let requests = spec.requests.iter().map(|(resource, amount)| Request {
            resource: resource.clone(),
            column: fleet.columns.resource(resource),
            amount: amount.value(),
        });
        let requests = requests.collect();
        let pinned = spec.pinned_sites.iter().map(|site| fleet.slot_for(site)).collect();
        let spread = spec
            .spread
            .iter()
            .map(|spread| SpreadOver {
                column: fleet.columns.text(false, &spread.topology_key),
                max_skew: spread.max_skew.max(1),
                is_hard: spread.when_unsatisfiable == types::WhenUnsatisfiable::DoNotSchedule,
            })
            .collect();
        let away = spec
            .anti_affinity
            .iter()
            .map(|away| {
                let key = away.topology_key.as_str();
                (!key.is_empty()).then(|| fleet.columns.text(false, key))
            })
            .collect();
        let limits =
            spec.constraints.metrics.iter().map(|text| limit(text, spec)).collect::<Result<_, _>>()?;
        Ok(Self { spec: spec.clone(), must, ways, terms, requests, pinned, spread, away, limits })
    }

    /// What it was compiled from.
    pub fn spec(&self) -> &PlacementSpec {
        &self.spec
    }

    /// How many sites are wanted; `None` for all that match.
    pub fn wanted(&self) -> Option<usize> {
        let wanted = self.spec.number_of_sites.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        wanted.or((!self.pinned.is_empty()).then_some(self.pinned.len()))
    }

    pub(crate) fn migration(&self) -> &Migration {
        &self.spec.migration
    }

    /// What a better site has to win by, in points of the weighted sum.
    pub(crate) fn hysteresis(&self) -> i64 {
        let weights: i64 = self.terms.iter().map(|term| term.weight.abs()).sum();
        let migration = self.migration();
        let points = (migration.minimum_gain + migration.cost).clamp(0.0, 400.0);
        (points * weights as f64).round() as i64
    }
}

fn label_constraint(text: &str, fleet: &mut Fleet) -> Result<Test, Misconfigured> {
    let constraint = LabelConstraint::parse(text).map_err(|problem| {
        Misconfigured::new("Constraints", format!("spec.constraints.labels: `{text}` {problem}"))
    })?;
    let column = fleet.columns.text(false, constraint.key());
    let words = constraint.values().iter().map(|value| fleet.columns.word(column, value)).collect();
    let how = match constraint.operator() {
        LabelOperator::Equal | LabelOperator::In => How::In(words),
        LabelOperator::NotEqual | LabelOperator::NotIn => How::NotIn { words, or_missing: false },
    };
    Ok(Test { column, how, asked: format!("spec.constraints.labels asks for `{constraint}`") })
}

fn limit(text: &str, spec: &PlacementSpec) -> Result<MetricLimit, Misconfigured> {
    let wrong = |problem: String| {
        Misconfigured::new("Constraints", format!("spec.constraints.metrics: `{text}` {problem}"))
    };
    let constraint = MetricConstraint::parse(text).map_err(|problem| wrong(problem.to_string()))?;
    let metric = spec.metrics.iter().position(|metric| metric.name == constraint.metric());
    let metric = metric.ok_or_else(|| {
        wrong(format!("names a metric that spec.metrics does not have: add `{}` there", constraint.metric()))
    })?;
    if constraint.value().is_none() {
        return Err(wrong(format!("compares with `{}`, which is no number", constraint.value_text())));
    }
    Ok(MetricLimit { metric, constraint })
}

fn truth(source: &str, fleet: &mut Fleet) -> Result<usize, Misconfigured> {
    let compiled = Expression::compile_over_object(source, fleet.dialect.variable);
    let expression = compiled.map_err(|error| {
        Misconfigured::new("Predicate", format!("celExpressions: `{source}` does not compile: {error}"))
    })?;
    Ok(fleet.columns.truth(expression))
}

fn check_tolerations(tolerations: &[Toleration]) -> Result<(), Misconfigured> {
    let has_value =
        |toleration: &Toleration| toleration.value.as_ref().is_some_and(|value| !value.is_empty());
    for toleration in tolerations {
        let problem = match toleration.operator {
            Some(TolerationOperator::Equal) if toleration.key.is_empty() => {
                "If the key is empty, operator must be Exists."
            }
            Some(TolerationOperator::Exists) if has_value(toleration) => {
                "If the operator is Exists, the value should be empty."
            }
            _ => continue,
        };
        return Err(Misconfigured::new("TaintToleration", problem));
    }
    Ok(())
}
