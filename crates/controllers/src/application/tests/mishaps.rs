//! Rollouts while sites come, go, fail, fall silent, and while people change their minds.

use serde_json::{Value, json};

use super::world::{Mood, SITES, World, one_at_a_time, world};
use crate::snapshot::Reader;

#[tokio::test]
async fn promise_4_failures_count_until_a_revision_has_been_everywhere() {
    for held in [true, false] {
        let mut world = world(one_at_a_time()).await;
        let opt_out = |is_out: bool| json!({"tier": "edge", "rolloutOptOut": is_out});
        if held {
            world.apply("site", "b", opt_out(true)).await;
        } else {
            world.mood("b", Mood::Away).await;
        }
        world.function("bad").await;
        world.pass(10).await;
        let rollout = world.rollout();
        assert!(rollout.complete && rollout.last_good != rollout.revision, "{rollout:?}");
        assert_eq!(world.running("bad").len(), 4);
        if held {
            world.apply("site", "b", opt_out(false)).await;
        } else {
            world.mood("b", Mood::Picky).await;
        }
        world.pass(10).await;
        assert_eq!(world.rollout().rejected.unwrap().message, "1 site failed, and 0 may: b");
        assert_eq!(world.running("good").len(), 5);
    }
}

#[tokio::test]
async fn promise_4_what_was_through_is_gone_back_to_although_a_site_was_away() {
    let mut world = world(one_at_a_time()).await;
    world.mood("e", Mood::Away).await;
    world.function("better").await;
    world.pass(10).await;
    assert!(world.rollout().complete);
    world.function("bad").await;
    world.pass(10).await;
    assert_eq!(world.rollout().number, 2);
    assert_eq!(world.running("better"), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn promise_4_a_failure_counts_also_while_its_site_is_silent() {
    let mut world = world(json!({"type": "Progressive", "maxConcurrency": 1, "maxFailures": 1})).await;
    world.mood("a", Mood::Picky).await;
    world.function("bad").await;
    world.pass(1).await;
    world.mood("a", Mood::Away).await;
    world.pass(5).await;
    assert_eq!(world.rollout().rejected.unwrap().message, "2 sites failed, and 1 may: a, b");
}

/// A placement that takes one of the sites with a label.
async fn on_one_site(rollout: Value) -> World {
    let mut world = World::new(&SITES).await;
    world.label("a", "work", "yes").await;
    let spec = json!({"numberOfSites": 1, "siteSelector": {"matchLabels": {"work": "yes"}}});
    world.apply("placement", "edges", spec).await;
    world.function("good").await;
    world.application(rollout).await;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["a"]);
    world
}

#[tokio::test]
async fn promise_1_what_moves_runs_at_its_old_site_until_the_new_one_runs_it() {
    for mood in [Mood::Slow, Mood::Away, Mood::Picky] {
        let mut world = on_one_site(json!({"type": "All"})).await;
        world.mood("c", mood).await;
        world.label("a", "work", "no").await;
        world.label("c", "work", "yes").await;
        // It is selected while it is heard, and told at once.
        world.mood("c", if mood == Mood::Away { Mood::Slow } else { mood }).await;
        world.settle(usize::MAX).await;
        world.mood("c", mood).await;
        if mood == Mood::Picky {
            world.function("bad").await;
        }
        world.pass(20).await;
        assert!(world.running("good").contains(&"a".to_owned()), "{mood:?}");
        world.function("good").await;
        world.mood("c", Mood::Good).await;
        world.pass(5).await;
        assert_eq!(world.running("good"), ["c"], "{mood:?}");
    }
}

#[tokio::test]
async fn promise_1_what_moves_while_its_rollout_is_paused_stays_where_it_runs() {
    let mut world = on_one_site(json!({"type": "All"})).await;
    world.application(json!({"type": "All", "paused": true})).await;
    world.label("a", "work", "no").await;
    world.label("c", "work", "yes").await;
    world.pass(5).await;
    assert_eq!(world.running("good"), ["a"]);
    world.application(json!({"type": "All"})).await;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["c"]);
}

#[tokio::test]
async fn maintenance_windows_follow_the_clock_that_people_set_and_rollouts_the_one_that_nobody_sets() {
    let mut world = world(one_at_a_time()).await;
    world.application(json!({"type": "Progressive", "minSuccessTime": "1h"})).await;
    world.pass_long(3601).await;
    let window = json!([{"start": "03:00", "duration": "1h"}]);
    world.apply("site", "a", json!({"tier": "edge", "maintenance": window})).await;
    world.function("better").await;
    world.pass(3).await;
    assert_eq!(world.running("good"), ["a"], "its window is closed");
    world.set_by = 7200;
    world.pass(3).await;
    assert_eq!(world.running("better").len(), 5, "the clock was set to within its window");
    assert_eq!(world.rollout().sites.soaking, 5, "nothing soaked longer for that");
}

#[tokio::test]
async fn a_hub_whose_clock_was_set_back_gives_sites_their_time_and_no_more() {
    let mut world = world(one_at_a_time()).await;
    world.mood("a", Mood::Slow).await;
    world.function("better").await;
    world.pass(5).await;
    // A new hub, the clock of which is an hour behind that of the one before.
    world.seconds -= 3600;
    world.began = world.seconds;
    world.reader = Reader::default();
    world.pass(20).await;
    assert_eq!(world.rollout().rejected, None);
    world.pass(20).await;
    assert_eq!(world.rollout().rejected.unwrap().message, "1 site failed, and 0 may: a");
}

#[tokio::test]
async fn numbers_of_revisions_never_repeat_and_what_is_wanted_stays_with_a_history_of_one() {
    use types::names::annotation::UNDO;
    let limit = json!({"type": "All", "revisionHistoryLimit": 1});
    let mut world = world(limit).await;
    world.function("better").await;
    world.pass(3).await;
    world.function("best").await;
    world.pass(3).await;
    assert_eq!(world.rollout().number, 3);
    let numbers = |world: &World| -> Vec<i64> {
        let mut numbers: Vec<i64> = world
            .all::<types::ApplicationRevisionSpec>()
            .iter()
            .map(|revision| revision.spec.number)
            .collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&world), [3]);
    // The manifests say what they said before.
    world.function("better").await;
    world.pass(3).await;
    assert_eq!((numbers(&world), world.rollout().number), (vec![4], 4));
    world.annotate(UNDO, "5:4").await;
    world.function("best").await;
    world.pass(3).await;
    assert_eq!((numbers(&world), world.rollout().number, world.rollout().wanted), (vec![4, 5], 4, 5));
    assert_eq!(world.running("better").len(), 5);
    world.annotate(UNDO, "").await;
    world.function("better").await;
    world.pass(3).await;
    assert_eq!(numbers(&world), [4]);
    world.function("good").await;
    world.pass(3).await;
    assert_eq!(numbers(&world), [6]);
}

#[tokio::test]
async fn promise_4_going_back_does_not_wait_for_a_pause_to_end() {
    use types::names::annotation::ABORT;
    for aborted in [true, false] {
        let mut world = world(json!({"type": "Progressive", "maxConcurrency": 2})).await;
        world.function("bad").await;
        world.settle(usize::MAX).await;
        world.application(json!({"type": "Progressive", "maxConcurrency": 2, "paused": true})).await;
        if aborted {
            world.annotate(ABORT, "2").await;
        }
        world.pass(5).await;
        assert_eq!(world.running("good").len(), 5);
        assert_eq!(world.progressing().0, "RolledBack");
    }
}

#[tokio::test]
async fn promise_4_sites_that_were_away_are_not_changed_together_when_they_are_back() {
    let mut world = world(one_at_a_time()).await;
    world.function("better").await;
    // Each site falls silent as soon as it is told.
    for (name, _) in SITES {
        world.mood(name, Mood::Slow).await;
    }
    for _ in 0..400 {
        world.pass(1).await;
        if let Some(told) = world.running("better").first() {
            let told = told.clone();
            world.mood(&told, Mood::Away).await;
        }
    }
    for (name, _) in SITES {
        world.mood(name, Mood::Slow).await;
    }
    world.settle(usize::MAX).await;
    assert_eq!(world.running("better").len(), 1);
    for (name, _) in SITES {
        world.mood(name, Mood::Good).await;
    }
    world.pass(10).await;
    assert_eq!(world.running("better").len(), 5);
}

#[tokio::test]
async fn promise_4_a_site_that_leaves_while_it_is_changed_keeps_its_place_until_it_is_through() {
    let mut world = world(one_at_a_time()).await;
    world
        .apply(
            "placement",
            "edges",
            json!({"tiers": ["edge"], "predicates": [
        {"labelSelector": {"matchExpressions": [{"key": "out", "operator": "DoesNotExist"}]}}]}),
        )
        .await;
    world.pass(2).await;
    world.mood("a", Mood::Slow).await;
    world.function("better").await;
    world.settle(usize::MAX).await;
    world.label("a", "out", "yes").await;
    world.pass(5).await;
    assert_eq!(world.running("better"), ["a"]);
    world.mood("a", Mood::Good).await;
    world.pass(8).await;
    assert_eq!(world.running("better"), ["b", "c", "d", "e"]);
}

#[tokio::test]
async fn promise_4_a_revision_of_which_most_invocations_fail_is_gone_back_from() {
    for (succeeded, failed, is_bad) in [(1, 3, true), (3, 1, false)] {
        let mut world = world(one_at_a_time()).await;
        world.application(json!({"type": "Progressive", "maxConcurrency": 1, "minSuccessTime": "1m"})).await;
        world.pass_long(70).await;
        world.invoke("a", 10, 100).await;
        world.pass(2).await;
        assert_eq!(world.rollout().sites.done, 5, "what was proven is not judged any more");
        world.function("better").await;
        world.pass(2).await;
        world.invoke("a", succeeded, failed).await;
        world.pass(3).await;
        assert_eq!(world.rollout().rejected.is_some(), is_bad, "{succeeded} {failed}");
    }
}
