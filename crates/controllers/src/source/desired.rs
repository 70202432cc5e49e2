//! What a repository says, as objects in their places, in the order in which they are made.

use std::cmp::Reverse;

use serde_json::{Map, Value};
use sources::{Error, Manifest};
use types::names::annotation;
use types::{AppliedObject, Source};

use super::cluster::Place;

/// An object that is to be.
#[derive(Debug, Clone)]
pub struct Desired {
    pub place: Place,
    pub manifest: Value,
    /// File and line.
    pub origin: String,
}

/// What others rely on comes first.
const ORDER: [&str; 18] = [
    "Namespace",
    "CustomResourceDefinition",
    "ResourceQuota",
    "LimitRange",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "Site",
    "PlacementScore",
    "Model",
    "Function",
    "Placement",
    "Application",
    "Source",
];

fn rank(kind: &str) -> usize {
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

/// In the order in which they go: the other way round.
pub fn sort_for_deletion(objects: &mut [AppliedObject]) {
    objects.sort_by_key(|object| Reverse(rank(&object.kind)));
}

/// The objects that manifests state for a Source.
///
/// # Errors
/// File and line of a kind that is not served here, or of one object stated twice.
pub fn desired(source: &Source, manifests: Vec<Manifest>) -> Result<Vec<Desired>, Error> {
    let mut all: Vec<Desired> = Vec::new();
    for Manifest { value, origin } in manifests {
        let origin = origin.to_string();
        let one = place(source, value, origin)?;
        let twin = all.iter().find(|known| is_same(&known.place, &one.place));
        if let Some(twin) = twin {
            let problem = format!("states {} a second time; the first is in {}", one.place, twin.origin);
            return Err(Error::Invalid { place: one.origin, problem });
        }
        all.push(one);
    }
    all.sort_by_key(|one| rank(one.place.info.kind));
    Ok(all)
}

fn is_same(one: &Place, other: &Place) -> bool {
    (one.info.group, one.info.kind, &one.namespace, &one.name)
        == (other.info.group, other.info.kind, &other.namespace, &other.name)
}

fn place(source: &Source, mut manifest: Value, origin: String) -> Result<Desired, Error> {
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (version, kind) = (text(&manifest, "/apiVersion"), text(&manifest, "/kind"));
    let Some(info) = types::kind_of(&version, &kind) else {
        let problem = format!("apiVersion {version}, kind {kind} is not served here");
        return Err(Error::Invalid { place: origin, problem });
    };
    let stated = text(&manifest, "/metadata/namespace");
    let namespace = match (info.namespaced, &source.spec.target_namespace) {
        (false, _) => String::new(),
        (true, Some(target)) => target.clone(),
        (true, None) if stated.is_empty() => source.namespace().to_owned(),
        (true, None) => stated,
    };
    let name = text(&manifest, "/metadata/name");
    let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err(Error::Invalid { place: origin, problem: "has no metadata".into() });
    };
    metadata.remove("namespace");
    if info.namespaced {
        metadata.insert("namespace".into(), Value::String(namespace.clone()));
    }
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    let Some(annotations) = annotations.as_object_mut() else {
        return Err(Error::Invalid { place: origin, problem: "has annotations that are no object".into() });
    };
    annotations.insert(annotation::SOURCE.into(), Value::String(owner(source)));
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("status");
    }
    Ok(Desired { place: Place { info, namespace, name }, manifest, origin })
}

/// How a Source marks what it applies.
pub fn owner(source: &Source) -> String {
    format!("{}/{}", source.namespace(), source.name())
}

/// The entry of an inventory for an object.
pub fn entry(place: &Place, revision: &str, adopted: bool) -> AppliedObject {
    AppliedObject {
        api_version: place.info.api_version(),
        kind: place.info.kind.to_owned(),
        namespace: place.namespace.clone(),
        name: place.name.clone(),
        revision: revision.to_owned(),
        adopted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sources::Origin;
    use types::{ObjectMeta, SourceSpec};

    use super::*;

    fn source(target: Option<&str>) -> Source {
        let spec = json!({"git": {"url": "https://git.example.com/x"}, "targetNamespace": target});
        let spec: SourceSpec = serde_json::from_value(spec).unwrap();
        Source::new(ObjectMeta { namespace: "team".into(), ..ObjectMeta::named("deploy") }, spec)
    }

    fn manifest(version: &str, kind: &str, namespace: Option<&str>) -> Manifest {
        let value =
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": namespace}});
        Manifest { value, origin: Origin { file: "f.yaml".into(), line: 3 } }
    }

    #[test]
    fn objects_come_in_the_order_in_which_they_rely_on_each_other() {
        let manifests = vec![
            manifest("avocet.dev/v1alpha1", "Application", None),
            manifest("v1", "ConfigMap", None),
            manifest("v1", "Namespace", None),
            manifest("avocet.dev/v1alpha1", "Placement", None),
        ];
        let made = desired(&source(None), manifests).unwrap();
        let kinds: Vec<&str> = made.iter().map(|one| one.place.info.kind).collect();
        assert_eq!(kinds, ["Namespace", "ConfigMap", "Placement", "Application"]);
        assert!(
            made.iter()
                .all(|one| one.manifest["metadata"]["annotations"][annotation::SOURCE] == "team/deploy")
        );
    }

    #[test]
    fn namespaces_are_stated_given_or_that_of_the_source() {
        let namespace = |target, stated| {
            let made = desired(&source(target), vec![manifest("v1", "ConfigMap", stated)]).unwrap();
            assert_eq!(made[0].manifest["metadata"]["namespace"], made[0].place.namespace);
            made[0].place.namespace.clone()
        };
        assert_eq!(namespace(None, None), "team");
        assert_eq!(namespace(None, Some("own")), "own");
        assert_eq!(namespace(Some("given"), Some("own")), "given");
        let cluster = desired(&source(Some("given")), vec![manifest("v1", "Namespace", None)]).unwrap();
        assert_eq!(cluster[0].place.namespace, "");
    }

    #[test]
    fn what_is_not_served_or_ends_in_one_place_twice_is_told_with_its_line() {
        let told = |manifests| desired(&source(Some("t")), manifests).unwrap_err().to_string();
        let unknown = told(vec![manifest("apps/v1", "Deployment", None)]);
        assert_eq!(unknown, "f.yaml line 3: apiVersion apps/v1, kind Deployment is not served here");
        let twice = told(vec![manifest("v1", "Secret", Some("a")), manifest("v1", "Secret", Some("b"))]);
        assert!(twice.contains("states Secret t/a a second time"), "{twice}");
    }
}
