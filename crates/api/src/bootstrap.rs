//! What a hub has from its first start on.

use std::collections::BTreeSet;

use controllers::namespace_manifest;
use store::{Error, Key, Store};
use types::core::NamespaceSpec;
use types::{Kind, SiteSpec, Time, kinds};

use crate::{definitions, rbac};

/// Namespaces that are always there.
const NAMESPACES: [&str; 2] = ["default", "kube-system"];

/// Creates what is missing: namespaces that are always there, those of objects that are older than namespaces, the
/// definitions of our kinds, and the roles of people and sites.
///
/// # Errors
/// If the store fails.
pub async fn bootstrap(store: &Store, now: Time) -> Result<(), Error> {
    let mut namespaces: BTreeSet<String> = NAMESPACES.map(str::to_owned).into();
    for info in kinds().filter(|info| info.namespaced) {
        let (objects, _) = store.list(info.plural, None);
        namespaces.extend(objects.iter().map(|object| object.key.namespace.clone()));
    }
    let (sites, _) = store.list(SiteSpec::PLURAL, None);
    namespaces.extend(sites.iter().map(|site| site.key.name.clone()));
    for namespace in namespaces {
        create_namespace(store, &namespace, now).await?;
    }
    definitions::reconcile(store, now).await?;
    rbac::defaults::reconcile(store, now).await?;
    rbac::sites::forget_roles(store, now).await?;
    controllers::aggregate(store, now).await
}

/// Creates a namespace, unless it is there.
///
/// # Errors
/// If the store fails.
pub async fn create_namespace(store: &Store, name: &str, now: Time) -> Result<(), Error> {
    let key = Key::new(NamespaceSpec::PLURAL, "", name);
    if store.get(&key).is_some() {
        return Ok(());
    }
    match store.create(key, namespace_manifest(name), now).await {
        Ok(_) | Err(Error::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
