//! From a tree and variables to a value, within a budget.

use std::sync::Arc;

use super::EvaluationError;
use super::functions;
use super::operators;
use super::syntax::{Comprehension, Expr, Field, Kind, Macro};
use super::value::{List, Map, Text, Value};

pub type Outcome<'a> = Result<Value<'a>, EvaluationError>;

pub fn failed<'a>(problem: impl Into<String>) -> Outcome<'a> {
    Err(EvaluationError::Failed(problem.into()))
}

pub fn no_overload<'a>() -> Outcome<'a> {
    failed("no such overload")
}

/// What may still be spent.
pub struct Budget<'b>(&'b mut u64);

impl Budget<'_> {
    pub fn spend(&mut self, steps: usize) -> Result<(), EvaluationError> {
        match self.0.checked_sub(steps as u64) {
            Some(left) => {
                *self.0 = left;
                Ok(())
            }
            None => {
                *self.0 = 0;
                Err(EvaluationError::OutOfBudget)
            }
        }
    }

    /// For looking at a text of so many bytes.
    pub fn spend_text(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        self.spend(bytes.div_ceil(10).max(1))
    }
}

/// The variables in sight, innermost first.
struct Scope<'s, 'a> {
    name: &'s str,
    value: Value<'a>,
    outer: Option<&'s Scope<'s, 'a>>,
}

pub fn evaluate<'a>(root: &'a Expr, variables: &[(&str, Value<'a>)], budget: &mut u64) -> Outcome<'a> {
    Evaluator { variables, budget: Budget(budget) }.eval(root, None)
}

struct Evaluator<'e, 'a> {
    variables: &'e [(&'e str, Value<'a>)],
    budget: Budget<'e>,
}

impl<'a> Evaluator<'_, 'a> {
    fn eval(&mut self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        match &expr.kind {
            Kind::Null => Ok(Value::Null),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Int(number) => Ok(Value::Int(*number)),
            Kind::Uint(number) => Ok(Value::Uint(*number)),
            Kind::Double(number) => Ok(Value::Double(*number)),
            Kind::String(text) => Ok(Value::String(Text::Borrowed(text))),
            Kind::Variable(name) => {
                self.budget.spend(1)?;
                self.variable(name, scope)
            }
            Kind::List(entries) => {
                self.budget.spend(1 + entries.len())?;
                self.all(entries, scope).map(Value::list)
            }
            Kind::Map(entries) => {
                self.budget.spend(1 + entries.len())?;
                self.map(entries, scope)
            }
            Kind::Select { operand, field, is_optional } => {
                let operand = self.eval(operand, scope)?;
                self.budget.spend(1)?;
                self.select(operand, field, *is_optional)
            }
            Kind::Has { operand, field } => match self.eval_and_spend(operand, scope)? {
                Value::Map(map) => Ok(Value::Bool(field_of(&map, field).is_some())),
                Value::Optional(None) => Ok(Value::Bool(false)),
                Value::Optional(Some(inner)) => match *inner {
                    Value::Map(map) => Ok(Value::Bool(field_of(&map, field).is_some())),
                    _ => no_overload(),
                },
                _ => no_overload(),
            },
            Kind::Index { operand, index, is_optional } => {
                let operand = self.eval(operand, scope)?;
                let index = self.eval(index, scope)?;
                self.index(operand, index, *is_optional)
            }
            Kind::Not(operand) => match self.eval_and_spend(operand, scope)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                _ => no_overload(),
            },
            Kind::Negate(operand) => match self.eval_and_spend(operand, scope)? {
                Value::Int(number) => {
                    number.checked_neg().map(Value::Int).map_or_else(|| failed("integer overflow"), Ok)
                }
                Value::Double(number) => Ok(Value::Double(-number)),
                _ => no_overload(),
            },
            Kind::And(terms) => self.decided(terms, scope, false),
            Kind::Or(terms) => self.decided(terms, scope, true),
            Kind::Binary(operator, left, right) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                operators::apply(*operator, left, right, &mut self.budget)
            }
            Kind::Conditional(three) => match self.eval(&three.0, scope)? {
                Value::Bool(true) => self.eval(&three.1, scope),
                Value::Bool(false) => self.eval(&three.2, scope),
                _ => no_overload(),
            },
            Kind::Call(call) => {
                let arguments = self.all(&call.arguments, scope)?;
                self.budget.spend(1)?;
                functions::call(call, arguments, &mut self.budget)
            }
            Kind::Comprehension(one) => self.comprehension(one, scope),
        }
    }

    /// Evaluates what an operation of its own is done with.
    fn eval_and_spend(&mut self, operand: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let operand = self.eval(operand, scope)?;
        self.budget.spend(1)?;
        Ok(operand)
    }

    fn variable(&mut self, name: &str, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let mut next = scope;
        while let Some(scope) = next {
            if scope.name == name {
                return Ok(scope.value.clone());
            }
            next = scope.outer;
        }
        if let Some((_, value)) = self.variables.iter().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match functions::type_named(name) {
            Some(type_) => Ok(Value::Type(type_)),
            None => failed(format!("no such attribute(s): {name}")),
        }
    }

    fn all(
        &mut self,
        entries: &'a [Expr],
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<Vec<Value<'a>>, EvaluationError> {
        entries.iter().map(|entry| self.eval(entry, scope)).collect()
    }

    fn map(&mut self, entries: &'a [(Expr, Expr)], scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let mut built: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.eval(key, scope)?;
            if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::String(_)) {
                return failed(format!("unsupported key type: {}", key.type_name()));
            }
            for (earlier, _) in &built {
                if operators::equal(earlier, &key, &mut self.budget)? {
                    return failed("Failed with repeated key");
                }
            }
            built.push((key, self.eval(value, scope)?));
        }
        Ok(Value::Map(Map::Owned(Arc::new(built))))
    }

    /// `&&` and `||`: one term that decides makes up for others that fail.
    fn decided(&mut self, terms: &'a [Expr], scope: Option<&Scope<'_, 'a>>, decisive: bool) -> Outcome<'a> {
        let mut failure = None;
        for term in terms {
            match self.eval(term, scope) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failure = failure.or(no_overload().err()),
                Err(EvaluationError::OutOfBudget) => return Err(EvaluationError::OutOfBudget),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn select(&mut self, operand: Value<'a>, field: &Field, is_optional: bool) -> Outcome<'a> {
        let found = |found: Option<Value<'a>>| Ok(Value::Optional(found.map(Box::new)));
        match operand {
            Value::Map(map) if is_optional => found(field_of(&map, field)),
            Value::Map(map) => {
                field_of(&map, field).map_or_else(|| failed(format!("no such key: {}", field.name)), Ok)
            }
            // A field of something that may be missing may be missing as well.
            Value::Optional(None) => found(None),
            Value::Optional(Some(inner)) => match *inner {
                Value::Map(map) => found(field_of(&map, field)),
                _ => no_overload(),
            },
            _ => no_overload(),
        }
    }

    fn index(&mut self, operand: Value<'a>, index: Value<'a>, is_optional: bool) -> Outcome<'a> {
        let (operand, is_optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (*inner, true),
            operand => (operand, is_optional),
        };
        let (found, problem) = match &operand {
            Value::List(list) => {
                self.budget.spend(1)?;
                let position = match index {
                    Value::Int(number) => number,
                    Value::Uint(number) => i64::try_from(number).unwrap_or(i64::MAX),
                    Value::Double(number) if number.fract() == 0.0 => number as i64,
                    _ => return no_overload(),
                };
                let found = usize::try_from(position).ok().and_then(|position| list.get(position));
                (found, format!("index out of bounds: {position}"))
            }
            Value::Map(map) => {
                let found = entry(map, &index, &mut self.budget)?;
                (found, format!("no such key: {}", functions::to_text(&index).unwrap_or_default()))
            }
            _ => return no_overload(),
        };
        match found {
            found if is_optional => Ok(Value::Optional(found.map(Box::new))),
            Some(value) => Ok(value),
            None => failed(problem),
        }
    }

    fn comprehension(&mut self, one: &'a Comprehension, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let range = match self.eval_and_spend(&one.range, scope)? {
            Value::List(list) => list,
            Value::Map(map) => {
                self.budget.spend(map.len())?;
                List::Owned(Arc::new(map.keys()))
            }
            Value::Optional(inner) if matches!(one.macro_, Macro::OptMap | Macro::OptFlatMap) => {
                let Some(value) = inner else { return Ok(Value::Optional(None)) };
                let inner = Scope { name: &one.variable, value: *value, outer: scope };
                let result = self.eval(&one.body, Some(&inner))?;
                return match (one.macro_, result) {
                    (Macro::OptMap, result) => Ok(Value::Optional(Some(Box::new(result)))),
                    (_, Value::Optional(result)) => Ok(Value::Optional(result)),
                    _ => no_overload(),
                };
            }
            _ => return no_overload(),
        };
        match one.macro_ {
            Macro::All => self.quantified(one, &range, scope, false),
            Macro::Exists => self.quantified(one, &range, scope, true),
            Macro::ExistsOne => {
                let mut count = 0;
                for value in range.iter() {
                    count += usize::from(self.holds(&one.body, one, &value, scope)?);
                }
                Ok(Value::Bool(count == 1))
            }
            Macro::Filter => {
                let mut kept = Vec::new();
                for value in range.iter() {
                    if self.holds(&one.body, one, &value, scope)? {
                        kept.push(value);
                    }
                }
                Ok(Value::list(kept))
            }
            Macro::Map => {
                let mut results = Vec::new();
                for value in range.iter() {
                    let is_taken = match &one.filter {
                        Some(filter) => self.holds(filter, one, &value, scope)?,
                        None => true,
                    };
                    if is_taken {
                        self.budget.spend(1)?;
                        let inner = Scope { name: &one.variable, value, outer: scope };
                        results.push(self.eval(&one.body, Some(&inner))?);
                    }
                }
                Ok(Value::list(results))
            }
            Macro::OptMap | Macro::OptFlatMap => no_overload(),
        }
    }

    fn quantified(
        &mut self,
        one: &'a Comprehension,
        range: &List<'a>,
        scope: Option<&Scope<'_, 'a>>,
        decisive: bool,
    ) -> Outcome<'a> {
        let mut failure = None;
        for value in range.iter() {
            match self.holds(&one.body, one, &value, scope) {
                Ok(holds) if holds == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(EvaluationError::OutOfBudget) => return Err(EvaluationError::OutOfBudget),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn holds(
        &mut self,
        test: &'a Expr,
        one: &'a Comprehension,
        value: &Value<'a>,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Result<bool, EvaluationError> {
        self.budget.spend(1)?;
        let inner = Scope { name: &one.variable, value: value.clone(), outer: scope };
        match self.eval(test, Some(&inner))? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(EvaluationError::Failed("no such overload".into())),
        }
    }
}

fn field_of<'a>(map: &Map<'a>, field: &Field) -> Option<Value<'a>> {
    map.get(&field.name).or_else(|| field.unescaped.as_ref().and_then(|name| map.get(name)))
}

/// The value of a key of any type.
pub fn entry<'a>(
    map: &Map<'a>,
    key: &Value<'_>,
    budget: &mut Budget,
) -> Result<Option<Value<'a>>, EvaluationError> {
    budget.spend(1)?;
    match (map, key) {
        (Map::Json(fields), Value::String(text)) => Ok(fields.get(text.as_str()).map(Value::from)),
        (Map::Json(_), _) => Ok(None),
        (Map::Owned(entries), _) => {
            for (known, value) in entries.iter() {
                if operators::equal(known, key, budget)? {
                    return Ok(Some(value.clone()));
                }
            }
            Ok(None)
        }
    }
}
