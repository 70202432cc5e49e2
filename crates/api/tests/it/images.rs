//! The registry at `/v2/`: who gets in, and how far.

use reqwest::Method;
use serde_json::{Value, json};
use types::Digest;

use crate::support::{ADMIN, PLANT, TestHub};

const ANNA: &str = "the token of anna, long enough to be one";

impl TestHub {
    /// A request as clients of registries make it: with the token as the password of any user.
    async fn log_in(&self, method: Method, path: &str, token: &str, body: &'static str) -> reqwest::Response {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.basic_auth("whoever", Some(token)).body(body).send().await.unwrap()
    }

    /// Anna, who may push and pull below `team`.
    async fn with_anna() -> Self {
        let hub = Self::start().await;
        let user = avocet_api::authentication::User::new("anna", []);
        hub.hub.tokens.grant(ANNA, user).await.unwrap();
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let verbs = ["delete", "get", "head", "patch", "post", "put"];
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "team-images"},
            "rules": [{"verbs": verbs, "nonResourceURLs": ["/v2/team/*"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "team-images"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "team-images"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "anna"}],
        });
        hub.ask_json("POST", &format!("{rbac}/clusterroles"), ADMIN, &role).await.expect(201);
        hub.ask_json("POST", &format!("{rbac}/clusterrolebindings"), ADMIN, &binding).await.expect(201);
        hub
    }
}

fn upload(repository: &str, content: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(content.as_bytes()))
}

async fn code(response: reqwest::Response) -> String {
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nobody_is_anonymous_and_a_token_is_the_password_of_any_user() {
    let hub = TestHub::start().await;
    let refused = hub.http.get(format!("{}/v2/", hub.url)).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
    assert_eq!(code(refused).await, "UNAUTHORIZED");
    assert_eq!(hub.log_in(Method::GET, "/v2/", "a wrong token", "").await.status(), 401);
    assert_eq!(hub.log_in(Method::GET, "/v2/", ADMIN, "").await.status(), 200);
    hub.ask_json("GET", "/v2/", ADMIN, &Value::Null).await.expect(200);
    let elsewhere = hub.log_in(Method::GET, "/api/v1/namespaces", ADMIN, "").await;
    assert_eq!(elsewhere.status(), 401, "the API itself takes no passwords");
}

#[tokio::test]
async fn rights_are_those_on_paths() {
    let hub = TestHub::with_anna().await;
    assert_eq!(hub.log_in(Method::GET, "/v2/", ANNA, "").await.status(), 200, "who is known may log in");
    for repository in ["team/app", "team"] {
        assert_eq!(hub.log_in(Method::POST, &upload(repository, "x"), ANNA, "x").await.status(), 201);
    }
    assert_eq!(hub.log_in(Method::POST, &upload("teams", "x"), ANNA, "x").await.status(), 403);
    let refused = hub.log_in(Method::POST, &upload("other/app", "x"), ANNA, "x").await;
    assert_eq!(refused.status(), 403);
    assert_eq!(code(refused).await, "DENIED");
    for path in ["/v2/_catalog", "/v2/team%2Fapp/tags/list", "/v2/team/../other/app/tags/list"] {
        assert_ne!(hub.log_in(Method::GET, path, ANNA, "").await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_blob_can_not_be_mounted_from_what_its_taker_may_not_read() {
    let hub = TestHub::with_anna().await;
    assert_eq!(hub.log_in(Method::POST, &upload("secret/app", "s"), ADMIN, "s").await.status(), 201);
    let digest = Digest::of(b"s");
    for from in ["&from=secret/app", ""] {
        let mount = format!("/v2/team/app/blobs/uploads/?mount={digest}{from}");
        assert_eq!(hub.log_in(Method::POST, &mount, ANNA, "").await.status(), 202, "{from}");
    }
    let mount = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=secret/app");
    assert_eq!(hub.log_in(Method::POST, &mount, ADMIN, "").await.status(), 201);
}

#[tokio::test]
async fn sites_pull_and_do_not_push() {
    let hub = TestHub::start().await;
    hub.log_in(Method::POST, &upload("models/iris", "x"), ADMIN, "x").await;
    let path = format!("/v2/models/iris/blobs/{}", Digest::of(b"x"));
    assert_eq!(hub.log_in(Method::GET, &path, PLANT, "").await.text().await.unwrap(), "x");
    assert_eq!(hub.log_in(Method::POST, &upload("models/iris", "y"), PLANT, "y").await.status(), 403);
    assert_eq!(hub.log_in(Method::DELETE, &path, PLANT, "").await.status(), 403);
}

#[tokio::test]
async fn garbage_is_what_no_object_names_and_sites_can_not_collect_it() {
    let hub = TestHub::start().await;
    let (named, unnamed) = (Digest::of(b"named"), Digest::of(b"unnamed"));
    for (digest, content) in [(named, "named"), (unnamed, "unnamed")] {
        let path = format!("/avocet/v1/blobs/{digest}");
        hub.ask("PUT", &path, ADMIN, "application/octet-stream", content.into()).await.expect(200);
    }
    let note = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"text": format!("see {named}")},
    });
    hub.ask_json("POST", "/api/v1/namespaces/default/configmaps", ADMIN, &note).await.expect(201);
    let (path, all) = ("/avocet/v1/artifacts/garbage", json!({"minimumAgeSeconds": 0}));
    hub.ask_json("POST", path, PLANT, &all).await.expect(403);
    let young = hub.ask_json("POST", path, ADMIN, &json!({})).await.expect(200);
    assert_eq!(young["blobs"], 0, "what just came is kept for a day");
    let dry = json!({"minimumAgeSeconds": 0, "dryRun": true});
    assert_eq!(hub.ask_json("POST", path, ADMIN, &dry).await.expect(200)["bytes"], 7);
    assert_eq!(hub.ask_json("POST", path, ADMIN, &all).await.expect(200)["blobs"], 1);
    assert!(hub.hub.blobs.has(&named) && !hub.hub.blobs.has(&unnamed));
}

#[tokio::test]
async fn a_hub_removes_by_itself_what_nothing_has_named_for_a_week() {
    let hub = TestHub::start().await;
    let days = |count: u64| std::time::Duration::from_secs(count * 24 * 3600);
    let put = async |content: &'static [u8], age| {
        let (digest, _) = hub.hub.blobs.put_reader(content).await.unwrap();
        let file = std::fs::File::open(hub.hub.blobs.path(&digest)).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
        digest
    };
    let (assigned, young, old) =
        (put(b"assigned", days(100)).await, put(b"young", days(6)).await, put(b"old", days(8)).await);
    let note = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}, "data": {"text": assigned},
    });
    hub.ask_json("POST", "/api/v1/namespaces/default/configmaps", ADMIN, &note).await.expect(201);
    let every = std::time::Duration::from_millis(5);
    let collecting = avocet_api::collect_garbage_regularly(hub.hub.clone(), every, hub.tasks.shutdown());
    let seen = async {
        while hub.hub.blobs.has(&old) {
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = collecting => panic!("it ended"),
        () = seen => {}
        () = tokio::time::sleep(std::time::Duration::from_secs(20)) => panic!("nothing was removed"),
    }
    assert!(hub.hub.blobs.has(&assigned) && hub.hub.blobs.has(&young));
}

#[tokio::test]
async fn whoever_fetches_an_artifact_learns_the_digests_of_its_pieces() {
    let hub = TestHub::start().await;
    let path = format!("/avocet/v1/blobs/{}", Digest::of(b"x"));
    hub.ask("PUT", &path, ADMIN, "application/octet-stream", b"x".to_vec()).await.expect(200);
    let pieces = hub.ask_json("GET", &format!("{path}/pieces"), PLANT, &Value::Null).await.expect(200);
    assert_eq!(pieces, json!([Digest::of(b"x")]));
    let unknown = format!("/avocet/v1/blobs/{}/pieces", Digest::of(b"y"));
    hub.ask_json("GET", &unknown, PLANT, &Value::Null).await.expect(404);
}

#[tokio::test]
async fn an_artifact_that_a_pusher_found_is_not_taken_for_garbage() {
    let hub = TestHub::start().await;
    let put = async |content: &'static str| {
        let digest = Digest::of(content.as_bytes());
        let path = format!("/avocet/v1/blobs/{digest}");
        hub.ask("PUT", &path, ADMIN, "application/octet-stream", content.into()).await.expect(200);
        let file = std::fs::File::open(hub.hub.blobs.path(&digest)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7200)).unwrap();
        (digest, path)
    };
    let ((found, path), (read, other)) = (put("found").await, put("read").await);
    let looked = hub.http.head(format!("{}{path}", hub.url)).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(looked.status(), 200);
    hub.http.get(format!("{}{other}", hub.url)).bearer_auth(ADMIN).send().await.unwrap();
    let old = json!({"minimumAgeSeconds": 3600});
    hub.ask_json("POST", "/avocet/v1/artifacts/garbage", ADMIN, &old).await.expect(200);
    assert!(hub.hub.blobs.has(&found) && !hub.hub.blobs.has(&read));
}

#[tokio::test]
async fn what_is_named_while_a_collection_of_garbage_waits_stays() {
    let hub = TestHub::start().await;
    let (digest, _) = hub.hub.blobs.put_reader(&b"named"[..]).await.unwrap();
    let held = hub.hub.registry.hold().await;
    let all = json!({"minimumAgeSeconds": 0});
    let collection = hub.ask_json("POST", "/avocet/v1/artifacts/garbage", ADMIN, &all);
    let naming = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let note = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note", "namespace": "default"},
            "data": {"text": digest},
        });
        let key = store::Key::new("configmaps", "default", "note");
        hub.hub.store.create(key, note, daemon::now()).await.unwrap();
        drop(held);
    };
    let (swept, ()) = tokio::join!(collection, naming);
    assert_eq!(swept.expect(200)["blobs"], 0);
    assert!(hub.hub.blobs.has(&digest));
}
