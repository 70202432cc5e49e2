//! How long a placement waits before it lets a site go: as long as it says, whatever clocks show.

use std::collections::BTreeMap;

use super::faults::{HOLD, TOLERATED};
use super::promises::Before;
use super::tree::Tree;
use crate::Snapshot;
use crate::placement::Decision;

/// The placement that is judged: it selects all sites that match, so none leaves it for a better one.
pub const PLACEMENT: &str = "all";
/// How much later than it may a site goes at most: people act before a second begins, and the hub looks in it.
const LATE: i64 = 2;

/// Since when something is so.
#[derive(Debug, Clone, Copy)]
struct Since {
    at: i64,
    /// By how much the clocks of hubs since then were ahead, at least. A hub whose clock was set forward while it was away
    /// takes that for time that went by.
    least_ahead: i64,
    /// Whether it is so still.
    holds: bool,
}

/// Since when sites have a taint, or lack the label.
#[derive(Default)]
pub struct Clocks {
    tainted: BTreeMap<String, Since>,
    unlabelled: BTreeMap<String, Since>,
}

impl Clocks {
    pub fn hub_started(&mut self, ahead: i64) {
        for since in self.tainted.values_mut().chain(self.unlabelled.values_mut()) {
            since.least_ahead = since.least_ahead.min(ahead);
        }
    }
}

fn began(tree: &Tree) -> Since {
    let ahead = tree.hub.as_ref().map_or(tree.set_by, |hub| hub.ahead);
    Since { at: tree.now, least_ahead: ahead, holds: true }
}

/// A site has a taint from now on, or hasn't.
pub fn tainted(tree: &mut Tree, site: &str, is_tainted: bool) {
    let now = began(tree);
    let tainted = &mut tree.promises.clocks.tainted;
    if is_tainted {
        tainted.insert(site.to_owned(), now);
    } else {
        tainted.remove(site);
    }
}

/// A site has the label from now on, or hasn't.
pub fn labelled(tree: &mut Tree, site: &str, works: bool) {
    let now = began(tree);
    let (snapshot, _) = tree.seen.read(&tree.store);
    let decision = Decision::of(snapshot, "default", PLACEMENT);
    // A hub that ended before it saw the label come back counts from when it went first.
    let is_noted = decision.sites().any(|chosen| chosen.site == site && chosen.unmatched_since.is_some());
    let unlabelled = &mut tree.promises.clocks.unlabelled;
    match unlabelled.get_mut(site) {
        Some(known) if works => known.holds = false,
        Some(known) if known.holds || is_noted => known.holds = true,
        _ if works => {}
        _ => drop(unlabelled.insert(site.to_owned(), now)),
    }
}

/// Whether a decision follows the spec that the placement has now: where that changed, sites go at once.
pub fn is_settled(snapshot: &Snapshot) -> bool {
    let placement = Snapshot::named(&snapshot.placements, "default", PLACEMENT).unwrap();
    let observed = Decision::of(snapshot, "default", PLACEMENT).observed_generation();
    observed == placement.metadata.generation
}

/// Judges who left: nobody before its time is over.
pub fn may_leave(tree: &Tree, before: &Before, gone: &[&String]) {
    let Some(hub) = tree.hub.as_ref().filter(|_| before.is_settled) else { return };
    let clocks = &tree.promises.clocks;
    let is_over = |since: &Since, seconds: i64| {
        since.holds && tree.now - since.at + hub.ahead - since.least_ahead >= seconds
    };
    for site in gone {
        let (tainted, unlabelled) = (clocks.tainted.get(*site), clocks.unlabelled.get(*site));
        assert!(
            tainted.is_some_and(|since| is_over(since, TOLERATED))
                || unlabelled.is_some_and(|since| is_over(since, HOLD)),
            "{site} is no longer selected; tainted {tainted:?}, unlabelled {unlabelled:?}, the hub is {} s ahead",
            hub.ahead
        );
    }
}

/// Judges who stays: nobody for longer than it may, by a hub that was there all the time.
pub fn in_time(tree: &mut Tree) {
    let Some(hub) = &tree.hub else { return };
    let (started, now) = (hub.started, tree.now);
    let (snapshot, _) = tree.seen.read(&tree.store);
    if !is_settled(snapshot) {
        return;
    }
    let clocks = &tree.promises.clocks;
    let is_late = |since: Option<&Since>, seconds: i64| {
        since.is_some_and(|since| since.holds && started < since.at && now - since.at > seconds + LATE)
    };
    for site in Decision::of(snapshot, "default", PLACEMENT).names() {
        let (tainted, unlabelled) = (clocks.tainted.get(&site), clocks.unlabelled.get(&site));
        assert!(
            !is_late(tainted, TOLERATED) && !is_late(unlabelled, HOLD),
            "{site} is selected still; tainted {tainted:?}, unlabelled {unlabelled:?}"
        );
    }
}
