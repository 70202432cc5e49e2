//! Macros over each entry of a list or key of a map. They cost what cel-go's loops cost, of which each round asks
//! whether to go on, and then works on what has come together so far.

use std::sync::Arc;

use super::cost;
use super::eval::{Evaluator, Outcome, Scope, no_overload, settled};
use super::syntax::{Comprehension, Macro};
use super::value::{List, Value};

impl<'a> Evaluator<'_, 'a> {
    pub fn comprehension(&mut self, one: &'a Comprehension, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        if matches!(one.macro_, Macro::OptMap | Macro::OptFlatMap) {
            return self.of_optional(one, scope);
        }
        self.budget.spend(1)?;
        let range = match self.eval(&one.range, scope)? {
            Value::List(list) => list,
            Value::Map(map) => {
                self.budget.spend(map.len())?;
                List::Owned(Arc::new(map.keys()))
            }
            _ => return no_overload(),
        };
        match one.macro_ {
            Macro::All => self.quantified(one, &range, scope, false),
            Macro::Exists => self.quantified(one, &range, scope, true),
            Macro::ExistsOne => self.exactly_one(one, &range, scope),
            _ => self.collected(one, &range, scope),
        }
    }

    /// One entry that decides makes up for others that fail.
    fn quantified(
        &mut self,
        one: &'a Comprehension,
        range: &List<'a>,
        scope: Option<&Scope<'_, 'a>>,
        decisive: bool,
    ) -> Outcome<'a> {
        let mut result = Ok(Value::Bool(!decisive));
        for value in range.iter() {
            // Whether to go on: `exists` negates what it has so far.
            self.budget.charge(2 + u64::from(decisive))?;
            if matches!(result, Ok(Value::Bool(holds)) if holds == decisive) {
                break;
            }
            self.budget.charge(1)?;
            match settled(self.each(one, value, scope))? {
                Ok(Value::Bool(holds)) if holds == decisive => result = Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => result = result.and(no_overload()),
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.budget.charge(1)?;
        result
    }

    fn exactly_one(
        &mut self,
        one: &'a Comprehension,
        range: &List<'a>,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Outcome<'a> {
        let mut count = Ok(0);
        for value in range.iter() {
            match settled(self.each(one, value, scope))? {
                Ok(Value::Bool(true)) => {
                    self.budget.charge(2)?;
                    count = count.map(|count| count + 1);
                }
                Ok(Value::Bool(false)) => {}
                Ok(_) => count = count.and_then(|_| no_overload().map(|_| 0)),
                Err(error) => count = count.and(Err(error)),
            }
        }
        self.budget.charge(2)?;
        count.map(|count| Value::Bool(count == 1))
    }

    /// `map` and `filter`.
    fn collected(
        &mut self,
        one: &'a Comprehension,
        range: &List<'a>,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Outcome<'a> {
        self.budget.charge(cost::LIST)?;
        let mut results = Ok(Vec::new());
        for value in range.iter() {
            let test = if one.macro_ == Macro::Filter { Some(&one.body) } else { one.filter.as_ref() };
            if let Some(test) = test {
                self.budget.spend(1)?;
                let inner = Scope { name: &one.variable, value: value.clone(), outer: scope };
                match settled(self.eval(test, Some(&inner)))? {
                    Ok(Value::Bool(true)) => {}
                    Ok(Value::Bool(false)) => continue,
                    Ok(_) => {
                        results = results.and_then(|_| no_overload().map(|_| Vec::new()));
                        continue;
                    }
                    Err(error) => {
                        results = results.and(Err(error));
                        continue;
                    }
                }
            }
            // A list of one entry is made and put behind what there is.
            self.budget.charge(cost::LIST + 2)?;
            let entry = if one.macro_ == Macro::Filter {
                self.budget.charge(1)?;
                Ok(value)
            } else {
                settled(self.each(one, value, scope))?
            };
            match (&mut results, entry) {
                (Ok(results), Ok(entry)) => results.push(entry),
                (Ok(_), Err(error)) => results = Err(error),
                (Err(_), _) => {}
            }
        }
        self.budget.charge(1)?;
        results.map(Value::list)
    }

    fn each(
        &mut self,
        one: &'a Comprehension,
        value: Value<'a>,
        scope: Option<&Scope<'_, 'a>>,
    ) -> Outcome<'a> {
        self.budget.spend(1)?;
        self.eval(&one.body, Some(&Scope { name: &one.variable, value, outer: scope }))
    }

    /// `optMap` and `optFlatMap`: as cel-go has them, what may be missing is looked at twice where it is there.
    fn of_optional(&mut self, one: &'a Comprehension, scope: Option<&Scope<'_, 'a>>) -> Outcome<'a> {
        let before = self.budget.cost();
        let range = settled(self.eval(&one.range, scope))?;
        let cost = self.budget.cost() - before;
        self.budget.charge(1)?;
        let value = match range? {
            Value::Optional(Some(value)) => *value,
            Value::Optional(None) => {
                self.budget.charge(1)?;
                return Ok(Value::Optional(None));
            }
            _ => return no_overload(),
        };
        self.budget.charge(cost + 1 + cost::LIST)?;
        let result = settled(self.each(one, value, scope))?;
        if one.macro_ == Macro::OptMap {
            self.budget.charge(1)?;
            return result.map(|result| Value::Optional(Some(Box::new(result))));
        }
        match result? {
            Value::Optional(result) => Ok(Value::Optional(result)),
            _ => no_overload(),
        }
    }
}
