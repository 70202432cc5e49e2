//! Where in which registry something is.

use std::fmt;

use anyhow::{Context, bail};
use registry::{Reference, Repository};

/// `[HOST[:PORT]/]REPOSITORY[:TAG|@DIGEST]`; without a host it is the hub's own registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub host: Option<String>,
    pub repository: Repository,
    pub reference: Reference,
}

impl Place {
    /// Reads a place; without a tag it is `latest`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Self::read(text).with_context(|| {
            format!("{text:?} is not a place in a registry; write [HOST[:PORT]/]REPOSITORY[:TAG|@DIGEST]")
        })
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let (host, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, text),
        };
        if host.is_some_and(|host| host.contains(['@', '?', '#', '\\'])) {
            bail!("the host is none");
        }
        // A digest has a colon of its own; a tag next to it says nothing more.
        let (named, reference) = match rest.split_once('@') {
            Some((named, digest)) => {
                (named.split(':').next().unwrap_or_default(), Reference::Digest(digest.parse()?))
            }
            None => {
                let (named, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
                (named, Reference::Tag(tag.parse()?))
            }
        };
        Ok(Self { host: host.map(str::to_owned), repository: named.parse()?, reference })
    }

    /// The same place, whatever its tag points at later.
    pub fn pinned(&self, digest: registry::ContentDigest) -> Self {
        Self { reference: Reference::Digest(digest), ..self.clone() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        let between = if matches!(self.reference, Reference::Digest(_)) { '@' } else { ':' };
        write!(f, "{}{between}{}", self.repository, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_other_tools_write_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, host, repository, shown) in [
            ("models/iris", None, "models/iris", "models/iris:latest"),
            ("iris:v1", None, "iris", "iris:v1"),
            ("hub:5000/models/iris:v1", Some("hub:5000"), "models/iris", "hub:5000/models/iris:v1"),
            ("localhost/iris", Some("localhost"), "iris", "localhost/iris:latest"),
            ("ghcr.io/a/b", Some("ghcr.io"), "a/b", "ghcr.io/a/b:latest"),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!((place.host.as_deref(), place.repository.as_str()), (host, repository));
            assert_eq!(place.to_string(), shown);
        }
        let pinned = Place::parse(&format!("hub:5000/iris:v1@{digest}")).unwrap();
        assert_eq!(pinned.to_string(), format!("hub:5000/iris@{digest}"));
        for bad in ["", "Iris", "hub:5000/", "iris:", "iris@v1", "a b", "user@host.example/iris:v1"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
