//! What repositories and tags may be called.

use std::fmt;
use std::str::FromStr;

use crate::{ContentDigest, Error};

/// A repository's name: parts of `a-z 0-9`, between which `.`, `_`, `__` or dashes may stand, joined by `/`; up to 255
/// bytes in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

impl Repository {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if name.len() <= 255 && name.split('/').all(is_part) {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::NameFormat(name.chars().take(80).collect()))
        }
    }
}

fn is_part(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (part.bytes().next(), part.bytes().last()) else { return false };
    let separators = part.split(|c: char| is_word(u8::try_from(c).unwrap_or(0)));
    is_word(first)
        && is_word(last)
        && separators
            .filter(|run| !run.is_empty())
            .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

/// A tag: a letter, digit or `_`, then up to 127 more, `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(tag: &str) -> Result<Self, Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let well_formed = tag.len() <= 128
            && tag.bytes().next().is_some_and(is_word)
            && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        if well_formed {
            Ok(Self(tag.to_owned()))
        } else {
            Err(Error::TagFormat(tag.chars().take(160).collect()))
        }
    }
}

/// What names a manifest in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// What a tag points at now.
    Tag(Tag),
    /// This one.
    Digest(ContentDigest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// A colon makes it a digest: no tag has one.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') { text.parse().map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_by_the_grammar_of_the_specification() {
        for good in ["a", "library/iris", "a.b/c_d/e__f/g---h", "0/1", &"a".repeat(255)] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a._b",
            "a___b",
            "-a",
            "a-",
            "é",
            "a b",
            "a:b",
            "../a",
            &"a".repeat(256),
        ] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_of_up_to_128_letters_and_references_with_a_colon_are_digests() {
        for good in ["latest", "_x", "1.0-rc.1", "V2", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "é", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!("sha256:bad".parse::<Reference>().is_err());
    }
}
