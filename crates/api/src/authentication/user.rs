//! Who makes a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The group of those who may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all whose name was proven.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of the agents of sites.
pub const SITES: &str = "avocet:sites";
/// What the key in `extra` is called that says with which credential a user came.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What the name of a site's agent begins with.
const SITE_PREFIX: &str = "site:";

/// Who makes a request, in the form of Kubernetes' `UserInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, unique among all users.
    #[serde(rename = "username")]
    pub name: String,
    /// Tells users apart that had the same name at different times; empty if whoever vouches has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The groups that the user is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What else was said of the user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user in these groups, and in the group of all whose name was proven.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The administrator of the hub.
    pub fn admin() -> Self {
        Self::new("admin", [MASTERS.to_owned()])
    }

    /// The agent of a site.
    pub fn site_agent(site: &str) -> Self {
        Self::new(format!("{SITE_PREFIX}{site}"), [SITES.to_owned()])
    }

    /// The same user, come with that credential.
    #[must_use]
    pub fn with_credential(mut self, id: String) -> Self {
        self.extra.insert(CREDENTIAL_ID.to_owned(), vec![id]);
        self
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Whether the user may do everything.
    pub fn is_admin(&self) -> bool {
        self.is_in(MASTERS)
    }

    /// The site whose agent this is, if it is one.
    pub fn site(&self) -> Option<&str> {
        self.name.strip_prefix(SITE_PREFIX).filter(|_| self.is_in(SITES))
    }
}

/// Whether only the hub itself gives a user name or group: nobody outside can vouch for one.
pub fn is_reserved(name: &str) -> bool {
    ["system:", "avocet:", SITE_PREFIX].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_told_by_its_name_and_its_group_together() {
        assert_eq!(User::site_agent("plant").site(), Some("plant"));
        assert_eq!(User::new("site:plant", ["avocet:others".to_owned()]).site(), None);
        assert_eq!(User::new("plant", [SITES.to_owned()]).site(), None);
        assert!(User::admin().is_admin());
        assert!(!User::new("admin", []).is_admin());
    }

    #[test]
    fn every_user_is_in_the_group_of_the_authenticated_once() {
        let user = User::new("anna", [AUTHENTICATED.to_owned()]);
        assert_eq!(user.groups, [AUTHENTICATED]);
    }
}
