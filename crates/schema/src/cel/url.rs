//! URLs as Go's `net/url` reads them.

use std::sync::Arc;

use super::eval::{Outcome, no_overload};
use super::value::{Map, Value};

/// An absolute URL, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port, if it names one.
    host: String,
    path: String,
    query: String,
    text: String,
}

/// What a `%` and two digits stand for; nothing where the digits are missing.
fn unescaped(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus_is_space => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    Some(bytes)
}

impl Url {
    /// The URL that a text states, if it states one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return None;
        }
        let (scheme, rest) = match text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)) {
            Some(at) if at > 0 && text.get(at..).is_some_and(|rest| rest.starts_with(':')) => {
                let (scheme, rest) = text.split_at_checked(at)?;
                if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    return None;
                }
                (scheme.to_ascii_lowercase(), rest.get(1..)?)
            }
            _ => (String::new(), text),
        };
        // Opaque ones, such as mailto:a@b, have neither host nor path.
        if !rest.starts_with('/') && scheme.is_empty() {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        unescaped(fragment, false)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            return Some(Self {
                scheme,
                host: String::new(),
                path: String::new(),
                query: query.into(),
                text: text.into(),
            });
        }
        let is_with_host = rest.starts_with("//") && (!scheme.is_empty() || !rest.starts_with("///"));
        let (authority, path) = match rest.strip_prefix("//").filter(|_| is_with_host) {
            Some(rest) => rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?,
            None => ("", rest),
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if !is_host(host) {
            return None;
        }
        unescaped(path, false)?;
        let (host, path) = (host.to_owned(), escaped_path(path));
        Some(Self { scheme, host, path, query: query.to_owned(), text: text.to_owned() })
    }

    /// The host without its port or brackets, and the port.
    fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
            _ => (self.host.as_str(), ""),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        (inner.unwrap_or(host), port)
    }

    /// What stands behind the question mark, by key, in the order of the keys' first mention.
    fn query(&self) -> Vec<(String, Vec<String>)> {
        let text = |part: &str| Some(String::from_utf8_lossy(&unescaped(part, true)?).into_owned());
        let mut fields: Vec<(String, Vec<String>)> = Vec::new();
        for part in self.query.split('&').filter(|part| !part.is_empty() && !part.contains(';')) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (Some(key), Some(value)) = (text(key), text(value)) else {
                continue;
            };
            match fields.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(value),
                None => fields.push((key, vec![value])),
            }
        }
        fields
    }
}

/// A name or an address, with or without a port.
fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((_, port)) => port,
            None => return false,
        },
        None => host.find(':').and_then(|at| host.get(at..)).unwrap_or_default(),
    };
    let digits = port.strip_prefix(':');
    let is_port =
        port.is_empty() || digits.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    is_port && !host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}', '%'])
}

fn escaped_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}?#".contains(&byte) => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

pub fn call<'a>(function: &str, url: &Url, rest: &[Value<'a>]) -> Outcome<'a> {
    if !rest.is_empty() {
        return no_overload();
    }
    let text = |text: &str| Ok(Value::from(text.to_owned()));
    match function {
        "getScheme" => text(&url.scheme),
        "getHost" => text(&url.host),
        "getHostname" => text(url.host_and_port().0),
        "getPort" => text(url.host_and_port().1),
        "getEscapedPath" => text(&url.path),
        "getQuery" => {
            let list = |values: Vec<String>| Value::list(values.into_iter().map(Value::from).collect());
            let fields = url.query().into_iter().map(|(key, values)| (Value::from(key), list(values)));
            Ok(Value::Map(Map::Owned(Arc::new(fields.collect()))))
        }
        _ => no_overload(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_as_go_does() {
        for (text, scheme, host, name, port, path) in [
            ("https://example.com:80/", "https", "example.com:80", "example.com", "80", "/"),
            ("https://[::1]:80/", "https", "[::1]:80", "::1", "80", "/"),
            ("https://[::1]/", "https", "[::1]", "::1", "", "/"),
            ("/path", "", "", "", "", "/path"),
            ("HTTPS://u:p@example.com", "https", "example.com", "example.com", "", ""),
            (
                "https://example.com/path with spaces/",
                "https",
                "example.com",
                "example.com",
                "",
                "/path%20with%20spaces/",
            ),
            ("mailto:a@b", "mailto", "", "", "", ""),
        ] {
            let url = Url::parse(text).unwrap();
            let (own_name, own_port) = url.host_and_port();
            assert_eq!(
                (url.scheme.as_str(), url.host.as_str(), own_name, own_port, url.path.as_str()),
                (scheme, host, name, port, path),
                "{text}"
            );
        }
        for text in ["", "example.com", "../a", ":a", "https://a:b/", "http://[::1", "/a%2", "a b", "1a://b"]
        {
            assert_eq!(Url::parse(text), None, "{text}");
        }
        let query = Url::parse("https://a/b?k1=a&k2=b&k2=c+d").unwrap().query();
        assert_eq!(
            query,
            [
                ("k1".to_owned(), vec!["a".to_owned()]),
                ("k2".to_owned(), vec!["b".to_owned(), "c d".to_owned()])
            ]
        );
    }
}
