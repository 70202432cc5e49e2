//! Samples out of Prometheus' text format.

use std::collections::BTreeMap;

/// One number.
#[derive(Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples; lines that are none are skipped.
pub fn samples(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Text up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read_and_nonsense_is_skipped() {
        let text =
            "# HELP a b\na 1\nb{x=\"1,}\",y=\"\\\"\\\\\\n\"} 2.5 1700000000\nnonsense\nc{x=\"1} 3\nd{x} 4\n";
        let found: Vec<Sample> = samples(text).collect();
        let labels = BTreeMap::from([("x".into(), "1,}".into()), ("y".into(), "\"\\\n".into())]);
        let first = Sample { name: "a".into(), labels: BTreeMap::new(), value: 1.0 };
        assert_eq!(found, [first, Sample { name: "b".into(), labels, value: 2.5 }]);
    }
}
