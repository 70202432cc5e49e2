//! What is wrong with the metadata of an object, in the words of Kubernetes.

use types::names::finalizer::{FOREGROUND, ORPHAN};
use types::names::{label_key_problems, label_value_problems};
use types::{KindInfo, ObjectMeta, OwnerReference};

use crate::violation::quoted;
use crate::{Reason, Violation};

/// How large all annotations of an object are together at most, in bytes.
const MOST_ANNOTATIONS: usize = 256 << 10;
/// How much of a value messages show, in bytes.
const LONGEST_SHOWN: usize = 1024;

/// Finds all mistakes.
pub fn check(info: &KindInfo, metadata: &ObjectMeta) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut refuse = |field: &str, value: &str, problems: Vec<String>| {
        let end = value.floor_char_boundary(LONGEST_SHOWN);
        let value = quoted(value.get(..end).unwrap_or_default());
        found.extend(problems.iter().map(|problem| invalid(field, &value, problem)));
    };
    if !metadata.generate_name.is_empty() {
        // What is appended makes an end of what may not end so.
        let prefix = metadata.generate_name.trim_end_matches(['-', '.']);
        refuse("metadata.generateName", &metadata.generate_name, info.name_problems(prefix));
    }
    if !metadata.name.is_empty() {
        refuse("metadata.name", &metadata.name, info.name_problems(&metadata.name));
    }
    for (key, value) in &metadata.labels {
        refuse("metadata.labels", key, label_key_problems(key));
        refuse("metadata.labels", value, label_value_problems(value));
    }
    for key in metadata.annotations.keys() {
        refuse("metadata.annotations", key, label_key_problems(&key.to_lowercase()));
    }
    for finalizer in &metadata.finalizers {
        refuse("metadata.finalizers", finalizer, label_key_problems(finalizer));
    }
    if metadata.name.is_empty() {
        let detail = "name or generateName is required";
        found.push(Violation::new("metadata.name".to_owned(), Reason::Required, None, detail));
    }
    let size: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MOST_ANNOTATIONS {
        let detail = format!("may not be more than {MOST_ANNOTATIONS} bytes");
        found.push(Violation::new("metadata.annotations".to_owned(), Reason::TooLong, None, &detail));
    }
    if [FOREGROUND, ORPHAN].iter().all(|known| metadata.finalizers.iter().any(|name| name == known)) {
        let all = serde_json::json!(metadata.finalizers).to_string();
        let problem = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        found.push(invalid("metadata.finalizers", &all, &problem));
    }
    check_owners(&metadata.owner_references, &mut found);
    found
}

fn check_owners(owners: &[OwnerReference], found: &mut Vec<Violation>) {
    let mut refuse = |field: &str, value: &str, problem: &str| {
        let field = ["metadata.ownerReferences", field].join(if field.is_empty() { "" } else { "." });
        found.push(invalid(&field, value, problem));
    };
    for owner in owners {
        if owner.api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            refuse("apiVersion", &quoted(&owner.api_version), "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                refuse(field, "\"\"", "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let shown = serde_json::json!(owner).to_string();
            refuse("", &shown, "/v1, Kind=Event is disallowed from being an owner");
        }
    }
    let mut controllers = owners.iter().filter(|owner| owner.controller).map(described);
    if let (Some(first), Some(second)) = (controllers.next(), controllers.next()) {
        let shown = serde_json::json!(owners).to_string();
        let problem = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        refuse("", &shown, &problem);
    }
}

fn described(owner: &OwnerReference) -> String {
    format!("{}/{}", owner.kind, owner.name)
}

fn invalid(field: &str, value: &str, problem: &str) -> Violation {
    Violation::new(field.to_owned(), Reason::Invalid, Some(value.to_owned()), problem)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(kind: &str, metadata: &Value) -> Vec<String> {
        let metadata = serde_json::from_value(metadata.clone()).unwrap();
        let info = types::kind_named(kind).unwrap();
        check(info, &metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_refused_in_the_words_of_their_kind() {
        let long = "a".repeat(254);
        for (kind, name, expected) in [
            (
                "placement",
                "A",
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of ",
            ),
            (
                "namespace",
                "a.b",
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of ",
            ),
            ("clusterrole", "a/b", "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
            ("clusterrole", "..", "metadata.name: Invalid value: \"..\": may not be '..'"),
            ("placement", "", "metadata.name: Required value: name or generateName is required"),
        ] {
            let found = said(kind, &json!({"name": name}));
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].starts_with(expected), "{}", found[0]);
        }
        let found = said("placement", &json!({"name": long}));
        assert!(found[0].ends_with("must be no more than 253 bytes"), "{found:?}");
        assert_eq!(
            said("placement", &json!({"name": "a".repeat(100)})),
            [""; 0],
            "as long as Kubernetes lets it be"
        );
        assert_eq!(said("placement", &json!({"name": "a-b", "generateName": "a-"})), [""; 0]);
    }

    #[test]
    fn labels_annotations_and_finalizers_are_refused_one_by_one() {
        let metadata = json!({
            "name": "a", "labels": {"-a": "b", "c": "-d"}, "annotations": {"UPPER/Case": "", "a b": ""},
            "finalizers": ["orphan", "foregroundDeletion", "x y"],
        });
        let found = said("placement", &metadata);
        let beginnings = [
            "metadata.labels: Invalid value: \"-a\": name part must consist of ",
            "metadata.labels: Invalid value: \"-d\": a valid label must be an empty string or ",
            "metadata.annotations: Invalid value: \"a b\": name part must consist of ",
            "metadata.finalizers: Invalid value: \"x y\": name part must consist of ",
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\",\"x y\"]: finalizer orphan and \
             foregroundDeletion cannot be both set",
        ];
        assert_eq!(found.len(), beginnings.len(), "{found:#?}");
        for (found, beginning) in found.iter().zip(beginnings) {
            assert!(found.starts_with(beginning), "{found}");
        }
        let large = json!({"name": "a", "annotations": {"a": "x".repeat(MOST_ANNOTATIONS)}});
        let expected = "metadata.annotations: Too long: may not be more than 262144 bytes";
        assert_eq!(said("placement", &large), [expected]);
    }

    #[test]
    fn owners_are_whole_and_one_of_them_controls() {
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": "1", "controller": true});
        let metadata = json!({"name": "a", "ownerReferences": [owner("b"), owner("c")]});
        let found = said("placement", &metadata);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].ends_with("Found \"true\" in references for ConfigMap/b and ConfigMap/c"),
            "{found:?}"
        );
        let empty = json!({"apiVersion": "", "kind": "", "name": "", "uid": ""});
        assert_eq!(
            said("placement", &json!({"name": "a", "ownerReferences": [empty]})),
            [
                "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
                "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            ]
        );
    }
}
