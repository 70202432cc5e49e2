//! The sites below a child of this hub, as that child tells of them.
//!
//! Each becomes a Site here, of the same name. What the child says of labels and spec counts until somebody changes it
//! here; then it counts again where the child changes the same.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use controllers::namespace_manifest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::{Deletion, Key, Object};
use types::core::NamespaceSpec;
use types::names::{annotation, label};
use types::{Kind, ObjectMeta, OwnerReference, Site, SiteSpec, SiteStatus, SmallMap, Time};

use super::Branch;
use crate::body::Body;
use crate::{ApiError, Hub, admission};

/// How many sites one request may tell of.
const MOST_AT_ONCE: usize = 500;
/// How many sites a branch may have.
const MOST: usize = 20_000;
/// Labels that hubs set themselves.
const RESERVED: &str = "avocet.dev/";
/// How often a Site is written anew when somebody else was faster.
const TRIES: u32 = 8;

/// A site of a branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// Its name. The child of the hub may tell of itself as well.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: SmallMap,
    /// What it should be; the parent is of the same branch.
    pub spec: SiteSpec,
    /// What it reports of itself; conditions are left out.
    #[serde(default)]
    pub status: SiteStatus,
    /// Why it is not ready; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What changed among the sites of a branch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Children {
    /// Sites that are new or changed, parents before their children.
    #[serde(default)]
    pub children: Vec<Child>,
    /// Sites that were removed.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Once all were told: their names. Nothing is known of others that were told of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<String>>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildrenAnswer {
    /// Sites that are new here.
    pub created: Vec<String>,
    /// Sites that can't be taken.
    pub refused: Vec<Refused>,
}

/// A site that can't be taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The site.
    pub site: String,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

pub(super) async fn tell(
    State(hub): State<Arc<Hub>>,
    Path(teller): Path<String>,
    Body(Children { children, gone, all }): Body<Children>,
) -> Result<Json<ChildrenAnswer>, ApiError> {
    if children.len().max(gone.len()) > MOST_AT_ONCE {
        let message = format!(
            "{} sites are too many; tell of at most {MOST_AT_ONCE} at once",
            children.len().max(gone.len())
        );
        return Err(ApiError::bad_request(message));
    }
    let branch = Branch::of(&hub, &teller);
    let teller = Teller { hub: &hub, name: &teller, branch, now: daemon::now() };
    for name in gone.iter().filter(|name| **name != teller.name && teller.branch.has(name)) {
        match hub.store.delete(Key::new(SiteSpec::PLURAL, "", name), Deletion::at(teller.now)).await {
            Ok(_) | Err(store::Error::NotFound(_)) => hub.heartbeats.forget(name),
            Err(error) => return Err(error.into()),
        }
    }
    let mut answer = ChildrenAnswer::default();
    let is_new = |child: &Child| !teller.branch.has(&child.name);
    // Counted only where it matters: it is a look at all sites.
    let mut count = if children.iter().any(is_new) { teller.branch.below().len() } else { 0 };
    for child in children {
        let is_new = is_new(&child);
        if let Err(refused) = teller.check(&child, is_new.then_some(count)) {
            answer.refused.push(refused);
            continue;
        }
        if let Err(error) = teller.take(&child).await {
            if error.code >= 500 {
                return Err(error);
            }
            answer.refused.push(refused(&child.name, "Invalid", error.message));
            continue;
        }
        if is_new {
            count += 1;
            answer.created.push(child.name);
        }
    }
    if let Some(all) = all {
        hub.heartbeats.tell_all(teller.name, &all.iter().map(String::as_str).collect());
    }
    Ok(Json(answer))
}

fn key(site: &str) -> Key {
    Key::new(SiteSpec::PLURAL, "", site)
}

fn refused(site: &str, reason: &str, message: String) -> Refused {
    Refused { site: site.to_owned(), reason: reason.to_owned(), message }
}

/// A child of this hub that tells of its branch.
struct Teller<'a> {
    hub: &'a Hub,
    name: &'a str,
    branch: Branch,
    now: Time,
}

impl Teller<'_> {
    /// Whether the child may say this at all. `others` is how many sites the branch has, where this one is new.
    fn check(&self, child: &Child, others: Option<usize>) -> Result<(), Refused> {
        let name = child.name.as_str();
        let refuse = |reason, message| Err(refused(name, reason, message));
        if name == self.name {
            return Ok(());
        }
        if !types::names::is_dns_label(name) {
            return refuse("Invalid", format!("{name:?} is not a name: write 1 to 63 of a-z, 0-9 and '-'"));
        }
        let here = &self.hub.site;
        if name == here {
            return refuse("NameTaken", format!("the hub `{here}` has that name; name the site otherwise"));
        }
        if !self.branch.has(name) {
            if self.hub.store.get(&key(name)).is_some() {
                let message = format!(
                    "another site of the hub `{here}` is `{name}` already, and names are unique in the whole tree; join \
                     this one again under another name"
                );
                return refuse("NameTaken", message);
            }
            let namespace = self.hub.store.get(&Key::new(NamespaceSpec::PLURAL, "", name));
            if namespace
                .is_some_and(|found| found.metadata.labels.get(label::VIA) != Some(&self.name.to_owned()))
            {
                let message = format!(
                    "the hub `{here}` has a namespace `{name}`, which would become the site's; name the site otherwise, \
                     or delete the namespace there"
                );
                return refuse("NamespaceTaken", message);
            }
        }
        if others.is_some_and(|others| others >= MOST) {
            return refuse("TooMany", format!("there are {MOST} sites below `{}` already", self.name));
        }
        let parent = child.spec.parent.as_str();
        if parent == name || !(parent == self.name || self.branch.has(parent)) {
            let message = format!("its parent `{parent}` is not below `{}`", self.name);
            return refuse("UnknownParent", message);
        }
        Ok(())
    }

    /// Makes the site known as it is told.
    async fn take(&self, child: &Child) -> Result<(), ApiError> {
        let mut tries = 0;
        loop {
            let written = match self.hub.store.get(&key(&child.name)) {
                Some(found) => self.change(&found, child).await,
                None => self.create(child).await,
            };
            match written {
                // Somebody else was faster.
                Err(error) if error.code == 409 && tries < TRIES => tries += 1,
                written => break written?,
            }
        }
        if child.name != self.name {
            self.hub.heartbeats.tell(&child.name, self.name, child.problem.clone());
        }
        Ok(())
    }

    async fn create(&self, child: &Child) -> Result<(), ApiError> {
        if child.name == self.name {
            return Err(ApiError::not_found(format!("sites.avocet.dev \"{}\" not found", child.name)));
        }
        let namespace = Key::new(NamespaceSpec::PLURAL, "", &*child.name);
        if self.hub.store.get(&namespace).is_none() {
            let mut manifest = namespace_manifest(&child.name);
            json_patch::merge(&mut manifest, &json!({"metadata": {"labels": {label::VIA: self.name}}}));
            match self.hub.store.create(namespace, manifest, self.now).await {
                Ok(_) | Err(store::Error::Exists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let told = told(child);
        let site = Site {
            status: SiteStatus { conditions: vec![], ..child.status.clone() },
            ..Site::new(ObjectMeta::named(&child.name), undated(&child.spec))
        };
        let manifest = self.stated(written(&site)?, &Told::default(), &told, child)?;
        self.hub.store.create(key(&child.name), manifest, self.now).await?;
        Ok(())
    }

    async fn change(&self, found: &Object, child: &Child) -> Result<(), ApiError> {
        let before = found.metadata.annotations.get(annotation::TOLD);
        let before: Told = before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut told = told(child);
        if child.name == self.name {
            // Where it is, and as what it joined, is this hub's to say.
            ["parent", "tier"].iter().for_each(|field| drop(told.spec.remove(*field)));
        }
        let manifest = self.stated(found.manifest(), &before, &told, child)?;
        let version = found.metadata.resource_version.clone();
        let written = self.hub.store.update(key(&child.name), manifest, false).await?;
        if child.name == self.name || written.metadata.uid != found.metadata.uid {
            return Ok(());
        }
        let is_unchanged = written.metadata.resource_version == version;
        let known = if is_unchanged { found.resource::<SiteSpec>() } else { written.resource::<SiteSpec>() };
        let known = known.map_err(|error| ApiError::internal(&error))?;
        // Whether it is ready is this hub's to judge.
        let conditions = known.status.conditions.clone();
        let site = Site { status: SiteStatus { conditions, ..child.status.clone() }, ..known };
        self.hub.store.update(key(&child.name), self::written(&site)?, true).await?;
        Ok(())
    }

    /// The manifest of a site after what was told changed.
    fn stated(
        &self,
        mut manifest: Value,
        before: &Told,
        told: &Told,
        child: &Child,
    ) -> Result<Value, ApiError> {
        let text = serde_json::to_string(told).map_err(|error| ApiError::internal(&error))?;
        // Of these the later ones count: nulls in a patch would be lost by merging it with another.
        let mut patches = vec![
            json!({"metadata": {"labels": changes(&before.labels, &told.labels)}}),
            json!({"metadata": {"annotations": {annotation::TOLD: text}}}),
            json!({"spec": changes(&before.spec, &told.spec)}),
        ];
        if child.name != self.name {
            let owner = self.owner(&child.spec.parent);
            let metadata = json!({"labels": {label::VIA: self.name}, "ownerReferences": owner});
            patches.push(json!({"metadata": metadata}));
        }
        let known = manifest.pointer("/spec/taints").cloned().unwrap_or_default();
        patches.iter().for_each(|patch| json_patch::merge(&mut manifest, patch));
        keep_dates(&mut manifest, &known);
        let info = types::kind_named(SiteSpec::PLURAL);
        let info = info.ok_or_else(|| ApiError::not_found("sites are not served"))?;
        admission::complete(info, manifest, None, &child.name)
    }

    /// A site goes with the one that it is joined to.
    fn owner(&self, parent: &str) -> Vec<OwnerReference> {
        let found = self.hub.store.get(&key(parent));
        let reference = found.map(|found| OwnerReference {
            api_version: SiteSpec::api_version(),
            kind: SiteSpec::KIND.to_owned(),
            name: parent.to_owned(),
            uid: found.metadata.uid.clone(),
            controller: false,
            block_owner_deletion: false,
        });
        reference.into_iter().collect()
    }
}

fn written(site: &Site) -> Result<Value, ApiError> {
    serde_json::to_value(site).map_err(|error| ApiError::internal(&error))
}

/// What a child said last of one of its sites.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Told {
    labels: Map<String, Value>,
    spec: Map<String, Value>,
}

fn told(child: &Child) -> Told {
    let labels = child.labels.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    let labels = labels.map(|(name, value)| (name.clone(), json!(value))).collect();
    let spec = match serde_json::to_value(undated(&child.spec)) {
        Ok(Value::Object(spec)) => spec,
        _ => Map::new(),
    };
    Told { labels, spec }
}

/// Without the times of taints: they are by the child's clock, which may be another, and this hub notes its own.
fn undated(spec: &SiteSpec) -> SiteSpec {
    let mut spec = spec.clone();
    spec.taints.iter_mut().for_each(|taint| taint.time_added = None);
    spec
}

/// Taints that were there already came when this hub noted that they did.
fn keep_dates(manifest: &mut Value, known: &Value) {
    let parts = |taint: &Value| ["key", "value", "effect"].map(|part| taint.get(part).cloned());
    let known: Vec<_> = known.as_array().into_iter().flatten().collect();
    let taints = manifest.pointer_mut("/spec/taints").and_then(Value::as_array_mut);
    for taint in taints.into_iter().flatten().filter(|taint| taint.get("timeAdded").is_none()) {
        let same = known.iter().find(|known| parts(known) == parts(taint));
        if let Some((date, taint)) = same.and_then(|same| same.get("timeAdded")).zip(taint.as_object_mut()) {
            taint.insert("timeAdded".to_owned(), date.clone());
        }
    }
}

/// What must be merged in to get from the one to the other: what is told no more becomes null, and goes.
fn changes(before: &Map<String, Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), Value::Null));
    let changed = now.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    gone.chain(changed.map(|(name, value)| (name.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn taints_are_dated_by_this_hub_whatever_the_clock_of_the_child_shows() {
        let child = |taints: Value| -> Child {
            serde_json::from_value(
                json!({"name": "a", "labels": {}, "spec": {"tier": "edge", "taints": taints},
                "status": {}}),
            )
            .unwrap()
        };
        let theirs = json!({"key": "k", "effect": "NoSelect", "timeAdded": "2020-01-01T00:00:00Z"});
        let told = told(&child(json!([theirs])));
        assert_eq!(told.spec["taints"], json!([{"key": "k", "effect": "NoSelect"}]));
        let ours = json!({"key": "k", "effect": "NoSelect", "timeAdded": "2026-01-01T00:00:00Z"});
        let mut manifest =
            json!({"spec": {"taints": [{"key": "new", "effect": "NoSelect"}, told.spec["taints"][0]]}});
        keep_dates(&mut manifest, &json!([ours]));
        assert_eq!(manifest["spec"]["taints"], json!([{"key": "new", "effect": "NoSelect"}, ours]));
    }

    #[test]
    fn only_what_a_child_changed_is_changed() {
        let before = map(json!({"kept": "a", "changed": "b", "gone": "c"}));
        let now = map(json!({"kept": "a", "changed": "d", "new": "e"}));
        let patch = changes(&before, &now);
        assert_eq!(patch, map(json!({"changed": "d", "gone": null, "new": "e"})));
        assert_eq!(changes(&now, &now), Map::new());
    }
}
