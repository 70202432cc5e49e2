//! `offload`: which work may be done elsewhere when a component's site is busy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LabelSelector, Quantity};

/// Lets a site that can't run an invocation now ask others to run it. Its input travels there, its outputs come back
/// and are published as if it had run where it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offload {
    /// Whom the site asks.
    #[serde(default = "everybody")]
    #[schemars(length(min = 1, max = 2))]
    pub to: Vec<OffloadTo>,
    /// Asks only sites with these labels; absent asks all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site_selector: Option<LabelSelector>,
    /// Larger inputs stay.
    #[serde(default = "default_input")]
    pub max_input_bytes: Quantity,
    /// By how many percent another site must be faster, transfers included.
    #[serde(default = "default_margin")]
    #[schemars(range(max = 1000))]
    pub margin_percent: u32,
    /// For how many seconds the site that took an invocation may be silent before it is run elsewhere.
    #[serde(default = "default_patience")]
    #[schemars(range(min = 2, max = 3600))]
    pub patience_seconds: u32,
    /// Within how many seconds an invocation is to be done; sites that can't be as fast don't take it. Absent for at
    /// any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub within_seconds: Option<u32>,
}

/// Whom a site asks to take its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OffloadTo {
    /// The other sites that joined the same hub.
    Neighbours,
    /// The site beside the hub.
    Parent,
}

impl Default for Offload {
    fn default() -> Self {
        Self {
            to: everybody(),
            site_selector: None,
            max_input_bytes: default_input(),
            margin_percent: default_margin(),
            patience_seconds: default_patience(),
            within_seconds: None,
        }
    }
}

fn everybody() -> Vec<OffloadTo> {
    vec![OffloadTo::Neighbours, OffloadTo::Parent]
}

fn default_input() -> Quantity {
    Quantity::mebibytes(64)
}

fn default_margin() -> u32 {
    20
}

fn default_patience() -> u32 {
    15
}
