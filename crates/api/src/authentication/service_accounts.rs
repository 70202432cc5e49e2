//! Tokens of service accounts: what programs in a namespace show. The hub signs them with a key of its own and
//! keeps none of them: a token is good until it expires or its account is gone.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::{Digest, Time};

use super::User;
use super::jwt::{PublicKey, Refusal, Unverified, encode};

/// Who issues tokens unless told otherwise: the same wherever the hub listens, so that tokens survive its moving.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A service account, told apart from others that had its name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

/// The claim that Kubernetes clients look at.
#[derive(Debug, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Named,
}

#[derive(Debug, Serialize, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Signs and checks tokens of service accounts. Cheap to clone.
#[derive(Clone)]
pub struct ServiceAccounts {
    issuer: Arc<str>,
    key: Arc<EcdsaKeyPair>,
    public: PublicKey,
}

impl ServiceAccounts {
    /// With the key in that file, or a new one.
    ///
    /// # Errors
    /// If the file can't be read or written, or holds no P-256 key.
    pub fn open(file: &Path, issuer: &str) -> io::Result<Self> {
        let pkcs8 = daemon::tls::signing_key(file)?;
        let unusable = |_| io::Error::other(format!("{} holds no P-256 key; remove it", file.display()));
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(unusable)?;
        let point = key.public_key().as_ref().to_vec();
        let public = PublicKey::p256(Digest::of(&point).hex(), point);
        Ok(Self { issuer: issuer.into(), key: Arc::new(key), public })
    }

    /// Who issues the tokens; also the audience of those that are meant for the hub.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for an account, good for `ttl`; without audiences it is for the hub.
    ///
    /// # Errors
    /// If the machine has no random numbers.
    pub fn sign(
        &self,
        account: Account,
        audiences: &[String],
        ttl: Duration,
        now: Time,
    ) -> io::Result<String> {
        let own = [self.issuer.to_string()];
        let audiences = if audiences.is_empty() { own.as_slice() } else { audiences };
        let now = now.0.as_second();
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let bound = Bound {
            namespace: account.namespace.to_owned(),
            serviceaccount: Named { name: account.name.to_owned(), uid: account.uid.to_owned() },
        };
        let header = json!({"alg": "ES256", "kid": self.public.id, "typ": "JWT"});
        let claims = json!({
            "iss": self.issuer, "sub": user_name(account.namespace, account.name), "aud": audiences,
            "iat": now, "nbf": now, "exp": now.saturating_add(ttl), "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": bound,
        });
        let signed = [header, claims].map(|part| encode(part.to_string().as_bytes())).join(".");
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| io::Error::other("this machine has no random numbers"))?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// Who shows a token that is meant for one of these audiences; `exists` says whether an account is still there.
    /// None for what is not a token of this issuer.
    ///
    /// # Errors
    /// If it claims to be, and is not good.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[&str],
        now: Time,
        exists: impl FnOnce(Account) -> bool,
    ) -> Result<Option<User>, Refusal> {
        let Ok(token) = Unverified::read(token) else { return Ok(None) };
        if token.issuer() != Some(&self.issuer) {
            return Ok(None);
        }
        let claims = token.verify([&self.public])?;
        claims.check_time(now, 0)?;
        claims.check_audience(audiences)?;
        let wrong = |name: &str| Refusal::Claim(name.to_owned());
        let bound = claims.value("kubernetes.io").and_then(|bound| Bound::deserialize(bound).ok());
        let Bound { namespace, serviceaccount: Named { name, uid } } =
            bound.ok_or_else(|| wrong("kubernetes.io"))?;
        if claims.text("sub") != Some(&user_name(&namespace, &name)) {
            return Err(wrong("sub"));
        }
        if !exists(Account { namespace: &namespace, name: &name, uid: &uid }) {
            return Err(Refusal::Gone);
        }
        let user = Self::user(Account { namespace: &namespace, name: &name, uid: &uid });
        let id = claims.text("jti").unwrap_or_default();
        Ok(Some(if id.is_empty() { user } else { user.with_credential(format!("JTI={id}")) }))
    }

    /// The user that an account is.
    pub fn user(account: Account) -> User {
        let groups =
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", account.namespace)];
        let user = User::new(user_name(account.namespace, account.name), groups);
        User { uid: account.uid.to_owned(), ..user }
    }

    /// The key that others check tokens with, as a JWK set.
    pub fn keys(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.public.id, "crv": "P-256", "alg": "ES256",
            "x": encode(x), "y": encode(y),
        }]})
    }

    /// What others need to find the key, in the form of OpenID Connect Discovery.
    pub fn configuration(&self, url: &str) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": format!("{url}/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const ACCOUNT: Account = Account { namespace: "shop", name: "robot", uid: "u-1" };
    const HOUR: Duration = Duration::from_secs(3600);

    fn accounts() -> ServiceAccounts {
        let folder = tempfile::tempdir().unwrap();
        ServiceAccounts::open(&folder.path().join("service-account.key"), DEFAULT_ISSUER).unwrap()
    }

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_token_names_its_account_and_the_accounts_groups() {
        let accounts = accounts();
        let token = accounts.sign(ACCOUNT, &[], HOUR, at(1000)).unwrap();
        let user =
            accounts.verify(&token, &[DEFAULT_ISSUER], at(1000), |seen| seen == ACCOUNT).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:shop:robot", "u-1"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
        assert_eq!(user.groups, groups);
        assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI="));
    }

    #[test]
    fn a_token_is_good_in_its_time_for_its_audience_and_while_its_account_is_there() {
        let accounts = accounts();
        let token = accounts.sign(ACCOUNT, &["bank".to_owned()], HOUR, at(1000)).unwrap();
        let verify =
            |audience, now, exists| accounts.verify(&token, &[audience], now, |_| exists).map(|_| ());
        assert_eq!(verify("bank", at(4599), true), Ok(()));
        assert_eq!(verify("bank", at(4600), true), Err(Refusal::Expired));
        assert_eq!(verify("bank", at(999), true), Err(Refusal::Early));
        assert_eq!(verify(DEFAULT_ISSUER, at(1000), true), Err(Refusal::Audience));
        assert_eq!(verify("bank", at(1000), false), Err(Refusal::Gone));
    }

    #[test]
    fn another_hubs_token_is_refused_and_another_issuers_is_left_to_others() {
        let token = accounts().sign(ACCOUNT, &[], HOUR, at(1000)).unwrap();
        let refused = accounts().verify(&token, &[DEFAULT_ISSUER], at(1000), |_| true);
        assert_eq!(refused, Err(Refusal::Signature));
        let folder = tempfile::tempdir().unwrap();
        let other = ServiceAccounts::open(&folder.path().join("key"), "https://other").unwrap();
        assert_eq!(other.verify(&token, &[DEFAULT_ISSUER], at(1000), |_| true), Ok(None));
    }

    #[test]
    fn the_key_survives_a_restart_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("service-account.key");
        let token = ServiceAccounts::open(&file, "us").unwrap().sign(ACCOUNT, &[], HOUR, at(0)).unwrap();
        let again = ServiceAccounts::open(&file, "us").unwrap();
        assert!(again.verify(&token, &["us"], at(0), |_| true).unwrap().is_some());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn others_can_check_tokens_with_the_published_key() {
        let accounts = accounts();
        let keys = PublicKey::read_set(accounts.keys().to_string().as_bytes()).unwrap();
        let token = accounts.sign(ACCOUNT, &[], HOUR, at(0)).unwrap();
        assert!(Unverified::read(&token).unwrap().verify(&keys).is_ok());
        assert_eq!(accounts.configuration("https://hub")["jwks_uri"], "https://hub/openid/v1/jwks");
    }

    proptest! {
        #[test]
        fn a_token_changed_anywhere_is_not_good(at_byte in 0_usize..10_000, other in "[A-Za-z0-9_.-]") {
            let accounts = accounts();
            let token = accounts.sign(ACCOUNT, &[], HOUR, at(0)).unwrap();
            let at_byte = at_byte % token.len();
            let mut changed = token.clone();
            changed.replace_range(at_byte..=at_byte, &other);
            prop_assume!(changed != token);
            let user = accounts.verify(&changed, &[DEFAULT_ISSUER], at(0), |_| true);
            prop_assert!(!matches!(user, Ok(Some(_))));
        }
    }
}
