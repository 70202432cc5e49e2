//! What a site may say and read that is a hub itself: its own branch, and nothing else.

use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{ADMIN, Answer, PLANT, TestHub, assignment, manifest, resource};

const CHILDREN: &str = "/avocet/v1/sites/plant/children";
const REPORTS: &str = "/avocet/v1/sites/plant/reports";
const ASSIGNMENTS: &str = "/avocet/v1/sites/plant/assignments";

fn child(name: &str, parent: &str) -> Value {
    json!({"name": name, "labels": {"line": "3"}, "spec": {"tier": "line", "parent": parent}})
}

impl TestHub {
    async fn tell(&self, children: &[Value]) -> Value {
        self.ask_json("POST", CHILDREN, PLANT, &json!({"children": children})).await.expect(200)
    }

    /// Why a site is refused; empty if it is taken.
    async fn refusal(&self, child: Value) -> String {
        let answer = self.tell(&[child]).await;
        answer["refused"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }

    async fn assign(&self, site: &str, name: &str) -> Value {
        self.post(&format!("namespaces/{site}/assignments"), &assignment(name)).await.expect(201)
    }

    async fn report(&self, site: &str, assigned: &Value, message: &str) -> Answer {
        let condition = json!({
            "type": "Available", "status": "True", "reason": "Running", "message": message,
            "observedGeneration": 1, "lastTransitionTime": "2030-01-01T00:00:00Z",
        });
        let report = json!({
            "site": site, "name": "a", "uid": assigned["metadata"]["uid"],
            "status": {"conditions": [condition], "observedGeneration": 1},
        });
        self.ask_json("POST", REPORTS, PLANT, &json!({"reports": [report]})).await
    }
}

#[tokio::test]
async fn a_hub_below_makes_the_sites_of_its_branch_known_and_takes_them_away_again() {
    let hub = TestHub::start().await;
    let told = hub.tell(&[child("line", "plant"), child("camera", "line")]).await;
    assert_eq!(told, json!({"created": ["line", "camera"], "refused": []}));
    let camera = hub.get("sites/camera").await.expect(200);
    assert_eq!(camera["spec"]["parent"], "line");
    let labels = json!({"line": "3", "avocet.dev/via": "plant"});
    assert_eq!(camera["metadata"]["labels"], labels);
    assert_eq!(camera["metadata"]["ownerReferences"][0]["name"], "line");
    let again = hub.tell(&[child("line", "plant")]).await;
    assert_eq!(again["created"], json!([]));
    let gone = json!({"gone": ["camera", "shop", "plant", "cloud", "nowhere"]});
    hub.ask_json("POST", CHILDREN, PLANT, &gone).await.expect(200);
    hub.get("sites/camera").await.expect(404);
    for other in ["sites/line", "sites/shop", "sites/plant"] {
        hub.get(other).await.expect(200);
    }
    // It may come again: the namespace that it left is its own.
    assert_eq!(hub.refusal(child("camera", "plant")).await, "");
}

#[tokio::test]
async fn a_hub_below_can_not_claim_what_is_not_of_its_branch() {
    let hub = TestHub::start().await;
    hub.create_namespace("team").await;
    assert_eq!(hub.refusal(child("shop", "plant")).await, "NameTaken");
    assert_eq!(hub.refusal(child("cloud", "plant")).await, "NameTaken", "the hub itself");
    for namespace in ["team", "default", "kube-system"] {
        assert_eq!(hub.refusal(child(namespace, "plant")).await, "NamespaceTaken");
    }
    for parent in ["shop", "cloud", "", "nowhere", "line"] {
        assert_eq!(hub.refusal(child("line", parent)).await, "UnknownParent");
    }
    for name in ["", "Line", "../plant", "a.b"] {
        assert_eq!(hub.refusal(child(name, "plant")).await, "Invalid", "{name:?}");
    }
    let mut bad = child("line", "plant");
    bad["labels"] = json!({"no label": "x"});
    assert_eq!(hub.refusal(bad).await, "Invalid");
    // Labels of hubs are theirs: nobody gets into another branch by one.
    let mut sly = child("line", "plant");
    sly["labels"] = json!({"avocet.dev/via": "shop", "avocet.dev/tier": "cloud"});
    assert_eq!(hub.refusal(sly).await, "");
    let seen = hub.get("sites/line").await.expect(200);
    assert_eq!(seen["metadata"]["labels"], json!({"avocet.dev/via": "plant"}));

    // Nor speak for another, nor do what is an admin's.
    for path in ["children", "reports"] {
        let path = format!("/avocet/v1/sites/shop/{path}");
        hub.ask_json("POST", &path, PLANT, &json!({"children": [], "reports": []})).await.expect(403);
    }
    hub.ask_json("GET", "/avocet/v1/sites/shop/assignments", PLANT, &Value::Null).await.expect(403);
    for (method, path) in
        [("PUT", "sites/line"), ("DELETE", "sites/line"), ("GET", "namespaces/line/assignments")]
    {
        let path = crate::support::resource(path);
        hub.ask_json(method, &path, PLANT, &manifest("Site", "line", json!({"tier": "x"}))).await.expect(403);
    }
    let secrets = "/api/v1/namespaces/line/secrets";
    hub.ask_json("GET", secrets, PLANT, &Value::Null).await.expect(403);
}

#[tokio::test]
async fn what_is_changed_here_of_a_site_below_stays_until_the_hub_below_changes_the_same() {
    let hub = TestHub::start().await;
    hub.tell(&[child("line", "plant")]).await;
    let patch = json!({"metadata": {"labels": {"line": "x", "own": "y"}}, "spec": {"unschedulable": true}});
    hub.merge_patch("sites/line", &patch).await.expect(200);
    let mut told = child("line", "plant");
    told["spec"]["location"] = json!("hall-2");
    hub.tell(&[told.clone()]).await;
    let seen = hub.get("sites/line").await.expect(200);
    assert_eq!(
        (&seen["metadata"]["labels"]["line"], &seen["metadata"]["labels"]["own"]),
        (&json!("x"), &json!("y"))
    );
    assert_eq!((&seen["spec"]["unschedulable"], &seen["spec"]["location"]), (&json!(true), &json!("hall-2")));
    told["labels"] = json!({"line": "4"});
    hub.tell(&[told.clone()]).await;
    told["labels"] = json!({});
    let labels = hub.get("sites/line").await.expect(200)["metadata"]["labels"].clone();
    assert_eq!(labels["line"], "4");
    hub.tell(&[told]).await;
    let labels = hub.get("sites/line").await.expect(200)["metadata"]["labels"].clone();
    assert_eq!((labels.get("line"), &labels["own"]), (None, &json!("y")));
}

#[tokio::test]
async fn assignments_of_the_branch_alone_are_read_and_reported_on() {
    let hub = TestHub::start().await;
    hub.tell(&[child("line", "plant")]).await;
    let (mine, others) = (hub.assign("line", "a").await, hub.assign("shop", "a").await);
    let request = hub.http.get(format!("{}{ASSIGNMENTS}", hub.url)).bearer_auth(PLANT);
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut changes = Box::pin(avocet_api::client::changes(response));
    let mut next = async || {
        let change = changes.next().await.unwrap().unwrap();
        let metadata = &change.object["metadata"];
        (change.kind, metadata["namespace"].clone(), metadata["name"].clone())
    };
    let is = |kind: &str, site: &str, name: &str| (kind.to_owned(), json!(site), json!(name));
    assert_eq!(next().await, is("ADDED", "line", "a"));
    assert_eq!(next().await.0, "BOOKMARK");
    hub.assign("shop", "b").await;
    hub.tell(&[child("camera", "line")]).await;
    hub.assign("camera", "b").await;
    assert_eq!(next().await, is("ADDED", "camera", "b"), "of a site that is new, too");
    // A site that is gone must not hide what goes with it.
    hub.ask_json("POST", CHILDREN, PLANT, &json!({"gone": ["camera"]})).await.expect(200);
    hub.delete("namespaces/camera/assignments/b").await.expect(200);
    assert_eq!(next().await, is("DELETED", "camera", "b"));

    let written = hub.report("line", &mine, "works").await.expect(200);
    assert_eq!(written["unknown"], json!([]));
    let seen = hub.get("namespaces/line/assignments/a").await.expect(200);
    assert_eq!(seen["status"]["conditions"][0]["message"], "works");
    let written = hub.report("shop", &others, "lies").await.expect(200);
    assert_eq!(written["unknown"], json!([["shop", "a"]]));
    let seen = hub.get("namespaces/shop/assignments/a").await.expect(200);
    assert_eq!(seen["status"].get("conditions").unwrap_or(&json!([])), &json!([]));
    let written = hub.report("line", &others, "of one that is gone").await.expect(200);
    assert_eq!(written["unknown"], json!([["line", "a"]]));
    let seen = hub.get("namespaces/line/assignments/a").await.expect(200);
    assert_eq!(seen["status"]["conditions"][0]["message"], "works");
}

#[tokio::test]
async fn a_hub_below_sends_what_a_site_of_its_branch_makes_and_takes_what_is_for_one() {
    let hub = TestHub::start().await;
    hub.tell(&[child("line", "plant")]).await;
    let digest = types::Digest::of(b"picture");
    let send = async |site: &str, key: &str| {
        let path = format!(
            "/avocet/v1/mailbox/{site}/{}?bucket=photos&key={key}&digest={digest}",
            key.replace('/', "-")
        );
        hub.ask("PUT", &path, PLANT, "application/octet-stream", b"picture".to_vec()).await
    };
    send("shop", "out/1").await.expect(403);
    hub.assign("line", "a").await;
    send("shop", "out/1").await.expect(204);
    send("nowhere", "out/1").await.expect(404);
    send("line", "out/2").await.expect(204);
    let waiting = hub.ask_json("GET", "/avocet/v1/mailbox/plant", PLANT, &Value::Null).await.expect(200);
    let delivery = &waiting["deliveries"][0];
    assert_eq!((&delivery["site"], &delivery["key"]), (&json!("line"), &json!("out/2")));
    let waiting = hub.ask_json("GET", "/avocet/v1/mailbox/shop", ADMIN, &Value::Null).await.expect(200);
    assert_eq!(waiting["deliveries"][0].get("site"), None, "{waiting}");
}

#[tokio::test]
async fn a_hub_below_says_of_itself_what_is_its_own_to_say() {
    let hub = TestHub::start().await;
    let taint = json!({"key": "avocet.dev/hub-alone", "effect": "NoSelect"});
    let itself = json!({
        "name": "plant", "labels": {"country": "fi"},
        "spec": {"tier": "elsewhere", "parent": "shop", "taints": [taint]},
    });
    assert_eq!(hub.refusal(itself).await, "");
    let seen = hub.get("sites/plant").await.expect(200);
    assert_eq!((&seen["spec"]["tier"], seen["spec"].get("parent")), (&json!("edge"), None));
    assert_eq!(seen["spec"]["taints"][0]["key"], "avocet.dev/hub-alone");
    assert_eq!(seen["metadata"]["labels"], json!({"country": "fi"}));
    assert_eq!(seen["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn what_a_site_reports_first_is_noted_by_the_hubs_clock_in_the_same_write() {
    let started = daemon::now();
    let hub = TestHub::start().await;
    hub.tell(&[child("line", "plant")]).await;
    for (site, relayed) in [("plant", false), ("line", true)] {
        let (assigned, path) = (hub.assign(site, "a").await, format!("namespaces/{site}/assignments/a"));
        let note = async |progress: Value| {
            let key = store::Key::new("assignments", site, "a");
            let mut known = hub.hub.store.get(&key).unwrap().manifest();
            known["status"]["progress"] = progress;
            hub.hub.store.update(key, known, true).await.unwrap();
        };
        note(json!({"state": "ToApply", "generation": 1, "since": "2000-01-01T00:00:00Z"})).await;
        let report = async || {
            if relayed {
                hub.report(site, &assigned, "works").await.expect(200);
            } else {
                let condition = json!({"type": "Available", "status": "True", "reason": "Running", "message": "",
                    "observedGeneration": 1, "lastTransitionTime": "2030-01-01T00:00:00Z"});
                let status = json!({"status": {"conditions": [condition], "observedGeneration": 1}});
                let (path, kind) = (resource(&format!("{path}/status")), "application/merge-patch+json");
                hub.ask("PATCH", &path, PLANT, kind, status.to_string().into_bytes()).await.expect(200);
            }
            hub.get(&path).await.expect(200)
        };
        let before = hub.get(&path).await.expect(200);
        assert_eq!(before["status"]["progress"]["state"], "ToApply");
        let first = report().await;
        let noted = &first["status"]["progress"];
        assert_eq!((&noted["state"], &noted["generation"]), (&json!("Succeeded"), &json!(1)), "{first}");
        let since: types::Time = serde_json::from_value(noted["since"].clone()).unwrap();
        let later = since.0.duration_since(started.0).as_secs();
        assert!((-1..60).contains(&later), "{since} is not by the hub's clock");
        // What ran already is for controllers to judge: they may know better. Nobody else says how far a site is.
        let mut failed = first["status"]["progress"].clone();
        failed["state"] = json!("Failed");
        note(failed.clone()).await;
        assert_eq!(report().await["status"]["progress"], failed);
        let claimed =
            json!({"status": {"progress": {"state": "Succeeded", "since": "2000-01-01T00:00:00Z"}}});
        for claim in [claimed, json!({"status": {"progress": null}}), json!({"status": null})] {
            hub.merge_patch(&format!("{path}/status"), &claim).await;
            assert_eq!(hub.get(&path).await.expect(200)["status"]["progress"], failed, "{claim}");
        }
    }
}
