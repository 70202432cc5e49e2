//! Server-side apply: who states which fields, and what follows from it.
//!
//! The rules are those of the Kubernetes API (structured merge and diff) for kinds of our shape: objects are merged
//! field by field, lists are atomic unless [`types::KEYED_LISTS`] names a key for them.

mod fields;

use fields::{Fields, Path, Step};
use serde::Deserialize;
use serde_json::{Map, Value};
use types::{KEYED_LISTS, ManagedFields, Time};

/// A field that somebody else states with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who states it, for people: `"kubectl-edit" using avocet.dev/v1alpha1`.
    pub manager: String,
    /// The field, for people: `.spec.tiers`.
    pub field: String,
}

/// Which fields a write is about: a kind with a status has two parts, written at different paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of an object without a status of its own.
    All,
    /// All but the status.
    Main,
    /// Only the status.
    Status,
    /// All but the status, written as a number of replicas at `/scale`.
    Scale,
}

impl Part {
    fn has(self, field: &str) -> bool {
        match self {
            Self::All => true,
            Self::Main | Self::Scale => field != "status",
            Self::Status => field == "status",
        }
    }

    fn subresource(self) -> &'static str {
        match self {
            Self::All | Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// What the server says of an object, and nobody states.
const SYSTEM: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
];

/// The object that follows when `manager` applies `config` to `live` (`None` if it does not exist yet), with its
/// managed fields.
///
/// # Errors
/// Unless forced: the fields that others state otherwise.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    part: Part,
    force: bool,
    now: Time,
) -> Result<Value, Vec<Conflict>> {
    let writer = Writer { manager, operation: APPLY, part };
    let mut managers = live.map(read_managers).unwrap_or_default();
    let stated = stated_fields(config, part);
    let mut conflicts = Vec::new();
    for other in managers.iter_mut().filter(|other| !other.is(writer)) {
        let disputed: Vec<Path> = other
            .fields
            .paths()
            .into_iter()
            .filter(|theirs| stated.has(theirs))
            .filter(|path| !same(live.and_then(|live| get(live, path)), get(config, path)))
            .collect();
        for path in disputed {
            if force {
                other.fields.remove(&path);
            } else {
                conflicts.push(Conflict { manager: other.readable(), field: readable(&path) });
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let mut merged = live.cloned().unwrap_or_else(|| {
        let mut new = config.clone();
        if let Some(fields) = new.as_object_mut() {
            fields.retain(|name, _| name != "status" || part.has(name));
        }
        new
    });
    for path in stated.paths() {
        if let Some(value) = get(config, &path) {
            set(&mut merged, &path, value.clone());
        }
    }
    let before = managers.iter().find(|known| known.is(writer)).map(|mine| mine.fields.paths());
    for path in before.unwrap_or_default() {
        let is_others = managers.iter().any(|known| !known.is(writer) && known.fields.at(&path).is_some());
        // Other clients' entries name branches, too; one that still leads somewhere is not given up.
        if !is_others && stated.at(&path).is_none() {
            remove(&mut merged, &path);
        }
    }
    note(&mut managers, writer, stated, now);
    write_managers(&mut merged, managers);
    Ok(merged)
}

/// Notes in `new` what `manager` changed from `old` (`None` if it did not exist) by another write than an apply:
/// it states that from now on, and nobody else does. Who states what may itself be changed, but not by a write of the
/// status.
pub fn record_update(old: Option<&Value>, new: &mut Value, manager: &str, part: Part, now: Time) {
    let writer = Writer { manager, operation: UPDATE, part };
    let before = old.map(read_managers).unwrap_or_default();
    let mut managers = match part {
        Part::Status => before,
        _ if is_reset(new) => vec![],
        _ => Some(read_managers(new)).filter(|sent| !sent.is_empty()).unwrap_or(before),
    };
    let changed = changed_fields(old, new, part);
    for known in &mut managers {
        let taken = Some(&changed).filter(|_| !known.is(writer));
        known.fields.below.retain(|step, fields| {
            let is_elsewhere = !part.has(step.trim_start_matches("f:"));
            is_elsewhere || keep(fields, step, new, taken)
        });
    }
    if !changed.is_empty() {
        let own = managers.iter().find(|known| known.is(writer)).map(|own| own.fields.clone());
        let mut fields = own.unwrap_or_default();
        fields.add(&changed);
        note(&mut managers, writer, fields, now);
    }
    write_managers(new, managers);
}

/// Whether a client sent one empty entry: nobody states anything any more.
fn is_reset(object: &Value) -> bool {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|sent| {
        let says = |entry: &Value, field: &str| entry.get(field).is_some_and(|value| *value != "");
        matches!(sent.as_slice(), [entry] if !says(entry, "manager") && !says(entry, "operation"))
    })
}

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// Who writes, how, and where.
#[derive(Debug, Clone, Copy)]
struct Writer<'a> {
    manager: &'a str,
    operation: &'static str,
    part: Part,
}

/// One client and what it states.
#[derive(Debug, Clone)]
struct Manager {
    manager: String,
    operation: String,
    subresource: String,
    api_version: String,
    time: Option<Time>,
    fields: Fields,
}

impl Manager {
    fn is(&self, writer: Writer) -> bool {
        self.manager == writer.manager
            && self.operation == writer.operation
            && self.subresource == writer.part.subresource()
    }

    /// As conflicts name it.
    fn readable(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == UPDATE {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Replaces what a client states; the time changes only if the fields do.
fn note(managers: &mut Vec<Manager>, writer: Writer, fields: Fields, now: Time) {
    match managers.iter_mut().find(|known| known.is(writer)) {
        Some(known) if known.fields == fields => {}
        Some(known) => {
            known.fields = fields;
            known.time = Some(now);
        }
        None => managers.push(Manager {
            manager: writer.manager.to_owned(),
            operation: writer.operation.to_owned(),
            subresource: writer.part.subresource().to_owned(),
            api_version: String::new(),
            time: Some(now),
            fields,
        }),
    }
}

fn read_managers(object: &Value) -> Vec<Manager> {
    let stored = object.pointer("/metadata/managedFields").unwrap_or(&Value::Null);
    let stored = Vec::<ManagedFields>::deserialize(stored).unwrap_or_default();
    let read = |entry: ManagedFields| Manager {
        manager: entry.manager,
        operation: entry.operation,
        subresource: entry.subresource,
        api_version: entry.api_version,
        time: entry.time,
        fields: Fields::read(&entry.fields_v1),
    };
    stored.into_iter().map(read).collect()
}

fn write_managers(object: &mut Value, managers: Vec<Manager>) {
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut entries: Vec<ManagedFields> = managers
        .into_iter()
        .filter(|known| !known.fields.is_empty())
        .map(|known| ManagedFields {
            manager: known.manager,
            operation: known.operation,
            api_version: if known.api_version.is_empty() { version.clone() } else { known.api_version },
            subresource: known.subresource,
            time: known.time,
            fields_type: "FieldsV1".into(),
            fields_v1: known.fields.write(),
        })
        .collect();
    entries.sort_by(|one, other| {
        // By whole seconds, as they are kept: what is read back has the same order.
        let second = |entry: &ManagedFields| entry.time.map(|time| time.0.as_second());
        let order = |entry: &ManagedFields| (entry.operation == UPDATE, second(entry));
        let rest = (&one.manager, &one.subresource).cmp(&(&other.manager, &other.subresource));
        order(one).cmp(&order(other)).then(rest)
    });
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".into(), serde_json::to_value(entries).unwrap_or_default());
    }
}

/// The leaves of a part of an object that clients can state.
fn stated_fields(object: &Value, part: Part) -> Fields {
    changed_fields(None, object, part).leaves()
}

/// What a part of an object states otherwise than the one before it did, and the branches that this has more.
fn changed_fields(old: Option<&Value>, new: &Value, part: Part) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in new.as_object().into_iter().flatten().filter(|(name, _)| part.has(name)) {
        let old = old.and_then(|old| old.get(name));
        let changed = match name.as_str() {
            "apiVersion" | "kind" => continue,
            "metadata" => changed_metadata(old, value),
            _ => changed_below(old, value, &mut Some(vec![name])),
        };
        fields.put(format!("f:{name}"), changed);
    }
    fields
}

/// The metadata as a whole is the server's.
fn changed_metadata(old: Option<&Value>, new: &Value) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in new.as_object().into_iter().flatten() {
        if !SYSTEM.contains(&name.as_str()) {
            let old = old.and_then(|old| old.get(name));
            fields.put(format!("f:{name}"), changed_below(old, value, &mut Some(vec!["metadata", name])));
        }
    }
    fields
}

/// `names` lead here; `None` within a keyed list, which has no keyed lists below.
fn changed_below<'a>(old: Option<&Value>, new: &'a Value, names: &mut Option<Vec<&'a str>>) -> Fields {
    if old == Some(new) {
        return Fields::default();
    }
    let mut fields = Fields { own: old.is_none(), ..Fields::default() };
    match (new, list_key(names.as_deref())) {
        (Value::Object(children), _) if !children.is_empty() => {
            for (name, child) in children {
                if let Some(names) = names {
                    names.push(name);
                }
                let changed = changed_below(old.and_then(|old| old.get(name)), child, names);
                fields.put(format!("f:{name}"), changed);
                if let Some(names) = names {
                    names.pop();
                }
            }
        }
        (Value::Array(entries), Some(key)) if !entries.is_empty() => {
            for entry in entries {
                let old = old.and_then(|old| find_entry(old, key, entry.get(key)?));
                fields.put(key_step(key, entry), changed_below(old, entry, &mut None));
            }
        }
        _ => fields.own = !same(old, Some(new)),
    }
    fields
}

/// Takes away what `taken` has too, and what the object doesn't have; whether anything is left.
fn keep(fields: &mut Fields, step: &str, object: &Value, taken: Option<&Fields>) -> bool {
    let Some(value) = enter(object, step) else { return false };
    let taken = taken.and_then(|taken| taken.below.get(step));
    fields.own &= !taken.is_some_and(|taken| taken.own);
    fields.below.retain(|step, below| keep(below, step, value, taken));
    !fields.is_empty()
}

fn list_key(names: Option<&[&str]>) -> Option<&'static str> {
    let names = names?;
    KEYED_LISTS.iter().find(|(list, _)| list.split('.').eq(names.iter().copied())).map(|(_, key)| *key)
}

fn key_step(key: &str, entry: &Value) -> Step {
    let value = entry.get(key).cloned().unwrap_or_default();
    format!("k:{}", serde_json::json!({key: value}))
}

/// The key and value of a `k:` step.
fn read_key(step: &str) -> Option<(String, Value)> {
    let key: Map<String, Value> = serde_json::from_str(step.strip_prefix("k:")?).ok()?;
    key.into_iter().next()
}

/// Whether both say the same of a leaf. An object that is a leaf was empty: it says no more than that it is one.
fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        (Some(Value::Object(_)), Some(Value::Object(_))) => true,
        (left, right) => left == right,
    }
}

/// The field or the entry of a list that a step leads to.
fn enter<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match step.strip_prefix("f:") {
        Some(name) => value.get(name),
        None => {
            let (key, wanted) = read_key(step)?;
            find_entry(value, &key, &wanted)
        }
    }
}

fn find_entry<'a>(list: &'a Value, key: &str, wanted: &Value) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry.get(key) == Some(wanted))
}

fn get<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let value = path.iter().try_fold(object, |value, step| enter(value, step))?;
    // Two entries of a keyed list are the same entry, whatever their fields say.
    if path.last().is_some_and(|step| step.starts_with("k:")) { Some(&Value::Null) } else { Some(value) }
}

/// Puts a value at a path, making what leads there. An entry of a keyed list is only made sure to be there.
fn set(object: &mut Value, path: &[Step], new: Value) {
    let mut place = object;
    for step in path {
        match step.strip_prefix("f:") {
            Some(name) => {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                let Some(fields) = place.as_object_mut() else { return };
                place = fields.entry(name).or_insert(Value::Null);
            }
            None => {
                let Some((key, wanted)) = read_key(step) else { return };
                if !place.is_array() {
                    *place = Value::Array(vec![]);
                }
                let Some(entries) = place.as_array_mut() else { return };
                let index = entries.iter().position(|entry| entry.get(&key) == Some(&wanted));
                let index = index.unwrap_or_else(|| {
                    entries.push(Value::Object(Map::from_iter([(key, wanted)])));
                    entries.len() - 1
                });
                let Some(entry) = entries.get_mut(index) else { return };
                place = entry;
            }
        }
    }
    let is_entry = path.last().is_some_and(|step| step.starts_with("k:"));
    let keeps_fields = place.is_object() && new.is_object();
    if !is_entry && !keeps_fields {
        *place = new;
    }
}

/// Takes away what is at a path, and what becomes empty by that, up to the second level.
fn remove(object: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    let Some(parent) = get_mut(object, parents) else { return };
    match (last.strip_prefix("f:"), read_key(last)) {
        (Some(name), _) => {
            if let Some(fields) = parent.as_object_mut() {
                fields.remove(name);
            }
        }
        (None, Some((key, wanted))) => {
            if let Some(entries) = parent.as_array_mut() {
                entries.retain(|entry| entry.get(&key) != Some(&wanted));
            }
        }
        (None, None) => {}
    }
    let is_empty = match parent {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        _ => false,
    };
    if is_empty && parents.len() > 1 {
        remove(object, parents);
    }
}

fn get_mut<'a>(object: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    let mut value = object;
    for step in path {
        value = match step.strip_prefix("f:") {
            Some(name) => value.get_mut(name)?,
            None => {
                let (key, wanted) = read_key(step)?;
                value.as_array_mut()?.iter_mut().find(|entry| entry.get(&key) == Some(&wanted))?
            }
        };
    }
    Some(value)
}

fn readable(path: &[Step]) -> String {
    let step = |step: &Step| match step.strip_prefix("f:") {
        Some(name) => format!(".{name}"),
        None => match read_key(step) {
            Some((key, value)) => format!("[{key}={value}]"),
            None => format!("[{step}]"),
        },
    };
    path.iter().map(step).collect()
}

#[cfg(test)]
mod tests;
