//! What can be done where, as both versions of OpenAPI tell it.

use types::{KindInfo, kinds};

/// What can be done at an address.
pub struct Operation {
    /// `get`, `post`, `put`, `patch` or `delete`.
    pub method: &'static str,
    /// What Kubernetes calls it.
    pub action: &'static str,
}

const fn operation(method: &'static str, action: &'static str) -> Operation {
    Operation { method, action }
}

const LIST: [Operation; 1] = [operation("get", "list")];
const COLLECTION: [Operation; 3] =
    [operation("get", "list"), operation("post", "post"), operation("delete", "deletecollection")];
const STATUS: [Operation; 3] =
    [operation("get", "get"), operation("put", "put"), operation("patch", "patch")];
const OBJECT: [Operation; 4] = [
    operation("get", "get"),
    operation("put", "put"),
    operation("patch", "patch"),
    operation("delete", "delete"),
];

impl Operation {
    /// Parameters of its query: name and type.
    pub fn parameters(&self) -> &'static [(&'static str, &'static str)] {
        match self.action {
            "list" => &[
                ("allowWatchBookmarks", "boolean"),
                ("continue", "string"),
                ("fieldSelector", "string"),
                ("labelSelector", "string"),
                ("limit", "integer"),
                ("resourceVersion", "string"),
                ("resourceVersionMatch", "string"),
                ("sendInitialEvents", "boolean"),
                ("timeoutSeconds", "integer"),
                ("watch", "boolean"),
            ],
            "post" | "put" => {
                &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
            }
            "patch" => &[
                ("dryRun", "string"),
                ("fieldManager", "string"),
                ("fieldValidation", "string"),
                ("force", "boolean"),
            ],
            "delete" | "deletecollection" => &[
                ("dryRun", "string"),
                ("gracePeriodSeconds", "integer"),
                ("orphanDependents", "boolean"),
                ("propagationPolicy", "string"),
            ],
            _ => &[],
        }
    }

    /// A name of its own among all operations.
    pub fn id(&self, address: &Address) -> String {
        let Address { info, suffix, .. } = address;
        let group =
            if info.group.is_empty() { "core" } else { info.group.split('.').next().unwrap_or_default() };
        format!("{}{}{}{}{suffix}", self.action, capitalized(group), capitalized(info.version), info.kind)
    }
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
    first.to_uppercase() + rest
}

/// An address, and what can be done there.
pub struct Address {
    pub info: &'static KindInfo,
    pub path: String,
    /// What tells its operations' names from those of the kind's other addresses.
    pub suffix: &'static str,
    pub operations: &'static [Operation],
}

impl Address {
    /// The parts of the path that stand for names.
    pub fn variables(&self) -> impl Iterator<Item = &'static str> {
        ["namespace", "name"].into_iter().filter(|name| self.path.contains(&format!("{{{name}}}")))
    }
}

/// The path of a kind's group and version, below the root.
pub fn group_path(info: &KindInfo) -> String {
    let root = if info.group.is_empty() { "api" } else { "apis" };
    format!("{root}/{}", info.api_version())
}

/// All addresses of all kinds.
pub fn addresses() -> impl Iterator<Item = Address> {
    kinds().flat_map(|info| {
        let namespace = if info.namespaced { "/namespaces/{namespace}" } else { "" };
        let base = format!("/{}{namespace}/{}", group_path(info), info.plural);
        let object = format!("{base}/{{name}}");
        let mut addresses = vec![
            Address { info, path: base, suffix: "", operations: &COLLECTION },
            Address { info, path: object.clone(), suffix: "Named", operations: &OBJECT },
        ];
        if info.has_status {
            let path = format!("{object}/status");
            addresses.push(Address { info, path, suffix: "Status", operations: &STATUS });
        }
        if info.namespaced {
            let path = format!("/{}/{}", group_path(info), info.plural);
            addresses.push(Address { info, path, suffix: "ForAllNamespaces", operations: &LIST });
        }
        addresses
    })
}
