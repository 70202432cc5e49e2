//! When a site lets itself be changed.

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Span};

/// A time of the week at which a site lets itself be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// The days on which it begins; empty for every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Weekday>,
    /// When it begins, as `HH:MM`.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"), length(max = 5))]
    pub start: String,
    /// How long it lasts; at most a week.
    pub duration: Span,
    /// The time zone of `start`, such as `Europe/Madrid`; empty for UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub time_zone: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "there is nothing to say of a Monday")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// The longest window, in seconds.
const WEEK: u64 = 7 * 24 * 3600;

impl MaintenanceWindow {
    /// The time zone; `None` if nobody knows it.
    pub fn zone(&self) -> Option<TimeZone> {
        if self.time_zone.is_empty() { Some(TimeZone::UTC) } else { TimeZone::get(&self.time_zone).ok() }
    }

    /// Hour and minute of the beginning.
    pub fn starts_at(&self) -> (i8, i8) {
        let part = |text: &str| text.parse().unwrap_or_default();
        self.start.split_once(':').map_or((0, 0), |(hour, minute)| (part(hour), part(minute)))
    }

    pub(crate) fn check(&self, path: &str, errors: &mut Vec<FieldError>) {
        if self.zone().is_none() {
            let mistake =
                "is no time zone that is known: write for example Europe/Madrid, or leave it out for UTC";
            errors.push(FieldError::new(
                format!("{path}.timeZone"),
                format!("{:?}", self.time_zone),
                mistake,
            ));
        }
        let seconds = self.duration.duration().as_secs();
        if !(1..=WEEK).contains(&seconds) {
            let mistake = "is no length of a maintenance window: write more than nothing and at most 7d";
            errors.push(FieldError::new(
                format!("{path}.duration"),
                format!("{:?}", self.duration.to_string()),
                mistake,
            ));
        }
    }
}
