//! Whether a site counts as there: leases, clocks, and what is left on a site that nobody asks for any more.

/// How many times the duration of a lease a site may be silent.
const GRACE: u64 = 5;
/// The duration of a lease where none is stated, in seconds.
const DEFAULT_LEASE: u64 = 60;

/// How long a site may be silent, in seconds.
pub fn grace_seconds(lease_seconds: u64) -> u64 {
    GRACE.saturating_mul(if lease_seconds == 0 { DEFAULT_LEASE } else { lease_seconds })
}

/// What is known of a site's lease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lease {
    /// Whether anybody ever decided on the site's membership.
    pub is_decided: bool,
    /// Whether the site is being removed.
    pub is_deleting: bool,
    /// Seconds since it was renewed; `None` without a lease.
    pub age_seconds: Option<f64>,
    /// How long it is good for, in seconds.
    pub lease_seconds: u64,
    /// Whether it is known already that nobody knows how the site is.
    pub is_unknown: bool,
}

/// What is to be done about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAction {
    /// Nothing.
    None,
    /// Make one.
    Create,
    /// Say that nobody knows how the site is.
    SetUnknown,
}

/// What is to be done about a lease.
pub fn lease(lease: Lease) -> LeaseAction {
    let set_unknown = if lease.is_unknown { LeaseAction::None } else { LeaseAction::SetUnknown };
    match lease.age_seconds {
        _ if !lease.is_decided => LeaseAction::None,
        None if lease.is_deleting => set_unknown,
        None => LeaseAction::Create,
        Some(age) if age >= grace_seconds(lease.lease_seconds) as f64 => set_unknown,
        Some(_) => LeaseAction::None,
    }
}

/// Whether the clocks of a site and its hub agree well enough.
pub fn is_clock_synced(difference_seconds: f64, lease_seconds: u64) -> bool {
    difference_seconds.abs() < grace_seconds(lease_seconds) as f64
}

/// How a site is, as the taint that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It works.
    Available,
    /// It answers that it doesn't.
    Unavailable,
    /// Nobody knows.
    Unreachable,
}

/// How a site is, by what its condition says.
pub fn reach(available: Option<bool>) -> Reach {
    match available {
        Some(true) => Reach::Available,
        Some(false) => Reach::Unavailable,
        None => Reach::Unreachable,
    }
}

/// What to do with something on a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// It is asked for: it stays, and what was begun is called off.
    Keep,
    /// It is noted that it isn't asked for any more.
    Begin,
    /// It is not asked for, but may be again.
    Wait,
    /// It goes.
    Evict,
}

/// From so many seconds on, nothing is ever evicted: a hundred years.
const NEVER: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

/// What to do with something on a site that may not be asked for any more. It is asked for if the hub knows it, and the
/// hub is the same.
pub fn evict(is_asked_for: bool, begun_seconds_ago: Option<f64>, grace_seconds: f64) -> Eviction {
    match begun_seconds_ago {
        _ if is_asked_for || grace_seconds >= NEVER => Eviction::Keep,
        None => Eviction::Begin,
        Some(ago) if ago < grace_seconds => Eviction::Wait,
        Some(_) => Eviction::Evict,
    }
}
