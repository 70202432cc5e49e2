//! How a deletion is wanted: in the body, or else in the query.

use schema::{Reason, Violation};
use serde::Deserialize;
use store::Object;
use types::names::finalizer::{FOREGROUND, ORPHAN};

use crate::resources::Call;
use crate::{ApiError, options};

/// What a client says of a deletion. For how long it waits is only read: no kind here has a grace.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    pub preconditions: Preconditions,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Vec<String>,
    grace_period_seconds: Option<i64>,
}

/// What the object must still be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the body, or where there is none the query.
    ///
    /// # Errors
    /// 400 and 415 for what can't be read, 422 for what makes no sense.
    pub fn read(call: &Call) -> Result<Self, ApiError> {
        let options = if call.body.is_empty() { Self::of_query(call)? } else { Self::of_body(call)? };
        let wrong = options.problems();
        if wrong.is_empty() { Ok(options) } else { Err(ApiError::options("DeleteOptions", &wrong)) }
    }

    fn of_body(call: &Call) -> Result<Self, ApiError> {
        let stated = call.parse_options()?;
        serde_json::from_value(stated).map_err(|error| ApiError::bad_request(error.to_string()))
    }

    fn of_query(call: &Call) -> Result<Self, ApiError> {
        let info = &call.info;
        let text = |name: &str| Some(info.text(name)).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            preconditions: Preconditions::default(),
            propagation_policy: text("propagationPolicy"),
            orphan_dependents: text("orphanDependents").map(|_| info.is_set("orphanDependents")),
            dry_run: text("dryRun").into_iter().collect(),
            grace_period_seconds: info.number("gracePeriodSeconds")?,
        })
    }

    fn problems(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let mut refuse = |field: &str, reason, message| {
            wrong.push(Violation { field: field.to_owned(), reason, message });
        };
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let problem = "orphanDependents and deletionPropagation cannot be both set";
                let message = format!("Invalid value: {policy:?}: {problem}");
                refuse("propagationPolicy", Reason::Invalid, message);
            }
            if !["Foreground", "Background", "Orphan"].contains(&policy.as_str()) {
                let message = options::unsupported(policy, &["Foreground", "Background", "Orphan", "nil"]);
                refuse("propagationPolicy", Reason::NotSupported, message);
            }
        }
        if let Some(value) = self.dry_run.iter().find(|value| *value != "All") {
            refuse("dryRun", Reason::NotSupported, options::unsupported_dry_run(value));
        }
        wrong
    }

    /// Whether nothing is to go.
    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// What keeps the object while its dependents are dealt with.
    pub fn finalizer(&self) -> Option<&'static str> {
        match self.propagation_policy.as_deref() {
            Some("Foreground") => Some(FOREGROUND),
            Some("Orphan") => Some(ORPHAN),
            None if self.orphan_dependents == Some(true) => Some(ORPHAN),
            _ => None,
        }
    }

    /// Whether the object is the one that is meant.
    ///
    /// # Errors
    /// 409 if it isn't.
    pub fn check_preconditions(&self, object: &Object) -> Result<(), ApiError> {
        let (found, wanted) = (&object.metadata, &self.preconditions);
        if let Some(uid) = wanted.uid.as_ref().filter(|uid| **uid != found.uid) {
            return Err(ApiError::other_uid(&object.key, uid, &found.uid));
        }
        match &wanted.resource_version {
            Some(version) if *version != found.resource_version => {
                Err(ApiError::other_version(&object.key, version, &found.resource_version))
            }
            _ => Ok(()),
        }
    }
}
