//! Overlays in the form of kustomize, as far as its transformations make sense for what is served here. What is not
//! known is refused by its name: an overlay that is half understood is worse than one that isn't.

mod accumulate;
mod file;
mod generate;
mod patch;
mod references;
mod transform;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::build::{Manifest, Origin, joined};
use crate::{Error, Tree};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The file that makes a folder an overlay, if it has one.
pub fn file_in(tree: &Tree, folder: &str) -> Option<String> {
    NAMES.iter().map(|name| joined(folder, name)).find(|path| tree.has_file(path))
}

/// Whether a path is that of such a file.
pub fn is_file(path: &str) -> bool {
    NAMES.contains(&path.rsplit_once('/').map_or(path, |(_, name)| name))
}

/// The manifests of an overlay.
///
/// # Errors
/// What is wrong with one of its files, with the file's name.
pub fn build(tree: &mut Tree, folder: &str) -> Result<Vec<Manifest>, Error> {
    let mut resources = accumulate::accumulate(tree, folder, &mut Vec::new())?;
    generate::add_hashes(&mut resources);
    references::fix(&mut resources);
    Ok(resources
        .into_iter()
        .map(|resource| Manifest { value: resource.value, origin: resource.origin })
        .collect())
}

/// A manifest on its way through overlays.
#[derive(Debug, Clone)]
struct Resource {
    value: Value,
    origin: Origin,
    /// What it was called before, oldest first: patches and references of lower layers go by these.
    earlier: Vec<Name>,
    needs_hash: bool,
}

/// What a resource is called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    namespace: String,
    name: String,
}

impl Resource {
    fn new(value: Value, origin: Origin) -> Self {
        Self { value, origin, earlier: vec![], needs_hash: false }
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.text("/kind")
    }

    fn group(&self) -> &str {
        self.text("/apiVersion").split_once('/').map_or("", |(group, _)| group)
    }

    fn version(&self) -> &str {
        let version = self.text("/apiVersion");
        version.split_once('/').map_or(version, |(_, version)| version)
    }

    fn name(&self) -> Name {
        Name {
            namespace: self.text("/metadata/namespace").to_owned(),
            name: self.text("/metadata/name").to_owned(),
        }
    }

    /// All that it is or was called.
    fn names(&self) -> impl Iterator<Item = Name> {
        self.earlier.iter().cloned().chain([self.name()])
    }

    /// What it was called first.
    fn first_name(&self) -> Name {
        self.earlier.first().cloned().unwrap_or_else(|| self.name())
    }

    fn rename(&mut self, name: String) {
        self.earlier.push(self.name());
        self.metadata().insert("name".into(), Value::String(name));
    }

    fn metadata(&mut self) -> &mut Map<String, Value> {
        map_at(&mut self.value, "metadata")
    }

    /// Whether it has no namespace, as far as is known here.
    fn is_cluster_wide(&self) -> bool {
        types::kind_of(self.text("/apiVersion"), self.kind()).is_some_and(|info| !info.namespaced)
    }

    fn add(&mut self, field: &str, pairs: &BTreeMap<String, String>) {
        if !pairs.is_empty() {
            let place = map_in(self.metadata(), field);
            place.extend(pairs.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))));
        }
    }
}

/// The object in a field of a value, made if it isn't there.
fn map_at<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => map_in(fields, field),
        _ => unreachable!("it was made an object just now"),
    }
}

fn map_in<'a>(fields: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let place = fields.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    match place {
        Value::Object(fields) => fields,
        _ => unreachable!("it was made an object just now"),
    }
}
