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
    /// Set on every Site to its own tier, so that selectors can use it.
    pub const TIER: &str = "avocet.dev/tier";
}

/// What keeps an object that is being deleted until somebody has dealt with its dependents, as Kubernetes names it.
pub mod finalizer {
    /// Until all that the object owns is gone.
    pub const FOREGROUND: &str = "foregroundDeletion";
    /// Until all that the object owns stands for itself.
    pub const ORPHAN: &str = "orphan";
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
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(alphanumeric)
            && value.ends_with(alphanumeric)
            && value.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.')))
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

/// What is said of a name that is no label key.
pub const QUALIFIED_NAME_PROBLEM: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// [`is_dns_label`], but for the length, as a pattern.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// [`is_label_value`] of what isn't empty, but for the length, as a pattern.
pub(crate) const LABEL_VALUE: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$";
/// [`is_label_key`], but for the length, as a pattern.
pub(crate) const LABEL_KEY: &str = concat!(
    r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?",
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
);
