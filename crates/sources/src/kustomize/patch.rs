//! Patches of overlays: merges and lists of operations.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;
use types::{Selector, SmallMap};

use super::Resource;
use super::file::{Patch, Target};
use crate::tree::resolve;
use crate::{Error, Tree, yaml};

/// Applies `patchesStrategicMerge`: files, or merges themselves.
pub fn apply_merges(
    tree: &mut Tree,
    folder: &str,
    path: &str,
    merges: &[String],
    resources: &mut Vec<Resource>,
) -> Result<(), Error> {
    for merge in merges {
        let inline = merge.contains('\n');
        let (place, text) = match inline {
            true => (path.to_owned(), merge.clone()),
            false => read(tree, folder, path, merge)?,
        };
        for (_, patch) in yaml::documents(&place, &text)? {
            merge_into_named(&place, &patch, resources)?;
        }
    }
    Ok(())
}

/// Applies `patches` or `patchesJson6902`.
pub fn apply(
    tree: &mut Tree,
    folder: &str,
    path: &str,
    patches: &[Patch],
    resources: &mut Vec<Resource>,
) -> Result<(), Error> {
    for patch in patches {
        let (place, text) = match (patch.path.as_str(), patch.patch.as_str()) {
            ("", "") => return Err(Error::invalid(path, "has a patch with neither `path` nor `patch`")),
            ("", inline) => (path.to_owned(), inline.to_owned()),
            (file, "") => read(tree, folder, path, file)?,
            _ => return Err(Error::invalid(path, "has a patch with both `path` and `patch`; one is enough")),
        };
        for (line, document) in yaml::documents(&place, &text)? {
            match (&document, &patch.target) {
                (Value::Array(_), Some(target)) => {
                    let operations = operations(&place, &document)?;
                    each_chosen(&place, target, resources, |resource| {
                        json_patch::patch(&mut resource.value, &operations).map_err(|error| {
                            let (kind, name) = (resource.kind(), resource.name().name);
                            Error::invalid(&place, format!("can't patch {kind} {name}: {error}"))
                        })
                    })?;
                }
                (Value::Array(_), None) => {
                    return Err(Error::invalid(&place, "has operations without a `target`"));
                }
                (Value::Object(_), Some(target)) => {
                    each_chosen(&place, target, resources, |resource| {
                        merge_into(resource, &document, &patch.options);
                        Ok(())
                    })?;
                    remove_deleted(resources);
                }
                (Value::Object(_), None) => merge_into_named(&place, &document, resources)?,
                _ => return Err(Error::invalid(format!("{place} line {line}"), "is no patch")),
            }
        }
    }
    Ok(())
}

fn read(tree: &mut Tree, folder: &str, path: &str, named: &str) -> Result<(String, String), Error> {
    let file = resolve(folder, named);
    let file =
        file.ok_or_else(|| Error::invalid(path, format!("names {named:?}, outside of the repository")))?;
    let text = tree.read_text(&file)?;
    Ok((file, text))
}

fn operations(place: &str, document: &Value) -> Result<json_patch::Patch, Error> {
    serde_json::from_value(document.clone())
        .map_err(|error| Error::invalid(place, format!("is no list of operations (RFC 6902): {error}")))
}

/// Merges into the one resource that a patch names by its kind and name.
fn merge_into_named(place: &str, patch: &Value, resources: &mut Vec<Resource>) -> Result<(), Error> {
    let text = |pointer: &str| patch.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let found = resources.iter_mut().find(|resource| {
        resource.kind() == kind
            && resource.group() == group
            && resource
                .names()
                .any(|known| known.name == name && (namespace.is_empty() || namespace == known.namespace))
    });
    let Some(resource) = found else {
        return Err(Error::invalid(place, format!("patches {kind} {name}, which the overlay doesn't have")));
    };
    merge_into(resource, patch, &BTreeMap::new());
    remove_deleted(resources);
    Ok(())
}

/// Merges as RFC 7386 says, which is what Kubernetes does for kinds that aren't its own. Names and kinds stay.
fn merge_into(resource: &mut Resource, patch: &Value, options: &BTreeMap<String, bool>) {
    let mut patch = patch.clone();
    let directive = patch.get("$patch").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(fields) = patch.as_object_mut() {
        fields.remove("$patch");
        let may = |option: &str| options.get(option).copied().unwrap_or_default();
        if !may("allowKindChange") {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        if !may("allowNameChange")
            && let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("name");
            metadata.remove("namespace");
        }
    }
    match directive.as_str() {
        "delete" => resource.value = Value::Null,
        "replace" => {
            let kept = resource.value.clone();
            resource.value = serde_json::json!({
                "apiVersion": kept.get("apiVersion"), "kind": kept.get("kind"),
                "metadata": {"name": kept.pointer("/metadata/name"), "namespace": kept.pointer("/metadata/namespace")},
            });
            json_patch::merge(&mut resource.value, &patch);
        }
        _ => json_patch::merge(&mut resource.value, &patch),
    }
}

fn remove_deleted(resources: &mut Vec<Resource>) {
    resources.retain(|resource| !resource.value.is_null());
}

fn each_chosen(
    place: &str,
    target: &Target,
    resources: &mut [Resource],
    mut change: impl FnMut(&mut Resource) -> Result<(), Error>,
) -> Result<(), Error> {
    let chooser = Chooser::new(place, target)?;
    resources.iter_mut().filter(|resource| chooser.takes(resource)).try_for_each(&mut change)
}

/// A target, compiled.
struct Chooser {
    group: Option<Regex>,
    version: Option<Regex>,
    kind: Option<Regex>,
    name: Option<Regex>,
    namespace: Option<Regex>,
    labels: Option<Selector>,
    annotations: Option<Selector>,
}

impl Chooser {
    fn new(place: &str, target: &Target) -> Result<Self, Error> {
        let pattern = |text: &str| {
            let compiled = (!text.is_empty()).then(|| Regex::new(&format!("^(?:{text})$"))).transpose();
            compiled.map_err(|error| Error::invalid(place, format!("has a target with {text:?}: {error}")))
        };
        let selector = |text: &str| {
            let parsed = (!text.is_empty()).then(|| text.parse::<Selector>()).transpose();
            parsed.map_err(|error| Error::invalid(place, format!("has a target with {text:?}: {error}")))
        };
        Ok(Self {
            group: pattern(&target.group)?,
            version: pattern(&target.version)?,
            kind: pattern(&target.kind)?,
            name: pattern(&target.name)?,
            namespace: pattern(&target.namespace)?,
            labels: selector(&target.label_selector)?,
            annotations: selector(&target.annotation_selector)?,
        })
    }

    fn takes(&self, resource: &Resource) -> bool {
        let fits =
            |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_none_or(|known| known.is_match(text));
        let pairs = |field: &str| -> SmallMap {
            let found = resource.value.pointer(&format!("/metadata/{field}")).and_then(Value::as_object);
            let pairs = found.into_iter().flatten();
            pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        let chosen = |selector: &Option<Selector>, field: &str| {
            selector.as_ref().is_none_or(|selector| selector.matches(&pairs(field)))
        };
        fits(&self.group, resource.group())
            && fits(&self.version, resource.version())
            && fits(&self.kind, resource.kind())
            && resource
                .names()
                .any(|known| fits(&self.name, &known.name) && fits(&self.namespace, &known.namespace))
            && chosen(&self.labels, "labels")
            && chosen(&self.annotations, "annotations")
    }
}
