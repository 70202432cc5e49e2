//! Get, list and watch of resources, and the way to all other verbs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::WARNING;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;
use store::{Object, Seen};

use crate::authentication::User;
use crate::filter::Filter;
use crate::form::Form;
use crate::pages::Page;
use crate::request::RequestInfo;
use crate::target::{Subresource, Target};
use crate::watch::{Options, stream_changes};
use crate::{ApiError, Hub, body, options, outlooks, subresources};

const LONGEST_WATCH: Duration = Duration::from_secs(3600);
/// How many warnings an answer carries, and how long each may be, in bytes.
const MOST_WARNINGS: usize = 32;
const LONGEST_WARNING: usize = 512;

/// All verbs on resources.
pub async fn handle(
    State(hub): State<Arc<Hub>>,
    Extension(user): Extension<Arc<User>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    request: Request,
) -> Result<Response, ApiError> {
    let target = info.target.clone().ok_or_else(|| ApiError::not_found("no resource was named"))?;
    if !target.subresource.verbs(target.info).contains(&info.verb) {
        return Err(ApiError::unfit_method());
    }
    let headers = request.headers().clone();
    let form = Form::asked(&headers, info.text("includeObject"))?;
    let body = body::read(request).await?;
    let call = Call { hub, user, info, target, headers, form, body, warnings: Mutex::default() };
    if call.info.verb == "patch" {
        call.check_patch_type()?;
    }
    options::check(&call.info, call.is_apply())?;
    let mut response = match (call.info.verb, call.target.subresource) {
        ("list", _) => call.list(),
        ("watch", _) => call.watch(),
        ("get", Subresource::Scale) => subresources::get_scale(&call),
        ("get", Subresource::Explanation) => outlooks::explain(&call).await,
        ("get", _) => call.get(),
        ("update" | "patch", Subresource::Scale) => subresources::set_scale(&call).await,
        ("update", Subresource::Finalize) => subresources::finalize(&call).await,
        ("create", Subresource::Token) => subresources::create_token(&call).await,
        ("create", _) => call.create().await,
        ("update", _) => call.update().await,
        ("patch", _) => call.patch().await,
        ("delete", _) => call.delete().await,
        _ => call.delete_collection().await,
    }?;
    call.write_warnings(response.headers_mut());
    Ok(response)
}

/// One request to a resource.
pub struct Call {
    pub hub: Arc<Hub>,
    pub user: Arc<User>,
    pub info: Arc<RequestInfo>,
    pub target: Target,
    pub headers: HeaderMap,
    pub form: Form,
    pub body: Bytes,
    warnings: Mutex<Vec<String>>,
}

impl Call {
    /// Tells the client, beside the answer, of something that is not as it should be.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    fn write_warnings(&self, headers: &mut HeaderMap) {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings.iter().take(MOST_WARNINGS) {
            let text: String = warning.chars().filter(|c| !c.is_control()).collect();
            let end = text.floor_char_boundary(LONGEST_WARNING);
            let quoted = text.get(..end).unwrap_or_default().replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
                headers.append(WARNING, value);
            }
        }
    }

    /// Whether nothing is to be kept.
    pub fn is_dry_run(&self) -> bool {
        !self.info.text("dryRun").is_empty()
    }

    /// The object that the path names.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn find(&self) -> Result<Arc<Object>, ApiError> {
        let key = self.target.key();
        Ok(self.hub.store.get(&key).ok_or(store::Error::NotFound(key))?)
    }

    /// The same with its manifest, for who changes it.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn look(&self) -> Result<Seen, ApiError> {
        Ok(self.find()?.into())
    }

    /// An answer with one object.
    pub fn answer(&self, code: StatusCode, object: &Object) -> Response {
        self.form.answer(code, self.target.info, object)
    }

    fn get(&self) -> Result<Response, ApiError> {
        self.check_version_is_reached(None)?;
        Ok(self.answer(StatusCode::OK, &*self.find()?))
    }

    fn list(&self) -> Result<Response, ApiError> {
        let page = self.page()?;
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if !page.next.is_empty() {
            let more = json!({"continue": page.next, "remainingItemCount": page.remaining});
            json_patch::merge(&mut metadata, &more);
        }
        Ok(self.form.list(self.target.info, page.objects, &metadata))
    }

    /// The filter of a list, a watch or a deletion of many.
    pub fn filter(&self) -> Result<Filter, ApiError> {
        Filter::parse(self.target.info, &self.target.namespace, &self.info.query)
    }

    fn page(&self) -> Result<Page, ApiError> {
        let info = self.target.info;
        self.info.number("timeoutSeconds")?;
        let limit = self.info.number("limit")?.filter(|limit| *limit > 0);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (labels, fields) = (self.info.text("labelSelector"), self.info.text("fieldSelector"));
        let user = self.user.name.as_str();
        let question = [info.plural, &self.target.namespace, labels, fields, user].join("\0");
        let next = self.info.text("continue");
        let filter = self.filter()?;
        options::check_list(&self.info)?;
        if !next.is_empty() {
            if self.info.version()?.is_some_and(|version| version > 0) {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return self.hub.pages.go_on(&question, next, limit);
        }
        let (mut objects, version) = self.hub.store.list(info.plural, filter.namespace());
        self.check_version_is_reached(Some(version))?;
        objects.retain(|object| filter.passes(object));
        self.hub.pages.begin(&question, objects, version, limit)
    }

    /// Whether what is read is as new, or just as old, as `resourceVersion` demands.
    fn check_version_is_reached(&self, read: Option<u64>) -> Result<(), ApiError> {
        let asked = self.info.version()?;
        let exact = self.info.text("resourceVersionMatch") == "Exact";
        let Some(asked) = asked else { return Ok(()) };
        let read = read.unwrap_or_else(|| self.hub.store.version());
        if asked > read {
            return Err(ApiError::future_version(asked, read));
        }
        if exact && asked != read {
            return Err(ApiError::gone(format!(
                "The resourceVersion for the provided list is too old: {asked}"
            )));
        }
        Ok(())
    }

    fn watch(&self) -> Result<Response, ApiError> {
        let timeout = self.info.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        let timeout = timeout.map_or(LONGEST_WATCH, Duration::from_secs);
        let filter = self.filter()?;
        options::check_list(&self.info)?;
        let (initial_events, version) = (self.info.is_set("sendInitialEvents"), self.info.version()?);
        let options = Options {
            from: version.filter(|version| *version > 0),
            bookmarks: self.info.is_set("allowWatchBookmarks"),
            initial_events,
            form: self.form,
            timeout: timeout.min(LONGEST_WATCH),
            _place: self.hub.limits.watch(&self.user.name)?,
            _running: self.hub.metrics.watch(self.target.info),
        };
        let shutdown = self.hub.shutdown.clone();
        stream_changes(&self.hub.store, self.target.info, filter, options, shutdown)
    }
}
