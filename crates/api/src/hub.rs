//! What every request handler needs.

use std::sync::Arc;

use artifacts::Blobs;
use controllers::{Errands, Heartbeats, SourceQueue};
use daemon::Shutdown;
use registry::Registry;
use store::Store;

use crate::audit::Audit;
use crate::authentication::{Identities, Oidc, ServiceAccounts, Tokens};
use crate::rbac::Rbac;
use crate::{
    Egress, Limits, Mailbox, Metrics, Outlooks, Pages, Peers, QuotaTurns, Relay, SiteTokens, Upstream,
};

/// A hub's state. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    /// Tells this hub from another one that took its address: an agent never obeys another than it joined.
    pub id: String,
    /// The name of the site that the hub is at, which is the parent of all who join.
    pub site: String,
    pub store: Store,
    pub tokens: Tokens,
    /// The keys of sites, and who signs certificates for them.
    pub identities: Identities,
    pub site_tokens: SiteTokens,
    pub service_accounts: ServiceAccounts,
    /// Checks the tokens of people whom an OpenID Connect issuer knows, if one is trusted.
    pub oidc: Option<Arc<Oidc>>,
    pub heartbeats: Heartbeats,
    pub blobs: Blobs,
    /// The hub above, if this one is to be a site below another.
    pub parent: Option<Upstream>,
    /// Images and other artifacts, over the same blobs.
    pub registry: Registry,
    pub mailbox: Mailbox,
    /// Sources that somebody wants to be looked at now.
    pub sources: SourceQueue,
    /// What sites are to fetch for Sources.
    pub errands: Errands,
    /// What sites tell one another.
    pub relay: Relay,
    /// From whom sites of one place fetch artifacts.
    pub peers: Peers,
    /// What placements decide, and would decide.
    pub outlooks: Outlooks,
    /// Lets artifacts and images out.
    pub egress: Egress,
    pub pages: Pages,
    pub limits: Limits,
    /// Who may do what.
    pub rbac: Rbac,
    /// Who creates what quotas count.
    pub quota_turns: QuotaTurns,
    /// What is counted.
    pub metrics: Metrics,
    /// Where requests are written down.
    pub audit: Audit,
    pub shutdown: Shutdown,
}
