//! Functions of texts. Positions count characters, from 0.

use std::borrow::Cow;

use regex::Regex;

use super::eval::{Budget, Outcome, failed, no_overload};
use super::syntax::Call;
use super::value::{Text, Value};
use crate::pattern;

/// What it costs to compile a pattern that is only known now: up to some milliseconds.
const PATTERN_COST: usize = 20_000;

pub fn call<'a>(function: &str, text: Text<'a>, rest: &[Value<'a>], budget: &mut Budget) -> Outcome<'a> {
    let own = text.as_str();
    budget.spend_text(own.len())?;
    match (function, rest) {
        ("contains", [Value::String(part)]) => Ok(Value::Bool(own.contains(part.as_str()))),
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(own.starts_with(part.as_str()))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(own.ends_with(part.as_str()))),
        ("lowerAscii", []) => Ok(Value::from(own.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::from(own.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::from(own.trim().to_owned())),
        ("reverse", []) => Ok(Value::from(own.chars().rev().collect::<String>())),
        ("replace", [Value::String(from), Value::String(to)]) => replace(own, from, to, -1, budget),
        ("replace", [Value::String(from), Value::String(to), Value::Int(times)]) => {
            replace(own, from, to, *times, budget)
        }
        ("split", [Value::String(by)]) => split(own, by.as_str(), -1, budget),
        ("split", [Value::String(by), Value::Int(parts)]) => split(own, by.as_str(), *parts, budget),
        ("substring", [Value::Int(from)]) => substring(own, *from, own.chars().count() as i64),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(own, *from, *to),
        ("charAt", [Value::Int(at)]) => match usize::try_from(*at) {
            Ok(at) if at <= own.chars().count() => {
                Ok(Value::from(own.chars().nth(at).map(String::from).unwrap_or_default()))
            }
            _ => failed(format!("index out of range: {at}")),
        },
        ("indexOf", [Value::String(part)]) => Ok(Value::Int(position(own, own.find(part.as_str())))),
        ("indexOf" | "lastIndexOf", [Value::String(_), Value::Int(from)]) if *from < 0 => {
            failed(format!("index out of range: {from}"))
        }
        // Nothing is found where the search begins, or at the end.
        ("indexOf" | "lastIndexOf", [Value::String(part), Value::Int(from)]) if part.as_str().is_empty() => {
            Ok(Value::Int((*from).min(own.chars().count() as i64)))
        }
        ("indexOf", [Value::String(part), Value::Int(from)]) => {
            let found = byte_at(own, *from).and_then(|start| {
                own.get(start..).and_then(|rest| rest.find(part.as_str())).map(|at| at + start)
            });
            Ok(Value::Int(position(own, found)))
        }
        ("lastIndexOf", [Value::String(part)]) => Ok(Value::Int(position(own, own.rfind(part.as_str())))),
        // What begins behind the end is nowhere, though all of the text lies before it.
        ("lastIndexOf", [Value::String(part), Value::Int(last)]) => {
            let found = byte_at(own, *last).filter(|last| *last < own.len()).and_then(|last| {
                let end = last.saturating_add(part.as_str().len()).min(own.len());
                let mut ends = (end..=own.len()).filter(|end| own.is_char_boundary(*end));
                own.get(..ends.next()?)?.rfind(part.as_str()).filter(|at| *at <= last)
            });
            Ok(Value::Int(position(own, found)))
        }
        _ => no_overload(),
    }
}

/// `matches`, `find` and `findAll`.
pub fn search<'a>(call: &Call, arguments: &[Value<'a>], budget: &mut Budget) -> Outcome<'a> {
    let (text, pattern, most) = match arguments {
        [Value::String(text), Value::String(pattern)] => (text, pattern, usize::MAX),
        [Value::String(text), Value::String(pattern), Value::Int(most)] => {
            (text, pattern, usize::try_from(*most).unwrap_or(usize::MAX))
        }
        _ => return no_overload(),
    };
    let text = text.as_str();
    budget.spend_text(text.len() * (1 + pattern.as_str().len() / 4))?;
    let regex: Cow<'_, Regex> = match &call.pattern {
        Some(regex) => Cow::Borrowed(regex),
        None => {
            budget.spend(PATTERN_COST)?;
            match pattern::compile(pattern.as_str()) {
                Ok(regex) => Cow::Owned(regex),
                Err(error) => return failed(error),
            }
        }
    };
    let found = |part: regex::Match<'_>| part.as_str().to_owned();
    match call.function.as_str() {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(Value::from(regex.find(text).map(found).unwrap_or_default())),
        _ => {
            let all: Vec<Value<'a>> = regex.find_iter(text).take(most).map(found).map(Value::from).collect();
            budget.spend(all.len())?;
            Ok(Value::list(all))
        }
    }
}

fn replace<'a>(own: &str, from: &Text<'a>, to: &Text<'a>, times: i64, budget: &mut Budget) -> Outcome<'a> {
    let (from, to) = (from.as_str(), to.as_str());
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    let hits = own.matches(from).take(times).count();
    budget.spend_text(own.len().saturating_add(hits.saturating_mul(to.len())))?;
    Ok(Value::from(own.replacen(from, to, times)))
}

fn split<'a>(own: &str, by: &str, parts: i64, budget: &mut Budget) -> Outcome<'a> {
    let most = usize::try_from(parts).unwrap_or(usize::MAX);
    if most == 0 {
        return Ok(Value::list(Vec::new()));
    }
    budget.spend(own.len())?;
    let owned = |part: &str| Value::from(part.to_owned());
    if !by.is_empty() {
        return Ok(Value::list(own.splitn(most, by).map(owned).collect()));
    }
    let mut rest = own.chars();
    let mut entries: Vec<Value<'a>> = Vec::new();
    while entries.len() + 1 < most {
        let Some(next) = rest.next() else { return Ok(Value::list(entries)) };
        entries.push(Value::from(next.to_string()));
    }
    if !rest.as_str().is_empty() {
        entries.push(owned(rest.as_str()));
    }
    Ok(Value::list(entries))
}

fn substring<'a>(own: &str, from: i64, to: i64) -> Outcome<'a> {
    match (byte_at(own, from), byte_at(own, to)) {
        (Some(start), Some(end)) if start <= end => {
            Ok(Value::from(own.get(start..end).unwrap_or_default().to_owned()))
        }
        (None, _) => failed(format!("index out of range: {from}")),
        (_, None) => failed(format!("index out of range: {to}")),
        _ => failed(format!("invalid substring range. start: {from}, end: {to}")),
    }
}

/// Where the character of that number begins, or the end.
fn byte_at(text: &str, position: i64) -> Option<usize> {
    let position = usize::try_from(position).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(position)
}

fn position(text: &str, at: Option<usize>) -> i64 {
    at.and_then(|at| text.get(..at)).map_or(-1, |before| before.chars().count() as i64)
}
