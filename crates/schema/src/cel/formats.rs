//! Kubernetes' named formats of texts, and what is said of a text that has not the format.

use std::sync::LazyLock;

use regex::Regex;

use crate::{format, pattern};

pub const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// A pattern, the most characters, and the messages for what is too long or no match.
struct Rule {
    pattern: LazyLock<Option<Regex>>,
    most: usize,
    problem: &'static str,
}

macro_rules! rule {
    ($pattern:literal, $most:literal, $problem:literal) => {
        Rule { pattern: LazyLock::new(|| pattern::compile($pattern).ok()), most: $most, problem: $problem }
    };
}

static DNS_1123_LABEL: Rule = rule!(
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    63,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
);
static DNS_1123_SUBDOMAIN: Rule = rule!(
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    253,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
);
static DNS_1035_LABEL: Rule = rule!(
    "^[a-z]([-a-z0-9]*[a-z0-9])?$",
    63,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
);
static LABEL_VALUE: Rule = rule!(
    "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    63,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
);
static NAME_PART: Rule = rule!(
    "^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$",
    63,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
);

impl Rule {
    fn problems(&self, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if text.len() > self.most {
            problems.push(format!("must be no more than {} bytes", self.most));
        }
        if !self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(text)) {
            problems.push(self.problem.to_owned());
        }
        problems
    }
}

/// The format of that name, if there is one.
pub fn named(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

/// What is wrong with a text, as a text of that format.
pub fn problems(format: &str, text: &str) -> Vec<String> {
    // Names are made of prefixes by putting something behind them.
    let completed = || match text.strip_suffix('-') {
        Some(start) => [start, "a"].concat(),
        None => text.to_owned(),
    };
    let standard = |name: &str, problem: &str| match format::Format::named(name) {
        Some(format) if !format.takes(text) => vec![problem.to_owned()],
        _ => vec![],
    };
    match format {
        "dns1123Label" => DNS_1123_LABEL.problems(text),
        "dns1123Subdomain" => DNS_1123_SUBDOMAIN.problems(text),
        "dns1035Label" => DNS_1035_LABEL.problems(text),
        "dns1123LabelPrefix" => DNS_1123_LABEL.problems(&completed()),
        "dns1123SubdomainPrefix" => DNS_1123_SUBDOMAIN.problems(&completed()),
        "dns1035LabelPrefix" => DNS_1035_LABEL.problems(&completed()),
        "labelValue" => LABEL_VALUE.problems(text),
        "qualifiedName" => qualified_name(text),
        "uri" if super::url::Url::parse(text).is_none() => {
            vec![format!("parse {text:?}: invalid URI for request")]
        }
        "uri" => vec![],
        "uuid" => standard("uuid", "does not match the UUID format"),
        "byte" => standard("byte", "invalid base64"),
        "date" => standard("date", "invalid date"),
        _ => standard("datetime", "invalid datetime"),
    }
}

fn qualified_name(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        None => (None, text),
        _ => {
            return vec![
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".to_owned(),
            ];
        }
    };
    let mut problems = match prefix {
        Some("") => vec!["prefix part must be non-empty".to_owned()],
        Some(prefix) => {
            let problems = DNS_1123_SUBDOMAIN.problems(prefix);
            problems.into_iter().map(|problem| format!("prefix part {problem}")).collect()
        }
        None => vec![],
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > NAME_PART.most {
        problems.push(format!("name part must be no more than {} bytes", NAME_PART.most));
    }
    problems.extend(NAME_PART.problems(name).pop().filter(|problem| problem == NAME_PART.problem));
    problems
}
