//! What placements decide and would decide, by the functions that decide at the hub and with what only the hub knows: values
//! of metrics, and its clock that nobody sets. Nothing of it is stored.
//!
//! Who may read a placement's explanation learns the names of all sites, and why each is selected or not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use controllers::{Measurements, Overlay, Snapshot, Unfit};
use serde_json::{Value, json};
use store::Key;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{Kind, Placement, PlacementChange, PlacementScoreSpec, PlacementSpec, SiteSpec};

use crate::authentication::User;
use crate::rbac::{Attempt, ResourceAttempt};
use crate::resources::Call;
use crate::{ApiError, Hub, body};

/// How large a simulation may be, in bytes.
const LARGEST: usize = 16 << 20;
/// How many manifests one may have.
const MOST_MANIFESTS: usize = 20_000;
/// Of how many sites an explanation tells, and how many names of sites a simulation tells.
const MOST_SITES: usize = 20_000;
const MOST_NAMES: usize = 200_000;
/// The part of placements that explains them.
const EXPLANATION: &str = "explanation";
/// How long one waits for its turn, and how long it may take then.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(20);

/// Answers one question at a time: each looks at all sites.
#[derive(Clone)]
pub struct Outlooks {
    measurements: Measurements,
    turn: Arc<Semaphore>,
}

impl Default for Outlooks {
    fn default() -> Self {
        Self::new(Measurements::default())
    }
}

impl Outlooks {
    /// With the values of metrics that the controllers decide by.
    pub fn new(measurements: Measurements) -> Self {
        Self { measurements, turn: Arc::new(Semaphore::new(1)) }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(LONGEST_WAIT, self.turn.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::too_many_requests(
                "the hub works out what others want to know of placements; ask again later",
            )
            .retry_after(LONGEST_WAIT)),
        }
    }
}

/// Works something out on a thread for that, with a turn until it is done, whether or not somebody waits for it still.
async fn work_out<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let working = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    working.await.map_err(|error| ApiError::internal(&error))?
}

/// `GET placements/NAME/explanation`: of the site that the parameter `site` names, or of `limit` sites.
///
/// # Errors
/// 404 if there is no such placement or site.
pub async fn explain(call: &Call) -> Result<Response, ApiError> {
    let object = call.find()?;
    let site = Some(call.info.text("site").to_owned()).filter(|site| !site.is_empty());
    if let Some(site) = &site {
        let key = Key::new(SiteSpec::PLURAL, "", &**site);
        call.hub.store.get(&key).ok_or(store::Error::NotFound(key))?;
    }
    let limit = call.info.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let most = limit.filter(|limit| *limit > 0).map_or(MOST_SITES, |limit| limit.min(MOST_SITES));
    let turn = call.hub.outlooks.turn().await?;
    let (hub, key) = (call.hub.clone(), call.target.key());
    let status = work_out(turn, move || {
        let snapshot = Snapshot::of_placements(&hub.store);
        let (measurements, now) = (&hub.outlooks.measurements, hub.heartbeats.steady());
        let outlook = controllers::explain(&snapshot, (&key.namespace, &key.name), measurements, now);
        let outlook = outlook
            .ok_or_else(|| ApiError::conflict(format!("placement `{}` is being removed", key.name)))?;
        Ok(controllers::tell_explanation(outlook, site.as_deref(), most))
    });
    let metadata = &object.metadata;
    let told = json!({
        "apiVersion": types::API_VERSION, "kind": types::PLACEMENT_EXPLANATION,
        "metadata": {"name": metadata.name, "namespace": metadata.namespace},
        "status": status.await?,
    });
    Ok(Json(told).into_response())
}

pub fn routes() -> Router<Arc<Hub>> {
    let path = format!(
        "/apis/{}/{}/namespaces/{{namespace}}/{}",
        types::GROUP,
        types::VERSION,
        types::PLACEMENT_SIMULATIONS
    );
    Router::new()
        .route(&path, post(simulate))
        .method_not_allowed_fallback(|| async { ApiError::unfit_method() })
        .layer(DefaultBodyLimit::max(LARGEST))
}

/// `POST placementsimulations`: what would change if the manifests in `spec.manifests` were applied. Placements of other
/// namespaces are told of where who asks may have them explained.
///
/// # Errors
/// 422 for manifests that can't be simulated, 403 for those in a namespace where who asks may not simulate, 413 for too
/// many, 504 if it takes too long.
async fn simulate(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = read(request).await?;
    let asker = Asker { hub: hub.clone(), user };
    let turn = hub.outlooks.turn().await?;
    let (asker, overlays) = work_out(turn, move || {
        let overlays = asker.overlays(&body, &namespace)?;
        Ok((asker, overlays))
    })
    .await?;
    let placements: Vec<Placement> = overlays.iter().filter_map(Overlay::placement).collect();
    let measurements = hub.outlooks.measurements.knowing_of(&placements).await;
    let turn = hub.outlooks.turn().await?;
    let placements = work_out(turn, move || asker.simulate(overlays, &measurements)).await?;
    let told = json!({
        "apiVersion": types::API_VERSION, "kind": types::PLACEMENT_SIMULATION, "metadata": {},
        "status": {"placements": placements},
    });
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    if !matches!(body::media_type(request.headers()), "" | "application/json") {
        return Err(body::unknown_format(&["application/json"]));
    }
    Bytes::from_request(request, &()).await.map_err(|refusal| match refusal.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(format!(
            "Request entity too large: limit is {LARGEST}; simulate fewer manifests at once"
        )),
        _ => ApiError::bad_request(refusal.body_text()),
    })
}

/// Who wants to know.
struct Asker {
    hub: Arc<Hub>,
    user: Arc<User>,
}

impl Asker {
    fn check(&self, verb: &str, plural: &str, subresource: &str, namespace: &str) -> Result<(), ApiError> {
        let (group, version) = (types::GROUP, types::VERSION);
        let attempt = ResourceAttempt { verb, group, version, plural, subresource, namespace, name: "" };
        self.hub.rbac.check(&self.user, &Attempt::Resource(attempt))
    }

    /// The manifests of a simulation.
    fn overlays(&self, body: &[u8], namespace: &str) -> Result<Vec<Overlay>, ApiError> {
        let mut simulation = body::parse(types::PLACEMENT_SIMULATION, body)?;
        let manifests = simulation.pointer_mut("/spec/manifests").and_then(Value::as_array_mut);
        let manifests = manifests.map(std::mem::take).unwrap_or_default();
        if manifests.is_empty() {
            return Err(invalid(
                "spec.manifests: Required value: a list of manifests of Placement, Site, PlacementScore or Application",
            ));
        }
        let count = manifests.len();
        if count > MOST_MANIFESTS {
            let problem =
                format!("spec.manifests: Too many: {count}: must have at most {MOST_MANIFESTS} items");
            return Err(invalid(&problem));
        }
        let read = |(index, manifest)| {
            let overlay = Overlay::read(manifest, namespace).map_err(|unfit| refuse(index, &unfit))?;
            // Scores are in the namespaces of their sites.
            if overlay.plural() != PlacementScoreSpec::PLURAL && !overlay.namespace().is_empty() {
                self.check("create", types::PLACEMENT_SIMULATIONS, "", overlay.namespace())?;
            }
            Ok(overlay)
        };
        manifests.into_iter().enumerate().map(read).collect()
    }

    fn simulate(
        &self,
        overlays: Vec<Overlay>,
        measurements: &Measurements,
    ) -> Result<Vec<PlacementChange>, ApiError> {
        let (begin, now) = (Instant::now(), self.hub.heartbeats.steady());
        let mut snapshot = Snapshot::of_placements(&self.hub.store);
        for (index, overlay) in overlays.into_iter().enumerate() {
            overlay.lay(&mut snapshot, now).map_err(|unfit| refuse(index, &unfit))?;
        }
        let (sites, placements) = (snapshot.sites.len(), snapshot.placements.len());
        let outlooks = controllers::simulate(&snapshot, measurements, now, || begin.elapsed() > LONGEST);
        let mut outlooks = outlooks.ok_or_else(|| {
            ApiError::timeout(format!(
                "{placements} placements over {sites} sites can't be simulated in {} s; simulate fewer manifests, or try \
                 again when the hub is less busy",
                LONGEST.as_secs()
            ))
        })?;
        let mut shown = HashMap::new();
        outlooks.retain(|outlook| {
            let namespace = &outlook.placement.0;
            let is_shown = || self.check("get", PlacementSpec::PLURAL, EXPLANATION, namespace).is_ok();
            *shown.entry(namespace.clone()).or_insert_with(is_shown)
        });
        Ok(controllers::tell_changes(outlooks, MOST_NAMES))
    }
}

fn refuse(index: usize, unfit: &Unfit) -> ApiError {
    invalid(&format!("spec.manifests[{index}]: {unfit}"))
}

fn invalid(problem: &str) -> ApiError {
    ApiError::unprocessable(format!(
        "{}.{} \"\" is invalid: {problem}",
        types::PLACEMENT_SIMULATION,
        types::GROUP
    ))
}
