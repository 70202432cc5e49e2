//! `format` and `strings.quote`.

use super::EvaluationError;
use super::eval::Budget;
use super::time;
use super::value::{List, Value};

/// The most digits behind the point.
const MOST_DIGITS: usize = 100;

type Made = Result<String, EvaluationError>;

fn wrong(problem: impl Into<String>) -> EvaluationError {
    EvaluationError::Failed(problem.into())
}

/// Puts values in the places of `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X` and `%o`.
pub fn format(template: &str, values: &List<'_>, budget: &mut Budget) -> Made {
    let mut made = String::new();
    let mut next = 0;
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        made.push_str(before);
        let mut letters = after.chars();
        let first = letters.next().ok_or_else(|| wrong("unexpected end of string"))?;
        if first == '%' {
            made.push('%');
            rest = letters.as_str();
            continue;
        }
        let (digits, tail) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let (digits, tail) = after.split_at_checked(end).unwrap_or((after, ""));
                let digits: usize = digits.parse().map_err(|_| wrong("error while parsing precision"))?;
                (Some(digits), tail)
            }
            None => (None, after),
        };
        if digits.is_some_and(|digits| digits > MOST_DIGITS) {
            return Err(wrong(format!("precision must be at most {MOST_DIGITS}")));
        }
        let clause = tail.chars().next().ok_or_else(|| wrong("unexpected end of string"))?;
        rest = tail.get(clause.len_utf8()..).unwrap_or_default();
        let value = values.get(next).ok_or_else(|| wrong(format!("index {next} out of range")))?;
        next += 1;
        let made_before = made.len();
        clause_of(clause, digits.unwrap_or(6), &value, &mut made, budget)?;
        budget.spend_text(made.len() - made_before)?;
    }
    made.push_str(rest);
    budget.spend_text(made.len())?;
    Ok(made)
}

fn clause_of(
    clause: char,
    digits: usize,
    value: &Value<'_>,
    made: &mut String,
    budget: &mut Budget,
) -> Result<(), EvaluationError> {
    let number = match value {
        Value::Int(_) | Value::Uint(_) | Value::Double(_) => value.as_f64(),
        _ => None,
    };
    let text = match (clause, value) {
        ('s', _) => return text_of(value, made, budget),
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Uint(number)) => number.to_string(),
        ('d', Value::Double(number)) => double(*number, |number| number.to_string()),
        ('f', _) if number.is_some() => {
            double(number.unwrap_or_default(), |number| format!("{number:.digits$}"))
        }
        ('e', _) if number.is_some() => {
            double(number.unwrap_or_default(), |number| scientific(number, digits))
        }
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b', Value::Uint(number)) => format!("{number:b}"),
        ('o', Value::Uint(number)) => format!("{number:o}"),
        ('x', Value::Uint(number)) => format!("{number:x}"),
        ('X', Value::Uint(number)) => format!("{number:X}"),
        ('b' | 'o' | 'x' | 'X', Value::Int(number)) => {
            let (sign, size) = (if *number < 0 { "-" } else { "" }, number.unsigned_abs());
            match clause {
                'b' => format!("{sign}{size:b}"),
                'o' => format!("{sign}{size:o}"),
                'x' => format!("{sign}{size:x}"),
                _ => format!("{sign}{size:X}"),
            }
        }
        ('x' | 'X', Value::String(text)) => hexadecimal(text.as_str().as_bytes(), clause),
        ('x' | 'X', Value::Bytes(bytes)) => hexadecimal(bytes, clause),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', _) => {
            return Err(wrong(format!(
                "error during formatting: %{clause} does not take a {}",
                value.type_name()
            )));
        }
        _ => {
            return Err(wrong(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{clause}\""
            )));
        }
    };
    made.push_str(&text);
    Ok(())
}

fn double(number: f64, finite: impl Fn(f64) -> String) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        finite(number)
    }
}

fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (number, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sign = if exponent.starts_with('-') { '-' } else { '+' };
    format!("{number}e{sign}{:0>2}", exponent.trim_start_matches('-'))
}

fn hexadecimal(bytes: &[u8], clause: char) -> String {
    let digits = |byte: &u8| if clause == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
    bytes.iter().map(digits).collect()
}

fn text_of(value: &Value<'_>, made: &mut String, budget: &mut Budget) -> Result<(), EvaluationError> {
    budget.spend(1)?;
    match value {
        Value::Null => made.push_str("null"),
        Value::Bool(value) => made.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => made.push_str(&number.to_string()),
        Value::Uint(number) => made.push_str(&number.to_string()),
        Value::Double(number) => made.push_str(&double(*number, |number| number.to_string())),
        Value::String(text) => {
            budget.spend_text(text.as_str().len())?;
            made.push_str(text.as_str());
        }
        Value::Bytes(bytes) => {
            budget.spend_text(bytes.len())?;
            made.push_str(&String::from_utf8_lossy(bytes));
        }
        Value::Duration(span) => made.push_str(&time::duration_text(*span)),
        Value::Timestamp(at) => made.push_str(&at.to_string()),
        Value::Type(name) => made.push_str(name),
        Value::List(list) => {
            made.push('[');
            for (index, entry) in list.iter().enumerate() {
                made.push_str(if index > 0 { ", " } else { "" });
                text_of(&entry, made, budget)?;
            }
            made.push(']');
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.entries() {
                let (mut name, mut text) = (String::new(), String::new());
                text_of(&key, &mut name, budget)?;
                text_of(&value, &mut text, budget)?;
                entries.push((name, text));
            }
            entries.sort();
            let entries: Vec<String> =
                entries.into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
            made.push_str(&format!("{{{}}}", entries.join(", ")));
        }
        _ => return Err(wrong(format!("error during formatting: %s does not take a {}", value.type_name()))),
    }
    Ok(())
}

/// A text as it would be written in an expression.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
