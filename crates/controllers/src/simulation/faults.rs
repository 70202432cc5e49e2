//! What goes wrong, and what people do meanwhile.

use serde_json::{Value, json};
use types::names::annotation::{ABORT, UNDO};
use types::{ApplicationSpec, MaintenanceWindow, RolloutStatus, SiteSpec, Taint};

use super::clocks;
use super::site::Nature;
use super::tree::Tree;

/// How many sites may fail.
pub const FAILURES: usize = 2;
/// How long a site may take, in seconds.
pub const DEADLINE: i64 = 60;

/// For how many seconds a taint is tolerated, and how long a site stays whose label is wrong.
pub const TOLERATED: i64 = 90;
pub const HOLD: i64 = 12;

/// The label of sites that are to work.
const WORKS: &str = "works";
/// The taint of sites that are worked at.
const UPKEEP: &str = "upkeep";

/// Two applications: one changes at all sites, the other moves between them.
pub async fn begin(tree: &mut Tree) {
    for name in tree.sites.keys().cloned().collect::<Vec<_>>() {
        label(tree, &name, true).await;
    }
    select(tree, false).await;
    let component = |placement: &str, function: &str| json!({"name": "work", "placement": placement, "function": function});
    tree.function("changes", "good-0").await;
    tree.function("moves", "good").await;
    if tree.promises.concurrency == 0 {
        tree.promises.concurrency = (tree.sites.len() / 25).max(4);
    }
    let concurrency = tree.promises.concurrency;
    let rollout = json!({"type": "Progressive", "maxConcurrency": concurrency, "maxFailures": FAILURES,
        "minSuccessTime": "3s", "progressDeadline": format!("{DEADLINE}s"), "revisionHistoryLimit": 2});
    let changes = json!({"components": [component("all", "changes")], "rollout": rollout});
    tree.apply("application", "changes", changes).await;
    tree.apply("application", "moves", json!({"components": [component("some", "moves")]})).await;
}

fn labelled() -> Value {
    json!({"matchLabels": {WORKS: "yes"}})
}

/// What placements select: nothing, by mistake, or what works.
async fn select(tree: &mut Tree, nothing: bool) {
    let labels = if nothing { json!({"matchLabels": {WORKS: "typo"}}) } else { labelled() };
    // In many parts, each an object of its own.
    let groups = json!({"sitesPerGroup": 7});
    let all = json!({"siteSelector": labels, "decisionGroups": groups, "migration": {"holdSeconds": HOLD},
        "tolerations": [{"key": UPKEEP, "operator": "Exists", "tolerationSeconds": TOLERATED}]});
    tree.apply("placement", clocks::PLACEMENT, all).await;
    let few = (tree.sites.len() / 10).max(2);
    tree.apply("placement", "some", json!({"siteSelector": labels, "numberOfSites": few})).await;
}

async fn label(tree: &mut Tree, site: &str, works: bool) {
    let value = if works { "yes" } else { "no" };
    tree.change::<SiteSpec>("", site, false, |site| {
        site.metadata.labels.insert(WORKS.into(), value.into());
    })
    .await;
    clocks::labelled(tree, site, works);
    tree.promises.labels_changed += 1;
    tree.note(format!("{site} works: {value}"));
}

/// A label is wrong for a moment, which is shorter than sites are held.
async fn flicker(tree: &mut Tree, site: &str) {
    label(tree, site, false).await;
    let until = tree.now + tree.chance.seconds(1, HOLD - 2);
    tree.relabel.push((until, site.to_owned()));
}

async fn relabel(tree: &mut Tree) {
    let now = tree.now;
    let (due, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut tree.relabel).into_iter().partition(|(when, _)| *when <= now);
    tree.relabel = rest;
    for (_, site) in due {
        label(tree, &site, true).await;
    }
}

async fn taint(tree: &mut Tree, site: &str, is_tainted: bool) {
    let (snapshot, _) = tree.seen.read(&tree.store);
    if snapshot.site(site).is_none_or(|site| site.spec.taints.is_empty() != is_tainted) {
        return;
    }
    let taints: Vec<Taint> = if is_tainted {
        vec![serde_json::from_value(json!({"key": UPKEEP, "effect": "NoSelect"})).unwrap()]
    } else {
        vec![]
    };
    tree.change::<SiteSpec>("", site, false, |site| site.spec.taints = taints).await;
    clocks::tainted(tree, site, is_tainted);
    // It leaves, and comes back.
    tree.promises.labels_changed += 1;
    tree.note(format!("{site} is tainted: {is_tainted}"));
}

async fn opt_out(tree: &mut Tree, site: &str, is_out: bool) {
    let (snapshot, _) = tree.seen.read(&tree.store);
    if snapshot.site(site).is_none_or(|site| site.spec.rollout_opt_out == is_out) {
        return;
    }
    tree.change::<SiteSpec>("", site, false, |site| site.spec.rollout_opt_out = is_out).await;
    tree.note(format!("{site} opted out: {is_out}"));
}

async fn pause(tree: &mut Tree, paused: bool) {
    let change = |app: &mut types::Application| {
        if let Some(rollout) = &mut app.spec.rollout {
            rollout.paused = paused;
        }
    };
    tree.change::<ApplicationSpec>("default", "changes", false, change).await;
    tree.note(format!("paused: {paused}"));
}

/// A second in which something may go wrong.
pub async fn act(tree: &mut Tree) {
    let now = tree.now;
    if tree.hub.is_some() {
        relabel(tree).await;
    }
    let names: Vec<String> = tree.sites.keys().cloned().collect();
    let site = tree.chance.pick(&names).clone();
    match tree.chance.below(100) {
        0..=5 => cut(tree, &site, true, true, 300),
        6..=8 => cut(tree, &site, true, false, 300),
        9..=11 => cut(tree, &site, false, true, 300),
        12 if tree.chance.one_in(5) => {
            let until = now + tree.chance.seconds(20, 400);
            cut_all(tree, until);
        }
        13..=16 => {
            let writes = tree.chance.below(12) + 1;
            tree.hub_ends_after = Some(usize::try_from(writes).unwrap());
        }
        17 | 51..=54 => {
            tree.set_by += *tree.chance.pick(&[-3600, 3600]);
            let set_by = tree.set_by;
            tree.note(format!("the hub's clock is {set_by} s ahead"));
        }
        // People can't do anything while there is no hub.
        _ if tree.hub.is_none() => {}
        18..=22 => {
            let works = tree.chance.one_in(2);
            label(tree, &site, works).await;
        }
        23 => select(tree, true).await,
        24..=26 => select(tree, false).await,
        27 => {
            let kind = *tree.chance.pick(&["good", "good", "bad"]);
            tree.note(format!("{kind}-{now} is wanted"));
            tree.function("changes", &format!("{kind}-{now}")).await;
        }
        28 => pause(tree, true).await,
        29..=31 => pause(tree, false).await,
        32 => opt_out(tree, &site, true).await,
        33..=35 => opt_out(tree, &site, false).await,
        36 => undo(tree).await,
        37 => annotate(tree, UNDO, "").await,
        38 => {
            let number = rollout(tree).number;
            annotate(tree, ABORT, &number.to_string()).await;
        }
        39 if tree.chance.one_in(3) => join(tree).await,
        40 => window(tree, &site).await,
        41..=44 => flicker(tree, &site).await,
        45..=48 => taint(tree, &site, true).await,
        49..=50 => taint(tree, &site, false).await,
        _ => {}
    }
}

fn rollout(tree: &Tree) -> RolloutStatus {
    tree.application("changes").status.rollout.unwrap_or_default()
}

async fn annotate(tree: &mut Tree, key: &str, value: &str) {
    let change = |app: &mut types::Application| {
        app.metadata.annotations.insert(key.into(), value.into());
    };
    tree.change::<ApplicationSpec>("default", "changes", false, change).await;
    tree.note(format!("{key}: {value}"));
}

/// Somebody wants another revision than that of the manifests.
async fn undo(tree: &mut Tree) {
    let wanted = rollout(tree).wanted;
    let (snapshot, _) = tree.seen.read(&tree.store);
    let of_it = snapshot.revisions.iter().filter(|one| one.spec.application == "changes");
    let mut numbers: Vec<i64> = of_it.map(|one| one.spec.number).collect();
    numbers.sort_unstable();
    let to = if numbers.is_empty() { wanted } else { *tree.chance.pick(&numbers) };
    let now = tree.now;
    annotate(tree, UNDO, &format!("{wanted}:{to}@{now}")).await;
}

/// A new site joins.
async fn join(tree: &mut Tree) {
    let name = format!("t{:04}", tree.now);
    tree.join(&name, Nature::Good).await;
    label(tree, &name, true).await;
}

/// A site can be changed in the first half of each day only.
async fn window(tree: &mut Tree, site: &str) {
    let window: MaintenanceWindow =
        serde_json::from_value(json!({"start": "00:00", "duration": "12h"})).unwrap();
    tree.change::<SiteSpec>("", site, false, |site| site.spec.maintenance = vec![window]).await;
    tree.note(format!("{site} has a maintenance window"));
}

fn cut(tree: &mut Tree, site: &str, mute: bool, deaf: bool, longest: i64) {
    let until = tree.now + tree.chance.seconds(2, longest);
    let found = tree.sites.get_mut(site).unwrap();
    if mute {
        found.mute_until = until;
    }
    if deaf {
        found.deaf_until = until;
    }
    tree.note(format!("{site} is cut off until {until}: mute {mute}, deaf {deaf}"));
}

/// All sites are cut off, and come back in the same second.
pub fn cut_all(tree: &mut Tree, until: i64) {
    tree.note(format!("all sites are cut off until {until}"));
    for site in tree.sites.values_mut() {
        (site.mute_until, site.deaf_until) = (until, until);
    }
}

/// What people do in a second of a long cut: more than sites that are away can follow.
pub async fn pile_up(tree: &mut Tree) {
    let now = tree.now;
    let names: Vec<String> = tree.sites.keys().cloned().collect();
    let site = tree.chance.pick(&names).clone();
    match tree.chance.below(200) {
        0 => tree.function("changes", &format!("good-{now}")).await,
        1 => tree.function("moves", &format!("good-{now}")).await,
        2..=4 => flicker(tree, &site).await,
        _ => relabel(tree).await,
    }
}

/// Nothing goes wrong any more, and nobody has any reservations.
pub async fn end(tree: &mut Tree) {
    let now = tree.now;
    tree.hub_ends_after = None;
    tree.hub_back_at = now;
    for site in tree.sites.values_mut() {
        (site.mute_until, site.deaf_until) = (now, now);
        site.recover(now);
    }
    select(tree, false).await;
    pause(tree, false).await;
    tree.set_by = 0;
    tree.relabel.clear();
    for name in tree.sites.keys().cloned().collect::<Vec<_>>() {
        opt_out(tree, &name, false).await;
        taint(tree, &name, false).await;
    }
    tree.note("nothing goes wrong any more");
}
