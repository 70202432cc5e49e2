//! From a tree and variables to a value, within a budget.

use std::sync::Arc;

use super::cost;
use super::functions;
use super::operators;
use super::syntax::{Call, Expr, Field, Kind};
use super::value::{Map, Text, Value};
use super::{EVALUATION_BUDGET, EvaluationError};

pub type Outcome<'a> = Result<Value<'a>, EvaluationError>;

pub fn failed<'a>(problem: impl Into<String>) -> Outcome<'a> {
    Err(EvaluationError::Failed(problem.into()))
}

pub fn no_overload<'a>() -> Outcome<'a> {
    failed("no such overload")
}

/// How much may really be done for each unit of what is counted.
const WORK_PER_COST: u64 = 10;
/// The most that is done for one evaluation, whatever may be spent.
const MOST_WORK: u64 = 2 * EVALUATION_BUDGET;

/// What may still be spent: what cel-go counts, and, since it counts little for some things that take long here, what
/// is really done.
pub struct Budget {
    limit: u64,
    cost: u64,
    work: u64,
}

impl Budget {
    fn of(limit: u64) -> Self {
        Self { limit, cost: 0, work: 0 }
    }

    /// What is to be taken from what was given.
    fn used(&self) -> u64 {
        self.cost.max(self.work / WORK_PER_COST)
    }

    /// What was counted so far.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// For what costs as much in cel-go.
    pub fn charge(&mut self, cost: u64) -> Result<(), EvaluationError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvaluationError::OutOfBudget) } else { Ok(()) }
    }

    /// For what is done.
    pub fn spend(&mut self, steps: usize) -> Result<(), EvaluationError> {
        self.work = self.work.saturating_add(steps as u64);
        let most = self.limit.saturating_mul(WORK_PER_COST).min(MOST_WORK);
        if self.work > most { Err(EvaluationError::OutOfBudget) } else { Ok(()) }
    }

    /// For looking at a text of so many bytes.
    pub fn spend_text(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        self.spend(bytes.div_ceil(10).max(1))
    }
}

/// The variables in sight, innermost first.
pub struct Scope<'s, 'a> {
    pub name: &'s str,
    pub value: Value<'a>,
    pub outer: Option<&'s Scope<'s, 'a>>,
}

pub fn evaluate<'a>(root: &'a Expr, variables: &[(&str, Value<'a>)], left: &mut u64) -> Outcome<'a> {
    let mut evaluator = Evaluator { variables, budget: Budget::of(*left) };
    let outcome = evaluator.eval(root, None);
    *left = match outcome {
        Err(EvaluationError::OutOfBudget) => 0,
        _ => left.saturating_sub(evaluator.budget.used()),
    };
    outcome
}

pub struct Evaluator<'e, 'a> {
    variables: &'e [(&'e str, Value<'a>)],
    pub budget: Budget,
}

/// What failed may be made up for by what comes later, unless there is nothing left to spend.
pub fn settled(outcome: Outcome<'_>) -> Result<Outcome<'_>, EvaluationError> {
    match outcome {
        Err(EvaluationError::OutOfBudget) => Err(EvaluationError::OutOfBudget),
        outcome => Ok(outcome),
    }
}

impl<'a> Evaluator<'_, 'a> {
    pub fn eval(&mut self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        match &expr.kind {
            Kind::Null => Ok(Value::Null),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Int(number) => Ok(Value::Int(*number)),
            Kind::Uint(number) => Ok(Value::Uint(*number)),
            Kind::Double(number) => Ok(Value::Double(*number)),
            Kind::String(text) => Ok(Value::String(Text::Borrowed(text))),
            Kind::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
            Kind::Variable(_)
            | Kind::Select { .. }
            | Kind::Has { .. }
            | Kind::Index { .. }
            | Kind::Conditional(_) => {
                let outcome = settled(self.attribute(expr, scope))?;
                self.budget.charge(self.own_cost(expr, scope))?;
                outcome
            }
            Kind::List(entries) => {
                self.budget.spend(1 + entries.len())?;
                let list = settled(self.all(entries, scope).map(Value::list))?;
                self.budget.charge(cost::LIST)?;
                list
            }
            Kind::Map(entries) => {
                self.budget.spend(1 + entries.len())?;
                let map = settled(self.map(entries, scope))?;
                self.budget.charge(cost::MAP)?;
                map
            }
            Kind::Not(operand) => match self.eval_and_charge(operand, scope)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                _ => no_overload(),
            },
            Kind::Negate(operand) => match self.eval_and_charge(operand, scope)? {
                Value::Int(number) => {
                    number.checked_neg().map(Value::Int).map_or_else(|| failed("integer overflow"), Ok)
                }
                Value::Double(number) => Ok(Value::Double(-number)),
                _ => no_overload(),
            },
            Kind::And(terms) => self.decided(terms, scope, false),
            Kind::Or(terms) => self.decided(terms, scope, true),
            Kind::Binary { operator, left, right, is_dynamic } => {
                let left = settled(self.eval(left, scope))?;
                let right = settled(self.eval(right, scope))?;
                self.budget.charge(cost::of_operator(*operator, *is_dynamic, &left, &right))?;
                operators::apply(*operator, left?, right?, &mut self.budget)
            }
            Kind::Call(call) => self.call(call, scope),
            Kind::Comprehension(one) => self.comprehension(one, scope),
        }
    }

    /// What naming a value costs, beside the parts of it that are named: nothing for types, and for choices between
    /// values, which are no value of their own.
    fn own_cost(&self, expr: &Expr, scope: Option<&Scope<'_, 'a>>) -> u64 {
        match &expr.kind {
            Kind::Select { operand, .. } | Kind::Has { operand, .. } | Kind::Index { operand, .. } => {
                match operand.kind {
                    Kind::Select { .. } | Kind::Has { .. } | Kind::Index { .. } | Kind::Conditional(_) => {
                        self.own_cost(operand, scope)
                    }
                    _ => 1,
                }
            }
            Kind::Variable(name) => u64::from(self.known(name, scope).is_some()),
            Kind::Conditional(_) => 0,
            _ => 1,
        }
    }

    /// A name, field, entry or choice, without what naming it costs.
    fn attribute(&mut self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        self.budget.spend(1)?;
        match &expr.kind {
            Kind::Variable(name) => self.variable(name, scope),
            Kind::Select { operand, field, is_optional } => {
                let operand = self.attribute(operand, scope)?;
                self.look_up_cost(&operand)?;
                let found = self.select(operand, field, *is_optional);
                self.budget.charge(u64::from(!matches!(found, Ok(Value::Optional(None)))))?;
                found
            }
            Kind::Has { operand, field } => {
                let operand = self.attribute(operand, scope)?;
                self.look_up_cost(&operand)?;
                self.budget.charge(1)?;
                has(&operand, field)
            }
            Kind::Index { operand, index, is_optional } => {
                let operand = self.attribute(operand, scope)?;
                let index = if index.is_attribute() {
                    settled(self.attribute(index, scope))?
                } else {
                    settled(self.eval(index, scope))?
                };
                let found = match index {
                    Ok(index) => settled(self.index(operand, index, *is_optional))?,
                    Err(error) => Err(error),
                };
                self.budget.charge(u64::from(!matches!(found, Ok(Value::Optional(None)))))?;
                found
            }
            Kind::Conditional(three) => match self.eval(&three.0, scope)? {
                Value::Bool(true) => self.attribute(&three.1, scope),
                Value::Bool(false) => self.attribute(&three.2, scope),
                _ => no_overload(),
            },
            _ => self.eval(expr, scope),
        }
    }

    /// Maps that were computed are searched.
    fn look_up_cost(&mut self, value: &Value<'a>) -> Result<(), EvaluationError> {
        match value {
            Value::Map(Map::Owned(entries)) => self.budget.spend(entries.len() / 10),
            _ => Ok(()),
        }
    }

    /// Evaluates what an operation of its own is done with.
    fn eval_and_charge(&mut self, operand: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let operand = settled(self.eval(operand, scope))?;
        self.budget.spend(1)?;
        self.budget.charge(1)?;
        operand
    }

    /// Up to two arguments are evaluated in any case, of more, or before a known pattern, or of functions whose overloads
    /// take different numbers of them, all up to the first that fails; what is never called costs nothing.
    fn call(&mut self, call: &'a Call, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        self.budget.spend(1)?;
        if let ("orValue" | "or", [optional, otherwise]) = (call.function.as_str(), call.arguments.as_slice())
        {
            return match self.eval(optional, scope)? {
                Value::Optional(Some(inner)) if call.function == "orValue" => Ok(*inner),
                Value::Optional(Some(inner)) => Ok(Value::Optional(Some(inner))),
                Value::Optional(None) => self.eval(otherwise, scope),
                _ => no_overload(),
            };
        }
        let count = call.arguments.len();
        let is_of_any_count = call.is_dynamic && matches!(call.function.as_str(), "indexOf" | "lastIndexOf");
        let has_pattern = call.pattern.is_some() && call.function != "matches";
        let is_by_one = count > 2 || has_pattern || is_of_any_count;
        let mut arguments = Vec::with_capacity(count);
        for argument in &call.arguments {
            let argument = settled(self.eval(argument, scope))?;
            let is_last_look = is_by_one && argument.is_err();
            arguments.push(argument);
            if is_last_look {
                break;
            }
        }
        let values: Result<Vec<Value<'a>>, EvaluationError> = arguments.iter().cloned().collect();
        let result = match values {
            Ok(values) => settled(functions::call(call, values, &mut self.budget))?,
            Err(error) => Err(error),
        };
        if arguments.len() == count {
            self.budget.charge(cost::of_call(call, &arguments, &result))?;
        }
        result
    }

    fn known<'k>(&'k self, name: &str, scope: Option<&'k Scope<'_, 'a>>) -> Option<&'k Value<'a>> {
        let mut next = scope;
        while let Some(scope) = next {
            if scope.name == name {
                return Some(&scope.value);
            }
            next = scope.outer;
        }
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn variable(&self, name: &str, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        match (self.known(name, scope), functions::type_named(name)) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(type_)) => Ok(Value::Type(type_)),
            (None, None) => failed(format!("no such attribute(s): {name}")),
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
}

fn has<'a>(operand: &Value<'a>, field: &Field) -> Outcome<'a> {
    match operand {
        Value::Map(map) => Ok(Value::Bool(field_of(map, field).is_some())),
        Value::Optional(None) => Ok(Value::Bool(false)),
        Value::Optional(Some(inner)) => match inner.as_ref() {
            Value::Map(map) => Ok(Value::Bool(field_of(map, field).is_some())),
            _ => no_overload(),
        },
        _ => no_overload(),
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
