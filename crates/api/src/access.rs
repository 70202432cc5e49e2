//! What each identity may do.
//!
//! An admin may do everything. A site's agent has the least it needs: it reads the Assignments in its own
//! namespace and reports on them, reads its own Site and reports on it, fetches artifacts, and takes deliveries
//! meant for it. What it may send is checked in [`crate::mailbox`].

use crate::ApiError;
use crate::authentication::User;

/// What is to be done with a resource.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The Kubernetes verb: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The kind's plural.
    pub plural: &'a str,
    /// The namespace; empty for all, or for kinds without one.
    pub namespace: &'a str,
    /// The name; empty for lists.
    pub name: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
}

/// Lets an attempt pass or not.
///
/// # Errors
/// 403 that names who tried what.
pub fn check(user: &User, attempt: Attempt) -> Result<(), ApiError> {
    if user.is_admin() {
        return Ok(());
    }
    let reads = matches!(attempt.verb, "get" | "list" | "watch");
    let reports = matches!(attempt.verb, "update" | "patch") && attempt.subresource == "status";
    let allowed = attempt.group == types::GROUP
        && match (user.site(), attempt.plural) {
            (Some(site), "assignments") => attempt.namespace == site && (reads || reports),
            (Some(site), "sites") => attempt.name == site && (reads || reports),
            _ => false,
        };
    if allowed {
        return Ok(());
    }
    let Attempt { verb, group, plural, namespace, .. } = attempt;
    Err(ApiError::forbidden(format!(
        "{plural} is forbidden: user \"{}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" in the \
         namespace \"{namespace}\"",
        user.name,
    )))
}

/// Lets only admins pass.
///
/// # Errors
/// 403 for everybody else.
pub fn admin(user: &User) -> Result<(), ApiError> {
    if user.is_admin() {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{} may not do this; an admin may", user.name)))
}

/// Lets admins pass, and the agent of that site.
///
/// # Errors
/// 403 for everybody else.
pub fn site(user: &User, name: &str) -> Result<(), ApiError> {
    if user.is_admin() || user.site() == Some(name) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{} may not act for site `{name}`", user.name)))
}

/// Lets admins pass, and the agents of all sites.
///
/// # Errors
/// 403 for everybody else.
pub fn admin_or_site(user: &User) -> Result<(), ApiError> {
    if user.is_admin() || user.site().is_some() {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{} may not do this; an admin or a site may", user.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_7_who_is_neither_admin_nor_site_may_do_nothing() {
        let anna = User::new("anna", ["operators".to_owned()]);
        let attempt = Attempt {
            verb: "get",
            group: types::GROUP,
            plural: "sites",
            namespace: "",
            name: "plant",
            subresource: "",
        };
        assert_eq!(check(&anna, attempt).unwrap_err().code, 403);
        for refused in [admin(&anna), site(&anna, "plant"), site(&anna, ""), admin_or_site(&anna)] {
            assert_eq!(refused.unwrap_err().code, 403);
        }
    }

    #[test]
    fn promise_7_a_site_reads_and_reports_on_its_own_and_nothing_else() {
        let site = User::site_agent("plant");
        let may = |verb, plural, namespace, name, subresource| {
            check(&site, Attempt { verb, group: types::GROUP, plural, namespace, name, subresource }).is_ok()
        };
        assert!(may("watch", "assignments", "plant", "", ""));
        assert!(may("patch", "assignments", "plant", "a", "status"));
        assert!(may("patch", "sites", "", "plant", "status"));
        for refused in [
            may("list", "assignments", "", "", ""),
            may("list", "assignments", "shop", "", ""),
            may("patch", "assignments", "plant", "a", ""),
            may("delete", "assignments", "plant", "a", ""),
            may("get", "sites", "", "shop", ""),
            may("patch", "sites", "", "plant", ""),
            may("list", "applications", "plant", "", ""),
        ] {
            assert!(!refused);
        }
    }
}
