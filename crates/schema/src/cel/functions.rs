//! Which functions there are, conversions, and what is not of texts or lists.

use super::eval::{Budget, Outcome, failed, no_overload};
use super::quantity::Quantity;
use super::semver::Semver;
use super::syntax::Call;
use super::value::Value;
use super::{lists, operators, strings};

/// Name, whether it stands behind a dot, and with how many arguments, fewest and most.
const KNOWN: [(&str, bool, usize, usize); 66] = [
    ("size", false, 1, 1),
    ("size", true, 0, 0),
    ("type", false, 1, 1),
    ("dyn", false, 1, 1),
    ("int", false, 1, 1),
    ("uint", false, 1, 1),
    ("double", false, 1, 1),
    ("string", false, 1, 1),
    ("bool", false, 1, 1),
    ("contains", true, 1, 1),
    ("startsWith", true, 1, 1),
    ("endsWith", true, 1, 1),
    ("matches", true, 1, 1),
    ("matches", false, 2, 2),
    ("find", true, 1, 1),
    ("findAll", true, 1, 2),
    ("replace", true, 2, 3),
    ("split", true, 1, 2),
    ("join", true, 0, 1),
    ("lowerAscii", true, 0, 0),
    ("upperAscii", true, 0, 0),
    ("trim", true, 0, 0),
    ("substring", true, 1, 2),
    ("charAt", true, 1, 1),
    ("indexOf", true, 1, 2),
    ("lastIndexOf", true, 1, 2),
    ("isSorted", true, 0, 0),
    ("sum", true, 0, 0),
    ("min", true, 0, 0),
    ("max", true, 0, 0),
    ("quantity", false, 1, 1),
    ("semver", false, 1, 2),
    ("isSemver", false, 1, 2),
    ("major", true, 0, 0),
    ("minor", true, 0, 0),
    ("patch", true, 0, 0),
    ("scores", true, 1, 1),
    ("isQuantity", false, 1, 1),
    ("isGreaterThan", true, 1, 1),
    ("isLessThan", true, 1, 1),
    ("compareTo", true, 1, 1),
    ("sign", true, 0, 0),
    ("add", true, 1, 1),
    ("sub", true, 1, 1),
    ("isInteger", true, 0, 0),
    ("asInteger", true, 0, 0),
    ("asApproximateFloat", true, 0, 0),
    ("optional.none", false, 0, 0),
    ("optional.of", false, 1, 1),
    ("optional.ofNonZeroValue", false, 1, 1),
    ("hasValue", true, 0, 0),
    ("value", true, 0, 0),
    ("orValue", true, 1, 1),
    ("or", true, 1, 1),
    ("sets.contains", false, 2, 2),
    ("sets.equivalent", false, 2, 2),
    ("sets.intersects", false, 2, 2),
    ("math.greatest", false, 1, 8),
    ("math.least", false, 1, 8),
    ("math.abs", false, 1, 1),
    ("math.ceil", false, 1, 1),
    ("math.floor", false, 1, 1),
    ("math.round", false, 1, 1),
    ("reverse", true, 0, 0),
    ("isNaN", false, 1, 1),
    ("math.isNaN", false, 1, 1),
];

const TYPES: [&str; 9] = ["null_type", "bool", "int", "uint", "double", "string", "list", "map", "type"];

pub fn is_known(name: &str, is_method: bool, arguments: usize) -> bool {
    let fits = |(known, behind_dot, fewest, most): &(&str, bool, usize, usize)| {
        *known == name && *behind_dot == is_method && (*fewest..=*most).contains(&arguments)
    };
    KNOWN.iter().any(fits)
}

pub fn is_name(name: &str) -> bool {
    KNOWN.iter().any(|(known, ..)| *known == name)
}

pub fn takes_pattern(name: &str) -> bool {
    matches!(name, "matches" | "find" | "findAll")
}

pub fn type_named(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

pub fn is_type(name: &str) -> bool {
    type_named(name).is_some()
}

pub fn call<'a>(call: &Call, arguments: Vec<Value<'a>>, budget: &mut Budget) -> Outcome<'a> {
    use Value::{Bool, Double, Int, List, Map, Optional, String};
    let number = |value: &Value<'a>| value.as_f64().filter(|_| !matches!(value, Value::Quantity(_)));
    match (call.function.as_str(), arguments.as_slice()) {
        ("size", [String(text)]) => {
            budget.spend_text(text.as_str().len())?;
            Ok(Int(text.as_str().chars().count() as i64))
        }
        ("size", [List(list)]) => Ok(Int(list.len() as i64)),
        ("size", [Map(map)]) => Ok(Int(map.len() as i64)),
        ("type", [value]) => Ok(Value::Type(value.type_name())),
        ("dyn", [value]) => Ok(value.clone()),
        ("int" | "uint" | "double" | "string" | "bool", [value]) => {
            if let String(text) = value {
                budget.spend_text(text.as_str().len())?;
            }
            convert(call.function.as_str(), value)
        }
        ("optional.none", []) => Ok(Optional(None)),
        ("optional.of", [value]) => Ok(Optional(Some(Box::new(value.clone())))),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(Optional((!is_zero(value)).then(|| Box::new(value.clone()))))
        }
        ("hasValue", [Optional(inner)]) => Ok(Bool(inner.is_some())),
        ("value", [Optional(inner)]) => match inner {
            Some(value) => Ok(value.as_ref().clone()),
            None => failed("optional.none() dereference"),
        },
        ("orValue", [Optional(inner), otherwise]) => {
            Ok(inner.as_ref().map_or_else(|| otherwise.clone(), |value| value.as_ref().clone()))
        }
        ("or", [Optional(inner), otherwise @ Optional(_)]) => {
            Ok(if inner.is_some() { Optional(inner.clone()) } else { otherwise.clone() })
        }
        ("quantity", [String(text)]) => match Quantity::parse(text.as_str()) {
            Some(quantity) => Ok(Value::Quantity(quantity)),
            None => failed(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        },
        ("isQuantity", [String(text)]) => Ok(Bool(Quantity::parse(text.as_str()).is_some())),
        ("semver" | "isSemver", [String(text), rest @ ..]) => {
            let version = match rest {
                [Bool(true)] => Semver::parse_normalized(text.as_str()),
                _ => Semver::parse(text.as_str()),
            };
            match (call.function.as_str(), version) {
                ("isSemver", version) => Ok(Bool(version.is_some())),
                (_, Some(version)) => Ok(Value::Semver(version.into())),
                (_, None) => failed(format!("{:?} is not a semantic version", text.as_str())),
            }
        }
        (function, [Value::Semver(own), others @ ..]) => of_semver(function, own, others),
        // Of a site: what others told of it. Only where its document has them.
        ("scores", [Map(map), String(name)]) => {
            let found = match map.get("scores") {
                Some(Map(scores)) => scores.get(name.as_str()),
                _ => None,
            };
            found.map_or_else(|| failed(format!("no such scores: {}", name.as_str())), Ok)
        }
        (function, [Value::Quantity(own), others @ ..]) => of_quantity(function, *own, others),
        ("math.greatest" | "math.least", [first, rest @ ..]) => {
            let all = match (first, rest) {
                (List(list), []) => list.iter().collect(),
                _ => arguments.clone(),
            };
            lists::extreme(&all, call.function == "math.greatest", budget)
        }
        ("math.abs", [Int(value)]) => {
            value.checked_abs().map(Int).map_or_else(|| failed("integer overflow"), Ok)
        }
        ("math.abs", [Double(value)]) => Ok(Double(value.abs())),
        ("math.ceil", [value]) => number(value).map_or_else(no_overload, |value| Ok(Double(value.ceil()))),
        ("math.floor", [value]) => number(value).map_or_else(no_overload, |value| Ok(Double(value.floor()))),
        ("math.round", [value]) => number(value).map_or_else(no_overload, |value| Ok(Double(value.round()))),
        ("isNaN" | "math.isNaN", [value]) => {
            number(value).map_or_else(no_overload, |value| Ok(Bool(value.is_nan())))
        }
        ("matches" | "find" | "findAll", _) => strings::search(call, &arguments, budget),
        (_, [String(text), rest @ ..]) => strings::call(call.function.as_str(), text.clone(), rest, budget),
        (_, [List(list), rest @ ..]) => lists::call(call.function.as_str(), list, rest, budget),
        _ => no_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) => true,
        Value::Double(number) => *number == 0.0,
        Value::String(text) => text.as_str().is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}

fn of_quantity<'a>(function: &str, own: Quantity, others: &[Value<'a>]) -> Outcome<'a> {
    let other = match others {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(number)] => Some(Quantity::of(*number)),
        _ => None,
    };
    let too_large = || failed("quantity is out of range");
    match (function, other) {
        ("isGreaterThan", Some(other)) => Ok(Value::Bool(own > other)),
        ("isLessThan", Some(other)) => Ok(Value::Bool(own < other)),
        ("compareTo", Some(other)) => Ok(Value::Int(own.cmp(&other) as i64)),
        ("add", Some(other)) => own.plus(other).map(Value::Quantity).map_or_else(too_large, Ok),
        ("sub", Some(other)) => own.minus(other).map(Value::Quantity).map_or_else(too_large, Ok),
        ("sign", None) => Ok(Value::Int(own.sign())),
        ("isInteger", None) => Ok(Value::Bool(own.integer().is_some())),
        ("asInteger", None) => {
            own.integer().map(Value::Int).map_or_else(|| failed("cannot convert value to integer"), Ok)
        }
        ("asApproximateFloat", None) => Ok(Value::Double(own.approximate())),
        _ => no_overload(),
    }
}

fn of_semver<'a>(function: &str, own: &Semver, others: &[Value<'a>]) -> Outcome<'a> {
    match (function, others) {
        ("isGreaterThan", [Value::Semver(other)]) => Ok(Value::Bool(own > other.as_ref())),
        ("isLessThan", [Value::Semver(other)]) => Ok(Value::Bool(own < other.as_ref())),
        ("compareTo", [Value::Semver(other)]) => Ok(Value::Int(own.cmp(other) as i64)),
        ("major", []) => Ok(Value::Int(own.major)),
        ("minor", []) => Ok(Value::Int(own.minor)),
        ("patch", []) => Ok(Value::Int(own.patch)),
        _ => no_overload(),
    }
}

fn convert<'a>(to: &str, value: &Value<'a>) -> Outcome<'a> {
    let type_error = || failed(format!("type conversion error from '{}' to '{to}'", value.type_name()));
    match (to, value) {
        ("string", _) => to_text(value).map(Value::from).map_or_else(no_overload, Ok),
        ("bool", Value::Bool(value)) => Ok(Value::Bool(*value)),
        ("bool", Value::String(text)) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => type_error(),
        },
        ("double", Value::String(text)) => text.as_str().parse().map(Value::Double).or_else(|_| type_error()),
        ("double", Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            value.as_f64().map(Value::Double).map_or_else(no_overload, Ok)
        }
        ("int", Value::Int(number)) => Ok(Value::Int(*number)),
        ("int", Value::Uint(number)) => {
            i64::try_from(*number).map(Value::Int).or_else(|_| failed("integer overflow"))
        }
        ("int", Value::Double(number)) if number.abs() < 9_223_372_036_854_775_807.0 => {
            Ok(Value::Int(*number as i64))
        }
        ("int" | "uint", Value::Double(_)) if to == "int" => failed("integer overflow"),
        ("int", Value::String(text)) => text.as_str().parse().map(Value::Int).or_else(|_| type_error()),
        ("uint", Value::Uint(number)) => Ok(Value::Uint(*number)),
        ("uint", Value::Int(number)) => {
            u64::try_from(*number).map(Value::Uint).or_else(|_| failed("unsigned integer overflow"))
        }
        ("uint", Value::Double(number)) if (0.0..18_446_744_073_709_551_615.0).contains(number) => {
            Ok(Value::Uint(*number as u64))
        }
        ("uint", Value::Double(_)) => failed("unsigned integer overflow"),
        ("uint", Value::String(text)) => text.as_str().parse().map(Value::Uint).or_else(|_| type_error()),
        _ => no_overload(),
    }
}

/// What `string(value)` is, for the types that it takes.
pub fn to_text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => crate::number::go_float(*number),
        Value::String(text) => text.as_str().to_owned(),
        _ => return None,
    })
}

/// Whether one of them is in `list`.
pub fn any_in<'a>(
    entries: &super::List<'a>,
    list: &Value<'a>,
    budget: &mut Budget,
) -> Result<bool, super::EvaluationError> {
    for entry in entries.iter() {
        if operators::contains(list, &entry, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}
