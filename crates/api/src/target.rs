//! What a path of the Kubernetes API names.

use store::Key;
use types::{Kind, KindInfo, PlacementSpec};

use crate::ApiError;

/// A part of an object with an address and rights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself.
    None,
    /// What controllers report.
    Status,
    /// The number of replicas, in the same form for all kinds.
    Scale,
    /// The decision about a certificate signing request.
    Approval,
    /// Who still holds a namespace.
    Finalize,
    /// A new token for a service account.
    Token,
    /// Why a placement selects the sites that it does.
    Explanation,
}

impl Subresource {
    const ALL: [(Self, &'static str); 7] = [
        (Self::None, ""),
        (Self::Status, "status"),
        (Self::Scale, "scale"),
        (Self::Approval, "approval"),
        (Self::Finalize, "finalize"),
        (Self::Token, "token"),
        (Self::Explanation, "explanation"),
    ];

    /// Its name in paths and rights; empty for the object itself.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(subresource, _)| *subresource == self).map_or("", |(_, name)| name)
    }

    /// Whether objects of a kind have it.
    pub fn is_of(self, info: &KindInfo) -> bool {
        match self {
            Self::None => true,
            Self::Status => info.has_status,
            Self::Scale => info.scale.is_some(),
            Self::Approval => info.plural == "certificatesigningrequests",
            Self::Finalize => info.plural == "namespaces",
            Self::Token => info.plural == "serviceaccounts",
            Self::Explanation => info.plural == PlacementSpec::PLURAL,
        }
    }

    /// Those that objects of a kind have, and what can be done with them.
    pub fn all_of(info: &KindInfo) -> impl Iterator<Item = (Self, &'static [&'static str])> {
        Self::ALL
            .into_iter()
            .map(|(subresource, _)| subresource)
            .filter(|subresource| subresource.is_of(info))
            .map(|subresource| (subresource, subresource.verbs(info)))
    }

    /// What can be done with it.
    pub fn verbs(self, info: &KindInfo) -> &'static [&'static str] {
        match self {
            Self::None => info.verbs,
            Self::Status | Self::Scale | Self::Approval => &["get", "patch", "update"],
            Self::Finalize => &["update"],
            Self::Token => &["create"],
            Self::Explanation => &["get"],
        }
    }
}

/// A collection, an object, or a part of one.
#[derive(Debug, Clone)]
pub struct Target {
    pub info: &'static KindInfo,
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    pub subresource: Subresource,
}

impl Target {
    /// Reads what comes after `/api/v1/` or `/apis/GROUP/VERSION/`.
    ///
    /// # Errors
    /// 404 for what is not served here.
    pub fn parse(group: &str, version: &str, path: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::not_found("the server could not find the requested resource");
        let find = |plural: &str| types::kind_at(group, version, plural).ok_or_else(unknown);
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (info, namespace, rest) = match parts.as_slice() {
            // A namespace has parts, too; kinds in it never have their names.
            ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => {
                (find("namespaces")?, "", parts.get(1..).unwrap_or_default())
            }
            ["namespaces", namespace, plural, rest @ ..] => (find(plural)?, *namespace, rest),
            [plural, rest @ ..] => (find(plural)?, "", rest),
            [] => return Err(unknown()),
        };
        let (name, part) = match rest {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, part] => (*name, *part),
            _ => return Err(unknown()),
        };
        let named = Subresource::ALL.iter().find(|(_, known)| *known == part);
        let subresource = named.map(|(subresource, _)| *subresource).filter(|part| part.is_of(info));
        let is_misplaced = info.namespaced == namespace.is_empty() && (!info.namespaced || !name.is_empty());
        let subresource = subresource.filter(|_| !is_misplaced).ok_or_else(unknown)?;
        Ok(Self { info, namespace: namespace.to_owned(), name: name.to_owned(), subresource })
    }

    /// The object's key.
    pub fn key(&self) -> Key {
        Key::new(self.info.plural, &*self.namespace, &*self.name)
    }

    /// Whether the object itself is meant, not a part of it.
    pub fn is_whole(&self) -> bool {
        self.subresource == Subresource::None
    }

    /// Whether only its status is meant.
    pub fn is_status(&self) -> bool {
        matches!(self.subresource, Subresource::Status | Subresource::Approval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: (&str, &str) = (types::GROUP, types::VERSION);
    const CORE: (&str, &str) = ("", "v1");

    #[test]
    fn paths_name_collections_objects_and_their_parts() {
        for ((group, version), path, expected) in [
            (OURS, "sites", ("sites", "", "", "")),
            (OURS, "sites/plant/status", ("sites", "", "plant", "status")),
            (OURS, "placements", ("placements", "", "", "")),
            (OURS, "namespaces/a/placements/p/scale", ("placements", "a", "p", "scale")),
            (CORE, "namespaces", ("namespaces", "", "", "")),
            (CORE, "namespaces/a", ("namespaces", "", "a", "")),
            (CORE, "namespaces/a/finalize", ("namespaces", "", "a", "finalize")),
            (CORE, "namespaces/a/secrets/", ("secrets", "a", "", "")),
            (CORE, "namespaces/a/serviceaccounts/b/token", ("serviceaccounts", "a", "b", "token")),
        ] {
            let target = Target::parse(group, version, path).unwrap();
            let found = (
                target.info.plural,
                target.namespace.as_str(),
                target.name.as_str(),
                target.subresource.name(),
            );
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_served_is_not_found() {
        for ((group, version), path) in [
            (OURS, ""),
            (OURS, "secrets"),
            (CORE, "sites"),
            (OURS, "sites/a/scale"),
            (OURS, "namespaces/a/sites"),
            (OURS, "placements/p"),
            (OURS, "namespaces/a/placements/p/status/x"),
            (("other", "v1"), "sites"),
        ] {
            assert_eq!(Target::parse(group, version, path).unwrap_err().code, 404, "{path}");
        }
    }
}
