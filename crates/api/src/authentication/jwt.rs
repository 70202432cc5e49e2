//! Signed tokens (JWT, RFC 7519) in their compact form, and the keys (JWK, RFC 7517) that they are checked with.
//!
//! Three ways of signing are known, each with a pair of keys. A token that names another, or none, is refused
//! before anything in it is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use types::Time;

/// How long a token may be, in bytes.
const LONGEST: usize = 16 << 10;
/// How many keys of one issuer are looked at.
const MOST_KEYS: usize = 100;

/// Why a token is refused. None of these shows any of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a token of this form.
    #[error("the token can't be read: {0}")]
    Malformed(&'static str),
    /// It is signed in a way that is not accepted.
    #[error("tokens signed with the algorithm {0:?} are not accepted; ES256, RS256 and EdDSA are")]
    Algorithm(String),
    /// No known key made its signature.
    #[error("no key that is known signed the token")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not good yet")]
    Early,
    /// It is meant for others.
    #[error("the token is for another audience")]
    Audience,
    /// A claim is missing or not what it must be.
    #[error("the token's claim {0:?} is missing or not what it must be")]
    Claim(String),
    /// Whom it names is not there (any more).
    #[error("whom the token names is not there any more")]
    Gone,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA PKCS #1 with SHA-256.
    Rs256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A token that was read, but not checked yet: whatever it says may be a lie.
pub struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    /// Which key signed it, if it says so.
    pub key_id: Option<String>,
    claims: Claims,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// If it isn't one, or is signed in a way that is not accepted.
    pub fn read(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Malformed("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed("it has no parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed("it has two parts"))?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed("its header"))?;
        let claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| Refusal::Malformed("its claims"))?;
        if header.crit.is_some() {
            return Err(Refusal::Malformed("it needs extensions that are not known here"));
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(Refusal::Algorithm(header.alg))?;
        let signature = decode(signature)?;
        Ok(Self { signed, signature, algorithm, key_id: header.kid, claims: Claims(claims) })
    }

    /// Who issued it, by its own word.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// Checks the signature with those of the keys that the token may be signed with; answers what it says.
    ///
    /// # Errors
    /// If none of the keys made the signature.
    pub fn verify<'k>(self, keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Claims, Refusal> {
        let is_good = keys.into_iter().any(|key| {
            let is_meant = self.key_id.is_none() || key.id.is_none() || self.key_id == key.id;
            is_meant && key.made(&self)
        });
        if is_good { Ok(self.claims) } else { Err(Refusal::Signature) }
    }
}

impl Claims {
    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim of any kind.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that is one text or a list of them; none is an empty list.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let wrong = || Refusal::Claim(name.to_owned());
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(vec![]),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(list)) => {
                list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// Checks `exp`, which must be there, and `nbf`; both may be missed by `leeway` seconds.
    ///
    /// # Errors
    /// If it is not the token's time.
    pub fn check_time(&self, now: Time, leeway: i64) -> Result<(), Refusal> {
        let now = now.0.as_second();
        let expires = self.second("exp")?.ok_or_else(|| Refusal::Claim("exp".to_owned()))?;
        if expires.saturating_add(leeway) <= now {
            return Err(Refusal::Expired);
        }
        match self.second("nbf")? {
            Some(begins) if begins.saturating_sub(leeway) > now => Err(Refusal::Early),
            _ => Ok(()),
        }
    }

    /// Checks that the token is meant for one of these.
    ///
    /// # Errors
    /// If it isn't.
    pub fn check_audience(&self, audiences: &[&str]) -> Result<(), Refusal> {
        let meant = self.texts("aud")?;
        if meant.iter().any(|meant| audiences.contains(&meant.as_str())) {
            return Ok(());
        }
        Err(Refusal::Audience)
    }

    /// A time in seconds since 1970, which some issuers write with a fraction.
    fn second(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let fraction = || value.as_f64().filter(|second| second.is_finite());
        // The cast saturates, which is as good here.
        let second = value.as_i64().or_else(|| fraction().map(|second| second as i64));
        second.map(Some).ok_or_else(|| Refusal::Claim(name.to_owned()))
    }
}

/// A key that signatures are checked with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// What tokens call it.
    pub id: Option<String>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

/// A key as issuers publish it. Fields that are not needed are not read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

impl PublicKey {
    /// A point on P-256, uncompressed.
    pub fn p256(id: String, point: Vec<u8>) -> Self {
        Self { id: Some(id), material: Material::P256(point) }
    }

    /// The usable keys in a JWK set; keys of other kinds are left out.
    ///
    /// # Errors
    /// If the text is no JWK set.
    pub fn read_set(json: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        let set: JwkSet = serde_json::from_slice(json)?;
        let keys = set.keys.into_iter().take(MOST_KEYS);
        Ok(keys.filter_map(|key| Self::from_jwk(serde_json::from_value(key).ok()?)).collect())
    }

    fn from_jwk(key: Jwk) -> Option<Self> {
        if key.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let part = |text: Option<String>| decode(&text?).ok();
        let (material, algorithm) = match (key.kty.as_str(), key.crv.as_deref()) {
            ("EC", Some("P-256")) => {
                let (x, y) = (part(key.x)?, part(key.y)?);
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (Material::P256(point), Algorithm::Es256)
            }
            ("RSA", _) => (Material::Rsa { modulus: part(key.n)?, exponent: part(key.e)? }, Algorithm::Rs256),
            ("OKP", Some("Ed25519")) => (Material::Ed25519(part(key.x)?), Algorithm::EdDsa),
            _ => return None,
        };
        if key.alg.is_some_and(|named| Algorithm::named(&named) != Some(algorithm)) {
            return None;
        }
        Some(Self { id: key.kid, material })
    }

    /// Whether this key made the signature of a token.
    fn made(&self, token: &Unverified) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let checked = match (&self.material, token.algorithm) {
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Material::Rsa { modulus, exponent }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            _ => return false,
        };
        checked.is_ok()
    }
}

/// The part of a token for some bytes.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed("it is not base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn token(header: &Value, claims: &Value, signature: &str) -> String {
        format!(
            "{}.{}.{signature}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        )
    }

    fn refused(header: &Value) -> Option<Refusal> {
        Unverified::read(&token(header, &json!({}), "AAAA")).err()
    }

    #[test]
    fn only_signatures_with_a_pair_of_keys_are_accepted() {
        for name in ["none", "None", "HS256", "HS512", "RS1", "ES256K", ""] {
            assert_eq!(refused(&json!({"alg": name})), Some(Refusal::Algorithm(name.to_owned())));
        }
        assert!(matches!(refused(&json!({"alg": "ES256", "crit": ["exp"]})), Some(Refusal::Malformed(_))));
        assert_eq!(refused(&json!({"alg": "ES256"})), None);
    }

    /// The key in RFC 8037, appendix A.
    const KEY: &str =
        r#"{"keys": [{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[test]
    fn keys_that_are_not_known_here_are_left_out() {
        let read =
            |key: Value| PublicKey::read_set(json!({"keys": [key]}).to_string().as_bytes()).unwrap().len();
        assert_eq!(PublicKey::read_set(KEY.as_bytes()).unwrap().len(), 1);
        assert_eq!(read(json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})), 1);
        for unknown in [
            json!({"kty": "EC", "crv": "P-256", "x": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "enc"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "alg": "ES384"}),
            json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            json!({"kty": "RSA", "n": "AA", "e": "?"}),
            json!({"kty": "oct", "k": "AA"}),
            json!("key"),
        ] {
            assert_eq!(read(unknown.clone()), 0, "{unknown}");
        }
        assert!(PublicKey::read_set(b"{}").is_err());
    }

    #[test]
    fn a_token_signed_with_rsa_is_checked_with_its_key_alone() {
        let keys = PublicKey::read_set(include_bytes!("samples/rs256.jwks")).unwrap();
        let token = include_str!("samples/rs256.jwt").trim();
        let claims = Unverified::read(token).unwrap().verify(&keys).unwrap();
        assert_eq!(claims.text("sub"), Some("anna"));
        let other = PublicKey::read_set(KEY.as_bytes()).unwrap();
        assert_eq!(Unverified::read(token).unwrap().verify(&other), Err(Refusal::Signature));
        let renamed = PublicKey { id: Some("r2".to_owned()), ..keys[0].clone() };
        assert_eq!(Unverified::read(token).unwrap().verify([&renamed]), Err(Refusal::Signature));
    }

    #[test]
    fn times_are_checked_with_their_leeway() {
        let now = Time(jiff::Timestamp::from_second(1000).unwrap());
        let check = |claims: Value| {
            let Value::Object(claims) = claims else { panic!("no claims") };
            Claims(claims).check_time(now, 10)
        };
        assert_eq!(check(json!({"exp": 1001})), Ok(()));
        assert_eq!(check(json!({"exp": 991, "nbf": 1010})), Ok(()));
        assert_eq!(check(json!({"exp": 1000.5})), Ok(()));
        assert_eq!(check(json!({"exp": 990})), Err(Refusal::Expired));
        assert_eq!(check(json!({"exp": 2000, "nbf": 1011})), Err(Refusal::Early));
        assert_eq!(check(json!({"exp": i64::MIN})), Err(Refusal::Expired));
        assert_eq!(check(json!({"exp": -1e300})), Err(Refusal::Expired));
        for wrong in [json!({}), json!({"exp": "soon"}), json!({"exp": null})] {
            assert_eq!(check(wrong), Err(Refusal::Claim("exp".to_owned())));
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_or_makes_it_panic(text in ".{0,200}") {
            prop_assert!(Unverified::read(&text).is_err());
        }

        #[test]
        fn no_parts_are_verified_or_make_it_panic(
            header in "[ -~]{0,60}", claims in "[ -~]{0,60}", signature in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let keys = PublicKey::read_set(KEY.as_bytes()).unwrap();
            for header in [header.as_str(), r#"{"alg":"EdDSA"}"#, r#"{"alg":"ES256"}"#] {
                let parts = [header.as_bytes(), claims.as_bytes(), &signature].map(encode);
                let verified = Unverified::read(&parts.join(".")).and_then(|token| token.verify(&keys));
                prop_assert!(verified.is_err());
            }
        }

        #[test]
        fn no_bytes_make_reading_keys_panic(text in "[ -~]{0,200}") {
            let _ = PublicKey::read_set(text.as_bytes());
        }
    }
}
