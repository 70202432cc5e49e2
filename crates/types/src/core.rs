//! Kinds of Kubernetes itself that clients expect of every API server: where things live, what they need to know,
//! who they are and what they may.

mod access;
mod account;
mod certificate;
mod config;
mod definition;
mod event;
mod lease;
mod limit;
mod namespace;
mod quota;
mod service;

pub use access::{
    AggregationRule, ClusterRoleBindingBody, ClusterRoleBody, PolicyRule, RoleBindingBody, RoleBody, RoleRef,
    Subject,
};
pub use account::{LocalObjectReference, ServiceAccountBody};
pub use certificate::{CertificateCondition, CertificateSigningRequestSpec, CertificateSigningRequestStatus};
pub use config::{ConfigMapBody, SecretBody};
pub use definition::{
    Conversion, CustomResourceDefinitionSpec, CustomResourceDefinitionStatus, DefinitionNames,
    DefinitionVersion, PrinterColumn, SelectableField, VersionDetails,
};
pub use event::{EventBody, EventSeries, EventSource, ObjectReference};
pub use lease::{LeaseBody, LeaseSpec};
pub use limit::LimitRangeBody;
pub use namespace::{NamespaceSpec, NamespaceStatus};
pub use quota::{ResourceQuotaSpec, ResourceQuotaStatus};
pub use service::ServiceSpec;
