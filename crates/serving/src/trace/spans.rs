//! The spans of one request while it is worked on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inference::Timing;

use super::Call;

/// Most spans of one request: ensembles may have many steps.
const MOST: usize = 256;

/// A finished span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub trace: u128,
    pub id: u64,
    pub parent: Option<u64>,
    pub state: String,
    pub name: String,
    /// Whether it is the answer to a request from outside.
    pub is_front: bool,
    /// Nanoseconds since 1970.
    pub begin: u64,
    pub end: u64,
    pub attributes: Vec<(&'static str, Value)>,
    pub failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
}

pub(super) struct Spans {
    /// The same moment on both clocks.
    begun: (Instant, SystemTime),
    root: Span,
    inner: Vec<Span>,
    grpc: bool,
}

impl Spans {
    pub fn begin(trace: u128, id: u64, parent: Option<u64>, state: String, call: &Call) -> Spans {
        let texts = call.attributes.iter().map(|(name, value)| (*name, Value::Text((*value).to_owned())));
        let root = Span {
            trace,
            id,
            parent,
            state,
            name: call.name.to_owned(),
            is_front: true,
            begin: 0,
            end: 0,
            attributes: texts.collect(),
            failure: None,
        };
        let grpc = call.attributes.iter().any(|(name, _)| *name == "rpc.system");
        Spans { begun: (Instant::now(), SystemTime::now()), root, inner: Vec::with_capacity(8), grpc }
    }

    pub fn speaks_grpc(&self) -> bool {
        self.grpc
    }

    pub fn say(&mut self, name: &'static str, value: impl Into<Value>) {
        self.root.attributes.push((name, value.into()));
    }

    pub fn fail(&mut self, why: String) {
        self.root.failure = Some(why);
    }

    /// A step from `since` to now.
    pub fn step(&mut self, id: u64, name: &'static str, since: Instant) {
        self.add(id, self.root.id, name.to_owned(), since, since.elapsed(), Vec::new());
    }

    /// A look into the cache from `since` to now.
    pub fn cache(&mut self, id: u64, since: Instant, hit: bool) {
        let found = vec![("avocet.cache.hit", Value::Flag(hit))];
        self.add(id, self.root.id, "cache".into(), since, since.elapsed(), found);
    }

    /// Where the time of a run went, with the steps of an ensemble below it.
    pub fn run(&mut self, timing: &Timing, next: &dyn Fn() -> u64) {
        self.run_below(self.root.id, timing, next);
    }

    fn run_below(&mut self, parent: u64, timing: &Timing, next: &dyn Fn() -> u64) {
        let Timing { begun, cache, queue, compute, cached, samples, steps, .. } = timing;
        if *cached || !cache.is_zero() {
            let found = vec![("avocet.cache.hit", Value::Flag(*cached))];
            self.add(next(), parent, "cache".into(), *begun, *cache, found);
        }
        for step in steps {
            let id = next();
            let says = vec![
                ("avocet.model.name", Value::Text(step.model.clone())),
                ("avocet.model.version", Value::Text(step.version.clone())),
            ];
            let Timing { begun, took, .. } = &step.timing;
            self.add(id, parent, format!("step {}", step.name), *begun, *took, says);
            self.run_below(id, &step.timing, next);
        }
        if *cached || !steps.is_empty() {
            return;
        }
        self.add(next(), parent, "queue".into(), *begun + *cache, queue.saturating_sub(*cache), Vec::new());
        let size = vec![("avocet.batch.size", Value::Number(i64::try_from(*samples).unwrap_or(i64::MAX)))];
        self.add(next(), parent, "compute".into(), *begun + *queue, *compute, size);
    }

    fn add(
        &mut self,
        id: u64,
        parent: u64,
        name: String,
        since: Instant,
        took: Duration,
        attributes: Vec<(&'static str, Value)>,
    ) {
        if self.inner.len() + 1 >= MOST {
            return;
        }
        let Span { trace, state, .. } = &self.root;
        self.inner.push(Span {
            trace: *trace,
            id,
            parent: Some(parent),
            state: state.clone(),
            name,
            is_front: false,
            begin: self.at(since),
            end: self.at(since + took),
            attributes,
            failure: None,
        });
    }

    /// All of them, ended now.
    pub fn close(&mut self) -> Vec<Span> {
        self.root.begin = self.at(self.begun.0);
        self.root.end = self.at(Instant::now());
        let mut all = std::mem::take(&mut self.inner);
        all.push(self.root.clone());
        all
    }

    /// Nanoseconds since 1970.
    fn at(&self, moment: Instant) -> u64 {
        let (begun, time) = self.begun;
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = time + moment.saturating_duration_since(begun);
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }
}
