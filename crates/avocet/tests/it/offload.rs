//! Work of a busy site that others do, over real processes that die, freeze and come back.

use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};

use crate::support::{
    application, apply, function, invocations_of, list, placement, put, tree, wait_for_object,
};

/// Says who it was, after the time that its site needs: that of `b` as the test says, the others' two seconds.
fn at_its_pace(seconds_at_b: u32) -> String {
    format!(
        r#"
name=$(basename "$INPUT_FILE_PATH")
echo "$AVOCET_SITE" > "$TMP_OUTPUT_DIR/$name.half"
echo "begins at $AVOCET_SITE"
if [ "$AVOCET_SITE" = b ]; then sleep {seconds_at_b}; else sleep 2; fi
rm "$TMP_OUTPUT_DIR/$name.half"
echo "$(cat "$INPUT_FILE_PATH") at $AVOCET_SITE" > "$TMP_OUTPUT_DIR/$name"
"#
    )
}

/// A hub, and below it the site `a`, which runs one thing at a time, and `b`, which runs nothing of its own.
pub struct Neighbours {
    tree: Tree,
    pub hub: Hub,
    pub a: Site,
    pub b: Site,
}

impl Neighbours {
    /// With what the component says of offloading; null for nothing.
    fn start(seconds_at_b: u32, offload: &Value, further_of_b: &[&str]) -> Self {
        let tree = tree();
        let hub = tree.hub("cloud");
        let a = tree.site(&hub, "a", &[]);
        let b = tree.site(&hub, "b", &[&["--tier", "helper"], further_of_b].concat());
        Self::of(tree, hub, a, b, seconds_at_b, offload)
    }

    /// The same on machines of their own, the hub's first; theirs are the folders, which have to stay.
    pub fn on_machines(
        [first, second, third]: [Tree; 3],
        seconds_at_b: u32,
        offload: &Value,
    ) -> (Self, [Tree; 2]) {
        let hub = first.hub("cloud");
        let a = second.site(&hub, "a", &[]);
        let b = third.site(&hub, "b", &["--tier", "helper"]);
        (Self::of(first, hub, a, b, seconds_at_b, offload), [second, third])
    }

    fn of(tree: Tree, hub: Hub, a: Site, b: Site, seconds_at_b: u32, offload: &Value) -> Self {
        let file = tree.write("functions/work.sh", at_its_pace(seconds_at_b));
        let mut component = json!({
            "name": "work", "placement": "edge", "function": "work",
            "inputs": [{"path": "jobs/in"}], "outputs": [{"path": "jobs/out"}],
        });
        if !offload.is_null() {
            component["offload"] = offload.clone();
        }
        let app = application("jobs", &json!([component]));
        apply(&tree, &hub, &[placement("edge"), function("work", &file), app]);
        hub.wait_until_ready("jobs");
        wait_until("all sites are heard", LIMIT, || {
            let sites = hub.cli(&["get", "sites", "-o", "json"]).json();
            let ready = |site: &Value| site["status"]["conditions"][0]["status"] == "True";
            let all = sites["items"].as_array().unwrap();
            if all.len() == 3 && all.iter().all(ready) { Ok(()) } else { Err(sites.to_string()) }
        });
        Self { tree, hub, a, b }
    }

    pub fn put(&self, count: usize) -> Vec<String> {
        let names: Vec<String> = (0..count).map(|number| format!("{number}.txt")).collect();
        for name in &names {
            put(&self.tree, &self.a, &format!("jobs/in/{name}"), &format!("job {name}"));
        }
        names
    }

    /// Waits until all jobs are done; answers where each ran, by what it wrote.
    pub fn wait_for_all(&self, names: &[String]) -> Vec<String> {
        let ran: Vec<String> = names
            .iter()
            .map(|name| {
                let content = wait_for_object(&self.tree, &self.a, &format!("jobs/out/{name}"));
                content
                    .strip_prefix(&format!("job {name} at "))
                    .unwrap_or_else(|| panic!("{content}"))
                    .to_owned()
            })
            .collect();
        wait_until("all invocations are recorded as done", LIMIT, || {
            let all = self.a.invocations();
            if all.iter().all(|one| one["state"] == "Succeeded") { Ok(()) } else { Err(format!("{all:?}")) }
        });
        ran
    }

    /// Every job once: one invocation and one output, which lie where they would without offloading.
    pub fn assert_once(&self, names: &[String], ran: &[String]) {
        assert_eq!(list(&self.a, "jobs/out/").len(), names.len());
        for (name, ran) in names.iter().zip(ran) {
            let invocations = invocations_of(&self.a, &format!("in/{name}"));
            assert_eq!(invocations.len(), 1, "{name}");
            let told = invocations[0]["ranAt"].as_str().unwrap_or("a");
            assert_eq!(told, ran, "{name}: {:?}", invocations[0]);
            assert_eq!(invocations[0]["site"], "a");
        }
        assert_eq!(self.a.invocations().len(), names.len());
        assert_eq!(self.b.invocations(), [] as [Value; 0], "what runs for others is none of b's own");
    }

    /// Waits until `b` is in the middle of a job of `a`; answers its invocation.
    pub fn wait_until_b_works(&self) -> Value {
        wait_until("b is in the middle of a job", LIMIT, || {
            let works = std::fs::read_dir(self.b.data().join("work")).unwrap();
            let half = works.filter_map(|work| std::fs::read_dir(work.unwrap().path().join("out")).ok());
            let is_working = half.flatten().count() > 0;
            let all = self.a.invocations();
            let found = all.iter().find(|one| one["state"] == "Offloaded").cloned();
            found.filter(|_| is_working).ok_or_else(|| format!("{all:?}"))
        })
    }
}

/// A number that a site tells of itself; 0 for what it doesn't tell.
fn metric(site: &Site, series: &str) -> u64 {
    let url = format!("{}/metrics", site.access("inference"));
    let (code, text) = crate::support::http("GET", &url, "", &Value::Null).unwrap();
    assert_eq!(code, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn a_full_site_shares_a_burst_and_every_output_appears_once_where_it_belongs() {
    let all = Neighbours::start(2, &json!({"to": ["Neighbours"], "patienceSeconds": 10}), &[]);
    let names = all.put(6);
    let ran = all.wait_for_all(&names);
    assert!(ran.iter().any(|site| site == "b") && ran.iter().any(|site| site == "a"), "{ran:?}");
    assert!(ran.iter().all(|site| site != "cloud"), "only neighbours may be asked: {ran:?}");
    all.assert_once(&names, &ran);
    let away = ran.iter().filter(|site| *site == "b").count() as u64;
    assert_eq!(metric(&all.a, "avocet_offload_returned_total"), away);
    assert_eq!(metric(&all.b, "avocet_offload_accepted_total"), away);
    assert_eq!(metric(&all.b, "avocet_offload_done_total"), away);

    // People see where it ran, what it said, and how many there were.
    let done = all.a.invocations();
    let there = done.iter().find(|one| one["ranAt"] == "b").unwrap();
    let id = there["id"].as_str().unwrap();
    assert!(all.a.cli(&["logs", id]).ok().contains("begins at b"));
    assert!(all.a.cli(&["get", "invocations"]).ok().contains("a, at b"));
    wait_until("the application tells how many ran elsewhere", LIMIT, || {
        let seen = all.hub.cli(&["get", "application", "jobs", "-o", "json"]).json();
        let counts = &seen["status"]["invocations"];
        if counts["offloaded"] == away && counts["succeeded"] == 6 { Ok(()) } else { Err(counts.to_string()) }
    });
}

#[test]
fn promise_3_kill_9_of_the_site_that_took_jobs_loses_none_and_a_full_one_takes_no_more() {
    let mut all = Neighbours::start(300, &json!({"to": ["Neighbours"], "patienceSeconds": 2}), &[]);
    let names = all.put(5);
    all.wait_until_b_works();
    wait_until("b refuses, for it has one job at work and one that waits", LIMIT, || {
        let full = metric(&all.b, "avocet_offload_refused_total{reason=\"Full\"}");
        let taken = metric(&all.b, "avocet_offload_accepted_total");
        if full > 0 && taken > 0 { Ok(()) } else { Err(format!("{full}, {taken}")) }
    });
    assert!(metric(&all.b, "avocet_offload_accepted_total") <= 2);
    all.b.kill_9();
    let ran = all.wait_for_all(&names);
    assert!(ran.iter().all(|site| site == "a"), "{ran:?}");
    assert!(metric(&all.a, "avocet_offload_reclaimed_total") > 0);

    // Back again, it begins anew, and hears that nobody waits.
    let before = list(&all.a, "jobs/out/");
    all.b.restart();
    wait_until("b has nothing of a's any more", LIMIT, || {
        let left = std::fs::read_dir(all.b.data().join("work")).unwrap().count();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    });
    all.assert_once(&names, &ran);
    assert_eq!(list(&all.a, "jobs/out/"), before);
}

#[test]
fn promise_3_kill_9_of_the_site_that_handed_jobs_over_neither_loses_nor_repeats_them() {
    let mut all =
        Neighbours::start(6, &json!({"to": ["Neighbours"], "patienceSeconds": 60, "marginPercent": 0}), &[]);
    let names = all.put(5);
    let away = all.wait_until_b_works();
    all.a.kill_9();
    all.a.restart();
    let ran = all.wait_for_all(&names);
    assert!(ran.iter().any(|site| site == "b"), "the result of {away} was taken: {ran:?}");
    all.assert_once(&names, &ran);
    let same = all.a.invocations().into_iter().find(|one| one["id"] == away["id"]).unwrap();
    assert_eq!((&same["ranAt"], &same["handovers"]), (&json!("b"), &json!(1)));
    assert_eq!(metric(&all.a, "avocet_offload_reclaimed_total"), 0);
}

#[test]
fn promise_3_the_result_of_a_site_that_was_given_up_is_dropped() {
    let all =
        Neighbours::start(4, &json!({"to": ["Neighbours"], "patienceSeconds": 2, "marginPercent": 0}), &[]);
    let names = all.put(3);
    all.wait_until_b_works();
    all.b.process.signal("STOP");
    let ran = all.wait_for_all(&names);
    let taken_back = metric(&all.a, "avocet_offload_reclaimed_total");
    assert!(taken_back > 0, "{ran:?}");
    let before = list(&all.a, "jobs/out/");
    all.b.process.signal("CONT");
    wait_until("b's attempts came to nothing", LIMIT, || {
        let dropped = metric(&all.a, "avocet_offload_dropped_total");
        let called_off = metric(&all.b, "avocet_offload_given_up_total");
        let left = std::fs::read_dir(all.b.data().join("work")).unwrap().count();
        if dropped + called_off >= taken_back && left == 0 {
            Ok(())
        } else {
            Err(format!("{dropped} dropped, {called_off} called off, {left} left"))
        }
    });
    assert_eq!(list(&all.a, "jobs/out/"), before, "nothing was published again");
    all.assert_once(&names, &ran);
}

#[test]
fn nothing_leaves_a_site_whose_component_does_not_say_so() {
    let all = Neighbours::start(2, &Value::Null, &[]);
    let names = all.put(3);
    let ran = all.wait_for_all(&names);
    assert_eq!(ran, ["a", "a", "a"]);
    all.assert_once(&names, &ran);
    assert_eq!(metric(&all.a, "avocet_offload_handed_over_total"), 0);
    assert_eq!(metric(&all.b, "avocet_offload_accepted_total"), 0);
}

#[test]
fn a_site_whose_operator_refuses_is_handed_nothing_and_the_parent_takes_it() {
    let offload = json!({"patienceSeconds": 10});
    let all = Neighbours::start(2, &offload, &["--refuse-offloads"]);
    let names = all.put(5);
    let ran = all.wait_for_all(&names);
    assert!(ran.iter().all(|site| site != "b"), "{ran:?}");
    assert!(ran.iter().any(|site| site == "cloud"), "{ran:?}");
    all.assert_once(&names, &ran);
    assert!(metric(&all.a, "avocet_offload_refused_by_others_total{reason=\"Unwilling\"}") > 0);
}
