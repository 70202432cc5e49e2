//! The CustomResourceDefinitions of our own kinds, for clients that ask for them before they use the kinds.
//!
//! They tell what this program serves, so only another version of the program changes them. Still `avocet crds |
//! kubectl apply -f -`, which is how a cluster gets them, works on a hub: a write that leaves the definition as it is
//! passes, and may change labels and annotations, as kubectl does to remember what it applied. A write that would
//! change the definition is refused rather than ignored, so that nobody believes in a change that didn't happen.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use store::{Deletion, Error, Key, Seen, Store};
use types::core::CustomResourceDefinitionSpec;
use types::{Kind, KindInfo, Time, kinds};

use crate::ApiError;
use crate::resources::Call;

const PLURAL: &str = CustomResourceDefinitionSpec::PLURAL;

/// Makes the definitions those of this program's kinds.
///
/// # Errors
/// If the store fails.
pub async fn reconcile(store: &Store, now: Time) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for info in kinds().filter(|info| info.is_ours()) {
        let key = Key::new(PLURAL, "", info.qualified());
        known.insert(key.clone());
        let mut wanted = types::custom_resource_definition(info);
        match store.get(&key) {
            Some(current) if current.manifest().get("spec") == wanted.get("spec") => {}
            Some(current) => {
                let mut changed = current.manifest();
                json_patch::merge(&mut changed, &json!({"spec": null}));
                json_patch::merge(&mut changed, &json!({"spec": wanted.get("spec")}));
                store.update(key, changed, false).await?;
            }
            None => {
                json_patch::merge(&mut wanted, &json!({"status": types::definition_status(info, now)}));
                store.create(key, wanted, now).await?;
            }
        }
    }
    for gone in store.list(PLURAL, None).0.iter().filter(|definition| !known.contains(&definition.key)) {
        store.delete(gone.key.clone(), Deletion::at(now)).await?;
    }
    Ok(())
}

/// Keeps a definition as it is; a new manifest may say it in other words.
///
/// # Errors
/// 403 for what would make or change one, 409 for making one that is there.
pub fn keep(call: &Call, name: &str, manifest: &mut Value, old: Option<&Seen>) -> Result<(), ApiError> {
    let read = |manifest: &Value| {
        let spec = manifest.get("spec").cloned().unwrap_or_default();
        serde_json::from_value::<CustomResourceDefinitionSpec>(spec).ok()
    };
    let Some(old) = old.map(|old| &old.manifest) else {
        let key = Key::new(PLURAL, "", name);
        let is_there = call.hub.store.get(&key).is_some();
        return Err(if is_there { Error::Exists(key).into() } else { refusal(call.target.info, name) });
    };
    if read(manifest).is_none_or(|wanted| Some(wanted) != read(old)) {
        return Err(refusal(call.target.info, name));
    }
    if let Some(fields) = manifest.as_object_mut() {
        for part in ["spec", "status"] {
            fields.insert(part.to_owned(), old.get(part).cloned().unwrap_or_default());
        }
    }
    Ok(())
}

/// What everybody is told who wants other definitions.
pub fn refusal(info: &KindInfo, name: &str) -> ApiError {
    let problem = "this server defines its kinds itself: they change when it is upgraded";
    ApiError::forbidden_resource(info.group, info.plural, name, problem)
}
