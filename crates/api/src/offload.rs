//! Work that a busy site offers to others.
//!
//! Sites reach only their hub, so it passes everything on: what a site asks to those that may be asked and their answers
//! back, an input to the site that was chosen, signs of life, and the outputs. Inputs and outputs lie in the boxes of the
//! [`mailbox`](crate::mailbox) until they were taken; everything else is [`Note`]s in memory, which may be lost: who
//! waits for one in vain goes on as if nobody had answered.
//!
//! Which function runs elsewhere is never for a site to say: the hub takes it from what it assigned to the site.

mod relay;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{post, put};
use axum::{Extension, Json};
use futures::TryStreamExt;
use planner::offload::{Offer, Refusal, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::Key;
use types::{
    Assignment, AssignmentSpec, ConditionStatus, Digest, Kind, Offload, OffloadTo, Site, SiteSpec,
    TaintEffect, condition,
};

use crate::authentication::User;
use crate::limits::Held;
use crate::mailbox::{self, DeliveryKind, Letter};
use crate::{ApiError, Hub};
pub(crate) use relay::Listening;
pub use relay::Relay;

/// How long sites have to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How many sites are asked at once.
const MOST_ASKED: usize = 16;
/// How large a question, an answer or a note may be, in bytes.
const LARGEST_NOTE: usize = 16 << 10;

/// What the hub passes on to a site beside its deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Note {
    /// Another site asks for work to be taken.
    Ask(Box<Ask>),
    /// The site that took an attempt is at it.
    Progress {
        /// Who is.
        from: String,
        /// The attempt.
        attempt: String,
    },
    /// The site that was sent an attempt does not do it.
    GivenBack {
        /// Who does not.
        from: String,
        /// The attempt.
        attempt: String,
        /// Why: a sentence.
        reason: String,
    },
    /// Nobody waits for an attempt any more.
    Cancel {
        /// Who waited.
        from: String,
        /// The attempt.
        attempt: String,
    },
}

/// What a site is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Names the question: the answer and the input carry it.
    pub id: String,
    /// Who asks.
    pub from: String,
    /// The name of the assignment that it is about; a component has the same name at all of its sites.
    pub assignment: String,
    /// What the site that asks was assigned.
    pub spec: AssignmentSpec,
    /// What there is to do.
    pub request: Request,
    /// CPU architecture of the site that asks.
    pub architecture: String,
}

/// What a site asks of others.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// One of the site's assignments.
    pub assignment: String,
    /// The version of its function that the site runs, see [`types::AssignedFunction::fingerprint`].
    pub function: Digest,
    /// What there is to do.
    pub request: Request,
}

/// What came of a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// The question's name.
    pub id: String,
    /// What each site said; those that did not answer in time are [`Refusal::Silent`].
    pub answers: BTreeMap<String, Answer>,
}

/// What a site that was asked says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It would take it.
    Offer(Offer),
    /// It would not.
    Refusal(Refusal),
}

pub fn routes() -> Router<Arc<Hub>> {
    let notes = Router::new()
        .route("/avocet/v1/offload/{site}/questions", post(ask))
        .route("/avocet/v1/offload/{site}/answers/{question}", post(answer))
        .route("/avocet/v1/offload/{site}/notes/{to}", post(tell))
        .layer(DefaultBodyLimit::max(LARGEST_NOTE));
    let parcels = Router::new()
        .route("/avocet/v1/offload/{site}/tasks/{to}/{attempt}", put(hand_over))
        .route("/avocet/v1/offload/{site}/results/{to}/{attempt}", put(give_back))
        .layer(DefaultBodyLimit::max(mailbox::LARGEST));
    notes.merge(parcels)
}

fn read<T: DeserializeOwned>(body: &Bytes, what: &str) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body is not JSON of {what}: {error}")))
}

/// What a site was assigned, if others may run it.
fn offloadable(
    hub: &Hub,
    site: &str,
    name: &str,
    function: &Digest,
) -> Result<(Assignment, Offload), ApiError> {
    let found = hub.store.get(&Key::new(AssignmentSpec::PLURAL, site, name));
    let assignment = found.and_then(|object| object.resource::<AssignmentSpec>().ok()).ok_or_else(|| {
        ApiError::not_found(format!(
            "assignments.avocet.dev \"{name}\" not found in the namespace \"{site}\""
        ))
    })?;
    let offload = assignment.spec.offload.clone().ok_or_else(|| {
        ApiError::forbidden(format!(
            "component `{}` keeps its work at its sites; add `offload` to it in the Application",
            assignment.spec.component
        ))
    })?;
    let wanted = assignment.spec.function.as_ref().map(types::AssignedFunction::fingerprint);
    if wanted.as_ref() != Some(function) {
        return Err(ApiError::conflict(format!(
            "site `{site}` runs another version of the function than `{name}` wants now; others would run that one"
        )));
    }
    Ok((assignment, offload))
}

/// Whether a site may be asked to take work of another.
fn may_take(hub: &Hub, from: &str, offload: &Offload, site: &Site) -> bool {
    let relation = if site.name() == hub.site { OffloadTo::Parent } else { OffloadTo::Neighbours };
    let keeps_away = |effect| matches!(effect, TaintEffect::NoSelect | TaintEffect::NoSelectIfNew);
    let ready = condition(&site.status.conditions, "Ready").map(|ready| ready.status);
    site.name() != from
        && offload.to.contains(&relation)
        && ready == Some(ConditionStatus::True)
        && !site.spec.unschedulable
        && !site.is_deleting()
        && !site.spec.taints.iter().any(|taint| keeps_away(taint.effect))
        && offload.site_selector.as_ref().is_none_or(|wanted| wanted.matches(&site.metadata.labels))
}

/// Sites that may be asked and listen now: those that run the component themselves first, the others in an order that
/// is another for each question.
fn candidates(hub: &Hub, from: &str, name: &str, offload: &Offload, question: &str) -> Vec<String> {
    let (sites, _) = hub.store.list(SiteSpec::PLURAL, None);
    let runs_it = |site: &str| hub.store.get(&Key::new(AssignmentSpec::PLURAL, site, name)).is_some();
    let mut listening: Vec<_> = sites.iter().filter(|site| hub.relay.hears(&site.key.name)).collect();
    listening.sort_by_cached_key(|site| {
        let lot = Digest::of(format!("{question}/{}", site.key.name).as_bytes());
        (!runs_it(&site.key.name), lot)
    });
    let may = listening.into_iter().filter_map(|object| {
        let site = object.resource::<SiteSpec>().ok().filter(|site| may_take(hub, from, offload, site))?;
        Some(site.name().to_owned())
    });
    may.take(MOST_ASKED).collect()
}

async fn ask(
    State(hub): State<Arc<Hub>>,
    Extension(place): Extension<Held>,
    Path(site): Path<String>,
    body: Bytes,
) -> Result<Json<Answers>, ApiError> {
    let question: Question = read(&body, "a question")?;
    let (assignment, offload) = offloadable(&hub, &site, &question.assignment, &question.function)?;
    if question.request.input_bytes > offload.max_input_bytes.bytes() {
        return Err(too_large(question.request.input_bytes, &offload));
    }
    let id = daemon::random_hex(12).map_err(|error| ApiError::internal(&error))?;
    let asked = candidates(&hub, &site, &question.assignment, &offload, &id);
    if asked.is_empty() {
        return Ok(Json(Answers { id, answers: BTreeMap::new() }));
    }
    let architecture = hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*site));
    let architecture = architecture.and_then(|object| object.resource::<SiteSpec>().ok());
    let ask = Ask {
        id: id.clone(),
        from: site,
        assignment: question.assignment,
        spec: assignment.spec,
        request: question.request,
        architecture: architecture.map(|site| site.status.architecture).unwrap_or_default(),
    };
    place.give_back();
    let answers = hub.relay.ask(&ask, &asked, ANSWER_WITHIN).await;
    Ok(Json(Answers { id, answers }))
}

fn too_large(bytes: u64, offload: &Offload) -> ApiError {
    ApiError::too_large(format!(
        "an input of {bytes} bytes stays where it is: `offload.maxInputBytes` is {}",
        offload.max_input_bytes
    ))
}

async fn answer(
    State(hub): State<Arc<Hub>>,
    Path((site, question)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    hub.relay.answer(&question, &site, read(&body, "an answer")?);
    Ok(StatusCode::NO_CONTENT)
}

async fn tell(
    State(hub): State<Arc<Hub>>,
    Path((site, to)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let note = match read(&body, "a note")? {
        Note::Ask(_) => {
            return Err(ApiError::bad_request("sites ask all others at once, at .../questions"));
        }
        Note::Progress { attempt, .. } => Note::Progress { from: site, attempt },
        Note::GivenBack { attempt, reason, .. } => Note::GivenBack { from: site, attempt, reason },
        Note::Cancel { attempt, .. } => Note::Cancel { from: site, attempt },
    };
    hub.relay.tell(&to, note);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Task {
    assignment: String,
    function: Digest,
    /// The question that was answered with the offer that is taken up.
    question: String,
    invocation: String,
    bucket: String,
    key: String,
    etag: String,
    digest: Digest,
}

/// The input of an attempt goes into the box of the site that offered to run it.
async fn hand_over(
    State(hub): State<Arc<Hub>>,
    Path((site, to, attempt)): Path<(String, String, String)>,
    Query(task): Query<Task>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (_, offload) = offloadable(&hub, &site, &task.assignment, &task.function)?;
    let found = hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*to));
    let other = found.and_then(|object| object.resource::<SiteSpec>().ok());
    if !other.is_some_and(|other| may_take(&hub, &site, &offload, &other)) {
        return Err(ApiError::forbidden(format!("site `{to}` takes no work of `{site}` now; ask anew")));
    }
    let size = mailbox::announced(&headers);
    let size =
        size.ok_or_else(|| ApiError::bad_request("the size of the input must be sent as Content-Length"))?;
    if size > offload.max_input_bytes.bytes() {
        return Err(too_large(size, &offload));
    }
    let ticket =
        hub.site_tokens.seal(&seal(&site, &to, &attempt)).map_err(|error| ApiError::internal(&error))?;
    let about = [
        ("from", site),
        ("ticket", ticket),
        ("question", task.question),
        ("invocation", task.invocation),
        ("etag", task.etag),
        ("bucket", task.bucket),
        ("key", task.key),
    ];
    let about = about.map(|(name, value)| (name.to_owned(), value)).into();
    let letter =
        Letter { kind: DeliveryKind::Task, digest: task.digest, content_type: None, size: Some(size), about };
    hub.mailbox.put(&to, &attempt, letter, body.into_data_stream().map_err(io::Error::other)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Returned {
    ticket: String,
    digest: Digest,
    /// As of every delivery that comes in parts.
    offset: Option<u64>,
    size: Option<u64>,
}

/// What became of an attempt goes into the box of the site that asked for it.
async fn give_back(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Path((site, to, attempt)): Path<(String, String, String)>,
    Query(Returned { ticket, digest, offset, size }): Query<Returned>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if !hub.site_tokens.is_sealed(&seal(&to, &site, &attempt), &ticket) {
        return Err(ApiError::forbidden(format!(
            "site `{site}` was handed no attempt `{attempt}` by `{to}`"
        )));
    }
    if hub.store.get(&Key::new(SiteSpec::PLURAL, "", &*to)).is_none() {
        return Err(ApiError::not_found(format!("sites \"{to}\" not found; nobody waits for this attempt")));
    }
    let about = [("from".to_owned(), site)].into();
    let announced = mailbox::announced(&headers);
    let letter = Letter { kind: DeliveryKind::Result, digest, content_type: None, size: announced, about };
    mailbox::put(&hub, &user, (&to, &attempt), (offset, size), letter, body).await
}

/// What a ticket says: who runs which attempt for whom.
fn seal(from: &str, to: &str, attempt: &str) -> String {
    format!("offload/{from}/{to}/{attempt}")
}
