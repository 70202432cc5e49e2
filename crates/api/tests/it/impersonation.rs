//! Acting as somebody else.

use avocet_api::authentication::User;
use serde_json::Value;

use crate::support::{ADMIN, TestHub};

const WHOAMI: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn ask(hub: &TestHub, method: &str, path: &str, token: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let method: reqwest::Method = method.parse().unwrap();
    let mut request = hub.http.request(method, format!("{}{path}", hub.url)).bearer_auth(token).body("{}");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.header("content-type", "application/json").send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn an_administrator_acts_as_others_with_their_rights_alone() {
    let hub = TestHub::start().await;
    let ann = [("Impersonate-User", "ann"), ("Impersonate-Group", "one"), ("Impersonate-Group", "two")];
    let (code, review) = ask(&hub, "POST", WHOAMI, ADMIN, &ann).await;
    assert_eq!(code, 201, "{review}");
    let info = &review["status"]["userInfo"];
    assert_eq!(info["username"], "ann");
    assert_eq!(info["groups"], serde_json::json!(["one", "two", "system:authenticated"]));
    let (code, refused) = ask(&hub, "GET", "/api/v1/secrets", ADMIN, &ann).await;
    let words = "secrets is forbidden: User \"ann\" cannot list resource \"secrets\" in API group \"\" at the \
                 cluster scope";
    assert_eq!((code, refused["message"].as_str()), (403, Some(words)));
    let account = [("Impersonate-User", "system:serviceaccount:default:default")];
    let (_, review) = ask(&hub, "POST", WHOAMI, ADMIN, &account).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(review["status"]["userInfo"]["groups"], serde_json::json!(groups));
}

#[tokio::test]
async fn who_has_no_right_to_it_acts_as_nobody_else() {
    let hub = TestHub::start().await;
    hub.hub.tokens.grant("bob's", User::new("bob", [])).await.unwrap();
    let (code, refused) = ask(&hub, "POST", WHOAMI, "bob's", &[("Impersonate-User", "admin")]).await;
    let words = "users \"admin\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \
                 \"\" at the cluster scope";
    assert_eq!((code, refused["message"].as_str()), (403, Some(words)));
    for lonely in
        [("Impersonate-Group", "system:masters"), ("Impersonate-Uid", "1"), ("Impersonate-Other", "x")]
    {
        let (code, refused) = ask(&hub, "POST", WHOAMI, ADMIN, &[lonely]).await;
        assert_eq!(code, 400, "{lonely:?}: {refused}");
    }
}
