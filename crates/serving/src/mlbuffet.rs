//! MLBuffet's REST API, for its clients and scripts: models are uploaded under tags and asked with plain values.
//!
//! Bodies are MLBuffet's, `http_status` in each of them. The HTTP status says the same as the body, unless
//! [`Buffet::legacy`] is on: then both are what MLBuffet answered, however odd. What it has beyond MLBuffet:
//! - `TAG`, `TAG:default` and `TAG:N` everywhere, predictions included.
//! - Models that the hub assigned are listed and answer predictions, too; only uploaded ones can be changed.
//! - `values` may be a batch, if it has one dimension more than a sample; the outputs are a batch then, too. A model
//!   of several inputs takes an object of its inputs' names; one of several outputs answers with the first of them
//!   in `values`, as MLBuffet does, and with all of them by name in `outputs`.
//! - Not offered yet: training, which answers 501.

mod images;
mod models;
mod operations;
mod predict;
mod reply;
mod tag;
mod upload;
mod values;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::bodies::Bodies;
use crate::error::ApiError;
use crate::{Guard, ServerState, Shelf};
use operations::Operation;
pub(crate) use operations::Operations;
use reply::Reply;

/// What the routes need. Cheap to clone.
#[derive(Clone)]
pub struct Buffet {
    state: ServerState,
    shelf: Shelf,
    guard: Arc<dyn Guard>,
    legacy: bool,
}

impl Buffet {
    /// Answers for the models of a server, within its limits, with truthful status codes. Uploaded models have
    /// [`Shelf`]'s own limit.
    pub fn new(state: ServerState, shelf: Shelf, guard: Arc<dyn Guard>) -> Buffet {
        state.operations.get_or_init(Operations::default);
        Buffet { state, shelf, guard, legacy: false }
    }

    /// Whether to answer with MLBuffet's own codes, which are 200 for many failures and 500 for some mistakes of
    /// clients.
    #[must_use]
    pub fn legacy(mut self, legacy: bool) -> Buffet {
        self.legacy = legacy;
        self
    }

    fn answer(&self, reply: Reply) -> Response {
        reply.into_response(self.legacy)
    }
}

/// All routes but `/metrics`, to be merged into [`crate::router`]. They answer all of `/api` in MLBuffet's form.
pub fn router(buffet: Buffet) -> Router {
    let model = "/api/v1/models/{tag}";
    let counted = |operation| from_fn_with_state((buffet.clone(), operation), count);
    let prediction = get(predict::by_get).post(predict::by_post);
    let open = Router::new()
        .route("/", get(greeting))
        .route("/help", get(help))
        .route("/api/test", get(test).layer(counted(Operation::Test)))
        .route("/api/v1/models", get(models::list).layer(counted(Operation::Storage)))
        .route(&format!("{model}/information"), get(models::information).layer(counted(Operation::Storage)))
        .route(&format!("{model}/prediction"), prediction.layer(counted(Operation::Prediction)))
        .route("/api/v1/train/{*rest}", any(training).layer(counted(Operation::Training)))
        .route("/api/{*rest}", any(no_route))
        .layer(DefaultBodyLimit::max(buffet.state.body_limit))
        .layer(from_fn_with_state((buffet.clone(), buffet.state.bodies.clone()), bounded));
    // A file and what is said about it.
    let file = usize::try_from(buffet.shelf.file_limit()).unwrap_or(usize::MAX);
    let form = file.saturating_add(1 << 20);
    let uploads = Router::new()
        .route(model, post(upload::upload))
        .layer(DefaultBodyLimit::max(form))
        .layer(from_fn_with_state((buffet.clone(), Bodies::passing()), bounded));
    let guarded = Router::new()
        .route(model, get(models::download).delete(models::delete))
        .route(&format!("{model}/download"), get(models::download))
        .route(&format!("{model}/default"), post(models::set_default))
        .route(&format!("{model}/information"), axum::routing::put(models::describe))
        .layer(from_fn_with_state((buffet.clone(), buffet.state.bodies.clone()), bounded))
        .merge(uploads)
        .layer(counted(Operation::Storage))
        .layer(from_fn_with_state(buffet.clone(), admit));
    open.merge(guarded).method_not_allowed_fallback(wrong_method).with_state(buffet)
}

async fn bounded(State((buffet, bodies)): State<(Buffet, Bodies)>, request: Request, next: Next) -> Response {
    let refused = |error: ApiError| buffet.answer(Reply::new(error.status(), error.message()));
    bodies.answer(request, next).await.unwrap_or_else(refused)
}

async fn count(
    State((buffet, operation)): State<(Buffet, Operation)>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(operations) = buffet.state.operations.get() {
        operations.count(operation);
    }
    next.run(request).await
}

async fn admit(State(buffet): State<Buffet>, request: Request, next: Next) -> Response {
    match buffet.guard.admit(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => buffet.answer(Reply::new(StatusCode::UNAUTHORIZED, refusal)),
    }
}

async fn greeting(State(buffet): State<Buffet>) -> Response {
    let ours = "This is Avocet, which answers MLBuffet's clients; see /help";
    let theirs = "Greetings from MLBuffet - Inferrer, the Machine Learning model server. For more information, visit /help";
    buffet.answer(Reply::ok(if buffet.legacy { theirs } else { ours }))
}

async fn help() -> &'static str {
    "Avocet serves models over MLBuffet's REST API, below /api/v1, and over the Open Inference Protocol, below /v2.\n"
}

async fn test(State(buffet): State<Buffet>) -> Response {
    buffet.answer(Reply::ok("OK"))
}

async fn training(State(buffet): State<Buffet>) -> Response {
    let text = "Training is not offered here yet. Train the model where its data are, export it (ONNX is best), and \
                upload it to /api/v1/models/TAG";
    buffet.answer(Reply::new(StatusCode::NOT_IMPLEMENTED, text))
}

async fn no_route(State(buffet): State<Buffet>) -> Response {
    let text = "The requested URL was not found on the server. If you entered the URL manually please check your \
                spelling and try again.";
    buffet.answer(Reply::new(StatusCode::NOT_FOUND, text))
}

async fn wrong_method(State(buffet): State<Buffet>) -> Response {
    buffet.answer(Reply::wrong_method())
}

/// Reads `values` as a prediction does, for fuzzers.
pub(crate) fn read_values(json: &str, signature: &inference::Signature, limits: inference::Limits) {
    let _ = values::read(json, signature, limits);
}
