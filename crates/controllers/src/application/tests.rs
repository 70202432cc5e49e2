//! Rollouts as they should go.

mod mishaps;
mod world;

use serde_json::{Value, json};
use store::Key;
use types::{ApplicationRevision, Assignment, Digest, Resource, SiteSpec};

use crate::snapshot::Reader;
use crate::testing::at;
use world::{Mood, SITES, World, one_at_a_time, world};

#[tokio::test]
async fn sites_are_told_one_after_the_other() {
    let mut world = world(one_at_a_time()).await;
    world.function("better").await;
    world.settle(usize::MAX).await;
    assert_eq!(world.running("better"), ["a"]);
    assert_eq!(world.progressing(), ("RollingOut".into(), "revision 2; waits for a".into()));
    world.pass(1).await;
    assert_eq!(world.running("better"), ["a", "b"]);
    world.pass(5).await;
    assert_eq!(world.running("better").len(), 5);
    assert_eq!(world.progressing(), ("Complete".into(), "sites run revision 2".into()));
    let revisions: Vec<ApplicationRevision> = world.all();
    assert_eq!(revisions.len(), 2);
    assert!(revisions.iter().all(|revision| revision.status.succeeded.is_some()));
}

#[tokio::test]
async fn promise_4_a_bad_version_stops_within_its_budget_and_is_gone_back_from() {
    let mut world = world(one_at_a_time()).await;
    let untouched: Assignment = world.read("c", "work.app.default").unwrap();
    world.function("bad").await;
    world.pass(10).await;
    assert_eq!(world.running("bad"), [""; 0]);
    let rollout = world.rollout();
    let rejected = rollout.rejected.clone().unwrap();
    assert_eq!((rollout.number, rollout.complete), (1, true));
    assert_eq!(
        (rejected.reason.as_str(), rejected.message.as_str()),
        ("FailureBudgetExceeded", "1 site failed, and 0 may: b")
    );
    let (reason, message) = world.progressing();
    assert_eq!(reason, "RolledBack");
    assert_eq!(message, "sites run revision 1; revision 2 was gone back from: 1 site failed, and 0 may: b");
    let now: Assignment = world.read("c", "work.app.default").unwrap();
    assert_eq!(now, untouched, "those behind it were never touched");

    // It stays gone back from, until the manifests say something else.
    world.pass(100).await;
    assert_eq!(world.running("good").len(), 5);
    world.function("better").await;
    world.pass(10).await;
    assert_eq!(world.running("better").len(), 5);
    assert_eq!((world.rollout().number, world.rollout().rejected), (3, None));
}

#[tokio::test]
async fn promise_4_a_hub_that_is_killed_after_any_write_comes_to_the_same_end() {
    for killed_after in 1..40 {
        let mut world = world(one_at_a_time()).await;
        world.function("bad").await;
        world.settle(killed_after).await;
        world.pass(12).await;
        let rollout = world.rollout();
        assert!(rollout.rejected.is_some(), "killed after {killed_after}: {rollout:?}");
        assert_eq!(world.running("good").len(), 5, "killed after {killed_after}");
        let revisions: Vec<ApplicationRevision> = world.all();
        assert_eq!(revisions.len(), 2);
    }
}

#[tokio::test]
async fn promise_4_sites_that_are_away_cost_nothing_and_follow_when_they_are_back() {
    let mut world = world(one_at_a_time()).await;
    world.mood("a", Mood::Away).await;
    world.function("better").await;
    world.pass(10).await;
    assert_eq!(world.running("good"), ["a"], "nobody tells who can't hear");
    assert_eq!(world.progressing().1, "sites run revision 2; 1 site can't be reached, to follow on return");
    world.pass(1000).await;
    world.mood("a", Mood::Good).await;
    world.pass(2).await;
    assert_eq!(world.running("better").len(), 5);
    assert_eq!(world.rollout().sites.done, 5);
}

#[tokio::test]
async fn promise_4_a_site_that_goes_away_while_it_is_changed_gets_all_its_time_when_it_is_back() {
    let mut world = world(one_at_a_time()).await;
    world.mood("a", Mood::Slow).await;
    world.function("better").await;
    world.pass(5).await;
    world.mood("a", Mood::Away).await;
    world.pass(200).await;
    assert_eq!(world.running("better"), ["b", "c", "d", "e"], "its place is free in the end");
    assert_eq!(world.running("good"), ["a"], "and it has to wait for its turn again");
    assert_eq!(world.rollout().rejected, None);
    world.mood("a", Mood::Slow).await;
    world.pass(20).await;
    assert_eq!(world.running("better").len(), 5);
    assert_eq!(world.rollout().rejected, None, "its deadline begins anew");
    world.mood("a", Mood::Good).await;
    world.pass(2).await;
    assert_eq!(world.rollout().sites.done, 5);
}

#[tokio::test]
async fn a_site_that_takes_too_long_is_a_failure_but_not_while_the_hub_was_down() {
    let mut world = world(one_at_a_time()).await;
    world.mood("a", Mood::Slow).await;
    world.function("better").await;
    world.pass(5).await;
    // The hub is away for an hour.
    world.seconds += 3600;
    world.began = world.seconds;
    world.reader = Reader::default();
    world.pass(20).await;
    assert_eq!(world.rollout().rejected, None);
    world.pass(20).await;
    assert_eq!(world.rollout().rejected.unwrap().message, "1 site failed, and 0 may: a");
}

#[tokio::test]
async fn a_site_that_went_away_with_what_was_gone_back_from_finds_the_good_one() {
    let mut world = world(json!({"type": "Progressive", "maxConcurrency": 2})).await;
    world.function("bad").await;
    world.settle(usize::MAX).await;
    assert_eq!(world.running("bad"), ["a", "b"]);
    world.mood("a", Mood::Away).await;
    world.pass(5).await;
    assert!(world.rollout().rejected.is_some());
    assert_eq!(world.running("good").len(), 5, "although it can't be reached");
}

#[tokio::test]
async fn without_anything_to_go_back_to_it_stops() {
    let mut world = World::new(&SITES).await;
    world.function("bad").await;
    world.application(one_at_a_time()).await;
    world.pass(10).await;
    assert_eq!(world.versions().keys().collect::<Vec<_>>(), ["a", "b"]);
    let expected = "revision 1: 1 site failed, and 0 may: b";
    assert_eq!(world.progressing(), ("FailureBudgetExceeded".into(), expected.into()));
    world.function("good").await;
    world.pass(10).await;
    assert_eq!(world.running("good").len(), 5);
}

#[tokio::test]
async fn a_paused_rollout_tells_no_further_site() {
    let mut world = world(one_at_a_time()).await;
    world.function("better").await;
    world.settle(usize::MAX).await;
    world.application(json!({"type": "Progressive", "maxConcurrency": 1, "paused": true})).await;
    world.pass(20).await;
    assert_eq!(world.running("better"), ["a"]);
    assert_eq!(world.progressing().0, "Paused");
    world.application(one_at_a_time()).await;
    world.pass(6).await;
    assert_eq!(world.running("better").len(), 5);
}

#[tokio::test]
async fn people_promote_abort_and_undo() {
    use types::names::annotation::{ABORT, PROMOTE, UNDO};
    let mut world = world(one_at_a_time()).await;
    world.application(json!({"type": "Progressive", "maxConcurrency": 1, "minSuccessTime": "1h"})).await;
    world.function("better").await;
    world.pass(10).await;
    assert_eq!(world.running("better"), ["a"], "it has to run well for an hour");
    world.annotate(ABORT, "2").await;
    world.pass(3).await;
    assert_eq!(world.running("good").len(), 5);
    assert_eq!(world.rollout().rejected.unwrap().reason, "Aborted");

    // A new word for the same revision, and the old one taken back.
    world.annotate(ABORT, "").await;
    world.annotate(UNDO, "2:2@again").await;
    world.annotate(PROMOTE, "2").await;
    world.pass(3).await;
    assert_eq!(world.running("better").len(), 5);
    assert_eq!(world.rollout().last_good, world.rollout().revision);

    world.annotate(UNDO, "2:1").await;
    world.annotate(PROMOTE, "1").await;
    world.pass(3).await;
    assert_eq!((world.running("good").len(), world.rollout().number), (5, 1));
    world.function("best").await;
    world.annotate(PROMOTE, "3").await;
    world.pass(3).await;
    assert_eq!(world.running("best").len(), 5, "what was undone is no longer what the manifests say");
}

#[tokio::test]
async fn groups_come_in_their_order_and_mandatory_ones_must_not_fail() {
    let rollout = json!({"type": "Progressive", "maxFailures": "100%", "mandatoryGroups": ["canary"], "groups": [
        {"name": "canary", "siteSelector": {"matchLabels": {"canary": "yes"}}}]});
    let mut world = world(rollout).await;
    for name in ["b", "e"] {
        let mut site: Resource<SiteSpec> = world.read("", name).unwrap();
        site.metadata.labels.insert("canary".into(), "yes".into());
        world.put(&site, false).await;
    }
    world.function("bad").await;
    world.settle(usize::MAX).await;
    assert_eq!(world.running("bad"), ["b", "e"]);
    world.pass(5).await;
    let rejected = world.rollout().rejected.unwrap();
    assert_eq!(rejected.message, "1 site failed in mandatory group `canary`, and 0 may: b");
    assert_eq!(world.running("good").len(), 5);
}

#[tokio::test]
async fn sites_are_changed_in_their_maintenance_windows_only_and_never_if_they_opted_out() {
    let mut world = world(json!({"type": "All"})).await;
    let window = json!([{"start": "01:00", "duration": "1h"}]);
    world.apply("site", "a", json!({"tier": "edge", "maintenance": window})).await;
    world.apply("site", "b", json!({"tier": "edge", "rolloutOptOut": true})).await;
    let mut c: Resource<SiteSpec> = world.read("", "c").unwrap();
    c.status.rollout_opt_out = true;
    world.put(&c, true).await;
    world.function("better").await;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["a", "b", "c"]);
    assert_eq!(world.progressing().1, "sites run revision 2; 3 sites not to be changed now");
    world.seconds = 3600;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["b", "c"]);
}

#[tokio::test]
async fn a_model_changes_without_its_function_and_a_pinned_version_stays() {
    let mut world = World::new(&[("a", Mood::Good)]).await;
    world.function("good").await;
    let versions = |names: &[&str]| -> Value {
        let version = |name: &&str| json!({"name": name, "artifact": {"digest": Digest::of(name.as_bytes()), "size": 1}});
        json!({"versions": names.iter().map(version).collect::<Vec<_>>()})
    };
    world.apply("model", "m", versions(&["1"])).await;
    let component = |name: &str, model: &str| json!({"name": name, "placement": "edges", "function": "f", "models": [model]});
    let components = json!([component("floats", "m"), component("pins", "m@1")]);
    world.apply("application", "app", json!({"components": components})).await;
    world.pass(3).await;
    let read = |world: &World, name: &str| -> Assignment { world.read("a", name).unwrap() };
    let (floats, pins) = (read(&world, "floats.app.default"), read(&world, "pins.app.default"));
    assert!(pins.spec.models[0].pinned && !floats.spec.models[0].pinned);

    world.apply("model", "m", versions(&["1", "2"])).await;
    world.pass(3).await;
    let now = read(&world, "floats.app.default");
    assert_eq!(now.spec.models[0].spec.default_version(), Some("2"));
    assert_eq!(now.spec.function, floats.spec.function);
    assert_eq!(now.metadata.generation, 2);
    let now = read(&world, "pins.app.default");
    assert_eq!((now.metadata.generation, &now.spec), (1, &pins.spec), "it was not told of anything");

    // A version that is gone stays where it is pinned.
    world.apply("model", "m", versions(&["2"])).await;
    world.pass(3).await;
    assert_eq!(read(&world, "pins.app.default").spec, pins.spec);
}

#[tokio::test]
async fn promise_1_what_is_deleted_by_mistake_stays_as_it_was() {
    let mut world = world(one_at_a_time()).await;
    let key = Key::new("functions", "default", "f");
    world.store.delete(key, store::Deletion::at(at(0))).await.unwrap();
    world.pass(5).await;
    assert_eq!(world.running("good").len(), 5);
    assert_eq!(world.rollout().number, 1);
}

#[tokio::test]
async fn assignments_of_an_older_hub_are_adopted_as_they_are() {
    let mut world = world(one_at_a_time()).await;
    for mut assignment in world.all::<types::AssignmentSpec>() {
        assignment.metadata.labels.remove(types::names::label::REVISION);
        world.put(&assignment, false).await;
    }
    for revision in world.all::<types::ApplicationRevisionSpec>() {
        let key = Key::new("applicationrevisions", "default", revision.name());
        world.store.delete(key, store::Deletion::at(at(0))).await.unwrap();
    }
    let mut app = world.app();
    app.status.rollout = None;
    world.put(&app, true).await;
    let before: Vec<Assignment> = world.all();
    world.pass(3).await;
    let after: Vec<Assignment> = world.all();
    let what = |all: &[Assignment]| -> Vec<_> {
        all.iter().map(|one| (one.metadata.uid.clone(), one.metadata.generation, one.spec.clone())).collect()
    };
    assert_eq!(what(&after), what(&before));
    assert_eq!(world.rollout().sites.done, 5);
}

#[tokio::test]
async fn where_nothing_places_it_any_more_it_goes_last() {
    let mut world = world(one_at_a_time()).await;
    world.apply("site", "z", json!({"tier": "far"})).await;
    world.mood("z", Mood::Slow).await;
    world.apply("placement", "far", json!({"tiers": ["far"]})).await;
    let component = json!({"name": "work", "placement": "far", "function": "f"});
    world.apply("application", "app", json!({"components": [component]})).await;
    world.pass(10).await;
    assert_eq!(world.running("good").len(), 6, "until the new place runs it, the old ones do");
    world.mood("z", Mood::Good).await;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["z"]);
}
