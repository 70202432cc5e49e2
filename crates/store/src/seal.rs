//! Encryption at rest for kinds that hold secrets: what reaches the disk (the database, its log, every backup of it) is
//! AES-256-GCM, bound to the object's key, so that one can't be put in the place of another.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::object::Key;

/// Seals and opens stored objects. Cheap to clone.
#[derive(Clone)]
pub struct Seal {
    key: Arc<LessSafeKey>,
    plurals: &'static [&'static str],
}

/// Why a sealed object can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Another key sealed it, or it is damaged.
    #[error("it was sealed with another key, or is damaged; restore the file of the key, or a backup")]
    Wrong,
    /// The store was opened without a key.
    #[error("it is sealed, and there is no key")]
    NoKey,
    /// There was no randomness to seal with.
    #[error("no randomness can be had")]
    Random(#[source] std::io::Error),
}

/// A stored object that is sealed. The version stays readable: whoever restores a backup needs it.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Nonce and ciphertext, in Base64.
    sealed: String,
    metadata: Version,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

impl Seal {
    /// With the key in a file (32 bytes as hexadecimal digits), or a new one; for objects of these kinds.
    ///
    /// # Errors
    /// If the file can't be read or written, or holds no key.
    pub fn open(file: &Path, plurals: &'static [&'static str]) -> std::io::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = daemon::random_hex(32)?;
                daemon::write_private(file, text.as_bytes())?;
                text
            }
            Err(error) => return Err(error),
        };
        let digits = text.trim();
        let bytes: Option<Vec<u8>> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
            .collect();
        let key = bytes.and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
        let key = key.ok_or_else(|| {
            std::io::Error::other(format!("{} holds no key of 64 hexadecimal digits", file.display()))
        })?;
        Ok(Self { key: Arc::new(LessSafeKey::new(key)), plurals })
    }

    fn is_for(&self, key: &Key) -> bool {
        self.plurals.contains(&key.plural)
    }
}

/// What is to be stored of an object.
pub(crate) fn seal(seal: Option<&Seal>, key: &Key, version: u64, json: &str) -> Result<String, SealError> {
    let Some(seal) = seal.filter(|seal| seal.is_for(key)) else { return Ok(json.to_owned()) };
    let mut nonce = [0; NONCE_LEN];
    daemon::fill_random(&mut nonce).map_err(SealError::Random)?;
    let mut text = json.as_bytes().to_vec();
    let sealed = seal.key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(key.row()),
        &mut text,
    );
    sealed.map_err(|_| SealError::Wrong)?;
    let sealed = Sealed {
        sealed: STANDARD.encode([nonce.as_slice(), &text].concat()),
        metadata: Version { resource_version: version.to_string() },
    };
    Ok(serde_json::to_string(&sealed).unwrap_or_default())
}

/// What was stored of an object, opened; `None` if it was not sealed.
pub(crate) fn open(seal: Option<&Seal>, key: &Key, stored: &str) -> Result<Option<String>, SealError> {
    // Parsing tells for sure; the search spares it to all others.
    let sealed = stored.contains("\"sealed\":").then(|| serde_json::from_str(stored).ok());
    let Some(Sealed { sealed, .. }) = sealed.flatten() else { return Ok(None) };
    let seal = seal.ok_or(SealError::NoKey)?;
    let bytes = STANDARD.decode(sealed).map_err(|_| SealError::Wrong)?;
    let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Wrong)?;
    let mut text = text.to_vec();
    let opened =
        seal.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key.row()), &mut text);
    let opened = opened.map_err(|_| SealError::Wrong)?;
    String::from_utf8(opened.to_vec()).map(Some).map_err(|_| SealError::Wrong)
}
