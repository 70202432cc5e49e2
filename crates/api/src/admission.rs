//! What happens to every object between its client and the store: unknown fields go, defaults come, mistakes are
//! refused, and some kinds have rules of their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use store::{Key, Object};
use types::{FieldError, FieldErrors, Kind};

use crate::ApiError;
use crate::resources::Call;
use crate::server::LARGEST_MANIFEST;
use crate::target::Subresource;

/// Makes of what a client sent what is to be stored.
///
/// # Errors
/// 400 or 422, with every mistake that was found; 413 if it is too large.
pub fn admit(call: &Call, mut manifest: Value, old: Option<&Object>, name: &str) -> Result<Value, ApiError> {
    let info = call.target.info;
    let invalid = |errors: &FieldErrors| ApiError::invalid(info, name, errors);
    let namespace = &call.target.namespace;
    if info.namespaced && !types::names::is_dns_label(namespace) {
        let remedy = "is not a name: write 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends";
        let error = FieldError::new("metadata.namespace", format!("{namespace:?}"), remedy);
        return Err(invalid(&FieldErrors(vec![error])));
    }
    prepare(call, &mut manifest, old);
    let admitted = info.admit(&manifest).map_err(|errors| invalid(&errors))?;
    if let Some(old) = old {
        check_change(call, &old.manifest, &admitted)?;
    }
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

/// Fields that occur twice in a JSON body.
///
/// # Errors
/// 400 where the client asked for strict validation.
pub fn check_duplicates(_call: &Call, _body: &[u8]) -> Result<(), ApiError> {
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
    let namespace = Key::new(types::core::NamespaceSpec::PLURAL, "", &*key.namespace);
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

/// What the server itself fills in, kind by kind.
fn prepare(call: &Call, manifest: &mut Value, old: Option<&Object>) {
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
        _ => {}
    }
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
fn prepare_request(call: &Call, fields: &mut Map<String, Value>, old: Option<&Object>) {
    if let Some(old) = old {
        fields.insert("spec".into(), old.manifest.get("spec").cloned().unwrap_or_default());
        return;
    }
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("username".into(), json!(call.identity.user()));
        spec.insert("groups".into(), json!(call.identity.groups()));
    }
}

/// Changes that a kind doesn't take.
fn check_change(call: &Call, old: &Value, new: &Value) -> Result<(), ApiError> {
    let info = call.target.info;
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
