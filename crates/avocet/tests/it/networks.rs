//! A tree of sites on machines of their own, whose network is slow, lossy, or cut for a while.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Network, Site, Tree, wait_until};
use types::Digest;

use crate::nesting::{labelled, wait_until_site};
use crate::offload::Neighbours;
use crate::sources::{Repository, config_map, source, wait_until_applied};
use crate::support::{
    application, apply, function, invocations_of, list, noise, placement, put, step, wait_for_object,
};

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
    let middle = trees[1].hub_below(&top, "plant", &["--source-protocol", "file"]);
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

    /// Waits until the site began so much, whoever hears of it.
    #[track_caller]
    fn wait_until_worked(&self, count: usize) {
        wait_until("the site worked on it", LIMIT, || {
            let found = self.leaf.invocations().len();
            if found == count { Ok(()) } else { Err(found.to_string()) }
        });
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
    world.wait_until_worked(2);
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
fn a_plant_with_a_hub_of_its_own_follows_its_repository_while_the_cloud_is_away() {
    let Some(world) = world() else { return };
    let tree = &world.trees[1];
    let repository = Repository::new(tree);
    repository.write("deploy/settings.yaml", &config_map("settings", "1"));
    let first = repository.push();
    let copy = tree.write("functions/copy.sh", r#"cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/""#);
    let copies = json!([step("copy", "here", "copies/in", "copies/out")]);
    let [source, rights] = source(&repository, &json!({}));
    apply(tree, &world.middle, &[function("copy", &copy), application("copies", &copies), source, rights]);
    wait_until_applied(&world.middle, &first);

    world.network.cut(0);
    wait_until_site(&world.top, "plant", "Unknown", "Silent");
    let here = labelled("here", "line", "3");
    repository.write("deploy/here.yaml", &here.to_string());
    let second = repository.push();
    world.middle.cli(&["source", "reconcile", "deploy"]).ok();
    wait_until_applied(&world.middle, &second);
    world.middle.wait_until_ready("copies");
    put(&world.trees[2], &world.leaf, "copies/in/one", "copied");
    assert_eq!(wait_for_object(&world.trees[2], &world.leaf, "copies/out/one"), "copied");

    // What both hubs assigned goes on side by side.
    world.network.heal();
    world.put("after");
    world.wait_for("after");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    assert_eq!(world.leaf.invocations().len(), 2);
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

#[test]
fn a_hub_that_hears_nothing_but_is_heard_takes_nothing_away_and_hears_all_in_the_end() {
    let Some(world) = world() else { return };
    // What the plant says does not arrive, what the cloud says does; then the same below.
    world.network.mute(0);
    world.put("one");
    wait_until_site(&world.top, "plant", "Unknown", "Silent");
    wait_until_site(&world.top, "line", "Unknown", "ParentSilent");
    wait_until_site(&world.middle, "line", "True", "HeartbeatsArrive");
    world.wait_until_worked(1);
    world.network.heal();
    world.wait_for("one");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    world.network.mute(1);
    world.put("two");
    wait_until_site(&world.middle, "line", "Unknown", "Silent");
    world.wait_until_worked(2);
    world.network.heal();
    world.wait_for("two");
    wait_until_site(&world.top, "line", "True", "HeardByParent");
    world.check_counts(2);
}

#[test]
fn healed_cables_are_as_good_as_new() {
    let Some(network) = Network::line(env!("CARGO_BIN_EXE_avocet"), 3) else { return };
    assert_eq!(network.faults(), [""; 0]);
    network.worsen();
    network.cut(1);
    network.tear(0);
    assert!(network.faults().len() >= 4 + 3, "{:?}", network.faults());
    network.heal();
    assert_eq!(network.faults(), [""; 0]);
}

/// A function in a folder of its own, with so many bytes that nothing makes smaller; it writes its version.
fn version(tree: &Tree, name: &str, bytes: usize) -> Value {
    let code = format!("echo {name} > \"$TMP_OUTPUT_DIR/$(basename \"$INPUT_FILE_PATH\")\"");
    let folder = tree.write(&format!("{name}/mark.sh"), code).parent().unwrap().to_owned();
    tree.write(&format!("{name}/weights"), noise(name, bytes));
    let spec = json!({"runtime": "shell", "handler": "mark.sh", "artifact": {"path": folder}});
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": "Function", "metadata": {"name": "mark"}, "spec": spec})
}

/// A hub and sites of it, all on machines of their own.
struct Star {
    network: Network,
    trees: Vec<Tree>,
    hub: Hub,
    sites: Vec<Site>,
}

impl Star {
    fn start(sites: usize, hub_options: &[&str]) -> Option<Self> {
        let network = Network::star(env!("CARGO_BIN_EXE_avocet"), sites + 1)?;
        let trees: Vec<Tree> = (0..=sites).map(|machine| network.tree(machine)).collect();
        let hub = trees[0].hub_with("cloud", hub_options);
        let sites =
            (1..=sites).map(|number| trees[number].site(&hub, &format!("edge-{number}"), &[])).collect();
        Some(Self { network, trees, hub, sites })
    }

    /// The application `marks` at all sites, two of them at a time.
    fn apply(&self, name: &str, bytes: usize) {
        let component = json!({"name": "mark", "placement": "edge", "function": "mark",
            "inputs": [{"path": "marks/in"}], "outputs": [{"path": "marks/out"}]});
        let mut marks = application("marks", &json!([component]));
        marks["spec"]["rollout"] =
            json!({"type": "Progressive", "maxConcurrency": 2, "progressDeadline": "2m"});
        apply(&self.trees[0], &self.hub, &[placement("edge"), version(&self.trees[0], name, bytes), marks]);
    }

    /// How far the rollout is, within its budget.
    fn rollout(&self) -> Value {
        let status = self.hub.cli(&["rollout", "status", "marks", "-o", "json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let at_work = &status["sites"]["progressing"];
        assert!(at_work.as_u64().unwrap_or(0) <= 2 && status["rejected"].is_null(), "{status}");
        status
    }

    #[track_caller]
    fn wait_for_rollout(&self, number: u64, what: &str, is_so: impl Fn(&Value) -> bool) {
        wait_until(&format!("revision {number}: {what}"), LIMIT, || {
            let status = self.rollout();
            let is_so = status["number"] == number && is_so(&status["sites"]);
            if is_so { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// What a site makes of something new.
    #[track_caller]
    fn mark(&self, site: usize, name: &str) -> String {
        let (tree, site) = (&self.trees[site], &self.sites[site - 1]);
        put(tree, site, &format!("marks/in/{name}"), "mark me");
        wait_for_object(tree, site, &format!("marks/out/{name}"))
    }
}

#[test]
fn a_rollout_over_bad_cables_of_which_two_are_cut_in_its_middle_ends_at_all_sites_and_keeps_its_budget() {
    let Some(star) = Star::start(4, &["--max-artifact-bytes-per-second", "1Mi"]) else { return };
    star.apply("one", 10);
    star.wait_for_rollout(1, "all sites run it", |sites| sites["done"] == 4);
    star.network.worsen();
    (1..=4).for_each(|site| assert_eq!(star.mark(site, "before"), "one"));
    star.apply("two", 1 << 20);
    star.wait_for_rollout(2, "it begins", |sites| sites["progressing"] != 0);
    // One that is at it, or was, and one that waits for its turn.
    star.network.cut(0);
    star.network.cut(3);
    let while_away = (star.mark(1, "meanwhile"), star.mark(4, "meanwhile"));
    assert!(["one", "two"].contains(&while_away.0.as_str()), "{while_away:?}");
    assert_eq!(while_away.1, "one");
    star.wait_for_rollout(2, "those that are heard run it", |sites| sites["done"].as_u64() >= Some(2));
    star.network.heal();
    star.network.worsen();
    star.wait_for_rollout(2, "all sites run it", |sites| sites["done"] == 4);
    for site in 1..=4 {
        assert_eq!(star.mark(site, "after"), "two");
        let seen = &star.sites[site - 1];
        let names: &[&str] =
            if [1, 4].contains(&site) { &["before", "meanwhile", "after"] } else { &["before", "after"] };
        assert_eq!(seen.invocations().len(), names.len());
        for name in names {
            let found = invocations_of(seen, &format!("in/{name}"));
            assert_eq!((found.len(), &found[0]["attempts"]), (1, &json!(1)), "{found:?}");
        }
    }
}

/// How many bytes of an artifact a site has so far, and whether that is all of it.
fn arrived(site: &Site, digest: &str) -> (u64, bool) {
    let folder = site.data().join("artifacts");
    let length = |file: &Path| file.metadata().map_or(0, |metadata| metadata.len());
    let whole = folder.join("blobs").join(digest);
    if whole.is_file() {
        (length(&whole), true)
    } else {
        (length(&folder.join("partial").join(digest)), false)
    }
}

#[test]
fn an_artifact_whose_way_is_torn_and_lossy_goes_on_where_it_was() {
    const SIZE: usize = 16 << 20;
    let Some(star) = Star::start(1, &["--max-artifact-bytes-per-second", "4Mi"]) else { return };
    star.network.worsen();
    let before = star.network.bytes_down(0);
    star.apply("large", SIZE);
    let function = star.hub.cli(&["get", "function", "mark", "-o", "json"]).json();
    let artifact = &function["spec"]["artifact"];
    let (digest, size) = (artifact["digest"].as_str().unwrap(), artifact["size"].as_u64().unwrap());
    let digest = digest.trim_start_matches("sha256:");
    let wait_for = |bytes: u64| {
        wait_until(&format!("{bytes} bytes are there"), LIMIT, || {
            let (there, is_whole) = arrived(&star.sites[0], digest);
            assert!(!is_whole, "nothing was left to be torn");
            if there >= bytes { Ok(()) } else { Err(there.to_string()) }
        });
    };
    let broken = || star.sites[0].process.output().matches("ArtifactUnavailable").count();
    for eighths in [3, 5] {
        wait_for(size * eighths / 8);
        let before = broken();
        star.network.tear(0);
        wait_until("the connection broke", LIMIT, || {
            if broken() > before { Ok(()) } else { Err(star.sites[0].process.output()) }
        });
        star.network.heal();
        star.network.worsen();
    }
    star.hub.wait_until_ready("marks");
    assert_eq!(arrived(&star.sites[0], digest), (size, true));
    let file = star.sites[0].data().join("artifacts/blobs").join(digest);
    assert_eq!(Digest::of(&std::fs::read(file).unwrap()).hex(), digest);
    // Lost packets are sent again, and of what was torn a piece and what was on its way: begun anew it would be twice as much.
    let sent = star.network.bytes_down(0) - before;
    assert!(sent > size && sent < size + size / 10 + 2 * (5 << 20), "{sent} bytes for {size}");
    assert_eq!(star.mark(1, "done"), "large");
}

#[test]
fn work_for_others_over_bad_cables_is_done_once_when_the_site_that_took_it_is_cut_off() {
    let Some(network) = Network::star(env!("CARGO_BIN_EXE_avocet"), 3) else { return };
    let offload = json!({"to": ["Neighbours"], "patienceSeconds": 3, "marginPercent": 0});
    let (all, _folders) =
        Neighbours::on_machines([0, 1, 2].map(|machine| network.tree(machine)), 5, &offload);
    network.worsen();
    let names = all.put(4);
    let away = all.wait_until_b_works();
    network.cut(1);
    let ran = all.wait_for_all(&names);
    let taken_back = all.a.invocations().into_iter().find(|one| one["id"] == away["id"]).unwrap();
    assert_eq!(taken_back["ranAt"], Value::Null, "b can't be heard: {taken_back}");
    let before = list(&all.a, "jobs/out/");
    network.heal();
    network.worsen();
    wait_until_site(&all.hub, "b", "True", "HeartbeatsArrive");
    wait_until("b has nothing of a's any more", LIMIT, || {
        let left = std::fs::read_dir(all.b.data().join("work")).unwrap().count();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    });
    assert_eq!(list(&all.a, "jobs/out/"), before, "nothing was published again");
    all.assert_once(&names, &ran);
}
