//! What a path names.

use percent_encoding::percent_decode_str;

use super::Refusal;
use crate::{ContentDigest, Error, Reference, Repository, UploadId};

/// What a path names.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    Version,
    Catalog,
    Tags(Repository),
    Referrers(Repository, ContentDigest),
    Manifest(Repository, Reference),
    Blob(Repository, ContentDigest),
    Uploads(Repository),
    Upload(Repository, UploadId),
    Unknown,
}

impl Target {
    /// Read from its end: names of repositories have slashes, and parts that may be called like ours.
    pub(super) fn read(path: &str) -> Result<Self, Refusal> {
        let path =
            percent_decode_str(path).decode_utf8().map_err(|_| Refusal::query("the path is not UTF-8"))?;
        let path = path.strip_prefix("/v2").unwrap_or(&path);
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut from_end = path.rsplitn(4, '/');
        let mut next = || from_end.next().unwrap_or_default();
        let (last, second, third) = (next(), next(), next());
        let named = |parts: usize| -> Result<Repository, Error> {
            let length = path.rmatch_indices('/').nth(parts - 1).map_or(0, |(at, _)| at);
            path.get(..length).unwrap_or_default().parse()
        };
        Ok(match (third, second, last) {
            (_, "", "") => Self::Version,
            (_, "", "_catalog") => Self::Catalog,
            (_, "tags", "list") => Self::Tags(named(2)?),
            ("blobs", "uploads", "") => Self::Uploads(named(3)?),
            ("blobs", "uploads", id) => Self::Upload(named(3)?, id.parse()?),
            (_, "blobs", "uploads") => Self::Uploads(named(2)?),
            (_, "blobs", digest) => Self::Blob(named(2)?, digest.parse()?),
            (_, "manifests", reference) => Self::Manifest(named(2)?, reference.parse()?),
            (_, "referrers", digest) => Self::Referrers(named(2)?, digest.parse()?),
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let digest: ContentDigest = types::Digest::of(b"").into();
        let repository: Repository = "a/blobs/uploads".parse().unwrap();
        assert_eq!(Target::read("/v2/").unwrap(), Target::Version);
        assert_eq!(Target::read("/v2").unwrap(), Target::Version);
        assert_eq!(Target::read("/v2/_catalog").unwrap(), Target::Catalog);
        assert_eq!(
            Target::read("/v2/a/blobs/uploads/blobs/uploads/").unwrap(),
            Target::Uploads(repository.clone())
        );
        assert_eq!(
            Target::read(&format!("/v2/a/blobs/uploads/blobs/{digest}")).unwrap(),
            Target::Blob(repository.clone(), digest)
        );
        assert_eq!(
            Target::read("/v2/a/blobs/uploads/manifests/latest").unwrap(),
            Target::Manifest(repository.clone(), "latest".parse().unwrap())
        );
        assert_eq!(Target::read("/v2/a/blobs/uploads/tags/list").unwrap(), Target::Tags(repository.clone()));
        let encoded = digest.to_string().replace(':', "%3A");
        assert_eq!(
            Target::read(&format!("/v2/a/blobs/uploads/referrers/{encoded}")).unwrap(),
            Target::Referrers(repository, digest)
        );
        assert_eq!(Target::read("/v2/a/b/c").unwrap(), Target::Unknown);
        for bad in ["/v2/A/tags/list", "/v2//tags/list", "/v2/tags/list", "/v2/a/blobs/sha256:bad", "/v2/%ff"]
        {
            assert!(Target::read(bad).is_err(), "{bad}");
        }
    }
}
