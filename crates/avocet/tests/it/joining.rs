//! Who may join a hub, and whom a site obeys.

use serde_json::json;
use testkit::{LIMIT, Ran, Site, wait_until};

use crate::support::{application, apply, model, placement, serving, tree, wait_until_model_answers};

#[track_caller]
pub fn wait_until_it_says(site: &Site, words: &str) {
    wait_until(&format!("{} says `{words}`", site.name), LIMIT, || {
        let said = site.process.output();
        if said.contains(words) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn promise_7_only_a_fresh_token_of_the_right_hub_lets_a_site_in() {
    let tree = tree();
    let hub = tree.hub("cloud");
    let other = tree.hub("elsewhere");
    let token = hub.join_token("edge");
    let ends_with = |name: &str, token: &str, words: &str| {
        let mut site = tree.site_with_token(&hub, name, token, &[]);
        site.process.start();
        assert!(!site.process.wait_for_end());
        let said = site.process.output();
        assert!(said.contains(words), "`{words}` is not in: {said}");
    };
    ends_with("nonsense", "nonsense", "the join token can't be read");
    let (secret, authority) = token.split_once('.').unwrap();
    let wrong = secret.chars().rev().collect::<String>();
    ends_with("wrong", &format!("{wrong}.{authority}"), "the join token is not known here");

    // With another authority the agent does not believe that this is the hub, and the secret stays unused.
    let (_, foreign) =
        other.join_token("x").split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mut deceived = tree.site_with_token(&hub, "deceived", &format!("{secret}.{foreign}"), &[]);
    deceived.process.start();
    wait_until_it_says(&deceived, "can't join yet");
    wait_until_it_says(&deceived, "certificate");

    let mut edge = tree.site_with_token(&hub, "edge", &token, &[]);
    edge.restart();
    ends_with("thief", &token, "used already");
    let sites = hub.cli(&["get", "sites", "-o", "name"]).ok();
    assert_eq!(sites, "site/cloud\nsite/edge\n");
    // The site itself needs the token no more.
    edge.kill_9();
    edge.restart();
}

#[test]
fn promise_7_another_hub_at_the_same_address_is_not_obeyed() {
    let tree = tree();
    let mut hub = tree.hub("cloud");
    let mut edge = tree.site(&hub, "edge", &[]);
    let models = application("models", &json!([serving("affine", "edge")]));
    apply(&tree, &hub, &[placement("edge"), model("affine"), models]);
    hub.wait_until_ready("models");
    hub.kill_9();

    // The worst of impostors: keys, tokens and all, but another hub, and one that assigns nothing.
    let stolen = tree.folder().join("processes/impostor/data");
    std::fs::create_dir_all(&stolen).unwrap();
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("-r").arg(hub.process.data().join("hub")).arg(&stolen);
    assert!(copied.status().unwrap().success());
    std::fs::copy(hub.kubeconfig(), stolen.join("kubeconfig")).unwrap();
    std::fs::remove_file(stolen.join("hub/id")).unwrap();
    let impostor = tree.hub_at("impostor", hub.port());
    impostor.cli(&["delete", "application/models"]).ok();
    wait_until_it_says(&edge, "is another hub");
    wait_until_model_answers(&edge, "affine");
    edge.kill_9();
    edge.restart();
    wait_until_it_says(&edge, "is another hub");
    wait_until_model_answers(&edge, "affine");

    // A stranger without the keys is not even asked.
    drop(impostor);
    let _stranger = tree.hub_at("stranger", hub.port());
    wait_until_it_says(&edge, "certificate");
    wait_until_model_answers(&edge, "affine");
    let Ran { success, .. } = edge.cli(&["get", "invocations"]);
    assert!(success);
}
