//! `LimitRange`: there never is one here, for there is nothing that it could limit. The kind is served, and empty,
//! because kubectl asks for it by itself: for `describe namespace`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, NoStatus};

/// What a range of limits would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRangeBody {
    /// The limits.
    pub spec: LimitRangeSpec,
}

/// Limits of what is in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRangeSpec {
    /// One for each type of thing that is limited.
    pub limits: Vec<LimitRangeItem>,
}

/// Limits of one type of thing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRangeItem {
    /// What is limited.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Kind for LimitRangeBody {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "LimitRange";
    const PLURAL: &'static str = "limitranges";
    type Status = NoStatus;
}
