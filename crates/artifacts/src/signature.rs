//! Who vouches for an artifact: ed25519 signatures over its digest, and the keys that are trusted.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use types::Digest;

/// What stands before 32 bytes of an ed25519 key in a public key's DER.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What signatures begin with.
const ALGORITHM: &str = "ed25519";

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a private key of ed25519.
    #[error("there is no ed25519 private key in PEM; make one with: openssl genpkey -algorithm ed25519")]
    Private,
    /// Not a public key of ed25519, or none at all.
    #[error("there is no ed25519 public key in PEM; print that of a key with: openssl pkey -in KEY -pubout")]
    Public,
}

/// Why an artifact is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "artifact {digest} has no valid signature by a trusted key ({signatures} signatures, {keys} keys); sign it with \
     `avocet artifact sign` or `avocet apply --sign-key`"
)]
pub struct Unsigned {
    digest: Digest,
    signatures: usize,
    keys: usize,
}

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a private key: PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = decode_all(text, "PRIVATE KEY").into_iter().next().ok_or(KeyError::Private)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).map(Self).map_err(|_| KeyError::Private)
    }

    /// A signature of an artifact: `ed25519:KEY:SIGNATURE`, the key by the beginning of its SHA-256.
    pub fn sign(&self, digest: &Digest) -> String {
        let key = key_id(self.0.public_key().as_ref());
        format!("{ALGORITHM}:{key}:{}", STANDARD.encode(self.0.sign(&message(digest))))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&key_id(self.0.public_key().as_ref())).finish()
    }
}

/// The keys whose signatures count.
#[derive(Debug, Clone)]
pub struct TrustedKeys(Vec<Vec<u8>>);

impl TrustedKeys {
    /// Reads public keys in PEM, one or more.
    ///
    /// # Errors
    /// [`KeyError::Public`], also if one of several is no key of ed25519.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let keys = decode_all(text, "PUBLIC KEY").into_iter();
        let keys: Option<Vec<Vec<u8>>> = keys
            .map(|key| Some(key.strip_prefix(&PUBLIC_PREFIX)?.to_vec()).filter(|key| key.len() == 32))
            .collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err(KeyError::Public),
        }
    }

    /// Lets an artifact pass that one of the keys signed.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn check(&self, digest: &Digest, signatures: &[String]) -> Result<(), Unsigned> {
        if signatures.iter().any(|signature| self.is_valid(digest, signature)) {
            return Ok(());
        }
        Err(Unsigned { digest: *digest, signatures: signatures.len(), keys: self.0.len() })
    }

    fn is_valid(&self, digest: &Digest, signature: &str) -> bool {
        let mut parts = signature.splitn(3, ':');
        let (Some(ALGORITHM), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let Ok(bytes) = STANDARD.decode(encoded) else { return false };
        let named = self.0.iter().filter(|key| key_id(key) == id);
        named
            .into_iter()
            .any(|key| UnparsedPublicKey::new(&ED25519, key).verify(&message(digest), &bytes).is_ok())
    }
}

/// What is signed. The words keep it apart from whatever else the key signs.
fn message(digest: &Digest) -> Vec<u8> {
    format!("avocet artifact\n{digest}\n").into_bytes()
}

fn key_id(key: &[u8]) -> String {
    Digest::of(key).hex().chars().take(16).collect()
}

/// What is in the blocks of a text of PEM that have this label; those that can't be read are left out.
fn decode_all(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let blocks = text.split(&begin).skip(1).filter_map(|block| block.split(&end).next());
    blocks
        .filter_map(|block| {
            let encoded: String = block.chars().filter(|c| !c.is_whitespace()).collect();
            STANDARD.decode(encoded).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    const PRIVATE: &str = include_str!("../tests/data/signer.pem");
    const PUBLIC: &str = include_str!("../tests/data/signer.pub.pem");
    const OTHER: &str = include_str!("../tests/data/other.pub.pem");

    #[test]
    fn a_signature_is_good_for_its_artifact_and_key_alone() {
        let digest = Digest::of(b"a model");
        let signature = SigningKey::from_pem(PRIVATE).unwrap().sign(&digest);
        let trusted = TrustedKeys::from_pem(&(OTHER.to_owned() + PUBLIC)).unwrap();
        assert_eq!(trusted.check(&digest, std::slice::from_ref(&signature)), Ok(()));
        let forged = signature.replace("ed25519:", "ed25519:0");
        for signatures in
            [vec![], vec![forged], vec!["ed25519::".into(), "é".into(), signature.replace('=', "")]]
        {
            assert!(trusted.check(&digest, &signatures).is_err(), "{signatures:?}");
        }
        assert!(trusted.check(&Digest::of(b"another"), std::slice::from_ref(&signature)).is_err());
        let others = TrustedKeys::from_pem(OTHER).unwrap();
        assert!(others.check(&digest, &[signature]).unwrap_err().to_string().contains("no valid signature"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(SigningKey::from_pem(PUBLIC).is_err() && SigningKey::from_pem("").is_err());
        assert!(TrustedKeys::from_pem(PRIVATE).is_err() && TrustedKeys::from_pem("").is_err());
        let debug = format!("{:?}", SigningKey::from_pem(PRIVATE).unwrap());
        assert!(debug.len() < 50, "{debug}");
    }
}
