//! What a configuration says that isn't followed here, so that nobody believes it is.

use serde_json::{Map, Value};

/// What is followed, whatever it holds.
const FOLLOWED: [&str; 14] = [
    "name",
    "platform",
    "backend",
    "runtime",
    "max_batch_size",
    "input",
    "output",
    "response_cache",
    "version_policy",
    "default_model_filename",
    "ensemble_scheduling",
    "model_warmup",
    // Refused where it says something.
    "sequence_batching",
    "model_transaction_policy",
];
/// Of the messages that are followed in part, the fields that are.
const PARTLY: [(&str, &[&str]); 4] = [
    (
        "parameters",
        &[
            "intra_op_thread_count",
            "isolation",
            // Of the backend `fil`. What a file is, it tells itself, and trees are stored in one way here.
            "predict_proba",
            "output_class",
            "threshold",
            "model_type",
            "storage_type",
        ],
    ),
    ("instance_group", &["name", "count"]),
    (
        "dynamic_batching",
        &[
            "max_queue_delay_microseconds",
            "default_priority_level",
            "default_queue_policy",
            "priority_levels",
        ],
    ),
    ("dynamic_batching.default_queue_policy", &["default_timeout_microseconds", "max_queue_size"]),
];
/// What a field holds where it says what is so anyway.
const NEUTRAL: [(&str, &str); 5] = [
    ("dynamic_batching.default_queue_policy.allow_timeout_override", "true"),
    ("dynamic_batching.default_queue_policy.timeout_action", "REJECT"),
    ("optimization.priority", "PRIORITY_DEFAULT"),
    ("instance_group.kind", "KIND_CPU"),
    ("instance_group.kind", "KIND_AUTO"),
];
/// Most that are told.
const MOST: usize = 32;

/// The paths of fields that say something and are not followed, in order, each once.
pub(super) fn fields(config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Value::Object(members) = config {
        for (name, value) in members.iter().filter(|(name, _)| !FOLLOWED.contains(&name.as_str())) {
            look(name, value, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found.truncate(MOST);
    found
}

fn look(path: &str, value: &Value, found: &mut Vec<String>) {
    match (PARTLY.iter().find(|(name, _)| *name == path), value) {
        (Some(_), Value::Array(entries)) => entries.iter().for_each(|entry| look(path, entry, found)),
        (Some((_, followed)), Value::Object(members)) => {
            for (name, value) in members {
                let inner = format!("{path}.{name}");
                if !followed.contains(&name.as_str()) || PARTLY.iter().any(|(name, _)| *name == inner) {
                    look(&inner, value, found);
                }
            }
        }
        _ if says_something(path, value) => found.push(path.chars().take(128).collect()),
        _ => {}
    }
}

fn says_something(path: &str, value: &Value) -> bool {
    let mut neutral =
        NEUTRAL.iter().filter(|(name, _)| *name == path).map(|(_, neutral)| *neutral).peekable();
    if neutral.peek().is_some() {
        let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return neutral.all(|neutral| neutral != said);
    }
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        Value::Array(entries) => entries.iter().any(|entry| says_something(path, entry)),
        Value::Object(members) => inside(path, members),
        Value::Bool(true) => true,
    }
}

fn inside(path: &str, members: &Map<String, Value>) -> bool {
    members.iter().any(|(name, value)| says_something(&format!("{path}.{name}"), value))
}

#[cfg(test)]
mod tests {
    use crate::model_config::ModelConfig;

    #[test]
    fn what_is_not_followed_is_told_and_what_says_nothing_is_not() {
        let config = br#"
            name: "m" backend: "onnxruntime" max_batch_size: 8
            instance_group [ { count: 1 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0, 1 ] } ]
            dynamic_batching {
                preferred_batch_size: [ 4, 8 ]
                preserve_ordering: true
                priority_levels: 2
                priority_queue_policy { key: 1 value { max_queue_size: 4 } }
                default_queue_policy { timeout_action: DELAY allow_timeout_override: false max_queue_size: 4 }
            }
            optimization { priority: PRIORITY_DEFAULT, execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }
            parameters { key: "intra_op_thread_count" value { string_value: "2" } }
            parameters { key: "inter_op_thread_count" value { string_value: "2" } }
        "#;
        let config = ModelConfig::from_text(config).unwrap();
        assert_eq!(
            config.ignored(),
            [
                "dynamic_batching.default_queue_policy.allow_timeout_override",
                "dynamic_batching.default_queue_policy.timeout_action",
                "dynamic_batching.preferred_batch_size",
                "dynamic_batching.preserve_ordering",
                "dynamic_batching.priority_queue_policy",
                "instance_group.gpus",
                "instance_group.kind",
                "optimization",
                "parameters.inter_op_thread_count",
            ]
        );
        let neutral =
            br#"{"optimization": {"priority": "PRIORITY_DEFAULT", "input_pinned_memory": {"enable": false}},
            "dynamic_batching": {"preserve_ordering": false, "preferred_batch_size": [],
            "default_queue_policy": {"timeout_action": "REJECT", "allow_timeout_override": true}},
            "cc_model_filenames": {}, "batch_input": []}"#;
        assert_eq!(ModelConfig::from_json(neutral).unwrap().ignored(), [""; 0]);
    }
}
