//! A tree of sites on machines of their own, whose network is slow, lossy, or cut for a while.

use serde_json::json;
use testkit::{Hub, LIMIT, Network, Site, Tree, wait_until};

use crate::nesting::{labelled, wait_until_site};
use crate::support::{application, apply, function, list, placement, put, step, wait_for_object};

/// `cloud`, `plant` and `line`, a machine each; what lands in `letters/in` at the line is copied at the cloud, and comes
/// back.
struct World {
    network: Network,
    trees: Vec<Tree>,
    top: Hub,
    middle: Hub,
    leaf: Site,
}

/// None where there can be no such network.
fn world() -> Option<World> {
    let network = Network::line(env!("CARGO_BIN_EXE_avocet"), 3)?;
    let trees: Vec<Tree> = (0..3).map(|machine| network.tree(machine)).collect();
    let top = trees[0].hub("cloud");
    let middle = trees[1].hub_below(&top, "plant", &[]);
    let leaf = trees[2].site(&middle, "line", &["--label", "line=3"]);
    wait_until_site(&top, "line", "True", "HeardByParent");
    let copy = trees[0].write("functions/copy.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    let letters = json!([
        step("up", "lines", "letters/in", "letters/above"),
        step("down", "cloud", "letters/above", "letters/below"),
    ]);
    let manifests = [
        labelled("lines", "line", "3"),
        placement("cloud"),
        function("up", &copy),
        function("down", &copy),
        application("letters", &letters),
    ];
    // The second step writes to where nobody reads: its outputs stay at the cloud.
    apply(&trees[0], &top, &manifests);
    top.wait_until_ready("letters");
    Some(World { network, trees, top, middle, leaf })
}

impl World {
    #[track_caller]
    fn put(&self, name: &str) {
        put(&self.trees[2], &self.leaf, &format!("letters/in/{name}"), name);
    }

    #[track_caller]
    fn wait_for(&self, name: &str) {
        assert_eq!(wait_for_object(&self.trees[0], &self.top, &format!("letters/below/{name}")), name);
    }

    /// All that was put was worked on once, at both ends.
    #[track_caller]
    fn check_counts(&self, count: usize) {
        assert_eq!(self.leaf.invocations().len(), count);
        assert_eq!(self.top.invocations().len(), count);
        assert_eq!(list(&self.top, "letters/below").len(), count);
    }
}

#[test]
fn a_tree_over_slow_and_lossy_cables_loses_nothing_and_does_nothing_twice() {
    let Some(world) = world() else { return };
    world.network.worsen();
    let names: Vec<String> = (0..20).map(|number| format!("letter-{number}")).collect();
    names.iter().for_each(|name| world.put(name));
    names.iter().for_each(|name| world.wait_for(name));
    world.check_counts(20);
    wait_until_site(&world.top, "line", "True", "HeardByParent");
}

#[test]
fn a_branch_that_is_cut_off_works_on_and_what_changed_meanwhile_arrives_after() {
    let Some(world) = world() else { return };
    world.put("before");
    world.wait_for("before");
    world.network.cut(0);
    wait_until_site(&world.top, "plant", "Unknown", "Silent");
    wait_until_site(&world.top, "line", "Unknown", "ParentSilent");
    // The hub between and its site are well, and work.
    wait_until_site(&world.middle, "line", "True", "HeartbeatsArrive");
    world.put("meanwhile");
    wait_until("the site worked on it", LIMIT, || {
        let count = world.leaf.invocations().len();
        if count == 2 { Ok(()) } else { Err(count.to_string()) }
    });
    let copy = world.trees[0].write("functions/second.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    let second = json!([step("second", "lines", "notes/in", "notes/out")]);
    apply(&world.trees[0], &world.top, &[function("second", &copy), application("notes", &second)]);
    // Sites may even join below, and are known above later.
    let _late = world.trees[2].site(&world.middle, "late", &[]);
    world.network.heal();
    world.wait_for("meanwhile");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    wait_until_site(&world.top, "late", "True", "HeardByParent");
    world.top.wait_until_ready("notes");
    put(&world.trees[2], &world.leaf, "notes/in/one", "note");
    assert_eq!(wait_for_object(&world.trees[2], &world.leaf, "notes/out/one"), "note");
    assert_eq!(list(&world.top, "letters/below").len(), 2);
}

#[test]
fn a_hub_that_speaks_but_does_not_hear_is_silent_in_the_end_and_comes_back() {
    let Some(world) = world() else { return };
    world.network.deafen(0);
    world.put("unheard");
    wait_until_site(&world.top, "plant", "Unknown", "Silent");
    wait_until_site(&world.top, "line", "Unknown", "ParentSilent");
    wait_until_site(&world.middle, "line", "True", "HeartbeatsArrive");
    world.network.heal();
    world.wait_for("unheard");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    world.check_counts(1);
    // The same on the lower cable.
    world.network.deafen(1);
    world.put("deaf");
    wait_until_site(&world.middle, "line", "Unknown", "Silent");
    wait_until_site(&world.top, "line", "Unknown", "Silent");
    world.network.heal();
    world.wait_for("deaf");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    world.check_counts(2);
}

#[test]
fn many_sites_that_come_back_at_once_are_all_heard_and_their_work_is_told() {
    let Some(world) = world() else { return };
    let names: Vec<String> = (0..6).map(|number| format!("line-{number}")).collect();
    let sites: Vec<Site> =
        names.iter().map(|name| world.trees[2].site(&world.middle, name, &["--label", "line=3"])).collect();
    names.iter().for_each(|name| drop(wait_until_site(&world.top, name, "True", "HeardByParent")));
    world.network.cut(0);
    world.network.cut(1);
    names.iter().for_each(|name| drop(wait_until_site(&world.top, name, "Unknown", "ParentSilent")));
    names.iter().for_each(|name| drop(wait_until_site(&world.middle, name, "Unknown", "Silent")));
    world.network.heal();
    names.iter().for_each(|name| drop(wait_until_site(&world.top, name, "True", "HeardByParent")));
    world.top.wait_until_ready("letters");
    for (site, name) in sites.iter().zip(&names) {
        put(&world.trees[2], site, &format!("letters/in/{name}"), name);
    }
    names.iter().for_each(|name| world.wait_for(name));
}
