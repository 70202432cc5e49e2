//! OpenAPI 2 as protobuf, which kubectl before 1.27 asks for. The numbers of fields are those of gnostic's
//! `OpenAPIv2.proto`; only what [`super::v2`] says has one here.

use serde_json::{Map, Value};

use crate::wire::{write_bytes, write_double, write_number};

/// How a value is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// One field for each.
    Texts,
    Flag,
    Count,
    Double,
    /// As YAML.
    Any,
    /// One field for each, as YAML.
    Anys,
    /// What a function makes of it.
    Message(fn(&Value) -> Vec<u8>),
    /// One field for each entry of a list, with what a function makes of it.
    Messages(fn(&Value) -> Vec<u8>),
    /// One field for each entry of an object: its name, and what a function makes of it.
    Named(fn(&Value) -> Vec<u8>),
}

/// A field: its name in JSON, its number, how it is written.
type Field = (&'static str, u64, Form);

const DOCUMENT: &[Field] = &[
    ("swagger", 1, Form::Text),
    ("info", 2, Form::Message(|info| message(info, &[("title", 1, Form::Text), ("version", 2, Form::Text)]))),
    ("paths", 8, Form::Message(|paths| named(paths, 2, path_item))),
    ("definitions", 9, Form::Message(|definitions| named(definitions, 1, schema))),
];

const PATH_ITEM: &[Field] = &[
    ("get", 2, Form::Message(operation)),
    ("put", 3, Form::Message(operation)),
    ("post", 4, Form::Message(operation)),
    ("delete", 5, Form::Message(operation)),
    ("patch", 8, Form::Message(operation)),
    ("parameters", 9, Form::Messages(parameter)),
];

const OPERATION: &[Field] = &[
    ("description", 3, Form::Text),
    ("operationId", 5, Form::Text),
    ("produces", 6, Form::Texts),
    ("consumes", 7, Form::Texts),
    ("parameters", 8, Form::Messages(parameter)),
    ("responses", 9, Form::Message(|responses| named(responses, 1, response))),
];

const BODY_PARAMETER: &[Field] = &[
    ("description", 1, Form::Text),
    ("name", 2, Form::Text),
    ("in", 3, Form::Text),
    ("required", 4, Form::Flag),
    ("schema", 5, Form::Message(schema)),
];

const QUERY_PARAMETER: &[Field] = &[
    ("required", 1, Form::Flag),
    ("in", 2, Form::Text),
    ("description", 3, Form::Text),
    ("name", 4, Form::Text),
    ("type", 6, Form::Text),
    ("uniqueItems", 20, Form::Flag),
];

const PATH_PARAMETER: &[Field] = &[
    ("required", 1, Form::Flag),
    ("in", 2, Form::Text),
    ("description", 3, Form::Text),
    ("name", 4, Form::Text),
    ("type", 5, Form::Text),
    ("uniqueItems", 19, Form::Flag),
];

const SCHEMA: &[Field] = &[
    ("$ref", 1, Form::Text),
    ("format", 2, Form::Text),
    ("title", 3, Form::Text),
    ("description", 4, Form::Text),
    ("default", 5, Form::Any),
    ("multipleOf", 6, Form::Double),
    ("maximum", 7, Form::Double),
    ("exclusiveMaximum", 8, Form::Flag),
    ("minimum", 9, Form::Double),
    ("exclusiveMinimum", 10, Form::Flag),
    ("maxLength", 11, Form::Count),
    ("minLength", 12, Form::Count),
    ("pattern", 13, Form::Text),
    ("maxItems", 14, Form::Count),
    ("minItems", 15, Form::Count),
    ("uniqueItems", 16, Form::Flag),
    ("maxProperties", 17, Form::Count),
    ("minProperties", 18, Form::Count),
    ("required", 19, Form::Texts),
    ("enum", 20, Form::Anys),
    (
        "additionalProperties",
        21,
        Form::Message(|value| match value {
            Value::Bool(_) => message_of(2, value, Form::Flag),
            schema_of_all => message_of(1, schema_of_all, Form::Message(schema)),
        }),
    ),
    ("type", 22, Form::Message(|kind| message_of(1, kind, Form::Text))),
    ("items", 23, Form::Message(|items| message_of(1, items, Form::Message(schema)))),
    ("properties", 25, Form::Message(|properties| named(properties, 1, schema))),
];

/// The whole document.
pub fn document(document: &Value) -> Vec<u8> {
    message(document, DOCUMENT)
}

fn path_item(item: &Value) -> Vec<u8> {
    message(item, PATH_ITEM)
}

fn operation(operation: &Value) -> Vec<u8> {
    with_extensions(message(operation, OPERATION), operation, 13)
}

/// A parameter is wrapped in messages that say where it stands.
fn parameter(parameter: &Value) -> Vec<u8> {
    let wrap = |number, inner: Vec<u8>| {
        let mut outer = Vec::new();
        write_bytes(&mut outer, number, &inner);
        outer
    };
    let inner = match parameter.get("in").and_then(Value::as_str) {
        Some("body") => wrap(1, message(parameter, BODY_PARAMETER)),
        Some("path") => wrap(2, wrap(4, message(parameter, PATH_PARAMETER))),
        _ => wrap(2, wrap(3, message(parameter, QUERY_PARAMETER))),
    };
    wrap(1, inner)
}

fn response(response: &Value) -> Vec<u8> {
    let schema_item: Form = Form::Message(|value| message_of(1, value, Form::Message(schema)));
    let response = message(response, &[("description", 1, Form::Text), ("schema", 2, schema_item)]);
    let mut value = Vec::new();
    write_bytes(&mut value, 1, &response);
    value
}

fn schema(value: &Value) -> Vec<u8> {
    with_extensions(message(value, SCHEMA), value, 31)
}

/// Adds what is not of OpenAPI itself.
fn with_extensions(mut bytes: Vec<u8>, value: &Value, number: u64) -> Vec<u8> {
    let extensions = value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    for (name, value) in extensions {
        write_bytes(&mut bytes, number, &name_and_value(name, &any(value)));
    }
    bytes
}

fn message(value: &Value, fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, number, form) in fields {
        if let Some(value) = value.get(name) {
            write(&mut bytes, *number, value, *form);
        }
    }
    bytes
}

fn message_of(number: u64, value: &Value, form: Form) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, number, value, form);
    bytes
}

fn named(value: &Value, number: u64, write_value: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    message_of(number, value, Form::Named(write_value))
}

fn write(bytes: &mut Vec<u8>, number: u64, value: &Value, form: Form) {
    let entries = value.as_array().into_iter().flatten();
    match form {
        Form::Text => write_bytes(bytes, number, value.as_str().unwrap_or_default().as_bytes()),
        Form::Texts => entries.for_each(|entry| write(bytes, number, entry, Form::Text)),
        Form::Flag => write_number(bytes, number, u64::from(value.as_bool().unwrap_or_default())),
        Form::Count => write_number(bytes, number, value.as_u64().unwrap_or_default()),
        Form::Double => write_double(bytes, number, value.as_f64().unwrap_or_default()),
        Form::Any => write_bytes(bytes, number, &any(value)),
        Form::Anys => entries.for_each(|entry| write_bytes(bytes, number, &any(entry))),
        Form::Message(make) => write_bytes(bytes, number, &make(value)),
        Form::Messages(make) => entries.for_each(|entry| write_bytes(bytes, number, &make(entry))),
        Form::Named(make) => {
            for (name, value) in value.as_object().into_iter().flat_map(Map::iter) {
                write_bytes(bytes, number, &name_and_value(name, &make(value)));
            }
        }
    }
}

fn name_and_value(name: &str, value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    write_bytes(&mut entry, 1, name.as_bytes());
    write_bytes(&mut entry, 2, value);
    entry
}

/// JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    message_of(2, &Value::String(value.to_string()), Form::Text)
}
