//! `Lease`: who leads, and since when nobody heard of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Kind, NoStatus};

/// A claim that is good until it is not renewed in time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// Who holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_identity: Option<String>,
    /// For how many seconds after its renewal others leave it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration_seconds: Option<i64>,
    /// When its holder got it, to the microsecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<String>,
    /// When its holder renewed it last, to the microsecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<String>,
    /// How often it changed hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i64>,
    /// How its holder is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Who should hold it instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_holder: Option<String>,
}

/// What a lease says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseBody {
    /// The claim.
    pub spec: LeaseSpec,
}

impl Kind for LeaseBody {
    const GROUP: &'static str = "coordination.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Lease";
    const PLURAL: &'static str = "leases";
    type Status = NoStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        if let Some(seconds) = self.spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::new("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
        }
    }
}
