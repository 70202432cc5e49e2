//! Roles, bindings and reviews, as clients meet them. The site `plant` stands for any user that isn't an admin.

use serde_json::{Value, json};
use types::KindInfo;

use crate::support::{ADMIN, Answer, PLANT, TestHub, placement, resource};

const RBAC: &str = "rbac.authorization.k8s.io";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn rbac(path: &str) -> String {
    format!("/apis/{RBAC}/v1/{path}")
}

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": name}, "rules": rules})
}

fn binding(kind: &str, name: &str, role_kind: &str, role: &str) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": "site:plant"}],
    })
}

impl TestHub {
    async fn as_plant(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask_json(method, path, PLANT, body).await
    }

    /// Gives a ClusterRole to the site in the namespace `team`.
    async fn bind(&self, role: &str) {
        let given = binding("RoleBinding", role, "ClusterRole", role);
        self.ask_json("POST", &rbac("namespaces/team/rolebindings"), ADMIN, &given).await.expect(201);
    }

    async fn with_team() -> Self {
        let hub = Self::start().await;
        hub.create_namespace("team").await;
        hub
    }
}

#[tokio::test]
async fn refusals_are_worded_as_kubernetes_words_them() {
    let hub = TestHub::start().await;
    for (method, path, message, details) in [
        (
            "GET",
            resource("namespaces/default/placements"),
            "placements.avocet.dev is forbidden: User \"site:plant\" cannot list resource \"placements\" in API group \
             \"avocet.dev\" in the namespace \"default\"",
            json!({"group": "avocet.dev", "kind": "placements"}),
        ),
        (
            "DELETE",
            resource("sites/shop"),
            "sites.avocet.dev \"shop\" is forbidden: User \"site:plant\" cannot delete resource \"sites\" in API group \
             \"avocet.dev\" at the cluster scope",
            json!({"group": "avocet.dev", "kind": "sites", "name": "shop"}),
        ),
        (
            "GET",
            "/api/v1/namespaces/team".to_owned(),
            "namespaces \"team\" is forbidden: User \"site:plant\" cannot get resource \"namespaces\" in API group \"\" \
             in the namespace \"team\"",
            json!({"kind": "namespaces", "name": "team"}),
        ),
        (
            "GET",
            resource("namespaces/default/placements/p/scale"),
            "placements.avocet.dev \"p\" is forbidden: User \"site:plant\" cannot get resource \"placements/scale\" in \
             API group \"avocet.dev\" in the namespace \"default\"",
            json!({"group": "avocet.dev", "kind": "placements", "name": "p"}),
        ),
        (
            "POST",
            format!("{REVIEWS}/subjectaccessreviews"),
            "subjectaccessreviews.authorization.k8s.io is forbidden: User \"site:plant\" cannot create resource \
             \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at the cluster scope",
            json!({"group": "authorization.k8s.io", "kind": "subjectaccessreviews"}),
        ),
        (
            "POST",
            "/avocet/v1/join-tokens".to_owned(),
            "forbidden: User \"site:plant\" cannot post path \"/avocet/v1/join-tokens\"",
            Value::Null,
        ),
    ] {
        let refused = hub.as_plant(method, &path, &Value::Null).await.expect(403);
        assert_eq!(refused["message"], message);
        assert_eq!((&refused["reason"], &refused["details"]), (&json!("Forbidden"), &details));
    }
}

#[tokio::test]
async fn a_role_counts_from_its_binding_on_until_it_is_taken_away() {
    let hub = TestHub::with_team().await;
    let path = resource("namespaces/team/placements");
    hub.as_plant("GET", &path, &Value::Null).await.expect(403);
    let early = binding("RoleBinding", "early", "Role", "reader");
    hub.ask_json("POST", &rbac("namespaces/team/rolebindings"), ADMIN, &early).await.expect(201);
    let refused = hub.as_plant("GET", &path, &Value::Null).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with(": RBAC: role.rbac.authorization.k8s.io \"reader\" not found"), "{message}");
    let reader =
        role("Role", "reader", json!([{"verbs": ["list"], "apiGroups": ["*"], "resources": ["placements"]}]));
    hub.ask_json("POST", &rbac("namespaces/team/roles"), ADMIN, &reader).await.expect(201);
    hub.as_plant("GET", &path, &Value::Null).await.expect(200);
    hub.as_plant("GET", &resource("namespaces/default/placements"), &Value::Null).await.expect(403);
    hub.as_plant("POST", &path, &placement("p")).await.expect(403);
    hub.ask_json("DELETE", &rbac("namespaces/team/roles/reader"), ADMIN, &Value::Null).await.expect(200);
    hub.as_plant("GET", &path, &Value::Null).await.expect(403);
}

#[tokio::test]
async fn viewers_see_no_secrets_and_admins_have_what_editors_have() {
    let hub = TestHub::with_team().await;
    let secrets = "/api/v1/namespaces/team/secrets";
    hub.bind("view").await;
    hub.as_plant("GET", &resource("namespaces/team/applications"), &Value::Null).await.expect(200);
    hub.as_plant("GET", "/api/v1/namespaces/team/configmaps", &Value::Null).await.expect(200);
    hub.as_plant("GET", secrets, &Value::Null).await.expect(403);
    hub.as_plant("POST", &resource("namespaces/team/placements"), &placement("p")).await.expect(403);
    hub.bind("edit").await;
    hub.as_plant("GET", secrets, &Value::Null).await.expect(200);
    hub.as_plant("POST", &resource("namespaces/team/placements"), &placement("p")).await.expect(201);
    hub.as_plant("GET", &rbac("namespaces/team/roles"), &Value::Null).await.expect(403);
    hub.bind("admin").await;
    hub.as_plant("GET", &rbac("namespaces/team/roles"), &Value::Null).await.expect(200);
    let admin = hub.ask_json("GET", &rbac("clusterroles/admin"), ADMIN, &Value::Null).await.expect(200);
    let view = hub.ask_json("GET", &rbac("clusterroles/view"), ADMIN, &Value::Null).await.expect(200);
    for rule in view["rules"].as_array().unwrap() {
        assert!(admin["rules"].as_array().unwrap().contains(rule), "{rule} is in admin");
    }
}

#[tokio::test]
async fn nobody_gives_rights_that_they_lack() {
    let hub = TestHub::with_team().await;
    hub.bind("admin").await;
    let (roles, bindings) = (rbac("namespaces/team/roles"), rbac("namespaces/team/rolebindings"));
    let rule = |verbs: &[&str], resource: &str| json!([{"verbs": verbs, "apiGroups": [""], "resources": [resource]}]);
    hub.as_plant("POST", &roles, &role("Role", "fine", rule(&["get"], "secrets"))).await.expect(201);
    let refused = hub
        .as_plant("POST", &roles, &role("Role", "more", rule(&["get", "list"], "nodes")))
        .await
        .expect(403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"site:plant\" (groups=[\"avocet:sites\" \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
         Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    let fine = format!("{roles}/fine");
    let patch = json!({"rules": rule(&["*"], "secrets")}).to_string().into_bytes();
    hub.ask("PATCH", &fine, PLANT, "application/merge-patch+json", patch).await.expect(403);
    // Binding a role is giving its rights.
    hub.as_plant("POST", &bindings, &binding("RoleBinding", "v", "ClusterRole", "view")).await.expect(201);
    let all = binding("RoleBinding", "all", "ClusterRole", "cluster-admin");
    let refused = hub.as_plant("POST", &bindings, &all).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"));
    let none = binding("RoleBinding", "none", "Role", "none");
    let missing = hub.as_plant("POST", &bindings, &none).await.expect(404);
    assert_eq!(missing["message"], "role.rbac.authorization.k8s.io \"none\" not found");
    // Who may escalate or bind need not have the rights.
    let trusted = json!([
        {"verbs": ["escalate"], "apiGroups": [RBAC], "resources": ["roles"]},
        {"verbs": ["bind"], "apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"]},
    ]);
    hub.ask_json("POST", &roles, ADMIN, &role("Role", "trusted", trusted)).await.expect(201);
    let trust = binding("RoleBinding", "trusted", "Role", "trusted");
    hub.ask_json("POST", &bindings, ADMIN, &trust).await.expect(201);
    hub.as_plant("POST", &roles, &role("Role", "more", rule(&["get"], "nodes"))).await.expect(201);
    hub.as_plant("POST", &bindings, &all).await.expect(201);
}

#[tokio::test]
async fn who_may_patch_and_not_create_creates_nothing_by_applying() {
    let hub = TestHub::with_team().await;
    let rules = json!([{"verbs": ["patch"], "apiGroups": ["*"], "resources": ["placements"]}]);
    hub.ask_json("POST", &rbac("clusterroles"), ADMIN, &role("ClusterRole", "patcher", rules))
        .await
        .expect(201);
    hub.bind("patcher").await;
    let path = resource("namespaces/team/placements/p?fieldManager=m");
    let apply = async |token| {
        let body = placement("p").to_string().into_bytes();
        hub.ask("PATCH", &path, token, "application/apply-patch+yaml", body).await
    };
    let refused = apply(PLANT).await.expect(403);
    assert!(
        refused["message"].as_str().unwrap().contains("cannot create resource \"placements\""),
        "{refused}"
    );
    apply(ADMIN).await.expect(201);
    hub.ask("PATCH", &path, PLANT, "application/merge-patch+json", b"{}".to_vec()).await.expect(200);
}

/// Every verb on every path of a kind: the verb, and what it is answered with.
async fn meet(hub: &TestHub, info: &KindInfo) -> Vec<(&'static str, u16)> {
    let root = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
    let namespace = if info.namespaced { "namespaces/team/" } else { "" };
    let list = format!("{root}/{}/{namespace}{}", info.version, info.plural);
    let (one, watch) = (format!("{list}/x"), format!("{list}?watch=true&timeoutSeconds=0"));
    let mut seen = Vec::new();
    for (verb, method, path) in [
        ("list", "GET", &list),
        ("watch", "GET", &watch),
        ("get", "GET", &one),
        ("create", "POST", &list),
        ("update", "PUT", &one),
        ("patch", "PATCH", &one),
        ("delete", "DELETE", &one),
        ("deletecollection", "DELETE", &list),
    ] {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if matches!(method, "GET" | "DELETE") { vec![] } else { b"{}".to_vec() };
        seen.push((verb, hub.ask(method, path, PLANT, kind, body).await.code));
    }
    seen
}

#[tokio::test]
async fn what_can_i_lists_is_what_requests_meet() {
    let hub = TestHub::with_team().await;
    let rules = json!([
        {"verbs": ["get", "delete", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["x"]},
        {"verbs": ["update", "create"], "apiGroups": ["*"], "resources": ["leases", "roles", "models"]},
        {"verbs": ["*"], "apiGroups": [types::GROUP], "resources": ["assignments"]},
    ]);
    hub.ask_json("POST", &rbac("clusterroles"), ADMIN, &role("ClusterRole", "odd", rules)).await.expect(201);
    hub.bind("odd").await;
    hub.bind("view").await;
    let everywhere =
        json!([{"verbs": ["list", "patch"], "apiGroups": ["*"], "resources": ["sites", "clusterroles"]}]);
    hub.ask_json("POST", &rbac("clusterroles"), ADMIN, &role("ClusterRole", "wide", everywhere))
        .await
        .expect(201);
    let wide = binding("ClusterRoleBinding", "wide", "ClusterRole", "wide");
    hub.ask_json("POST", &rbac("clusterrolebindings"), ADMIN, &wide).await.expect(201);
    let (mut allowed, mut refused) = (0, 0);
    for info in types::kinds() {
        // Rights in a namespace say nothing of kinds without one.
        let namespace = if info.namespaced { "team" } else { "default" };
        let asked = json!({"spec": {"namespace": namespace}});
        let path = format!("{REVIEWS}/selfsubjectrulesreviews");
        let listed = hub.as_plant("POST", &path, &asked).await.expect(201);
        let rules = listed["status"]["resourceRules"].as_array().unwrap();
        for (verb, code) in meet(&hub, info).await {
            let name = if matches!(verb, "get" | "update" | "patch" | "delete") { "x" } else { "" };
            let has = |rule: &Value, field: &str, word: &str| {
                rule[field]
                    .as_array()
                    .is_some_and(|words| words.contains(&json!(word)) || words.contains(&json!("*")))
            };
            let is_listed = rules.iter().any(|rule| {
                has(rule, "verbs", verb)
                    && has(rule, "apiGroups", info.group)
                    && has(rule, "resources", info.plural)
                    && (rule.get("resourceNames").is_none() || has(rule, "resourceNames", name))
            });
            assert_eq!(is_listed, code != 403, "{verb} {}: {code}", info.plural);
            let namespace = if info.namespaced { "team" } else { "" };
            let attributes = json!({
                "verb": verb, "group": info.group, "resource": info.plural, "namespace": namespace, "name": name,
            });
            let asked = json!({"spec": {"resourceAttributes": attributes}});
            let path = format!("{REVIEWS}/selfsubjectaccessreviews");
            let answer = hub.as_plant("POST", &path, &asked).await.expect(201);
            assert_eq!(answer["status"]["allowed"], is_listed, "{verb} {}", info.plural);
            if is_listed { allowed += 1 } else { refused += 1 }
        }
    }
    assert!(allowed > 30 && refused > 60, "{allowed} allowed, {refused} refused");
}

#[tokio::test]
async fn what_others_may_do_is_told_to_those_who_may_ask() {
    let hub = TestHub::with_team().await;
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let asked = |user: &str, groups: &[&str], attributes: Value| json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    let secrets = json!({"verb": "get", "resource": "secrets", "namespace": "plant"});
    for (user, groups, allowed) in [
        ("someone", &[] as &[&str], false),
        ("someone", &["system:masters"], true),
        ("site:plant", &["avocet:sites"], true),
        ("site:plant", &[], false),
        ("site:shop", &["avocet:sites"], false),
        ("", &["avocet:sites"], false),
    ] {
        let answer =
            hub.ask_json("POST", &path, ADMIN, &asked(user, groups, secrets.clone())).await.expect(201);
        assert_eq!(answer["status"]["allowed"], allowed, "{user} {groups:?}");
    }
    hub.ask_json("POST", &path, ADMIN, &asked("", &[], secrets.clone())).await.expect(422);
    let nothing = json!({"spec": {"user": "someone"}});
    hub.ask_json("POST", &path, ADMIN, &nothing).await.expect(422);
    let version = json!({"spec": {"user": "x", "groups": ["system:authenticated"],
        "nonResourceAttributes": {"path": "/version", "verb": "get"}}});
    let answer = hub.ask_json("POST", &path, ADMIN, &version).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let reason = answer["status"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("RBAC: allowed by ClusterRoleBinding \"system:"), "{reason}");
    // Who is admin of a namespace may ask about it.
    hub.bind("admin").await;
    let local = |namespace: &str| format!("{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews");
    let about_team =
        asked("site:plant", &[], json!({"verb": "get", "resource": "secrets", "namespace": "team"}));
    let answer = hub.as_plant("POST", &local("team"), &about_team).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    hub.as_plant("POST", &local("default"), &about_team).await.expect(403);
    hub.ask_json("POST", &local("default"), ADMIN, &about_team).await.expect(400);
}

#[tokio::test]
async fn default_roles_get_back_what_they_lack_unless_they_want_no_updates() {
    let hub = TestHub::start().await;
    let path = rbac("clusterroles/system:discovery");
    let change = async |patch: Value| {
        let body = patch.to_string().into_bytes();
        hub.ask("PATCH", &path, ADMIN, "application/merge-patch+json", body).await.expect(200);
        avocet_api::bootstrap(&hub.hub.store, daemon::now()).await.unwrap();
        hub.ask_json("GET", &path, ADMIN, &Value::Null).await.expect(200)["rules"].clone()
    };
    let own = json!({"verbs": ["get"], "nonResourceURLs": ["/own"]});
    let rules = change(json!({"rules": [own]})).await;
    assert_eq!((rules.as_array().unwrap().len(), &rules[0]), (2, &own));
    hub.as_plant("GET", "/apis", &Value::Null).await.expect(200);
    let off = json!({"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}});
    let rules = change(json!({"metadata": off, "rules": [own]})).await;
    assert_eq!(rules, json!([own]));
    hub.as_plant("GET", "/apis", &Value::Null).await.expect(403);
}

#[tokio::test]
async fn a_site_has_rights_by_its_name_as_long_as_it_is_one() {
    let hub = TestHub::start().await;
    // Its own lease and the secrets where it is at home, and nobody else's.
    for (method, path, allowed) in [
        ("GET", "/api/v1/namespaces/plant/secrets", true),
        ("GET", "/api/v1/namespaces/shop/secrets", false),
        ("POST", "/api/v1/namespaces/plant/events", true),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/plant/leases/plant", true),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/plant/leases/other", false),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/plant/leases/plant", false),
        ("POST", "/api/v1/namespaces/plant/secrets", false),
        // No other way to write a path leads further.
        ("GET", "/avocet/v1/mailbox/plant/../shop", false),
        ("GET", "/avocet/v1/mailbox/%73hop", false),
    ] {
        let code = hub.as_plant(method, path, &Value::Null).await.code;
        assert_eq!(code != 403, allowed, "{method} {path}: {code}");
    }
    let path = format!("{REVIEWS}/selfsubjectrulesreviews");
    let asked = json!({"spec": {"namespace": "plant"}});
    let told = hub.as_plant("POST", &path, &asked).await.expect(201);
    let rules = told["status"]["resourceRules"].to_string();
    assert!(rules.contains("assignments/status"), "{rules}");
    hub.ask_json("DELETE", &resource("sites/plant"), ADMIN, &Value::Null).await.expect(200);
    hub.as_plant("GET", "/api/v1/namespaces/plant/secrets", &Value::Null).await.expect(401);
    let asked = json!({"spec": {"user": "site:plant", "groups": ["avocet:sites"],
        "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "plant"}}});
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let answer = hub.ask_json("POST", &path, ADMIN, &asked).await.expect(201);
    assert_eq!(answer["status"]["allowed"], false, "{answer}");
}

#[tokio::test]
async fn roles_that_older_versions_stored_for_sites_go() {
    let hub = TestHub::start().await;
    let stored = |name: &str, labels: Value| {
        let mut role = role("ClusterRole", name, json!([]));
        role["metadata"]["labels"] = labels;
        role
    };
    let made = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for role in [stored("site:plant", made), stored("site:ours", json!({}))] {
        hub.ask_json("POST", &rbac("clusterroles"), ADMIN, &role).await.expect(201);
    }
    avocet_api::bootstrap(&hub.hub.store, daemon::now()).await.unwrap();
    hub.ask_json("GET", &rbac("clusterroles/site:plant"), ADMIN, &Value::Null).await.expect(404);
    hub.ask_json("GET", &rbac("clusterroles/site:ours"), ADMIN, &Value::Null).await.expect(200);
}
