//! Requests that the hub itself makes in the name of service accounts. They come in by the same door as all others, so
//! every right, limit and rule holds for them, and the audit log has them; only who they are from is vouched for here.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{Method, StatusCode};
use controllers::{Account, Ask, Cluster, Place, Refusal, SOURCE_MANAGER};
use futures::FutureExt;
use futures::future::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::authentication::{Account as Known, ServiceAccounts, User};
use crate::body::APPLY_PATCH;
use crate::client::path;
use crate::server::LARGEST_MANIFEST;
use crate::{Hub, router};

/// A user whom nobody outside can claim to be: nothing that comes from a connection carries this.
#[derive(Clone)]
struct Vouched(Arc<User>);

/// Whom the hub itself vouches for, if it made the request.
pub fn vouched(request: &Request) -> Option<Arc<User>> {
    request.extensions().get::<Vouched>().map(|Vouched(user)| user.clone())
}

/// The hub's API, asked from within. Cheap to clone.
#[derive(Clone)]
pub struct Inside {
    router: Router,
}

impl Inside {
    /// The API of a hub.
    pub fn new(hub: Hub) -> Self {
        Self { router: router(hub) }
    }

    async fn send(&self, account: &Account, place: &Place, ask: Ask) -> Result<Value, Refusal> {
        let Account { namespace, name, uid } = account;
        let user = ServiceAccounts::user(Known { namespace, name, uid });
        let object = path(place.info.plural, &place.namespace, &encoded(&place.name));
        let (method, uri, media_type, body) = match ask {
            Ask::Get => (Method::GET, object, "", Value::Null),
            Ask::Apply { manifest, force, dry_run } => {
                let dry_run = if dry_run { "&dryRun=All" } else { "" };
                let query =
                    format!("fieldManager={SOURCE_MANAGER}&force={force}&fieldValidation=Strict{dry_run}");
                (Method::PATCH, format!("{object}?{query}"), APPLY_PATCH, manifest)
            }
            Ask::Delete { uid } => {
                let options = json!({
                    "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid},
                    "propagationPolicy": "Background",
                });
                (Method::DELETE, object, "application/json", options)
            }
        };
        let mut request = Request::builder().method(method).uri(uri).header(USER_AGENT, SOURCE_MANAGER);
        if !media_type.is_empty() {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = request.body(body).map_err(|error| broken(&error))?;
        request.extensions_mut().insert(Vouched(Arc::new(user)));
        let response = self.router.clone().oneshot(request).await.map_err(|error| broken(&error))?;
        let code = response.status();
        let bytes =
            to_bytes(response.into_body(), 4 * LARGEST_MANIFEST).await.map_err(|error| broken(&error))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if code.is_success() {
            return Ok(answer);
        }
        let message =
            answer.get("message").and_then(Value::as_str).unwrap_or("no reason was given").to_owned();
        Err(Refusal { code: code.as_u16(), message })
    }
}

impl Cluster for Inside {
    fn ask<'a>(
        &'a self,
        account: &'a Account,
        place: &'a Place,
        ask: Ask,
    ) -> BoxFuture<'a, Result<Value, Refusal>> {
        self.send(account, place, ask).boxed()
    }
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal { code: StatusCode::INTERNAL_SERVER_ERROR.as_u16(), message: error.to_string() }
}
