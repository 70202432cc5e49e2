//! What an overlay does to all of its resources.

use serde_json::{Value, json};

use super::file::{Image, Kustomization, Replicas};
use super::{Resource, map_at};
use crate::Error;

/// Puts all into a namespace.
pub fn namespace(namespace: &str, resources: &mut [Resource]) {
    if namespace.is_empty() {
        return;
    }
    for resource in resources.iter_mut() {
        match resource.kind() {
            "Namespace" => resource.rename(namespace.to_owned()),
            _ if resource.is_cluster_wide() => {}
            _ => {
                resource.earlier.push(resource.name());
                resource.metadata().insert("namespace".into(), json!(namespace));
            }
        }
        if matches!(resource.kind(), "RoleBinding" | "ClusterRoleBinding") {
            default_subjects(resource, namespace);
        }
    }
}

/// The service account `default` that a binding names is that of the namespace.
fn default_subjects(resource: &mut Resource, namespace: &str) {
    let subjects = resource.value.get_mut("subjects").and_then(Value::as_array_mut);
    for subject in subjects.into_iter().flatten().filter_map(Value::as_object_mut) {
        if subject.get("name").is_some_and(|name| name == "default") {
            subject.insert("namespace".into(), json!(namespace));
        }
    }
}

/// Puts something before and behind all names but those of namespaces and definitions.
pub fn names(prefix: &str, suffix: &str, resources: &mut [Resource]) {
    if prefix.is_empty() && suffix.is_empty() {
        return;
    }
    let is_fixed = |kind: &str| matches!(kind, "Namespace" | "CustomResourceDefinition" | "APIService");
    for resource in resources.iter_mut().filter(|resource| !is_fixed(resource.kind())) {
        let name = resource.name().name;
        resource.rename(format!("{prefix}{name}{suffix}"));
    }
}

/// Labels all.
pub fn labels(kustomization: &Kustomization, resources: &mut [Resource]) {
    let stated = kustomization.labels.iter().map(|labels| (&labels.pairs, labels.include_selectors));
    for (pairs, selects) in stated.chain([(&kustomization.common_labels, true)]) {
        for resource in resources.iter_mut() {
            resource.add("labels", pairs);
            if selects && resource.kind() == "Service" && resource.value.pointer("/spec/selector").is_some() {
                let selector = map_at(map_at_value(&mut resource.value, "spec"), "selector");
                selector.extend(pairs.iter().map(|(key, value)| (key.clone(), json!(value))));
            }
        }
    }
}

fn map_at_value<'a>(value: &'a mut Value, field: &str) -> &'a mut Value {
    map_at(value, field);
    match value.get_mut(field) {
        Some(found) => found,
        None => unreachable!("it was made just now"),
    }
}

/// Says how many of something there are to be: of whatever `kubectl scale` can scale.
pub fn replicas(path: &str, wanted: &[Replicas], resources: &mut [Resource]) -> Result<(), Error> {
    for replicas in wanted {
        let mut found = false;
        for resource in resources.iter_mut() {
            let info = types::kind_of(resource.text("/apiVersion"), resource.kind());
            let Some(scale) = info.and_then(|info| info.scale) else { continue };
            let Some(field) = scale.spec_replicas.strip_prefix(".spec.") else { continue };
            if resource.names().any(|known| known.name == replicas.name) {
                map_at(&mut resource.value, "spec").insert(field.to_owned(), json!(replicas.count));
                found = true;
            }
        }
        if !found {
            let name = &replicas.name;
            return Err(Error::invalid(
                path,
                format!("has replicas of {name:?}, which is nothing that can be scaled"),
            ));
        }
    }
    Ok(())
}

/// Replaces images wherever containers are listed.
pub fn images(wanted: &[Image], resources: &mut [Resource]) {
    for image in wanted {
        resources.iter_mut().for_each(|resource| replace_images(&mut resource.value, image));
    }
}

fn replace_images(value: &mut Value, image: &Image) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields.iter_mut() {
                if matches!(field.as_str(), "containers" | "initContainers") {
                    for container in inner.as_array_mut().into_iter().flatten() {
                        if let Some(Value::String(named)) = container.get_mut("image") {
                            *named = replaced(named, image);
                        }
                    }
                }
                replace_images(inner, image);
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| replace_images(entry, image)),
        _ => {}
    }
}

fn replaced(named: &str, image: &Image) -> String {
    let (before, digest) = named.split_once('@').map_or((named, None), |(name, digest)| (name, Some(digest)));
    let end = before.rfind('/').map_or(0, |slash| slash + 1);
    let colon = before.get(end..).and_then(|last| last.find(':')).map(|at| end + at);
    let (name, tag) = match colon {
        Some(at) => (before.get(..at).unwrap_or(before), before.get(at + 1..)),
        None => (before, None),
    };
    if name != image.name {
        return named.to_owned();
    }
    let name = if image.new_name.is_empty() { name } else { &image.new_name };
    match (image.digest.as_str(), image.new_tag.as_str()) {
        ("", "") => match (tag, digest) {
            (_, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, None) => name.to_owned(),
        },
        ("", tag) => format!("{name}:{tag}"),
        (digest, _) => format!("{name}@{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_whole_name() {
        let image = Image { name: "reg:5000/app".into(), new_tag: "2".into(), ..Image::default() };
        for (old, new) in [
            ("reg:5000/app", "reg:5000/app:2"),
            ("reg:5000/app:1", "reg:5000/app:2"),
            ("reg:5000/app@sha256:ab", "reg:5000/app:2"),
            ("reg:5000/apple:1", "reg:5000/apple:1"),
        ] {
            assert_eq!(replaced(old, &image), new);
        }
        let renamed = Image {
            name: "app".into(),
            new_name: "other".into(),
            digest: "sha256:cd".into(),
            ..Image::default()
        };
        assert_eq!(replaced("app:1", &renamed), "other@sha256:cd");
    }
}
