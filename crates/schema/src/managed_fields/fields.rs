//! Sets of fields, as `FieldsV1` writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One step of a path: `f:name` or `k:{"key":"value"}`.
pub type Step = String;
/// From the root of an object to a field.
pub type Path = Vec<Step>;

/// The fields that a client states, as a tree. No branch of it is without any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether this place itself is stated: a leaf, an entry of a keyed list, or a branch that the client made.
    pub own: bool,
    /// What is stated below.
    pub below: BTreeMap<Step, Fields>,
}

impl Fields {
    /// One place, with nothing below.
    pub fn leaf() -> Self {
        Self { own: true, below: BTreeMap::new() }
    }

    /// What a tree says; what is no tree says nothing.
    pub fn read(tree: &Value) -> Self {
        let mut fields = Self::default();
        for (step, child) in tree.as_object().into_iter().flatten() {
            match child.as_object() {
                _ if step == "." => fields.own = true,
                Some(children) if children.is_empty() => fields.put(step.clone(), Self::leaf()),
                _ => fields.put(step.clone(), Self::read(child)),
            }
        }
        fields
    }

    /// The tree.
    pub fn write(&self) -> Value {
        let own = (self.own && !self.below.is_empty()).then(|| (".".to_owned(), Value::Object(Map::new())));
        let below = self.below.iter().map(|(step, fields)| (step.clone(), fields.write()));
        Value::Object(own.into_iter().chain(below).collect())
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        !self.own && self.below.is_empty()
    }

    /// Puts fields below, unless there are none.
    pub fn put(&mut self, step: Step, fields: Fields) {
        if !fields.is_empty() {
            self.below.insert(step, fields);
        }
    }

    /// Adds other fields to these.
    pub fn add(&mut self, others: &Fields) {
        self.own |= others.own;
        for (step, fields) in &others.below {
            match self.below.get_mut(step) {
                Some(known) => known.add(fields),
                None => self.put(step.clone(), fields.clone()),
            }
        }
    }

    /// The same without branches; entries of keyed lists stay beside their fields.
    pub fn leaves(mut self) -> Self {
        for (step, fields) in &mut self.below {
            let leaves = std::mem::take(fields).leaves();
            let is_branch = !leaves.below.is_empty() && !step.starts_with("k:");
            *fields = Self { own: leaves.own && !is_branch, ..leaves };
        }
        self
    }

    /// What is stated at a place and below; `None` if nothing is.
    pub fn at(&self, path: &[Step]) -> Option<&Fields> {
        path.iter().try_fold(self, |fields, step| fields.below.get(step))
    }

    /// Whether a place itself is stated.
    pub fn has(&self, path: &[Step]) -> bool {
        self.at(path).is_some_and(|fields| fields.own)
    }

    /// States a place no more; what is below stays.
    pub fn remove(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else {
            self.own = false;
            return;
        };
        if let Some(fields) = self.below.get_mut(first) {
            fields.remove(rest);
            if fields.is_empty() {
                self.below.remove(first);
            }
        }
    }

    /// All that is stated, each branch before what is below it.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.walk(&mut Vec::new(), &mut paths);
        paths
    }

    fn walk(&self, path: &mut Path, paths: &mut Vec<Path>) {
        if self.own {
            paths.push(path.clone());
        }
        for (step, fields) in &self.below {
            path.push(step.clone());
            fields.walk(path, paths);
            path.pop();
        }
    }
}
