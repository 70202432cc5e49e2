//! `POST /api/v1/models/TAG/prediction`.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use inference::steps::{Frame, Reading};
use inference::{Model, Request as Inference, Tensor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::reply::Reply;
use super::tag::{TagRef, no_tag, no_version};
use super::values::{self, Inputs};
use super::{Buffet, images};
use crate::error::ApiError;
use crate::trace::{Call, Trace, TraceParent};
use crate::watch::Watch;

/// Bytes of JSON from which it is read on a thread that may block.
const LARGE: usize = 256 << 10;

const CALL: Call = Call {
    name: "POST /api/v1/models/{tag}/prediction",
    attributes: &[("http.request.method", "POST"), ("http.route", "/api/v1/models/{tag}/prediction")],
};

pub(super) async fn by_post(state: State<Buffet>, tag: Path<String>, request: Request) -> Response {
    let (State(buffet), Path(tag)) = (state, tag);
    let mut trace = Trace::begin(buffet.state.tracer.as_ref(), request.headers(), &CALL);
    let reply = predict(&buffet, TagRef::parse(&tag), request, &mut trace).await;
    let reply = reply.unwrap_or_else(|refusal| refusal);
    trace.end_with(reply.code(), || reply.noted().to_owned());
    buffet.answer(reply)
}

/// As MLBuffet's manual has it, though it doesn't do it.
pub(super) async fn by_get(state: State<Buffet>, tag: Path<String>, request: Request) -> Response {
    if state.0.legacy {
        return state.0.answer(Reply::wrong_method());
    }
    by_post(state, tag, request).await
}

/// What a request asks for.
struct Asked {
    model: Model,
    inputs: Inputs,
    /// Where the model saw a picture.
    frame: Option<Frame>,
}

async fn predict(
    buffet: &Buffet,
    wanted: TagRef<'_>,
    request: Request,
    trace: &mut Trace,
) -> Result<Reply, Reply> {
    let (parent, begun) = (TraceParent::of(request.headers()), trace.now());
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let asked = match kind.starts_with("multipart/form-data") {
        true => of_picture(buffet, wanted, request).await?,
        false => of_values(buffet, wanted, request.into_body()).await?,
    };
    trace.model(&asked.model);
    trace.step("decode", begun);
    let watch = Watch::begin(&buffet.state, &asked.model, parent);
    run(asked, watch, trace).await
}

async fn of_values(buffet: &Buffet, wanted: TagRef<'_>, body: Body) -> Result<Asked, Reply> {
    let limit = buffet.state.body_limit;
    let body = axum::body::to_bytes(body, limit).await.map_err(|error| match error.into_inner() {
        error if error.to_string().contains("length limit") => Reply::too_large(limit),
        _ => Reply::bad_request(),
    })?;
    let values = find_values(&body, buffet.legacy)?;
    let model = obtain(buffet, wanted).await?;
    let (reader, large) = (model.clone(), body.len() > LARGE);
    let read = move || values::read(values.get(), reader.signature(), reader.limits());
    let inputs = if large { aside(read).await? } else { read()? };
    if let (true, true, [spec]) = (buffet.legacy, inputs.batched, model.signature().inputs.as_slice()) {
        let given = inputs.tensors.first().map(Tensor::shape).unwrap_or_default();
        return Err(values::misfit(spec, given));
    }
    Ok(Asked { model, inputs, frame: None })
}

/// The member `values` of a body.
fn find_values(body: &[u8], legacy: bool) -> Result<Box<RawValue>, Reply> {
    let refused = |text| Reply::unprocessable(text).without_values();
    let missing = "No input for the model provided as (values:[...])";
    let json: &RawValue = serde_json::from_slice(body).map_err(|_| Reply::bad_request())?;
    if matches!(json.get(), "{}" | "[]" | "null" | "false" | "0" | "\"\"") {
        return Err(refused("No json data {values:[...]} or file provided"));
    }
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(json.get()).map_err(|_| refused(missing))?;
    let values = members.get("values").ok_or_else(|| refused(missing))?;
    let list = values.get().starts_with('[') || (values.get().starts_with('{') && !legacy);
    if !list {
        return Err(refused("New observation is not a list enclosed by squared brackets"));
    }
    Ok((*values).to_owned())
}

async fn of_picture(buffet: &Buffet, wanted: TagRef<'_>, request: Request) -> Result<Asked, Reply> {
    let content = find_picture(buffet, request).await?;
    let model = obtain(buffet, wanted).await?;
    let (tensors, frame) = images::read(&model, content).await.map_err(Reply::theirs_stumbles)?;
    Ok(Asked { model, inputs: Inputs { tensors, batched: false }, frame })
}

async fn find_picture(buffet: &Buffet, request: Request) -> Result<Bytes, Reply> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| Reply::bad_request())?;
    let unreadable = |error: axum::extract::multipart::MultipartError| match error.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => Reply::too_large(buffet.state.body_limit),
        _ => Reply::bad_request(),
    };
    while let Some(field) = form.next_field().await.map_err(unreadable)? {
        let name = field.name().unwrap_or_default();
        if name != "path" && (name != "file" || buffet.legacy) {
            continue;
        }
        let kind = field.content_type().unwrap_or_default().to_owned();
        if !kind.is_empty() && !kind.starts_with("image/") && kind != "application/octet-stream" {
            let kind: String = kind.chars().take(64).collect();
            let text = format!(
                "Filetype {kind} is not currently allowed for predictions. The model server only supports images so far"
            );
            return Err(Reply::unprocessable(text));
        }
        return field.bytes().await.map_err(unreadable);
    }
    Err(Reply::unprocessable("The name of the file path must be 'path'"))
}

async fn obtain(buffet: &Buffet, wanted: TagRef<'_>) -> Result<Model, Reply> {
    let version = wanted.number().map_err(Reply::theirs_stumbles)?.map(|number| number.to_string());
    let obtained = buffet.state.repository.obtain(wanted.name, version.as_deref()).await;
    obtained.map_err(|error| match error {
        inference::Error::UnknownModel { .. } => no_tag(wanted.name).theirs_stumbles(),
        inference::Error::UnknownVersion { version, .. } => no_version(version).theirs_stumbles(),
        other => refused(other),
    })
}

async fn run(asked: Asked, watch: Watch, trace: &mut Trace) -> Result<Reply, Reply> {
    let Asked { model, inputs: Inputs { tensors, batched }, frame } = asked;
    let outputs = watch.answer(&model, Inference::new(tensors), trace).await.map_err(refused)?.outputs;
    let first = outputs.first().map(|output| values::write(output, batched)).transpose()?;
    let mut reply = Reply::ok("Prediction successful").with("values", first.unwrap_or_default());
    if outputs.len() > 1 {
        let named = outputs.iter().map(|output| Ok((output.name().into(), values::write(output, batched)?)));
        reply = reply.with("outputs", named.collect::<Result<Map<String, Value>, Reply>>()?);
    }
    Ok(match images::interpret(&model, &outputs, frame.as_ref())? {
        Some(Reading::Classes(classes)) => reply.with("classes", json(&classes)?),
        Some(Reading::Boxes(boxes)) => reply.with("boxes", json(&boxes)?),
        None => reply,
    })
}

fn json(value: &impl serde::Serialize) -> Result<Value, Reply> {
    serde_json::to_value(value).map_err(|error| refused(ApiError::Answer(error.to_string())))
}

pub(super) fn refused(error: impl Into<ApiError>) -> Reply {
    let error = error.into();
    Reply::new(error.status(), error.message()).noted_as(error.noted()).without_values()
}

/// Runs long work on a thread that may block.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Reply> + Send + 'static,
) -> Result<T, Reply> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| refused(ApiError::Answer(error.to_string())))?
}
