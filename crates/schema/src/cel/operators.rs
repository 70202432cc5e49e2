//! Arithmetic, equality and order.

use std::cmp::Ordering;

use jiff::SignedDuration;

use super::EvaluationError;
use super::eval::{Budget, Outcome, failed, no_overload};
use super::syntax::Operator;
use super::value::Value;

pub fn apply<'a>(operator: Operator, left: Value<'a>, right: Value<'a>, budget: &mut Budget) -> Outcome<'a> {
    match operator {
        Operator::Equal => Ok(Value::Bool(equal(&left, &right, budget)?)),
        Operator::NotEqual => Ok(Value::Bool(!equal(&left, &right, budget)?)),
        Operator::In => Ok(Value::Bool(contains(&right, &left, budget)?)),
        Operator::Less => ordered(&left, &right, budget, Ordering::is_lt),
        Operator::LessOrEqual => ordered(&left, &right, budget, Ordering::is_le),
        Operator::Greater => ordered(&left, &right, budget, Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(&left, &right, budget, Ordering::is_ge),
        _ => {
            budget.spend(1)?;
            arithmetic(operator, left, right, budget)
        }
    }
}

fn arithmetic<'a>(operator: Operator, left: Value<'a>, right: Value<'a>, budget: &mut Budget) -> Outcome<'a> {
    match (&left, &right) {
        (Value::Int(left), Value::Int(right)) => whole(operator, *left, *right),
        (Value::Uint(left), Value::Uint(right)) => unsigned(operator, *left, *right),
        // A JSON number without a fraction reads as an int, also where the schema says number.
        (Value::Double(_), Value::Double(_) | Value::Int(_)) | (Value::Int(_), Value::Double(_)) => {
            match (left.as_f64(), right.as_f64()) {
                (Some(left), Some(right)) => floating(operator, left, right),
                _ => no_overload(),
            }
        }
        (Value::String(left), Value::String(right)) if operator == Operator::Add => {
            budget.spend_text(left.as_str().len() + right.as_str().len())?;
            Ok(Value::from([left.as_str(), right.as_str()].concat()))
        }
        (Value::Bytes(left), Value::Bytes(right)) if operator == Operator::Add => {
            budget.spend_text(left.len() + right.len())?;
            Ok(Value::Bytes([left.as_ref(), right.as_ref()].concat().into()))
        }
        (Value::Duration(_) | Value::Timestamp(_), _) | (_, Value::Timestamp(_)) => {
            in_time(operator, &left, &right)
        }
        (Value::List(left), Value::List(right)) if operator == Operator::Add => {
            budget.spend(left.len() + right.len())?;
            Ok(Value::list(left.iter().chain(right.iter()).collect()))
        }
        _ => no_overload(),
    }
}

fn whole<'a>(operator: Operator, left: i64, right: i64) -> Outcome<'a> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide if right == 0 => return failed("division by zero"),
        Operator::Remainder if right == 0 => return failed("modulus by zero"),
        Operator::Divide => left.checked_div(right),
        Operator::Remainder => left.checked_rem(right),
        _ => return no_overload(),
    };
    result.map(Value::Int).map_or_else(|| failed("integer overflow"), Ok)
}

fn unsigned<'a>(operator: Operator, left: u64, right: u64) -> Outcome<'a> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide if right == 0 => return failed("division by zero"),
        Operator::Remainder if right == 0 => return failed("modulus by zero"),
        Operator::Divide => left.checked_div(right),
        Operator::Remainder => left.checked_rem(right),
        _ => return no_overload(),
    };
    result.map(Value::Uint).map_or_else(|| failed("unsigned integer overflow"), Ok)
}

fn in_time<'a>(operator: Operator, left: &Value<'a>, right: &Value<'a>) -> Outcome<'a> {
    let span = |nanoseconds: i64| SignedDuration::from_nanos(nanoseconds);
    let found = match (operator, left, right) {
        (Operator::Add, Value::Duration(left), Value::Duration(right)) => {
            left.checked_add(*right).map(Value::Duration)
        }
        (Operator::Subtract, Value::Duration(left), Value::Duration(right)) => {
            left.checked_sub(*right).map(Value::Duration)
        }
        (Operator::Add, Value::Timestamp(at), Value::Duration(time))
        | (Operator::Add, Value::Duration(time), Value::Timestamp(at)) => {
            at.checked_add(span(*time)).ok().map(Value::Timestamp)
        }
        (Operator::Subtract, Value::Timestamp(at), Value::Duration(time)) => {
            at.checked_sub(span(*time)).ok().map(Value::Timestamp)
        }
        (Operator::Subtract, Value::Timestamp(left), Value::Timestamp(right)) => {
            i64::try_from(left.duration_since(*right).as_nanos()).ok().map(Value::Duration)
        }
        _ => return no_overload(),
    };
    found.map_or_else(|| failed("integer overflow"), Ok)
}

fn floating<'a>(operator: Operator, left: f64, right: f64) -> Outcome<'a> {
    Ok(Value::Double(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        _ => return no_overload(),
    }))
}

/// Whether both are the same; values of different types are not, numbers are compared as numbers.
pub fn equal(left: &Value<'_>, right: &Value<'_>, budget: &mut Budget) -> Result<bool, EvaluationError> {
    if !matches!((left, right), (Value::String(_), Value::String(_))) {
        budget.spend(1)?;
    }
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => {
            budget.spend_text(left.as_str().len().min(right.as_str().len()))?;
            left.as_str() == right.as_str()
        }
        (Value::Quantity(left), Value::Quantity(right)) => left == right,
        (Value::Semver(left), Value::Semver(right)) => left == right,
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.spend_text(left.len().min(right.len()))?;
            left == right
        }
        (Value::Duration(left), Value::Duration(right)) => left == right,
        (Value::Timestamp(left), Value::Timestamp(right)) => left == right,
        (Value::Ip(left), Value::Ip(right)) => left == right,
        (Value::Cidr(left, bits), Value::Cidr(right, others)) => (left, bits) == (right, others),
        (Value::Url(left), Value::Url(right)) => left == right,
        (Value::Format(left), Value::Format(right)) => left == right,
        (Value::Type(left), Value::Type(right)) => left == right,
        (Value::Optional(left), Value::Optional(right)) => match (left, right) {
            (Some(left), Some(right)) => equal(left, right, budget)?,
            (left, right) => left.is_none() && right.is_none(),
        },
        (Value::List(left), Value::List(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right.iter()) {
                if !equal(&left, &right, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(left), Value::Map(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            budget.spend(left.len())?;
            for (key, value) in left.entries() {
                match super::eval::entry(right, &key, budget)? {
                    Some(other) if equal(&value, &other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => numbers(left, right) == Some(Ordering::Equal),
    })
}

/// Whether a list has the entry, or a map the key.
pub fn contains(whole: &Value<'_>, part: &Value<'_>, budget: &mut Budget) -> Result<bool, EvaluationError> {
    match whole {
        Value::List(entries) => {
            for entry in entries.iter() {
                if equal(&entry, part, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(super::eval::entry(map, part, budget)?.is_some()),
        _ => Err(EvaluationError::Failed("no such overload".into())),
    }
}

/// Which of two comes first; nothing where they can't be compared, or one is not a number.
pub fn order(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, EvaluationError> {
    if !matches!((left, right), (Value::String(_), Value::String(_))) {
        budget.spend(1)?;
    }
    Ok(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.spend_text(left.len().min(right.len()))?;
            Some(left.cmp(right))
        }
        (Value::String(left), Value::String(right)) => {
            budget.spend_text(left.as_str().len().min(right.as_str().len()))?;
            Some(left.as_str().cmp(right.as_str()))
        }
        _ => numbers(left, right),
    })
}

fn ordered<'a>(
    left: &Value<'a>,
    right: &Value<'a>,
    budget: &mut Budget,
    holds: fn(Ordering) -> bool,
) -> Outcome<'a> {
    match order(left, right, budget)? {
        Some(order) => Ok(Value::Bool(holds(order))),
        None if is_plain_number(left) && is_plain_number(right) => Ok(Value::Bool(false)),
        None => no_overload(),
    }
}

fn is_plain_number(value: &Value<'_>) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(left.cmp(&right));
    }
    if !is_plain_number(left) || !is_plain_number(right) {
        return None;
    }
    left.as_f64()?.partial_cmp(&right.as_f64()?)
}
