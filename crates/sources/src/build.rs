//! Manifests of a folder.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tree::resolve;
use crate::{Error, Helm, Tree, helm, kustomize, yaml};

/// Where a manifest is stated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, from the root of the repository.
    pub file: String,
    /// The line where it begins, from 1; 0 where there is none.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{} line {line}", self.file),
        }
    }
}

/// One manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The object: it has `apiVersion`, `kind` and `metadata.name`.
    pub value: Value,
    /// Where it is stated.
    pub origin: Origin,
}

impl Manifest {
    /// What tells it from others, for people.
    pub(crate) fn label(&self) -> String {
        let text = |pointer: &str| self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    }
}

/// All manifests of a folder: a chart where it has a `Chart.yaml`, an overlay where it has a `kustomization.yaml`, or
/// else those of all files in it and below.
///
/// # Errors
/// [`Error`] that names file and line.
pub fn build(tree: &mut Tree, path: &str, helm: &Helm) -> Result<Vec<Manifest>, Error> {
    let folder = resolve("", path).filter(|folder| tree.has_folder(folder));
    let folder =
        folder.ok_or_else(|| Error::invalid(path, "is no folder of the repository; see spec.git.path"))?;
    let manifests = match tree.has_file(&joined(&folder, "Chart.yaml")) {
        true => helm::render(tree, &folder, helm)?,
        false => self::folder(tree, &folder)?,
    };
    check_unique(&manifests)?;
    Ok(manifests)
}

pub(crate) fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn folder(tree: &mut Tree, folder: &str) -> Result<Vec<Manifest>, Error> {
    if kustomize::file_in(tree, folder).is_some() {
        return kustomize::build(tree, folder);
    }
    let files: Vec<String> =
        tree.files_below(folder).filter(|path| !is_hidden(path)).map(str::to_owned).collect();
    let mut manifests = Vec::new();
    // An overlay within is built as one, and what is below it is its own affair.
    let mut overlays: Vec<String> = Vec::new();
    for file in &files {
        let place = file.rsplit_once('/').map_or("", |(place, _)| place);
        if kustomize::is_file(file) && !overlays.iter().any(|overlay| is_below(place, overlay)) {
            overlays.push(place.to_owned());
        }
    }
    for overlay in &overlays {
        manifests.extend(kustomize::build(tree, overlay)?);
    }
    for file in files.iter().filter(|file| yaml::is_manifest(file)) {
        if !overlays.iter().any(|overlay| is_below(file, overlay)) {
            manifests.extend(read(tree, file)?);
        }
    }
    Ok(manifests)
}

fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The manifests of one file.
pub(crate) fn read(tree: &mut Tree, file: &str) -> Result<Vec<Manifest>, Error> {
    let text = tree.read_text(file)?;
    parse(file, &text, tree.limits().manifests)
}

/// The manifests of a text.
pub(crate) fn parse(file: &str, text: &str, most: usize) -> Result<Vec<Manifest>, Error> {
    let mut manifests = Vec::new();
    for (line, value) in yaml::documents(file, text)? {
        let origin = Origin { file: file.to_owned(), line };
        let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind == "List");
        let values = match value.get("items").and_then(Value::as_array).filter(|_| is_list) {
            Some(items) => items.clone(),
            None => vec![value],
        };
        for value in values {
            check_shape(&value, &origin)?;
            manifests.push(Manifest { value, origin: origin.clone() });
        }
        if manifests.len() > most {
            return Err(Error::TooLarge(format!("{file} has more than {most} manifests")));
        }
    }
    Ok(manifests)
}

fn check_shape(value: &Value, origin: &Origin) -> Result<(), Error> {
    for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
        if value.pointer(pointer).and_then(Value::as_str).is_none_or(str::is_empty) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            return Err(Error::invalid(origin, format!("is no manifest: it has no `{field}`")));
        }
    }
    Ok(())
}

fn check_unique(manifests: &[Manifest]) -> Result<(), Error> {
    let mut seen: BTreeMap<[String; 4], &Origin> = BTreeMap::new();
    for manifest in manifests {
        let text =
            |pointer: &str| manifest.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let key =
            [group, text("/kind"), text("/metadata/namespace"), text("/metadata/name")].map(str::to_owned);
        if let Some(first) = seen.insert(key, &manifest.origin) {
            let problem = format!("states {} a second time; the first is in {first}", manifest.label());
            return Err(Error::invalid(&manifest.origin, problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
        Tree::of_files(files.collect())
    }

    fn labels(tree: &mut Tree, path: &str) -> Result<Vec<String>, String> {
        let built = build(tree, path, &Helm::default()).map_err(|error| error.to_string())?;
        Ok(built.iter().map(|manifest| format!("{} at {}", manifest.label(), manifest.origin)).collect())
    }

    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ";

    #[test]
    fn all_files_of_a_folder_are_read_but_hidden_ones_and_those_of_other_kinds() {
        let map = |name: &str| format!("{MAP}{name}\n");
        let list =
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: e}}\n";
        let mut tree = tree(&[
            ("a.yaml", &map("a")),
            ("deep/b.yml", &format!("{}---\n{}", map("b"), map("c"))),
            ("deep/list.json", list),
            (".github/x.yaml", "on: push\n"),
            ("README.md", "no manifest"),
        ]);
        let all = [
            "ConfigMap a at a.yaml line 1",
            "ConfigMap b at deep/b.yml line 1",
            "ConfigMap c at deep/b.yml line 6",
        ];
        let found = labels(&mut tree, "").unwrap();
        assert_eq!(found[..3], all);
        assert_eq!(found[3], "ConfigMap e at deep/list.json line 1");
        assert_eq!(labels(&mut tree, "./deep/").unwrap().len(), 3);
        assert!(labels(&mut tree, "nowhere").unwrap_err().contains("is no folder"));
    }

    #[test]
    fn what_is_no_manifest_or_stated_twice_is_told_with_its_place() {
        let mut lacking = tree(&[("x.yaml", "a: 1\n")]);
        assert_eq!(
            labels(&mut lacking, "").unwrap_err(),
            "x.yaml line 1: is no manifest: it has no `apiVersion`"
        );
        let mut twice = tree(&[("x.yaml", &format!("{MAP}a\n")), ("y.yaml", &format!("\n{MAP}a\n"))]);
        let told = "y.yaml line 2: states ConfigMap a a second time; the first is in x.yaml line 1";
        assert_eq!(labels(&mut twice, "").unwrap_err(), told);
    }

    #[test]
    fn overlays_within_a_folder_are_built_as_overlays() {
        let mut tree = tree(&[
            ("a.yaml", &format!("{MAP}a\n")),
            ("o/kustomization.yaml", "namePrefix: p-\nresources: [b.yaml]\n"),
            ("o/b.yaml", &format!("{MAP}b\n")),
            ("o/unused.yaml", &format!("{MAP}unused\n")),
        ]);
        let mut names = labels(&mut tree, "").unwrap();
        names.sort();
        assert_eq!(names, ["ConfigMap a at a.yaml line 1", "ConfigMap p-b at o/b.yaml line 1"]);
    }
}
