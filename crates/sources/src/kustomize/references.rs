//! Names that resources have for each other follow what they name.

use serde_json::Value;

use super::{Name, Resource};

/// Where a kind names others: its kind, the way there (`*` for all entries of a list), and the kind that is named.
const REFERENCES: [(&str, &[&str], &str); 13] = [
    ("Application", &["spec", "components", "*", "placement"], "Placement"),
    ("Application", &["spec", "components", "*", "function"], "Function"),
    ("Application", &["spec", "components", "*", "models", "*"], "Model"),
    ("Model", &["spec", "ensemble", "steps", "*", "model"], "Model"),
    ("Source", &["spec", "git", "secretRef", "name"], "Secret"),
    ("Source", &["spec", "verify", "secretRef", "name"], "Secret"),
    ("Source", &["spec", "webhook", "secretRef", "name"], "Secret"),
    ("Source", &["spec", "serviceAccountName"], "ServiceAccount"),
    ("ServiceAccount", &["secrets", "*", "name"], "Secret"),
    ("ServiceAccount", &["imagePullSecrets", "*", "name"], "Secret"),
    ("RoleBinding", &["roleRef", "name"], "Role"),
    ("RoleBinding", &["roleRef", "name"], "ClusterRole"),
    ("ClusterRoleBinding", &["roleRef", "name"], "ClusterRole"),
];

/// What was renamed: its kind, what it was called, and what it is called now.
struct Renamed {
    kind: String,
    earlier: Vec<Name>,
    now: Name,
}

/// Makes all references name what they named before.
pub fn fix(resources: &mut [Resource]) {
    let renamed: Vec<Renamed> = resources
        .iter()
        .filter(|resource| !resource.earlier.is_empty())
        .map(|resource| Renamed {
            kind: resource.kind().to_owned(),
            earlier: resource.earlier.clone(),
            now: resource.name(),
        })
        .collect();
    if renamed.is_empty() {
        return;
    }
    for resource in resources.iter_mut() {
        let (kind, first, now) = (resource.kind().to_owned(), resource.first_name(), resource.name());
        let places = [first.namespace, now.namespace];
        for (_, way, named) in REFERENCES.iter().filter(|(of, _, _)| *of == kind) {
            if way.first() == Some(&"roleRef") && resource.text("/roleRef/kind") != *named {
                continue;
            }
            follow(&mut resource.value, way, &|text| {
                // A model may be named with a version behind it.
                let (name, rest) =
                    text.split_once('@').map_or((text, None), |(name, rest)| (name, Some(rest)));
                let new = find(&renamed, named, &places, name)?;
                Some(rest.map_or_else(|| new.name.clone(), |rest| format!("{}@{rest}", new.name)))
            });
        }
        if kind.ends_with("RoleBinding") {
            subjects(&mut resource.value, &renamed, &places);
        }
    }
}

fn find<'a>(renamed: &'a [Renamed], kind: &str, namespaces: &[String], name: &str) -> Option<&'a Name> {
    let is_it = |one: &&Renamed| {
        let was = |known: &Name| {
            known.name == name && namespaces.iter().any(|one| usual(one) == usual(&known.namespace))
        };
        one.kind == kind && one.earlier.iter().any(was)
    };
    renamed.iter().find(is_it).map(|one| &one.now)
}

/// Where nothing is said, the namespace `default` is meant.
fn usual(namespace: &str) -> &str {
    if namespace.is_empty() { "default" } else { namespace }
}

fn follow(value: &mut Value, way: &[&str], new_name: &dyn Fn(&str) -> Option<String>) {
    match (way.split_first(), value) {
        (None, Value::String(text)) => {
            if let Some(name) = new_name(text) {
                *text = name;
            }
        }
        (Some((&"*", rest)), Value::Array(entries)) => {
            entries.iter_mut().for_each(|entry| follow(entry, rest, new_name));
        }
        (Some((field, rest)), Value::Object(fields)) => {
            if let Some(inner) = fields.get_mut(*field) {
                follow(inner, rest, new_name);
            }
        }
        _ => {}
    }
}

/// Service accounts that a binding names have a namespace, too.
fn subjects(value: &mut Value, renamed: &[Renamed], namespaces: &[String]) {
    let subjects = value.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten().filter_map(Value::as_object_mut) {
        let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("kind") != "ServiceAccount" {
            continue;
        }
        let stated = text("namespace");
        let places = if stated.is_empty() { namespaces.to_vec() } else { vec![stated] };
        if let Some(new) = find(renamed, "ServiceAccount", &places, &text("name")) {
            subject.insert("name".into(), Value::String(new.name.clone()));
            if !new.namespace.is_empty() {
                subject.insert("namespace".into(), Value::String(new.namespace.clone()));
            }
        }
    }
}
