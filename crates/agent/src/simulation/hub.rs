//! A hub with its real API over a folder that outlives it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use api::audit::Audit;
use api::authentication::{DEFAULT_ISSUER, Identities, IdentityOptions, ServiceAccounts, Tokens, User};
use api::rbac::Rbac;
use api::{Client, Hub, Trust};
use artifacts::Blobs;
use axum::Router;
use axum::middleware::from_fn_with_state;
use daemon::Tasks;
use daemon::tls::Authorities;
use registry::Registry;
use reqwest::Method;
use serde_json::json;
use store::{Key, Ledger, Store};
use tokio::net::TcpListener;
use types::{AssignmentSpec, Kind, SiteSpec};

use super::faults::{Faults, meddle};
use crate::inbox::Waiting;

pub struct RunningHub {
    hub: Hub,
    url: String,
    /// Where nothing goes wrong, for those who judge.
    clean: String,
    tasks: Tasks,
}

impl RunningHub {
    pub async fn start(folder: &Path, faults: &Faults) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let tasks = Tasks::default();
        let ledger = Ledger::open(&folder.join("hub.db")).unwrap();
        let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
        let store = Store::open(ledger.clone(), &plurals).unwrap();
        let authorities = Authorities::open(&folder.join("authority")).unwrap();
        let trust = Trust::new(authorities, "");
        let blobs = Blobs::open(folder.join("blobs")).unwrap();
        let uploads = folder.join("blobs/uploads");
        let registry =
            Registry::open(&uploads, blobs.clone(), ledger.clone(), registry::Limits::default()).unwrap();
        let hub = Hub {
            id: "hub-1".into(),
            site: "cloud".into(),
            store: store.clone(),
            tokens: Tokens::new(ledger.clone()),
            identities: Identities::open(ledger.clone(), trust, IdentityOptions::default()).unwrap(),
            site_tokens: api::SiteTokens::open(&folder.join("site-tokens.key")).unwrap(),
            service_accounts: ServiceAccounts::open(&folder.join("service-account.key"), DEFAULT_ISSUER)
                .unwrap(),
            oidc: None,
            heartbeats: controllers::Heartbeats::new(Duration::from_secs(30)),
            blobs,
            parent: None,
            registry,
            relay: api::Relay::default(),
            peers: api::Peers::default(),
            outlooks: api::Outlooks::default(),
            egress: api::Egress::default(),
            mailbox: api::Mailbox::open(&folder.join("mailbox"), ledger).unwrap(),
            sources: controllers::SourceQueue::default(),
            errands: controllers::Errands::default(),
            pages: api::Pages::default(),
            limits: api::Limits::default(),
            rbac: Rbac::new(store),
            quota_turns: api::QuotaTurns::default(),
            metrics: api::Metrics::default(),
            audit: Audit::off(),
            shutdown: tasks.shutdown(),
        };
        api::bootstrap(&hub.store, daemon::now()).await.unwrap();
        let router = api::router(hub.clone());
        let clean = serve(router.clone(), &tasks).await;
        let url = serve(router.layer(from_fn_with_state(faults.clone(), meddle)), &tasks).await;
        Self { hub, url, clean, tasks }
    }

    /// Lets sites in, each of which may write to all others.
    pub async fn welcome(&self, sites: &[&str]) {
        for site in sites {
            self.hub.tokens.grant(&token(site), User::site_agent(site)).await.unwrap();
            let create = async |plural: &str, namespace: &str, manifest: serde_json::Value| {
                let info = types::kind_named(plural).unwrap();
                let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
                let key = Key::new(info.plural, namespace, name);
                self.hub.store.create(key, manifest, daemon::now()).await.unwrap();
            };
            let manifest = |kind: &str, name: &str, spec: serde_json::Value| json!({"apiVersion": types::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
            create(SiteSpec::PLURAL, "", manifest("Site", site, json!({"tier": "edge"}))).await;
            let output = json!({"to": {"path": "photos/out"}, "sites": sites});
            let spec = json!({"applicationNamespace": "default", "application": "a", "applicationUid": "1",
                "component": "c", "outputs": [output]});
            create(AssignmentSpec::PLURAL, site, manifest("Assignment", "a", spec)).await;
        }
    }

    /// A new connection of a site.
    pub fn client(&self, site: &str) -> Client {
        Client::new(&self.url, &token(site), None).unwrap().with_patience(Duration::from_secs(20))
    }

    /// The ids of what is in a site's box.
    pub async fn waiting(&self, site: &str) -> BTreeSet<String> {
        let client = Client::new(&self.clean, &token(site), None).unwrap();
        let path = format!("/avocet/v1/mailbox/{site}");
        let waiting: Waiting = client.json(client.request(Method::GET, &path)).await.unwrap();
        waiting.deliveries.into_iter().map(|delivery| delivery.id).collect()
    }

    pub async fn stop(self) {
        self.tasks.end(Duration::from_secs(1)).await;
    }
}

/// Serves until the end; answers where.
async fn serve(router: Router, tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = tasks.shutdown();
    tasks.spawn("hub", async move {
        let ends = async move { shutdown.wait().await };
        axum::serve(listener, router).with_graceful_shutdown(ends).await.unwrap();
    });
    url
}

fn token(site: &str) -> String {
    format!("the token of the site {site}, long enough")
}
