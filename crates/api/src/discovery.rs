//! What is served here, as Kubernetes clients ask for it: one document a group, or all in one (aggregated).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use types::{KindInfo, kinds};

use crate::target::Subresource;
use crate::{ApiError, Hub, openapi};

/// Discovery and OpenAPI.
pub fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/api", get(core_versions))
        .route("/api/", get(core_versions))
        .route("/api/{version}", get(core_resources))
        .route("/apis", get(groups))
        .route("/apis/", get(groups))
        .route("/apis/{group}", get(group))
        .route("/apis/{group}/{version}", get(group_resources))
        .merge(openapi::routes())
}

pub async fn version() -> Json<Value> {
    // Clients read the Kubernetes version whose API conventions are followed; ours is in gitVersion.
    Json(json!({
        "major": "1", "minor": "32", "gitVersion": concat!("v1.32.0+avocet-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    }))
}

/// The processor, as the Kubernetes world names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A kind that can be asked, but is not kept.
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    /// Whether it is asked in a namespace.
    pub is_local: bool,
}

const fn review(group: &'static str, plural: &'static str, kind: &'static str) -> Review {
    Review { group, version: "v1", plural, kind, is_local: false }
}

/// All of them.
pub const REVIEWS: [Review; 7] = [
    review("authentication.k8s.io", "tokenreviews", "TokenReview"),
    review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    Review {
        is_local: true,
        ..review("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview")
    },
    review("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    review("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    review("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    Review {
        version: types::VERSION,
        is_local: true,
        ..review(types::GROUP, types::PLACEMENT_SIMULATIONS, types::PLACEMENT_SIMULATION)
    },
];

/// The review that is asked at a group, version and plural.
pub fn review_at(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    REVIEWS
        .iter()
        .find(|review| review.plural == plural && review.group == group && review.version == version)
}

/// The group of a review.
pub fn review_group(plural: &str) -> Option<&'static str> {
    REVIEWS.iter().find(|review| review.plural == plural).map(|review| review.group)
}

/// The version of each group; the core group has an empty name.
fn versions() -> BTreeMap<&'static str, &'static str> {
    let reviews = REVIEWS.iter().map(|review| (review.group, review.version));
    kinds().map(|info| (info.group, info.version)).chain(reviews).collect()
}

/// Where discovery is.
pub fn paths() -> impl Iterator<Item = String> {
    let groups = versions().into_iter().filter(|(group, _)| !group.is_empty());
    let of_groups =
        groups.flat_map(|(group, version)| [format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
    ["/api", "/api/v1", "/apis", "/apis/"].map(str::to_owned).into_iter().chain(of_groups)
}

async fn core_versions(headers: HeaderMap) -> Response {
    if let Some(answer) = aggregated(&headers, |group| group.is_empty()) {
        return answer;
    }
    Json(json!({
        "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
    }))
    .into_response()
}

async fn groups(headers: HeaderMap) -> Response {
    if let Some(answer) = aggregated(&headers, |group| !group.is_empty()) {
        return answer;
    }
    let named = versions().into_iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = named.map(|(group, version)| describe_group(group, version)).collect();
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})).into_response()
}

fn describe_group(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn unknown() -> ApiError {
    ApiError::not_found("the server could not find the requested resource")
}

async fn group(Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let versions = versions();
    let version = versions.get(name.as_str()).filter(|_| !name.is_empty()).ok_or_else(unknown)?;
    let mut group = describe_group(&name, version);
    json_patch::merge(&mut group, &json!({"kind": "APIGroup", "apiVersion": "v1"}));
    Ok(Json(group))
}

async fn core_resources(Path(version): Path<String>) -> Result<Json<Value>, ApiError> {
    resources_of("", &version)
}

async fn group_resources(Path((group, version)): Path<(String, String)>) -> Result<Json<Value>, ApiError> {
    resources_of(&group, &version)
}

fn resources_of(group: &str, version: &str) -> Result<Json<Value>, ApiError> {
    if versions().get(group) != Some(&version) {
        return Err(unknown());
    }
    let kept = kinds().filter(|info| info.group == group).flat_map(|info| {
        Subresource::all_of(info).map(move |(subresource, verbs)| describe_resource(info, subresource, verbs))
    });
    let asked = REVIEWS.iter().filter(|review| review.group == group).map(|review| {
        let Review { plural, kind, is_local, .. } = review;
        json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": is_local, "kind": kind, "verbs": ["create"]})
    });
    let resources: Vec<Value> = kept.chain(asked).collect();
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources,
    })))
}

/// The group, version and kind of what a subresource speaks in.
fn kind_of_part(info: &KindInfo, subresource: Subresource) -> (&'static str, &'static str, &'static str) {
    match subresource {
        Subresource::Scale => ("autoscaling", "v1", "Scale"),
        Subresource::Token => ("authentication.k8s.io", "v1", "TokenRequest"),
        Subresource::Explanation => (info.group, info.version, types::PLACEMENT_EXPLANATION),
        _ => (info.group, info.version, info.kind),
    }
}

fn describe_resource(info: &KindInfo, subresource: Subresource, verbs: &[&str]) -> Value {
    if subresource == Subresource::None {
        return json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.kind,
            "verbs": info.verbs, "shortNames": info.short_names, "categories": info.categories,
        });
    }
    let (group, version, kind) = kind_of_part(info, subresource);
    let mut part = json!({
        "name": format!("{}/{}", info.plural, subresource.name()), "singularName": "",
        "namespaced": info.namespaced, "kind": kind, "verbs": verbs,
    });
    if group != info.group {
        json_patch::merge(&mut part, &json!({"group": group, "version": version}));
    }
    part
}

/// All groups with all their kinds in one document, where the client asks for that.
fn aggregated(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> Option<Response> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    let choice = accept.split(',').find(|choice| choice.contains("as=APIGroupDiscoveryList"))?;
    let version = if choice.contains("v=v2beta1") { "v2beta1" } else { "v2" };
    let groups: Vec<Value> = versions()
        .into_iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, version)| {
            let kept = kinds().filter(|info| info.group == group).map(discover);
            let asked = REVIEWS.iter().filter(|review| review.group == group).map(|review| {
                let Review { group, version, plural, kind, is_local } = review;
                json!({
                    "resource": plural, "scope": if *is_local { "Namespaced" } else { "Cluster" },
                    "singularResource": kind.to_lowercase(), "verbs": ["create"],
                    "responseKind": {"group": group, "version": version, "kind": kind},
                })
            });
            let resources: Vec<Value> = kept.chain(asked).collect();
            let version = json!({"version": version, "freshness": "Current", "resources": resources});
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": [version]})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": groups,
    });
    let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    Some(([(CONTENT_TYPE, kind)], list.to_string()).into_response())
}

fn discover(info: &KindInfo) -> Value {
    let response = |(group, version, kind)| json!({"group": group, "version": version, "kind": kind});
    let parts: Vec<Value> = Subresource::all_of(info)
        .filter(|(subresource, _)| *subresource != Subresource::None)
        .map(|(subresource, verbs)| {
            json!({
                "subresource": subresource.name(), "verbs": verbs,
                "responseKind": response(kind_of_part(info, subresource)),
            })
        })
        .collect();
    json!({
        "resource": info.plural, "singularResource": info.singular, "shortNames": info.short_names,
        "categories": info.categories, "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
        "verbs": info.verbs, "responseKind": response((info.group, info.version, info.kind)), "subresources": parts,
    })
}
