//! Arrows between crates point one way, and each heavy dependency has its owners.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Problem;

/// From the bottom to the top: a crate may use those before it. [`ASIDE`] are tools, not of the product.
const LAYERS: [&str; 20] = [
    "avocet-types",
    "avocet-schema",
    "avocet-daemon",
    "avocet-multiplex",
    "avocet-store",
    "avocet-artifacts",
    "avocet-registry",
    "avocet-objects",
    "avocet-planner",
    "avocet-sources",
    "avocet-heap",
    "avocet-tensorflow",
    "avocet-inference",
    "avocet-wire",
    "avocet-serving",
    "avocet-runtimes",
    "avocet-controllers",
    "avocet-api",
    "avocet-agent",
    "avocet",
];
const ASIDE: [&str; 2] = ["xtask", "avocet-testkit"];

/// What is slow to build or holds an idea that must stay in one place, and who may name it.
const HEAVY: [(&str, &[&str]); 16] = [
    ("libloading", &["avocet-tensorflow"]),
    ("regex", &["avocet-schema", "avocet-sources"]),
    ("rusqlite", &["avocet-store"]),
    ("rten", &["avocet-inference"]),
    ("rten-tensor", &["avocet-inference"]),
    ("ort", &["avocet-inference"]),
    ("s3s", &["avocet-objects"]),
    ("hyper", &["avocet-objects", "avocet-serving", "avocet-api"]),
    ("prost", &["avocet-wire", "avocet-serving"]),
    ("tonic", &["avocet-wire", "avocet-serving"]),
    ("tar", &["avocet-artifacts", "avocet"]),
    ("landlock", &["avocet-runtimes"]),
    ("seccompiler", &["avocet-runtimes"]),
    ("axum", &["avocet-registry", "avocet-serving", "avocet-api", "avocet-agent"]),
    ("reqwest", &["avocet-serving", "avocet-controllers", "avocet-api", "avocet-agent", "avocet"]),
    ("clap", &["avocet"]),
];

/// A crate of ours and what it names under `[dependencies]`.
pub type Crates = BTreeMap<String, Vec<String>>;

/// Reads the packages of `cargo metadata --no-deps`.
pub fn read(packages: &[Value]) -> Crates {
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let crates = packages.iter().map(|package| {
        let named = package.get("dependencies").and_then(Value::as_array);
        // The kind of a normal dependency is null; development and build dependencies may point anywhere.
        let normal = named.into_iter().flatten().filter(|one| one.get("kind").is_none_or(Value::is_null));
        (text(package, "name"), normal.map(|one| text(one, "name")).collect())
    });
    crates.collect()
}

pub fn upward_edges(crates: &Crates) -> Vec<Problem> {
    let layer = |name: &str| LAYERS.iter().position(|known| *known == name);
    let mut problems = Vec::new();
    for (name, dependencies) in crates.iter().filter(|(name, _)| !ASIDE.contains(&name.as_str())) {
        let Some(own) = layer(name) else {
            problems.push(format!("crate `{name}` has no layer: give it one in xtask/src/tidy/layers.rs"));
            continue;
        };
        for dependency in dependencies.iter().filter(|dependency| crates.contains_key(*dependency)) {
            match layer(dependency) {
                Some(below) if below < own => {}
                Some(_) => problems.push(format!("crate `{name}` uses `{dependency}`, which is above it")),
                None => problems.push(format!("crate `{name}` uses the tool `{dependency}` in production")),
            }
        }
    }
    problems
}

pub fn shared_heavy_dependencies(crates: &Crates) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, dependencies) in crates.iter().filter(|(name, _)| !ASIDE.contains(&name.as_str())) {
        for (heavy, owners) in &HEAVY {
            if dependencies.iter().any(|dependency| dependency == heavy) && !owners.contains(&name.as_str()) {
                problems
                    .push(format!("crate `{name}` names `{heavy}`, which belongs to {}", owners.join(", ")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crates(list: &[(&str, &[&str])]) -> Crates {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        list.iter().map(|(name, dependencies)| ((*name).to_owned(), owned(dependencies))).collect()
    }

    #[test]
    fn arrows_point_down() {
        let fine =
            crates(&[("avocet-types", &[]), ("avocet-store", &["avocet-types", "serde"]), ("xtask", &[])]);
        assert_eq!(upward_edges(&fine), Vec::<Problem>::new());
        let upward = crates(&[("avocet-types", &["avocet-store"]), ("avocet-store", &[])]);
        assert_eq!(upward_edges(&upward), ["crate `avocet-types` uses `avocet-store`, which is above it"]);
        let tool = crates(&[("avocet-api", &["avocet-testkit"]), ("avocet-testkit", &[])]);
        assert_eq!(upward_edges(&tool), ["crate `avocet-api` uses the tool `avocet-testkit` in production"]);
        assert_eq!(upward_edges(&crates(&[("avocet-new", &[])])).len(), 1);
    }

    #[test]
    fn heavy_dependency_stays_with_its_owner() {
        let fine = [("avocet-store", &["rusqlite"][..]), ("avocet-testkit", &["rusqlite"])];
        assert!(shared_heavy_dependencies(&crates(&fine)).is_empty());
        let shared = shared_heavy_dependencies(&crates(&[("avocet-api", &["rusqlite"])]));
        assert_eq!(shared, ["crate `avocet-api` names `rusqlite`, which belongs to avocet-store"]);
    }

    #[test]
    fn only_normal_dependencies_count() {
        let packages = [json!({"name": "a", "dependencies": [
            {"name": "normal", "kind": null}, {"name": "for-tests", "kind": "dev"}, {"name": "script", "kind": "build"},
        ]})];
        assert_eq!(read(&packages), crates(&[("a", &["normal"])]));
    }
}
