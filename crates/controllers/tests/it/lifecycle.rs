//! Namespaces, garbage, certificates: over a real store, with the loop that production runs.

use std::sync::Arc;
use std::time::Duration;

use avocet_controllers::{Applicant, Authority, Events, Signer, namespace_manifest, run_lifecycle};
use daemon::Tasks;
use serde_json::{Value, json};
use store::{Deletion, Key, Ledger, Object, Store};
use tokio::sync::watch;

/// Signs what says it is for the site plant.
struct FakeSigner;

impl Signer for FakeSigner {
    fn applicant(&self, request: &str) -> Result<Applicant, String> {
        let name = request.lines().nth(1).ok_or("no name in it")?;
        let groups = request.lines().skip(2).map(str::to_owned).collect();
        Ok(Applicant { name: name.to_owned(), groups })
    }

    fn sign(&self, request: &str, ttl: Duration, _usages: &[String]) -> Result<String, String> {
        Ok(format!("{} for {} s", self.applicant(request)?.name, ttl.as_secs()))
    }
}

pub(crate) struct Keeper {
    pub(crate) store: Store,
    tasks: Tasks,
    known_by: watch::Sender<Arc<str>>,
}

impl Keeper {
    pub(crate) fn start() -> Self {
        let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
        let started = Self {
            store: Store::open(Ledger::memory().unwrap(), &plurals).unwrap(),
            tasks: Tasks::default(),
            known_by: watch::Sender::new("the certificate".into()),
        };
        started.run();
        started
    }

    fn run(&self) {
        let (store, events) = (self.store.clone(), Events::new(self.store.clone()));
        let authority = Authority { certificates: self.known_by.subscribe(), signer: Arc::new(FakeSigner) };
        self.tasks.supervise("lifecycle", move |shutdown| {
            run_lifecycle(store.clone(), events.clone(), authority.clone(), shutdown)
        });
    }

    async fn create(&self, plural: &str, namespace: &str, name: &str, more: Value) -> Arc<Object> {
        let info = types::kind_named(plural).unwrap();
        let mut manifest =
            json!({"apiVersion": info.api_version(), "kind": info.kind, "metadata": {"name": name}});
        if info.namespaced {
            manifest["metadata"]["namespace"] = json!(namespace);
        }
        merge(&mut manifest, more);
        let manifest = info.admit(&manifest).unwrap();
        self.store.create(Key::new(info.plural, namespace, name), manifest, daemon::now()).await.unwrap()
    }

    async fn namespace(&self, name: &str) {
        let key = Key::new("namespaces", "", name);
        self.store.create(key, namespace_manifest(name), daemon::now()).await.unwrap();
    }

    async fn config(&self, namespace: &str, name: &str, owners: &[(&Object, bool)]) -> Arc<Object> {
        let owners: Vec<Value> = owners.iter().map(|(owner, blocks)| reference(owner, *blocks)).collect();
        self.create("configmaps", namespace, name, json!({"metadata": {"ownerReferences": owners}})).await
    }

    async fn delete(&self, object: &Object, finalizer: Option<&'static str>) {
        let deletion = Deletion { finalizer, ..Deletion::at(daemon::now()) };
        self.store.delete(object.key.clone(), deletion).await.unwrap();
    }

    /// Waits until an object is there, or gone, and as `holds` says.
    async fn until(&self, key: &Key, holds: impl Fn(Option<&Object>) -> bool) {
        let reached = async {
            let mut watch = self.store.watch(self.store.version()).unwrap();
            while !holds(self.store.get(key).as_deref()) {
                watch.next().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), reached).await.is_err() {
            panic!("{key} did not get there: {:#?}", self.store.get(key).map(|object| object.manifest()));
        }
    }

    async fn until_gone(&self, object: &Object) {
        self.until(&object.key, |found| found.is_none()).await;
    }

    fn owners(&self, object: &Object) -> Vec<String> {
        let found = self.store.get(&object.key).expect("it is there");
        found.metadata.owner_references.iter().map(|owner| owner.name.clone()).collect()
    }
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (field, value) in more {
                merge(into.entry(field).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn reference(owner: &Object, blocks: bool) -> Value {
    json!({
        "apiVersion": owner.manifest()["apiVersion"], "kind": owner.manifest()["kind"], "name": owner.key.name,
        "uid": owner.metadata.uid, "blockOwnerDeletion": blocks,
    })
}

fn condition(object: &Object, kind: &str) -> Value {
    let manifest = object.manifest();
    let conditions = manifest["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|entry| entry["type"] == kind)).cloned().unwrap_or_default()
}

#[tokio::test]
async fn sites_have_namespaces_and_those_of_people_have_an_account_and_the_certificate() {
    let keeper = Keeper::start();
    keeper.create("sites", "", "plant", json!({"spec": {"tier": "edge"}})).await;
    keeper.until(&Key::new("namespaces", "", "plant"), |found| found.is_some()).await;
    keeper.namespace("people").await;
    let certificate = Key::new("configmaps", "people", "kube-root-ca.crt");
    let has_it = |found: Option<&Object>| {
        found.is_some_and(|found| found.manifest()["data"] == json!({"ca.crt": "the certificate"}))
    };
    let account = Key::new("serviceaccounts", "people", "default");
    keeper.until(&account, |found| found.is_some()).await;
    keeper.until(&certificate, has_it).await;

    let first = keeper.store.get(&account).unwrap();
    keeper.delete(&first, None).await;
    keeper.until(&account, |found| found.is_some_and(|new| new.metadata.uid != first.metadata.uid)).await;
    let mut changed = keeper.store.get(&certificate).unwrap().manifest();
    changed["data"] = json!({"ca.crt": "another"});
    keeper.store.update(certificate.clone(), changed, false).await.unwrap();
    keeper.until(&certificate, has_it).await;
    // Nothing runs as an account in a site's.
    assert_eq!(keeper.store.count("serviceaccounts", "plant"), 0);
    assert_eq!(keeper.store.count("configmaps", "plant"), 0);
}

#[tokio::test]
async fn the_certificate_of_a_namespace_that_became_a_sites_stays_true() {
    let keeper = Keeper::start();
    keeper.namespace("plant").await;
    let certificate = Key::new("configmaps", "plant", "kube-root-ca.crt");
    keeper.until(&certificate, |found| found.is_some()).await;
    keeper.create("sites", "", "plant", json!({"spec": {"tier": "edge"}})).await;
    let mut changed = keeper.store.get(&certificate).unwrap().manifest();
    changed["data"] = json!({"ca.crt": "another"});
    keeper.store.update(certificate.clone(), changed, false).await.unwrap();
    keeper
        .until(&certificate, |found| {
            found.is_some_and(|found| found.manifest()["data"]["ca.crt"] == "the certificate")
        })
        .await;
}

#[tokio::test]
async fn a_namespace_that_goes_takes_everything_along_but_waits_for_finalizers() {
    let keeper = Keeper::start();
    keeper.namespace("a").await;
    keeper.namespace("b").await;
    let other = keeper.config("b", "other", &[]).await;
    let secret = keeper.create("secrets", "a", "s", json!({"type": "Opaque"})).await;
    let held =
        keeper.create("configmaps", "a", "held", json!({"metadata": {"finalizers": ["test/hold"]}})).await;
    let key = Key::new("namespaces", "", "a");
    let namespace = keeper.store.get(&key).unwrap();
    keeper.delete(&namespace, None).await;
    keeper.until_gone(&secret).await;
    keeper
        .until(&key, |found| {
            found.is_some_and(|found| {
                condition(found, "NamespaceContentRemaining")["message"]
                    == "Some resources are remaining: configmaps. has 1 resource instances"
                    && condition(found, "NamespaceFinalizersRemaining")["message"]
                        == "Some content in the namespace has finalizers remaining: test/hold in 1 resource instances"
                    && found.manifest()["status"]["phase"] == "Terminating"
            })
        })
        .await;
    let mut freed = keeper.store.get(&held.key).unwrap().manifest();
    freed["metadata"]["finalizers"] = json!([]);
    keeper.store.update(held.key.clone(), freed, false).await.unwrap();
    keeper.until_gone(&namespace).await;
    assert!(keeper.store.get(&other.key).is_some());
    for info in types::kinds().filter(|info| info.namespaced) {
        assert_eq!(keeper.store.list(info.plural, Some("a")).0.len(), 0, "{}", info.plural);
    }
}

#[tokio::test]
async fn what_lost_its_owners_goes_and_what_has_one_left_stays() {
    let keeper = Keeper::start();
    let (first, second) = (keeper.config("x", "first", &[]).await, keeper.config("x", "second", &[]).await);
    let both = keeper.config("x", "both", &[(&first, false), (&second, false)]).await;
    let one = keeper.config("x", "one", &[(&first, false)]).await;
    let below = keeper.config("x", "below", &[(&one, false)]).await;
    keeper.delete(&first, None).await;
    keeper.until_gone(&below).await;
    keeper.until_gone(&one).await;
    keeper
        .until(&both.key, |found| found.is_some_and(|found| found.metadata.owner_references.len() == 1))
        .await;
    assert_eq!(keeper.owners(&both), ["second"]);
}

#[tokio::test]
async fn an_owner_in_the_foreground_waits_for_those_that_block_it() {
    let keeper = Keeper::start();
    let owner = keeper.config("x", "owner", &[]).await;
    let blocking = keeper.config("x", "blocking", &[(&owner, true)]).await;
    let mut held = blocking.manifest();
    held["metadata"]["finalizers"] = json!(["test/hold"]);
    keeper.store.update(blocking.key.clone(), held, false).await.unwrap();
    let other = keeper.config("x", "other", &[(&owner, false)]).await;
    keeper.delete(&owner, Some("foregroundDeletion")).await;
    keeper.until_gone(&other).await;
    let is_going =
        |found: Option<&Object>| found.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
    keeper.until(&blocking.key, is_going).await;
    assert!(keeper.store.get(&owner.key).is_some());
    let mut freed = keeper.store.get(&blocking.key).unwrap().manifest();
    freed["metadata"]["finalizers"] = json!([]);
    keeper.store.update(blocking.key.clone(), freed, false).await.unwrap();
    keeper.until_gone(&owner).await;
}

#[tokio::test]
async fn orphans_stand_for_themselves() {
    let keeper = Keeper::start();
    let owner = keeper.config("x", "owner", &[]).await;
    let dependent = keeper.config("x", "dependent", &[(&owner, true)]).await;
    keeper.delete(&owner, Some("orphan")).await;
    keeper.until_gone(&owner).await;
    assert_eq!(keeper.owners(&dependent), Vec::<String>::new());
}

#[tokio::test]
async fn owners_that_own_each_other_do_not_wait_forever() {
    let keeper = Keeper::start();
    let first = keeper.config("x", "first", &[]).await;
    let second = keeper.config("x", "second", &[(&first, true)]).await;
    let mut circle = first.manifest();
    circle["metadata"]["ownerReferences"] = json!([reference(&second, true)]);
    keeper.store.update(first.key.clone(), circle, false).await.unwrap();
    keeper.delete(&first, Some("foregroundDeletion")).await;
    keeper.until_gone(&first).await;
    keeper.until_gone(&second).await;
}

#[tokio::test]
async fn an_owner_in_another_namespace_counts_as_gone_and_that_is_told() {
    let keeper = Keeper::start();
    keeper.namespace("default").await;
    let owner = keeper.config("x", "owner", &[]).await;
    // Nobody can say whether the owner of this one is there, so it stays.
    let role = json!({"metadata": {"ownerReferences": [reference(&owner, false)]}});
    let everywhere = keeper.create("clusterroles", "", "everywhere", role).await;
    let astray = keeper.config("y", "astray", &[(&owner, false)]).await;
    keeper.until_gone(&astray).await;
    for (namespace, name) in [("y", "astray"), ("default", "everywhere")] {
        let told = |store: &Store| {
            store.list("events", Some(namespace)).0.iter().any(|event| {
                event.manifest()["reason"] == "OwnerRefInvalidNamespace"
                    && event.manifest()["involvedObject"]["name"] == name
            })
        };
        let mut watch = keeper.store.watch(keeper.store.version()).unwrap();
        while !told(&keeper.store) {
            tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
        }
    }
    assert!(keeper.store.get(&everywhere.key).is_some());
    assert!(keeper.store.get(&owner.key).is_some());
}

#[tokio::test]
async fn what_was_left_over_before_a_start_is_dealt_with() {
    let keeper = Keeper::start();
    let owner = keeper.config("x", "owner", &[]).await;
    let dependent = keeper.config("x", "dependent", &[(&owner, false)]).await;
    let Keeper { store, tasks, known_by } = keeper;
    assert!(tasks.end(Duration::from_secs(5)).await);
    store.delete(owner.key.clone(), Deletion::at(daemon::now())).await.unwrap();
    let keeper = Keeper { store, tasks: Tasks::default(), known_by };
    keeper.run();
    keeper.until_gone(&dependent).await;
}

async fn request(keeper: &Keeper, name: &str, signer: &str, user: &str, lines: &[&str]) -> Arc<Object> {
    use base64::Engine as _;
    let text = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}", lines.join("\n"));
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    let spec = json!({"request": encoded, "signerName": signer, "usages": ["client auth"], "username": user});
    keeper.create("certificatesigningrequests", "", name, json!({"spec": spec})).await
}

fn certificate(object: &Object) -> String {
    use base64::Engine as _;
    let manifest = object.manifest();
    let text = manifest["status"]["certificate"].as_str().unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_site_gets_its_own_certificate_at_once_and_no_other() {
    let keeper = Keeper::start();
    const SITES: &str = "avocet.dev/site";
    let own = request(&keeper, "own", SITES, "site:plant", &["site:plant", "avocet:sites"]).await;
    keeper
        .until(&own.key, |found| found.is_some_and(|found| certificate(found) == "site:plant for 86400 s"))
        .await;
    for (name, lines) in [
        ("other", &["site:shop", "avocet:sites"][..]),
        ("more", &["site:plant", "avocet:sites", "system:masters"]),
    ] {
        let refused = request(&keeper, name, SITES, "site:plant", lines).await;
        let is_denied =
            |found: Option<&Object>| found.is_some_and(|found| !condition(found, "Denied").is_null());
        keeper.until(&refused.key, is_denied).await;
    }
}

#[tokio::test]
async fn other_certificates_are_signed_once_somebody_approved() {
    let keeper = Keeper::start();
    const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";
    for (name, lines, expected) in [
        ("ann", &["ann", "users"][..], "ann for 7776000 s"),
        ("boss", &["boss", "system:masters"], ""),
        ("nobody", &[""], ""),
    ] {
        let asked = request(&keeper, name, CLIENTS, "admin", lines).await;
        let mut approved = asked.manifest();
        approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        keeper.store.update(asked.key.clone(), approved, true).await.unwrap();
        keeper
            .until(&asked.key, |found| {
                found.is_some_and(|found| match expected {
                    "" => condition(found, "Failed")["reason"] == "SignerValidationFailure",
                    expected => certificate(found) == expected,
                })
            })
            .await;
    }
}
