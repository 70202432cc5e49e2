//! The settings that the logging and trace extensions show and change.
//!
//! Those of logs are the process's own and hold at once. Those of traces are checked, kept and shown, and change nothing:
//! what is traced is said where the server is started. Triton's own traces are not written, so the level of that is
//! always `OFF`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::{Levels, Logs};
use serde_json::{Value, json};

use crate::error::ApiError;

/// What clients set, over the defaults.
#[derive(Default)]
pub(crate) struct Settings {
    trace: Mutex<BTreeMap<String, Vec<String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trace setting's longest value in bytes, and most values.
const LONGEST: usize = 256;

/// Levels where nobody says which there are.
const UNKNOWN: Levels = Levels { error: true, warning: true, info: true, verbose: 0 };

/// Every logging setting and its value.
pub(crate) fn log(logs: Option<&Logs>) -> Vec<(&'static str, Value)> {
    let Levels { error, warning, info, verbose } = logs.map_or(UNKNOWN, Logs::levels);
    vec![
        ("log_file", json!("")),
        ("log_info", json!(info)),
        ("log_warning", json!(warning)),
        ("log_error", json!(error)),
        ("log_verbose_level", json!(verbose)),
        ("log_format", json!("ISO8601")),
    ]
}

/// Changes logging settings: all of them or none.
///
/// # Errors
/// When one doesn't exist, has a value of another type, or can't be changed.
pub(crate) fn change_log(logs: Option<&Logs>, changes: BTreeMap<String, Value>) -> Result<(), ApiError> {
    let bad = |text: String| ApiError::BadRequest(text);
    let fixed =
        || bad("the logs here belong to the program around this server, so they can't be changed".into());
    let logs = logs.ok_or_else(fixed)?;
    let mut wanted = [None; 3];
    let [info, warning, error] = &mut wanted;
    let mut verbose = None;
    for (name, value) in &changes {
        let unfit = || bad(format!("log setting '{name}' can't be {value}; see GET"));
        let flag = || value.as_bool().ok_or_else(unfit);
        match name.as_str() {
            "log_info" => *info = Some(flag()?),
            "log_warning" => *warning = Some(flag()?),
            "log_error" => *error = Some(flag()?),
            "log_verbose_level" => {
                let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
                verbose = Some(level.ok_or_else(unfit)?);
            }
            "log_format" if value == "ISO8601" => {}
            "log_format" => {
                return Err(bad("log_format can only be ISO8601: logs have no other form here".into()));
            }
            "log_file" => {
                return Err(bad("log file location can not be updated through network protocol".into()));
            }
            _ => return Err(unknown("log", name)),
        }
    }
    let [info, warning, error] = wanted;
    let changed = logs.change(|now| Levels {
        error: error.unwrap_or(now.error),
        warning: warning.unwrap_or(now.warning),
        info: info.unwrap_or(now.info),
        verbose: verbose.unwrap_or(now.verbose),
    });
    if changed { Ok(()) } else { Err(fixed()) }
}

impl Settings {
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
        let logs = daemon::start_logs("info");
        let changes = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap();
        for bad in [
            r#"{"log_error":false,"log_info":1}"#,
            r#"{"log_error":false,"log_file":"/tmp/x"}"#,
            r#"{"log_error":false,"nope":true}"#,
            r#"{"log_error":false,"log_verbose_level":-1}"#,
            r#"{"log_error":false,"log_format":"default"}"#,
        ] {
            change_log(Some(&logs), changes(bad)).unwrap_err();
        }
        assert!(log(Some(&logs)).contains(&("log_error", json!(true))));
        change_log(Some(&logs), changes(r#"{"log_error":false,"log_verbose_level":2}"#)).unwrap();
        assert!(log(Some(&logs)).contains(&("log_error", json!(false))));
        assert!(log(Some(&logs)).contains(&("log_verbose_level", json!(2))));
        assert_eq!(logs.levels(), Levels { error: false, warning: true, info: true, verbose: 2 });
        let refused = change_log(None, changes(r#"{"log_info":false}"#)).unwrap_err();
        assert!(refused.to_string().contains("can't be changed"), "{refused}");
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
