//! The naming rules that several kinds share.

/// Labels and annotations that Avocet itself writes.
pub mod label {
    /// The application that an Assignment belongs to.
    pub const APPLICATION: &str = "avocet.dev/application";
    /// The namespace of that application.
    pub const APPLICATION_NAMESPACE: &str = "avocet.dev/application-namespace";
    /// The component of that application.
    pub const COMPONENT: &str = "avocet.dev/component";
    /// The Placement that a PlacementDecision answers.
    pub const PLACEMENT: &str = "avocet.dev/placement";
    /// The index of the group that the sites of a PlacementDecision are in.
    pub const GROUP_INDEX: &str = "avocet.dev/decision-group-index";
    /// The name of that group; empty for the rest.
    pub const GROUP_NAME: &str = "avocet.dev/decision-group-name";
    /// The number of the ApplicationRevision that an Assignment is of.
    pub const REVISION: &str = "avocet.dev/revision";
    /// Set on every Site to its own tier, so that selectors can use it.
    pub const TIER: &str = "avocet.dev/tier";
    /// On Sites that joined a hub below this one: the site by which they are reached, a child of this one.
    pub const VIA: &str = "avocet.dev/via";
    /// On Assignments that a hub above wrote: the identity of that hub. Controllers here leave them alone.
    pub const ORIGIN: &str = "avocet.dev/origin";
}

/// Annotations that somebody acts on, or that say where an object comes from.
pub mod annotation {
    /// `NAMESPACE/NAME` of the Source that an object was applied by.
    pub const SOURCE: &str = "avocet.dev/source";
    /// `disabled` on an object that its Source is not to delete.
    pub const PRUNE: &str = "avocet.dev/prune";
    /// On a Source: any new value has it looked at now.
    pub const RECONCILE_AT: &str = "avocet.dev/reconcile-at";

    /// `FROM:TO`, numbers of revisions: as long as FROM is what the manifests say, sites run TO. Anything behind an `@`
    /// makes it a new word.
    pub const UNDO: &str = "avocet.dev/rollout-undo";
    /// The number of a revision that is to reach all remaining sites now.
    pub const PROMOTE: &str = "avocet.dev/rollout-promote";
    /// The number of a revision that is to be taken back.
    pub const ABORT: &str = "avocet.dev/rollout-abort";
    /// On Sites that joined a hub below: what that hub said of their labels and spec last, as JSON. What is changed
    /// here stays until the hub below changes the same.
    pub const TOLD: &str = "avocet.dev/told";
    /// On Assignments that a hub above wrote: their uid there.
    pub const ORIGIN_UID: &str = "avocet.dev/origin-uid";
    /// On Assignments that a hub above wrote: their generation there.
    pub const ORIGIN_GENERATION: &str = "avocet.dev/origin-generation";
}

/// What keeps an object that is being deleted until somebody has dealt with its dependents, as Kubernetes names it.
pub mod finalizer {
    /// Until all that the object owns is gone.
    pub const FOREGROUND: &str = "foregroundDeletion";
    /// Until all that the object owns stands for itself.
    pub const ORPHAN: &str = "orphan";
    /// On a Source: until what it created is gone.
    pub const SOURCE: &str = "avocet.dev/source";
    /// In the spec of a namespace: until all that is in it is gone.
    pub const NAMESPACE: &str = "kubernetes";
}

/// A DNS subdomain (RFC 1123): 1..=253 of `a-z 0-9 - .`, alphanumeric at the ends of each part.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// A DNS label (RFC 1123): 1..=63 of `a-z 0-9 -`, alphanumeric at both ends.
pub fn is_dns_label(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || c == '-')
}

/// A label value: up to 63 of `A-Z a-z 0-9 - _ .`, alphanumeric at both ends, or empty.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= 63 && is_word(value))
}

/// A label key: `name` or `prefix/name`, the prefix a DNS subdomain.
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_subdomain)
}

/// A bucket name as S3 has it: 3..=63 of `a-z 0-9 - .`, alphanumeric at both ends, no `..`.
pub fn is_bucket(name: &str) -> bool {
    name.len() >= 3 && name.len() <= 63 && is_dns_subdomain(name)
}

/// What Kubernetes says of a text that is longer than this.
fn too_long(most: usize) -> String {
    format!("must be no more than {most} bytes")
}

/// What is wrong with a DNS subdomain, in the words of Kubernetes; nothing if it is one.
pub fn subdomain_problems(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push(too_long(253));
    }
    if !is_dotted_labels(name) {
        let problem = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                       must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
                       is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        problems.push(problem.to_owned());
    }
    problems
}

/// What is wrong with a DNS label, in the words of Kubernetes; nothing if it is one.
pub fn label_problems(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push(too_long(63));
    }
    if name.contains('.') || !is_dotted_labels(name) {
        let problem = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                       and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation \
                       is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        problems.push(problem.to_owned());
    }
    problems
}

/// What is wrong with a name that is a part of a path, in the words of Kubernetes; nothing if it is one.
pub fn path_segment_problems(name: &str) -> Vec<String> {
    if matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    let unfit = ["/", "%"].into_iter().filter(|part| name.contains(part));
    unfit.map(|part| format!("may not contain '{part}'")).collect()
}

/// What is wrong with a label key, in the words of Kubernetes; nothing if it is one.
pub fn label_key_problems(key: &str) -> Vec<String> {
    const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                        character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut problems = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        ["", name] => {
            problems.push("prefix part must be non-empty".to_owned());
            *name
        }
        [prefix, name] => {
            problems
                .extend(subdomain_problems(prefix).iter().map(|problem| format!("prefix part {problem}")));
            *name
        }
        _ => {
            let prefixed = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {NAME} {prefixed}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", too_long(63)));
    }
    if name.is_empty() || !is_word(name) {
        problems.push(format!("name part {NAME}"));
    }
    problems
}

/// What is wrong with a label value, in the words of Kubernetes; nothing if it is one.
pub fn label_value_problems(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(too_long(63));
    }
    if !value.is_empty() && !is_word(value) {
        let problem = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                       start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
                       used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        problems.push(problem.to_owned());
    }
    problems
}

/// Parts of `a-z 0-9 -` of any length, dots between them, alphanumeric at their ends.
fn is_dotted_labels(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('.').all(|part| {
        part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
            && part.chars().all(|c| alphanumeric(c) || c == '-')
    })
}

/// `A-Z a-z 0-9 - _ .` of any length, alphanumeric at both ends.
fn is_word(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
}

/// [`is_dns_label`], but for the length, as a pattern.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// [`is_label_value`] of what isn't empty, but for the length, as a pattern.
pub(crate) const LABEL_VALUE: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$";
/// [`is_label_key`], but for the length, as a pattern.
pub(crate) const LABEL_KEY: &str = concat!(
    r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?",
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
);
