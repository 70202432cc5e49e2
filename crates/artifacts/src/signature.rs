//! Who vouches for an artifact: signatures by ed25519 and ECDSA P-256 keys, and the keys that are trusted.
//!
//! Our own signatures are over the digest of the artifact. Those of cosign ([`cosign`]) are over the manifest that an
//! artifact has in a registry.

pub mod cosign;
mod keys;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use types::Digest;

pub use keys::{KeyError, SigningKey, TrustedKeys};

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

impl SigningKey {
    /// A signature of an artifact: `ALGORITHM:KEY:SIGNATURE`, the key by the beginning of its SHA-256.
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    pub fn sign(&self, digest: &Digest) -> Result<String, KeyError> {
        let signed = STANDARD.encode(self.sign_bytes(&message(digest))?);
        Ok(format!("{}:{}:{signed}", self.algorithm(), self.id()))
    }
}

impl TrustedKeys {
    /// Lets an artifact pass that one of the keys signed. `read` reads the proofs that cosign's signatures need, which
    /// are artifacts themselves.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn check(
        &self,
        digest: &Digest,
        signatures: &[String],
        read: impl Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<(), Unsigned> {
        let is_valid = |signature: &String| match cosign::proof_of(signature) {
            Some((proof, _)) => read(&proof).is_some_and(|proof| cosign::proves(self, &proof, digest)),
            None => self.signed(digest, signature),
        };
        if signatures.iter().any(is_valid) {
            return Ok(());
        }
        Err(Unsigned { digest: *digest, signatures: signatures.len(), keys: self.count() })
    }

    fn signed(&self, digest: &Digest, signature: &str) -> bool {
        let mut parts = signature.splitn(3, ':');
        let (Some(algorithm), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let Ok(bytes) = STANDARD.decode(encoded) else { return false };
        self.named(algorithm, id).any(|key| key.has_signed(&message(digest), &bytes))
    }
}

/// What is signed. The words keep it apart from whatever else the key signs.
fn message(digest: &Digest) -> Vec<u8> {
    format!("avocet artifact\n{digest}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `openssl genpkey -algorithm ed25519`, `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
    // and `openssl pkey -pubout`.
    const KEYS: [(&str, &str); 2] = [
        (include_str!("../tests/data/signer.pem"), include_str!("../tests/data/signer.pub.pem")),
        (include_str!("../tests/data/ecdsa.pem"), include_str!("../tests/data/ecdsa.pub.pem")),
    ];
    const OTHER: &str = include_str!("../tests/data/other.pub.pem");

    fn check(keys: &TrustedKeys, digest: &Digest, signatures: &[String]) -> Result<(), Unsigned> {
        keys.check(digest, signatures, |_| None)
    }

    #[test]
    fn a_signature_is_good_for_its_artifact_and_key_alone() {
        for (private, public) in KEYS {
            let digest = Digest::of(b"a model");
            let signature = SigningKey::from_pem(private).unwrap().sign(&digest).unwrap();
            let trusted = TrustedKeys::from_pem(&(OTHER.to_owned() + public)).unwrap();
            assert_eq!(check(&trusted, &digest, std::slice::from_ref(&signature)), Ok(()));
            let forged = signature.replacen(':', ":0", 1);
            for signatures in
                [vec![], vec![forged], vec!["ed25519::".into(), "é".into(), signature.replace('=', "") + "A"]]
            {
                assert!(check(&trusted, &digest, &signatures).is_err(), "{signatures:?}");
            }
            assert!(check(&trusted, &Digest::of(b"another"), std::slice::from_ref(&signature)).is_err());
            let others = TrustedKeys::from_pem(OTHER).unwrap();
            assert!(
                check(&others, &digest, &[signature]).unwrap_err().to_string().contains("no valid signature")
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (private, public) in KEYS {
            assert!(SigningKey::from_pem(public).is_err() && SigningKey::from_pem("").is_err());
            assert!(TrustedKeys::from_pem(private).is_err() && TrustedKeys::from_pem("").is_err());
            let debug = format!("{:?}", SigningKey::from_pem(private).unwrap());
            assert!(debug.len() < 60, "{debug}");
        }
    }
}
