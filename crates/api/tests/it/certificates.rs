//! Clients and servers with certificates, over real TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::tls::{self, Authority, Served, Source, Usage};
use reqwest::{Method, Version};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{ADMIN, TestHub, resource};

pub const NAME: &str = "hub.example";
pub const HOUR: Duration = Duration::from_secs(3600);
const CLIENT: &[Usage] = &[Usage::DigitalSignature, Usage::ClientAuth];

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// An authority, and the folder that it is in.
pub struct TestAuthority {
    pub authority: Arc<Authority>,
    _folder: TempDir,
}

impl TestAuthority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { authority: Arc::new(Authority::open(folder.path()).unwrap()), _folder: folder }
    }

    fn served(&self) -> Arc<Served> {
        let authorities = tls::Authorities::only(self.authority.clone());
        let names = vec![NAME.to_owned(), "localhost".to_owned()];
        Served::open(Source::Authority { authorities, names }, daemon::now()).unwrap()
    }

    pub fn client(&self, name: &str, group: &str, ttl: Duration, now: types::Time) -> Pair {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let key = rcgen::KeyPair::generate().unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let certificate = self.authority.sign(&request, ttl, CLIENT, now).unwrap();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// A hub that serves over TLS, as `avocet hub` does.
pub struct SecureHub {
    pub hub: TestHub,
    pub address: SocketAddr,
}

impl SecureHub {
    async fn start(served: Arc<Served>, clients: &str) -> Self {
        Self::speaking(tls::server(served, clients).unwrap()).await
    }

    async fn speaking(config: Arc<rustls::ServerConfig>) -> Self {
        let hub = TestHub::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = hub.hub.clone();
        hub.tasks.spawn("secure", async move { avocet_api::serve(listener, config, serving).await });
        Self { hub, address }
    }

    /// With a certificate of its own authority.
    pub async fn with(authority: &TestAuthority) -> Self {
        Self::start(authority.served(), authority.authority.certificate()).await
    }

    /// The same, of a version that speaks HTTP only.
    pub async fn of_old(authority: &TestAuthority) -> Self {
        let config = tls::server(authority.served(), authority.authority.certificate()).unwrap();
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols.retain(|protocol| protocol != tls::MULTIPLEXED);
        Self::speaking(Arc::new(config)).await
    }

    fn http(&self, config: rustls::ClientConfig) -> reqwest::Client {
        let client = reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy();
        client.resolve(NAME, self.address).build().unwrap()
    }

    fn client(&self, authority: &str, pair: Option<&Pair>) -> reqwest::Client {
        self.http(match pair {
            Some(pair) => tls::client_with_certificate(authority, &pair.certificate, &pair.key).unwrap(),
            None => tls::client(authority).unwrap(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.address.port())
    }

    async fn get(&self, client: &reqwest::Client, path: &str) -> Result<(u16, Value), reqwest::Error> {
        let response = client.get(self.url(path)).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    async fn whoami(&self, client: &reqwest::Client) -> Value {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let request = client.request(Method::POST, self.url(path)).body("{}");
        request.send().await.unwrap().json::<Value>().await.unwrap()["status"]["userInfo"].clone()
    }
}

#[tokio::test]
async fn promise_7_a_client_certificate_says_who_its_bearer_is() {
    let authority = TestAuthority::new();
    let hub = SecureHub::with(&authority).await;
    let ca = authority.authority.certificate();
    let now = daemon::now();
    let admin = hub.client(ca, Some(&authority.client("anna", "system:masters", HOUR, now)));
    let told = hub.whoami(&admin).await;
    assert_eq!(told["username"], "anna");
    assert_eq!(told["groups"], serde_json::json!(["system:masters", "system:authenticated"]));
    let id = told["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("X509SHA256="), "{id}");
    assert_eq!(hub.get(&admin, &resource("sites")).await.unwrap().0, 200);
    let other = hub.client(ca, Some(&authority.client("ben", "operators", HOUR, now)));
    assert_eq!(hub.get(&other, &resource("sites")).await.unwrap().0, 403);
    let nobody = hub.client(ca, None);
    let (code, status) = hub.get(&nobody, &resource("sites")).await.unwrap();
    assert_eq!(
        (code, &status["message"], &status["reason"]),
        (401, &"Unauthorized".into(), &"Unauthorized".into())
    );
    let token = nobody.get(hub.url(&resource("sites"))).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(token.status(), 200, "a token does without a certificate");
}

#[tokio::test]
async fn clients_choose_http_2_or_1_and_are_answered_alike() {
    let authority = TestAuthority::new();
    let hub = SecureHub::with(&authority).await;
    let ca = authority.authority.certificate();
    let anna = authority.client("anna", "system:masters", HOUR, daemon::now());
    for (protocol, version) in [(tls::HTTP_2, Version::HTTP_2), (tls::HTTP_1, Version::HTTP_11)] {
        let mut config = tls::client_with_certificate(ca, &anna.certificate, &anna.key).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let client = hub.http(config);
        let sites = resource("sites");
        let watch = client.get(hub.url(&format!("{sites}?watch=true"))).send().await.unwrap();
        assert_eq!((watch.status().as_u16(), watch.version()), (200, version));
        // While the watch goes on, on the same connection where that is of HTTP/2.
        let list = client.get(hub.url(&sites)).send().await.unwrap();
        assert_eq!((list.status().as_u16(), list.version()), (200, version));
        // The host that was asked is known however it was told.
        let (_, issuer) = hub.get(&client, "/.well-known/openid-configuration").await.unwrap();
        let keys = issuer["jwks_uri"].as_str().unwrap();
        assert_eq!(keys, hub.url("/openid/v1/jwks"));
    }
}

#[tokio::test]
async fn promise_7_expired_and_foreign_certificates_do_not_even_shake_hands() {
    let (authority, stranger) = (TestAuthority::new(), TestAuthority::new());
    let hub = SecureHub::with(&authority).await;
    let ca = authority.authority.certificate();
    let now = daemon::now();
    let long_ago = types::Time(now.0.checked_sub(HOUR * 2).unwrap());
    for refused in [
        authority.client("anna", "system:masters", HOUR, long_ago),
        stranger.client("anna", "system:masters", HOUR, now),
    ] {
        let client = hub.client(ca, Some(&refused));
        assert!(hub.get(&client, "/healthz").await.is_err());
    }
}

#[tokio::test]
async fn promise_7_the_certificates_of_another_authority_are_taken_if_it_is_given() {
    let (authority, company) = (TestAuthority::new(), TestAuthority::new());
    let ca = authority.authority.certificate();
    let source = Source::Authority {
        authorities: tls::Authorities::only(authority.authority.clone()),
        names: vec![NAME.to_owned()],
    };
    let served = Served::open(source, daemon::now()).unwrap();
    let hub = SecureHub::start(served, &format!("{ca}{}", company.authority.certificate())).await;
    let pair = company.client("anna", "operators", HOUR, daemon::now());
    assert_eq!(hub.whoami(&hub.client(ca, Some(&pair))).await["username"], "anna");
}

#[tokio::test]
async fn promise_7_the_certificate_of_a_deleted_site_is_out() {
    let authority = TestAuthority::new();
    let hub = SecureHub::with(&authority).await;
    let pair = authority.client("site:plant", "avocet:sites", HOUR, daemon::now());
    let client = hub.client(authority.authority.certificate(), Some(&pair));
    let own = resource("namespaces/plant/assignments");
    assert_eq!(hub.get(&client, &own).await.unwrap().0, 200);
    assert_eq!(hub.get(&client, &resource("namespaces/shop/assignments")).await.unwrap().0, 403);
    hub.hub.delete("sites/plant").await.expect(200);
    let (code, status) = hub.get(&client, &own).await.unwrap();
    assert_eq!(code, 401);
    assert!(status["message"].as_str().unwrap().contains("join again"));
}

#[tokio::test]
async fn new_certificate_files_are_shown_to_new_connections_while_old_ones_live() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let write_pair = || {
        let pair = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.pem()
    };
    let first = write_pair();
    let source = Source::Files { certificate: certificate.clone(), key: key.clone() };
    let served = Served::open(source, daemon::now()).unwrap();
    let hub = SecureHub::start(served.clone(), &first).await;
    let old = hub.client(&first, None);
    let healthy = async |client: &reqwest::Client| client.get(hub.url("/healthz")).send().await?.text().await;
    assert_eq!(healthy(&old).await.unwrap(), "ok");
    let second = write_pair();
    assert!(served.refresh(daemon::now()).unwrap());
    assert_eq!(healthy(&hub.client(&second, None)).await.unwrap(), "ok");
    assert!(healthy(&hub.client(&first, None)).await.is_err(), "new connections see the new one alone");
    assert_eq!(healthy(&old).await.unwrap(), "ok", "the old connection lives on");
}

#[tokio::test]
async fn an_authority_that_is_retired_signs_for_nobody_any_more_also_on_connections_that_are_open() {
    let hub = TestHub::start().await;
    let authorities = hub.hub.identities.trust().authorities.clone();
    let source = Source::Authority { authorities: authorities.clone(), names: vec![NAME.to_owned()] };
    let served = Served::open(source, daemon::now()).unwrap();
    let config = tls::server_of(served, authorities.clone(), "").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = hub.hub.clone();
    hub.tasks.spawn("secure", async move { avocet_api::serve(listener, config, serving).await });
    let hub = SecureHub { hub, address };
    let signed_by = |authority: Arc<Authority>| {
        let authority = TestAuthority { authority, _folder: tempfile::tempdir().unwrap() };
        authority.client("anna", "system:masters", HOUR, daemon::now())
    };
    let trusted = authorities.stage().trusted();
    let old = hub.client(&trusted, Some(&signed_by(authorities.stage().signing().clone())));
    assert_eq!(hub.whoami(&old).await["username"], "anna");
    authorities.rotate().unwrap();
    let next = signed_by(authorities.stage().signing().clone());
    let new = hub.client(&trusted, Some(&next));
    assert_eq!(hub.whoami(&old).await["username"], "anna", "both are trusted");
    assert_eq!(hub.whoami(&new).await["username"], "anna");
    let bad = signed_by(TestAuthority::new().authority);
    assert!(hub.get(&hub.client(&trusted, Some(&bad)), "/version").await.is_err());
    authorities.retire().unwrap();
    let path = "/api/v1/namespaces";
    assert_eq!(hub.get(&old, path).await.unwrap().0, 401, "its connection is there still");
    assert_eq!(hub.get(&new, path).await.unwrap().0, 200);
}
