//! Tables, as `kubectl get` asks for them: the server chooses the columns.

use jiff::Timestamp;
use serde_json::{Value, json};
use store::Object;
use types::{Column, KindInfo, Time};

use crate::json_path;

/// A `Table` of these objects.
pub fn table(info: &KindInfo, objects: &[&Object], metadata: &Value, now: Time, with_columns: bool) -> Value {
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0, "description": "unique in its namespace",
    })];
    columns.extend(info.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.format, "format": "", "priority": column.priority,
            "description": column.description,
        })
    }));
    columns.push(json!({
        "name": "Age", "type": "string", "format": "", "priority": 0, "description": "time since its creation",
    }));
    if !with_columns {
        columns.clear();
    }
    let rows: Vec<Value> = objects.iter().map(|object| row(info, object, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn row(info: &KindInfo, object: &Object, now: Time) -> Value {
    let mut cells = vec![json!(object.key.name)];
    cells.extend(info.columns.iter().map(|column| cell(column, object)));
    cells.push(json!(object.metadata.creation_timestamp.map_or_else(String::new, |time| age(time, now))));
    let metadata = object.manifest.get("metadata").cloned().unwrap_or_default();
    let partial =
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
    json!({"cells": cells, "object": partial})
}

fn cell(column: &Column, object: &Object) -> Value {
    let found = json_path::find(&object.manifest, column.json_path);
    if let ([number @ Value::Number(_)], "integer") = (found.as_slice(), column.format) {
        return (*number).clone();
    }
    let words: Vec<String> = found
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(entries) => entries.iter().map(word).collect(),
            other => vec![word(other)],
        })
        .collect();
    json!(words.join(","))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// How long ago, as kubectl words it: the two largest units that matter.
pub fn age(since: Time, now: Time) -> String {
    let seconds = Timestamp::duration_since(now.0, since.0).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        let then = Time("2026-01-01T00:00:00Z".parse().unwrap());
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (121, "2m1s"),
            (700, "11m"),
            (10_860, "3h1m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
        ] {
            let now = Time(then.0.checked_add(Duration::from_secs(seconds)).unwrap());
            assert_eq!(age(then, now), expected);
        }
    }
}
