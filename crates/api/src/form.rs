//! In which form a client wants objects: whole, as rows of a table, or just their metadata.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, Stream};
use serde_json::{Value, json};
use store::Object;
use types::KindInfo;

use crate::table::table;
use crate::{ApiError, body, layout};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As stored.
    Whole,
    /// Rows of a `Table`; whether they carry whole objects, their metadata, or nothing beside the cells.
    Table(Rows),
    /// `PartialObjectMetadata`.
    Metadata,
}

/// What the rows of a table carry beside their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Whole,
    Metadata,
    Nothing,
}

const META: &str = "meta.k8s.io/v1";

impl Form {
    /// The first form of `Accept` that can be served.
    ///
    /// # Errors
    /// 406 if none can.
    pub fn asked(headers: &HeaderMap, include_object: &str) -> Result<Self, ApiError> {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
        let rows = match include_object {
            "Object" => Rows::Whole,
            "None" => Rows::Nothing,
            _ => Rows::Metadata,
        };
        for choice in accept.split(',') {
            let mut parts = choice.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            if !matches!(media_type, "" | "*/*" | "application/*" | "application/json" | layout::YAML) {
                continue;
            }
            let (mut kind, mut is_known) = (None, true);
            for part in parts {
                match part.split_once('=') {
                    Some(("as", asked)) => kind = Some(asked),
                    Some(("g", group)) => is_known &= group == "meta.k8s.io",
                    Some(("v", version)) => is_known &= matches!(version, "v1" | "v1beta1"),
                    _ => {}
                }
            }
            match kind {
                None => return Ok(Self::Whole),
                Some("Table") if is_known => return Ok(Self::Table(rows)),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") if is_known => {
                    return Ok(Self::Metadata);
                }
                _ => {}
            }
        }
        Err(ApiError::not_acceptable(format!(
            "only the following media types are accepted: {}",
            body::FORMATS.join(", ")
        )))
    }

    /// One object in this form.
    pub fn object(self, info: &KindInfo, object: &Object) -> Value {
        match self {
            Self::Whole => info.show(&object.manifest()).into_owned(),
            Self::Table(rows) => {
                let metadata = json!({"resourceVersion": object.metadata.resource_version});
                table(info, &[object], rows, &metadata, daemon::now(), true)
            }
            Self::Metadata => partial(object),
        }
    }

    /// An answer with one object in this form.
    pub fn answer(self, code: StatusCode, info: &KindInfo, object: &Object) -> Response {
        if self == Self::Whole {
            return (code, [(CONTENT_TYPE, "application/json")], whole(info, object)).into_response();
        }
        (code, Json(self.object(info, object))).into_response()
    }

    /// An answer with a list of objects in this form. Unless as a table it is written while it is sent: a long list
    /// is never in memory as a whole.
    pub fn list(self, info: &'static KindInfo, objects: Vec<Arc<Object>>, metadata: &Value) -> Response {
        if let Self::Table(rows) = self {
            let objects: Vec<&Object> = objects.iter().map(AsRef::as_ref).collect();
            return Json(table(info, &objects, rows, metadata, daemon::now(), true)).into_response();
        }
        let (kind, version) = match self {
            Self::Metadata => ("PartialObjectMetadataList".to_owned(), META.to_owned()),
            _ => (format!("{}List", info.kind), info.api_version()),
        };
        let head = json!({"kind": kind, "apiVersion": version, "metadata": metadata}).to_string();
        let head = format!("{},\"items\":[", head.strip_suffix('}').unwrap_or(&head));
        let json = [(CONTENT_TYPE, "application/json")];
        if self == Self::Metadata || info.is_alias() {
            let body = Body::from_stream(list_text(head, objects, move |object| self.text(info, object)));
            return (json, body).into_response();
        }
        // What is sent as it is kept has a length that is known.
        let commas = objects.len().saturating_sub(1);
        let texts: usize = objects.iter().map(|object| object.json().len()).sum();
        let length = (head.len() + texts + commas + END.len()).to_string();
        let body = Body::from_stream(list_text(head, objects, |object| object.json().clone()));
        (json, [(CONTENT_LENGTH, length)], body).into_response()
    }

    /// The text of an object in this form; not for rows.
    fn text(self, info: &KindInfo, object: &Object) -> Bytes {
        if self == Self::Metadata { partial(object).to_string().into() } else { whole(info, object) }
    }
}

/// What a list ends with.
const END: &str = "]}";
/// How many bytes of a list are written at once, or little more.
const CHUNK: usize = 64 << 10;

/// The text of a list, a chunk at a time.
fn list_text(
    head: String,
    objects: Vec<Arc<Object>>,
    text: impl Fn(&Object) -> Bytes,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let (mut chunk, mut objects, mut is_first) = (head.into_bytes(), objects.into_iter(), true);
    let mut has_ended = false;
    stream::iter(std::iter::from_fn(move || {
        while chunk.len() < CHUNK && !has_ended {
            match objects.next() {
                Some(object) => {
                    chunk.extend_from_slice(if is_first { b"" } else { b"," });
                    chunk.extend_from_slice(&text(&object));
                    is_first = false;
                }
                None => {
                    chunk.extend_from_slice(END.as_bytes());
                    has_ended = true;
                }
            }
        }
        (!chunk.is_empty()).then(|| Ok(std::mem::take(&mut chunk).into()))
    }))
}

/// The text of a whole object; as it was written, unless the kind is shown otherwise than it is kept.
pub fn whole(info: &KindInfo, object: &Object) -> Bytes {
    if info.is_alias() { info.show(&object.manifest()).to_string().into() } else { object.json().clone() }
}

/// Only the metadata of an object.
pub fn partial(object: &Object) -> Value {
    let metadata = object.manifest().get("metadata").cloned().unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use store::Key;

    use super::*;

    fn config_map(number: usize) -> Arc<Object> {
        let key = Key::new("configmaps", "default", format!("c{number}"));
        let manifest = json!({"metadata": {}, "data": {"text": "x".repeat(1000)}});
        Arc::new(Object::uncreated(key, manifest, daemon::now()).unwrap())
    }

    #[tokio::test]
    async fn a_list_is_one_text_of_the_stated_length_however_many_chunks_it_has() {
        let info = types::kind_named("configmaps").unwrap();
        for (form, count) in
            [(Form::Whole, 300), (Form::Whole, 0), (Form::Metadata, 300), (Form::Metadata, 1)]
        {
            let objects = (0..count).map(config_map).collect();
            let response = form.list(info, objects, &json!({"resourceVersion": "7"}));
            let stated = response.headers().get(CONTENT_LENGTH).cloned();
            let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            if form == Form::Whole {
                assert_eq!(stated.unwrap().to_str().unwrap(), text.len().to_string());
            }
            let list: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(list["metadata"]["resourceVersion"], "7");
            let items = list["items"].as_array().unwrap();
            let names: Vec<&str> =
                items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
            assert_eq!(names, (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>());
        }
    }
}
