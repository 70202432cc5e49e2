//! `CustomResourceDefinition`: what the kinds are, as clients of Kubernetes ask for it. The server makes them; nobody
//! else does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Condition, Kind};

/// What a kind is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomResourceDefinitionSpec {
    /// The API group.
    pub group: String,
    /// What the kind is called.
    pub names: DefinitionNames,
    /// `Namespaced` or `Cluster`.
    pub scope: String,
    /// The versions that are served.
    pub versions: Vec<DefinitionVersion>,
    /// How versions become one another.
    #[schemars(extend("default" = {"strategy": "None"}))]
    pub conversion: Conversion,
    /// Whether fields that no schema knows are kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preserve_unknown_fields: bool,
}

/// How versions become one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Conversion {
    /// `None`: only the version's name changes.
    pub strategy: String,
}

impl Default for Conversion {
    fn default() -> Self {
        Self { strategy: "None".to_owned() }
    }
}

/// What a kind is called.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionNames {
    /// Lower-case plural.
    pub plural: String,
    /// Lower-case singular.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub singular: String,
    /// Short names for the command line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// CamelCase singular.
    pub kind: String,
    /// The kind of its lists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub list_kind: String,
    /// Words that stand for several kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// One version of a kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DefinitionVersion {
    /// Its name, for example `v1`.
    pub name: String,
    /// Whether it is served.
    pub served: bool,
    /// Whether objects are kept as it.
    pub storage: bool,
    /// Its schema, subresources, columns and selectable fields.
    #[serde(flatten)]
    pub about: VersionDetails,
}

/// What is said of a version beside its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionDetails {
    /// What objects look like.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub schema: Map<String, Value>,
    /// `status` and `scale`, where objects have them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub subresources: Map<String, Value>,
    /// What lists show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_printer_columns: Vec<PrinterColumn>,
    /// Fields that lists can be selected by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectable_fields: Vec<SelectableField>,
}

/// A column that lists show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PrinterColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How the type is to be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// What the column says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// 0 is always shown, more only in wide lists.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// What stands in it.
    pub json_path: String,
}

/// A field that lists can be selected by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectableField {
    /// Where it is.
    pub json_path: String,
}

/// What the server says of a kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomResourceDefinitionStatus {
    /// `NamesAccepted` and `Established`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The names that the kind is served under.
    pub accepted_names: DefinitionNames,
    /// The versions that objects were ever kept as.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stored_versions: Vec<String>,
}

fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

impl Kind for CustomResourceDefinitionSpec {
    const GROUP: &'static str = "apiextensions.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "CustomResourceDefinition";
    const PLURAL: &'static str = "customresourcedefinitions";
    const NAMESPACED: bool = false;
    type Status = CustomResourceDefinitionStatus;
}
