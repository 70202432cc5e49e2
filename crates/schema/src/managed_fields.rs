//! Server-side apply: who states which fields, and what follows from it.
//!
//! The rules are those of the Kubernetes API (structured merge and diff) for kinds of our shape: objects are merged
//! field by field, lists are atomic unless [`types::KEYED_LISTS`] names a key for them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use types::{KEYED_LISTS, ManagedFields, Time};

/// One step of a path, written as `FieldsV1` writes it: `f:name` or `k:{"key":"value"}`.
type Step = String;
type Path = Vec<Step>;
/// The leaves that a client states; an entry of a keyed list is a leaf beside its fields.
type Fields = BTreeSet<Path>;

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
            .iter()
            .filter(|theirs| stated.contains(*theirs))
            .filter(|path| !same(live.and_then(|live| get(live, path)), get(config, path)))
            .cloned()
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
    for path in &stated {
        if let Some(value) = get(config, path) {
            set(&mut merged, path, value.clone());
        }
    }
    let before = managers.iter().find(|known| known.is(writer)).map(|mine| mine.fields.clone());
    for path in before.unwrap_or_default().difference(&stated) {
        let others = managers.iter().filter(|known| !known.is(writer));
        let is_others =
            others.into_iter().any(|other| other.fields.iter().any(|theirs| theirs.starts_with(path)));
        // Other clients' entries name branches, too; one that still leads somewhere is not given up.
        let leads_on = stated.iter().any(|own| own.starts_with(path));
        if !is_others && !leads_on {
            remove(&mut merged, path);
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
    let after = stated_fields(new, part);
    let mut changed: Fields = match old {
        None => after.clone(),
        Some(old) => after.iter().filter(|path| !same(get(old, path), get(new, path))).cloned().collect(),
    };
    let is_new = |path: &&[Step]| !is_only_metadata(path) && old.and_then(|old| get(old, path)).is_none();
    let branches = after.iter().flat_map(|path| (1..path.len()).filter_map(|length| path.get(..length)));
    changed.extend(branches.filter(is_new).map(<[Step]>::to_vec).collect::<Fields>());
    for known in &mut managers {
        let is_own = known.is(writer);
        known.fields.retain(|path| {
            let is_elsewhere = !path.first().is_some_and(|root| part.has(root.trim_start_matches("f:")));
            let is_there = is_elsewhere || get(new, path).is_some();
            is_there && (is_own || !changed.contains(path))
        });
    }
    if !changed.is_empty() {
        let own = managers.iter().find(|known| known.is(writer)).map(|own| own.fields.clone());
        let fields = own.unwrap_or_default().union(&changed).cloned().collect();
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

/// Whether a path is that of the metadata as a whole, which the server makes.
fn is_only_metadata(path: &[Step]) -> bool {
    path.len() == 1 && path.first().is_some_and(|step| step == "f:metadata")
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
    let read = |entry: ManagedFields| {
        let mut fields = Fields::new();
        read_tree(&entry.fields_v1, &mut vec![], &mut fields);
        Manager {
            manager: entry.manager,
            operation: entry.operation,
            subresource: entry.subresource,
            api_version: entry.api_version,
            time: entry.time,
            fields,
        }
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
            fields_v1: write_tree(&known.fields),
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

fn read_tree(tree: &Value, path: &mut Path, fields: &mut Fields) {
    let Some(children) = tree.as_object() else { return };
    if children.is_empty() && !path.is_empty() {
        fields.insert(path.clone());
    }
    for (step, child) in children {
        if step == "." {
            fields.insert(path.clone());
            continue;
        }
        path.push(step.clone());
        read_tree(child, path, fields);
        path.pop();
    }
}

fn write_tree(fields: &Fields) -> Value {
    let mut root = empty();
    for path in fields {
        let node = path.iter().fold(&mut root, |node, step| child(node, step));
        let has_fields_below = fields.iter().any(|other| other.len() > path.len() && other.starts_with(path));
        if has_fields_below {
            child(node, ".");
        }
    }
    root
}

fn empty() -> Value {
    Value::Object(Map::new())
}

fn child<'a>(node: &'a mut Value, step: &str) -> &'a mut Value {
    match node {
        Value::Object(children) => children.entry(step).or_insert_with(empty),
        // Never: every node is an object.
        other => other,
    }
}

/// The leaves of a part of an object that clients can state.
fn stated_fields(object: &Value, part: Part) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| part.has(name)) {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    if !SYSTEM.contains(&name.as_str()) {
                        leaves(value, &mut vec!["f:metadata".into(), format!("f:{name}")], &mut fields);
                    }
                }
            }
            _ => leaves(value, &mut vec![format!("f:{name}")], &mut fields),
        }
    }
    fields
}

fn leaves(value: &Value, path: &mut Path, fields: &mut Fields) {
    match value {
        Value::Object(children) if !children.is_empty() => {
            for (name, child) in children {
                path.push(format!("f:{name}"));
                leaves(child, path, fields);
                path.pop();
            }
        }
        Value::Array(entries) if !entries.is_empty() => match list_key(path) {
            Some(key) => {
                for entry in entries {
                    path.push(key_step(key, entry));
                    fields.insert(path.clone());
                    leaves(entry, path, fields);
                    path.pop();
                }
            }
            None => {
                fields.insert(path.clone());
            }
        },
        _ => {
            fields.insert(path.clone());
        }
    }
}

fn list_key(path: &[Step]) -> Option<&'static str> {
    let names: Option<Vec<&str>> = path.iter().map(|step| step.strip_prefix("f:")).collect();
    let dotted = names?.join(".");
    KEYED_LISTS.iter().find(|(list, _)| *list == dotted).map(|(_, key)| *key)
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

fn get<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let mut value = object;
    for step in path {
        value = match step.strip_prefix("f:") {
            Some(name) => value.get(name)?,
            None => {
                let (key, wanted) = read_key(step)?;
                value.as_array()?.iter().find(|entry| entry.get(&key) == Some(&wanted))?
            }
        };
    }
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
