//! Functions of lists.

use std::cmp::Ordering;

use super::eval::{Budget, Outcome, failed, no_overload};
use super::functions;
use super::operators::{self, contains, equal, order};
use super::syntax::Operator;
use super::value::{List, Value};

pub fn call<'a>(function: &str, list: &List<'a>, rest: &[Value<'a>], budget: &mut Budget) -> Outcome<'a> {
    budget.spend(list.len())?;
    match (function, rest) {
        ("isSorted", []) => {
            for index in 1..list.len() {
                let (Some(earlier), Some(later)) = (list.get(index - 1), list.get(index)) else { continue };
                match order(&earlier, &later, budget)? {
                    Some(Ordering::Greater) => return Ok(Value::Bool(false)),
                    Some(_) => {}
                    None => return no_overload(),
                }
            }
            Ok(Value::Bool(true))
        }
        ("sum", []) => {
            let mut sum = list.get(0).unwrap_or(Value::Int(0));
            if sum.as_f64().is_none() && !matches!(sum, Value::Duration(_)) {
                return no_overload();
            }
            for value in list.iter().skip(1) {
                sum = operators::apply(Operator::Add, sum, value, budget)?;
            }
            Ok(sum)
        }
        ("min" | "max", []) => {
            extreme(&list.iter().collect::<Vec<_>>(), function == "max", budget).or_else(|error| {
                if list.is_empty() { failed(format!("{function} called on empty list")) } else { Err(error) }
            })
        }
        ("indexOf" | "lastIndexOf", [wanted]) => {
            let mut found = -1;
            for (index, value) in list.iter().enumerate() {
                if equal(&value, wanted, budget)? {
                    found = index as i64;
                    if function == "indexOf" {
                        break;
                    }
                }
            }
            Ok(Value::Int(found))
        }
        ("join", [] | [Value::String(_)]) => {
            let separator = rest.first().and_then(Value::as_str).unwrap_or_default();
            let mut text = String::new();
            for (index, value) in list.iter().enumerate() {
                let Some(part) = value.as_str() else { return no_overload() };
                budget.spend_text(part.len() + separator.len())?;
                if index > 0 {
                    text.push_str(separator);
                }
                text.push_str(part);
            }
            Ok(Value::from(text))
        }
        ("reverse", []) => {
            let mut entries: Vec<Value<'a>> = list.iter().collect();
            entries.reverse();
            Ok(Value::list(entries))
        }
        ("sets.contains", [Value::List(part)]) => includes(&Value::List(list.clone()), part, budget),
        ("sets.equivalent", [Value::List(other)]) => {
            match includes(&Value::List(list.clone()), other, budget)? {
                Value::Bool(true) => includes(&Value::List(other.clone()), list, budget),
                not => Ok(not),
            }
        }
        ("sets.intersects", [other @ Value::List(_)]) => {
            functions::any_in(list, other, budget).map(Value::Bool)
        }
        _ => no_overload(),
    }
}

fn includes<'a>(whole: &Value<'a>, part: &List<'a>, budget: &mut Budget) -> Outcome<'a> {
    for entry in part.iter() {
        if !contains(whole, &entry, budget)? {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

/// The least of some values, or the greatest.
pub fn extreme<'a>(values: &[Value<'a>], is_greatest: bool, budget: &mut Budget) -> Outcome<'a> {
    let Some((mut best, rest)) = values.split_first() else { return no_overload() };
    for value in rest {
        match order(value, best, budget)? {
            Some(Ordering::Greater) if is_greatest => best = value,
            Some(Ordering::Less) if !is_greatest => best = value,
            Some(_) => {}
            None => return no_overload(),
        }
    }
    Ok(best.clone())
}
