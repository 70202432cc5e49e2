//! `avocet.yaml` beside `config.pbtxt`: what a Model's manifest says in `spec`, but for the versions, which are folders
//! here.

use std::collections::BTreeSet;
use std::path::Path;

use inference::{EngineChoice, Routing};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use types::{Engine, Ensemble, Kind, ModelSignature, ModelSpec, Serving};

use super::scan;

pub(super) const FILE: &str = "avocet.yaml";
/// Most mistakes that are told at once.
const MOST_TOLD: usize = 8;

/// What the file says, before it is known which versions there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Declared {
    fields: Map<String, Value>,
}

/// The same, checked.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// `None` where there is no file, or nothing in it.
    spec: Option<ModelSpec>,
    /// What is said in `serving`, each with its defaults.
    serving: Map<String, Value>,
}

impl Declared {
    /// Of a model's folder; a file that isn't there says nothing.
    ///
    /// # Errors
    /// When it can't be read or is no YAML.
    pub fn read(folder: &Path) -> Result<Declared, String> {
        let text = match scan::read_text(&folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Declared::default()),
            Err(error) => return Err(format!("can't read {FILE}: {error}")),
        };
        let text = String::from_utf8(text).map_err(|_| format!("{FILE} is not UTF-8"))?;
        Declared::parse(&text)
    }

    /// Of the file's content.
    pub fn parse(text: &str) -> Result<Declared, String> {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| format!("{FILE} is no YAML: {error}"))?;
        match value {
            Value::Null => Ok(Declared::default()),
            Value::Object(fields) => Ok(Declared { fields }),
            _ => Err(format!("{FILE} holds no fields; it looks like `serving:` with settings below it")),
        }
    }

    /// The ensemble that it describes, as far as it can be read.
    pub fn ensemble(&self) -> Option<Ensemble> {
        self.fields.get("ensemble").and_then(read)
    }

    /// The names of versions that it wants, beside those that a policy picks.
    pub fn versions(&self) -> BTreeSet<String> {
        let field = |name: &str| self.fields.get(name);
        let traffic = |name: &str| field("traffic").and_then(|traffic| traffic.get(name));
        let aliases = field("aliases").and_then(Value::as_object).into_iter().flat_map(Map::values);
        let split = traffic("split").and_then(Value::as_array).into_iter().flatten();
        let shadow = traffic("shadow").into_iter();
        let shares = split.chain(shadow).filter_map(|share| share.get("version"));
        let named = field("defaultVersion").into_iter().chain(aliases).chain(shares);
        named.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Holds it against what a Model may say, with these versions, or as the ensemble that `config.pbtxt` describes.
    ///
    /// # Errors
    /// Every mistake, by field.
    pub fn check(&self, versions: &[String], ensemble: Option<&Ensemble>) -> Result<Checked, String> {
        if self.fields.is_empty() {
            // Nothing to check, so that servers without such files don't keep schemas.
            return Ok(Checked::default());
        }
        if self.fields.contains_key("versions") {
            return Err(format!(
                "{FILE}: versions: the folders beside this file are the versions; leave it out"
            ));
        }
        let mut spec = self.fields.clone();
        if let Some(ensemble) = ensemble {
            spec.entry("ensemble").or_insert(json!(ensemble));
        }
        if !spec.contains_key("ensemble") {
            // Its files are no artifacts of a hub.
            let artifact = json!({"digest": types::Digest::of(b"").to_string()});
            let version = |name: &String| json!({"name": name, "artifact": artifact});
            spec.insert("versions".into(), versions.iter().map(version).collect());
        }
        let mut manifest = json!({
            "apiVersion": ModelSpec::api_version(), "kind": ModelSpec::KIND,
            "metadata": {"name": "model", "namespace": "default"}, "spec": spec,
        });
        let info = types::kind_of(&ModelSpec::api_version(), ModelSpec::KIND)
            .ok_or_else(|| format!("{FILE} can't be checked here"))?;
        let unknown = schema::schema_of(info).map(|schema| schema.prune(&mut manifest)).unwrap_or_default();
        let mut mistakes: Vec<String> =
            unknown.iter().map(|field| format!("{}: there is no such field", own(field))).collect();
        match schema::complete(info, manifest, None) {
            Ok(complete) if mistakes.is_empty() => {
                let spec = complete.get("spec").and_then(read::<ModelSpec>);
                let spec = Some(spec.ok_or_else(|| format!("{FILE} can't be read as a Model's spec"))?);
                let serving = complete.pointer("/spec/serving").and_then(Value::as_object);
                let said = self.fields.get("serving").and_then(Value::as_object);
                let is_said = |name: &String| said.is_some_and(|said| said.contains_key(name));
                let mut serving = serving.cloned().unwrap_or_default();
                serving.retain(|name, _| is_said(name));
                return Ok(Checked { spec, serving });
            }
            Ok(_) => {}
            Err(violations) => {
                let told = violations.iter().map(|found| format!("{}: {}", own(&found.field), found.message));
                mistakes.extend(told);
            }
        }
        mistakes.truncate(MOST_TOLD);
        Err(format!("{FILE}: {}", mistakes.join("; ")))
    }
}

/// A field as the file names it.
fn own(field: &str) -> &str {
    field.strip_prefix("spec.").unwrap_or(field)
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

impl Checked {
    /// How the model is served: what the file doesn't say is as given.
    ///
    /// # Errors
    /// Never, unless settings can't be written down.
    pub fn serving(&self, given: &Serving) -> Result<Serving, String> {
        let failed = |error: serde_json::Error| format!("{FILE}: serving: {error}");
        let mut all = serde_json::to_value(given).map_err(failed)?;
        if let Some(all) = all.as_object_mut() {
            all.extend(self.serving.clone());
        }
        serde_json::from_value(all).map_err(failed)
    }

    /// The engine, unless that is left to `config.pbtxt`.
    pub fn engine(&self) -> Option<EngineChoice> {
        match self.spec.as_ref()?.engine {
            Engine::Auto => None,
            Engine::Native => Some(EngineChoice::Native),
            Engine::OnnxRuntime => Some(EngineChoice::OnnxRuntime),
            Engine::Rten => Some(EngineChoice::Rten),
            Engine::TensorFlow => Some(EngineChoice::Tensorflow),
        }
    }

    pub fn signature(&self) -> Option<ModelSignature> {
        self.spec.as_ref()?.signature.clone()
    }

    pub fn default_version(&self) -> Option<String> {
        self.spec.as_ref()?.default_version.clone()
    }

    pub fn routing(&self) -> Routing {
        let routing =
            |spec: &ModelSpec| Routing { aliases: spec.aliases.clone(), traffic: spec.traffic.clone() };
        self.spec.as_ref().map(routing).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use types::{Batching, Drift, PredictionCache};

    use super::*;

    fn check(text: &str) -> Result<Checked, String> {
        Declared::parse(text).unwrap().check(&["1".into(), "2".into()], None)
    }

    #[test]
    fn it_says_what_a_model_may_say_and_leaves_the_rest_as_given() {
        let text = "
serving:
  drift: {windowValues: 50}
  cache: {ttlSeconds: 60}
  finiteInputs: true
aliases: {champion: '2'}
traffic:
  split: [{version: '1', weight: 90}, {version: '2', weight: 10}]
engine: rten
";
        let checked = check(text).unwrap();
        let batching = Some(Batching { max_size: 8, max_delay_microseconds: 5 });
        let given = Serving { batching: batching.clone(), finite_inputs: false, ..Serving::default() };
        let expected = Serving {
            batching,
            finite_inputs: true,
            cache: Some(PredictionCache { ttl_seconds: 60 }),
            drift: Some(Drift { window_values: 50, ..Drift::default() }),
            ..Serving::default()
        };
        assert_eq!(checked.serving(&given).unwrap(), expected);
        assert_eq!(checked.engine(), Some(EngineChoice::Rten));
        assert_eq!(checked.routing().aliases["champion"], "2");
        let named = Declared::parse(text).unwrap().versions();
        assert_eq!(named, ["1", "2"].map(str::to_owned).into());
        let nothing = Declared::default().check(&["1".into()], None).unwrap();
        assert_eq!(nothing.serving(&given).unwrap(), given);
        assert_eq!(nothing.engine(), None);
    }

    #[test]
    fn the_examples_of_the_documentation_are_right() {
        let page = include_str!("../../../../docs/serving.md");
        let blocks = page.split("    # avocet.yaml\n").skip(1).map(|rest| {
            let lines = rest.lines().take_while(|line| line.starts_with("    "));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        });
        let blocks: Vec<String> = blocks.collect();
        assert!(blocks.len() > 8, "{}", blocks.len());
        for block in blocks {
            let checked = Declared::parse(&block).and_then(|declared| {
                let versions = ["1".to_owned(), "2".to_owned()];
                declared.check(&versions, None)?.serving(&Serving::default())
            });
            assert!(checked.is_ok(), "{block}{checked:?}");
        }
    }

    #[test]
    fn mistakes_are_told_by_the_field_of_the_file() {
        for (text, told) in [
            ("serving: {drfit: {}}", "avocet.yaml: serving.drfit: there is no such field"),
            ("servign: {}", "avocet.yaml: servign: there is no such field"),
            ("serving: {threads: 5000}", "avocet.yaml: serving.threads: "),
            ("serving: {preprocessing: {}}", "give one of image and csv"),
            ("aliases: {champion: '9'}", "names a version that is none"),
            ("versions: [{name: '1'}]", "avocet.yaml: versions: the folders beside this file"),
            ("defaultVersion: 2", "avocet.yaml: defaultVersion: "),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        for text in ["- a", "serving: [", "text"] {
            assert!(Declared::parse(text).unwrap_err().starts_with("avocet.yaml "), "{text}");
        }
        assert_eq!(Declared::parse("# nothing").unwrap(), Declared::default());
    }
}
