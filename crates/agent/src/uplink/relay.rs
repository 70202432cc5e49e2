//! Brings what the hub above assigns to the sites below into this hub.
//!
//! Only what is seen to be gone there is removed here: in a change, or in a complete list.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use api::client::{self, Change};
use futures::{Stream, StreamExt};
use planner::branch::{brought, gone, is_newer};
use reqwest::Method;
use serde::Deserialize;
use store::Error::{Conflict, Exists, NotFound};
use store::{Deletion, EventKind, Key};
use tracing::{debug, info, warn};
use types::{Assignment, AssignmentSpec, Kind};

use super::{Clash, Up, site_key};
use crate::Error;
use crate::prepare::served_name;

/// The hub above sends a bookmark at least every 30 s; one that is quiet for so long is not there any more.
const SILENCE: Duration = Duration::from_secs(90);
/// For how long nothing is taken away from a site that has just become known above, perhaps to a hub that was restored
/// and has yet to decide again what it had decided.
const YOUNG: Duration = Duration::from_secs(60);
/// How soon after a change here the list is looked at again.
const GATHER: Duration = Duration::from_millis(250);
/// What the end of the list says.
const LISTED: &str = "/metadata/annotations/k8s.io~1initial-events-end";
const TABLE: &str = "relay";
const SEEN: &str = "version";

/// Brings until the hub above can't be followed.
pub(super) async fn follow(up: &Up) -> Result<(), Error> {
    let mut registered = up.registered.subscribe();
    let mut version = String::new();
    loop {
        registered.borrow_and_update();
        let mut changes = Box::pin(open(up, &version).await?);
        let mut again = None;
        if version.is_empty() {
            (version, again) = list(up, &mut changes).await?;
        }
        let list_again = loop {
            let change = tokio::select! {
                change = tokio::time::timeout(SILENCE, changes.next()) => match change {
                    Ok(change) => change,
                    Err(_) => return Err(Error::Silent),
                },
                _ = registered.changed() => break true,
                () = at(again) => break true,
                () = change_of_ours(up) => break true,
            };
            let Some(change) = change.transpose()? else { break !up.clashes().is_empty() };
            if change.kind == "ERROR" {
                info!("the hub above has forgotten how far we were; listing again");
                return Ok(());
            }
            if let Some(seen) = version_of(&change) {
                seen.clone_into(&mut version);
            }
            match change.kind.as_str() {
                "BOOKMARK" => note_version(up, &version).await?,
                "DELETED" => remove(up, &change).await?,
                _ => put(up, &change).await?,
            }
        };
        if list_again {
            version.clear();
        }
    }
}

/// Where something from above was not taken, waits until what this hub assigns itself changes.
async fn change_of_ours(up: &Up) {
    let store = &up.hub.store;
    if up.clashes().is_empty() {
        return std::future::pending().await;
    }
    // Where a watch can't begin, a change is likely.
    let Ok(mut watch) = store.watch_kind(AssignmentSpec::PLURAL, store.version()) else { return };
    while let Ok(changes) = watch.next().await {
        let is_status = |change: &store::Event| {
            let before = change.previous.as_ref().map(|object| object.metadata.generation);
            change.kind == EventKind::Modified && before == Some(change.object.metadata.generation)
        };
        if changes.iter().any(|change| !up.is_relayed(&change.object) && !is_status(change)) {
            return tokio::time::sleep(GATHER).await;
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn version_of(change: &Change) -> Option<&str> {
    change.object.pointer("/metadata/resourceVersion").and_then(|version| version.as_str())
}

async fn open(
    up: &Up,
    version: &str,
) -> Result<impl Stream<Item = Result<Change, client::Error>> + use<>, Error> {
    let mut path = format!("/avocet/v1/sites/{}/assignments", up.membership.site);
    if !version.is_empty() {
        path += &format!("?resourceVersion={version}");
    }
    // Of all sites below, and taken one by one: where this takes time, the hub above waits with the rest.
    let client = up.client.clone().in_bulk();
    Ok(client::changes(client.send(client.request(Method::GET, &path)).await?))
}

/// Takes the list that a watch begins with; answers its version, and when to list again because something was kept that
/// is not in it.
async fn list(
    up: &Up,
    changes: &mut (impl Stream<Item = Result<Change, client::Error>> + Unpin),
) -> Result<(String, Option<Instant>), Error> {
    let mut listed = Vec::new();
    let version = loop {
        let change = tokio::time::timeout(SILENCE, changes.next()).await.map_err(|_| Error::Silent)?;
        let change = change.ok_or(Error::Silent)??;
        match change.kind.as_str() {
            "BOOKMARK" if change.object.pointer(LISTED).is_some() => {
                break version_of(&change).unwrap_or_default().to_owned();
            }
            "ADDED" => listed.push(change),
            _ => {}
        }
    };
    check_version(up, &version)?;
    debug!(count = listed.len(), version, "assignments of the sites below listed");
    up.clashes().clear();
    let mut names = HashSet::new();
    for change in &listed {
        let text =
            |path| change.object.pointer(path).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
        names.insert((text("/metadata/namespace"), text("/metadata/name")));
        put(up, change).await?;
    }
    up.young().retain(|_, since| since.elapsed() < YOUNG);
    let (objects, _) = up.hub.store.list(AssignmentSpec::PLURAL, None);
    let kept = objects.iter().filter(|object| up.is_relayed(object));
    let kept = kept.map(|object| (object.key.namespace.clone(), object.key.name.clone()));
    let young = up.young().clone();
    let (gone, stays) = gone(kept, &names, |site| young.contains_key(site));
    for (site, name) in gone {
        delete(up, Key::new(AssignmentSpec::PLURAL, site, name)).await?;
    }
    let again = stays.iter().filter_map(|(site, _)| young.get(site)).map(|since| *since + YOUNG).max();
    up.clashed.send_modify(|count| *count += 1);
    note_version(up, &version).await?;
    Ok((version, again))
}

/// A list that is older than one that was seen would undo what is newer.
fn check_version(up: &Up, version: &str) -> Result<(), Error> {
    let found: u64 = version.parse().unwrap_or_default();
    let seen: u64 = up.ledger.read(|tables| tables.get(TABLE, SEEN))?.unwrap_or_default();
    if is_newer(found, seen) { Ok(()) } else { Err(Error::OlderHub { found, seen }) }
}

async fn note_version(up: &Up, version: &str) -> Result<(), Error> {
    let version: u64 = version.parse().unwrap_or_default();
    Ok(up.ledger.write(move |tables| tables.put(TABLE, SEEN, &version)).await?)
}

async fn put(up: &Up, change: &Change) -> Result<(), Error> {
    let theirs = match Assignment::deserialize(&change.object) {
        Ok(theirs) => theirs,
        Err(error) => {
            // The others must not wait for it.
            let place =
                |field| change.object.pointer(field).and_then(|text| text.as_str()).unwrap_or_default();
            let (site, name) = (place("/metadata/namespace"), place("/metadata/name"));
            warn!(%error, site, name, "the hub above assigns what can't be read; is it newer than this one?");
            return Ok(());
        }
    };
    let (store, site) = (&up.hub.store, theirs.namespace().to_owned());
    if store.get(&site_key(&site)).is_none() {
        debug!(site, assignment = theirs.name(), "there is no such site below");
        return Ok(());
    }
    let key = Key::new(AssignmentSpec::PLURAL, &*site, theirs.name());
    let found = store.get(&key);
    let is_other = found.as_ref().is_some_and(|found| !up.is_relayed(found));
    let problem = if is_other { Some(same_name(&theirs)) } else { same_model(up, &theirs) };
    let place = (site, theirs.name().to_owned());
    let clash = problem.map(|message| Clash {
        uid: theirs.metadata.uid.clone(),
        generation: theirs.metadata.generation,
        since: daemon::now(),
        message,
    });
    if set_clash(up, place, clash) {
        return Ok(());
    }
    let is_new = found.is_none();
    let manifest = serde_json::to_value(brought(theirs, &up.membership.hub)).map_err(Error::Assignment)?;
    let written = match found {
        None => store.create(key, manifest, daemon::now()).await,
        Some(_) => store.update(key, manifest, false).await,
    };
    match written {
        Ok(written) if is_new => info!(assignment = %written.key, "assigned by the hub above"),
        Ok(_) => {}
        // Somebody here writes the same; the next list settles it.
        Err(Conflict { .. } | Exists(_) | NotFound(_)) => {
            debug!("an assignment changed while it was brought")
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Notes whether an Assignment can't be taken; answers just that.
fn set_clash(up: &Up, place: (String, String), clash: Option<Clash>) -> bool {
    let is_clash = clash.is_some();
    let before = match clash {
        Some(clash) => up.clashes().insert(place, clash),
        None => up.clashes().remove(&place),
    };
    if is_clash || before.is_some() {
        up.clashed.send_modify(|count| *count += 1);
    }
    is_clash
}

fn same_name(theirs: &Assignment) -> String {
    let AssignmentSpec { application_namespace, application, component, .. } = &theirs.spec;
    format!(
        "the hub that the site joined assigns component `{component}` of an application `{application}` in namespace \
         `{application_namespace}` itself; name one of the applications otherwise"
    )
}

/// Of two hubs that want a model of one name at a site, the one that it joined has the say.
fn same_model(up: &Up, theirs: &Assignment) -> Option<String> {
    let (objects, _) = up.hub.store.list(AssignmentSpec::PLURAL, Some(theirs.namespace()));
    let ours = objects.iter().filter(|object| !up.is_relayed(object));
    let ours: Vec<Assignment> = ours.filter_map(|object| object.resource().ok()).collect();
    let models = |spec: &AssignmentSpec| {
        let namespace = spec.application_namespace.clone();
        let named = |model: &types::AssignedModel| (served_name(&namespace, &model.name), model.spec.clone());
        spec.models.iter().map(named).collect::<Vec<_>>()
    };
    let ours: Vec<_> = ours.iter().flat_map(|assignment| models(&assignment.spec)).collect();
    let is_other = |name: &str, spec: &types::ModelSpec| {
        ours.iter().any(|(known, other)| known == name && other != spec)
    };
    let mut wanted = models(&theirs.spec).into_iter();
    let (name, _) = wanted.find(|(name, spec)| is_other(name, spec))?;
    Some(format!(
        "the hub that the site joined assigns another model `{name}` to it itself; name one of the models otherwise"
    ))
}

async fn remove(up: &Up, change: &Change) -> Result<(), Error> {
    let text = |path| change.object.pointer(path).and_then(|text| text.as_str()).unwrap_or_default();
    let (site, name) = (text("/metadata/namespace"), text("/metadata/name"));
    set_clash(up, (site.to_owned(), name.to_owned()), None);
    let key = Key::new(AssignmentSpec::PLURAL, site, name);
    match up.hub.store.get(&key) {
        Some(found) if up.is_relayed(&found) => delete(up, key).await,
        _ => Ok(()),
    }
}

async fn delete(up: &Up, key: Key) -> Result<(), Error> {
    info!(assignment = %key, "no longer assigned by the hub above");
    match up.hub.store.delete(key, Deletion::at(daemon::now())).await {
        Ok(_) | Err(NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
