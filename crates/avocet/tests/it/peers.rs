//! Artifacts that sites of one place have from one another, and what the hub sends: real sites, some of which die, freeze
//! or lie.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use daemon::Tasks;
use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Site, Tree, wait_until};
use types::Digest;

use crate::nesting::labelled;
use crate::support::{application, apply, http, noise, token, tree};

/// Large enough for several pieces, in bytes.
const SIZE: usize = 11 << 20;
const PEER: [&str; 2] = ["--listen-peers", "127.0.0.1:0"];

/// A function that is large, in a folder of that name; it runs at sites with the label `run=NAME`.
fn large_function(tree: &Tree, name: &str, size: usize) -> [Value; 3] {
    let folder = tree.write(&format!("{name}/run.sh"), "true").parent().unwrap().to_owned();
    tree.write(&format!("{name}/weights.bin"), noise(name, size));
    let function = json!({
        "apiVersion": "avocet.dev/v1alpha1", "kind": "Function", "metadata": {"name": name},
        "spec": {"runtime": "shell", "handler": "run.sh", "artifact": {"path": folder}},
    });
    let component = json!({
        "name": name, "placement": name, "function": name,
        "inputs": [{"path": format!("{name}/in")}], "outputs": [{"path": format!("{name}/out")}],
    });
    [labelled(name, "run", name), function, application(name, &json!([component]))]
}

fn digest_of(hub: &Hub, function: &str) -> (String, u64) {
    let stored = hub.cli(&["get", "function", function, "-o", "json"]).json();
    let artifact = &stored["spec"]["artifact"];
    (artifact["digest"].as_str().unwrap().to_owned(), artifact["size"].as_u64().unwrap())
}

fn number(text: &str, series: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

fn hub_number(hub: &Hub, series: &str) -> u64 {
    let url = format!("http://127.0.0.1:{}/metrics", hub.port());
    number(&http("GET", &url, &token(hub), &Value::Null).unwrap().1, series)
}

fn site_number(site: &Site, series: &str) -> u64 {
    let url = format!("{}/metrics", site.access("inference"));
    number(&http("GET", &url, "", &Value::Null).unwrap().1, series)
}

const FROM_NEIGHBOURS: &str = "avocet_artifact_bytes_received_total{from=\"neighbours\"}";
const FROM_HUB: &str = "avocet_artifact_bytes_received_total{from=\"hub\"}";
const LET_DOWN: &str = "avocet_artifact_let_down_total";
const SENT: &str = "avocet_artifact_bytes_sent_total";

/// Asks the hub, as its admin, from whom a site would fetch an artifact.
fn ask(hub: &Hub, site: &str, digest: &str, without: &[&str]) -> (u16, Value) {
    let url = format!("http://127.0.0.1:{}/avocet/v1/sites/{site}/peers/questions", hub.port());
    let (code, body) =
        http("POST", &url, &token(hub), &json!({"digest": digest, "without": without})).unwrap();
    (code, serde_json::from_str(&body).unwrap_or_default())
}

/// Waits until the hub would send `site` to `other` for an artifact.
#[track_caller]
fn wait_until_offered(hub: &Hub, site: &str, other: &str, digest: &str, without: &[&str]) -> Value {
    wait_until(&format!("{other} offers {digest}"), LIMIT, || {
        let (code, answer) = ask(hub, site, digest, without);
        if answer["from"]["site"] == other {
            Ok(answer["from"].clone())
        } else {
            Err(format!("{code}: {answer}"))
        }
    })
}

fn relabel(tree: &Tree, hub: &Hub, site: &str, run: &str) {
    let seen = hub.cli(&["get", "site", site, "-o", "json"]).json();
    let metadata = json!({"name": site, "labels": {"run": run}});
    let site = json!({
        "apiVersion": "avocet.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": seen["spec"],
    });
    apply(tree, hub, &[site]);
}

#[test]
fn what_many_sites_want_at_once_leaves_the_hub_about_once() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let names = ["a", "b", "c", "d", "e", "f"];
    let further = [&PEER[..], &["--label", "run=big"]].concat();
    let sites: Vec<Site> = names.iter().map(|name| tree.site(&hub, name, &further)).collect();
    apply(&tree, &hub, &large_function(&tree, "big", SIZE));
    hub.wait_until_ready("big");
    let (_, size) = digest_of(&hub, "big");
    let sent = hub_number(&hub, SENT);
    assert!(sent >= size && sent < 2 * size, "{sent} bytes for an artifact of {size}");
    let all: u64 = sites.iter().map(|site| site_number(site, FROM_NEIGHBOURS)).sum();
    assert!(all >= 4 * size, "{all} bytes of {size} came from neighbours");
    let given: u64 = sites.iter().map(|site| site_number(site, "avocet_artifact_bytes_given_total")).sum();
    assert!(given >= all, "{given} {all}");
}

#[test]
fn a_neighbour_that_freezes_dies_or_lies_keeps_nobody_from_an_artifact() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut a = tree.site(&hub, "a", &[&PEER[..], &["--label", "run=big"]].concat());
    let b = tree.site(&hub, "b", &PEER);
    let c = tree.site(&hub, "c", &PEER);
    let liar = tree.site(&hub, "liar", &["--label", "run=lies"]);
    // It takes no part; the hub is asked in its name.
    let _probe = tree.site(&hub, "probe", &["--label", "run=big"]);
    let mut manifests = large_function(&tree, "big", SIZE).to_vec();
    manifests.extend(large_function(&tree, "lies", SIZE));
    apply(&tree, &hub, &manifests);
    hub.wait_until_ready("big");
    let (digest, size) = digest_of(&hub, "big");
    wait_until_offered(&hub, "probe", "a", &digest, &[]);
    a.process.signal("STOP");
    relabel(&tree, &hub, "b", "big");
    wait_for_blob(&b, &digest);
    assert!(site_number(&b, LET_DOWN) >= 1);
    assert_eq!(site_number(&b, FROM_HUB), size);
    a.kill_9();

    // Of the dead and the living one, whoever is asked first, all of it arrives.
    wait_until_offered(&hub, "probe", "b", &digest, &["a"]);
    relabel(&tree, &hub, "c", "big");
    wait_for_blob(&c, &digest);

    // What the liar has for others is not what they ask it for.
    let (digest, size) = digest_of(&hub, "lies");
    wait_for_blob(&liar, &digest);
    let tasks = Tasks::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, certificate) = runtime.block_on(lie(&tasks));
    let url = format!("http://127.0.0.1:{}/avocet/v1/sites/liar/peers", hub.port());
    let offer = json!({"address": address, "certificate": certificate, "secret": "0123456789abcdef", "has": [digest]});
    assert_eq!(http("PUT", &url, &token(&hub), &offer).unwrap().0, 204);
    let (before, let_down) = (site_number(&c, FROM_HUB), site_number(&c, LET_DOWN));
    relabel(&tree, &hub, "c", "lies");
    wait_for_blob(&c, &digest);
    assert_eq!(site_number(&c, LET_DOWN), let_down + 1);
    assert_eq!(site_number(&c, FROM_HUB), before + size, "nothing of the liar's was kept");
    assert!(runtime.block_on(tasks.end(std::time::Duration::from_secs(10))));
}

#[track_caller]
fn wait_for_blob(site: &Site, digest: &str) {
    let file = site.data().join("artifacts/blobs").join(digest.trim_start_matches("sha256:"));
    wait_until(&format!("{} has {digest}", site.name), LIMIT, || {
        if file.is_file() { Ok(()) } else { Err(site.process.output()) }
    });
    assert_eq!(Digest::of(&std::fs::read(file).unwrap()).to_string(), digest);
}

/// A neighbour that answers whatever it is asked with as much nonsense.
async fn lie(tasks: &Tasks) -> (SocketAddr, String) {
    let (encryption, certificate) = daemon::tls::pinned_server().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(any(|| async { (StatusCode::PARTIAL_CONTENT, vec![7_u8; SIZE]) }));
    tasks.spawn("liar", api::serve_encrypted(listener, encryption, router, tasks.shutdown()));
    (address, certificate)
}

#[test]
fn a_neighbour_gives_nothing_to_who_has_no_ticket_for_it() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let _a = tree.site(&hub, "a", &[&PEER[..], &["--label", "run=big"]].concat());
    let _b = tree.site(&hub, "b", &[&PEER[..], &["--label", "run=big"]].concat());
    let _c = tree.site(&hub, "c", &PEER);
    let mut manifests = large_function(&tree, "big", 300 << 10).to_vec();
    manifests.extend(large_function(&tree, "other", 300 << 10));
    apply(&tree, &hub, &manifests);
    hub.wait_until_ready("big");
    let (digest, size) = digest_of(&hub, "big");
    let neighbour = wait_until_offered(&hub, "b", "a", &digest, &[]);
    assert_eq!(ask(&hub, "c", &digest, &[]).0, 403, "it is not assigned to c");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address: SocketAddr = neighbour["address"].as_str().unwrap().parse().unwrap();
    let client = api::client::http_pinned(neighbour["certificate"].as_str().unwrap(), address).unwrap();
    let get = |digest: &str, ticket: &str| {
        let url = format!("https://{}:{}/artifacts/{digest}", daemon::tls::PINNED_NAME, address.port());
        let request = client.get(url).bearer_auth(ticket).header("range", "bytes=0-");
        runtime.block_on(async {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.bytes().await.unwrap())
        })
    };
    let ticket = neighbour["ticket"].as_str().unwrap();
    let (code, content) = get(&digest, ticket);
    assert_eq!((code, content.len() as u64), (206, size));
    assert_eq!(Digest::of(&content).to_string(), digest);
    let (other, _) = digest_of(&hub, "other");
    for (digest, ticket) in
        [(&digest, ""), (&digest, "0123"), (&other, ticket), (&"nonsense".to_owned(), ticket)]
    {
        let (code, content) = get(digest, ticket);
        assert_eq!((code, content.len()), (403, 0), "{digest} {ticket}");
    }
    let plain = format!("http://{address}/artifacts/{digest}");
    assert_eq!(http("GET", &plain, "", &Value::Null).unwrap().0, 403);
}

#[test]
fn a_hub_that_may_send_little_delays_and_loses_nothing_and_hears_all_meanwhile() {
    let tree = tree();
    let hub =
        tree.hub_with("cloud", &["--max-artifact-downloads", "1", "--max-artifact-bytes-per-second", "1Mi"]);
    let names = ["a", "b", "c"];
    let sites: Vec<Site> = names.iter().map(|name| tree.site(&hub, name, &["--label", "run=big"])).collect();
    apply(&tree, &hub, &large_function(&tree, "big", 2 << 20));
    let (digest, size) = digest_of(&hub, "big");
    let mut silent = BTreeSet::new();
    wait_until("all sites have it", LIMIT, || {
        let seen = hub.cli(&["get", "sites", "-o", "json"]).json();
        for site in seen["items"].as_array().unwrap() {
            if site["status"]["conditions"].to_string().contains("\"Silent\"") {
                silent.insert(site["metadata"]["name"].to_string());
            }
        }
        let application = hub.cli(&["get", "application", "big", "-o", "json"]).json();
        let conditions = application["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        if is_ready { Ok(()) } else { Err(application["status"].to_string()) }
    });
    assert!(silent.is_empty(), "{silent:?}");
    sites.iter().for_each(|site| wait_for_blob(site, &digest));
    assert_eq!(hub_number(&hub, SENT), 3 * size, "nothing was sent twice");
    assert!(hub_number(&hub, "avocet_artifact_downloads_refused_total") >= 1);
}
