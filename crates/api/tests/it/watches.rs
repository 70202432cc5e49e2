//! Watches: from a version on, resumed, expired.

use std::time::Duration;

use avocet_api::client::Change;
use avocet_api::{Client, client};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;

use crate::support::{ADMIN, PLACEMENTS, TestHub, placement, resource};

type Changes = BoxStream<'static, Result<Change, client::Error>>;

async fn next(changes: &mut Changes) -> Change {
    let waited = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
    waited.expect("a change is told in time").expect("the watch goes on").unwrap()
}

fn told(change: &Change) -> (String, String) {
    let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
    (change.kind.clone(), name.to_owned())
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

async fn watch(hub: &TestHub, query: &str) -> Changes {
    let client = Client::new(&hub.url, ADMIN, None).unwrap();
    let path = resource(&format!("{PLACEMENTS}?watch=true&{query}"));
    client::changes(client.send(client.request(reqwest::Method::GET, &path)).await.unwrap()).boxed()
}

#[tokio::test]
async fn a_watch_from_a_version_tells_what_came_after_it_and_only_once() {
    let hub = TestHub::start().await;
    hub.create_namespace("other").await;
    hub.post(PLACEMENTS, &placement("before")).await.expect(201);
    let list = hub.get(PLACEMENTS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    hub.post(PLACEMENTS, &placement("between")).await.expect(201);
    hub.post("namespaces/other/placements", &placement("elsewhere")).await.expect(201);
    let mut changes = watch(&hub, &format!("resourceVersion={version}")).await;
    assert_eq!(told(&next(&mut changes).await), pair("ADDED", "between"));
    hub.merge_patch(&format!("{PLACEMENTS}/before"), &json!({"spec": {"numberOfSites": 2}}))
        .await
        .expect(200);
    let modified = next(&mut changes).await;
    assert_eq!(told(&modified), pair("MODIFIED", "before"));
    assert_eq!(modified.object["spec"]["numberOfSites"], 2);
    hub.delete(&format!("{PLACEMENTS}/before")).await.expect(200);
    let deleted = next(&mut changes).await;
    assert_eq!(told(&deleted), pair("DELETED", "before"));
    // From the last version that was told, nothing is told twice.
    let version = deleted.object["metadata"]["resourceVersion"].as_str().unwrap();
    let mut resumed = watch(&hub, &format!("resourceVersion={version}")).await;
    hub.post(PLACEMENTS, &placement("after")).await.expect(201);
    assert_eq!(told(&next(&mut resumed).await), pair("ADDED", "after"));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("a")).await.expect(201);
    let mut changes = watch(&hub, "").await;
    assert_eq!(told(&next(&mut changes).await), pair("ADDED", "a"));
    let mut initial =
        watch(&hub, "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan")
            .await;
    assert_eq!(told(&next(&mut initial).await), pair("ADDED", "a"));
    let bookmark = next(&mut initial).await;
    assert_eq!(bookmark.kind, "BOOKMARK");
    assert_eq!(bookmark.object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(bookmark.object["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn a_watch_with_a_selector_tells_when_an_object_leaves_it() {
    let hub = TestHub::start().await;
    let mut changes = watch(&hub, "labelSelector=team%3Dred").await;
    hub.post(PLACEMENTS, &placement("unseen")).await.expect(201);
    let mut red = placement("red");
    red["metadata"]["labels"] = json!({"team": "red"});
    hub.post(PLACEMENTS, &red).await.expect(201);
    assert_eq!(told(&next(&mut changes).await), pair("ADDED", "red"));
    let path = format!("{PLACEMENTS}/red");
    hub.merge_patch(&path, &json!({"metadata": {"labels": {"team": "blue"}}})).await.expect(200);
    assert_eq!(told(&next(&mut changes).await), pair("DELETED", "red"));
    hub.merge_patch(&path, &json!({"metadata": {"labels": {"team": "red"}}})).await.expect(200);
    let back = next(&mut changes).await;
    assert_eq!(back.object["metadata"]["name"], "red");
}

#[tokio::test]
async fn a_version_that_is_forgotten_is_gone_in_the_words_of_kubernetes() {
    let hub = TestHub::start().await;
    hub.post(PLACEMENTS, &placement("a")).await.expect(201);
    let hub = hub.restart().await;
    // In the stream, not in its place: clients would only ask the same again.
    let answer = hub.get(&format!("{PLACEMENTS}?watch=true&resourceVersion=1")).await.expect(200);
    let refused = &answer["object"];
    assert_eq!((&answer["type"], &refused["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(refused["reason"], "Expired");
    assert!(refused["message"].as_str().unwrap().contains("too old resource version"));
    let list = hub.get(PLACEMENTS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "a", "what was written is there");
    let mut changes = watch(&hub, &format!("resourceVersion={version}")).await;
    hub.post(PLACEMENTS, &placement("b")).await.expect(201);
    assert_eq!(told(&next(&mut changes).await), pair("ADDED", "b"));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up() {
    let hub = TestHub::start().await;
    let mut changes = watch(&hub, "timeoutSeconds=0").await;
    assert!(changes.next().await.is_none());
}
