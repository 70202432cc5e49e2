//! What Sources need of the API: to ask from within, as service accounts.

use avocet_api::Inside;
use controllers::{Account, Ask, Cluster, Place};
use serde_json::{Value, json};

use crate::support::{ADMIN, TestHub, manifest};

async fn account(hub: &TestHub) -> Account {
    hub.create_namespace("team").await;
    let robot = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let url = "/api/v1/namespaces/team/serviceaccounts";
    let made = hub.ask_json("POST", url, ADMIN, &robot).await.expect(201);
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    Account { namespace: "team".into(), name: "robot".into(), uid }
}

async fn bind(hub: &TestHub, role: &str) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "robot"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "team"}],
    });
    let url = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings";
    hub.ask_json("POST", url, ADMIN, &binding).await.expect(201);
}

fn place(kind: &str, namespace: &str) -> Place {
    let info = types::kind_named(kind).unwrap();
    Place { info, namespace: namespace.into(), name: "a".into() }
}

fn apply(namespace: &str, dry_run: bool) -> Ask {
    let mut placement = manifest("Placement", "a", json!({"numberOfSites": 1}));
    placement["metadata"]["namespace"] = json!(namespace);
    Ask::Apply { manifest: placement, force: false, dry_run }
}

#[tokio::test]
async fn what_is_asked_in_the_name_of_an_account_is_authorised_and_audited() {
    let hub = TestHub::start().await;
    let account = account(&hub).await;
    let inside = Inside::new(hub.hub.clone());
    let placement = place("placement", "team");
    let refused = inside.ask(&account, &placement, apply("team", false)).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("system:serviceaccount:team:robot"), "{refused}");
    bind(&hub, "edit").await;
    let tried = inside.ask(&account, &placement, apply("team", true)).await.unwrap();
    assert_eq!(tried["spec"]["numberOfSites"], 1);
    assert_eq!(inside.ask(&account, &placement, Ask::Get).await.unwrap_err().code, 404, "it was a dry run");
    let made = inside.ask(&account, &placement, apply("team", false)).await.unwrap();
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "avocet-source");
    let elsewhere =
        inside.ask(&account, &place("placement", "plant"), apply("plant", false)).await.unwrap_err();
    assert_eq!(elsewhere.code, 403);
    let other = inside.ask(&account, &placement, Ask::Delete { uid: "another".into() }).await.unwrap_err();
    assert_eq!(other.code, 409, "{other}");
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    inside.ask(&account, &placement, Ask::Delete { uid }).await.unwrap();
    let lines = hub.audited().await;
    let by_robot = |line: &&Value| line["user"]["username"] == "system:serviceaccount:team:robot";
    let codes: Vec<&Value> =
        lines.iter().filter(by_robot).map(|line| &line["responseStatus"]["code"]).collect();
    assert_eq!(codes, [403, 201, 201, 403, 409, 200].map(|code| json!(code)).iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn unknown_fields_are_refused_as_kubectl_has_them_refused() {
    let hub = TestHub::start().await;
    let account = account(&hub).await;
    bind(&hub, "edit").await;
    let inside = Inside::new(hub.hub.clone());
    let misspelt = json!({
        "apiVersion": types::API_VERSION, "kind": "Placement", "metadata": {"name": "a", "namespace": "team"},
        "spec": {"numberOfSite": 1},
    });
    let ask = Ask::Apply { manifest: misspelt, force: false, dry_run: true };
    let refused = inside.ask(&account, &place("placement", "team"), ask).await.unwrap_err();
    assert!(refused.message.contains("numberOfSite"), "{refused}");
}

#[tokio::test]
async fn a_webhook_opens_to_who_knows_the_token_alone() {
    let hub = TestHub::start().await;
    hub.create_namespace("team").await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hook"}, "stringData": {"token": "correct horse"},
    });
    hub.ask_json("POST", "/api/v1/namespaces/team/secrets", ADMIN, &secret).await.expect(201);
    let spec =
        json!({"git": {"url": "https://git.example.com/x"}, "webhook": {"secretRef": {"name": "hook"}}});
    let source = manifest("Source", "deploy", spec);
    let url = format!("/apis/{}/namespaces/team/sources", types::API_VERSION);
    let made = hub.ask_json("POST", &url, ADMIN, &source).await.expect(201);
    let made: types::Source = serde_json::from_value(made).unwrap();
    let ring = async |name: &str, token: &str| {
        let url = format!("{}/avocet/v1/namespaces/team/sources/{name}/webhook", hub.url);
        hub.http.post(url).header("x-gitlab-token", token).body("{}").send().await.unwrap().status().as_u16()
    };
    for (name, token) in [("deploy", "wrong"), ("deploy", ""), ("other", "correct horse")] {
        assert_eq!(ring(name, token).await, 401, "{name} {token}");
    }
    assert!(!hub.hub.sources.take(&made), "nobody was let in");
    assert_eq!(ring("deploy", "correct horse").await, 202);
    assert!(hub.hub.sources.take(&made));
}
