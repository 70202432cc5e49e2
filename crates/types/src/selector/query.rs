//! Label selectors as query strings write them, read and refused in the way of Kubernetes.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::{SmallMap, names};

/// A selector in query form: `tier=edge,env in (prod, test),!legacy,cpus>3`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector(Vec<Term>);

/// Not a selector: what is wrong, in the words of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSelector(String);

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    Above(i64),
    Below(i64),
}

impl Selector {
    /// Whether these labels are selected.
    pub fn matches(&self, labels: &SmallMap) -> bool {
        self.0.iter().all(|term| term.matches(labels.get(&term.key).map(String::as_str)))
    }
}

impl Term {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Above(least) => number().is_some_and(|number| number > *least),
            Test::Below(most) => number().is_some_and(|number| number < *most),
        }
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        Parser { tokens: tokens(text), next: 0 }.selector().map_err(InvalidSelector).map(Self)
    }
}

/// Signs that stand for themselves, longest first.
const SIGNS: [&str; 8] = ["==", "!=", "=", "!", "(", ")", ",", "<"];
const ABOVE: &str = ">";
/// How messages name what may stand between a key and its values.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
/// How much of what was found messages show, in bytes.
const LONGEST_SHOWN: usize = 256;

/// Words and signs, in order.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let sign = SIGNS.into_iter().chain([ABOVE]).find(|sign| rest.starts_with(sign));
        let length = sign.map_or_else(
            || rest.find(|c| is_space(c) || "=!(),<>".contains(c)).unwrap_or(rest.len()),
            str::len,
        );
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start_matches(is_space);
    }
    tokens
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether a token is a word, not a sign; `in` and `notin` are words where a key or value is expected.
fn is_word(token: &str) -> bool {
    !token.is_empty() && token != ABOVE && !SIGNS.contains(&token)
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    next: usize,
}

impl<'a> Parser<'a> {
    /// The next token; empty at the end.
    fn peek(&self) -> &'a str {
        self.tokens.get(self.next).copied().unwrap_or_default()
    }

    fn take(&mut self) -> &'a str {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Term>, String> {
        let mut terms = Vec::new();
        loop {
            match self.peek() {
                "" => return Ok(terms),
                token if token == "!" || is_word(token) => {}
                other => return Err(found(other, ", expected: !, identifier, or 'end of string'")),
            }
            terms.push(self.term().map_err(|problem| format!("unable to parse requirement: {problem}"))?);
            match self.take() {
                "" => return Ok(terms),
                "," if self.peek() == "!" || is_word(self.peek()) => {}
                "," => return Err(found(self.peek(), ", expected: identifier after ','")),
                other => return Err(found(other, ", expected: ',' or 'end of string'")),
            }
        }
    }

    fn term(&mut self) -> Result<Term, String> {
        let mut key = self.take();
        let is_negated = key == "!";
        if is_negated {
            key = self.take();
        }
        if !is_word(key) {
            return Err(found(key, ", expected: identifier"));
        }
        check_key(key)?;
        let term = |test| Ok(Term { key: key.to_owned(), test });
        if is_negated {
            return term(Test::DoesNotExist);
        }
        if matches!(self.peek(), "" | ",") {
            return term(Test::Exists);
        }
        match self.take() {
            "in" => term(Test::In(checked(key, self.values()?)?)),
            "notin" => term(Test::NotIn(checked(key, self.values()?)?)),
            "=" | "==" => term(Test::In(checked(key, self.value()?)?)),
            "!=" => term(Test::NotIn(checked(key, self.value()?)?)),
            ABOVE => term(Test::Above(number(key, self.value()?)?)),
            "<" => term(Test::Below(number(key, self.value()?)?)),
            other => Err(found(other, &format!(", expected: {OPERATORS}"))),
        }
    }

    /// The one value after a sign; none is an empty one.
    fn value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek(), "" | ",") {
            return Ok([String::new()].into());
        }
        match self.take() {
            word if is_word(word) => Ok([word.to_owned()].into()),
            other => Err(found(other, ", expected: identifier")),
        }
    }

    /// Values in brackets. A comma that has no value beside it stands for an empty one.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        match self.take() {
            "(" => {}
            other => return Err(found(other, " expected: '('")),
        }
        let mut values = BTreeSet::new();
        if self.peek() == ")" {
            self.next += 1;
            return Ok(values);
        }
        if self.peek() != "," && !is_word(self.peek()) {
            return Err(found(self.peek(), ", expected: ',', ')' or identifier"));
        }
        loop {
            match self.take() {
                "," => {
                    if values.is_empty() || matches!(self.peek(), ")" | ",") {
                        values.insert(String::new());
                    }
                    if self.peek() == ")" {
                        self.next += 1;
                        return Ok(values);
                    }
                }
                word if is_word(word) => {
                    values.insert(word.to_owned());
                    match self.peek() {
                        "," => {}
                        ")" => {
                            self.next += 1;
                            return Ok(values);
                        }
                        other => return Err(found(other, ", expected: ',' or ')'")),
                    }
                }
                other => return Err(found(other, ", expected: ',', or identifier")),
            }
        }
    }
}

fn found(token: &str, expected: &str) -> String {
    format!("found '{}'{expected}", shortened(token))
}

fn shortened(token: &str) -> &str {
    token.get(..token.floor_char_boundary(LONGEST_SHOWN)).unwrap_or_default()
}

fn check_key(key: &str) -> Result<(), String> {
    let problems = names::label_key_problems(key);
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("<nil>: Invalid value: {:?}: {}", shortened(key), problems.join("; ")))
}

/// Values that labels can have.
fn checked(key: &str, values: BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    if values.is_empty() {
        return Err(
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned()
        );
    }
    for (index, value) in values.iter().enumerate() {
        let problems = names::label_value_problems(value);
        if !problems.is_empty() {
            let (shown, problems) = (shortened(value), problems.join("; "));
            return Err(format!("values[{index}][{key}]: Invalid value: {shown:?}: {problems}"));
        }
    }
    Ok(values)
}

fn number(key: &str, values: BTreeSet<String>) -> Result<i64, String> {
    let value = checked(key, values)?.pop_first().unwrap_or_default();
    value.parse().map_err(|_| {
        format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> SmallMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn query_selectors_select_as_kubectl_users_expect() {
        let site = labels(&[("tier", "edge"), ("env", "prod"), ("cpus", "4"), ("empty", "")]);
        for (text, expected) in [
            ("", true),
            ("tier=edge", true),
            ("tier==edge,env in (prod, test)", true),
            ("tier!=edge", false),
            ("missing!=x", true),
            ("env notin (prod)", false),
            ("tier", true),
            ("!legacy", true),
            ("! legacy , tier", true),
            ("!tier", false),
            ("cpus>3,cpus<5", true),
            ("cpus>4", false),
            ("tier>3", false),
            ("empty=", true),
            ("empty in (,x)", true),
            ("empty in (x,)", true),
            ("in in (in),tier", false),
        ] {
            assert_eq!(
                text.parse::<Selector>().map(|selector| selector.matches(&site)),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_selector_is_refused_as_kubernetes_does() {
        let key = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                   '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        let value = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
                     regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        let requirement = |problem: &str| format!("unable to parse requirement: {problem}");
        for (text, expected) in [
            ("=x", "found '=', expected: !, identifier, or 'end of string'".to_owned()),
            ("a=b=c", "found '=', expected: ',' or 'end of string'".to_owned()),
            ("a,", "found '', expected: identifier after ','".to_owned()),
            ("a b", requirement("found 'b', expected: in, notin, =, ==, !=, gt, lt")),
            ("a in b", requirement("found 'b' expected: '('")),
            ("a in (b", requirement("found '', expected: ',' or ')'")),
            (
                "a in ()",
                requirement(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
                ),
            ),
            ("a=!", requirement("found '!', expected: identifier")),
            (
                "a>x",
                requirement(
                    "values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
                ),
            ),
            ("-a", requirement(&format!("<nil>: Invalid value: \"-a\": {key}"))),
            ("a=-b", requirement(&format!("values[0][a]: Invalid value: \"-b\": {value}"))),
        ] {
            let refused = text.parse::<Selector>().expect_err(text).to_string();
            assert_eq!(refused, expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[a-z=!(),<> ]{0,20}|.{0,80}") {
            let _ = text.parse::<Selector>();
        }
    }
}
