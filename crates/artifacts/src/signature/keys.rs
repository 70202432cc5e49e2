//! Keys that sign, and keys whose signatures count.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use types::Digest;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No private key that is understood.
    #[error(
        "there is no private key of ed25519 or ECDSA P-256 in PEM (PKCS #8, not encrypted); make one with: openssl \
         genpkey -algorithm ed25519"
    )]
    Private,
    /// No public key that is understood, or none at all.
    #[error(
        "there is no public key of ed25519 or ECDSA P-256 in PEM; print that of a key with: openssl pkey -in KEY -pubout"
    )]
    Public,
    /// Signing failed.
    #[error("can't sign: this machine has no randomness")]
    Signing,
}

/// What a signature is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    EcdsaP256,
}

impl Algorithm {
    /// What signatures begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// What stands before the bytes of a key in a public key's DER, and how many these are.
    fn prefix(self) -> (&'static [u8], usize) {
        match self {
            Self::Ed25519 => (&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], 32),
            Self::EcdsaP256 => (
                &[
                    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
                    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
                ],
                65,
            ),
        }
    }
}

/// A key that signs.
pub struct SigningKey(Private);

enum Private {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl SigningKey {
    /// Reads a private key: PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = decode_all(text, "PRIVATE KEY").into_iter().next().ok_or(KeyError::Private)?;
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key) {
            return Ok(Self(Private::Ed25519(key)));
        }
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key, &SystemRandom::new());
        key.map(|key| Self(Private::EcdsaP256(key))).map_err(|_| KeyError::Private)
    }

    pub(super) fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Private::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Private::EcdsaP256(key) => {
                let signed = key.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Signing)?;
                Ok(signed.as_ref().to_vec())
            }
        }
    }

    fn kind(&self) -> Algorithm {
        match &self.0 {
            Private::Ed25519(_) => Algorithm::Ed25519,
            Private::EcdsaP256(_) => Algorithm::EcdsaP256,
        }
    }

    pub(super) fn algorithm(&self) -> &'static str {
        self.kind().name()
    }

    pub(super) fn id(&self) -> String {
        match &self.0 {
            Private::Ed25519(key) => id(key.public_key().as_ref()),
            Private::EcdsaP256(key) => id(key.public_key().as_ref()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.algorithm()).field(&self.id()).finish()
    }
}

/// The keys whose signatures count.
#[derive(Debug, Clone)]
pub struct TrustedKeys(Vec<PublicKey>);

#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl PublicKey {
    fn of_der(der: &[u8]) -> Option<Self> {
        [Algorithm::Ed25519, Algorithm::EcdsaP256].into_iter().find_map(|algorithm| {
            let (prefix, length) = algorithm.prefix();
            let bytes = der.strip_prefix(prefix).filter(|bytes| bytes.len() == length)?;
            Some(Self { algorithm, bytes: bytes.to_vec() })
        })
    }

    /// Whether the key made this signature.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature),
            Algorithm::EcdsaP256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.bytes).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

impl TrustedKeys {
    /// Reads public keys in PEM, one or more.
    ///
    /// # Errors
    /// [`KeyError::Public`], also if one of several is no key of a kind that is understood.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let keys = decode_all(text, "PUBLIC KEY").into_iter();
        let keys: Option<Vec<PublicKey>> = keys.map(|der| PublicKey::of_der(&der)).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err(KeyError::Public),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    pub(super) fn named<'a>(&'a self, algorithm: &str, name: &str) -> impl Iterator<Item = &'a PublicKey> {
        self.0.iter().filter(move |key| key.algorithm.name() == algorithm && id(&key.bytes) == name)
    }
}

fn id(key: &[u8]) -> String {
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
