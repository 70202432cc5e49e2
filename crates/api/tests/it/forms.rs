//! Media types of bodies and answers, and what is said of those that don't fit.

use serde_json::{Value, json};

use crate::support::{ADMIN, PLACEMENTS, TestHub, placement, resource};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An answer to `Accept`: its code, its media type and its text.
async fn accept(hub: &TestHub, path: &str, accept: &str) -> (u16, String, String) {
    let request = hub.http.get(format!("{}{path}", hub.url)).bearer_auth(ADMIN).header("accept", accept);
    let response = request.send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.text().await.unwrap())
}

#[tokio::test]
async fn patches_in_forms_that_a_kind_does_not_take_are_refused_before_all_else() {
    let hub = TestHub::start().await;
    let ours = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    let core = "application/json-patch+json, application/merge-patch+json, \
                application/strategic-merge-patch+json, application/apply-patch+yaml";
    let nowhere = resource(&format!("{PLACEMENTS}/nope"));
    for (path, kind, known) in [
        (nowhere.clone(), "text/plain", ours),
        (nowhere, "application/strategic-merge-patch+json", ours),
        (format!("{CONFIG_MAPS}/nope"), "application/json", core),
    ] {
        let refused = hub.ask("PATCH", &path, ADMIN, kind, b"x".to_vec()).await.expect(415);
        let words = "the body of the request was in an unknown format - accepted media types include: ";
        assert_eq!(refused["message"], format!("{words}{known}"));
    }
    let kind = "application/merge-patch+json";
    let path = resource(&format!("{PLACEMENTS}/p"));
    hub.ask("PATCH", &path, ADMIN, kind, b"{".to_vec()).await.expect(404);
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let refused = hub.ask("PATCH", &path, ADMIN, kind, b"{".to_vec()).await.expect(400);
    assert_eq!(refused["message"], "error decoding patch: unexpected end of JSON input");
}

#[tokio::test]
async fn bodies_that_do_not_tell_what_they_are_are_shown_to_who_sent_them() {
    let hub = TestHub::start().await;
    let beginning = "the object provided is unrecognized (must be of type Placement): ";
    for (body, problem) in [
        (
            "x",
            "couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value (78)",
        ),
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        ("{}", "Object 'Kind' is missing in '{}' ({})"),
        ("null", "Object 'Kind' is missing in 'null' (6e756c6c)"),
        (
            "[]",
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { \
             APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
        ),
        (
            "{\"kind\":1}",
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of \
             type string ({\"kind\":1})",
        ),
    ] {
        let path = resource(PLACEMENTS);
        let refused = hub.ask("POST", &path, ADMIN, "application/json", body.into()).await.expect(400);
        assert_eq!(refused["message"], format!("{beginning}{problem}"));
    }
    let mut model = placement("a");
    model["kind"] = json!("Model");
    let refused = hub.post(PLACEMENTS, &model).await.expect(422);
    let words = "Model.avocet.dev \"a\" is invalid: kind: Invalid value: \"Model\": must be Placement";
    assert_eq!((&refused["message"], &refused["details"]["kind"]), (&json!(words), &json!("Model")));
    hub.post("placements", &placement("a")).await.expect(404);
}

#[tokio::test]
async fn an_apply_states_only_fields_that_its_kind_has_and_of_their_types() {
    let hub = TestHub::start().await;
    let mut misspelt = placement("a");
    misspelt["spec"]["tier"] = json!("edge");
    let path = resource(&format!("{PLACEMENTS}/a?fieldManager=m"));
    let body = misspelt.to_string().into_bytes();
    let refused = hub.ask("PATCH", &path, ADMIN, "application/apply-patch+yaml", body).await.expect(400);
    let words = "failed to create typed patch object (default/a; avocet.dev/v1alpha1, Kind=Placement): .spec.tier: \
                 field not declared in schema";
    assert_eq!((&refused["message"], refused.get("reason")), (&json!(words), None));
    let mut mistyped = placement("a");
    mistyped["spec"] =
        json!({"numberOfSites": "x", "tiers": "edge", "siteSelector": {"matchLabels": {"a": 5}}});
    let body = mistyped.to_string().into_bytes();
    let refused = hub.ask("PATCH", &path, ADMIN, "application/apply-patch+yaml", body).await.expect(400);
    let words = "failed to create typed patch object (default/a; avocet.dev/v1alpha1, Kind=Placement): errors:\n  \
                 .spec.numberOfSites: expected numeric (int or float), got string\n  \
                 .spec.siteSelector.matchLabels.a: expected string, got &value.valueUnstructured{Value:5}\n  \
                 .spec.tiers: expected list, got &{edge}";
    assert_eq!(refused["message"], words);
}

#[tokio::test]
async fn answers_come_as_yaml_and_in_lines_for_people() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let one = resource(&format!("{PLACEMENTS}/p"));
    let (code, kind, text) = accept(&hub, &one, "application/yaml").await;
    assert_eq!((code, kind.as_str()), (200, "application/yaml"));
    assert!(text.contains("\nkind: Placement\n"), "{text}");
    let (_, _, text) = accept(&hub, &format!("{one}?pretty=true"), "application/json").await;
    assert!(text.starts_with("{\n  \"apiVersion\": "), "{text}");
    let (_, _, text) = accept(&hub, &one, "application/json").await;
    assert!(!text.contains('\n'), "{text}");
    for unknown in ["text/plain", "application/json;as=Table;v=v2;g=meta.k8s.io"] {
        let (code, _, text) = accept(&hub, &one, unknown).await;
        assert_eq!(code, 406);
        assert!(
            text.contains("only the following media types are accepted: application/json, application/yaml")
        );
    }
}

#[tokio::test]
async fn programs_find_the_paths_and_people_the_page() {
    let hub = TestHub::start().await;
    let (code, _, text) = accept(&hub, "/", "application/json, */*").await;
    let paths: Value = serde_json::from_str(&text).unwrap();
    let paths = paths["paths"].as_array().unwrap();
    for path in ["/api/v1", "/apis/avocet.dev/v1alpha1", "/readyz/store", "/version"] {
        assert!(code == 200 && paths.contains(&json!(path)), "{path} in {text}");
    }
}

#[tokio::test]
async fn deletions_are_asked_for_in_the_query_too() {
    let hub = TestHub::start().await;
    let map = json!({"metadata": {"name": "m"}});
    hub.ask_json("POST", CONFIG_MAPS, ADMIN, &map).await.expect(201);
    let one = format!("{CONFIG_MAPS}/m");
    for (query, code, words) in [
        ("gracePeriodSeconds=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "propagationPolicy=Nope",
            422,
            "propagationPolicy: Unsupported value: \"Nope\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        ("propagationPolicy=Orphan&orphanDependents=true", 422, "cannot be both set"),
        ("dryRun=Some", 422, "dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\""),
    ] {
        let path = format!("{one}?{query}");
        let refused = hub.ask_json("DELETE", &path, ADMIN, &Value::Null).await.expect(code);
        assert!(refused["message"].as_str().unwrap().contains(words), "{refused}");
    }
    let path = format!("{one}?dryRun=All&propagationPolicy=Foreground&gracePeriodSeconds=-5");
    let shown = hub.ask_json("DELETE", &path, ADMIN, &Value::Null).await.expect(200);
    assert_eq!(shown["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(shown["metadata"]["deletionGracePeriodSeconds"], 0);
    let kept = hub.ask_json("GET", &one, ADMIN, &Value::Null).await.expect(200);
    assert_eq!(kept["metadata"].get("deletionTimestamp"), None);
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    let refused = hub.ask_json("DELETE", &one, ADMIN, &stale).await.expect(409);
    assert!(
        refused["message"].as_str().unwrap().contains("ResourceVersion in precondition: 1,"),
        "{refused}"
    );
    hub.ask_json("DELETE", &format!("{one}?orphanDependents=false"), ADMIN, &Value::Null).await.expect(200);
}

#[tokio::test]
async fn a_token_is_bound_to_a_secret_that_is_there() {
    let hub = TestHub::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    hub.ask_json("POST", accounts, ADMIN, &json!({"metadata": {"name": "worker"}})).await.expect(201);
    let bound = |name: &str| json!({"spec": {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": name}}});
    let path = format!("{accounts}/worker/token");
    let refused = hub.ask_json("POST", &path, ADMIN, &bound("nope")).await.expect(404);
    assert_eq!(refused["message"], "secrets \"nope\" not found");
}

#[tokio::test]
async fn methods_that_nothing_has_are_refused_with_a_status() {
    let hub = TestHub::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = hub.ask_json("GET", path, ADMIN, &Value::Null).await.expect(405);
    assert_eq!(refused["reason"], "MethodNotAllowed");
    hub.post(PLACEMENTS, &placement("p")).await.expect(201);
    let refused = hub.delete(&format!("{PLACEMENTS}/p/scale")).await.expect(405);
    assert_eq!(refused["message"], "delete is not supported on resources of kind \"placements.avocet.dev\"");
}
