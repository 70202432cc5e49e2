//! `POST …/infer`: the hot path.

use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use inference::Body;

use crate::aside;
use crate::compression::{self, Encoding, Room};
use crate::decode::{Decoded, HeaderLength, decode};
use crate::encode::encode;
use crate::error::ApiError;
use crate::pieces::Pieces;
use crate::plain::{self, Show, Wanted};
use crate::state::ServerState;
use crate::trace::{Call, Trace, TraceParent};
use crate::watch::Watch;

/// Bytes of body from which decoding and encoding leave the async threads: some hundred microseconds of parsing.
pub(crate) const LARGE: usize = 256 << 10;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

type Checked<T> = Result<Path<T>, PathRejection>;

pub(crate) async fn default_version(
    State(state): State<ServerState>,
    name: Checked<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Pieces, ApiError>,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(bad_path)?;
    infer(&state, &name, None, query.as_deref(), headers, body).await
}

pub(crate) async fn one_version(
    State(state): State<ServerState>,
    path: Checked<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Pieces, ApiError>,
) -> Result<Response, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    infer(&state, &name, Some(&version), query.as_deref(), headers, body).await
}

pub(crate) fn bad_path(rejection: PathRejection) -> ApiError {
    ApiError::BadRequest(format!("the path is not valid: {}", rejection.body_text()))
}

pub(crate) fn bad_body(rejection: &BytesRejection, limit: usize) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit },
        _ => ApiError::BadRequest(format!("the body can't be read: {}", rejection.body_text())),
    }
}

const CALL: Call = Call {
    name: "POST /v2/models/{model}/infer",
    attributes: &[("http.request.method", "POST"), ("http.route", "/v2/models/{model}/infer")],
};

async fn infer(
    state: &ServerState,
    name: &str,
    version: Option<&str>,
    query: Option<&str>,
    headers: HeaderMap,
    body: Result<Pieces, ApiError>,
) -> Result<Response, ApiError> {
    let mut trace = Trace::begin(state.tracer.as_ref(), &headers, &CALL);
    let answer = answer(state, (name, version), query, headers, body, &mut trace).await;
    trace.end(answer.as_ref());
    answer
}

async fn answer(
    state: &ServerState,
    (name, version): (&str, Option<&str>),
    query: Option<&str>,
    headers: HeaderMap,
    body: Result<Pieces, ApiError>,
    trace: &mut Trace,
) -> Result<Response, ApiError> {
    let begun = trace.now();
    let model = state.repository.obtain(name, version).await?;
    trace.step("obtain", begun);
    trace.model(&model);
    let body = body?;
    let room = Room { limit: state.body_limit, held: body.held() };
    let length = header_length(&headers)?;
    let (packed, accepted) = (compression::of_request(&headers)?, compression::for_answer(&headers));
    let watch = Watch::begin(state, &model, TraceParent::of(&headers));
    if length == HeaderLength::Absent
        && let Some(content) = plain::content(&headers)?
    {
        drop(headers);
        let inputs = plain::Body { content, packed, body: body.whole(), room };
        return plain::infer(model, inputs, Show::of(query), accepted, watch, trace).await;
    }
    drop(headers);
    let key = match watch.wants_tensors() {
        true => None,
        false => model.body_key(&[&length.to_bytes(), &[packed.map_or(0, Encoding::tag)]], body.as_slice()),
    };
    let begun = trace.now();
    if let Some(kept) = key.as_ref().and_then(|key| model.body(key)) {
        trace.hit(begun);
        let large = accepted.is_some() && kept.bytes.len() > LARGE;
        let write = move || Ok(finish(kept, accepted, Some("avocet; hit")));
        return if large { aside(write).await } else { write() };
    }
    let body = body.whole();
    let large = body.len() > LARGE || packed.is_some();
    let model_of_read = model.clone();
    let read = move || {
        let body = compression::unpack(packed, body, &room)?;
        decode(&body, length, model_of_read.signature(), model_of_read.limits())
    };
    let Decoded { id, mut request, binary, classes, reading } =
        if large { aside(read).await? } else { read()? };
    let wanted = if reading { Some(Wanted::of(&model, &mut request)?) } else { None };
    trace.step("decode", begun);
    let answer = watch.answer(&model, request, trace).await?;
    let begun = trace.now();
    let status = key.map(|_| if answer.timing.cached { "avocet; hit" } else { "avocet; fwd=miss; stored" });
    let large = answer.outputs.iter().map(|tensor| tensor.data().len()).sum::<usize>() > LARGE;
    let state = state.clone();
    let write = move || {
        let mut outputs = answer.outputs;
        let reading = wanted.map(|wanted| wanted.read(&model, &mut outputs)).transpose()?;
        let outputs = classes.apply(&state, &model, outputs)?;
        let body =
            encode(model.name(), model.version(), id.as_deref(), &outputs, &binary, reading.as_ref())?.body();
        if let Some(key) = key {
            model.keep_body(key, body.clone());
        }
        Ok(finish(body, accepted, status))
    };
    let written = if large { aside(write).await } else { write() };
    trace.step("encode", begun);
    written
}

fn header_length(headers: &HeaderMap) -> Result<HeaderLength, ApiError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(HeaderLength::Absent) };
    let length: Option<usize> = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match length {
        Some(0) => Ok(HeaderLength::Raw),
        Some(length) => Ok(HeaderLength::Json(length)),
        None => Err(ApiError::BadRequest(
            "Inference-Header-Content-Length is not a number of bytes; send the JSON part's length".into(),
        )),
    }
}

/// `cache_status` as RFC 9211 has it, for models that keep answers.
pub(crate) fn finish(
    answer: Body,
    accepted: Option<Encoding>,
    cache_status: Option<&'static str>,
) -> Response {
    let Body { bytes, json_length } = answer;
    let (body, encoding) = compression::pack(accepted, bytes);
    let mut response = Response::new(axum::body::Body::from(body));
    let headers = response.headers_mut();
    let json = json_length.is_none();
    let kind = if json { "application/json" } else { "application/octet-stream" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = json_length {
        headers.insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    if let Some(status) = cache_status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
    }
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    }
    response
}
