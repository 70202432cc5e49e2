//! What expressions are evaluated to. JSON is looked at where it lies, never copied.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::url::Url;
use super::{Quantity, Semver};

type Json = serde_json::Value;

/// A value of the language.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number with a sign.
    Int(i64),
    /// A whole number without one.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes, which need not be a text.
    Bytes(Arc<[u8]>),
    /// A time span, in nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// An amount, as Kubernetes writes them.
    Quantity(Quantity),
    /// A version.
    Semver(Arc<Semver>),
    /// An address of a machine.
    Ip(IpAddr),
    /// An address and how many bits of it are of the network.
    Cidr(IpAddr, u8),
    /// An absolute URL, or an absolute path.
    Url(Arc<Url>),
    /// A named format of texts.
    Format(&'static str),
    /// A value that may be missing.
    Optional(Option<Box<Value<'a>>>),
    /// The type of a value.
    Type(&'static str),
}

/// A text that is cheap to clone.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Lies in the JSON or the expression.
    Borrowed(&'a str),
    /// Was computed.
    Owned(Arc<str>),
}

/// A list that is cheap to clone.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// Lies in the JSON.
    Json(&'a [Json]),
    /// Was computed.
    Owned(Arc<Vec<Value<'a>>>),
}

/// A map that is cheap to clone.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// Lies in the JSON.
    Json(&'a serde_json::Map<String, Json>),
    /// Was computed.
    Owned(Arc<Vec<(Value<'a>, Value<'a>)>>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'a> List<'a> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(entries) => entries.len(),
            Self::Owned(entries) => entries.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at an index, from 0.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(entries) => entries.get(index).map(Value::from),
            Self::Owned(entries) => entries.get(index).cloned(),
        }
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(fields) => fields.len(),
            Self::Owned(entries) => entries.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a text key.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(fields) => fields.get(key).map(Value::from),
            Self::Owned(entries) => {
                let has_key = |entry: &&(Value<'a>, Value<'a>)| entry.0.as_str() == Some(key);
                entries.iter().find(has_key).map(|(_, value)| value.clone())
            }
        }
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(fields) => fields.keys().map(|key| Value::from(key.as_str())).collect(),
            Self::Owned(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Json(fields) => {
                fields.iter().map(|(key, value)| (Value::from(key.as_str()), Value::from(value))).collect()
            }
            Self::Owned(entries) => entries.to_vec(),
        }
    }
}

impl<'a> Value<'a> {
    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The number, if it is one; whole numbers beyond 2^53 lose digits.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            Self::Quantity(quantity) => Some(quantity.approximate()),
            _ => None,
        }
    }

    /// Of JSON that is kept nowhere. All its numbers are floating-point ones, as Go reads them.
    pub(super) fn owned(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::from(text),
            Json::Array(entries) => Self::list(entries.into_iter().map(Self::owned).collect()),
            Json::Object(fields) => {
                let entries = fields.into_iter().map(|(key, value)| (Self::from(key), Self::owned(value)));
                Self::Map(Map::Owned(Arc::new(entries.collect())))
            }
        }
    }

    pub(super) fn list(entries: Vec<Value<'a>>) -> Self {
        Self::List(List::Owned(Arc::new(entries)))
    }

    /// What `type(value)` says.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
        }
    }
}

impl<'a> From<&'a Json> for Value<'a> {
    fn from(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(entries) => Self::List(List::Json(entries)),
            Json::Object(fields) => Self::Map(Map::Json(fields)),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Owned(text.into()))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}
