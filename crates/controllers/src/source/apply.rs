//! Making objects as a repository says, and taking away what it no longer says.

use std::collections::BTreeSet;

use serde_json::Value;
use types::names::annotation;
use types::{AppliedObject, DriftPolicy, FailedObject, Source, SourceDrift, Time};

use super::cluster::{Account, Ask, Cluster, Place, Refusal};
use super::compare::Difference;
use super::desired::{Desired, entry, owner, sort_for_deletion};

/// How many failures and drifts are told.
pub const MOST_FAILURES: usize = 20;
pub const MOST_DRIFTS: usize = 50;
/// How long a message is, in characters.
const LONGEST_MESSAGE: usize = 500;

/// What a turn works with.
pub struct Turn<'a> {
    pub cluster: &'a dyn Cluster,
    pub account: &'a Account,
    pub source: &'a Source,
    pub revision: &'a str,
    /// Whether nothing but objects can have changed since the last turn.
    pub is_repeated: bool,
    /// Whether a Source that marks an object, `NAMESPACE/NAME`, is there.
    pub exists: &'a (dyn Fn(&str) -> bool + Send + Sync),
    pub now: Time,
}

/// What came of a turn.
#[derive(Debug, Default)]
pub struct Outcome {
    pub inventory: Vec<AppliedObject>,
    pub failures: Vec<FailedObject>,
    pub drift: Vec<SourceDrift>,
    pub changed: usize,
    pub pruned: usize,
}

/// An object, what an apply would do to it, and whether it was there before.
pub struct Step {
    desired: Desired,
    difference: Difference,
    is_new: bool,
    entry: AppliedObject,
    force: bool,
}

impl Turn<'_> {
    /// Finds out what there is to do, without changing anything.
    ///
    /// # Errors
    /// All that would fail.
    pub async fn plan(&self, desired: Vec<Desired>) -> Result<Vec<Step>, Vec<FailedObject>> {
        let mut failures = Vec::new();
        let mut steps = Vec::new();
        let made: BTreeSet<String> = desired
            .iter()
            .filter(|one| one.place.info.kind == "Namespace")
            .map(|one| one.place.name.clone())
            .collect();
        let mut missing = BTreeSet::new();
        for one in desired {
            let origin = one.origin.clone();
            let place = one.place.clone();
            let waits = missing.contains(&place.namespace);
            match self.step(one, waits).await {
                Ok(step) => {
                    // What comes into a namespace that this makes can only be tried when it is there.
                    if step.is_new && made.contains(&place.name) && place.info.kind == "Namespace" {
                        missing.insert(place.name);
                    }
                    steps.push(step);
                }
                Err(refusal) => failures.push(failure(&place, &origin, &refusal)),
            }
        }
        if failures.is_empty() { Ok(steps) } else { Err(failures) }
    }

    async fn step(&self, desired: Desired, waits_for_namespace: bool) -> Result<Step, Refusal> {
        let known =
            self.source.status.inventory.iter().find(|known| known.is(&entry(&desired.place, "", false)));
        let live = self.look(&desired.place).await?;
        let mark = live.as_ref().and_then(mark).unwrap_or_default();
        let own = owner(self.source);
        if !mark.is_empty() && mark != own && (self.exists)(mark) {
            let message =
                format!("{} belongs to the Source {mark}; state it in one of them alone", desired.place);
            return Err(Refusal { code: 409, message });
        }
        let force = self.source.spec.force || known.is_some();
        let adopted = known.map_or(live.is_some() && mark != own, |known| known.adopted);
        if waits_for_namespace && live.is_none() {
            desired
                .place
                .info
                .check(&desired.manifest)
                .map_err(|errors| Refusal { code: 422, message: errors.to_string() })?;
        } else {
            let wanted = self.apply(&desired, force, true).await?;
            if let Some(live) = &live {
                let difference = Difference::between(live, &wanted);
                let revision =
                    known.filter(|_| difference.is_none()).map_or(self.revision, |known| &known.revision);
                let entry = entry(&desired.place, revision, adopted);
                return Ok(Step { desired, difference, is_new: false, entry, force });
            }
        }
        let entry = entry(&desired.place, self.revision, adopted);
        Ok(Step { desired, difference: Difference::default(), is_new: true, entry, force })
    }

    /// What the inventory will hold: to be kept before anything is made, so that nothing is made and forgotten.
    pub fn inventory_of(&self, steps: &[Step]) -> Vec<AppliedObject> {
        let mut all: Vec<AppliedObject> = steps.iter().map(|step| step.entry.clone()).collect();
        let old = self.source.status.inventory.iter();
        all.extend(old.filter(|old| !steps.iter().any(|step| step.entry.is(old))).cloned());
        all.sort();
        all
    }

    /// Does what was planned, and prunes if all of it could be done.
    pub async fn carry_out(&self, steps: Vec<Step>) -> Outcome {
        let mut outcome = Outcome::default();
        let planned = self.inventory_of(&steps);
        for step in steps {
            let Step { desired, difference, is_new, mut entry, force } = step;
            let known = self.source.status.inventory.iter().find(|known| known.is(&entry)).cloned();
            if !is_new && difference.is_none() {
                outcome.inventory.push(entry);
                continue;
            }
            let is_drift = self.is_repeated && known.is_some() && (is_new || !difference.fields.is_empty());
            let is_left = is_drift && self.source.spec.drift == DriftPolicy::Warn;
            if is_drift {
                // The commit is still the one that made it what it is to be.
                entry.revision = known.map_or(entry.revision, |known| known.revision);
                outcome.drift.push(SourceDrift {
                    object: desired.place.to_string(),
                    fields: difference.fields,
                    seen: Some(self.now),
                    corrected: !is_left,
                });
            }
            outcome.inventory.push(entry);
            if is_left {
                continue;
            }
            match self.apply(&desired, force, false).await {
                Ok(_) => outcome.changed += 1,
                Err(refusal) => outcome.failures.push(failure(&desired.place, &desired.origin, &refusal)),
            }
        }
        let gone: Vec<AppliedObject> =
            planned.into_iter().filter(|known| !outcome.inventory.iter().any(|one| one.is(known))).collect();
        if self.source.spec.prune && outcome.failures.is_empty() {
            self.prune(gone, &mut outcome).await;
        } else if self.source.spec.prune {
            outcome.inventory.extend(gone);
        }
        outcome.inventory.sort();
        outcome
    }

    /// Takes away what is no longer stated; what can't be, stays in the inventory.
    pub async fn prune(&self, mut gone: Vec<AppliedObject>, outcome: &mut Outcome) {
        sort_for_deletion(&mut gone);
        for object in gone {
            match self.remove(&object).await {
                Ok(removed) => outcome.pruned += usize::from(removed),
                Err(refusal) => {
                    let message = shorten(&refusal.message);
                    outcome.failures.push(FailedObject {
                        object: object.to_string(),
                        origin: String::new(),
                        message,
                    });
                    outcome.inventory.push(object);
                }
            }
        }
    }

    /// Deletes one object, if it is ours alone; answers whether it did.
    async fn remove(&self, object: &AppliedObject) -> Result<bool, Refusal> {
        let Some(info) = types::kind_of(&object.api_version, &object.kind) else { return Ok(false) };
        let place = Place { info, namespace: object.namespace.clone(), name: object.name.clone() };
        let Some(live) = self.look(&place).await? else { return Ok(false) };
        let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let keeps = annotation_of(&live, annotation::PRUNE).is_some_and(|word| word == "disabled");
        let is_going = live.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
        if mark(&live) != Some(&owner(self.source)) || keeps || is_going || object.adopted {
            return Ok(false);
        }
        let ask = Ask::Delete { uid: text("/metadata/uid").to_owned() };
        match self.cluster.ask(self.account, &place, ask).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.code == 404 => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    async fn look(&self, place: &Place) -> Result<Option<Value>, Refusal> {
        match self.cluster.ask(self.account, place, Ask::Get).await {
            Ok(live) => Ok(Some(live)),
            Err(refusal) if refusal.code == 404 => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn apply(&self, desired: &Desired, force: bool, dry_run: bool) -> Result<Value, Refusal> {
        let ask = Ask::Apply { manifest: desired.manifest.clone(), force, dry_run };
        self.cluster.ask(self.account, &desired.place, ask).await
    }
}

fn annotation_of<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

/// The Source that an object says it is of.
fn mark(object: &Value) -> Option<&str> {
    annotation_of(object, annotation::SOURCE)
}

fn failure(place: &Place, origin: &str, refusal: &Refusal) -> FailedObject {
    let message = shorten(&refusal.message);
    FailedObject { object: place.to_string(), origin: origin.to_owned(), message }
}

fn shorten(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => message.get(..end).unwrap_or_default().to_owned() + "…",
        None => message.to_owned(),
    }
}
