//! The tags: list, information, download, default, deletion.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio_util::io::ReaderStream;

use super::Buffet;
use super::reply::Reply;
use super::tag::{TagRef, no_tag};
use super::upload::refused;
use crate::shelf::{Deleted, Version};

/// Longest description in bytes.
const DESCRIPTION: usize = 16 << 10;

pub(super) async fn list(State(buffet): State<Buffet>) -> Response {
    let mut names: Vec<String> = buffet.state.repository.list().into_iter().map(|model| model.name).collect();
    names.extend(buffet.shelf.tags().into_keys());
    names.sort();
    names.dedup();
    buffet.answer(Reply::ok("Tag list provided").with("tag_list", names))
}

pub(super) async fn information(State(buffet): State<Buffet>, Path(tag): Path<String>) -> Response {
    let reply = describe_tag(&buffet, TagRef::parse(&tag));
    buffet.answer(reply.unwrap_or_else(|missing| missing.theirs_in_body(StatusCode::UNPROCESSABLE_ENTITY)))
}

fn describe_tag(buffet: &Buffet, wanted: TagRef<'_>) -> Result<Reply, Reply> {
    let name = wanted.name;
    let Some(tag) = buffet.shelf.tag(name) else { return assigned(buffet, name) };
    let only = wanted.selector.map(|_| wanted.find(buffet)).transpose()?.map(|(_, number, _)| number);
    let versions = tag.versions().iter().filter(|(number, _)| only.is_none_or(|only| only == **number));
    let versions: Map<String, Value> =
        versions.map(|(number, version)| (number.to_string(), show(name, *number, version))).collect();
    Ok(Reply::ok("OK")
        .with("tag_list_versions", versions)
        .with("default_version", tag.default_version().to_string()))
}

fn show(name: &str, number: u32, version: &Version) -> Value {
    json!({
        "path": format!("files/{name}/{number}"),
        "file": version.file,
        "time": version.time.0.strftime("%H:%M:%S %d/%m/%Y").to_string(),
        "description": version.description.as_deref().unwrap_or("No description provided"),
        "ml_library": version.library,
    })
}

/// A model that was not uploaded.
fn assigned(buffet: &Buffet, name: &str) -> Result<Reply, Reply> {
    let all = buffet.state.repository.list().into_iter();
    let models: Vec<_> = all.filter(|model| model.name == name).collect();
    let default = models.iter().find(|model| model.default).or(models.last());
    let default = default.ok_or_else(|| no_tag(name))?.version.clone();
    let shown = |engine: Option<&str>| {
        json!({
            "path": "", "file": "", "time": "", "description": "Assigned by the hub",
            "ml_library": engine.unwrap_or_default(),
        })
    };
    let versions: Map<String, Value> =
        models.into_iter().map(|model| (model.version, shown(model.engine))).collect();
    Ok(Reply::ok("OK").with("tag_list_versions", versions).with("default_version", default))
}

pub(super) async fn download(State(buffet): State<Buffet>, Path(tag): Path<String>) -> Response {
    let version = match TagRef::parse(&tag).find(&buffet) {
        Ok((_, _, version)) => version,
        Err(missing) => return buffet.answer(missing.theirs_stumbles()),
    };
    let Ok(file) = tokio::fs::File::open(buffet.shelf.path(&version)).await else {
        let text = "The model's file can't be read; was it deleted just now?";
        return buffet.answer(Reply::new(StatusCode::INTERNAL_SERVER_ERROR, text));
    };
    let mut response = Body::from_stream(ReaderStream::with_capacity(file, 64 << 10)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(version.size));
    headers.insert(header::CONTENT_DISPOSITION, attachment(&version.file));
    response
}

fn attachment(file: &str) -> HeaderValue {
    let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let text = if plain {
        format!("attachment; filename={file}")
    } else {
        format!("attachment; filename=\"{file}\"")
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

pub(super) async fn delete(State(buffet): State<Buffet>, Path(tag): Path<String>) -> Response {
    let wanted = TagRef::parse(&tag);
    buffet.answer(remove(&buffet, wanted).await.unwrap_or_else(|refusal| refusal))
}

async fn remove(buffet: &Buffet, wanted: TagRef<'_>) -> Result<Reply, Reply> {
    let name = wanted.name;
    let gone = || Reply::ok(format!("Tag {name} removed successfully"));
    let Some(selector) = wanted.selector else {
        wanted.find(buffet).map_err(|missing| match buffet.shelf.has(name) || !is_unknown(buffet, name) {
            true => missing,
            false => {
                let text = format!("{name} not found\n");
                Reply::new(StatusCode::NOT_FOUND, text).theirs_in_body(StatusCode::METHOD_NOT_ALLOWED)
            }
        })?;
        buffet.shelf.delete(name).await.map_err(refused)?;
        return Ok(gone());
    };
    let theirs = |missing: Reply| missing.theirs_in_body(StatusCode::UNPROCESSABLE_ENTITY);
    let (_, number, _) = wanted.find(buffet).map_err(theirs)?;
    let deleted = buffet.shelf.delete_version(name, number).await.map_err(refused)?;
    Ok(match (deleted, selector) {
        (Deleted::Tag, _) => gone(),
        (Deleted::Version { .. }, "default") => {
            Reply::ok(format!("Tag {name} updated to new default version successfully"))
        }
        (Deleted::Version { .. }, _) => {
            Reply::ok(format!("Version {number} from tag {name} removed successfully"))
        }
    })
}

fn is_unknown(buffet: &Buffet, name: &str) -> bool {
    !buffet.state.repository.list().iter().any(|model| model.name == name)
}

pub(super) async fn set_default(
    State(buffet): State<Buffet>,
    Path(tag): Path<String>,
    body: Bytes,
) -> Response {
    buffet.answer(change_default(&buffet, TagRef::parse(&tag), &body).await.unwrap_or_else(|refusal| refusal))
}

async fn change_default(buffet: &Buffet, wanted: TagRef<'_>, body: &[u8]) -> Result<Reply, Reply> {
    let name = wanted.name;
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Reply::bad_request())?;
    let number = body.get("default").ok_or_else(|| Reply::unprocessable("No default value provided"))?;
    if !(number.is_i64() || number.is_u64()) {
        return Err(Reply::unprocessable("Default value must be an integer"));
    }
    let updated = format!("Modelhost tagged as {name} updated with default version: {number}");
    let number = number.to_string();
    let meant = TagRef { name, selector: Some(&number) };
    let (_, number, _) = meant.find(buffet).map_err(|missing| match buffet.shelf.has(name) {
        // MLBuffet claims to have done it.
        true => missing.theirs_in_body(StatusCode::OK).theirs_says(&updated),
        false => missing,
    })?;
    buffet.shelf.set_default(name, number).await.map_err(refused)?;
    Ok(Reply::ok(updated))
}

pub(super) async fn describe(State(buffet): State<Buffet>, Path(tag): Path<String>, body: Bytes) -> Response {
    let reply = change_description(&buffet, TagRef::parse(&tag), &body).await;
    buffet.answer(reply.unwrap_or_else(|refusal| refusal))
}

async fn change_description(buffet: &Buffet, wanted: TagRef<'_>, body: &[u8]) -> Result<Reply, Reply> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Reply::bad_request())?;
    let Some(Value::String(description)) = body.get("model_description") else {
        return Err(Reply::unprocessable("No new 'model_description' provided as a text"));
    };
    if description.len() > DESCRIPTION {
        return Err(Reply::too_large(DESCRIPTION));
    }
    let (_, number, _) = wanted.find(buffet)?;
    buffet.shelf.describe(wanted.name, number, description.clone()).await.map_err(refused)?;
    Ok(Reply::ok(format!("Description of version {number} from tag {} updated", wanted.name)))
}
