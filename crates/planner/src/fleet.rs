//! All sites as columns: what a decision asks of all of them lies side by side.
//!
//! Only what some policy asks for is kept. A site that changed changes its own row, and is told in a log, so that
//! those who decided before look at that row alone.

mod columns;
mod links;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use types::{ConditionStatus, PlacementScore, Site, Taint, condition};

pub use columns::holds_all;
pub(crate) use columns::{Columns, texts};
pub(crate) use links::Field;
use links::Links;

/// A row of the fleet. It stays that of its site for as long as the fleet lives.
pub type Slot = u32;

/// What CEL expressions see of a site, and under which name.
#[derive(Clone, Copy)]
pub struct Dialect {
    /// The name of the variable.
    pub variable: &'static str,
    /// The site as expressions see it, without what others told of it.
    pub document: fn(&Site) -> Value,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { variable: "site", document: |site| serde_json::to_value(site).unwrap_or_default() }
    }
}

/// What of a site is yes or no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub present: bool,
    pub deleting: bool,
    pub cordoned: bool,
    pub ready: bool,
}

/// How many changes the log holds; who looks less often looks at everything.
const LOG: usize = 1 << 16;
/// Room between two neighbours in the order of names.
const GAP: u64 = 1 << 32;

/// All sites.
#[derive(Default)]
pub struct Fleet {
    pub(crate) dialect: Dialect,
    slots: HashMap<Arc<str>, Slot>,
    sorted: BTreeMap<Arc<str>, Slot>,
    names: Vec<Arc<str>>,
    /// Rises with the names: compares two rows by name without looking at names.
    order: Vec<u64>,
    flags: Vec<Flags>,
    taints: Vec<Vec<Taint>>,
    /// Why sites aren't ready.
    unready: HashMap<Slot, String>,
    cost: Vec<f64>,
    energy: Vec<f64>,
    pub(crate) columns: Columns,
    links: Links,
    present: usize,
    /// How many rows there were when it was new.
    settled: usize,
    log: Vec<Slot>,
    logged: u64,
}

impl Fleet {
    /// Of these sites, as CEL expressions see them.
    pub fn with_dialect(dialect: Dialect) -> Self {
        Self { dialect, ..Self::default() }
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.present
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// How many rows there are, with those of sites that are gone or only named by others.
    pub fn rows(&self) -> usize {
        self.names.len()
    }

    /// Whether most rows are of no site any more: a new fleet would be smaller. What a new one had from the start, such as
    /// the strangers that sites name in their links, it would have again.
    pub fn is_bloated(&self) -> bool {
        self.rows() > 2 * self.present.max(self.settled) + 1024
    }

    /// All sites are here now: more rows than these are left over from changes.
    pub fn settle(&mut self) {
        self.settled = self.rows();
    }

    /// The row of a site.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.slots.get(name).copied()
    }

    /// The name of a row.
    pub fn name(&self, slot: Slot) -> &str {
        self.names.get(slot as usize).map_or("", |name| name)
    }

    /// The row of a site, made if need be: sites are named before they are there.
    pub fn slot_for(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.slot(name) {
            return slot;
        }
        let slot = Slot::try_from(self.names.len()).unwrap_or(Slot::MAX);
        let name: Arc<str> = name.into();
        let place = self.place_for(&name);
        self.slots.insert(name.clone(), slot);
        self.sorted.insert(name.clone(), slot);
        self.names.push(name);
        self.order.push(place);
        self.flags.push(Flags::default());
        self.taints.push(vec![]);
        self.cost.push(f64::NAN);
        self.energy.push(f64::NAN);
        self.columns.grow();
        self.links.grow();
        slot
    }

    /// The row of a location.
    pub(crate) fn location(&mut self, name: &str) -> Slot {
        self.slot_for(&format!("location/{name}"))
    }

    /// A place between its neighbours in the order of names.
    fn place_for(&mut self, name: &Arc<str>) -> u64 {
        let place_of = |entry: Option<(&Arc<str>, &Slot)>| {
            entry.and_then(|(_, slot)| self.order.get(*slot as usize).copied())
        };
        let before = place_of(self.sorted.range::<Arc<str>, _>(..name).next_back()).unwrap_or(0);
        match place_of(self.sorted.range::<Arc<str>, _>(name..).next()) {
            None => before.saturating_add(GAP),
            Some(after) if after - before > 1 => before + (after - before) / 2,
            Some(_) => {
                self.spread_places();
                self.place_for(name)
            }
        }
    }

    fn spread_places(&mut self) {
        let mut place = 0;
        for slot in self.sorted.values() {
            place += GAP;
            if let Some(known) = self.order.get_mut(*slot as usize) {
                *known = place;
            }
        }
        // Who compared by the old places looks at everything again.
        self.forget_log();
    }

    /// Adds a site, or changes its row to what it is now.
    pub fn set(&mut self, site: &Site, told: &[&PlacementScore]) {
        let slot = self.slot_for(site.name());
        let row = slot as usize;
        let reported = condition(&site.status.conditions, "Ready");
        let ready = reported.is_some_and(|ready| ready.status == ConditionStatus::True);
        if ready {
            self.unready.remove(&slot);
        } else {
            self.unready.insert(slot, reported.map_or_else(String::new, |ready| ready.message.clone()));
        }
        let flags =
            Flags { present: true, deleting: site.is_deleting(), cordoned: site.spec.unschedulable, ready };
        if let Some(known) = self.flags.get_mut(row) {
            self.present += usize::from(!known.present);
            *known = flags;
        }
        if let Some(known) = self.taints.get_mut(row) {
            known.clone_from(&site.spec.taints);
        }
        if let (Some(cost), Some(energy)) = (self.cost.get_mut(row), self.energy.get_mut(row)) {
            *cost = site.spec.cost_per_hour.unwrap_or(f64::NAN);
            *energy = site.spec.energy_watts.unwrap_or(f64::NAN);
        }
        let Self { columns, dialect, .. } = self;
        columns.fill_row(slot, site, told, *dialect);
        let edges = links::edges(self, site);
        self.links.set(slot, edges);
        self.note(slot);
    }

    /// Takes a site away.
    pub fn remove(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        if let Some(flags) = self.flags.get_mut(slot as usize).filter(|flags| flags.present) {
            *flags = Flags::default();
            self.present -= 1;
            self.links.set(slot, vec![]);
            self.note(slot);
        }
    }

    /// Fills the columns that policies asked for since the last time. `sites` must be those that are here.
    pub fn fill<'a>(
        &mut self,
        sites: impl IntoIterator<Item = &'a Site>,
        told: impl Fn(&str) -> Vec<&'a PlacementScore>,
    ) {
        if !self.columns.are_missing() {
            return;
        }
        for site in sites {
            if let Some(slot) = self.slot(site.name()) {
                let Self { columns, dialect, .. } = self;
                columns.fill_row(slot, site, &told(site.name()), *dialect);
            }
        }
        self.columns.filled();
    }

    fn note(&mut self, slot: Slot) {
        if self.log.len() >= LOG {
            self.forget_log();
        }
        self.log.push(slot);
        self.logged += 1;
    }

    fn forget_log(&mut self) {
        self.log.clear();
        // A change that no log tells: who was up to date isn't any more.
        self.logged += 1;
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        self.logged
    }

    /// The rows that changed since there were so many changes; nothing if that is too long ago.
    pub(crate) fn changed_since(&self, seen: u64) -> Option<&[Slot]> {
        let behind = usize::try_from(self.logged.checked_sub(seen)?).ok()?;
        self.log.get(self.log.len().checked_sub(behind)?..)
    }

    pub(crate) fn order(&self) -> &[u64] {
        &self.order
    }

    pub(crate) fn place(&self, slot: Slot) -> u64 {
        self.order.get(slot as usize).copied().unwrap_or(u64::MAX)
    }

    pub(crate) fn flags(&self, slot: Slot) -> Flags {
        self.flags.get(slot as usize).copied().unwrap_or_default()
    }

    /// The rows of sites that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..).zip(&self.flags).filter(|(_, flags)| flags.present).map(|(slot, _)| slot)
    }

    /// Why a site isn't ready, as far as it is known.
    pub(crate) fn not_ready(&self, slot: Slot) -> &str {
        self.unready.get(&slot).map_or("", |why| why)
    }

    pub(crate) fn taints(&self, slot: Slot) -> &[Taint] {
        self.taints.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn cost(&self, slot: Slot) -> f64 {
        self.cost.get(slot as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn energy(&self, slot: Slot) -> f64 {
        self.energy.get(slot as usize).copied().unwrap_or(f64::NAN)
    }

    /// Changes whenever distances of other sites than the changed one may have changed.
    pub(crate) fn topology(&self) -> u64 {
        self.links.version()
    }

    /// Forgets how far sites are from one another, so that it is worked out again when it is asked.
    pub fn forget_distances(&mut self) {
        self.links.forget();
    }

    /// How far all sites are from the nearest of these.
    pub(crate) fn field(&mut self, origins: &[Slot]) -> Arc<Field> {
        self.links.field(origins)
    }
}
