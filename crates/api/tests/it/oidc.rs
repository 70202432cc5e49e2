//! Tokens of an OpenID Connect issuer. The issuer is a fake one in this process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use avocet_api::authentication::{Oidc, OidcOptions, Refusal};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daemon::Tasks;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use types::Time;

use crate::support::{TestHub, resource};

/// A key of the issuer.
enum Key {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn p256() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self::P256(key.unwrap())
    }

    fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn published(&self, id: &str) -> Value {
        match self {
            Self::P256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(key.public_key().as_ref())})
            }
        }
    }

    fn sign(&self, id: &str, claims: &Value) -> String {
        let algorithm = match self {
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        };
        let signed = parts(&json!({"alg": algorithm, "kid": id}), claims);
        let signature = match self {
            Self::P256(key) => key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parts(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| encode(part.to_string().as_bytes())).join(".")
}

/// What the fake issuer publishes now, and how often it was asked for keys.
#[derive(Default)]
struct Published {
    issuer: String,
    keys: Vec<Value>,
    is_away: bool,
    asked: usize,
}

/// A fake issuer on loopback, which signs whatever it is told to.
struct FakeIssuer {
    url: String,
    key: Key,
    published: Arc<Mutex<Published>>,
    _tasks: Tasks,
}

type Shared = State<Arc<Mutex<Published>>>;

async fn configuration(State(published): Shared) -> Result<Json<Value>, StatusCode> {
    let published = published.lock().unwrap();
    if published.is_away {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let issuer = &published.issuer;
    Ok(Json(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "other": true})))
}

async fn keys(State(published): Shared) -> Json<Value> {
    let mut published = published.lock().unwrap();
    published.asked += 1;
    Json(json!({"keys": published.keys}))
}

impl FakeIssuer {
    async fn start() -> Self {
        Self::with(Key::p256()).await
    }

    async fn with(key: Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let first =
            Published { issuer: url.clone(), keys: vec![key.published("k1")], ..Published::default() };
        let published = Arc::new(Mutex::new(first));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/keys", get(keys))
            .with_state(published.clone());
        let tasks = Tasks::default();
        tasks.spawn("issuer", async move { axum::serve(listener, router).await.unwrap() });
        Self { url, key, published, _tasks: tasks }
    }

    fn options(&self) -> OidcOptions {
        let url = self.url.clone();
        let groups_claim = "groups".to_owned();
        OidcOptions { issuer_url: url, client_id: "avocet".into(), groups_claim, ..OidcOptions::default() }
    }

    fn trusted(&self) -> Oidc {
        Oidc::new(self.options()).unwrap()
    }

    /// Claims that are good for an hour.
    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "avocet", "sub": "anna", "exp": second() + 3600})
    }

    /// A good token, but for the claims that are stated otherwise.
    fn token(&self, changed: Value) -> String {
        let mut claims = self.claims();
        for (name, value) in changed.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.key.sign("k1", &claims)
    }

    fn asked(&self) -> usize {
        self.published.lock().unwrap().asked
    }
}

fn second() -> i64 {
    daemon::now().0.as_second()
}

/// A time from now.
fn after(seconds: u64) -> Time {
    Time(daemon::now().0.checked_add(Duration::from_secs(seconds)).unwrap())
}

async fn name(oidc: &Oidc, token: &str) -> Result<Option<String>, Refusal> {
    name_at(oidc, token, daemon::now()).await
}

async fn name_at(oidc: &Oidc, token: &str, now: Time) -> Result<Option<String>, Refusal> {
    Ok(oidc.verify(token, now).await?.map(|user| user.name))
}

#[tokio::test]
async fn promise_7_people_of_a_trusted_issuer_are_known_at_the_hub() {
    let issuer = FakeIssuer::start().await;
    let hub = TestHub::trusting(Some(Arc::new(issuer.trusted()))).await;
    let token = issuer.token(json!({"groups": ["operators", "guests"]}));
    let told = hub.whoami(&token).await;
    assert_eq!(told["username"], format!("{}#anna", issuer.url));
    assert_eq!(told["groups"], json!(["operators", "guests", "system:authenticated"]));
    hub.ask_json("GET", &resource("sites"), &token, &Value::Null).await.expect(403);
    let expired = issuer.token(json!({"exp": second() - 60}));
    let refused = hub.ask_json("GET", &resource("sites"), &expired, &Value::Null).await.expect(401);
    assert_eq!(refused["message"], "Unauthorized");
}

#[tokio::test]
async fn promise_7_tokens_that_are_not_as_they_must_be_are_refused() {
    let issuer = FakeIssuer::start().await;
    let oidc = issuer.trusted();
    let claim = |name: &str| Err(Refusal::Claim(name.to_owned()));
    for (changed, expected) in [
        (json!({"aud": "others"}), Err(Refusal::Audience)),
        (json!({"aud": null}), Err(Refusal::Audience)),
        (json!({"exp": second() - 11}), Err(Refusal::Expired)),
        (json!({"exp": null}), claim("exp")),
        (json!({"nbf": second() + 60}), Err(Refusal::Early)),
        (json!({"sub": ""}), claim("sub")),
        (json!({"sub": 7}), claim("sub")),
        (json!({"groups": {"a": "b"}}), claim("groups")),
        (json!({"iss": "https://login.example"}), Ok(None)),
    ] {
        assert_eq!(name(&oidc, &issuer.token(changed.clone())).await, expected, "{changed}");
    }
    let expected = Ok(Some(format!("{}#anna", issuer.url)));
    assert_eq!(name(&oidc, &issuer.token(json!({"aud": ["others", "avocet"]}))).await, expected);
    assert_eq!(name(&oidc, &issuer.token(json!({"exp": second() - 2}))).await, expected, "clocks differ");
}

#[tokio::test]
async fn promise_7_tokens_without_a_signature_of_the_issuers_key_are_refused() {
    let issuer = FakeIssuer::start().await;
    let oidc = issuer.trusted();
    for algorithm in ["none", "HS256"] {
        let unsigned = format!("{}.AAAA", parts(&json!({"alg": algorithm, "kid": "k1"}), &issuer.claims()));
        assert_eq!(name(&oidc, &unsigned).await, Ok(None), "{algorithm}");
    }
    let forged = Key::p256().sign("k1", &issuer.claims());
    assert_eq!(name(&oidc, &forged).await, Err(Refusal::Signature));
    let other_kind = Key::ed25519().sign("k1", &issuer.claims());
    assert_eq!(name(&oidc, &other_kind).await, Err(Refusal::Signature));
    let good = issuer.token(json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(name(&oidc, &format!("{signed}.")).await, Err(Refusal::Signature));
}

#[tokio::test]
async fn promise_7_no_issuer_can_name_the_hubs_own_users_and_groups() {
    let issuer = FakeIssuer::start().await;
    let unprefixed = OidcOptions { username_prefix: Some("-".into()), ..issuer.options() };
    let oidc = Oidc::new(unprefixed).unwrap();
    for reserved in ["system:admin", "system:serviceaccount:a:b", "site:plant", "avocet:x"] {
        let refused = name(&oidc, &issuer.token(json!({"sub": reserved}))).await;
        assert_eq!(refused, Err(Refusal::Claim("sub".to_owned())), "{reserved}");
    }
    let token = issuer.token(json!({"groups": ["system:masters", "avocet:sites", "operators"]}));
    let user = oidc.verify(&token, daemon::now()).await.unwrap().unwrap();
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("anna", vec!["operators".into(), "system:authenticated".into()])
    );
}

#[tokio::test]
async fn names_and_groups_come_from_the_claims_and_get_the_prefixes_that_are_set() {
    let issuer = FakeIssuer::with(Key::ed25519()).await;
    let options = OidcOptions {
        username_claim: "email".into(),
        groups_claim: "roles".into(),
        groups_prefix: "idp:".into(),
        ..issuer.options()
    };
    let oidc = Oidc::new(options.clone()).unwrap();
    let claims = json!({"email": "anna@example.org", "email_verified": true, "roles": "cook"});
    let user = oidc.verify(&issuer.token(claims.clone()), daemon::now()).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("anna@example.org", "idp:cook"));
    let unverified = issuer.token(json!({"email": "anna@example.org", "email_verified": false}));
    assert_eq!(name(&oidc, &unverified).await, Err(Refusal::Claim("email_verified".to_owned())));
    let prefixed = Oidc::new(OidcOptions { username_prefix: Some("idp:".into()), ..options }).unwrap();
    assert_eq!(name(&prefixed, &issuer.token(claims)).await, Ok(Some("idp:anna@example.org".into())));
}

#[tokio::test]
async fn an_issuer_is_asked_when_first_needed_and_then_rarely() {
    let issuer = FakeIssuer::start().await;
    let oidc = issuer.trusted();
    assert_eq!(issuer.asked(), 0);
    let token = issuer.token(json!({}));
    let together = futures::future::join_all((0..20).map(|_| oidc.verify(&token, daemon::now()))).await;
    assert!(together.iter().all(|user| matches!(user, Ok(Some(_)))));
    assert_eq!(issuer.asked(), 1);
    let unknown = Key::p256().sign("k2", &issuer.claims());
    for _ in 0..3 {
        assert_eq!(name(&oidc, &unknown).await, Err(Refusal::Signature));
    }
    assert_eq!(issuer.asked(), 1, "an unknown key is asked for after a pause");
    let later = after(11);
    for _ in 0..3 {
        assert_eq!(name_at(&oidc, &unknown, later).await, Err(Refusal::Signature));
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_learnt_and_an_old_one_forgotten() {
    let issuer = FakeIssuer::start().await;
    let oidc = issuer.trusted();
    let (old, next) = (issuer.token(json!({})), Key::p256());
    assert!(name(&oidc, &old).await.is_ok());
    issuer.published.lock().unwrap().keys = vec![next.published("k2")];
    let later = after(11);
    let known = Ok(Some(format!("{}#anna", issuer.url)));
    assert_eq!(name_at(&oidc, &old, later).await, known, "the old keys are fresh");
    assert_eq!(name_at(&oidc, &next.sign("k2", &issuer.claims()), later).await, known);
    assert_eq!(name_at(&oidc, &old, after(22)).await, Err(Refusal::Signature));
}

#[tokio::test]
async fn a_site_that_is_cut_off_from_the_issuer_goes_on_with_the_last_keys() {
    let issuer = FakeIssuer::start().await;
    let oidc = issuer.trusted();
    let week = 7 * 24 * 3600;
    let token = issuer.token(json!({"exp": second() + week}));
    let known = Ok(Some(format!("{}#anna", issuer.url)));
    issuer.published.lock().unwrap().is_away = true;
    assert_eq!(name(&oidc, &token).await, Err(Refusal::Signature), "never seen");
    issuer.published.lock().unwrap().is_away = false;
    assert_eq!(name_at(&oidc, &token, after(11)).await, known);
    issuer.published.lock().unwrap().is_away = true;
    assert_eq!(name_at(&oidc, &token, after(24 * 3600)).await, known, "the last keys are good on");
}

#[tokio::test]
async fn a_configuration_of_another_issuer_is_not_believed() {
    let issuer = FakeIssuer::start().await;
    issuer.published.lock().unwrap().issuer = "https://login.example".into();
    assert_eq!(name(&issuer.trusted(), &issuer.token(json!({}))).await, Err(Refusal::Signature));
    assert_eq!(issuer.asked(), 0);
}
