//! Create, get, list, watch, update, patch and delete of resources.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};
use store::{Key, Object};
use types::{API_VERSION, FieldError, FieldErrors, KindInfo, Selector};

use crate::access::{self, Attempt};
use crate::authentication::User;
use crate::pages::Page;
use crate::server::LARGEST_MANIFEST;
use crate::table::table;
use crate::watch::{Options, stream_changes};
use crate::{ApiError, Hub, managed_fields, patch};

/// What a path below `/apis/avocet.dev/v1alpha1/` names.
struct Target {
    info: &'static KindInfo,
    namespace: String,
    name: String,
    is_status: bool,
}

impl Target {
    fn parse(path: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (namespace, plural, rest) = match parts.as_slice() {
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest),
            [plural, rest @ ..] => ("", *plural, rest),
            [] => ("", "", [].as_slice()),
        };
        let unknown =
            || ApiError::not_found(format!("the server could not find the requested resource `{path}`"));
        let info = types::kinds().iter().find(|info| info.plural == plural).ok_or_else(unknown)?;
        let (name, is_status) = match rest {
            [] => ("", false),
            [name] => (*name, false),
            [name, "status"] => (*name, true),
            _ => return Err(unknown()),
        };
        if !info.namespaced && !namespace.is_empty() {
            return Err(ApiError::bad_request(format!(
                "{} has no namespaces; leave `{namespace}` out",
                info.plural
            )));
        }
        if info.namespaced && namespace.is_empty() && !name.is_empty() {
            return Err(ApiError::bad_request(format!("{} are in namespaces; name one", info.plural)));
        }
        Ok(Self { info, namespace: namespace.to_owned(), name: name.to_owned(), is_status })
    }

    fn key(&self) -> Key {
        Key::new(self.info.plural, &*self.namespace, &*self.name)
    }
}

/// Which objects of a list or watch are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    namespace: String,
    labels: Selector,
    fields: Vec<(String, bool, String)>,
}

impl Filter {
    fn parse(namespace: &str, query: &HashMap<String, String>) -> Result<Self, ApiError> {
        let labels = query.get("labelSelector").map_or("", String::as_str);
        let labels = labels.parse::<Selector>().map_err(|error| ApiError::bad_request(error.to_string()))?;
        let fields = query.get("fieldSelector").map_or("", String::as_str);
        let fields = fields.split(',').filter(|term| !term.is_empty()).map(parse_field_term);
        Ok(Self { namespace: namespace.to_owned(), labels, fields: fields.collect::<Result<_, _>>()? })
    }

    /// The namespace to list, if one.
    pub fn namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    pub fn is_in_namespace(&self, object: &Object) -> bool {
        self.namespace().is_none_or(|namespace| namespace == object.key.namespace)
    }

    pub fn passes(&self, object: &Object) -> bool {
        let field = |name: &str| match name {
            "metadata.name" => &object.key.name,
            _ => &object.key.namespace,
        };
        self.is_in_namespace(object)
            && self.labels.matches(&object.metadata.labels)
            && self.fields.iter().all(|(name, equal, value)| (field(name) == value) == *equal)
    }
}

fn parse_field_term(term: &str) -> Result<(String, bool, String), ApiError> {
    let (name, equal, value) = if let Some((name, value)) = term.split_once("!=") {
        (name, false, value)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, true, value)
    } else {
        return Err(ApiError::bad_request(format!(
            "`{term}` is not a field selector; write `metadata.name=x`"
        )));
    };
    if !matches!(name, "metadata.name" | "metadata.namespace") {
        return Err(ApiError::bad_request(format!(
            "field `{name}` can't be selected by; metadata.name and metadata.namespace can"
        )));
    }
    Ok((name.to_owned(), equal, value.to_owned()))
}

/// All verbs on `/apis/avocet.dev/v1alpha1/{*path}`.
pub async fn handle(
    State(hub): State<Hub>,
    Extension(user): Extension<User>,
    method: Method,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let target = Target::parse(&path)?;
    let is_watch = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
    let verb = match (&method, target.name.is_empty(), is_watch) {
        (&Method::GET, true, false) => "list",
        (&Method::GET, true, true) => "watch",
        (&Method::GET, false, _) => "get",
        (&Method::POST, true, _) => "create",
        (&Method::PUT, false, _) => "update",
        (&Method::PATCH, false, _) => "patch",
        (&Method::DELETE, false, _) => "delete",
        (&Method::DELETE, true, _) => "deletecollection",
        _ => return Err(ApiError::method_not_allowed(format!("{method} is not possible on `{path}`"))),
    };
    let attempt = Attempt {
        verb,
        plural: target.info.plural,
        namespace: &target.namespace,
        name: &target.name,
        subresource: if target.is_status { "status" } else { "" },
    };
    access::check(&user, attempt)?;
    let request = Request { hub: &hub, target, query: &query, headers: &headers, body: &body };
    match verb {
        "list" => request.list(),
        "watch" => request.watch(),
        "get" => request.get(),
        "create" => request.create().await,
        "update" => request.update().await,
        "patch" => request.patch().await,
        "delete" => request.delete().await,
        _ => request.delete_collection().await,
    }
}

struct Request<'a> {
    hub: &'a Hub,
    target: Target,
    query: &'a HashMap<String, String>,
    headers: &'a HeaderMap,
    body: &'a Bytes,
}

/// How often a patch is tried anew when somebody else was faster.
const PATCH_TRIES: u32 = 8;
const LONGEST_WATCH: Duration = Duration::from_secs(3600);

impl Request<'_> {
    fn wants_table(&self) -> bool {
        let accept = self.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        accept.split(',').next().is_some_and(|first| first.contains("as=Table"))
    }

    fn is_dry_run(&self) -> bool {
        self.query.get("dryRun").is_some_and(|value| value == "All")
    }

    fn list(&self) -> Result<Response, ApiError> {
        let info = self.target.info;
        let page = self.page()?;
        let objects: Vec<&Object> = page.objects.iter().map(Arc::as_ref).collect();
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if !page.next.is_empty() {
            let more = json!({"continue": page.next, "remainingItemCount": page.remaining});
            json_patch::merge(&mut metadata, &more);
        }
        if self.wants_table() {
            return Ok(Json(table(info, &objects, &metadata, daemon::now(), true)).into_response());
        }
        let items: Vec<&Value> = objects.iter().map(|object| &object.manifest).collect();
        let kind = format!("{}List", info.kind);
        let list = json!({"kind": kind, "apiVersion": API_VERSION, "metadata": metadata, "items": items});
        Ok(Json(list).into_response())
    }

    fn page(&self) -> Result<Page, ApiError> {
        let info = self.target.info;
        let text = |name: &str| self.query.get(name).map_or("", String::as_str);
        let limit = self.number("limit")?.filter(|limit| *limit > 0);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let asked = [info.plural, &self.target.namespace, text("labelSelector"), text("fieldSelector")];
        let question = asked.join("\0");
        if !text("continue").is_empty() {
            return self.hub.pages.go_on(&question, text("continue"), limit);
        }
        let filter = Filter::parse(&self.target.namespace, self.query)?;
        let (mut objects, version) = self.hub.store.list(info.plural, filter.namespace());
        objects.retain(|object| filter.passes(object));
        self.hub.pages.begin(&question, objects, version, limit)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.query.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let invalid = |_| ApiError::bad_request(format!("`{name}={text}` is not a number"));
        text.parse().map(Some).map_err(invalid)
    }

    fn watch(&self) -> Result<Response, ApiError> {
        let timeout = self.number("timeoutSeconds")?.map_or(LONGEST_WATCH, Duration::from_secs);
        let options = Options {
            from: self.number("resourceVersion")?.filter(|version| *version > 0),
            bookmarks: self.query.get("allowWatchBookmarks").is_some_and(|value| value == "true"),
            initial_events: self.query.get("sendInitialEvents").is_some_and(|value| value == "true"),
            as_table: self.wants_table(),
            timeout: timeout.min(LONGEST_WATCH),
        };
        let filter = Filter::parse(&self.target.namespace, self.query)?;
        stream_changes(&self.hub.store, self.target.info, filter, options, self.hub.shutdown.clone())
    }

    fn find(&self) -> Result<Arc<Object>, ApiError> {
        let key = self.target.key();
        Ok(self.hub.store.get(&key).ok_or(store::Error::NotFound(key))?)
    }

    fn get(&self) -> Result<Response, ApiError> {
        Ok(self.answer(StatusCode::OK, &*self.find()?))
    }

    fn answer(&self, code: StatusCode, object: &Object) -> Response {
        if self.wants_table() {
            let metadata = json!({"resourceVersion": object.metadata.resource_version});
            return (code, Json(table(self.target.info, &[object], &metadata, daemon::now(), true)))
                .into_response();
        }
        (code, Json(&object.manifest)).into_response()
    }

    fn parse_body(&self) -> Result<Value, ApiError> {
        let content_type =
            self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if content_type.contains("yaml") || content_type.contains("protobuf") {
            return Err(ApiError::unsupported_media_type(format!(
                "a body of `{content_type}` can't be read here; send application/json"
            )));
        }
        serde_json::from_slice(self.body)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
    }

    /// Defaults and validation; what a client says about system fields does not count.
    fn admit(&self, manifest: &Value, name: &str) -> Result<Value, ApiError> {
        let info = self.target.info;
        let invalid = |errors: &FieldErrors| ApiError::invalid(info.kind, name, errors);
        let namespace = &self.target.namespace;
        if info.namespaced && !types::names::is_dns_label(namespace) {
            let remedy =
                "is not a name: write 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
            let error = FieldError::new("metadata.namespace", format!("{namespace:?}"), remedy);
            return Err(invalid(&FieldErrors(vec![error])));
        }
        let admitted = info.admit(manifest).map_err(|errors| invalid(&errors))?;
        // Patches add to what is there: each may be small, and the sum too large.
        let size = admitted.to_string().len();
        if size > LARGEST_MANIFEST {
            return Err(ApiError::too_large(format!(
                "{} \"{name}\" would have {size} bytes, more than {LARGEST_MANIFEST}; keep large content in buckets \
                 or artifacts and name it",
                info.kind
            )));
        }
        Ok(admitted)
    }

    async fn create(&self) -> Result<Response, ApiError> {
        let mut manifest = self.parse_body()?;
        if let Some(fields) = manifest.as_object_mut() {
            fields.remove("status");
        }
        let metadata = manifest.get("metadata").cloned().unwrap_or_default();
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut name = text("name");
        if name.is_empty() && !text("generateName").is_empty() {
            let suffix = daemon::random_hex(3).map_err(|error| ApiError::internal(&error))?;
            name = format!("{}{suffix}", text("generateName"));
            json_patch::merge(&mut manifest, &json!({"metadata": {"name": name}}));
        }
        let namespace = &self.target.namespace;
        if self.target.info.namespaced && namespace.is_empty() {
            return Err(ApiError::bad_request(
                "a new object needs a namespace; post to namespaces/NAMESPACE/…",
            ));
        }
        if !text("namespace").is_empty() && text("namespace") != *namespace {
            return Err(ApiError::bad_request(format!(
                "`metadata.namespace` is `{}`, but the request is for `{namespace}`; make them the same",
                text("namespace")
            )));
        }
        let mut manifest = self.admit(&manifest, &name)?;
        managed_fields::record_update(None, &mut manifest, &self.manager(), daemon::now());
        let key = Key { name, ..self.target.key() };
        if self.is_dry_run() {
            if self.hub.store.get(&key).is_some() {
                return Err(store::Error::Exists(key).into());
            }
            return Ok((StatusCode::CREATED, Json(manifest)).into_response());
        }
        let created = self.hub.store.create(key, manifest, daemon::now()).await?;
        Ok(self.answer(StatusCode::CREATED, &created))
    }

    async fn update(&self) -> Result<Response, ApiError> {
        let mut manifest = self.admit(&self.parse_body()?, &self.target.name)?;
        self.check_name(&manifest)?;
        let current = self.find()?;
        managed_fields::record_update(Some(&current.manifest), &mut manifest, &self.manager(), daemon::now());
        if self.is_dry_run() {
            return Ok(Json(manifest).into_response());
        }
        let updated = self.hub.store.update(self.target.key(), manifest, self.target.is_status).await?;
        Ok(self.answer(StatusCode::OK, &updated))
    }

    fn check_name(&self, manifest: &Value) -> Result<(), ApiError> {
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "`metadata.name` is `{name}`, but the request is for `{}`; make them the same",
                self.target.name
            )));
        }
        Ok(())
    }

    /// Who writes: the field manager that the client names, or else the client itself.
    fn manager(&self) -> String {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
        let named = self.query.get("fieldManager").filter(|manager| !manager.is_empty());
        named.map_or(agent, String::as_str).chars().take(128).collect()
    }

    /// Server-side apply.
    async fn apply(&self) -> Result<Response, ApiError> {
        if self.target.is_status {
            return Err(ApiError::unsupported_media_type("status can't be applied; use a merge patch"));
        }
        let text =
            std::str::from_utf8(self.body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let config: Value = serde_saphyr::from_str(text)
            .map_err(|error| ApiError::bad_request(format!("the body is not YAML: {error}")))?;
        if config.pointer("/metadata/managedFields").is_some_and(|fields| *fields != json!([])) {
            return Err(ApiError::bad_request("metadata.managedFields must be left out of what is applied"));
        }
        if !self.query.contains_key("fieldManager") {
            return Err(ApiError::bad_request("`fieldManager` is missing; name the client that applies"));
        }
        self.check_name(&config)?;
        let force = self.query.get("force").is_some_and(|value| value == "true" || value == "1");
        let (manager, key) = (self.manager(), self.target.key());
        loop {
            let live = self.hub.store.get(&key);
            let applied = managed_fields::apply(
                live.as_ref().map(|live| &live.manifest),
                &config,
                &manager,
                force,
                daemon::now(),
            );
            let applied = applied.map_err(|conflicts| ApiError::apply_conflict(&conflicts))?;
            let manifest = self.admit(&applied, &key.name)?;
            let written = match &live {
                _ if self.is_dry_run() => return Ok(Json(manifest).into_response()),
                Some(_) => self.hub.store.update(key.clone(), manifest, false).await,
                None => self.hub.store.create(key.clone(), manifest, daemon::now()).await,
            };
            let code = if live.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            let states_version = config.pointer("/metadata/resourceVersion").is_some();
            match written {
                // Somebody was faster: what is applied is merged into what they made.
                Err(store::Error::Conflict { .. } | store::Error::Exists(_)) if !states_version => {}
                Err(store::Error::NotFound(_)) if live.is_some() => {}
                other => return Ok(self.answer(code, &*other?)),
            }
        }
    }

    async fn patch(&self) -> Result<Response, ApiError> {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/apply-patch+yaml") {
            return self.apply().await;
        }
        let patch = self.parse_body()?;
        let mut tries = 0;
        loop {
            let current = self.find()?;
            let mut manifest = current.manifest.clone();
            match kind.split(';').next().unwrap_or_default() {
                "application/merge-patch+json" => json_patch::merge(&mut manifest, &patch),
                "application/json-patch+json" => patch::apply_json_patch(&mut manifest, &patch)?,
                other => {
                    return Err(ApiError::unsupported_media_type(format!(
                        "patches of type `{other}` are not supported for {}; use application/merge-patch+json, \
                         application/json-patch+json or application/apply-patch+yaml",
                        self.target.info.plural
                    )));
                }
            }
            let mut manifest = self.admit(&manifest, &self.target.name)?;
            self.check_name(&manifest)?;
            managed_fields::record_update(
                Some(&current.manifest),
                &mut manifest,
                &self.manager(),
                daemon::now(),
            );
            if self.is_dry_run() {
                return Ok(Json(manifest).into_response());
            }
            match self.hub.store.update(self.target.key(), manifest, self.target.is_status).await {
                // Unless the patch names a version itself, it means the newest object.
                Err(store::Error::Conflict { .. })
                    if tries < PATCH_TRIES && patch.pointer("/metadata/resourceVersion").is_none() =>
                {
                    tries += 1;
                }
                outcome => return Ok(self.answer(StatusCode::OK, &*outcome?)),
            }
        }
    }

    async fn delete(&self) -> Result<Response, ApiError> {
        let options: Value = if self.body.is_empty() { Value::Null } else { self.parse_body()? };
        let wanted =
            |field: &str| options.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str);
        let current = self.find()?;
        if let Some(uid) = wanted("uid").filter(|uid| *uid != current.metadata.uid) {
            return Err(ApiError::conflict(format!(
                "{} is another object of that name: its uid is {}, not {uid}",
                current.key, current.metadata.uid
            )));
        }
        if self.is_dry_run() {
            return Ok(self.answer(StatusCode::OK, &current));
        }
        let expected = wanted("resourceVersion").map(str::to_owned);
        let deleted = self.hub.store.delete(self.target.key(), expected, daemon::now()).await?;
        if deleted.metadata.deletion_timestamp.is_some() {
            return Ok((StatusCode::OK, Json(&deleted.manifest)).into_response());
        }
        let details = json!({
            "name": deleted.key.name, "group": types::GROUP, "kind": self.target.info.plural,
            "uid": deleted.metadata.uid,
        });
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(Json(status).into_response())
    }

    async fn delete_collection(&self) -> Result<Response, ApiError> {
        let filter = Filter::parse(&self.target.namespace, self.query)?;
        let (objects, _) = self.hub.store.list(self.target.info.plural, filter.namespace());
        for object in objects.iter().filter(|object| filter.passes(object)) {
            match self.hub.store.delete(object.key.clone(), None, daemon::now()).await {
                Ok(_) | Err(store::Error::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        Ok(Json(status).into_response())
    }
}
