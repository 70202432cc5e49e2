//! Who may do what: role-based access control as Kubernetes has it.
//!
//! [`Rbac`] answers from the Roles, ClusterRoles and bindings in the store; [`authorize`] asks it about every request
//! behind authentication. [`rules`] is what rules mean, [`index`] finds those of a caller, [`defaults`] are the roles that
//! are always there, [`sites`] is what sites may do without any, [`escalation`] keeps people from giving what they don't
//! have.

pub mod defaults;
pub mod escalation;
mod index;
mod rules;
pub mod sites;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::extract::Request;
use store::{Key, Store};
use types::core::PolicyRule;
use types::{Kind, SiteSpec};

use crate::audit::Trail;
use crate::authentication::User;
use crate::request::RequestInfo;
use crate::{ApiError, Hub};
use index::{Index, PLURALS};
pub use rules::{Attempt, ResourceAttempt};

/// Whether an attempt is allowed, and why; refusals tell only what is wrong with roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

/// Decides about attempts. Cheap to clone.
#[derive(Clone)]
pub struct Rbac {
    store: Store,
    /// The index, and the version of the kinds that it was compiled from.
    compiled: Arc<RwLock<(u64, Arc<Index>)>>,
    /// Held by who compiles, so that after a change not all do.
    compiling: Arc<Mutex<()>>,
}

impl Rbac {
    /// Over the roles and bindings of a store.
    pub fn new(store: Store) -> Self {
        let version = store.latest_of(&PLURALS);
        let index = Arc::new(Index::read(&store));
        Self { store, compiled: Arc::new(RwLock::new((version, index))), compiling: Arc::default() }
    }

    /// The index of what the store holds now; compiled anew only after a change of a role or binding.
    fn index(&self) -> Arc<Index> {
        let needed = self.store.latest_of(&PLURALS);
        if let Some(index) = self.compiled_since(needed) {
            return index;
        }
        let _compiling = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.compiled_since(needed) {
            return index;
        }
        // Read before the objects: should they change meanwhile, the next request compiles again.
        let version = self.store.latest_of(&PLURALS);
        let index = Arc::new(Index::read(&self.store));
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = (version, index.clone());
        index
    }

    fn compiled_since(&self, needed: u64) -> Option<Arc<Index>> {
        let compiled = self.compiled.read().unwrap_or_else(PoisonError::into_inner);
        (compiled.0 >= needed).then(|| compiled.1.clone())
    }

    /// Whether a caller may do something.
    pub fn decide(&self, caller: &User, attempt: &Attempt) -> Decision {
        if caller.is_admin() {
            return Decision { allowed: true, reason: String::new() };
        }
        if let Some(site) = self.site(caller)
            && sites::rules(site, attempt.namespace()).any(|rule| rules::allows(&rule, attempt))
        {
            return Decision { allowed: true, reason: format!("Site: {site:?} may do what concerns itself") };
        }
        let index = self.index();
        let mut broken = Vec::new();
        for grant in index.grants(caller, attempt.namespace()) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rules::allows(rule, attempt)) => {
                    return Decision { allowed: true, reason: format!("RBAC: allowed by {}", grant.origin) };
                }
                Ok(_) => {}
                Err(problem) => broken.push(problem.to_string()),
            }
        }
        let reason = match broken.as_slice() {
            [] => String::new(),
            [problem] => format!("RBAC: {problem}"),
            problems => format!("RBAC: [{}]", problems.join(", ")),
        };
        Decision { allowed: false, reason }
    }

    /// Lets an attempt pass or not.
    ///
    /// # Errors
    /// 403 that names who tried what.
    pub fn check(&self, caller: &User, attempt: &Attempt) -> Result<(), ApiError> {
        let decision = self.decide(caller, attempt);
        if decision.allowed { Ok(()) } else { Err(refusal(caller, attempt, &decision.reason)) }
    }

    /// All rules that a caller has in a namespace.
    pub fn rules(&self, caller: &User, namespace: &str) -> Vec<PolicyRule> {
        let own = self.site(caller).into_iter().flat_map(|site| sites::rules(site, namespace));
        own.chain(self.index().rules(caller, namespace)).collect()
    }

    /// The site that a caller is, while it is one.
    fn site<'a>(&self, caller: &'a User) -> Option<&'a str> {
        let is_known = |site: &&str| self.store.get(&Key::new(SiteSpec::PLURAL, "", *site)).is_some();
        caller.site().filter(is_known)
    }
}

/// Lets a request pass if its caller may do what it is about. All that is behind authentication comes through here.
///
/// # Errors
/// 403 that names who tried what.
pub fn authorize(hub: &Hub, user: &User, info: &Arc<RequestInfo>, request: &Request) -> Result<(), ApiError> {
    let attempt = info.attempt();
    let decision = hub.rbac.decide(user, &attempt);
    let refused = if decision.allowed { Ok(()) } else { Err(refusal(user, &attempt, &decision.reason)) };
    Trail::of(request).decided(info.clone(), decision);
    refused
}

/// A refusal as Kubernetes words it.
fn refusal(caller: &User, attempt: &Attempt, reason: &str) -> ApiError {
    let user = &caller.name;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let wanted = match attempt {
        Attempt::Path { verb, path } => {
            return ApiError::forbidden(format!(
                "forbidden: User {user:?} cannot {verb} path {path:?}{because}"
            ));
        }
        Attempt::Resource(wanted) => wanted,
    };
    let ResourceAttempt { verb, group, plural, namespace, name, subresource, .. } = wanted;
    let resource = [*plural, *subresource].join("/");
    let resource = resource.trim_end_matches('/');
    let place = match *namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let problem =
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}{because}");
    ApiError::forbidden_resource(group, plural, name, &problem)
}
