//! Kubernetes' own kinds as clients of Kubernetes send them, whatever the server says it prefers: as protobuf. They are
//! read into the JSON that the same clients would have sent.

mod messages;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::wire::{self, Content, Fields};
use messages::{ITEMS, Kind, MESSAGES, Message, Shape};

/// The media type of bodies that [`read`] reads.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// How many values a body may have: in memory they are larger than as bytes.
const MOST_VALUES: usize = 250_000;

/// Why a body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    #[error("no kind {kind:?} is registered for version {version:?} in scheme")]
    Unknown { version: String, kind: String },
    #[error(transparent)]
    Wire(#[from] wire::Error),
    #[error("a time is out of range: {0}")]
    Time(jiff::Error),
    #[error("managed fields are not JSON: {0}")]
    Json(serde_json::Error),
    #[error("it has more than {MOST_VALUES} values; send less")]
    TooMany,
}

/// The JSON that a body stands for.
///
/// # Errors
/// If it is not of a kind that is known here, or no message at all.
pub fn read(body: &[u8]) -> Result<Value, Error> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), [].as_slice());
    let mut fields = Fields::of(envelope);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => (version, kind) = read_names(content.bytes()?)?,
            2 => raw = content.bytes()?,
            _ => {}
        }
    }
    let known = MESSAGES.iter().find(|(of, name, _)| *name == kind && (of.is_empty() || *of == version));
    let Some((_, _, message)) = known else { return Err(Error::Unknown { version, kind }) };
    let mut left = MOST_VALUES;
    let mut object = Map::from_iter([("apiVersion".into(), json!(version)), ("kind".into(), json!(kind))]);
    object.extend(read_message(raw, message, &mut left)?);
    Ok(Value::Object(object))
}

fn read_names(bytes: &[u8]) -> Result<(String, String), Error> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut fields = Fields::of(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => content.text()?.clone_into(&mut version),
            2 => content.text()?.clone_into(&mut kind),
            _ => {}
        }
    }
    Ok((version, kind))
}

/// Takes one of the values that a body may have for every field; messages are as deep as [`messages`] says.
fn read_message(bytes: &[u8], message: Message, left: &mut usize) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    let mut fields = Fields::of(bytes);
    while let Some((number, content)) = fields.next()? {
        let Some(field) = message.iter().find(|field| field.number == number) else { continue };
        *left = left.checked_sub(1).ok_or(Error::TooMany)?;
        match field.shape {
            Shape::Map => {
                let (key, value) = read_entry(content.bytes()?, field.kind, left)?;
                if let Some(entries) = object.entry(field.name).or_insert_with(|| json!({})).as_object_mut() {
                    entries.insert(key, value);
                }
            }
            Shape::List => {
                let value = read_value(content, field.kind, left)?;
                if let Some(entries) = object.entry(field.name).or_insert_with(|| json!([])).as_array_mut() {
                    entries.push(value);
                }
            }
            Shape::Plain | Shape::Optional => {
                let value = read_value(content, field.kind, left)?;
                if !value.is_null() && (field.shape == Shape::Optional || !is_zero(&value)) {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(object)
}

fn is_zero(value: &Value) -> bool {
    *value == json!("") || *value == json!(0) || *value == json!(false)
}

fn read_entry(bytes: &[u8], kind: Kind, left: &mut usize) -> Result<(String, Value), Error> {
    let mut key = String::new();
    let mut value = read_value(Content::Bytes(&[]), kind, left)?;
    let mut fields = Fields::of(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => content.text()?.clone_into(&mut key),
            2 => value = read_value(content, kind, left)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_value(content: Content<'_>, kind: Kind, left: &mut usize) -> Result<Value, Error> {
    Ok(match kind {
        Kind::Text => json!(content.text()?),
        Kind::Bytes => json!(STANDARD.encode(content.bytes()?)),
        Kind::Number => json!(content.number()?),
        Kind::Flag => json!(content.number()? != 0),
        Kind::Time => read_time(content.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
        Kind::MicroTime => read_time(content.bytes()?, "%Y-%m-%dT%H:%M:%S%.6fZ")?,
        Kind::Json => {
            let text = read_only(content.bytes()?)?;
            if text.is_empty() { Value::Null } else { serde_json::from_slice(text).map_err(Error::Json)? }
        }
        Kind::Quantity => {
            json!(std::str::from_utf8(read_only(content.bytes()?)?).map_err(wire::Error::from)?)
        }
        Kind::Texts => {
            let mut list = read_message(content.bytes()?, ITEMS, left)?;
            list.remove("items").unwrap_or_else(|| json!([]))
        }
        Kind::Message(message) => Value::Object(read_message(content.bytes()?, message, left)?),
    })
}

/// The bytes of field 1.
fn read_only(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut found = [].as_slice();
    let mut fields = Fields::of(bytes);
    while let Some((number, content)) = fields.next()? {
        if number == 1 {
            found = content.bytes()?;
        }
    }
    Ok(found)
}

/// A time that is not set is an empty message.
fn read_time(bytes: &[u8], format: &str) -> Result<Value, Error> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut fields = Fields::of(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => seconds = content.number()?,
            2 => nanoseconds = i32::try_from(content.number()?).unwrap_or_default(),
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanoseconds).map_err(Error::Time)?;
    Ok(json!(jiff::fmt::strtime::format(format, time).map_err(Error::Time)?))
}

#[cfg(test)]
mod tests;
