//! Signatures of what is in registries, in cosign's forms.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use artifacts::signature::cosign::{
    self, ANNOTATION, LARGEST, PAYLOAD, Proof, SIGNATURE, Signed, holds_signatures, is_signature,
};
use artifacts::signature::{SigningKey, TrustedKeys};
use registry::{Reference, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use types::Digest;

use super::client::{Client, Manifest};
use super::place::Place;
use super::take::SCHEME;
use crate::cli::ClientOptions;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// How many signatures of one manifest are looked at.
const MOST_SIGNATURES: usize = 64;
/// How many of them an artifact takes along.
const MOST_PROOFS: usize = 8;

/// A manifest that holds signatures.
#[derive(Deserialize)]
struct Holder {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Signs what `oci://PLACE` is now, beside the signatures that it has; answers where it is, whatever its tag points at
/// later.
pub async fn sign(options: &ClientOptions, address: &str, key: &SigningKey) -> anyhow::Result<String> {
    let (place, mut client, found) = find(options, address).await?;
    let subject = Digest::of(&found.bytes);
    let reference = format!("{}/{}", place.host.clone().unwrap_or_else(|| client.host()), place.repository);
    let payload = cosign::payload(&reference, &subject);
    let file = NamedTempFile::new()?;
    std::fs::write(file.path(), &payload)?;
    let digest = Digest::of(payload.as_bytes());
    client.push_blob(file.path(), &digest).await?;
    let annotations = [(ANNOTATION.to_owned(), key.sign_payload(&payload)?)].into();
    let layer = Layer { media_type: PAYLOAD.to_owned(), digest, size: payload.len() as u64, annotations };

    let tag = Reference::Tag(cosign::tag(&subject).parse::<Tag>()?);
    let mut layers = match client.find(&tag).await? {
        Some(holder) => read(&holder)?.layers,
        None => vec![],
    };
    layers.push(layer);
    let config = json!({
        "architecture": "", "os": "", "config": {},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| layer.digest).collect::<Vec<_>>()},
    })
    .to_string();
    std::fs::write(file.path(), &config)?;
    let config_digest = Digest::of(config.as_bytes());
    client.push_blob(file.path(), &config_digest).await?;
    let holder: Value = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SIGNATURE,
        "config": {"mediaType": CONFIG, "digest": config_digest, "size": config.len()},
        "layers": layers,
        // Who asks for what refers to it finds it, too.
        "subject": {"mediaType": found.media_type, "digest": subject, "size": found.bytes.len()},
    });
    client.push_manifest(&tag, MANIFEST, &holder).await?;
    Ok(place.pinned(subject.into()).to_string())
}

/// Lets pass what is at `oci://PLACE` if one of the keys signed it; answers where it is, whatever its tag points at later.
pub async fn verify(options: &ClientOptions, address: &str, keys: &TrustedKeys) -> anyhow::Result<String> {
    let (place, mut client, found) = find(options, address).await?;
    let subject = Digest::of(&found.bytes);
    let place = place.pinned(subject.into());
    let signed = signatures(&mut client, &subject).await?;
    if signed.iter().any(|one| keys.have_signed(&subject, one)) {
        return Ok(place.to_string());
    }
    bail!("{place} has no valid signature by a trusted key ({} signatures)", signed.len());
}

/// What proves who signed a manifest, whoever that was.
pub async fn proofs(client: &mut Client, manifest: &[u8]) -> anyhow::Result<Vec<Proof>> {
    let Ok(text) = std::str::from_utf8(manifest) else { return Ok(vec![]) };
    let signed = signatures(client, &Digest::of(manifest)).await?;
    let proofs = signed.into_iter().map(|signed| Proof { manifest: text.to_owned(), signed });
    Ok(proofs.take(MOST_PROOFS).collect())
}

async fn find(options: &ClientOptions, address: &str) -> anyhow::Result<(Place, Client, Manifest)> {
    let place = Place::parse(address.strip_prefix(SCHEME).unwrap_or(address))?;
    let mut client = Client::of(options, &place)?;
    let found = client.find(&place.reference).await?;
    let found = found.with_context(|| format!("there is no {place}; push it first"))?;
    Ok((place, client, found))
}

/// The signatures of a manifest: under cosign's tag, and what refers to it.
async fn signatures(client: &mut Client, manifest: &Digest) -> anyhow::Result<Vec<Signed>> {
    let tag = Reference::Tag(cosign::tag(manifest).parse::<Tag>()?);
    let mut holders = vec![tag];
    let referrers = client.referrers(manifest, holds_signatures).await?;
    holders.extend(referrers.into_iter().map(|digest| Reference::Digest(digest.into())));
    let mut layers: Vec<Layer> = Vec::new();
    for holder in holders {
        let Some(holder) = client.find(&holder).await? else { continue };
        for layer in read(&holder)?.layers {
            let is_new = layers
                .iter()
                .all(|known| (&known.digest, &known.annotations) != (&layer.digest, &layer.annotations));
            if is_new && is_signature(&layer.media_type) && layer.size <= LARGEST {
                layers.push(layer);
            }
        }
    }
    layers.truncate(MOST_SIGNATURES);
    let mut signed = Vec::new();
    for layer in layers {
        let content = client.small_blob(&layer.digest, usize::try_from(LARGEST)?).await?;
        signed.extend(Signed::of_layer(&layer.media_type, &layer.annotations, content.to_vec()));
    }
    Ok(signed)
}

fn read(holder: &Manifest) -> anyhow::Result<Holder> {
    serde_json::from_slice(&holder.bytes).context("the manifest with the signatures can't be read")
}
