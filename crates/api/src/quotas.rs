//! ResourceQuotas: how many objects of a kind there may be in a namespace, in the words of Kubernetes.

use std::sync::Arc;

use schema::cel::Quantity;
use serde_json::{Map, Value};
use store::{Object, Store};
use tokio::sync::{Mutex, OwnedMutexGuard};
use types::core::ResourceQuotaSpec;
use types::{Kind, KindInfo};

use crate::ApiError;
use crate::resources::Call;

/// Lets those who create what a quota counts take turns, so that together they keep to it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<()>>);

/// Writes the amounts of a quota in the one form in which they are kept; numbers are possible, too.
///
/// # Errors
/// 400 for what is no amount.
pub fn tidy(info: &KindInfo, manifest: &mut Value) -> Result<(), ApiError> {
    let Some(hard) = manifest.pointer_mut("/spec/hard").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for amount in hard.values_mut() {
        if amount.is_number() {
            *amount = Value::String(amount.to_string());
        }
        let kept = amount.as_str().and_then(Quantity::canonical).ok_or_else(|| {
            ApiError::bad_request(format!(
                "{0} in version {1:?} cannot be handled as a {0}: quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                info.kind, info.version
            ))
        })?;
        *amount = Value::String(kept);
    }
    Ok(())
}

/// Whether the quotas of the namespace take one more object of the kind. What is answered is to be kept until the
/// object is there: meanwhile nobody else creates what quotas count.
///
/// # Errors
/// 403 that says which quota is used up.
pub async fn check(call: &Call, name: &str) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
    let (info, namespace) = (call.target.info, call.target.namespace.as_str());
    if !is_counted(&call.hub.store, info, namespace) {
        return Ok(None);
    }
    let turn = call.hub.quota_turns.0.clone().lock_owned().await;
    let used = call.hub.store.count(info.plural, namespace);
    for quota in call.hub.store.list(ResourceQuotaSpec::PLURAL, Some(namespace)).0 {
        let hard = hard(&quota);
        let exceeded: Vec<(&str, &str)> =
            counting(info, &hard).filter(|(_, most)| is_more(used.saturating_add(1), most)).collect();
        if !exceeded.is_empty() {
            let told = |amount: &dyn Fn(&str) -> String| {
                let told: Vec<String> =
                    exceeded.iter().map(|(resource, most)| format!("{resource}={}", amount(most))).collect();
                told.join(",")
            };
            let problem = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.key.name,
                told(&|_| "1".to_owned()),
                told(&|_| used.to_string()),
                told(&str::to_owned),
            );
            return Err(ApiError::forbidden_resource(info.group, info.plural, name, &problem));
        }
    }
    Ok(Some(turn))
}

fn is_counted(store: &Store, info: &KindInfo, namespace: &str) -> bool {
    // Most namespaces have no quota, which is quickly seen.
    store.count(ResourceQuotaSpec::PLURAL, namespace) > 0
        && store
            .list(ResourceQuotaSpec::PLURAL, Some(namespace))
            .0
            .iter()
            .any(|quota| counting(info, &hard(quota)).next().is_some())
}

fn hard(quota: &Object) -> Map<String, Value> {
    let manifest = quota.manifest();
    manifest.pointer("/spec/hard").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The resources of a quota that count objects of a kind, and how many there may be.
fn counting<'a>(info: &KindInfo, hard: &'a Map<String, Value>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let plural = info.plural;
    hard.iter()
        .filter(move |(resource, _)| {
            ResourceQuotaSpec::counted(resource).is_some_and(|counted| counted.plural == plural)
        })
        .filter_map(|(resource, most)| Some((resource.as_str(), most.as_str()?)))
}

fn is_more(count: usize, most: &str) -> bool {
    match (Quantity::parse(&count.to_string()), Quantity::parse(most)) {
        (Some(count), Some(most)) => count > most,
        _ => false,
    }
}
