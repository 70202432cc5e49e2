//! `Event`: telling people what happened to an object, without telling the same again and again.

mod correlator;
mod expiry;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use store::{Error, Key, Object, Store};
use tracing::debug;
use types::core::{EventBody, EventSource, ObjectReference};
use types::{Kind, ObjectMeta, Plain, Resource, Time};

use correlator::{Correlator, Verdict};
pub(crate) use expiry::expired;

use crate::write::is_terminating;

/// Who tells.
const COMPONENT: &str = "avocet-hub";
/// Where events of objects without a namespace are.
const DEFAULT_NAMESPACE: &str = "default";
/// How much of an object's name is in the names of its events, in bytes.
const LONGEST_NAME: usize = 200;

/// Something that happened to an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// The object.
    pub object: ObjectReference,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// A CamelCase word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Occurrence {
    /// Something that is as it should be.
    pub fn normal(object: impl Into<Subject>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { object: object.into().0, kind: "Normal", reason, message: message.into() }
    }

    /// Something that somebody may have to act on.
    pub fn warning(object: impl Into<Subject>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: "Warning", ..Self::normal(object, reason, message) }
    }
}

/// What an event is about.
pub struct Subject(ObjectReference);

impl<S: Kind> From<&Resource<S>> for Subject {
    fn from(resource: &Resource<S>) -> Self {
        Self(reference(&resource.api_version, &resource.kind, &resource.metadata))
    }
}

impl From<&Object> for Subject {
    fn from(object: &Object) -> Self {
        let manifest = object.manifest();
        let text = |field: &str| manifest.get(field).and_then(|text| text.as_str()).unwrap_or_default();
        Self(reference(text("apiVersion"), text("kind"), &object.metadata))
    }
}

fn reference(api_version: &str, kind: &str, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: String::new(),
    }
}

/// Records what happened as Events. What repeats within 10 minutes is counted instead of told again, many events
/// alike are told as one, and an object that has too much to tell is not listened to for a while. That much is
/// remembered of the most recent objects, and only for as long as the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    store: Store,
    correlator: Arc<Mutex<Correlator>>,
}

impl Events {
    /// A recorder into this store.
    pub fn new(store: Store) -> Self {
        Self { store, correlator: Arc::default() }
    }

    /// Records something. Events are a courtesy: where they can't be written, that is logged and no more.
    pub async fn record(&self, occurrence: Occurrence, now: Time) {
        let verdict = self.correlator.lock().unwrap_or_else(PoisonError::into_inner).judge(&occurrence, now);
        let namespace = match occurrence.object.namespace.as_str() {
            "" => DEFAULT_NAMESPACE.to_owned(),
            namespace => namespace.to_owned(),
        };
        if is_terminating(&self.store, &namespace) {
            return;
        }
        let told = match verdict {
            Verdict::Drop => return,
            Verdict::New { name, message } => {
                self.create(&namespace, &name, occurrence.telling(message), now).await
            }
            Verdict::Again { name, message, count } => {
                let key = Key::new(EventBody::PLURAL, &*namespace, &*name);
                match self.count(&key, &message, count, now).await {
                    // Somebody deleted it, or it expired.
                    Err(Error::NotFound(_)) => {
                        self.create(&namespace, &name, occurrence.telling(message), now).await
                    }
                    other => other,
                }
            }
        };
        if let Err(error) = told {
            debug!(%error, "an event was not recorded");
        }
    }

    async fn create(
        &self,
        namespace: &str,
        name: &str,
        occurrence: Occurrence,
        now: Time,
    ) -> Result<(), Error> {
        let body = EventBody {
            involved_object: occurrence.object,
            reason: occurrence.reason.to_owned(),
            message: occurrence.message,
            source: EventSource { component: COMPONENT.to_owned(), ..EventSource::default() },
            first_timestamp: Some(now),
            last_timestamp: Some(now),
            count: Some(1),
            kind: occurrence.kind.to_owned(),
            reporting_component: COMPONENT.to_owned(),
            ..EventBody::default()
        };
        let metadata = ObjectMeta { namespace: namespace.to_owned(), ..ObjectMeta::named(name) };
        // Our own types always are JSON: maps with string keys, finite numbers.
        let manifest = serde_json::to_value(Plain::new(metadata, body)).unwrap_or_default();
        self.store.create(Key::new(EventBody::PLURAL, namespace, name), manifest, now).await.map(drop)
    }

    async fn count(&self, key: &Key, message: &str, count: i64, now: Time) -> Result<(), Error> {
        let event = self.store.get(key).ok_or_else(|| Error::NotFound(key.clone()))?;
        let mut manifest = event.manifest();
        if let Some(fields) = manifest.as_object_mut() {
            fields.insert("message".to_owned(), json!(message));
            fields.insert("count".to_owned(), json!(count));
            fields.insert("lastTimestamp".to_owned(), json!(now));
        }
        self.store.update(key.clone(), manifest, false).await.map(drop)
    }
}

impl Occurrence {
    fn telling(self, message: String) -> Self {
        Self { message, ..self }
    }
}

/// The start of the names of an object's events.
fn stem(object: &ObjectReference) -> &str {
    object
        .name
        .get(..object.name.floor_char_boundary(LONGEST_NAME))
        .unwrap_or_default()
        .trim_end_matches(['.', '-'])
}
