//! Unknown fields.

use serde_json::Value;

use crate::compile::Node;
use crate::path::Path;

/// What every resource has, whatever its schema says.
pub const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields of a resource.
pub fn prune(object: &mut Value, root: &Node) -> Vec<String> {
    let mut removed = Vec::new();
    if root.preserves_unknown {
        skip(object, root, true, &Path::Root, &mut removed);
    } else {
        walk(object, Some(root), true, &Path::Root, &mut removed);
    }
    removed.sort();
    removed
}

/// Removes unknown fields of a value inside a resource.
pub fn prune_below(value: &mut Value, node: &Node) -> Vec<String> {
    let mut removed = Vec::new();
    walk(value, Some(node), node.is_embedded, &Path::Root, &mut removed);
    removed
}

fn walk(
    value: &mut Value,
    node: Option<&Node>,
    is_resource: bool,
    path: &Path<'_>,
    removed: &mut Vec<String>,
) {
    if let Some(node) = node.filter(|node| node.preserves_unknown) {
        skip(value, node, is_resource, path, removed);
        return;
    }
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            if is_resource && META.contains(&name.as_str()) {
                return true;
            }
            let known = match node {
                Some(node) => {
                    node.properties.get(name).map(Some).or(node.additional.as_ref().map(Option::as_deref))
                }
                None => None,
            };
            let here = Path::Field(path, name);
            match known {
                Some(child) => {
                    walk(value, child, child.is_some_and(|child| child.is_embedded), &here, removed)
                }
                None => removed.push(here.render()),
            }
            known.is_some()
        }),
        Value::Array(entries) => {
            let items = node.and_then(|node| node.items.as_deref());
            for (index, entry) in entries.iter_mut().enumerate() {
                let is_resource = items.is_some_and(|items| items.is_embedded);
                walk(entry, items, is_resource, &Path::Index(path, index), removed);
            }
        }
        _ => {}
    }
}

/// Keeps what is unknown here, but looks into what is known.
fn skip(value: &mut Value, node: &Node, is_resource: bool, path: &Path<'_>, removed: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if is_resource && META.contains(&name.as_str()) {
                    continue;
                }
                let known =
                    node.properties.get(name).map(Some).or(node.additional.as_ref().map(Option::as_deref));
                if let Some(child) = known {
                    let is_resource = child.is_some_and(|child| child.is_embedded);
                    walk(value, child, is_resource, &Path::Field(path, name), removed);
                }
            }
        }
        Value::Array(entries) => {
            let Some(items) = node.items.as_deref() else { return };
            for (index, entry) in entries.iter_mut().enumerate() {
                skip(entry, items, items.is_embedded, &Path::Index(path, index), removed);
            }
        }
        _ => {}
    }
}
