//! ConfigMaps and Secrets made of files, and the hashes in their names that change with their content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::accumulate::check_new;
use super::file::{Generator, GeneratorOptions, Kustomization};
use super::{Resource, map_at};
use crate::build::Origin;
use crate::tree::resolve;
use crate::{Error, Tree};

/// Makes what a kustomization generates.
pub fn generate(
    tree: &mut Tree,
    folder: &str,
    path: &str,
    kustomization: &Kustomization,
    resources: &mut Vec<Resource>,
) -> Result<(), Error> {
    let maps = kustomization.config_map_generator.iter().map(|generator| ("ConfigMap", generator));
    let secrets = kustomization.secret_generator.iter().map(|generator| ("Secret", generator));
    for (kind, generator) in maps.chain(secrets) {
        if generator.name.is_empty() {
            return Err(Error::invalid(path, format!("has a generator of a {kind} without a `name`")));
        }
        let pairs = pairs(tree, folder, path, generator)?;
        let made = resource(kind, generator, &kustomization.generator_options, pairs, path);
        add(made, &generator.behavior, path, resources)?;
    }
    Ok(())
}

fn add(made: Resource, behavior: &str, path: &str, resources: &mut Vec<Resource>) -> Result<(), Error> {
    let name = made.name();
    let is_same = |other: &&mut Resource| {
        let namespaces = [name.namespace.as_str(), ""];
        other.kind() == made.kind()
            && other
                .names()
                .any(|known| known.name == name.name && namespaces.contains(&known.namespace.as_str()))
    };
    match behavior {
        "" | "create" => {
            check_new(resources, &made)?;
            resources.push(made);
        }
        "merge" | "replace" => {
            let Some(old) = resources.iter_mut().find(is_same) else {
                let problem =
                    format!("can't {behavior} {} {}: there is none of that name", made.kind(), name.name);
                return Err(Error::invalid(path, problem));
            };
            for field in ["data", "binaryData"] {
                let new = made.value.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
                let fields = map_at(&mut old.value, field);
                if behavior == "replace" {
                    fields.clear();
                }
                fields.extend(new);
                if fields.is_empty()
                    && let Some(value) = old.value.as_object_mut()
                {
                    value.remove(field);
                }
            }
            for field in ["labels", "annotations"] {
                let new =
                    made.value.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).cloned();
                if let Some(new) = new {
                    super::map_in(old.metadata(), field).extend(new);
                }
            }
            old.needs_hash = made.needs_hash;
        }
        other => {
            let problem = format!("has a generator with behavior {other:?}; write create, merge or replace");
            return Err(Error::invalid(path, problem));
        }
    }
    Ok(())
}

fn resource(
    kind: &str,
    generator: &Generator,
    common: &GeneratorOptions,
    pairs: Vec<(String, Vec<u8>)>,
    path: &str,
) -> Resource {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, content) in pairs {
        match (kind, String::from_utf8(content)) {
            ("Secret", Ok(text)) => data.insert(key, json!(STANDARD.encode(text))),
            ("Secret", Err(bytes)) => data.insert(key, json!(STANDARD.encode(bytes.into_bytes()))),
            (_, Ok(text)) => data.insert(key, json!(text)),
            (_, Err(bytes)) => binary.insert(key, json!(STANDARD.encode(bytes.into_bytes()))),
        };
    }
    let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": generator.name}});
    let own = &generator.options;
    if let Some(fields) = value.as_object_mut() {
        for (field, pairs) in [("data", data), ("binaryData", binary)] {
            if !pairs.is_empty() {
                fields.insert(field.into(), Value::Object(pairs));
            }
        }
        if kind == "Secret" {
            fields.insert("type".into(), json!(generator.kind.as_deref().unwrap_or("Opaque")));
        }
        if own.immutable || common.immutable {
            fields.insert("immutable".into(), json!(true));
        }
    }
    let mut made = Resource::new(value, Origin { file: path.to_owned(), line: 0 });
    if !generator.namespace.is_empty() {
        made.metadata().insert("namespace".into(), json!(generator.namespace));
    }
    for (field, common, own) in
        [("labels", &common.labels, &own.labels), ("annotations", &common.annotations, &own.annotations)]
    {
        made.add(field, common);
        made.add(field, own);
    }
    made.needs_hash = !(own.disable_name_suffix_hash || common.disable_name_suffix_hash);
    made
}

fn pairs(
    tree: &mut Tree,
    folder: &str,
    path: &str,
    generator: &Generator,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut pairs = Vec::new();
    let find = |named: &str| {
        let problem = || Error::invalid(path, format!("names {named:?}, outside of the repository"));
        resolve(folder, named).ok_or_else(problem)
    };
    for named in generator.envs.iter().chain(&generator.env) {
        let text = tree.read_text(&find(named)?)?;
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            pairs.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    for literal in &generator.literals {
        let problem = || Error::invalid(path, format!("has the literal {literal:?}; write KEY=VALUE"));
        let (key, value) = literal.split_once('=').ok_or_else(problem)?;
        pairs.push((key.to_owned(), unquoted(value).as_bytes().to_vec()));
    }
    for named in &generator.files {
        let (key, file) = match named.split_once('=') {
            Some((key, file)) => (key, file),
            None => (named.rsplit_once('/').map_or(named.as_str(), |(_, name)| name), named.as_str()),
        };
        pairs.push((key.to_owned(), tree.read(&find(file)?)?));
    }
    for (index, (key, _)) in pairs.iter().enumerate() {
        if pairs.iter().take(index).any(|(other, _)| other == key) {
            let name = &generator.name;
            return Err(Error::invalid(path, format!("gives key {key:?} of {name} twice")));
        }
    }
    Ok(pairs)
}

/// Without the quotes around it, if both are alike.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Puts a hash of their content behind the names of what was generated.
pub fn add_hashes(resources: &mut [Resource]) {
    for resource in resources.iter_mut().filter(|resource| resource.needs_hash) {
        let name = resource.name().name;
        let hash = hash(&resource.value);
        resource.rename(format!("{name}-{hash}"));
    }
}

/// The hash that kustomize gives. The name is no part of it, although it has a place there.
fn hash(value: &Value) -> String {
    let field = |field: &str| value.get(field).cloned().unwrap_or_else(|| json!(""));
    let kind = field("kind");
    let mut parts = vec![("data", field("data")), ("kind", kind.clone()), ("name", json!(""))];
    if kind == "Secret" {
        parts.push(("type", field("type")));
    } else if value.get("binaryData").is_some() {
        parts.insert(0, ("binaryData", field("binaryData")));
    }
    let fields: Vec<String> =
        parts.into_iter().map(|(field, value)| format!("\"{field}\":{}", go_json(&value))).collect();
    let digest = Sha256::digest(format!("{{{}}}", fields.join(",")));
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(10);
    // Letters and digits that make no words.
    digits.map(|digit| char::from(*b"gh2k456789mbcdtf".get(usize::from(digit)).unwrap_or(&b'g'))).collect()
}

/// JSON as Go writes it: keys in order, and what means something in HTML written as escapes.
fn go_json(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    let text = sorted.to_string();
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escapes.iter().fold(text, |text, (plain, escape)| text.replace(*plain, escape))
}
