//! Manifests: what they name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ContentDigest, Error};

/// An image or another artifact.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of manifests.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How many things a manifest may name.
const MOST_NAMED: usize = 10_000;

/// A manifest as another one's list of referrers shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: ContentDigest,
    /// Its size in bytes.
    pub size: u64,
    /// What kind of artifact it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest says that a registry must know.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) media_type: String,
    pub(crate) blobs: Vec<ContentDigest>,
    pub(crate) manifests: Vec<ContentDigest>,
    pub(crate) subject: Option<ContentDigest>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Named>,
    layers: Option<Vec<Named>>,
    manifests: Option<Vec<Named>>,
    subject: Option<Named>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    media_type: String,
    digest: ContentDigest,
    urls: Option<Vec<String>>,
}

impl Named {
    /// Whether its bytes may be elsewhere for good.
    fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
    }
}

/// Reads a manifest of the announced media type. One of a type that is not known here may be anything.
pub(crate) fn read(announced: &str, bytes: &[u8]) -> Result<Contents, Error> {
    // Parameters such as a charset say nothing here.
    let announced = announced.split(';').next().unwrap_or_default().trim();
    let invalid = |problem: String| Error::ManifestInvalid(problem);
    let body: Body = match serde_json::from_slice(bytes) {
        Ok(body) => body,
        Err(_) if !announced.is_empty() && !is_ours(announced) => {
            return Ok(Contents { media_type: announced.to_owned(), ..Contents::default() });
        }
        Err(error) => return Err(invalid(error.to_string())),
    };
    let media_type = match (&body.media_type, announced) {
        (Some(own), "") => own.clone(),
        (None, "") if body.manifests.is_some() => OCI_INDEX.to_owned(),
        (None, "") => OCI_MANIFEST.to_owned(),
        (Some(own), announced) if own != announced => {
            return Err(invalid(format!(
                "it says that it is {own}, but {announced} was announced; say the same"
            )));
        }
        (_, announced) => announced.to_owned(),
    };
    let is_list = matches!(media_type.as_str(), OCI_INDEX | DOCKER_LIST);
    let config_type = body.config.as_ref().map(|config| config.media_type.clone());
    if !is_list && is_ours(&media_type) && config_type.is_none() {
        return Err(invalid("it has no config".to_owned()));
    }
    let named = body.config.into_iter().chain(body.layers.into_iter().flatten());
    let blobs: Vec<_> = named.filter(|named| !named.is_foreign()).map(|named| named.digest).collect();
    let manifests: Vec<_> = body.manifests.into_iter().flatten().map(|named| named.digest).collect();
    if blobs.len() + manifests.len() > MOST_NAMED {
        return Err(invalid(format!("it names more than {MOST_NAMED} blobs and manifests")));
    }
    let own_type = body.artifact_type.filter(|own| !own.is_empty());
    let artifact_type = if is_list { own_type } else { own_type.or(config_type) };
    Ok(Contents {
        media_type,
        blobs,
        manifests,
        subject: body.subject.map(|subject| subject.digest),
        artifact_type,
        annotations: body.annotations.unwrap_or_default(),
    })
}

fn is_ours(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use types::Digest;

    fn named(media_type: &str, content: &[u8]) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": Digest::of(content), "size": content.len()})
    }

    #[test]
    fn an_artifact_is_of_the_type_of_its_config_unless_it_says_otherwise() {
        let mut image = json!({"schemaVersion": 2, "config": named("application/x", b"{}"), "layers": []});
        let read_as = |image: &serde_json::Value| read(OCI_MANIFEST, image.to_string().as_bytes()).unwrap();
        assert_eq!(read_as(&image).artifact_type.as_deref(), Some("application/x"));
        image["artifactType"] = json!("application/y");
        assert_eq!(read_as(&image).artifact_type.as_deref(), Some("application/y"));
        let index = json!({"schemaVersion": 2, "manifests": []});
        assert_eq!(read(OCI_INDEX, index.to_string().as_bytes()).unwrap().artifact_type, None);
    }

    #[test]
    fn layers_that_live_elsewhere_need_not_be_pushed() {
        let image = json!({
            "config": named("application/x", b"{}"),
            "layers": [
                named("application/vnd.oci.image.layer.nondistributable.v1.tar", b"far"),
                {"mediaType": "a/b", "digest": Digest::of(b"url"), "size": 3, "urls": ["https://x.example"]},
                named("a/b", b"here"),
            ],
        });
        let contents = read(OCI_MANIFEST, image.to_string().as_bytes()).unwrap();
        assert_eq!(contents.blobs, [Digest::of(b"{}").into(), Digest::of(b"here").into()]);
    }

    #[test]
    fn what_contradicts_itself_or_is_no_manifest_is_refused_but_unknown_types_may_be_anything() {
        let image = json!({"mediaType": OCI_INDEX, "manifests": []}).to_string();
        assert!(read(OCI_MANIFEST, image.as_bytes()).is_err());
        assert!(read(OCI_MANIFEST, b"{}").is_err(), "no config");
        assert!(read(OCI_MANIFEST, b"not json").is_err());
        assert!(read("", b"not json").is_err());
        assert_eq!(read("text/x", b"not json").unwrap().media_type, "text/x");
    }
}
