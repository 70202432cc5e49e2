//! Create, update, patch, apply and delete of resources.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::USER_AGENT;
use axum::response::{IntoResponse, Response};
use schema::managed_fields::{self, Part};
use serde_json::{Value, json};
use store::{Deletion, Key, Object, Seen};
use tokio::sync::RwLockReadGuard;

use crate::body::APPLY_PATCH;
use crate::deletion::DeleteOptions;
use crate::rbac::{Attempt, ResourceAttempt};
use crate::resources::Call;
use crate::target::Subresource;
use crate::{ApiError, admission, body, garbage, patch, protobuf};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// How often a patch is tried anew when somebody else was faster.
const PATCH_TRIES: u32 = 8;

impl Call {
    fn media_type(&self) -> &str {
        body::media_type(&self.headers)
    }

    /// The body, as JSON.
    ///
    /// # Errors
    /// 415 or 400 if it isn't.
    pub fn parse_body(&self) -> Result<Value, ApiError> {
        let manifest = match self.media_type() {
            "application/yaml" => self.parse_yaml()?,
            "" | "application/json" | "application/x-www-form-urlencoded" => {
                admission::check_duplicates(self, &self.body)?;
                body::parse(self.kind(), &self.body)?
            }
            protobuf::MEDIA_TYPE => body::parse_protobuf(&self.body)?,
            _ => return Err(body::unknown_format(&body::FORMATS)),
        };
        body::check_can_tell(self.kind(), &manifest, &self.body)?;
        Ok(manifest)
    }

    fn parse_yaml(&self) -> Result<Value, ApiError> {
        let text =
            std::str::from_utf8(&self.body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let problem = format!("yaml: {}", text.lines().next().unwrap_or_default());
            body::unrecognized(self.kind(), &problem, &self.body)
        })
    }

    /// What a server-side apply states.
    fn parse_applied(&self) -> Result<Value, ApiError> {
        let config: Value = serde_saphyr::from_slice(&self.body).map_err(|error| {
            let text = error.to_string();
            let problem = text.lines().next().unwrap_or_default();
            ApiError::bad_request(format!(
                "error decoding YAML: error converting YAML to JSON: yaml: {problem}"
            ))
        })?;
        if let Some(found) = body::not_an_object(&config) {
            return Err(ApiError::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into \
                 Go value of type map[string]interface {{}}"
            )));
        }
        let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, info) = (text("apiVersion"), text("kind"), self.target.info);
        if version != info.api_version() || kind != info.kind {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let problem = format!("invalid object type: {group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(problem));
        }
        Ok(config)
    }

    /// The kind of a body that is sent here.
    fn kind(&self) -> &'static str {
        match self.target.subresource {
            Subresource::Scale => "Scale",
            Subresource::Token => "TokenRequest",
            _ => self.target.info.kind,
        }
    }

    /// Whether the kind takes a patch in the form that the request states.
    ///
    /// # Errors
    /// 415 if not.
    pub fn check_patch_type(&self) -> Result<(), ApiError> {
        let known: &[&str] = match self.target.info.is_ours() {
            true => &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH],
            false => &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH],
        };
        if known.contains(&self.media_type()) { Ok(()) } else { Err(body::unknown_format(known)) }
    }

    /// Options of a deletion, as a body.
    ///
    /// # Errors
    /// 415 or 400 for what can't be read.
    pub fn parse_options(&self) -> Result<Value, ApiError> {
        match self.media_type() {
            "application/yaml" => self.parse_yaml(),
            protobuf::MEDIA_TYPE => body::parse_protobuf(&self.body),
            "" | "application/json" => serde_json::from_slice(&self.body).map_err(|error| {
                let problem = body::syntax_error(&self.body, &error);
                ApiError::bad_request(format!("couldn't get version/kind; json parse error: {problem}"))
            }),
            _ => Err(body::unknown_format(&body::FORMATS)),
        }
    }

    /// A patch that is no server-side apply.
    ///
    /// # Errors
    /// 400 for what is no JSON.
    pub fn parse_patch(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let problem = body::syntax_error(&self.body, &error);
            ApiError::bad_request(format!("error decoding patch: {problem}"))
        })
    }

    /// Which fields a write to this path is about.
    fn part(&self) -> Part {
        match self.target.subresource {
            Subresource::Scale => Part::Scale,
            _ if !self.target.info.has_status => Part::All,
            _ if self.target.is_status() => Part::Status,
            _ => Part::Main,
        }
    }

    pub(crate) async fn create(&self) -> Result<Response, ApiError> {
        let info = self.target.info;
        let mut manifest = self.parse_body()?;
        if let Some(fields) = manifest.as_object_mut().filter(|_| info.has_status) {
            fields.remove("status");
        }
        let metadata = manifest.get("metadata").cloned().unwrap_or_default();
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut name = text("name");
        if name.is_empty() && !text("generateName").is_empty() {
            let suffix = daemon::random_hex(3).map_err(|error| ApiError::internal(&error))?;
            name = format!("{}{}", text("generateName"), suffix.get(..5).unwrap_or(&suffix));
            json_patch::merge(&mut manifest, &json!({"metadata": {"name": name}}));
        }
        let namespace = &self.target.namespace;
        if info.namespaced && namespace.is_empty() {
            return Err(ApiError::not_found("the server could not find the requested resource"));
        }
        if !text("namespace").is_empty() && text("namespace") != *namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let mut manifest = admission::admit(self, manifest, None, &name)?;
        let key = Key { name, ..self.target.key() };
        admission::check_namespace_takes(self, &key)?;
        let _turn = admission::check_quota(self, &key.name).await?;
        self.record(None, &mut manifest);
        if self.is_dry_run() {
            if self.hub.store.get(&key).is_some() {
                return Err(store::Error::Exists(key).into());
            }
            return Ok(self.answer(StatusCode::CREATED, &self.uncreated(key, manifest)?));
        }
        let _held = self.hold_artifacts(&manifest).await;
        let created = self.hub.store.create(key, manifest, daemon::now()).await?;
        Ok(self.answer(StatusCode::CREATED, &created))
    }

    /// Keeps garbage from being collected until an object that names artifacts is there for all to see.
    async fn hold_artifacts<'a>(&'a self, manifest: &Value) -> Option<RwLockReadGuard<'a, ()>> {
        if garbage::names_any(manifest) { Some(self.hub.registry.hold().await) } else { None }
    }

    pub(crate) async fn update(&self) -> Result<Response, ApiError> {
        let mut manifest = self.parse_body()?;
        self.check_name(&manifest)?;
        let current = self.look()?;
        self.check_uid(&manifest, &current.object)?;
        let version = manifest.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        if self.target.info.is_ours() && version.unwrap_or_default().is_empty() {
            return Err(ApiError::unversioned(self.target.info, &self.target.name));
        }
        manifest = admission::admit(self, manifest, Some(&current), &self.target.name)?;
        self.write(current, manifest).await
    }

    async fn write(&self, current: Seen, manifest: Value) -> Result<Response, ApiError> {
        Ok(self.answer(StatusCode::OK, &*self.write_object(current, manifest).await?))
    }

    /// Writes what follows from `current`, unless this is a dry run.
    ///
    /// # Errors
    /// 409 if the object changed since it was read.
    pub async fn write_object(&self, current: Seen, mut manifest: Value) -> Result<Arc<Object>, ApiError> {
        self.record(Some(&current.manifest), &mut manifest);
        if self.is_dry_run() {
            return self.updated(&current.object, manifest).map(Arc::new);
        }
        let _held = self.hold_artifacts(&manifest).await;
        Ok(self.hub.store.update_seen(current, manifest, self.target.is_status()).await?)
    }

    /// What a creation would store.
    fn uncreated(&self, key: Key, manifest: Value) -> Result<Object, ApiError> {
        Object::uncreated(key, manifest, daemon::now())
            .map_err(|error| ApiError::bad_request(error.to_string()))
    }

    /// What an update would store.
    fn updated(&self, current: &Object, manifest: Value) -> Result<Object, ApiError> {
        current.updated(manifest).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    fn record(&self, old: Option<&Value>, new: &mut Value) {
        managed_fields::record_update(old, new, &self.manager(), self.part(), daemon::now());
    }

    fn check_name(&self, manifest: &Value) -> Result<(), ApiError> {
        let name = manifest.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            let of = &self.target.name;
            return Err(ApiError::bad_request(format!(
                "the name of the object ({of} based on URL) was undeterminable: name must be provided"
            )));
        }
        if name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        let namespace = manifest.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        if !namespace.is_empty() && namespace != self.target.namespace {
            return Err(ApiError::bad_request(format!(
                "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
                self.target.namespace
            )));
        }
        Ok(())
    }

    /// Whether the manifest means the object that is there, not one of the same name before or after it.
    fn check_uid(&self, manifest: &Value, current: &Object) -> Result<(), ApiError> {
        let uid = manifest.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        if uid.is_empty() || uid == current.metadata.uid {
            return Ok(());
        }
        Err(ApiError::other_uid(&current.key, uid, &current.metadata.uid))
    }

    /// Whether a patch leaves the uid as it is.
    fn check_uid_is_kept(&self, manifest: &Value, current: &Object) -> Result<(), ApiError> {
        let uid = manifest.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        if uid.is_empty() || uid == current.metadata.uid {
            return Ok(());
        }
        let problem = format!("Invalid value: {uid:?}: field is immutable");
        Err(ApiError::field(self.target.info, &self.target.name, "metadata.uid", &problem))
    }

    /// Who writes: the field manager that the client names, or else the client itself.
    pub fn manager(&self) -> String {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
        let named = Some(self.info.text("fieldManager")).filter(|manager| !manager.is_empty());
        named.unwrap_or(agent).chars().take(128).collect()
    }

    /// Whether the caller, who may patch, may also create what is not there yet.
    fn check_may_create(&self) -> Result<(), ApiError> {
        if let Attempt::Resource(attempt) = self.info.attempt() {
            let attempt = Attempt::Resource(ResourceAttempt { verb: "create", ..attempt });
            self.hub.rbac.check(&self.user, &attempt)?;
        }
        Ok(())
    }

    /// Server-side apply.
    async fn apply(&self) -> Result<Response, ApiError> {
        let config = self.parse_applied()?;
        if config.pointer("/metadata/managedFields").is_some_and(|fields| *fields != json!([])) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        self.check_name(&config)?;
        let (force, manager, key) = (self.info.is_set("force"), self.manager(), self.target.key());
        let untyped = schema::schema_of(self.target.info).map(|schema| schema.untyped(&config));
        if let Some(untyped) = untyped.filter(|untyped| !untyped.is_empty()) {
            return Err(ApiError::untyped(self.target.info, &key.namespace, &key.name, &untyped));
        }
        loop {
            let live = self.hub.store.get(&key).map(Seen::from);
            if live.is_none() && self.target.is_status() {
                return Err(store::Error::NotFound(key).into());
            }
            let before = live.as_ref().map(|live| self.target.info.show(&live.manifest));
            let applied = managed_fields::apply(
                before.as_deref(),
                &config,
                &manager,
                self.part(),
                force,
                daemon::now(),
            );
            let applied = applied.map_err(|conflicts| ApiError::apply_conflict(&conflicts))?;
            let manifest = admission::admit(self, applied, live.as_ref(), &key.name)?;
            let _turn = match &live {
                Some(_) => None,
                None => {
                    self.check_may_create()?;
                    admission::check_namespace_takes(self, &key)?;
                    admission::check_quota(self, &key.name).await?
                }
            };
            let code = if live.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            if self.is_dry_run() {
                let shown = match &live {
                    Some(live) => self.updated(&live.object, manifest)?,
                    None => self.uncreated(key, manifest)?,
                };
                return Ok(self.answer(code, &shown));
            }
            let existed = live.is_some();
            let _held = self.hold_artifacts(&manifest).await;
            let written = match live {
                Some(live) => self.hub.store.update_seen(live, manifest, self.target.is_status()).await,
                None => self.hub.store.create(key.clone(), manifest, daemon::now()).await,
            };
            let states_version = config.pointer("/metadata/resourceVersion").is_some();
            match written {
                // Somebody was faster: what is applied is merged into what they made.
                Err(store::Error::Conflict { .. } | store::Error::Exists(_)) if !states_version => {}
                Err(store::Error::NotFound(_)) if existed => {}
                other => return Ok(self.answer(code, &*other?)),
            }
        }
    }

    /// Whether this is a server-side apply.
    pub fn is_apply(&self) -> bool {
        self.info.is_apply
    }

    pub(crate) async fn patch(&self) -> Result<Response, ApiError> {
        if self.is_apply() {
            return self.apply().await;
        }
        self.find()?;
        let patch = self.parse_patch()?;
        let mut tries = 0;
        loop {
            let current = self.look()?;
            let manifest = self.patched(&self.target.info.show(&current.manifest), &patch)?;
            self.check_name(&manifest)?;
            self.check_uid_is_kept(&manifest, &current.object)?;
            let manifest = admission::admit(self, manifest, Some(&current), &self.target.name)?;
            match self.write(current, manifest).await {
                // Unless the patch names a version itself, it means the newest object.
                Err(error)
                    if error.code == 409
                        && tries < PATCH_TRIES
                        && patch.pointer("/metadata/resourceVersion").is_none() =>
                {
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// What a patch in one of the forms that the kind takes makes of an object.
    ///
    /// # Errors
    /// 400 or 422 for a patch that can't be applied.
    pub fn patched(&self, current: &Value, patch: &Value) -> Result<Value, ApiError> {
        let mut manifest = current.clone();
        match self.media_type() {
            MERGE_PATCH if !patch.is_object() => {
                return Err(crate::patch::mistyped(patch, "map[string]interface {}"));
            }
            MERGE_PATCH => json_patch::merge(&mut manifest, patch),
            JSON_PATCH => patch::apply_json_patch(&mut manifest, patch)?,
            _ => patch::apply_strategic(&mut manifest, patch)?,
        }
        Ok(manifest)
    }

    pub(crate) async fn delete(&self) -> Result<Response, ApiError> {
        let options = DeleteOptions::read(self)?;
        let current = self.find()?;
        options.check_preconditions(&current)?;
        admission::check_deletion(self, &current)?;
        let expected = options.preconditions.resource_version.clone();
        let deletion = Deletion { expected, finalizer: options.finalizer(), now: daemon::now() };
        let deleted = match options.is_dry_run() {
            true => {
                let doomed = current.doomed(deletion.finalizer, deletion.now);
                doomed.map_err(|error| ApiError::internal(&error))?.map_or(current, Arc::new)
            }
            false => self.hub.store.delete(self.target.key(), deletion).await?,
        };
        if deleted.metadata.deletion_timestamp.is_some() {
            return Ok(self.answer(StatusCode::OK, &deleted));
        }
        let mut details = json!({
            "name": deleted.key.name, "kind": self.target.info.plural, "uid": deleted.metadata.uid,
        });
        if !self.target.info.group.is_empty() {
            json_patch::merge(&mut details, &json!({"group": self.target.info.group}));
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        Ok(Json(status).into_response())
    }

    pub(crate) async fn delete_collection(&self) -> Result<Response, ApiError> {
        let filter = self.filter()?;
        let options = DeleteOptions::read(self)?;
        let finalizer = options.finalizer();
        let (mut objects, version) = self.hub.store.list(self.target.info.plural, filter.namespace());
        objects.retain(|object| filter.passes(object));
        for object in objects.iter().filter(|_| !options.is_dry_run()) {
            admission::check_deletion(self, object)?;
            let deletion = Deletion { expected: None, finalizer, now: daemon::now() };
            match self.hub.store.delete(object.key.clone(), deletion).await {
                Ok(_) | Err(store::Error::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let metadata = json!({"resourceVersion": version.to_string()});
        Ok(self.form.list(self.target.info, objects, &metadata))
    }
}
