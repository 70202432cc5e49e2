//! `Namespace`: every site has one, every other one has an account and the hub's certificate, and one that goes takes
//! everything in it along.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use store::{Key, Object};
use types::core::{ConfigMapBody, NamespaceSpec, NamespaceStatus, ServiceAccountBody};
use types::names::finalizer;
use types::{Condition, ConditionStatus, Kind, ObjectMeta, Plain, SiteSpec, Time, set_condition};

use crate::write::{Action, Write};

/// The account that every namespace of people has.
pub(crate) const ACCOUNT: &str = "default";
/// The ConfigMap with the hub's certificate that every namespace of people has.
pub(crate) const AUTHORITY: &str = "kube-root-ca.crt";

/// A new namespace.
pub fn namespace_manifest(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": NamespaceSpec::KIND,
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": [finalizer::NAMESPACE]}, "status": {"phase": "Active"},
    })
}

/// The namespace that a site needs and that isn't there.
pub(crate) fn for_site(site: &Object) -> Write {
    let key = Key::new(NamespaceSpec::PLURAL, "", &*site.key.name);
    Write::new(key, Action::Create(namespace_manifest(&site.key.name)))
}

/// What an active namespace lacks. In that of a site nothing runs as an account, and there may be tens of thousands: it gets
/// nothing new.
pub(crate) fn furnish(
    namespace: &str,
    find: &dyn Fn(&Key) -> Option<Arc<Object>>,
    certificate: &str,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let is_of_site = find(&Key::new(SiteSpec::PLURAL, "", namespace)).is_some();
    let metadata = |name: &str| ObjectMeta { namespace: namespace.to_owned(), ..ObjectMeta::named(name) };
    let account = Key::new(ServiceAccountBody::PLURAL, namespace, ACCOUNT);
    if !is_of_site && find(&account).is_none() {
        let manifest = Plain::new(metadata(ACCOUNT), ServiceAccountBody::default());
        writes.push(Write::new(account, Action::Create(to_json(&manifest))));
    }
    let authority = Key::new(ConfigMapBody::PLURAL, namespace, AUTHORITY);
    match find(&authority) {
        None if is_of_site => {}
        None => {
            let data = BTreeMap::from([("ca.crt".to_owned(), certificate.to_owned())]);
            let mut metadata = metadata(AUTHORITY);
            let about = "the certificate of the authority that this hub's own certificate is signed with";
            metadata.annotations.insert("kubernetes.io/description".to_owned(), about.to_owned());
            let manifest = Plain::new(metadata, ConfigMapBody { data, ..ConfigMapBody::default() });
            writes.push(Write::new(authority, Action::Create(to_json(&manifest))));
        }
        Some(old) if old.manifest().pointer("/data") != Some(&json!({"ca.crt": certificate})) => {
            let mut manifest = old.manifest();
            if let Some(fields) = manifest.as_object_mut() {
                fields.insert("data".to_owned(), json!({"ca.crt": certificate}));
            }
            writes.push(Write::new(authority, Action::Spec(manifest)));
        }
        Some(_) => {}
    }
    writes
}

/// What is to be done so that a namespace that is being deleted can go. `content` is everything in it.
pub(crate) fn empty(namespace: &Object, content: &[Arc<Object>], now: Time) -> Vec<Write> {
    let Ok(old) = namespace.resource::<NamespaceSpec>() else { return vec![] };
    let is_kept = |object: &&Arc<Object>| object.metadata.deletion_timestamp.is_some();
    let held: Vec<&Object> = content.iter().filter(is_kept).map(AsRef::as_ref).collect();
    let mut writes: Vec<Write> = content
        .iter()
        .filter(|object| !is_kept(object))
        .map(|object| Write::delete_object(object, None))
        .collect();
    let mut new = old.clone();
    report(&mut new.status, &held, now);
    if new != old {
        writes.push(Write::status(&new));
    } else if content.is_empty() && old.spec.finalizers.iter().any(|held| held == finalizer::NAMESPACE) {
        new.spec.finalizers.retain(|held| held != finalizer::NAMESPACE);
        writes.push(Write::spec(&new));
    }
    writes
}

/// Words the state of a namespace that is being emptied as Kubernetes does.
fn report(status: &mut NamespaceStatus, held: &[&Object], now: Time) {
    status.phase = "Terminating".to_owned();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for object in held {
        let group = types::kind_named(object.key.plural).map_or("", |info| info.group);
        *kinds.entry(format!("{}.{group}", object.key.plural)).or_default() += 1;
        for finalizer in &object.metadata.finalizers {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let kinds: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{kind} has {count} resource instances")).collect();
    let finalizers: Vec<String> = finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let remaining = match kinds.is_empty() {
        true => (false, "ContentRemoved", "All content successfully removed".to_owned()),
        false => (true, "SomeResourcesRemain", format!("Some resources are remaining: {}", kinds.join(", "))),
    };
    let waiting = match finalizers.is_empty() {
        true => (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
        false => (
            true,
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
        ),
    };
    let fine = |reason, message: &str| (false, reason, message.to_owned());
    let conditions = [
        (
            "NamespaceDeletionDiscoveryFailure",
            fine("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            fine("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            fine("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", waiting),
    ];
    for (kind, (holds, reason, message)) in conditions {
        let condition = Condition {
            kind: kind.to_owned(),
            status: if holds { ConditionStatus::True } else { ConditionStatus::False },
            observed_generation: 0,
            last_transition_time: now,
            reason: reason.to_owned(),
            message,
        };
        set_condition(&mut status.conditions, condition);
    }
}

fn to_json<B: Kind>(resource: &Plain<B>) -> Value {
    // Our own types always are JSON: maps with string keys, finite numbers.
    serde_json::to_value(resource).unwrap_or_default()
}
