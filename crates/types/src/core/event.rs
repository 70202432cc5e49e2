//! `Event`: something that happened to an object, for people to read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, NoStatus, Time};

/// A pointer to an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// API version of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Namespace of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Version of the object that the event is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// A part of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

/// Who told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EventSource {
    /// The program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub component: String,
    /// The machine it runs on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// Repetitions of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSeries {
    /// How often it happened in all.
    #[serde(default)]
    pub count: i64,
    /// When it happened last.
    #[serde(default)]
    pub last_observed_time: Option<String>,
}

/// Something that happened to an object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EventBody {
    /// The object that it happened to.
    pub involved_object: ObjectReference,
    /// Why, as a CamelCase word for programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What happened, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Who told.
    pub source: EventSource,
    /// When it happened first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_timestamp: Option<Time>,
    /// When it happened last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_timestamp: Option<Time>,
    /// How often it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// `Normal` or `Warning`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// When it was noticed first, to the microsecond.
    pub event_time: Option<String>,
    /// Its repetitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<EventSeries>,
    /// What was done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// Another object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<ObjectReference>,
    /// The controller that told.
    pub reporting_component: String,
    /// The instance of that controller.
    pub reporting_instance: String,
}

impl Kind for EventBody {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Event";
    const PLURAL: &'static str = "events";
    type Status = NoStatus;
}
