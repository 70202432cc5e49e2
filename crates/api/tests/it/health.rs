//! What those ask who watch over a hub: whether it works, and what it counts.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, PLANT, TestHub, placement};

async fn text(hub: &TestHub, path: &str, code: u16) -> String {
    let answer = hub.ask_json("GET", path, ADMIN, &Value::Null).await;
    assert_eq!(answer.code, code, "{path}: {}", answer.text);
    answer.text
}

#[tokio::test]
async fn health_is_told_in_a_word_or_check_by_check() {
    let hub = TestHub::start().await;
    for name in ["healthz", "livez", "readyz"] {
        assert_eq!(text(&hub, &format!("/{name}"), 200).await, "ok");
        assert_eq!(text(&hub, &format!("/{name}/ping"), 200).await, "ok");
        let report = text(&hub, &format!("/{name}?verbose"), 200).await;
        assert!(report.starts_with("[+]ping ok\n[+]store ok\n"), "{report}");
        assert!(report.ends_with(&format!("{name} check passed\n")), "{report}");
    }
    let report = text(&hub, "/livez?verbose&exclude=store&exclude=x", 200).await;
    assert_eq!(
        report,
        "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\n\
         livez check passed\n"
    );
    text(&hub, "/readyz/nothing", 404).await;
}

#[tokio::test]
async fn requests_are_counted_by_what_they_were_about() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("a")).await.expect(201);
    hub.post(PLACEMENTS, &placement("a")).await.expect(409);
    hub.get("placements").await.expect(200);
    let apply = format!("/apis/avocet.dev/v1alpha1/{PLACEMENTS}/a?fieldManager=me&force=true");
    let body = placement("a").to_string().into_bytes();
    hub.ask("PATCH", &apply, ADMIN, "application/apply-patch+yaml", body).await.expect(200);
    let metrics = text(&hub, "/metrics", 200).await;
    let series = |code: u16, scope: &str, verb: &str| {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"avocet.dev\",\
             resource=\"placements\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1alpha1\"}} 1\n"
        )
    };
    for expected in [
        series(201, "namespace", "POST"),
        series(409, "namespace", "POST"),
        series(200, "cluster", "LIST"),
        series(200, "resource", "APPLY"),
        "apiserver_storage_objects{resource=\"placements.avocet.dev\"} 1\n".to_owned(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&expected), "{expected} in {metrics}");
    }
}

#[tokio::test]
async fn watches_are_counted_while_they_last() {
    let hub = TestHub::start().await;
    let watching = |metrics: &str| {
        let mut lines = metrics.lines().filter(|line| line.starts_with("apiserver_longrunning_requests{"));
        let line = lines.find(|line| line.contains("resource=\"placements\"")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let path = format!("{}/apis/avocet.dev/v1alpha1/placements?watch=true", hub.url);
    let watch = hub.http.get(path).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(watching(&text(&hub, "/metrics", 200).await), "1");
    drop(watch);
    while watching(&text(&hub, "/metrics", 200).await) != "0" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn who_reads_metrics_must_be_allowed_to() {
    let hub = TestHub::start().await;
    let refused = hub.ask_json("GET", "/metrics", PLANT, &Value::Null).await.expect(403);
    assert!(refused["message"].as_str().unwrap().ends_with("cannot get path \"/metrics\""), "{refused}");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "m"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:monitoring"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "avocet:sites"}],
    });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    hub.ask_json("POST", path, ADMIN, &binding).await.expect(201);
    let answer = hub.ask_json("GET", "/metrics", PLANT, &Value::Null).await;
    assert_eq!(answer.code, 200);
}
