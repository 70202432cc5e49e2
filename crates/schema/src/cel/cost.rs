//! What calls cost, as cel-go and the libraries of Open Cluster Management count it.

use super::eval::Outcome;
use super::syntax::{Call, Operator};
use super::value::Value;

/// For a list that is made.
pub const LIST: u64 = 10;
/// For a map that is made.
pub const MAP: u64 = 30;

/// How large a value is where size counts: characters, bytes or entries; one for all that has no size.
pub fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => text.as_str().chars().count() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(list) => list.len() as u64,
        Value::Map(map) => map.len() as u64,
        Value::Optional(Some(inner)) => size(inner),
        Value::Ip(address) => {
            if address.is_ipv4() {
                4
            } else {
                16
            }
        }
        Value::Cidr(_, bits) => u64::from(*bits).div_ceil(8),
        _ => 1,
    }
}

fn size_of(outcome: Option<&Outcome<'_>>) -> u64 {
    outcome.and_then(|outcome| outcome.as_ref().ok()).map_or(1, size)
}

/// A text of that size looked at once.
fn traversed(size: u64) -> u64 {
    size.div_ceil(10)
}

pub fn of_operator(operator: Operator, is_dynamic: bool, left: &Outcome<'_>, right: &Outcome<'_>) -> u64 {
    let (left_size, right_size) = (size_of(Some(left)), size_of(Some(right)));
    let is_text = |outcome: &Outcome<'_>| matches!(outcome, Ok(Value::String(_) | Value::Bytes(_)));
    match operator {
        Operator::Equal | Operator::NotEqual => traversed(left_size.min(right_size)),
        _ if is_dynamic => 1,
        Operator::In if !matches!(right, Ok(Value::Map(_))) => right_size,
        Operator::Add if is_text(left) || is_text(right) => traversed(left_size + right_size),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual
            if is_text(left) || is_text(right) =>
        {
            traversed(left_size.min(right_size))
        }
        _ => 1,
    }
}

pub fn of_call(call: &Call, arguments: &[Outcome<'_>], result: &Outcome<'_>) -> u64 {
    let argument = |index: usize| size_of(arguments.get(index));
    let made = size_of(Some(result));
    let own = argument(0);
    match call.function.as_str() {
        _ if call.is_dynamic => 1,
        "startsWith" | "endsWith" => traversed(argument(1)),
        "format" | "strings.quote" => traversed(own),
        "bytes" if matches!(arguments.first(), Some(Ok(Value::String(_)))) => traversed(own),
        "string" if matches!(arguments.first(), Some(Ok(Value::Bytes(_)))) => traversed(own),
        "matches" => traversed(own + 1) * argument(1).div_ceil(4),
        "contains" => traversed(own) * traversed(argument(1)),
        "charAt" => 2 + traversed(own),
        "indexOf" | "lastIndexOf" if !matches!(arguments.first(), Some(Ok(Value::List(_)))) => {
            1 + traversed(own * argument(1))
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => 1 + traversed(own) + made,
        "reverse" if matches!(arguments.first(), Some(Ok(Value::String(_)))) => 1 + traversed(own) + made,
        "replace" => 1 + traversed(own.max(1) * argument(1).max(1)) + made,
        "split" => 1 + traversed(own + 1) + made + LIST,
        "join" => 1 + traversed(own + 1) + made,
        "scores" => match result {
            Ok(Value::List(scores)) => LIST + scores.len() as u64 * (MAP + 1),
            _ => LIST,
        },
        "parseJSON" => traversed(own) + result.as_ref().map_or(0, of_structure),
        _ => 1,
    }
}

fn of_structure(value: &Value<'_>) -> u64 {
    match value {
        Value::List(list) => LIST + list.iter().map(|entry| of_structure(&entry)).sum::<u64>(),
        Value::Map(map) => MAP + map.entries().iter().map(|(_, value)| of_structure(value)).sum::<u64>(),
        _ => 0,
    }
}
