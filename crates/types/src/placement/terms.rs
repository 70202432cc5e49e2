//! What a placement asks of sites beside labels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, LabelSelector, PlacementSpec};

/// One way to be selected: all three must match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Predicate {
    /// Selects by the labels of sites.
    pub label_selector: LabelSelector,
    /// Selects by the claims of sites.
    pub claim_selector: LabelSelector,
    /// CEL expressions over `site`, the whole resource, all of which must be true; `site.scores("NAME")` are the told
    /// scores of that name. Where one has no value, the site does not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 10_000)))]
    pub cel_expressions: Vec<String>,
}

/// Constraints in words, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Constraints {
    /// Of labels: `location is DE`, `tier in (edge, region)`. A site without the label meets none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub labels: Vec<String>,
    /// Of metrics: `load lesser than 0.8`. What is compared is the weighted value from 0 to 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub metrics: Vec<String>,
}

impl Constraints {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.metrics.is_empty()
    }
}

/// A preference for a good connection to one of: a site, a location, a component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.site) && self.site != '', has(self.location) && self.location != '', has(self.component)]\
             .filter(one, one).size() == 1",
    "message": "exactly one of site, location and component is needed",
}]))]
pub struct Near {
    /// The site to be near to.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub site: String,
    /// The location to be near to, as sites name it in `spec.location` or measure it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub location: String,
    /// The component to be near to: the nearest of its sites counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentReference>,
    /// Sites farther away than this are not selected, nor are those whose distance isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMinimum" = true))]
    pub max_round_trip_milliseconds: Option<f64>,
    /// Sites with a slower connection than this are not selected, nor are those whose bandwidth isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "exclusiveMinimum" = true))]
    pub min_megabits_per_second: Option<f64>,
}

/// A component of an application in the same namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComponentReference {
    /// The application.
    #[schemars(length(min = 1, max = 253))]
    pub application: String,
    /// Its component.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What happens where an even spread can't be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// Fewer sites are selected.
    #[default]
    DoNotSchedule,
    /// As many are selected as wanted, as evenly as can be.
    ScheduleAnyway,
}

/// Spreads selected sites over the values of a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spread {
    /// The label. Sites without it are not selected, unless `whenUnsatisfiable` is `ScheduleAnyway`.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,
    /// How many more sites one value may have than another.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_skew: u32,
    /// What happens where that can't be had.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

fn one() -> u32 {
    1
}

/// Keeps away from sites that another placement of the same namespace selected. Of two that keep away from each
/// other, the one whose name comes first stays where both are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.placement) && self.placement != '') != (has(self.application) && self.application != '')",
    "message": "exactly one of placement and application is needed",
}]))]
pub struct AntiAffinity {
    /// The other placement.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub placement: String,
    /// All placements of this application.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub application: String,
    /// Keeps away from all sites with the same value of this label; empty for just the same site.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 317))]
    pub topology_key: String,
}

/// So many, or a share: `5` or `"25%"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GroupSize {
    /// So many; none and less stand for all.
    Count(i64),
    /// A percentage, rounded up.
    Text(String),
}

/// Divides the selected sites into groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DecisionGroups {
    /// How many sites are in a group at most; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value", extend("x-kubernetes-int-or-string" = true,
        "pattern" = "^[0-9]{1,3}%$", "maxLength" = 4))]
    pub sites_per_group: Option<GroupSize>,
    /// Groups by selector, in order; sites that none selects come after them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub groups: Vec<GroupSelector>,
}

/// Which sites are in a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupSelector {
    /// The group's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Selects by the labels of sites.
    #[serde(default)]
    pub label_selector: LabelSelector,
    /// Selects by the claims of sites.
    #[serde(default)]
    pub claim_selector: LabelSelector,
}

/// What a schema can't say.
pub(super) fn check(spec: &PlacementSpec, errors: &mut Vec<FieldError>) {
    for (resource, amount) in &spec.requests {
        if !amount.value().is_finite() {
            errors.push(FieldError::new(format!("spec.requests.{resource}"), amount, "is too large"));
        }
    }
}
