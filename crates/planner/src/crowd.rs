//! What other placements decided: how many chose a site, and what they took of it.

use std::collections::BTreeMap;

use crate::fleet::{Fleet, Slot};

/// A placement: its namespace and its name.
pub type PlacementKey = (String, String);

#[derive(Debug, Default, PartialEq)]
struct Chosen {
    slots: Vec<Slot>,
    /// In thousandths.
    requests: BTreeMap<String, i64>,
}

/// An amount in thousandths, of which the sums are exact. What is less than one of them counts as one.
pub(crate) fn thousandths(amount: f64) -> i64 {
    let whole = (amount.trunc() as i64).saturating_mul(1000);
    let all = whole.saturating_add((amount.fract() * 1000.0).round() as i64);
    if amount > 0.0 { all.max(1) } else { all }
}

/// How many changes the log holds.
const LOG: usize = 1 << 16;

/// All decisions, by site.
#[derive(Debug, Default)]
pub struct Crowd {
    chosen: BTreeMap<PlacementKey, Chosen>,
    /// How often each row was chosen.
    counts: Vec<u32>,
    /// What was taken of each row, by resource, in thousandths.
    taken: BTreeMap<String, Vec<i64>>,
    log: Vec<Slot>,
    logged: u64,
}

impl Crowd {
    /// What a placement chose, and what it requests on each site, in place of what it chose before.
    pub fn set(&mut self, key: &PlacementKey, slots: Vec<Slot>, requests: BTreeMap<String, f64>) {
        let requests = requests.into_iter().map(|(resource, amount)| (resource, thousandths(amount)));
        let new = Chosen { slots, requests: requests.collect() };
        if self.chosen.get(key) == Some(&new) {
            return;
        }
        if let Some(old) = self.chosen.remove(key) {
            self.apply(&old, false);
        }
        self.apply(&new, true);
        self.chosen.insert(key.clone(), new);
    }

    /// Forgets a placement.
    pub fn remove(&mut self, key: &PlacementKey) {
        if let Some(old) = self.chosen.remove(key) {
            self.apply(&old, false);
        }
    }

    /// Forgets all placements but these.
    pub fn retain(&mut self, is_known: impl Fn(&PlacementKey) -> bool) {
        let gone: Vec<PlacementKey> = self.chosen.keys().filter(|key| !is_known(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    fn apply(&mut self, chosen: &Chosen, comes: bool) {
        for slot in &chosen.slots {
            let row = *slot as usize;
            if self.counts.len() <= row {
                self.counts.resize(row + 1, 0);
            }
            if let Some(count) = self.counts.get_mut(row) {
                *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            }
            for (resource, amount) in &chosen.requests {
                let taken = self.taken.entry(resource.clone()).or_default();
                if taken.len() <= row {
                    taken.resize(row + 1, 0);
                }
                if let Some(taken) = taken.get_mut(row) {
                    // Nobody takes so much that these sums end; but whoever writes such a thing harms nobody.
                    *taken =
                        if comes { taken.saturating_add(*amount) } else { taken.saturating_sub(*amount) };
                }
            }
        }
        if self.log.len() + chosen.slots.len() > LOG {
            self.log.clear();
            self.logged += 1;
        }
        if chosen.slots.len() <= LOG {
            self.log.extend_from_slice(&chosen.slots);
        }
        self.logged += chosen.slots.len() as u64;
    }

    pub(crate) fn changes(&self) -> u64 {
        self.logged
    }

    pub(crate) fn changed_since(&self, seen: u64) -> Option<&[Slot]> {
        let behind = usize::try_from(self.logged.checked_sub(seen)?).ok()?;
        self.log.get(self.log.len().checked_sub(behind)?..)
    }

    pub(crate) fn counts(&self) -> &[u32] {
        &self.counts
    }

    pub(crate) fn count(&self, slot: Slot) -> u32 {
        self.counts.get(slot as usize).copied().unwrap_or(0)
    }

    /// What was taken of a row's resource, in thousandths.
    pub(crate) fn taken(&self, resource: &str, slot: Slot) -> i64 {
        self.taken.get(resource).and_then(|taken| taken.get(slot as usize)).copied().unwrap_or(0)
    }

    /// What a placement chose.
    pub fn chosen(&self, key: &PlacementKey) -> &[Slot] {
        self.chosen.get(key).map_or(&[], |chosen| &chosen.slots)
    }

    /// What a placement requests of a resource on each of its sites, in thousandths.
    pub(crate) fn request(&self, key: &PlacementKey, resource: &str) -> i64 {
        self.chosen.get(key).and_then(|chosen| chosen.requests.get(resource)).copied().unwrap_or(0)
    }

    /// Sites by name, as rows of a fleet.
    pub fn slots(fleet: &mut Fleet, sites: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Slot> {
        sites.into_iter().map(|site| fleet.slot_for(site.as_ref())).collect()
    }
}
