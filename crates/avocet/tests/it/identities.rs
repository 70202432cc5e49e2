//! What sites prove with who they are: certificates that come, are renewed, end, and are taken away.

use std::path::Path;

use daemon::tls::ClientCertificate;
use serde_json::{Value, json};
use testkit::{Hub, LIMIT, Ran, Site, Tree, wait_until};

use crate::joining::wait_until_it_says;
use crate::support::{
    application, apply, http, model, ours, placement, serving, tree, wait_until_model_answers,
};

fn credential(site: &Site) -> String {
    std::fs::read_to_string(site.data().join("credential.pem")).unwrap_or_default()
}

fn certificate(site: &Site) -> ClientCertificate {
    ClientCertificate::of_pem(&credential(site)).unwrap()
}

/// What a hub says to who shows this credential.
fn ask_with(hub: &Hub, credential: &str, method: &str, path: &str) -> Result<Value, api::client::Error> {
    let authority = std::fs::read_to_string(hub.process.data().join("hub/ca.crt")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = api::Client::with_certificate(&hub.url(), &authority, credential).unwrap();
        client.json(client.request(method.parse().unwrap(), path).body("{}")).await
    })
}

const WHOAMI: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn condition(hub: &Hub, site: &str, kind: &str) -> Value {
    let seen = hub.cli(&["get", "site", site, "-o", "json"]).json();
    let conditions = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

#[track_caller]
fn wait_for_condition(hub: &Hub, site: &str, kind: &str, field: &str, expected: &str) {
    wait_until(&format!("{kind} of {site} has {field} {expected}"), LIMIT, || {
        let found = condition(hub, site, kind);
        if found[field] == expected { Ok(()) } else { Err(found.to_string()) }
    });
}

/// Assigns a model to the edge, which it hears of only if the hub lets it in.
#[track_caller]
fn assign(tree: &Tree, hub: &Hub, name: &str) {
    let serves = application(name, &json!([serving(name, "edge")]));
    apply(tree, hub, &[placement("edge"), model(name), serves]);
}

#[test]
fn promise_7_a_site_proves_itself_with_a_key_that_never_left_its_disk() {
    use std::os::unix::fs::PermissionsExt;
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    let file = edge.data().join("credential.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let membership = std::fs::read_to_string(edge.data().join("membership.json")).unwrap();
    assert!(!membership.contains("secret"), "{membership}");
    assert!(!edge.data().join("joining-key.pem").exists());
    let told = ask_with(&hub, &credential(&edge), "POST", WHOAMI).unwrap();
    assert_eq!(told["status"]["userInfo"]["username"], "site:edge");
    // Neither is a bearer token of a site left at the hub.
    let tokens = hub.cli(&["token", "list", "-o", "json"]).ok();
    assert!(!tokens.contains("site:"), "{tokens}");
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    wait_for_condition(&hub, "edge", "ClockSynced", "status", "True");
}

#[test]
fn promise_7_where_a_person_approves_nobody_is_in_before() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let made = |name: &str| {
        let create = ["join-token", "create", "--site", name, "--approve", "manual", "--label", "line=3"];
        hub.cli(&[&create[..], &["-o", "json"]].concat()).json()["token"].as_str().unwrap().to_owned()
    };
    let mut edge = tree.site_with_token(&hub, "edge", &made("edge"), &[]);
    edge.process.start();
    wait_until_it_says(&edge, "waiting until a person approves");
    let listed = hub.cli(&["certificate", "list"]).ok();
    let line = listed.lines().find(|line| line.contains("site:edge")).unwrap().to_owned();
    assert!(line.contains("Pending"), "{line}");
    assert_eq!(hub.cli(&["get", "sites", "-o", "name"]).ok(), "site/cloud\n");
    let request = line.split_whitespace().next().unwrap();
    hub.cli(&["certificate", "approve", request]).ok();
    wait_until_it_says(&edge, "site edge is up");
    let site = hub.cli(&["get", "site", "edge", "-o", "json"]).json();
    assert_eq!(site["metadata"]["labels"]["line"], "3");

    let mut other = tree.site_with_token(&hub, "other", &made("other"), &[]);
    other.process.start();
    wait_until_it_says(&other, "waiting until a person approves");
    let listed = hub.cli(&["certificate", "list"]).ok();
    let line = listed.lines().find(|line| line.contains("site:other")).unwrap().to_owned();
    let request = line.split_whitespace().next().unwrap();
    hub.cli(&["certificate", "deny", request, "--message", "not ours"]).ok();
    assert!(!other.process.wait_for_end());
    assert!(other.process.output().contains("denied this machine to join: not ours"));
}

#[test]
fn certificates_are_renewed_while_there_is_time_and_nothing_notices() {
    let tree = tree();
    let hub = tree.hub_with("cloud", &["--site-certificate-ttl", "24s"]);
    let edge = tree.site(&hub, "edge", &[]);
    let first = certificate(&edge);
    wait_until("the certificate is another", LIMIT, || {
        let now = certificate(&edge);
        if now.digest == first.digest { Err("it is the first".to_owned()) } else { Ok(()) }
    });
    assert!(first.is_good(daemon::now()), "it comes while the one before is good");
    assert_eq!(certificate(&edge).key, first.key);
    wait_until("the first has ended", LIMIT, || {
        if first.is_good(daemon::now()) { Err("it is good".to_owned()) } else { Ok(()) }
    });
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
}

#[test]
fn promise_1_a_site_whose_certificate_ended_while_it_was_away_comes_back_by_itself() {
    let tree = tree();
    let hub = tree.hub_with("cloud", &["--site-certificate-ttl", "10s"]);
    let mut edge = tree.site(&hub, "edge", &[]);
    edge.kill_9();
    let last = certificate(&edge);
    wait_until("the certificate has ended", LIMIT, || {
        if last.is_good(daemon::now()) { Err("it is good".to_owned()) } else { Ok(()) }
    });
    assert!(ask_with(&hub, &credential(&edge), "POST", WHOAMI).is_err());
    edge.restart();
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    assert_eq!(certificate(&edge).key, last.key);
}

#[test]
fn promise_1_a_site_whose_disk_takes_no_new_certificate_is_let_in_by_it_and_keeps_it_later() {
    let tree = tree();
    let hub = tree.hub_with("cloud", &["--site-certificate-ttl", "10s"]);
    let mut edge = tree.site(&hub, "edge", &[]);
    edge.kill_9();
    let last = certificate(&edge);
    // Neither a certificate nor which start it is can be written, as on a disk that is full.
    let stuck = ["credential.pem.new", "instance.new"].map(|name| edge.data().join(name));
    for path in &stuck {
        // It may have been ended in the middle of a write.
        path.is_file().then(|| std::fs::remove_file(path).unwrap());
        std::fs::create_dir_all(path.join("by a folder")).unwrap();
    }
    wait_until("the certificate has ended", LIMIT, || {
        if last.is_good(daemon::now()) { Err("it is good".to_owned()) } else { Ok(()) }
    });
    edge.restart();
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    wait_until_it_says(&edge, "can't be kept yet");
    assert_eq!(certificate(&edge).digest, last.digest);
    // It goes on with the next ones, too.
    wait_until_it_says(&edge, "can't note that the hub was reached");
    edge.kill_9();
    edge.restart();
    assign(&tree, &hub, "second");
    wait_until_model_answers(&edge, "second");
    stuck.iter().for_each(|path| std::fs::remove_dir_all(path).unwrap());
    wait_until("the certificate is kept", LIMIT, || {
        if certificate(&edge).digest == last.digest { Err("it is the last".to_owned()) } else { Ok(()) }
    });
    assert_eq!(certificate(&edge).key, last.key);
}

/// A library that shifts the clock of the process that loads it.
fn shifted_clock(tree: &Tree) -> String {
    let source = ours("tests/data/clock.c");
    let library = tree.folder().join("clock.so").display().to_string();
    let mut compile = std::process::Command::new("cc");
    Ran::of(compile.args(["-shared", "-fPIC", "-o", &library]).arg(source)).ok();
    library
}

#[test]
fn promise_1_a_clock_that_is_an_hour_off_changes_nothing() {
    let tree = tree();
    let hub = tree.hub_with("cloud", &["--site-certificate-ttl", "24s"]);
    let library = shifted_clock(&tree);
    for (name, shift, words) in [("early", "3600", "s ahead of"), ("late", "-3600", "s behind")] {
        let mut site = tree.site_with_token(&hub, name, &hub.join_token(name), &["--tier", name]);
        site.process.set("LD_PRELOAD", &library);
        site.process.set("CLOCK_SHIFT", shift);
        site.restart();
        wait_until(&format!("the clock of {name} is told"), LIMIT, || {
            let told = condition(&hub, name, "ClockSynced");
            let is_told = told["message"].as_str().is_some_and(|message| message.contains(words));
            if is_told { Ok(()) } else { Err(told.to_string()) }
        });
        let first = certificate(&site);
        wait_until("the certificate is another", LIMIT, || {
            if certificate(&site).digest == first.digest { Err("it is the first".to_owned()) } else { Ok(()) }
        });
        assert!(first.is_good(daemon::now()), "it comes while the one before is good");
        let serves = application(name, &json!([serving(name, name)]));
        apply(&tree, &hub, &[placement(name), model(name), serves]);
        wait_until_model_answers(&site, name);
        wait_for_condition(&hub, name, "Ready", "status", "True");
    }
}

#[test]
fn promise_1_a_machine_whose_clock_begins_in_1970_joins_and_comes_back() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let library = shifted_clock(&tree);
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    edge.process.set("LD_PRELOAD", &library);
    let shift = 3600 - daemon::now().0.as_second();
    edge.process.set("CLOCK_SHIFT", &shift.to_string());
    edge.restart();
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    edge.kill_9();
    edge.restart();
    assign(&tree, &hub, "second");
    wait_until_model_answers(&edge, "second");
}

#[test]
fn promise_7_a_revoked_site_is_out_at_once_and_runs_on() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    hub.cli(&["site", "revoke", "edge"]).ok();
    let refused = ask_with(&hub, &credential(&edge), "POST", WHOAMI).unwrap_err();
    assert_eq!(refused.code(), Some(401));
    assert!(refused.to_string().contains("were revoked"), "{refused}");
    wait_until_it_says(&edge, "were revoked");
    wait_for_condition(&hub, "edge", "Ready", "reason", "Revoked");
    // Also after a restart of both.
    edge.kill_9();
    edge.restart();
    wait_until_it_says(&edge, "were revoked");
    wait_until_model_answers(&edge, "affine");
    // A new token for the same name brings it back, as it was.
    edge.kill_9();
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    edge.restart();
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    assign(&tree, &hub, "second");
    wait_until_model_answers(&edge, "second");
    wait_until_model_answers(&edge, "affine");
}

#[test]
fn a_machine_that_lost_its_disk_becomes_the_same_site_again() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    let lost = credential(&edge);
    edge.kill_9();
    std::fs::remove_dir_all(edge.process.data()).unwrap();
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    let refused = ask_with(&hub, &lost, "POST", WHOAMI).unwrap_err();
    assert!(refused.to_string().contains("joined anew with another key"), "{refused}");
    let renewed = ask_with(&hub, &credential(&edge), "POST", WHOAMI).unwrap();
    assert_eq!(renewed["status"]["userInfo"]["username"], "site:edge");
}

#[test]
fn a_site_gets_another_key_by_joining_anew_and_a_copy_of_the_old_one_is_worth_nothing() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    let copied = credential(&edge);
    edge.kill_9();
    let mut edge = tree.site_with_token(&hub, "edge", &hub.join_token("edge"), &[]);
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    let key = |credential: &str| credential.split("-----BEGIN CERTIFICATE").next().unwrap().to_owned();
    assert_ne!(key(&credential(&edge)), key(&copied));
    let refused = ask_with(&hub, &copied, "POST", WHOAMI).unwrap_err();
    assert!(refused.to_string().contains("joined anew with another key"), "{refused}");
    // The token that the agent was started with is used up: a further start goes on with the new key.
    let now = key(&credential(&edge));
    edge.kill_9();
    edge.restart();
    wait_until_model_answers(&edge, "affine");
    assert_eq!(key(&credential(&edge)), now);
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&source, &target);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

#[test]
fn of_two_machines_with_one_identity_the_second_is_refused_and_told_of() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let edge = tree.site(&hub, "edge", &[]);
    wait_until("the edge was at the hub", LIMIT, || {
        if edge.data().join("instance").exists() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let mut copy = tree.site_with_token(&hub, "copy", "none", &[]);
    copy_folder(&edge.data(), &copy.data());
    copy.process.start();
    wait_until_it_says(&copy, "another machine is site `edge` already");
    wait_for_condition(&hub, "edge", "DuplicateIdentity", "status", "True");
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    copy.kill_9();
    wait_for_condition(&hub, "edge", "DuplicateIdentity", "status", "False");
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
    assert!(!edge.process.output().contains("another machine"), "{}", edge.process.output());
}

#[test]
fn a_site_keeps_its_name() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    edge.kill_9();
    let mut renamed = tree.site_with_token(&hub, "edge", &hub.join_token("other"), &[]);
    renamed.process.start();
    assert!(!renamed.process.wait_for_end());
    assert!(renamed.process.output().contains("a site keeps its name"), "{}", renamed.process.output());
    assert_eq!(hub.cli(&["get", "sites", "-o", "name"]).ok(), "site/cloud\nsite/edge\n");
    hub.kill_9();
    let data = hub.process.data().display().to_string();
    let refused = hub.cli(&["up", "--site", "sky", "--data", &data, "--listen", "127.0.0.1:0"]).refused();
    assert!(refused.contains("a site keeps its name"), "{refused}");
}

#[test]
fn a_site_from_before_certificates_gets_one_in_place_of_its_secret() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let token = hub.join_token("edge");
    let mut edge = tree.site_with_token(&hub, "edge", &token, &[]);
    let parts: Vec<&str> = token.split('.').collect();
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let secret = "s".repeat(64);
    let plain = hub.url().replace("https://", "http://");
    let join = json!({"token": parts[0], "secret": secret, "tier": "edge", "labels": {}});
    let (code, body) = http("POST", &format!("{plain}/avocet/v1/join"), "", &join).unwrap();
    assert_eq!(code, 200, "{body}");
    let joined: Value = serde_json::from_str(&body).unwrap();
    // As version 0.1.0 wrote it, joined over plain HTTP on loopback.
    let membership = json!({
        "site": "edge", "url": plain, "hub": joined["hub"], "parent": "cloud",
        "authority": String::from_utf8(authority).unwrap(), "secret": secret,
    });
    std::fs::create_dir_all(edge.data()).unwrap();
    std::fs::write(edge.data().join("membership.json"), membership.to_string()).unwrap();
    edge.restart();
    wait_until("the site has a certificate", LIMIT, || {
        let membership = std::fs::read_to_string(edge.data().join("membership.json")).unwrap();
        if membership.contains(&secret) { Err(membership) } else { Ok(()) }
    });
    let path = "/apis/avocet.dev/v1alpha1/namespaces/edge/assignments";
    assert_eq!(http("GET", &format!("{plain}{path}"), &secret, &Value::Null).unwrap().0, 401);
    ask_with(&hub, &credential(&edge), "GET", path).unwrap();
    assign(&tree, &hub, "affine");
    wait_until_model_answers(&edge, "affine");
    edge.kill_9();
    edge.restart();
    wait_for_condition(&hub, "edge", "Ready", "status", "True");
}
