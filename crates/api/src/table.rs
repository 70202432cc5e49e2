//! Tables, as `kubectl get` asks for them: the server chooses the columns.

use jiff::Timestamp;
use serde_json::{Value, json};
use store::Object;
use types::{Cell, Column, KindInfo, Time};

use crate::form::{Rows, partial};
use crate::json_path;

/// A `Table` of these objects.
pub fn table(
    info: &KindInfo,
    objects: &[&Object],
    carry: Rows,
    metadata: &Value,
    now: Time,
    with_columns: bool,
) -> Value {
    let columns: Vec<Value> = info
        .columns
        .iter()
        .filter(|_| with_columns)
        .map(|column| {
            // An age is a text when it leaves here; Kubernetes says so of its own kinds alone.
            let is_text = matches!(column.cell, Cell::Age(_)) && !info.is_ours();
            let kind = if is_text { "string" } else { column.format };
            let format = if column.name == "Name" { "name" } else { "" };
            json!({
                "name": column.name, "type": kind, "format": format, "priority": column.priority,
                "description": column.description,
            })
        })
        .collect();
    let rows: Vec<Value> = objects.iter().map(|object| row(info, object, carry, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn row(info: &KindInfo, object: &Object, carry: Rows, now: Time) -> Value {
    let manifest = object.manifest();
    let cells: Vec<Value> = info.columns.iter().map(|column| cell(column, &manifest, now)).collect();
    let carried = match carry {
        Rows::Whole => info.show(&manifest).into_owned(),
        Rows::Metadata => partial(object),
        Rows::Nothing => return json!({"cells": cells}),
    };
    json!({"cells": cells, "object": carried})
}

fn cell(column: &Column, manifest: &Value, now: Time) -> Value {
    let path = match column.cell {
        Cell::Computed(compute) => return compute(manifest),
        Cell::Age(paths) => {
            let texts = paths.iter().flat_map(|path| json_path::find(manifest, path));
            let time = texts.filter_map(Value::as_str).find_map(|text| text.parse().ok());
            return json!(time.map_or_else(|| "<unknown>".to_owned(), |time| age(Time(time), now)));
        }
        Cell::Path(path) => path,
    };
    // The first of several matches, and lists as JSON: so columns of custom resources are everywhere.
    match (json_path::find(manifest, path).first(), column.format) {
        (None | Some(Value::Null), _) => Value::Null,
        (Some(number @ Value::Number(_)), "integer") => (*number).clone(),
        (Some(Value::String(text)), _) => json!(text),
        (Some(other), _) => json!(other.to_string()),
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
