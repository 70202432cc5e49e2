//! A hub in this process, and a client that shows all of its answers.

use std::sync::Arc;
use std::time::Duration;

use artifacts::Blobs;
use avocet_api::audit::{Audit, Options};
use avocet_api::authentication::{
    DEFAULT_ISSUER, Identities, IdentityOptions, Oidc, ServiceAccounts, Tokens, User,
};
use avocet_api::rbac::Rbac;
use avocet_api::{Hub, Limits, Mailbox, Metrics, Pages, QuotaTurns, SiteTokens, Trust};
use controllers::Heartbeats;
use daemon::Tasks;
use daemon::tls::Authorities;
use registry::Registry;
use reqwest::Method;
use serde_json::{Value, json};
use store::{Ledger, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const ADMIN: &str = "the admin's token, long enough to be one";
pub const PLANT: &str = "the token of the site plant, long enough";

/// What a hub answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub text: String,
}

impl Answer {
    /// The body, read as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The body of an answer that must have this code.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }
}

/// A hub without controllers, with an admin and the sites `plant` and `shop`.
pub struct TestHub {
    pub hub: Hub,
    pub url: String,
    ledger: Ledger,
    pub http: reqwest::Client,
    pub tasks: Tasks,
    folder: TempDir,
}

impl TestHub {
    pub async fn start() -> Self {
        Self::trusting(None).await
    }

    /// The same, which also takes the tokens of an OpenID Connect issuer.
    pub async fn trusting(oidc: Option<Arc<Oidc>>) -> Self {
        let started = Self::over(Ledger::memory().unwrap(), oidc).await;
        started.hub.tokens.grant(ADMIN, User::admin()).await.unwrap();
        started.hub.tokens.grant(PLANT, User::site_agent("plant")).await.unwrap();
        for site in ["plant", "shop"] {
            started.create_namespace(site).await;
            started.post("sites", &manifest("Site", site, json!({"tier": "edge"}))).await.expect(201);
        }
        // What joining would do: the sites get their rights.
        avocet_api::bootstrap(&started.hub.store, daemon::now()).await.unwrap();
        started
    }

    /// The lines of the audit log, once all requests up to now are in it.
    pub async fn audited(&self) -> Vec<Value> {
        self.ask_json("POST", "/the-end", ADMIN, &Value::Null).await.expect(404);
        loop {
            let text = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
            if text.contains("/the-end") && text.ends_with('\n') {
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn over(ledger: Ledger, oidc: Option<Arc<Oidc>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let audit = Audit::start(Options::to(folder.path().join("audit.log")), &tasks).unwrap();
        let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
        let store = Store::open(ledger.clone(), &plurals).unwrap();
        let authorities = Authorities::open(&folder.path().join("authority")).unwrap();
        let trust = Trust::new(authorities, "");
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let uploads = folder.path().join("blobs/uploads");
        let registry =
            Registry::open(&uploads, blobs.clone(), ledger.clone(), registry::Limits::default()).unwrap();
        let hub = Hub {
            id: "hub-1".into(),
            site: "cloud".into(),
            store: store.clone(),
            tokens: Tokens::new(ledger.clone()),
            identities: Identities::open(ledger.clone(), trust, IdentityOptions::default()).unwrap(),
            site_tokens: SiteTokens::open(&folder.path().join("site-tokens.key")).unwrap(),
            service_accounts: ServiceAccounts::open(
                &folder.path().join("service-account.key"),
                DEFAULT_ISSUER,
            )
            .unwrap(),
            oidc,
            heartbeats: Heartbeats::new(Duration::from_secs(30)),
            blobs,
            parent: None,
            registry,
            relay: avocet_api::Relay::default(),
            peers: avocet_api::Peers::default(),
            outlooks: avocet_api::Outlooks::default(),
            egress: avocet_api::Egress::default(),
            mailbox: Mailbox::open(&folder.path().join("mailbox"), ledger.clone()).unwrap(),
            sources: controllers::SourceQueue::default(),
            errands: controllers::Errands::default(),
            pages: Pages::default(),
            limits: Limits::default(),
            rbac: Rbac::new(store),
            quota_turns: QuotaTurns::default(),
            metrics: Metrics::default(),
            audit,
            shutdown: tasks.shutdown(),
        };
        avocet_api::bootstrap(&hub.store, daemon::now()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = avocet_api::router(hub.clone());
        tasks.spawn("api", async move { axum::serve(listener, router).await.unwrap() });
        Self { hub, url, ledger, http: avocet_api::client::http(None).unwrap(), tasks, folder }
    }

    /// The hub after a restart: its ledger is the same, what happened before is forgotten.
    pub async fn restart(self) -> Self {
        self.tasks.end(Duration::from_millis(1)).await;
        Self::over(self.ledger, None).await
    }

    pub async fn create_namespace(&self, name: &str) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.ask_json("POST", "/api/v1/namespaces", ADMIN, &namespace).await.expect(201);
    }

    /// A request with a token, a media type and a body.
    pub async fn ask(&self, method: &str, path: &str, token: &str, kind: &str, body: Vec<u8>) -> Answer {
        let method: Method = method.parse().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(token);
        let response = request.header("content-type", kind).body(body).send().await.unwrap();
        let code = response.status().as_u16();
        Answer { code, text: response.text().await.unwrap() }
    }

    /// A request of someone with a JSON body; null sends none.
    pub async fn ask_json(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
        self.ask(method, path, token, "application/json", body).await
    }

    /// Whom the hub takes the bearer of a token for.
    pub async fn whoami(&self, token: &str) -> Value {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        self.ask_json("POST", path, token, &json!({})).await.expect(201)["status"]["userInfo"].clone()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask_json("GET", &resource(path), ADMIN, &Value::Null).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask_json("POST", &resource(path), ADMIN, body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask_json("PUT", &resource(path), ADMIN, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask_json("DELETE", &resource(path), ADMIN, &Value::Null).await
    }

    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Answer {
        let body = patch.to_string().into_bytes();
        self.ask("PATCH", &resource(path), ADMIN, "application/merge-patch+json", body).await
    }

    pub async fn json_patch(&self, path: &str, patch: &Value) -> Answer {
        let body = patch.to_string().into_bytes();
        self.ask("PATCH", &resource(path), ADMIN, "application/json-patch+json", body).await
    }
}

/// The whole path of a resource.
pub fn resource(path: &str) -> String {
    format!("/apis/avocet.dev/v1alpha1/{path}")
}

pub fn manifest(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "avocet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub fn placement(name: &str) -> Value {
    manifest("Placement", name, json!({"tiers": ["edge"]}))
}

/// What the site plant is to run, as a controller would write it.
pub fn assignment(name: &str) -> Value {
    let output = json!({"to": {"path": "photos/out"}, "sites": ["shop"]});
    let spec = json!({
        "applicationNamespace": "default", "application": "a", "applicationUid": "1", "component": "c",
        "outputs": [output],
    });
    manifest("Assignment", name, spec)
}

/// Where placements of the namespace `default` are.
pub const PLACEMENTS: &str = "namespaces/default/placements";
