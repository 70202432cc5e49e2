//! What rules allow, and what they cover of other rules.

use types::core::PolicyRule;

const ALL: &str = "*";

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// Something with a resource.
    Resource(ResourceAttempt<'a>),
    /// A request to a path that is no resource.
    Path {
        /// The method in lower case.
        verb: &'a str,
        /// The path as it was sent.
        path: &'a str,
    },
}

/// What is to be done with a resource.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceAttempt<'a> {
    /// The Kubernetes verb: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version of the group; it decides nothing.
    pub version: &'a str,
    /// The kind's plural.
    pub plural: &'a str,
    /// The namespace; empty for all, or for kinds without one.
    pub namespace: &'a str,
    /// The name; empty for lists and new objects.
    pub name: &'a str,
    /// `status`, …, or empty.
    pub subresource: &'a str,
}

impl<'a> Attempt<'a> {
    /// The verb.
    pub fn verb(&self) -> &'a str {
        match self {
            Self::Resource(attempt) => attempt.verb,
            Self::Path { verb, .. } => verb,
        }
    }

    /// The namespace; empty for all, and for paths.
    pub fn namespace(&self) -> &'a str {
        match self {
            Self::Resource(attempt) => attempt.namespace,
            Self::Path { .. } => "",
        }
    }
}

/// Whether a rule allows an attempt.
pub fn allows(rule: &PolicyRule, attempt: &Attempt) -> bool {
    if !has(&rule.verbs, attempt.verb()) {
        return false;
    }
    match attempt {
        Attempt::Path { path, .. } => rule.non_resource_urls.iter().any(|url| matches_url(url, path)),
        Attempt::Resource(wanted) => {
            has(&rule.api_groups, wanted.group)
                && rule
                    .resources
                    .iter()
                    .any(|known| matches_resource(known, wanted.plural, wanted.subresource))
                && (rule.resource_names.is_empty()
                    || rule.resource_names.iter().any(|name| name == wanted.name))
        }
    }
}

fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == ALL || word == wanted)
}

fn matches_resource(known: &str, plural: &str, subresource: &str) -> bool {
    if known == ALL {
        return true;
    }
    match known.split_once('/') {
        None => subresource.is_empty() && known == plural,
        Some((of, part)) => !subresource.is_empty() && part == subresource && (of == ALL || of == plural),
    }
}

fn matches_url(known: &str, path: &str) -> bool {
    known == ALL || known == path || known.ends_with('*') && path.starts_with(known.trim_end_matches('*'))
}

/// Which parts of the wanted rules none of the owned ones covers, each as a rule of its own, those that differ in
/// their verbs alone as one.
pub fn missing(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(break_down);
    let mut lacking: Vec<PolicyRule> = Vec::new();
    for part in parts.filter(|part| !owned.iter().any(|rule| covers(rule, part))) {
        let same = lacking.iter_mut().find(|known| is_same_object(known, &part));
        match same {
            Some(known) => {
                let new = part.verbs.into_iter().filter(|verb| !known.verbs.contains(verb));
                let new: Vec<String> = new.collect();
                known.verbs.extend(new);
            }
            None => lacking.push(part),
        }
    }
    lacking
}

/// A rule as rules of one verb on one resource of one group, with at most one name, or on one path.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for url in &rule.non_resource_urls {
            let non_resource_urls = vec![url.clone()];
            parts.push(PolicyRule { verbs: verbs.clone(), non_resource_urls, ..PolicyRule::default() });
        }
    }
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                let named = rule.resource_names.iter();
                parts.extend(
                    named.map(|name| PolicyRule { resource_names: vec![name.clone()], ..part.clone() }),
                );
                if rule.resource_names.is_empty() {
                    parts.push(part);
                }
            }
        }
    }
    parts
}

fn is_same_object(one: &PolicyRule, other: &PolicyRule) -> bool {
    one.non_resource_urls.is_empty()
        && PolicyRule { verbs: vec![], ..one.clone() } == PolicyRule { verbs: vec![], ..other.clone() }
}

/// Whether a rule allows all that one part of a rule does.
fn covers(rule: &PolicyRule, part: &PolicyRule) -> bool {
    let resource = |wanted: &String| {
        let (plural, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
        rule.resources.iter().any(|known| known == wanted || matches_resource(known, plural, subresource))
    };
    let names = &rule.resource_names;
    let covers_names = match part.resource_names.as_slice() {
        [] => names.is_empty(),
        wanted => names.is_empty() || wanted.iter().all(|name| names.contains(name)),
    };
    part.verbs.iter().all(|verb| has(&rule.verbs, verb))
        && part.api_groups.iter().all(|group| has(&rule.api_groups, group))
        && part.resources.iter().all(resource)
        && part
            .non_resource_urls
            .iter()
            .all(|url| rule.non_resource_urls.iter().any(|known| matches_url(known, url)))
        && covers_names
}

/// A rule in one line, as Kubernetes words it.
pub fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, values)| !values.is_empty());
    let parts: Vec<String> = parts.map(|(name, values)| format!("{name}:{}", quote(values))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// Words as `["a" "b"]`.
pub fn quote(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
