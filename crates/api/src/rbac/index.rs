//! All roles and bindings, compiled for the question who may do what.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use store::{Object, Store};
use types::Kind;
use types::core::{
    ClusterRoleBindingBody, ClusterRoleBody, PolicyRule, RoleBindingBody, RoleBody, RoleRef, Subject,
};

use crate::authentication::User;

/// The kinds that decide who may do what.
pub const PLURALS: [&str; 4] =
    [RoleBody::PLURAL, ClusterRoleBody::PLURAL, RoleBindingBody::PLURAL, ClusterRoleBindingBody::PLURAL];

/// The rules that one binding gives to one subject.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The rules, or what is wrong with the role.
    pub rules: Result<Arc<[PolicyRule]>, Arc<str>>,
    /// Which binding of which role it is, in words.
    pub origin: Arc<str>,
}

/// What one subject has, everywhere and in single namespaces.
#[derive(Debug, Default)]
struct Grants {
    everywhere: Vec<Grant>,
    within: HashMap<String, Vec<Grant>>,
}

/// All roles.
#[derive(Debug, Default)]
struct Roles {
    everywhere: HashMap<String, Arc<[PolicyRule]>>,
    within: HashMap<(String, String), Arc<[PolicyRule]>>,
}

/// Who has which rules.
#[derive(Debug, Default)]
pub struct Index {
    roles: Roles,
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

impl Index {
    /// Compiles what a store holds. Objects that can't be read give no right.
    pub fn read(store: &Store) -> Self {
        let mut index = Self::default();
        for (object, role) in all::<ClusterRoleBody>(store) {
            index.roles.everywhere.insert(object.key.name.clone(), role.rules.into());
        }
        for (object, role) in all::<RoleBody>(store) {
            let key = (object.key.namespace.clone(), object.key.name.clone());
            index.roles.within.insert(key, role.rules.into());
        }
        for (object, binding) in all::<ClusterRoleBindingBody>(store) {
            let origin = format!("ClusterRoleBinding {:?}", object.key.name);
            index.bind("", &origin, &binding.role_ref, &binding.subjects);
        }
        for (object, binding) in all::<RoleBindingBody>(store) {
            let (name, namespace) = (&object.key.name, &object.key.namespace);
            let origin = format!("RoleBinding \"{name}/{namespace}\"");
            index.bind(namespace, &origin, &binding.role_ref, &binding.subjects);
        }
        index
    }

    fn bind(&mut self, namespace: &str, origin: &str, role: &RoleRef, subjects: &[Subject]) {
        let rules = self.rules_of(role, namespace).map_err(Arc::from);
        for subject in subjects {
            let (holders, holder, shown) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone(), subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone(), subject.name.clone()),
                "ServiceAccount" => {
                    let of = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                    let shown = format!("{}/{of}", subject.name);
                    (&mut self.users, format!("system:serviceaccount:{of}:{}", subject.name), shown)
                }
                _ => continue,
            };
            let origin = format!("{origin} of {} {:?} to {} {shown:?}", role.kind, role.name, subject.kind);
            let grant = Grant { rules: rules.clone(), origin: origin.into() };
            let grants = holders.entry(holder).or_default();
            match namespace {
                "" => grants.everywhere.push(grant),
                _ => grants.within.entry(namespace.to_owned()).or_default().push(grant),
            }
        }
    }

    /// The rules of a role that a binding in that namespace (empty for all) refers to.
    ///
    /// # Errors
    /// If there is no such role, in Kubernetes' words.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        let found = match role.kind.as_str() {
            "ClusterRole" => self.roles.everywhere.get(&role.name),
            _ => self.roles.within.get(&(namespace.to_owned(), role.name.clone())),
        };
        found.cloned().ok_or_else(|| {
            let kind = role.kind.to_lowercase();
            format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name)
        })
    }

    /// What a caller has in a namespace; in all of them if it is empty.
    pub fn grants<'a>(
        &'a self,
        caller: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Grant> + 'a {
        let groups = caller.groups.iter().filter_map(|group| self.groups.get(group));
        let held: Vec<&Grants> = self.users.get(&caller.name).into_iter().chain(groups).collect();
        let within =
            held.clone().into_iter().filter_map(move |grants| grants.within.get(namespace)).flatten();
        held.into_iter().flat_map(|grants| &grants.everywhere).chain(within)
    }

    /// All rules that a caller has in a namespace.
    pub fn rules<'a>(&'a self, caller: &'a User, namespace: &'a str) -> Vec<PolicyRule> {
        let grants = self.grants(caller, namespace).filter_map(|grant| grant.rules.as_ref().ok());
        grants.flat_map(|rules| rules.iter().cloned()).collect()
    }
}

fn all<B: Kind + DeserializeOwned>(store: &Store) -> Vec<(Arc<Object>, B)> {
    let (objects, _) = store.list(B::PLURAL, None);
    let read = |object: Arc<Object>| object.parse::<B>().ok().map(|body| (object, body));
    objects.into_iter().filter_map(read).collect()
}
