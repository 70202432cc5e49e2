//! The generic shape of a resource.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{FieldError, GROUP, ObjectMeta, VERSION, names};

/// A kind of resource, told by what is in it beside the metadata: the `spec` of a [`Resource`], or the fields of a
/// [`Plain`] one.
pub trait Kind: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The API group; empty for the core group of Kubernetes.
    const GROUP: &'static str = GROUP;
    /// The version of the group.
    const VERSION: &'static str = VERSION;
    /// CamelCase singular, as manifests write it.
    const KIND: &'static str;
    /// Lower-case plural, as URLs write it.
    const PLURAL: &'static str;
    /// Whether objects live in a namespace.
    const NAMESPACED: bool = true;
    /// What controllers and agents report; [`NoStatus`] for kinds that nobody reports on.
    type Status: Clone + Default + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// What serde can't see: ranges, formats, references inside the spec. Paths begin with `spec.`.
    fn check(&self, _errors: &mut Vec<FieldError>) {}

    /// What is wrong with a name, if something is. Names are DNS subdomains, but for a few kinds.
    fn name_problem(name: &str) -> Option<&'static str> {
        let problem =
            "is not a name: write 1 to 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends";
        (!names::is_dns_subdomain(name)).then_some(problem)
    }

    /// `GROUP/VERSION`, or just the version in the core group: as manifests write it.
    fn api_version() -> String {
        api_version(Self::GROUP, Self::VERSION)
    }
}

/// `group/version`, or just the version in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The status of kinds that have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}

/// One resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Resource<S: Kind> {
    /// The group and version of the kind.
    pub api_version: String,
    /// The kind's name.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What is.
    #[serde(default)]
    pub status: S::Status,
}

impl<S: Kind> Resource<S> {
    /// A resource with an empty status.
    pub fn new(metadata: ObjectMeta, spec: S) -> Self {
        Self {
            api_version: S::api_version(),
            kind: S::KIND.into(),
            metadata,
            spec,
            status: S::Status::default(),
        }
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The resource's namespace; empty for kinds without one.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// A resource whose fields stand beside the metadata, as with Secrets and Roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Plain<B: Kind> {
    /// The group and version of the kind.
    pub api_version: String,
    /// The kind's name.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// All other fields.
    #[serde(flatten)]
    pub body: B,
}

impl<B: Kind> Plain<B> {
    /// A resource of these fields.
    pub fn new(metadata: ObjectMeta, body: B) -> Self {
        Self { api_version: B::api_version(), kind: B::KIND.into(), metadata, body }
    }
}
