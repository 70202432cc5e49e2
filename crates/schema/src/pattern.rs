//! Regular expressions as Go reads them, matched in linear time.

use regex::{Regex, RegexBuilder};

/// The longest pattern, in bytes.
const MAX_LENGTH: usize = 4096;
/// The largest compiled pattern, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// Compiles a pattern, or says why it is none.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_LENGTH {
        return Err(format!("error parsing regexp: expression longer than {MAX_LENGTH} bytes"));
    }
    RegexBuilder::new(&from_go(pattern)).size_limit(MAX_SIZE).nest_limit(100).build().map_err(|error| {
        format!("error parsing regexp: {}", error.to_string().lines().last().unwrap_or_default())
    })
}

/// Go's `\d`, `\w` and `\s` are of ASCII only, and its classes are not nested.
fn from_go(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut is_in_class = false;
    let mut rest = pattern.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '\\' => match rest.next() {
                Some('d') => text.push_str("[0-9]"),
                Some('D') => text.push_str("[^0-9]"),
                Some('w') => text.push_str("[0-9A-Za-z_]"),
                Some('W') => text.push_str("[^0-9A-Za-z_]"),
                Some('s') => text.push_str(r"[\t\n\f\r ]"),
                Some('S') => text.push_str(r"[^\t\n\f\r ]"),
                Some('b') if !is_in_class => text.push_str(r"(?-u:\b)"),
                Some('z') => text.push_str(r"\z"),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            '[' if !is_in_class => {
                is_in_class = true;
                text.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
                if rest.next_if_eq(&']').is_some() {
                    text.push_str(r"\]");
                }
            }
            '[' if rest.peek() != Some(&':') => text.push_str(r"\["),
            '[' => {
                text.push('[');
                for inner in rest.by_ref() {
                    text.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            ']' => {
                is_in_class = false;
                text.push(']');
            }
            '&' | '~' if is_in_class => text.extend(['\\', next]),
            _ => text.push(next),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a&&b]+$", "&", true),
            (r"\bfoo\b", "a foo b", true),
            ("^.$", "é", true),
            (r"\]x\[", "]x[", true),
        ] {
            let regex = compile(pattern).unwrap();
            assert_eq!(regex.is_match(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        for pattern in ["(", "[a", r"a{1000}{1000}{1000}", r"(?=a)", &"a".repeat(5000)] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
