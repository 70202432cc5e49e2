//! Manifests over what a hub has, as if they were applied.

use serde_json::Value;
use types::{Condition, ConditionStatus, Kind, KindInfo, Placement, PlacementSpec, Resource, Site, Time};

use crate::Snapshot;

/// Why a manifest can't be laid over a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{label}: {problem}")]
pub struct Unfit {
    /// `kind/name`.
    pub label: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// A manifest of a kind that placements depend on, checked and with its defaults.
#[derive(Debug)]
pub struct Overlay {
    info: &'static KindInfo,
    value: Value,
    label: String,
}

impl Overlay {
    /// Reads a manifest. What is in a namespace and says none is in the given one.
    ///
    /// # Errors
    /// If it is of another kind, or not valid.
    pub fn read(mut manifest: Value, namespace: &str) -> Result<Self, Unfit> {
        let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) =
            (text("/apiVersion").to_owned(), text("/kind").to_owned(), text("/metadata/name").to_owned());
        let label = format!("{}/{name}", kind.to_lowercase());
        let unfit = |problem: String| Unfit { label: label.clone(), problem };
        let info = types::kind_of(&version, &kind)
            .filter(|info| matches!(info.kind, "Site" | "Placement" | "PlacementScore" | "Application"));
        let Some(info) = info else {
            return Err(unfit(
                "only manifests of Placement, Site, PlacementScore and Application can be simulated"
                    .to_owned(),
            ));
        };
        if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            if !info.namespaced {
                metadata.remove("namespace");
            } else if metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
                metadata.insert("namespace".to_owned(), namespace.into());
            }
        }
        let value = schema::complete(info, manifest, None).map_err(|violations| {
            let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
            unfit(violations.join("; "))
        })?;
        Ok(Self { info, value, label })
    }

    /// The plural of its kind.
    pub fn plural(&self) -> &'static str {
        self.info.plural
    }

    /// The namespace that it is in; empty for a Site.
    pub fn namespace(&self) -> &str {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default()
    }

    /// The placement that it is, if it is one.
    pub fn placement(&self) -> Option<Placement> {
        (self.info.plural == PlacementSpec::PLURAL)
            .then(|| serde_json::from_value(self.value.clone()).ok())
            .flatten()
    }

    /// Lays it over a snapshot of which all kinds are in the order of namespaces and names.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn lay(self, snapshot: &mut Snapshot, now: Time) -> Result<(), Unfit> {
        let Self { info, value, label } = self;
        let laid = match info.kind {
            "Site" => put(&mut snapshot.sites, value, |site| join(site, now)),
            "Placement" => put(&mut snapshot.placements, value, |_| {}),
            "PlacementScore" => put(&mut snapshot.scores, value, |_| {}),
            _ => put(&mut snapshot.applications, value, |_| {}),
        };
        laid.map_err(|error| Unfit { label, problem: error.to_string() })
    }
}

/// A site that is not there yet counts as if it had joined.
fn join(site: &mut Site, now: Time) {
    site.status.conditions.push(Condition {
        kind: "Ready".into(),
        status: ConditionStatus::True,
        observed_generation: 0,
        last_transition_time: now,
        reason: "Simulated".into(),
        message: String::new(),
    });
}

/// Replaces the spec and the labels of what is there, or adds what isn't.
fn put<S: Kind + PartialEq>(
    known: &mut Vec<Resource<S>>,
    value: Value,
    complete: impl FnOnce(&mut Resource<S>),
) -> Result<(), serde_json::Error> {
    let mut new: Resource<S> = serde_json::from_value(value)?;
    let place =
        known.binary_search_by(|old| (old.namespace(), old.name()).cmp(&(new.namespace(), new.name())));
    match place {
        Ok(index) => {
            if let Some(old) = known.get_mut(index) {
                if old.spec != new.spec {
                    old.metadata.generation += 1;
                }
                old.metadata.labels = new.metadata.labels;
                old.spec = new.spec;
            }
        }
        Err(index) => {
            complete(&mut new);
            known.insert(index, new);
        }
    }
    Ok(())
}
