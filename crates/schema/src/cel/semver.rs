//! Versions as https://semver.org has them.

use std::cmp::Ordering;

/// A version: `1.30.0`, `2.0.0-rc.1+build`.
#[derive(Debug, Clone)]
pub struct Semver {
    /// The first number.
    pub major: i64,
    /// The second.
    pub minor: i64,
    /// The third.
    pub patch: i64,
    prerelease: Vec<Identifier>,
}

/// A part of what stands behind a hyphen; numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(i64),
    Word(String),
}

impl Semver {
    /// The version that a text states, if it states one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 256 {
            return None;
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, prerelease) = text.split_once('-').map_or((text, None), |(core, rest)| (core, Some(rest)));
        let mut numbers = core.split('.').map(number);
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let is_well_formed = |build: &str| build.split('.').all(is_identifier);
        if numbers.next().is_some() || !build.is_none_or(is_well_formed) {
            return None;
        }
        let prerelease = match prerelease {
            Some(parts) => parts.split('.').map(identifier).collect::<Option<_>>()?,
            None => vec![],
        };
        Some(Self { major, minor, patch, prerelease })
    }

    /// The same of texts that begin with a `v`, have leading zeros or leave out the last numbers.
    pub fn parse_normalized(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (core, rest) = text.split_at_checked(end)?;
        let mut numbers: Vec<&str> = core
            .split('.')
            .map(|number| match number.trim_start_matches('0') {
                "" if !number.is_empty() => "0",
                trimmed => trimmed,
            })
            .collect();
        while numbers.len() < 3 {
            numbers.push("0");
        }
        Self::parse(&[&numbers.join("."), rest].concat())
    }
}

fn number(text: &str) -> Option<i64> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_canonical { text.parse().ok() } else { None }
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn identifier(text: &str) -> Option<Identifier> {
    if !is_identifier(text) {
        None
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        number(text).map(Identifier::Number)
    } else {
        Some(Identifier::Word(text.to_owned()))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        // What is released comes after all that led to it.
        let is_release = |version: &Self| version.prerelease.is_empty();
        numbers(self)
            .cmp(&numbers(other))
            .then_with(|| is_release(self).cmp(&is_release(other)))
            .then_with(|| self.prerelease.cmp(&other.prerelease))
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Semver {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_the_order_that_the_standard_gives() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.30.0",
            "2.0.0",
        ];
        let versions: Vec<Semver> = ordered.iter().map(|text| Semver::parse(text).unwrap()).collect();
        assert!(versions.is_sorted());
        assert_eq!(Semver::parse("1.0.0+a"), Semver::parse("1.0.0+b"));
    }

    #[test]
    fn what_is_no_version_is_refused_unless_it_can_be_put_right() {
        for text in
            ["", "1", "1.2", "1.2.3.4", "01.2.3", "v1.2.3", "1.2.x", "1.2.3-", "1.2.3+", "1.2.3-01", "-1.0.0"]
        {
            assert_eq!(Semver::parse(text), None, "{text}");
        }
        for text in ["v1.2", "1.2", "01.02.0", " v1.2.0"] {
            assert_eq!(Semver::parse_normalized(text), Semver::parse("1.2.0"), "{text}");
        }
    }
}
