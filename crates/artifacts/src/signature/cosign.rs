//! Signatures in cosign's forms. What is signed names the digest of a manifest, and lies beside that in its registry as a
//! layer of another manifest, in one of two ways:
//!
//! - a *payload*: a few lines of JSON; the signature is an annotation of the layer. The tag is `sha256-….sig`.
//! - a *bundle*, as cosign writes from version 3 on: an in-toto statement in a DSSE envelope, with its signature. It
//!   refers to the manifest.
//!
//! A site that takes an artifact out of its manifest knows neither. What is signed travels to it as a *proof*, an
//! artifact of its own: manifest, payload and signature.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use types::Digest;

use super::{KeyError, SigningKey, TrustedKeys};

/// The media type of payloads.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The type of manifests that hold signatures.
pub const SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The annotation of a payload's layer that has the signature, in base64.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What the media types of bundles begin with.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// How large a payload or bundle may be, in bytes.
pub const LARGEST: u64 = 256 << 10;
/// How large a proof may be, in bytes.
pub const LARGEST_PROOF: u64 = 8 << 20;

/// What payloads say of themselves, and statements.
const KIND: &str = "cosign container image signature";
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The type of what is in an envelope.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// What entries of `signatures` begin with that name a proof.
const SCHEME: &str = "cosign:";

#[derive(Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// What is signed of a manifest; `reference` is the repository, with its host.
pub fn payload(reference: &str, manifest: &Digest) -> String {
    let critical = Critical {
        identity: Identity { reference: reference.to_owned() },
        image: Image { digest: manifest.to_string() },
        kind: KIND.to_owned(),
    };
    // Maps with names as keys are always JSON.
    serde_json::to_string(&Payload { critical, optional: None }).unwrap_or_default()
}

/// The tag of the manifest that holds the signatures of another.
pub fn tag(manifest: &Digest) -> String {
    format!("sha256-{}.sig", manifest.hex())
}

impl SigningKey {
    /// A signature of a payload, in base64.
    ///
    /// # Errors
    /// [`KeyError::Signing`].
    pub fn sign_payload(&self, payload: &str) -> Result<String, KeyError> {
        Ok(STANDARD.encode(self.sign_bytes(payload.as_bytes())?))
    }
}

/// Whether layers of a media type hold a payload or a bundle.
pub fn is_signature(media_type: &str) -> bool {
    media_type == PAYLOAD || media_type.starts_with(BUNDLE)
}

/// Whether manifests of a type hold one.
pub fn holds_signatures(artifact_type: &str) -> bool {
    artifact_type == SIGNATURE || artifact_type.starts_with(BUNDLE)
}

/// What somebody signed, to the letter, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Signed {
    /// A payload.
    Payload {
        /// What was signed.
        payload: String,
        /// The signature, in base64.
        signature: String,
    },
    /// A bundle, which has all.
    Bundle(String),
}

impl Signed {
    /// What is in a layer of a manifest; none if it is nothing of the kind.
    pub fn of_layer(
        media_type: &str,
        annotations: &BTreeMap<String, String>,
        content: Vec<u8>,
    ) -> Option<Self> {
        let content = String::from_utf8(content).ok()?;
        match media_type {
            PAYLOAD => {
                Some(Self::Payload { payload: content, signature: annotations.get(ANNOTATION)?.clone() })
            }
            kind if kind.starts_with(BUNDLE) => Some(Self::Bundle(content)),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

impl TrustedKeys {
    /// Whether one of the keys signed what is about this manifest.
    pub fn have_signed(&self, manifest: &Digest, signed: &Signed) -> bool {
        let said = match signed {
            Signed::Payload { payload, signature } => self.have_signed_payload(payload, signature),
            Signed::Bundle(bundle) => self.have_signed_bundle(bundle),
        };
        said.is_some_and(|said| said == *manifest)
    }

    /// The manifest that a payload is about, if it is one and one of the keys signed it.
    fn have_signed_payload(&self, payload: &str, signature: &str) -> Option<Digest> {
        self.check_bytes(payload.as_bytes(), signature).then_some(())?;
        let said: Payload = serde_json::from_str(payload).ok()?;
        said.critical.image.digest.parse().ok().filter(|_| said.critical.kind == KIND)
    }

    /// The same of a bundle.
    fn have_signed_bundle(&self, bundle: &str) -> Option<Digest> {
        let Bundle { dsse_envelope: Envelope { payload, payload_type, signatures } } =
            serde_json::from_str(bundle).ok().filter(|_| bundle.len() as u64 <= LARGEST)?;
        let payload = STANDARD.decode(payload).ok().filter(|_| payload_type == STATEMENT)?;
        let mut message =
            format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
        message.extend_from_slice(&payload);
        signatures.iter().take(8).any(|one| self.check_bytes(&message, &one.sig)).then_some(())?;
        let Statement { subject, predicate_type } = serde_json::from_slice(&payload).ok()?;
        let [subject] = subject.as_slice() else { return None };
        let digest = subject.digest.get("sha256").filter(|_| predicate_type == PREDICATE)?;
        format!("sha256:{digest}").parse().ok()
    }

    fn check_bytes(&self, message: &[u8], signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
        message.len() as u64 <= LARGEST && self.all().any(|key| key.has_signed(message, &signature))
    }
}

/// What proves that a key vouched for an artifact: what it signed names the manifest, which names the artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// The manifest, to the letter.
    pub manifest: String,
    /// What was signed.
    pub signed: Signed,
}

/// How an artifact names a proof of this digest and size, in bytes, among its signatures.
pub fn entry(proof: &Digest, size: u64) -> String {
    format!("{SCHEME}{proof}:{size}")
}

/// The proof that an entry of an artifact's signatures names, and its size in bytes.
pub fn proof_of(entry: &str) -> Option<(Digest, u64)> {
    let (digest, size) = entry.strip_prefix(SCHEME)?.rsplit_once(':')?;
    Some((digest.parse().ok()?, size.parse().ok().filter(|size| *size <= LARGEST_PROOF)?))
}

/// Whether a proof is one, by one of these keys, for this artifact: a layer of the manifest as it is.
pub(super) fn proves(keys: &TrustedKeys, proof: &[u8], artifact: &Digest) -> bool {
    #[derive(Deserialize)]
    struct Manifest {
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    struct Layer {
        digest: String,
    }
    let Ok(Proof { manifest, signed }) = serde_json::from_slice::<Proof>(proof) else {
        return false;
    };
    let digest = Digest::of(manifest.as_bytes());
    let names_it = |manifest: Manifest| {
        let artifact = artifact.to_string();
        manifest.layers.iter().any(|layer| layer.digest == artifact)
    };
    keys.have_signed(&digest, &signed) && serde_json::from_str::<Manifest>(&manifest).is_ok_and(names_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(include_str!("../../tests/data/ecdsa.pem")).unwrap()
    }

    fn trusted() -> TrustedKeys {
        TrustedKeys::from_pem(include_str!("../../tests/data/ecdsa.pub.pem")).unwrap()
    }

    #[test]
    fn a_payload_is_the_one_that_cosign_writes() {
        let digest = Digest::of(b"manifest");
        assert_eq!(
            payload("registry.example/team/app", &digest),
            format!(
                "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"registry.example/team/app\"}},\"image\":\
                 {{\"docker-manifest-digest\":\"{digest}\"}},\"type\":\"cosign container image signature\"}},\
                 \"optional\":null}}"
            )
        );
    }

    fn signed(payload: &str, signature: &str) -> Signed {
        Signed::Payload { payload: payload.to_owned(), signature: signature.to_owned() }
    }

    #[test]
    fn what_openssl_signed_is_valid_for_its_manifest_alone() {
        // `openssl dgst -sha256 -sign ecdsa.pem payload.json | base64 -w0`; other fields than ours, in another order.
        let payload = include_str!("../../tests/data/payload.json");
        let signature = include_str!("../../tests/data/payload.sig");
        let manifest = Digest::of(b"manifest");
        assert!(trusted().have_signed(&manifest, &signed(payload, signature)));
        assert!(!trusted().have_signed(&Digest::of(b"another"), &signed(payload, signature)));
        assert!(!trusted().have_signed(&manifest, &signed(&format!("{payload} "), signature)));
        assert!(!trusted().have_signed(&manifest, &signed(payload, "é")));
        let others = TrustedKeys::from_pem(include_str!("../../tests/data/other.pub.pem")).unwrap();
        assert!(!others.have_signed(&manifest, &signed(payload, signature)));
    }

    #[test]
    fn a_signature_for_another_purpose_is_none() {
        let digest = Digest::of(b"manifest");
        let other = payload("r", &digest).replace(KIND, "atomic container signature");
        let signature = key().sign_payload(&other).unwrap();
        assert!(!trusted().have_signed(&digest, &signed(&other, &signature)));
    }

    /// A bundle as cosign 3 writes it, over a statement of this predicate.
    fn bundle(manifest: &Digest, predicate: &str, payload_type: &str) -> String {
        let statement = serde_json::json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
            "subject": [{"annotations": {}, "digest": {"sha256": manifest.hex()}}],
        })
        .to_string();
        let message = format!("DSSEv1 {} {payload_type} {} {statement}", payload_type.len(), statement.len());
        serde_json::json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "…"}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": STANDARD.encode(statement), "payloadType": payload_type,
                "signatures": [{"sig": key().sign_payload(&message).unwrap()}],
            },
        })
        .to_string()
    }

    #[test]
    fn a_bundle_is_good_for_the_manifest_that_its_statement_names_and_as_a_signature_alone() {
        let digest = Digest::of(b"manifest");
        let is_good =
            |bundle: String, digest: &Digest| trusted().have_signed(digest, &Signed::Bundle(bundle));
        let good = bundle(&digest, PREDICATE, STATEMENT);
        assert!(is_good(good.clone(), &digest));
        assert!(!is_good(good.clone(), &Digest::of(b"another")));
        assert!(!is_good(bundle(&digest, "https://cyclonedx.org/bom", STATEMENT), &digest));
        assert!(!is_good(bundle(&digest, PREDICATE, "text/plain"), &digest));
        assert!(!is_good("{}".to_owned(), &digest));
        let mut forged: serde_json::Value = serde_json::from_str(&good).unwrap();
        let other: serde_json::Value =
            serde_json::from_str(&bundle(&Digest::of(b"another"), PREDICATE, STATEMENT)).unwrap();
        forged["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"].clone();
        assert!(!is_good(forged.to_string(), &digest));
    }

    #[test]
    fn a_proof_is_good_for_the_layers_of_the_manifest_that_was_signed() {
        let layer = Digest::of(b"a model");
        let proof = |manifest: &str, about: &str| {
            let payload = payload("r", &Digest::of(about.as_bytes()));
            let signature = key().sign_payload(&payload).unwrap();
            let signed = signed(&payload, &signature);
            serde_json::to_vec(&Proof { manifest: manifest.to_owned(), signed }).unwrap()
        };
        let manifest = format!("{{\"layers\": [{{\"digest\": \"{layer}\", \"size\": 7}}]}}");
        let good = proof(&manifest, &manifest);
        let entry = entry(&Digest::of(&good), good.len() as u64);
        let check = |digest: &Digest, proof: &[u8]| {
            trusted().check(digest, std::slice::from_ref(&entry), |_| Some(proof.to_vec()))
        };
        assert_eq!(check(&layer, &good), Ok(()));
        assert!(check(&Digest::of(b"another"), &good).is_err());
        assert!(check(&layer, &proof(&manifest, "another manifest")).is_err());
        assert!(check(&layer, b"nonsense").is_err());
        assert!(
            trusted().check(&layer, std::slice::from_ref(&entry), |_| None).is_err(),
            "the proof is not here"
        );
        assert!(entry.len() < 256, "{entry}");
        for bad in [
            "cosign:",
            "cosign:sha256:1:2",
            &format!("cosign:{layer}"),
            &format!("cosign:{layer}:99999999999"),
        ] {
            assert_eq!(proof_of(bad), None, "{bad}");
        }
    }
}
