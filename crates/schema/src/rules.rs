//! `x-kubernetes-validations`: what CEL rules say of values and of changes to them.

use serde_json::Value;

use crate::cel::{self, EvaluationError, Expression};
use crate::compile::{Error, Node};
use crate::path::Path;
use crate::validate::OldEntries;
use crate::violation::{Reason, Violation, quoted};

/// What all rules of one object may cost together.
const OBJECT_BUDGET: u64 = 10_000_000;
/// The longest message that an expression may make, in bytes.
const LONGEST_MESSAGE: usize = 5120;
/// The most rules at one place of a schema.
const MOST_RULES: usize = 100;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    expression: Expression,
    message: Option<String>,
    message_expression: Option<Expression>,
    reason: Reason,
    /// Below the value, as `.name`; where the violation is told.
    field_path: Option<String>,
    optional_old_self: bool,
    uses_old_self: bool,
}

impl Rule {
    /// Compiles the rules of one value.
    pub fn compile_all(rules: &Value, path: &str) -> Result<Vec<Self>, Error> {
        let error = |problem: &str| Error { path: path.to_owned(), problem: problem.to_owned() };
        let rules = rules.as_array().ok_or_else(|| error("must be an array"))?;
        if rules.len() > MOST_RULES {
            return Err(error("has too many rules"));
        }
        rules
            .iter()
            .enumerate()
            .map(|(index, rule)| Self::compile(rule, &format!("{path}[{index}]")))
            .collect()
    }

    fn compile(rule: &Value, path: &str) -> Result<Self, Error> {
        let error = |word: &str, problem: String| Error { path: format!("{path}.{word}"), problem };
        let text = |word: &str| {
            rule.get(word).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
        };
        let expression = |word: &str| {
            let source = text(word)?;
            let compiled = Expression::compile(source, &["self", "oldSelf"]);
            Some(compiled.map_err(|problem| error(word, format!("compilation failed: {problem}"))))
        };
        let expression_of = expression("rule")
            .ok_or_else(|| error("rule", "Required value: rule is not specified".into()))??;
        let reason = match text("reason") {
            None | Some("FieldValueInvalid") => Reason::Invalid,
            Some("FieldValueForbidden") => Reason::Forbidden,
            Some("FieldValueRequired") => Reason::Required,
            Some("FieldValueDuplicate") => Reason::Duplicate,
            Some(other) => return Err(error("reason", format!("Unsupported value: {other:?}"))),
        };
        let message_expression = expression("messageExpression").transpose()?;
        let uses_old_self = expression_of.mentions("oldSelf");
        Ok(Self {
            expression: expression_of,
            message: text("message").map(str::to_owned),
            message_expression,
            reason,
            field_path: text("fieldPath").map(|path| path.trim_start_matches('.').to_owned()),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
            uses_old_self,
        })
    }

    /// The rule in messages about itself.
    fn name(&self) -> &str {
        self.message.as_deref().unwrap_or(self.expression.source())
    }

    /// What is told where the rule does not hold.
    fn detail(&self, variables: &[(&str, cel::Value<'_>)], budget: &mut u64) -> String {
        let made = self.message_expression.as_ref().and_then(|expression| {
            let made = expression.evaluate(variables, budget).ok()?;
            let text = made.as_str()?.trim();
            let is_fit = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
            is_fit.then(|| text.to_owned())
        });
        made.or_else(|| self.message.clone())
            .unwrap_or_else(|| format!("failed rule: {}", self.expression.source()))
    }
}

/// Finds the rules that do not hold.
pub fn check(root: &Node, new: &Value, old: Option<&Value>, violations: &mut Vec<Violation>) {
    let mut walk = Walk { budget: OBJECT_BUDGET, violations };
    // Without budget, what was found so far is all there is to say.
    let _ = walk.value(root, new, Before { value: old, nearest: None }, &Path::Root);
}

/// What a value was before.
#[derive(Clone, Copy)]
struct Before<'a> {
    value: Option<&'a Value>,
    /// For a value that has no counterpart: the closest value around it that has one, now and before.
    nearest: Option<(&'a Value, &'a Value)>,
}

impl<'a> Before<'a> {
    /// Whether nothing changed here, so that what is wrong was wrong before.
    fn is_same(self, now: &Value) -> bool {
        match (self.value, self.nearest) {
            (Some(before), _) => before == now,
            (None, Some((now, before))) => now == before,
            (None, None) => false,
        }
    }

    fn child(self, now: &'a Value, value: Option<&'a Value>) -> Self {
        Self { value, nearest: self.value.map_or(self.nearest, |before| Some((now, before))) }
    }
}

/// The budget is used up.
struct Exhausted;

struct Walk<'w> {
    budget: u64,
    violations: &'w mut Vec<Violation>,
}

impl Walk<'_> {
    fn value<'a>(
        &mut self,
        node: &'a Node,
        now: &'a Value,
        before: Before<'a>,
        path: &Path<'_>,
    ) -> Result<(), Exhausted> {
        if !node.has_rules || now.is_null() {
            return Ok(());
        }
        for rule in &node.rules {
            self.rule(rule, node, now, before, path)?;
        }
        match now {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let child_before = before.child(now, before.value.and_then(|before| before.get(name)));
                    if let Some(child) = node.properties.get(name) {
                        self.value(child, value, child_before, &Path::Field(path, name))?;
                    } else if let Some(Some(child)) = &node.additional {
                        self.value(child, value, child_before, &Path::Key(path, name))?;
                    }
                }
            }
            Value::Array(entries) => {
                let Some(items) = node.items.as_deref().filter(|items| items.has_rules) else {
                    return Ok(());
                };
                let old_entries = OldEntries::new(node, before.value);
                for (index, entry) in entries.iter().enumerate() {
                    let entry_before = before.child(now, old_entries.get(entry));
                    self.value(items, entry, entry_before, &Path::Index(path, index))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule<'a>(
        &mut self,
        rule: &'a Rule,
        node: &Node,
        now: &'a Value,
        before: Before<'a>,
        path: &Path<'_>,
    ) -> Result<(), Exhausted> {
        if rule.uses_old_self && before.value.is_none() && !rule.optional_old_self {
            return Ok(());
        }
        let mut variables = vec![("self", cel::Value::from(now))];
        if rule.optional_old_self {
            let old = before.value.map(|value| Box::new(cel::Value::from(value)));
            variables.push(("oldSelf", cel::Value::Optional(old)));
        } else if let Some(old) = before.value {
            variables.push(("oldSelf", cel::Value::from(old)));
        }
        let type_ = Some(quoted(node.type_name()));
        let given = self.budget.min(cel::EVALUATION_BUDGET);
        let mut left = given;
        let outcome = rule.expression.evaluate(&variables, &mut left);
        self.budget -= given - left;
        let failure = match outcome {
            Ok(value) if value.as_bool() == Some(true) => return Ok(()),
            Ok(value) if value.as_bool().is_none() => "must evaluate to a bool".to_owned(),
            Ok(_) => {
                if rule.uses_old_self || !before.is_same(now) {
                    self.unmet(rule, &variables, node, path);
                }
                return Ok(());
            }
            Err(EvaluationError::OutOfBudget) => {
                let detail = if given < cel::EVALUATION_BUDGET {
                    "validation failed due to running out of cost budget, no further validation rules will be run".into()
                } else {
                    format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        EvaluationError::OutOfBudget,
                        rule.name()
                    )
                };
                self.violations.push(Violation::new(path.field(), Reason::Invalid, type_, &detail));
                return Err(Exhausted);
            }
            Err(EvaluationError::Failed(problem)) => problem,
        };
        let detail = if failure.starts_with("no such overload") {
            format!(
                "'{failure}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                rule.name()
            )
        } else {
            format!("{failure} evaluating rule: {}", rule.name())
        };
        self.violations.push(Violation::new(path.field(), Reason::Invalid, type_, &detail));
        Ok(())
    }

    fn unmet(&mut self, rule: &Rule, variables: &[(&str, cel::Value<'_>)], node: &Node, path: &Path<'_>) {
        let mut left = self.budget.min(cel::EVALUATION_BUDGET);
        let given = left;
        let detail = rule.detail(variables, &mut left);
        self.budget -= given - left;
        let field = match &rule.field_path {
            Some(below) => Path::Field(path, below).field(),
            None => path.field(),
        };
        // Required and forbidden values are not shown; others show as their type.
        let value = match rule.reason {
            Reason::Required | Reason::Forbidden => None,
            _ => Some(quoted(node.type_name())),
        };
        self.violations.push(Violation::new(field, rule.reason, value, &detail));
    }
}
