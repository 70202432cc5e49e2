//! The settings that the logging and trace extensions show and change.
//!
//! They are checked, kept and shown, and change nothing: what is logged and traced is said where the server is started.
//! Triton's own traces are not written, so the level of that is always `OFF`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::error::ApiError;

/// What clients set, over the defaults.
#[derive(Default)]
pub(crate) struct Settings {
    log: Mutex<BTreeMap<String, Value>>,
    trace: Mutex<BTreeMap<String, Vec<String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trace setting's longest value in bytes, and most values.
const LONGEST: usize = 256;

impl Settings {
    /// Every logging setting and its value.
    pub fn log(&self) -> Vec<(&'static str, Value)> {
        let changed = lock(&self.log);
        let defaults = [
            ("log_file", json!("")),
            ("log_info", json!(true)),
            ("log_warning", json!(true)),
            ("log_error", json!(true)),
            ("log_verbose_level", json!(0)),
            ("log_format", json!("default")),
        ];
        defaults.map(|(name, default)| (name, changed.get(name).cloned().unwrap_or(default))).into()
    }

    /// Changes logging settings: all of them or none.
    ///
    /// # Errors
    /// When one doesn't exist, has a value of another type, or can't be changed.
    pub fn change_log(&self, changes: BTreeMap<String, Value>) -> Result<(), ApiError> {
        for (name, value) in &changes {
            let fits = match name.as_str() {
                "log_info" | "log_warning" | "log_error" => value.is_boolean(),
                "log_verbose_level" => value.as_u64().is_some_and(|level| u32::try_from(level).is_ok()),
                "log_format" => matches!(value.as_str(), Some("default" | "ISO8601")),
                "log_file" => {
                    return Err(ApiError::BadRequest(
                        "log file location can not be updated through network protocol".into(),
                    ));
                }
                _ => return Err(unknown("log", name)),
            };
            if !fits {
                return Err(ApiError::BadRequest(format!("log setting '{name}' can't be {value}; see GET")));
            }
        }
        lock(&self.log).extend(changes);
        Ok(())
    }

    /// Every trace setting and its values.
    pub fn trace(&self) -> Vec<(&'static str, Vec<String>)> {
        let changed = lock(&self.trace);
        let defaults = [
            ("trace_level", "OFF"),
            ("trace_rate", "1000"),
            ("trace_count", "-1"),
            ("log_frequency", "0"),
            ("trace_file", ""),
            ("trace_mode", "triton"),
        ];
        let one = |(name, default): (&'static str, &str)| {
            (name, changed.get(name).cloned().unwrap_or_else(|| vec![default.to_owned()]))
        };
        defaults.map(one).into()
    }

    /// Changes trace settings, all of them or none; an empty list clears one.
    ///
    /// # Errors
    /// When one doesn't exist, is no number where it must be one, or would have to do something.
    pub fn change_trace(&self, changes: BTreeMap<String, Vec<String>>) -> Result<(), ApiError> {
        for (name, values) in &changes {
            let bad = |what: &str| ApiError::BadRequest(format!("trace setting '{name}' {what}"));
            match name.as_str() {
                "trace_level" if values.iter().any(|level| level != "OFF") => {
                    return Err(bad("can only be OFF: traces go to OpenTelemetry, as said at the start"));
                }
                "trace_level" => {}
                "trace_rate" | "trace_count" | "log_frequency" => {
                    if values.iter().any(|value| value.parse::<i64>().is_err()) {
                        return Err(bad("is not a number"));
                    }
                }
                "trace_file" | "trace_mode" => return Err(bad("can't be changed through the network")),
                _ => return Err(unknown("trace", name)),
            }
            if values.len() > 4 || values.iter().any(|value| value.len() > LONGEST) {
                return Err(bad("is too long"));
            }
        }
        let mut kept = lock(&self.trace);
        for (name, values) in changes {
            if values.is_empty() {
                kept.remove(&name)
            } else {
                kept.insert(name, values)
            };
        }
        Ok(())
    }
}

fn unknown(kind: &str, name: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    ApiError::BadRequest(format!("unknown {kind} setting '{name}'; GET lists those that there are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_settings_change_together_or_not_at_all() {
        let settings = Settings::default();
        let changes = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap();
        for bad in [
            r#"{"log_error":false,"log_info":1}"#,
            r#"{"log_file":"/tmp/x"}"#,
            r#"{"nope":true}"#,
            r#"{"log_verbose_level":-1}"#,
        ] {
            settings.change_log(changes(bad)).unwrap_err();
        }
        assert!(settings.log().contains(&("log_error", json!(true))));
        settings.change_log(changes(r#"{"log_error":false,"log_verbose_level":2}"#)).unwrap();
        assert!(settings.log().contains(&("log_error", json!(false))));
        assert!(settings.log().contains(&("log_verbose_level", json!(2))));
    }

    #[test]
    fn tracing_can_only_be_off() {
        let settings = Settings::default();
        let change =
            |name: &str, value: &str| settings.change_trace([(name.into(), vec![value.into()])].into());
        change("trace_level", "TIMESTAMPS").unwrap_err();
        change("trace_rate", "often").unwrap_err();
        change("trace_rate", "5").unwrap();
        assert!(settings.trace().contains(&("trace_rate", vec!["5".into()])));
        settings.change_trace([("trace_rate".into(), vec![])].into()).unwrap();
        assert!(settings.trace().contains(&("trace_rate", vec!["1000".into()])));
    }
}
