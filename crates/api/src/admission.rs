//! What happens to every object between its client and the store: unknown fields go, defaults come, mistakes are
//! refused, and some kinds have rules of their own.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::{Reason, Violation};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::{Key, Object, Seen};
use tokio::sync::OwnedMutexGuard;
use types::core::{
    CertificateSigningRequestSpec, CustomResourceDefinitionSpec, EventBody, NamespaceSpec, ResourceQuotaSpec,
};
use types::names::finalizer::{FOREGROUND, NAMESPACE, ORPHAN};
use types::{Assignment, Kind, KindInfo, ObjectMeta};

use crate::rbac::escalation;
use crate::resources::Call;
use crate::server::LARGEST_MANIFEST;
use crate::target::Subresource;
use crate::{ApiError, approval, body, definitions, quotas};

/// Makes of what a client sent what is to be stored.
///
/// # Errors
/// 400 or 422, with every mistake that was found; 413 if it is too large.
pub fn admit(call: &Call, mut manifest: Value, old: Option<&Seen>, name: &str) -> Result<Value, ApiError> {
    let info = call.target.info;
    prepare(call, &mut manifest, old);
    check_kind(call, name, &manifest)?;
    if info.plural == CustomResourceDefinitionSpec::PLURAL {
        definitions::keep(call, name, &mut manifest, old)?;
    }
    if info.plural == ResourceQuotaSpec::PLURAL {
        quotas::tidy(info, &mut manifest)?;
    }
    let mut unknown = schema::schema_of(info).map(|schema| schema.prune(&mut manifest)).unwrap_or_default();
    unknown.extend(tidy_metadata(call, &mut manifest, name)?);
    complain_of_unknown(call, unknown.iter().map(|field| format!("unknown field {field:?}")).collect())?;
    // Large, and checked by now.
    let managers = metadata_of(&mut manifest).and_then(|metadata| metadata.remove("managedFields"));
    let mut manifest = info.keep(complete(info, manifest, old, name)?);
    if info.plural == EventBody::PLURAL
        && let Some(fields) = manifest.as_object_mut()
    {
        // Kubernetes says that it has none.
        fields.entry("eventTime").or_insert(Value::Null);
    }
    if let Some((metadata, managers)) = metadata_of(&mut manifest).zip(managers) {
        metadata.insert("managedFields".into(), managers);
    }
    warn_of_finalizers(call, old, &manifest);
    if let Some(old) = old {
        check_finalizers(call, &old.object, &manifest)?;
        check_change(call, &old.manifest, &manifest)?;
    }
    escalation::check(&call.hub.rbac, &call.user, &call.target, name, &manifest, old)?;
    // Patches add to what is there: each may be small, and the sum too large.
    let size = length(&manifest);
    if size > LARGEST_MANIFEST {
        return Err(ApiError::too_large(format!(
            "{} \"{name}\" would have {size} bytes, more than {LARGEST_MANIFEST}; keep large content in buckets \
             or artifacts and name it",
            info.kind
        )));
    }
    Ok(manifest)
}

fn metadata_of(manifest: &mut Value) -> Option<&mut Map<String, Value>> {
    manifest.get_mut("metadata").and_then(Value::as_object_mut)
}

/// How long a manifest is as text, in bytes.
fn length(manifest: &Value) -> usize {
    struct Length(usize);
    impl io::Write for Length {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0 += text.len();
            Ok(text.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    // Neither counting nor a value ever fails.
    let _ = serde_json::to_writer(&mut length, manifest);
    length.0
}

/// Fills in defaults and checks everything.
///
/// # Errors
/// 422 with every mistake that was found.
pub fn complete(info: &KindInfo, manifest: Value, old: Option<&Seen>, name: &str) -> Result<Value, ApiError> {
    let old = old.map(|old| info.show(&old.manifest));
    schema::complete(info, manifest, old.as_deref())
        .map_err(|violations| ApiError::invalid(info, name, &violations))
}

/// The body must be of the kind that the path names.
fn check_kind(call: &Call, name: &str, manifest: &Value) -> Result<(), ApiError> {
    let info = call.target.info;
    let text = |field: &str| manifest.get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if kind.is_empty() {
        let problem = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(&call.body));
        return Err(body::unrecognized(info.kind, &problem, &call.body));
    }
    if info.is_ours() && kind != info.kind && version == info.api_version() {
        return Err(ApiError::other_kind(info, name, kind));
    }
    if version != info.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            info.api_version()
        )));
    }
    if kind != info.kind {
        let package =
            if info.group.is_empty() { "core" } else { info.group.split('.').next().unwrap_or_default() };
        return Err(ApiError::bad_request(format!(
            "{kind} in version {0:?} cannot be handled as a {1}: converting ({0}.{kind}) to ({package}.{1}): unknown \
             conversion",
            info.version, info.kind
        )));
    }
    Ok(())
}

/// Reads the metadata and writes it as it is stored. Answers fields that metadata doesn't have.
fn tidy_metadata(call: &Call, manifest: &mut Value, name: &str) -> Result<Vec<String>, ApiError> {
    let info = call.target.info;
    let sent = manifest.get_mut("metadata").map(Value::take).unwrap_or_default();
    let mut metadata = ObjectMeta::deserialize(&sent).map_err(|error| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: metadata: {error}",
            info.kind, info.version, info.kind
        ))
    })?;
    metadata.name = name.to_owned();
    metadata.namespace.clone_from(&call.target.namespace);
    let tidied = serde_json::to_value(&metadata).map_err(|error| ApiError::internal(&error))?;
    let unknown = sent
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(field, value)| !METADATA.contains(&field.as_str()) && !value.is_null());
    let unknown = unknown.map(|(field, _)| format!("metadata.{field}")).collect();
    if let Some(fields) = manifest.as_object_mut() {
        fields.insert("metadata".into(), tidied);
    }
    Ok(unknown)
}

/// All fields that metadata has in the Kubernetes API.
const METADATA: [&str; 16] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Fields that occur twice in a JSON body.
///
/// # Errors
/// 400 where the client asked for strict validation.
pub fn check_duplicates(call: &Call, body: &[u8]) -> Result<(), ApiError> {
    // What is no JSON is told where it is parsed.
    let fields = schema::duplicate_fields(body).unwrap_or_default();
    complain_of_unknown(call, fields.iter().map(|field| format!("duplicate field {field:?}")).collect())
}

/// Refuses, warns or does nothing, as `fieldValidation` says.
fn complain_of_unknown(call: &Call, complaints: Vec<String>) -> Result<(), ApiError> {
    let info = call.target.info;
    match call.info.text("fieldValidation") {
        "" | "Warn" => complaints.into_iter().for_each(|complaint| call.warn(complaint)),
        "Strict" if complaints.is_empty() => {}
        "Strict" => {
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                info.kind,
                info.version,
                info.kind,
                complaints.join(", ")
            )));
        }
        // Refused already.
        _ => {}
    }
    Ok(())
}

/// Whether a new object may come into its namespace.
///
/// # Errors
/// 404 if the namespace does not exist, 403 if it is going.
pub fn check_namespace_takes(call: &Call, key: &Key) -> Result<(), ApiError> {
    if !call.target.info.namespaced {
        return Ok(());
    }
    let namespace = Key::new(NamespaceSpec::PLURAL, "", &*key.namespace);
    let found = call.hub.store.get(&namespace).ok_or(store::Error::NotFound(namespace))?;
    if found.metadata.deletion_timestamp.is_some() {
        return Err(ApiError::forbidden(format!(
            "{} \"{}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
            call.target.info.qualified(),
            key.name,
            key.namespace
        )));
    }
    Ok(())
}

/// Whether there may be one more object of a kind in its namespace. What is answered is to be kept until the object
/// is there.
///
/// # Errors
/// 403 if there are as many as there may be. Creations at the same moment may pass the hub's own limit by their number.
pub async fn check_quota(call: &Call, name: &str) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
    let (info, most) = (call.target.info, call.hub.limits.objects());
    let namespace = &call.target.namespace;
    let count = call.hub.store.count(info.plural, namespace);
    if count < most {
        return quotas::check(call, name).await;
    }
    let place =
        if namespace.is_empty() { "the cluster".to_owned() } else { format!("namespace {namespace}") };
    Err(ApiError::forbidden(format!(
        "{} \"{}\" is forbidden: exceeded quota: {place} has {count} of at most {most}; delete some, or start the hub \
         with a higher --max-objects",
        info.qualified(),
        name
    )))
}

/// Namespaces that nobody can delete; neither can those that sites have.
const LASTING_NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Whether an object may be deleted.
///
/// # Errors
/// 403 for a namespace that is always there or that a site has, and for what the server itself defines.
pub fn check_deletion(call: &Call, object: &Object) -> Result<(), ApiError> {
    if object.key.plural == CustomResourceDefinitionSpec::PLURAL {
        return Err(definitions::refusal(call.target.info, &object.key.name));
    }
    if object.key.plural != NamespaceSpec::PLURAL {
        return Ok(());
    }
    let name = &object.key.name;
    let has_site = || call.hub.store.get(&Key::new(types::SiteSpec::PLURAL, "", &**name)).is_some();
    if LASTING_NAMESPACES.contains(&name.as_str()) || has_site() {
        return Err(ApiError::forbidden(format!(
            "namespaces \"{name}\" is forbidden: this namespace may not be deleted"
        )));
    }
    Ok(())
}

/// What the server itself fills in, kind by kind.
fn prepare(call: &Call, manifest: &mut Value, old: Option<&Seen>) {
    let Some(fields) = manifest.as_object_mut() else { return };
    let info = call.target.info;
    if !info.is_ours() {
        // Of Kubernetes' own kinds the path says enough.
        for (name, known) in [("apiVersion", info.api_version()), ("kind", info.kind.to_owned())] {
            let stated = fields.entry(name).or_insert(Value::Null);
            if stated.is_null() || *stated == "" {
                *stated = json!(known);
            }
        }
    }
    match info.plural {
        "namespaces" if old.is_none() => {
            fields.insert("spec".into(), json!({"finalizers": ["kubernetes"]}));
            fields.insert("status".into(), json!({"phase": "Active"}));
            let name = fields.get("metadata").and_then(|metadata| metadata.get("name")).cloned();
            let label = json!({"metadata": {"labels": {"kubernetes.io/metadata.name": name}}});
            json_patch::merge(manifest, &label);
        }
        // Its finalizers are changed at `/finalize` only.
        "namespaces" => {
            let spec = old.and_then(|old| old.manifest.get("spec").cloned()).unwrap_or_else(|| json!({}));
            if call.target.subresource != Subresource::Finalize {
                fields.insert("spec".into(), spec);
            }
        }
        "secrets" => prepare_secret(fields),
        "certificatesigningrequests" => prepare_request(call, fields, old),
        "assignments" if call.target.is_status() => note_report(call, manifest, old),
        _ => {}
    }
}

/// How far a site is by what it reports is noted with it. That is the hub's to say: what was known of it stays.
fn note_report(call: &Call, manifest: &mut Value, old: Option<&Seen>) {
    // What is none is refused later.
    let Ok(mut assignment) = Assignment::deserialize(&*manifest) else { return };
    let known = old.and_then(|old| Assignment::deserialize(&old.manifest).ok());
    if let Some(known) = known {
        assignment.metadata.generation = known.metadata.generation;
        assignment.status.progress = known.status.progress;
    }
    controllers::note_report(&mut assignment, call.hub.heartbeats.steady());
    let Some(fields) = manifest.as_object_mut() else { return };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    if status.is_null() {
        *status = json!({});
    }
    let progress = serde_json::to_value(assignment.status.progress).unwrap_or_default();
    json_patch::merge(status, &json!({"progress": progress}));
}

/// Texts become bytes in Base64, and the type has a default.
fn prepare_secret(fields: &mut Map<String, Value>) {
    if let Some(Value::Object(texts)) = fields.remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| json!({}));
        if data.is_null() {
            *data = json!({});
        }
        if let Some(data) = data.as_object_mut() {
            for (key, text) in texts {
                data.insert(key, json!(STANDARD.encode(text.as_str().unwrap_or_default())));
            }
        }
    }
    let kind = fields.entry("type").or_insert(Value::Null);
    if kind.as_str().unwrap_or_default().is_empty() {
        *kind = json!("Opaque");
    }
}

/// Who asks is what the server knows, not what they say; nothing of a request changes later.
fn prepare_request(call: &Call, fields: &mut Map<String, Value>, old: Option<&Seen>) {
    if let Some(Seen { manifest: old, .. }) = old {
        fields.insert("spec".into(), old.get("spec").cloned().unwrap_or_default());
        if !call.target.is_whole() {
            approval::prepare(call, fields, old);
        }
        return;
    }
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("username".into(), json!(call.user.name));
        spec.insert("uid".into(), json!(call.user.uid));
        spec.insert("groups".into(), json!(call.user.groups));
        spec.insert("extra".into(), json!(call.user.extra));
    }
}

/// Finalizers whose names others may choose, too. Kubernetes warns of them where the kind is not its own.
fn warn_of_finalizers(call: &Call, old: Option<&Seen>, new: &Value) {
    if !call.target.info.is_ours() {
        return;
    }
    let known = old.map_or(&[][..], |old| &old.object.metadata.finalizers);
    let stated = new.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let mut added: Vec<&str> = stated.filter_map(Value::as_str).collect();
    added.retain(|name| !name.contains('/') && !known.iter().any(|known| known == name));
    added.retain(|name| ![FOREGROUND, ORPHAN, NAMESPACE].contains(name));
    added.sort_unstable();
    for name in added {
        call.warn(format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name to avoid accidental \
             conflicts with other finalizer writers"
        ));
    }
}

/// Nobody may hold what is going who didn't hold it before.
fn check_finalizers(call: &Call, old: &Object, new: &Value) -> Result<(), ApiError> {
    if old.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let stated = new.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let is_new = |name: &&str| !old.metadata.finalizers.iter().any(|known| known == name);
    let added: Vec<String> =
        stated.filter_map(Value::as_str).filter(is_new).map(|name| format!("{name:?}")).collect();
    if added.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    let (field, reason) = ("metadata.finalizers".to_owned(), Reason::Forbidden);
    Err(ApiError::invalid(call.target.info, &call.target.name, &[Violation { field, reason, message }]))
}

/// Changes that a kind doesn't take.
fn check_change(call: &Call, old: &Value, new: &Value) -> Result<(), ApiError> {
    let info = call.target.info;
    if info.plural == CertificateSigningRequestSpec::PLURAL && !call.target.is_whole() {
        approval::check(call, old, new)?;
    }
    let fixed: &[(&str, &str)] = match info.plural {
        "rolebindings" | "clusterrolebindings" => &[("roleRef", "cannot change roleRef")],
        "secrets" if old.get("immutable") == Some(&json!(true)) => &[
            ("immutable", "field is immutable when `immutable` is set"),
            ("data", "field is immutable when `immutable` is set"),
        ],
        "configmaps" if old.get("immutable") == Some(&json!(true)) => &[
            ("immutable", "field is immutable when `immutable` is set"),
            ("data", "field is immutable when `immutable` is set"),
            ("binaryData", "field is immutable when `immutable` is set"),
        ],
        "secrets" => &[("type", "field is immutable")],
        _ => &[],
    };
    for (field, message) in fixed {
        if old.get(field) != new.get(field) {
            let shown = match info.plural {
                "secrets" => "the new value".to_owned(),
                _ => new.get(field).cloned().unwrap_or_default().to_string(),
            };
            let message = format!("Invalid value: {shown}: {message}");
            return Err(ApiError::field(info, &call.target.name, field, &message));
        }
    }
    Ok(())
}
