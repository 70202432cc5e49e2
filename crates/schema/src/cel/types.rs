//! What is known of a value before it is computed.

use std::fmt;

/// The type of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Known only when it is evaluated.
    Dyn,
    Null,
    /// One without parts, by its name in signatures.
    Plain(&'static str),
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
}

pub const BOOL: Type = Type::Plain("bool");
pub const INT: Type = Type::Plain("int");

/// Those of the language itself, then those of Kubernetes, and what messages call them.
const PLAIN: [(&str, &str); 15] = [
    ("bool", "bool"),
    ("int", "int"),
    ("uint", "uint"),
    ("double", "double"),
    ("string", "string"),
    ("bytes", "bytes"),
    ("type", "type"),
    ("duration", "google.protobuf.Duration"),
    ("timestamp", "google.protobuf.Timestamp"),
    ("quantity", "kubernetes.Quantity"),
    ("semver", "kubernetes.Semver"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("url", "kubernetes.URL"),
    ("format", "kubernetes.NamedFormat"),
];

impl Type {
    /// As signatures write it; what they don't name can be anything.
    pub fn named(word: &str) -> Self {
        let inner = |name: &str| word.strip_prefix(name)?.strip_prefix('<')?.strip_suffix('>');
        if let Some((name, _)) = PLAIN.iter().find(|(name, _)| *name == word) {
            return Self::Plain(name);
        }
        if let Some((key, value)) = inner("map").and_then(|inner| inner.split_once(',')) {
            return Self::Map(Box::new(Self::named(key)), Box::new(Self::named(value)));
        }
        match word {
            "list" => Self::List(Box::new(Self::Dyn)),
            "map" => Self::Map(Box::new(Self::Dyn), Box::new(Self::Dyn)),
            "optional" => Self::Optional(Box::new(Self::Dyn)),
            _ => match (inner("list"), inner("optional")) {
                (Some(entry), _) => Self::List(Box::new(Self::named(entry))),
                (_, Some(entry)) => Self::Optional(Box::new(Self::named(entry))),
                _ => Self::Dyn,
            },
        }
    }

    pub fn list(entry: Self) -> Self {
        Self::List(Box::new(entry))
    }

    /// Whether a value can be of both types.
    pub fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::Null, other) | (other, Self::Null) => match other {
                Self::Plain(name) => {
                    !matches!(*name, "bool" | "int" | "uint" | "double" | "string" | "bytes" | "type")
                }
                Self::Null | Self::Optional(_) => true,
                _ => false,
            },
            (Self::Plain(own), Self::Plain(other)) => own == other,
            (Self::List(own), Self::List(other)) | (Self::Optional(own), Self::Optional(other)) => {
                own.fits(other)
            }
            (Self::Map(key, value), Self::Map(other_key, other_value)) => {
                key.fits(other_key) && value.fits(other_value)
            }
            _ => false,
        }
    }

    /// What a value of one of them is.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (own, other) if own == other => own,
            (Self::List(own), Self::List(other)) => Self::list(own.or(*other)),
            (Self::Optional(own), Self::Optional(other)) => Self::Optional(Box::new(own.or(*other))),
            _ => Self::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Plain(name) => {
                f.write_str(PLAIN.iter().find(|(known, _)| known == name).map_or(*name, |(_, said)| *said))
            }
            Self::List(entry) => write!(f, "list({entry})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(entry) => write!(f, "optional_type({entry})"),
        }
    }
}
