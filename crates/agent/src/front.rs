//! The site's own HTTP API, beside the Open Inference Protocol: functions, invocations, logs, keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Client};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use futures::future::BoxFuture;
use objects::Objects;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use crate::assignments::Assignments;
use crate::config::Access;
use crate::invocations::{Input, Invocation, Invocations};
use crate::publish::files_below;
use crate::tokens::Tokens;
use crate::work::Worker;

/// What handlers need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    pub access: Arc<Access>,
    pub client: Client,
    pub invocations: Invocations,
    pub assignments: Assignments,
    pub objects: Objects,
    pub worker: Worker,
    pub tokens: Tokens,
}

const LARGEST_INPUT: usize = 64 << 20;
/// How much of a log one answer holds, from its end, in bytes.
const LOG_TAIL: u64 = 1 << 20;

pub(crate) fn router(front: Front, models: Router) -> Router {
    let site = Router::new()
        .route("/site/v1/credentials", get(credentials))
        .route("/site/v1/invocations", get(list))
        .route("/site/v1/invocations/{id}", get(show))
        .route("/site/v1/invocations/{id}/log", get(log))
        .route("/site/v1/invocations/{id}/replay", post(replay))
        .route("/site/v1/objects/{bucket}/{*key}", get(object))
        .route("/site/v1/functions/{function}/invoke", post(invoke))
        .layer(DefaultBodyLimit::max(LARGEST_INPUT))
        .layer(from_fn_with_state(front.clone(), authenticate))
        .layer(from_fn(share_across_origins))
        .with_state(front);
    site.merge(models)
}

/// The hub's page has another origin than the site. Tokens are never sent by browsers on their own, so any page
/// may ask: without a token it learns nothing.
async fn share_across_origins(request: Request, next: Next) -> Response {
    let is_question = request.method() == Method::OPTIONS;
    let mut response =
        if is_question { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "authorization"),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-max-age", "600"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Lets in who has the site's own token, or one that the hub signed for this site.
async fn authenticate(
    State(front): State<Front>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    front.check_token(request.headers()).await?;
    Ok(next.run(request).await)
}

/// Who may call functions may upload models, too.
impl serving::Guard for Front {
    fn admit<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { self.check_token(headers).await.map_err(|refusal| refusal.message) })
    }
}

impl Front {
    async fn check_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()).unwrap_or_default();
        self.check_secret(header.strip_prefix("Bearer ").unwrap_or_default()).await
    }

    /// Whether a token is good here.
    ///
    /// # Errors
    /// 401 that says what is wrong.
    pub(crate) async fn check_secret(&self, token: &str) -> Result<(), ApiError> {
        if token.is_empty() {
            return Err(ApiError::unauthorized(
                "no bearer token was sent; send the site's own, or one that its hub signed for it",
            ));
        }
        if daemon::same_secret(token, &self.access.token) {
            return Ok(());
        }
        self.tokens.check(token, self.ask_hub(token)).await
    }

    async fn ask_hub(&self, token: &str) -> Result<(), ApiError> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let request = self.client.request(reqwest::Method::POST, path).timeout(Duration::from_secs(5));
        let answer: Value = self.client.json(request.json(&review)).await.map_err(|_| {
            ApiError::unauthorized("the token is not the site's own, and the hub can't be asked about it now")
        })?;
        if answer.pointer("/status/authenticated") != Some(&Value::Bool(true)) {
            return Err(ApiError::unauthorized("neither the site nor its hub knows the token as good here"));
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Result<Invocation, ApiError> {
        let found = self.invocations.get(id).map_err(|error| ApiError::internal(&error))?;
        found.ok_or_else(|| {
            ApiError::not_found(format!("invocation \"{id}\" not found on site `{}`", self.access.site))
        })
    }
}

async fn credentials(State(front): State<Front>) -> Json<Value> {
    let Access { access_key, secret_key, objects, .. } = &*front.access;
    Json(json!({"accessKey": access_key, "secretKey": secret_key, "endpoint": objects}))
}

#[derive(Deserialize)]
struct Wanted {
    limit: Option<usize>,
}

async fn list(State(front): State<Front>, Query(wanted): Query<Wanted>) -> Result<Json<Value>, ApiError> {
    let limit = wanted.limit.unwrap_or(1000).min(10_000);
    let items = front.invocations.list(limit).map_err(|error| ApiError::internal(&error))?;
    Ok(Json(json!({"items": items})))
}

async fn show(State(front): State<Front>, Path(id): Path<String>) -> Result<Json<Invocation>, ApiError> {
    front.find(&id).map(Json)
}

async fn log(State(front): State<Front>, Path(id): Path<String>) -> Result<Response, ApiError> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let invocation = front.find(&id)?;
    let mut file = match tokio::fs::File::open(front.invocations.log_file(&invocation.id)).await {
        Ok(file) => file,
        Err(_) => return Ok(String::new().into_response()),
    };
    let read = async {
        let size = file.metadata().await?.len();
        file.seek(std::io::SeekFrom::Start(size.saturating_sub(LOG_TAIL))).await?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut tail).await?;
        Ok::<_, std::io::Error>(tail)
    };
    let tail = read.await.map_err(|error| ApiError::internal(&error))?;
    Ok(String::from_utf8_lossy(&tail).into_owned().into_response())
}

async fn replay(State(front): State<Front>, Path(id): Path<String>) -> Result<Json<Invocation>, ApiError> {
    let invocation = front.find(&id)?;
    if invocation.state != crate::State::Failed {
        return Err(ApiError::conflict(format!(
            "invocation \"{id}\" is {:?}; only failed ones can be replayed",
            invocation.state
        )));
    }
    let assigned = front.assignments.get(&invocation.assignment);
    if assigned.is_none_or(|known| !invocation.is_of(&known.assignment)) {
        return Err(ApiError::conflict(format!(
            "component \"{}\" of application \"{}\" is not at site `{}` any more; what waited for it runs by itself \
             if it comes back",
            invocation.component, invocation.application, front.access.site
        )));
    }
    let replayed = front.invocations.replay(&id).await.map_err(|error| ApiError::internal(&error))?;
    Ok(Json(replayed.unwrap_or(invocation)))
}

async fn object(
    State(front): State<Front>,
    Path((bucket, key)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (info, file) = front.objects.get(&bucket, &key).await.map_err(|error| match error {
        objects::Error::NoSuchKey { .. } | objects::Error::NoSuchBucket(_) => {
            ApiError::not_found(error.to_string())
        }
        other => ApiError::internal(&other),
    })?;
    let content_type = info.content_type.unwrap_or_else(|| "application/octet-stream".into());
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(ReaderStream::new(file))).into_response())
}

#[derive(Deserialize)]
struct Call {
    /// How the input file is named.
    filename: Option<String>,
}

/// Runs a function on a request: its body is the input, its answer the log and the outputs. Nothing is published.
async fn invoke(
    State(front): State<Front>,
    Path(function): Path<String>,
    Query(call): Query<Call>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let all = front.assignments.all();
    let found = all.iter().find_map(|known| {
        let assigned =
            known.effective().spec.function.as_ref().filter(|assigned| assigned.name == function)?;
        Some((known, assigned, known.progress.bundle()?))
    });
    let (known, assigned, bundle) = found.ok_or_else(|| {
        ApiError::not_found(format!("function \"{function}\" does not run on site `{}`", front.access.site))
    })?;
    let filename = call.filename.unwrap_or_else(|| "input".into());
    if filename.is_empty() || filename.contains(['/', '\0']) || filename.starts_with('.') {
        return Err(ApiError::bad_request(format!("`filename` = {filename:?} is not the name of a file")));
    }
    let place = front.worker.take_place(known.assignment.name(), assigned).ok_or_else(|| {
        ApiError::too_many_requests(format!(
            "function \"{function}\" runs as often at once as it may ({}); try again, or raise spec.parallelism",
            assigned.spec.parallelism
        ))
    })?;
    let _held = front.worker.bundles.hold(bundle).ok_or_else(|| {
        ApiError::too_many_requests(format!("function \"{function}\" is being replaced; try again"))
    })?;
    let nonce = daemon::random_hex(16).map_err(|error| ApiError::internal(&error))?;
    let input = Input { bucket: String::new(), key: filename.clone(), etag: nonce };
    let invocation = Invocation::new(known.effective(), input, daemon::now())
        .ok_or_else(|| ApiError::not_found(format!("function \"{function}\" is no longer there")))?;
    let folder = front.worker.work.join(&invocation.id);
    let staged = stage(&folder, &filename, body).await.map_err(|error| ApiError::internal(&error))?;
    let run = front.worker.describe(&invocation, known.effective(), assigned, bundle, &folder, staged);
    let outcome = front.worker.runtimes.run(&run).await;
    drop(place);
    let answer = describe(&invocation, &run.output, &run.log, &outcome).await;
    front.worker.clean(&folder).await.map_err(|error| ApiError::internal(&error))?;
    let _ = tokio::fs::remove_file(&run.log).await;
    answer.map(Json).map_err(|error| ApiError::internal(&error))
}

async fn stage(folder: &std::path::Path, filename: &str, body: Bytes) -> std::io::Result<PathBuf> {
    for name in ["in", "out", "tmp"] {
        tokio::fs::create_dir_all(folder.join(name)).await?;
    }
    let path = folder.join("in").join(filename);
    tokio::fs::write(&path, body).await?;
    Ok(path)
}

async fn describe(
    invocation: &Invocation,
    output: &std::path::Path,
    log: &std::path::Path,
    outcome: &runtimes::Outcome,
) -> Result<Value, crate::Error> {
    let mut outputs = Vec::new();
    for (name, size) in files_below(output)? {
        let path = output.join(&name);
        let content = tokio::fs::read(&path).await.map_err(|error| crate::Error::disk(&path, error))?;
        let content = base64::engine::general_purpose::STANDARD.encode(content);
        outputs.push(json!({"name": name, "size": size, "content": content}));
    }
    let log = tokio::fs::read(log).await.unwrap_or_default();
    let succeeded = outcome.succeeded();
    Ok(json!({
        "id": invocation.id, "state": if succeeded { "Succeeded" } else { "Failed" },
        "reason": if succeeded { "" } else { outcome.reason() },
        "message": if succeeded { String::new() } else { outcome.message() },
        "durationMilliseconds": u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
        "log": String::from_utf8_lossy(&log), "outputs": outputs,
    }))
}
