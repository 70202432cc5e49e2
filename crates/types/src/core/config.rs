//! `ConfigMap` and `Secret`: what components are told.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Kind, NoStatus};

/// Configuration that is no secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapBody {
    /// Texts by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Bytes by key, in Base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub binary_data: BTreeMap<String, String>,
    /// Whether it may never change again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

impl Kind for ConfigMapBody {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ConfigMap";
    const PLURAL: &'static str = "configmaps";
    type Status = NoStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_keys("data", &self.data, errors);
        check_keys("binaryData", &self.binary_data, errors);
        check_bytes("binaryData", &self.binary_data, errors);
    }
}

/// Configuration that is secret: kept encrypted, and never in a log.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretBody {
    /// Bytes by key, in Base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Texts by key; the server moves them into `data`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, String>,
    /// What the secret is for, for example Opaque or kubernetes.io/tls.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it may never change again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

/// Only the names of the keys: secrets don't get into logs by `{:?}`.
impl std::fmt::Debug for SecretBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &keys).finish_non_exhaustive()
    }
}

impl Kind for SecretBody {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Secret";
    const PLURAL: &'static str = "secrets";
    type Status = NoStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        check_keys("data", &self.data, errors);
        check_bytes("data", &self.data, errors);
    }
}

fn check_keys(field: &str, data: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    for key in data.keys() {
        let is_key = (1..=253).contains(&key.len())
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !matches!(key.as_str(), "." | "..");
        if !is_key {
            errors.push(FieldError::new(
                format!("{field}[{key}]"),
                format!("{key:?}"),
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
    }
}

/// What is no Base64 is named by its key only: it may be a secret that somebody forgot to encode.
fn check_bytes(field: &str, data: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    for (key, text) in data {
        if STANDARD.decode(text).is_err() {
            errors.push(FieldError::new(
                format!("{field}[{key}]"),
                format!("{} characters", text.len()),
                "is no Base64; encode it, or state it under `stringData`",
            ));
        }
    }
}
