//! A stored resource and its name.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use types::{Kind, ObjectMeta, Resource, Time};

/// Names one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind's plural.
    pub plural: &'static str,
    /// The namespace; empty for kinds without one.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Key {
    /// The key of a resource.
    pub fn new(plural: &'static str, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { plural, namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn row(&self) -> String {
        format!("{}/{}/{}", self.plural, self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural)?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        write!(f, "/{}", self.name)
    }
}

/// A stored resource: its JSON text, with the metadata read out. As values it would take ten times the memory, and
/// most readers want the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Its metadata, but for the managed fields, which are large and read by writers only.
    pub metadata: ObjectMeta,
    json: Bytes,
}

impl Object {
    /// An object that is not stored, as its manifest says it.
    ///
    /// # Errors
    /// If the metadata can't be read.
    pub fn unstored(key: Key, manifest: Value) -> serde_json::Result<Self> {
        let draft = Draft::of(key, manifest)?;
        let version = draft.metadata.resource_version.parse().unwrap_or(0);
        draft.finish(version)
    }

    /// What a creation would store, as a dry run shows it: it has no version.
    ///
    /// # Errors
    /// If the metadata can't be read.
    pub fn uncreated(key: Key, manifest: Value, now: Time) -> serde_json::Result<Self> {
        let mut draft = Draft::of(key, manifest)?;
        draft.begin(now);
        draft.write_metadata()?;
        draft.write()
    }

    /// What an update of this object would store, as a dry run shows it.
    ///
    /// # Errors
    /// If the metadata can't be read.
    pub fn updated(&self, manifest: Value) -> serde_json::Result<Self> {
        let mut draft = Draft::of(self.key.clone(), manifest)?;
        draft.keep_system_metadata(&self.metadata, self.manifest().get("spec"));
        draft.write_metadata()?;
        draft.write()
    }

    /// What a deletion would leave, as a dry run shows it: the object that waits for those who hold it; `None` if it
    /// would be gone.
    ///
    /// # Errors
    /// If the metadata can't be read.
    pub fn doomed(&self, finalizer: Option<&'static str>, now: Time) -> serde_json::Result<Option<Self>> {
        let mut draft = Draft::of(self.key.clone(), self.manifest())?;
        if !draft.doom(finalizer, now) {
            return Ok(None);
        }
        draft.write_metadata()?;
        draft.write().map(Some)
    }

    /// All of it, as a value; parsed anew at each call.
    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// All of it, as a type.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.json)
    }

    /// The resource, but for the managed fields, as in `metadata`: they are most of what would be allocated.
    ///
    /// # Errors
    /// If its spec or status isn't of that kind.
    pub fn resource<S: Kind>(&self) -> serde_json::Result<Resource<S>> {
        #[derive(Deserialize)]
        #[serde(bound = "")]
        struct Body<S: Kind> {
            spec: S,
            #[serde(default)]
            status: S::Status,
        }
        let Body { spec, status } = self.parse()?;
        Ok(Resource { status, ..Resource::new(self.metadata.clone(), spec) })
    }

    /// The manifest as JSON text, as it was written; shared, not copied.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The version that it is at; 0 if it names none.
    pub fn version(&self) -> u64 {
        self.metadata.resource_version.parse().unwrap_or(0)
    }

    /// The same as seen at another version.
    #[must_use]
    pub fn with_version(&self, version: u64) -> Self {
        // What was read as JSON can be written as JSON.
        Draft::of(self.key.clone(), self.manifest())
            .and_then(|draft| draft.finish(version))
            .unwrap_or_else(|_| self.clone())
    }

    /// Reads a stored manifest.
    pub(crate) fn read(key: Key, json: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Stored {
            metadata: ObjectMeta,
        }
        let Stored { mut metadata } = serde_json::from_str(json)?;
        metadata.name.clone_from(&key.name);
        metadata.namespace.clone_from(&key.namespace);
        metadata.managed_fields = vec![];
        Ok(Self { key, metadata, json: Bytes::copy_from_slice(json.as_bytes()) })
    }
}

/// An object as somebody read it, with its text parsed.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The object.
    pub object: Arc<Object>,
    /// All of it, as a value.
    pub manifest: Value,
}

impl From<Arc<Object>> for Seen {
    fn from(object: Arc<Object>) -> Self {
        Self { manifest: object.manifest(), object }
    }
}

/// An object that is about to be written.
pub(crate) struct Draft {
    pub(crate) key: Key,
    pub(crate) metadata: ObjectMeta,
    pub(crate) manifest: Value,
}

impl Draft {
    /// Reads the metadata out of a manifest.
    pub(crate) fn of(key: Key, manifest: Value) -> serde_json::Result<Self> {
        let mut metadata = match manifest.get("metadata") {
            Some(metadata) => ObjectMeta::deserialize(metadata)?,
            None => ObjectMeta::default(),
        };
        metadata.name.clone_from(&key.name);
        metadata.namespace.clone_from(&key.namespace);
        Ok(Self { key, metadata, manifest })
    }

    pub(crate) fn set_field(&mut self, field: &str, value: Value) {
        if let Value::Object(fields) = &mut self.manifest {
            fields.insert(field.to_owned(), value);
        }
    }

    /// Writes the metadata back into the manifest.
    pub(crate) fn write_metadata(&mut self) -> serde_json::Result<()> {
        let metadata = serde_json::to_value(&self.metadata)?;
        self.set_field("metadata", metadata);
        Ok(())
    }

    /// Fills in what a new object begins with.
    pub(crate) fn begin(&mut self, now: Time) {
        self.metadata.uid = uuid::Uuid::new_v4().to_string();
        self.metadata.generation = i64::from(self.counts_generations());
        self.metadata.creation_timestamp = Some(now);
        self.metadata.deletion_timestamp = None;
        self.metadata.deletion_grace_period_seconds = None;
        self.metadata.resource_version.clear();
    }

    /// Marks what is to be deleted and somebody holds; whether somebody does.
    pub(crate) fn doom(&mut self, finalizer: Option<&'static str>, now: Time) -> bool {
        let is_marked = self.metadata.deletion_timestamp.is_some();
        let finalizers = &mut self.metadata.finalizers;
        let is_new = |finalizer: &&str| !is_marked && !finalizers.iter().any(|known| known == finalizer);
        finalizers.extend(finalizer.filter(is_new).map(str::to_owned));
        let is_held = self.is_held();
        if is_held && !is_marked {
            self.metadata.deletion_timestamp = Some(now);
            self.metadata.deletion_grace_period_seconds = Some(0);
            self.metadata.generation += i64::from(self.counts_generations());
        }
        is_held
    }

    /// Whether somebody must act before the object goes. Namespaces have a second list of who.
    pub(crate) fn is_held(&self) -> bool {
        let holders = self.manifest.pointer("/spec/finalizers").and_then(Value::as_array);
        let is_namespace = self.key.plural == "namespaces";
        !self.metadata.finalizers.is_empty()
            || (is_namespace && holders.is_some_and(|holders| !holders.is_empty()))
    }

    /// Keeps what a writer of specs can't change; counts a generation if the spec differs.
    pub(crate) fn keep_system_metadata(&mut self, old: &ObjectMeta, spec: Option<&Value>) {
        let spec_changed = self.manifest.get("spec") != spec;
        self.metadata.uid.clone_from(&old.uid);
        self.metadata.resource_version.clone_from(&old.resource_version);
        self.metadata.creation_timestamp = old.creation_timestamp;
        self.metadata.deletion_timestamp = old.deletion_timestamp;
        self.metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
        self.metadata.generation =
            if self.counts_generations() { old.generation + i64::from(spec_changed) } else { 0 };
    }

    /// Whether changes of its spec are counted: with most kinds that Kubernetes has, too, they aren't
    /// there either.
    pub(crate) fn counts_generations(&self) -> bool {
        self.key.plural == types::core::CustomResourceDefinitionSpec::PLURAL
            || types::kind_named(self.key.plural).is_none_or(types::KindInfo::is_ours)
    }

    /// The object, at a version.
    pub(crate) fn finish(mut self, version: u64) -> serde_json::Result<Object> {
        self.write_metadata()?;
        self.finish_written(version)
    }

    /// The same where the metadata is in the manifest already.
    pub(crate) fn finish_written(mut self, version: u64) -> serde_json::Result<Object> {
        self.metadata.resource_version = version.to_string();
        if let Some(metadata) = self.manifest.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), self.metadata.resource_version.as_str().into());
        }
        self.write()
    }

    fn write(mut self) -> serde_json::Result<Object> {
        // Exactly as long as it is: a text that grew has room for up to as much again.
        let json = serde_json::to_vec(&self.manifest)?.into_boxed_slice().into();
        self.metadata.managed_fields = vec![];
        Ok(Object { key: self.key, metadata: self.metadata, json })
    }
}
