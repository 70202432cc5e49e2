//! Manifests on disk: YAML or JSON, one or many in a file, with artifacts beside them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use types::KindInfo;

/// One manifest and where it came from.
pub struct Manifest {
    pub info: &'static KindInfo,
    pub value: Value,
    /// What paths in it are relative to.
    pub folder: PathBuf,
}

impl Manifest {
    pub fn name(&self) -> &str {
        self.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// `kind/name`, for messages.
    pub fn label(&self) -> String {
        format!("{}/{}", self.info.singular, self.name())
    }

    /// The namespace it states, or the one given; empty for kinds without.
    pub fn namespace(&self, given: &str) -> String {
        if !self.info.namespaced {
            return String::new();
        }
        let stated = self.value.pointer("/metadata/namespace").and_then(Value::as_str);
        stated.unwrap_or(given).to_owned()
    }

    /// The artifacts that name a path, with the pointer to each.
    pub fn local_artifacts(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        find_paths(&self.value, "", &mut found);
        found
    }
}

fn find_paths(value: &Value, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let here = format!("{pointer}/{key}");
                if key == "artifact"
                    && let Some(path) = inner.get("path").and_then(Value::as_str)
                {
                    found.push((here, path.to_owned()));
                } else {
                    find_paths(inner, &here, found);
                }
            }
        }
        Value::Array(entries) => {
            for (index, inner) in entries.iter().enumerate() {
                find_paths(inner, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Reads manifests from files, folders and `-`, in order.
pub fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in files {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            parse(&text, "standard input", &std::env::current_dir()?, &mut manifests)?;
        } else if path.is_dir() {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
                .with_context(|| format!("can't read {}", path.display()))?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| {
                    path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
                })
                .collect();
            inside.sort();
            for path in inside {
                read_file(&path, &mut manifests)?;
            }
        } else {
            read_file(path, &mut manifests)?;
        }
    }
    if manifests.is_empty() {
        bail!("there is no manifest in what was named");
    }
    Ok(manifests)
}

fn read_file(path: &Path, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    parse(&text, &path.display().to_string(), &folder, manifests)
}

fn parse(text: &str, origin: &str, folder: &Path, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("{origin} is no YAML"))?;
    for value in documents.into_iter().filter(|value| !value.is_null()) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let Some(info) = types::kind_of(version, kind) else {
            let known: Vec<String> =
                types::kinds().map(|info| format!("{} {}", info.api_version(), info.kind)).collect();
            bail!(
                "{origin}: apiVersion `{version}`, kind `{kind}` is not known; known are {}",
                known.join(", ")
            );
        };
        manifests.push(Manifest { info, value, folder: folder.to_owned() });
    }
    Ok(())
}
