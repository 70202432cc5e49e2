//! Conversions, and functions of what is neither a text nor a list.

use super::eval::{Budget, Outcome, failed, no_overload};
use super::quantity::Quantity;
use super::semver::Semver;
use super::syntax::Call;
use super::value::Value;
use super::{formats, interpolate, lists, literals, net, operators, strings, time, url};

/// The longest JSON that is parsed, in bytes: what it becomes is many times as large.
const MOST_JSON: usize = 1 << 20;

const TYPES: [&str; 10] =
    ["null_type", "bool", "int", "uint", "double", "string", "bytes", "list", "map", "type"];

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
        ("size", [Value::Bytes(bytes)]) => Ok(Int(bytes.len() as i64)),
        ("size", [List(list)]) => Ok(Int(list.len() as i64)),
        ("size", [Map(map)]) => Ok(Int(map.len() as i64)),
        ("type", [value]) => Ok(Value::Type(value.type_name())),
        ("dyn", [value]) => Ok(value.clone()),
        ("int" | "uint" | "double" | "string" | "bool" | "bytes" | "duration" | "timestamp", [value]) => {
            match value {
                String(text) => budget.spend_text(text.as_str().len())?,
                Value::Bytes(bytes) => budget.spend_text(bytes.len())?,
                _ => {}
            }
            convert(call.function.as_str(), value)
        }
        ("ip" | "ip.isCanonical" | "isIP" | "cidr" | "isCIDR", [String(text)]) => {
            net::of_text(call.function.as_str(), text.as_str())
        }
        ("url" | "isURL", [String(text)]) => {
            budget.spend_text(text.as_str().len())?;
            match (call.function.as_str(), url::Url::parse(text.as_str())) {
                ("isURL", url) => Ok(Bool(url.is_some())),
                (_, Some(url)) => Ok(Value::Url(url.into())),
                (_, None) => failed(format!(
                    "URL parse error during conversion from string: {:?} is no absolute URL or path",
                    text.as_str()
                )),
            }
        }
        ("format", [String(template), List(values)]) => {
            interpolate::format(template.as_str(), values, budget).map(Value::from)
        }
        ("strings.quote", [String(text)]) => {
            budget.spend_text(text.as_str().len())?;
            Ok(Value::from(interpolate::quote(text.as_str())))
        }
        ("format.named", [String(name)]) => {
            let format = formats::named(name.as_str());
            Ok(Optional(format.map(|format| Box::new(Value::Format(format)))))
        }
        (function, []) if let Some(format) = function.strip_prefix("format.").and_then(formats::named) => {
            Ok(Value::Format(format))
        }
        ("validate", [Value::Format(format), String(text)]) => {
            budget.spend_text(text.as_str().len().saturating_mul(2))?;
            let problems = formats::problems(format, text.as_str());
            let list = || Box::new(Value::list(problems.iter().cloned().map(Value::from).collect()));
            Ok(Optional((!problems.is_empty()).then(list)))
        }
        ("parseJSON", [String(text)]) => {
            let length = text.as_str().len();
            if length > MOST_JSON {
                return failed(format!(
                    "failed to parse json: {length} bytes, at most {MOST_JSON} are taken"
                ));
            }
            budget.spend(length)?;
            match serde_json::from_str(text.as_str()) {
                Ok(json) => Ok(Value::owned(json)),
                Err(error) => failed(format!("failed to parse json: {error}")),
            }
        }
        (function, [of @ (Value::Timestamp(_) | Value::Duration(_)), rest @ ..]) => {
            time::field(function, of, rest)
        }
        (function, [Value::Ip(address), rest @ ..]) => net::of_ip(function, *address, rest),
        (function, [Value::Cidr(address, bits), rest @ ..]) => {
            net::of_cidr(function, (*address, *bits), rest)
        }
        (function, [Value::Url(url), rest @ ..]) => url::call(function, url, rest),
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
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::from(text.to_owned())),
            Err(_) => failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("bytes", Value::Bytes(bytes)) => Ok(Value::Bytes(bytes.clone())),
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_str().as_bytes().into())),
        ("duration", Value::Duration(span)) => Ok(Value::Duration(*span)),
        ("duration", Value::String(text)) => {
            time::duration(text.as_str()).map(Value::Duration).map_or_else(type_error, Ok)
        }
        ("timestamp", Value::Timestamp(at)) => Ok(Value::Timestamp(*at)),
        ("timestamp", Value::String(text)) => {
            time::timestamp(text.as_str()).map(Value::Timestamp).map_or_else(type_error, Ok)
        }
        ("timestamp", Value::Int(seconds)) => {
            jiff::Timestamp::from_second(*seconds).map(Value::Timestamp).or_else(|_| failed("range error"))
        }
        ("int", Value::Duration(span)) => Ok(Value::Int(*span)),
        ("int", Value::Timestamp(at)) => Ok(Value::Int(at.as_second())),
        ("bool", Value::Bool(value)) => Ok(Value::Bool(*value)),
        ("bool", Value::String(text)) => match text.as_str() {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
            _ => type_error(),
        },
        ("double", Value::String(text)) => {
            literals::double(text.as_str()).map(Value::Double).map_or_else(type_error, Ok)
        }
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
        ("uint", Value::String(text)) => {
            literals::uint(text.as_str()).map(Value::Uint).map_or_else(type_error, Ok)
        }
        ("string", _) => to_text(value).map(Value::from).map_or_else(no_overload, Ok),
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
        Value::Duration(span) => time::duration_text(*span),
        Value::Timestamp(at) => at.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(address, bits) => format!("{address}/{bits}"),
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
