//! Sites below sites: what a hub that is itself a site tells of its own sites, and what it asks in their name.
//!
//! A branch is a child of this hub and all that is below it, as `spec.parent` of the Sites says. A child tells of the
//! sites of its own branch ([`children`]), reads the Assignments of that branch and reports on them: nothing else.

mod children;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use store::{Key, Store};
use types::{Assignment, AssignmentSpec, AssignmentStatus, Kind, SiteSpec};

pub use children::{Child, Children, ChildrenAnswer, Refused};

use crate::authentication::User;
use crate::body::Body;
use crate::filter::Filter;
use crate::form::Form;
use crate::limits::Held;
use crate::watch::{Options, stream_changes};
use crate::{ApiError, Hub};

/// How deep a tree may be.
const DEEPEST: usize = 16;
/// How long one watch lasts.
const WATCH: Duration = Duration::from_secs(300);
/// How many reports one request may carry.
const MOST_REPORTS: usize = 1000;
/// How often a report is written anew when somebody else was faster.
const TRIES: u32 = 8;

pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/sites/{site}/children", post(children::tell))
        .route("/avocet/v1/sites/{site}/assignments", get(assignments))
        .route("/avocet/v1/sites/{site}/reports", post(report))
}

/// The child of the hub at `here` by which a site is reached: itself, if it joined there. None if there is no such site,
/// or what it is below is gone.
pub fn next_hop(store: &Store, here: &str, site: &str) -> Option<String> {
    let mut at = site.to_owned();
    for _ in 0..DEEPEST {
        let parent = parent(store, &at)?;
        if parent.is_empty() || parent == here {
            return Some(at);
        }
        at = parent;
    }
    None
}

/// What a site is joined to; none if there is no such site.
fn parent(store: &Store, site: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Seen {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        parent: String,
    }
    let found = store.get(&Key::new(SiteSpec::PLURAL, "", site))?;
    found.parse::<Seen>().ok().map(|seen| seen.spec.parent)
}

/// A child of the hub, and all that is below it.
#[derive(Clone)]
pub struct Branch {
    store: Store,
    here: Arc<str>,
    child: Arc<str>,
    /// Sites that were once found to be of it: that one goes must not hide what goes with it.
    found: Arc<Mutex<HashSet<String>>>,
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch").field("child", &self.child).finish_non_exhaustive()
    }
}

impl Branch {
    pub fn of(hub: &Hub, child: &str) -> Self {
        let (here, child) = (hub.site.as_str().into(), child.into());
        Self { store: hub.store.clone(), here, child, found: Arc::default() }
    }

    /// Whether a site is of this branch now.
    pub fn has(&self, site: &str) -> bool {
        next_hop(&self.store, &self.here, site).is_some_and(|hop| hop == *self.child)
    }

    /// Whether a site is of this branch, or was when this was last asked.
    pub fn holds(&self, site: &str) -> bool {
        let is_found = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has(site) {
            return is_found().contains(site);
        }
        let mut found = is_found();
        if !found.contains(site) {
            found.insert(site.to_owned());
        }
        true
    }

    /// The sites of this branch, but for the child itself.
    pub fn below(&self) -> Vec<String> {
        let (sites, _) = self.store.list(SiteSpec::PLURAL, None);
        let names = sites.iter().map(|site| site.key.name.clone());
        names.filter(|name| **name != *self.child && self.has(name)).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct From {
    /// The version to go on from; absent begins with all that is there.
    resource_version: Option<u64>,
}

/// The Assignments of a branch, and their changes, as a watch of Kubernetes tells them.
async fn assignments(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Extension(place): Extension<Held>,
    Path(site): Path<String>,
    Query(From { resource_version }): Query<From>,
) -> Result<Response, ApiError> {
    place.give_back();
    let info = types::kind_named(AssignmentSpec::PLURAL);
    let info = info.ok_or_else(|| ApiError::not_found("assignments are not served"))?;
    let options = Options {
        from: resource_version,
        bookmarks: true,
        initial_events: resource_version.is_none(),
        form: Form::Whole,
        timeout: WATCH,
        _place: hub.limits.watch(&user.name)?,
        _running: hub.metrics.watch(info),
    };
    let filter = Filter::of_branch(Branch::of(&hub, &site));
    stream_changes(&hub.store, info, filter, options, hub.shutdown.clone())
}

/// How an Assignment stands on a site of the branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The site.
    pub site: String,
    /// The Assignment.
    pub name: String,
    /// Its uid here: the report is of no use for a later one of the same name.
    pub uid: String,
    /// How it stands; conditions and the observed generation count generations here.
    pub status: AssignmentStatus,
}

/// Many reports at once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reports {
    /// The reports.
    pub reports: Vec<Report>,
}

/// What was not written of the reports: there is no such Assignment, or no longer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Unreported {
    /// Site and name of each.
    pub unknown: Vec<(String, String)>,
}

async fn report(
    State(hub): State<Arc<Hub>>,
    Path(site): Path<String>,
    Body(Reports { reports }): Body<Reports>,
) -> Result<Json<Unreported>, ApiError> {
    if reports.len() > MOST_REPORTS {
        let message = format!("{} reports are too many; send at most {MOST_REPORTS} at once", reports.len());
        return Err(ApiError::bad_request(message));
    }
    let branch = Branch::of(&hub, &site);
    let writes = reports.into_iter().map(|report| {
        let (hub, branch) = (&hub, &branch);
        async move {
            let place = (report.site.clone(), report.name.clone());
            let is_written = branch.has(&report.site) && write(hub, report).await?;
            Ok::<_, ApiError>((!is_written).then_some(place))
        }
    });
    let written = futures::future::try_join_all(writes).await?;
    Ok(Json(Unreported { unknown: written.into_iter().flatten().collect() }))
}

/// Writes a report; answers whether there is what it is about.
async fn write(hub: &Hub, report: Report) -> Result<bool, ApiError> {
    let key = Key::new(AssignmentSpec::PLURAL, report.site, report.name);
    for _ in 0..TRIES {
        let Some(found) = hub.store.get(&key).filter(|found| found.metadata.uid == report.uid) else {
            return Ok(false);
        };
        let known = found.parse::<Assignment>().map_err(|error| ApiError::internal(&error))?;
        // How far the site is, is this hub's to say.
        let progress = known.status.progress.clone();
        let status = AssignmentStatus { progress, ..report.status.clone() };
        let mut reported = Assignment { status, ..known };
        controllers::note_report(&mut reported, hub.heartbeats.steady());
        let manifest = serde_json::to_value(reported);
        let manifest = manifest.map_err(|error| ApiError::internal(&error))?;
        match hub.store.update(key.clone(), manifest, true).await {
            Ok(_) => return Ok(true),
            Err(store::Error::Conflict { .. }) => {}
            Err(store::Error::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::conflict(format!("{key} changes faster than it can be reported on")))
}
