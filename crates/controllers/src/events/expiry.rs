//! Events that are too old, or too many, go.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::Object;
use types::Time;

use crate::write::Write;

/// For how long an event is kept after it happened last, in seconds.
const LIFETIME: i64 = 3600;
/// How many a namespace may have.
const MOST: usize = 10_000;

/// The events of a store that go.
pub(crate) fn expired(events: &[Arc<Object>], now: Time) -> Vec<Write> {
    let mut namespaces: BTreeMap<&str, Vec<(Time, &Object)>> = BTreeMap::new();
    for event in events {
        namespaces.entry(&event.key.namespace).or_default().push((last(event).unwrap_or(now), event));
    }
    let mut gone = Vec::new();
    for mut events in namespaces.into_values() {
        events.sort_by_key(|(last, _)| *last);
        let too_many = events.len().saturating_sub(MOST);
        let is_old = |last: Time| now.0.duration_since(last.0).as_secs() > LIFETIME;
        let going = events.iter().enumerate().filter(|(index, (last, _))| *index < too_many || is_old(*last));
        gone.extend(going.map(|(_, (_, event))| Write::delete_object(event, None)));
    }
    gone
}

/// When an event happened last, as far as anybody said.
fn last(event: &Object) -> Option<Time> {
    let manifest = event.manifest();
    let said =
        ["/lastTimestamp", "/series/lastObservedTime", "/eventTime"].into_iter().filter_map(|pointer| {
            let text = manifest.pointer(pointer)?.as_str()?;
            text.parse().ok().map(Time)
        });
    said.chain(event.metadata.creation_timestamp).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use store::Key;

    fn event(name: &str, fields: &Value) -> Arc<Object> {
        let mut manifest = fields.clone();
        manifest["metadata"] = json!({"creationTimestamp": "2026-01-01T00:00:00Z"});
        Arc::new(Object::unstored(Key::new("events", "default", name), manifest).unwrap())
    }

    fn gone(events: &[Arc<Object>], now: &str) -> Vec<String> {
        let writes = expired(events, Time(now.parse().unwrap()));
        writes.into_iter().map(|write| write.key.name).collect()
    }

    #[test]
    fn events_go_an_hour_after_they_happened_last() {
        let events = [
            event("silent", &json!({})),
            event("repeated", &json!({"lastTimestamp": "2026-01-01T00:30:00Z"})),
            event("series", &json!({"series": {"lastObservedTime": "2026-01-01T00:45:00.000001Z"}})),
        ];
        for (now, expected) in [
            ("2026-01-01T01:00:00Z", &[][..]),
            ("2026-01-01T01:00:01Z", &["silent"]),
            ("2026-01-01T01:30:01Z", &["silent", "repeated"]),
            ("2026-01-01T02:00:00Z", &["silent", "repeated", "series"]),
        ] {
            assert_eq!(gone(&events, now), expected, "{now}");
        }
    }

    #[test]
    fn of_too_many_events_the_oldest_go() {
        let last = json!({"lastTimestamp": "2026-01-01T00:00:10Z"});
        let mut events: Vec<Arc<Object>> =
            (0..MOST).map(|index| event(&format!("e{index}"), &last)).collect();
        events.push(event("oldest", &json!({"lastTimestamp": "2026-01-01T00:00:01Z"})));
        assert_eq!(gone(&events, "2026-01-01T00:01:00Z"), ["oldest"]);
    }
}
