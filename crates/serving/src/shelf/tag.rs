//! One tag and its versions: plain state and the rules of their numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{Digest, Time};

/// An uploaded model: versions that never change, one of which is the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// The number of the latest version that there ever was.
    last: u32,
    default: u32,
    versions: BTreeMap<u32, Version>,
}

/// One uploaded file and what was said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// The name that the file had where it came from.
    pub file: String,
    /// The library that made it, as the uploader says.
    pub library: String,
    pub description: Option<String>,
    /// When it was uploaded.
    pub time: Time,
}

impl Tag {
    /// The version that answers where none is named.
    pub fn default_version(&self) -> u32 {
        self.default
    }

    /// All versions by number.
    pub fn versions(&self) -> &BTreeMap<u32, Version> {
        &self.versions
    }

    /// The version of this number.
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions.get(&number)
    }

    /// The number that the next version gets: one that no version of this tag ever had.
    pub(super) fn next(&self) -> u32 {
        self.last.saturating_add(1)
    }

    /// Adds a version, which is the default at once; answers its number.
    pub(super) fn add(&mut self, version: Version) -> u32 {
        let number = self.next();
        self.versions.insert(number, version);
        (self.last, self.default) = (number, number);
        number
    }

    /// Removes a version; the greatest of the others becomes the default if it was that.
    pub(super) fn remove(&mut self, number: u32) -> Option<Version> {
        let removed = self.versions.remove(&number)?;
        if self.default == number {
            self.default = self.versions.keys().next_back().copied().unwrap_or_default();
        }
        Some(removed)
    }

    /// Makes a version the default; answers whether it is there.
    pub(super) fn set_default(&mut self, number: u32) -> bool {
        let there = self.versions.contains_key(&number);
        if there {
            self.default = number;
        }
        there
    }

    /// Describes a version anew; answers whether it is there.
    pub(super) fn describe(&mut self, number: u32, description: String) -> bool {
        let version = self.versions.get_mut(&number);
        version.map(|version| version.description = Some(description)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn version() -> Version {
        Version {
            digest: Digest::of(b""),
            size: 0,
            file: "m.onnx".into(),
            library: "onnx".into(),
            description: None,
            time: daemon::now(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add,
        Remove(u32),
        Default(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Add),
            2 => (0_u32..12).prop_map(Step::Remove),
            1 => (0_u32..12).prop_map(Step::Default),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn numbers_grow_by_one_and_are_never_given_twice(steps in steps()) {
            let (mut tag, mut given) = (Tag::default(), Vec::new());
            let mut there = BTreeSet::new();
            for step in steps {
                let before = tag.clone();
                match step {
                    Step::Add => {
                        let number = tag.add(version());
                        given.push(number);
                        there.insert(number);
                        prop_assert_eq!(tag.default_version(), number);
                    }
                    Step::Remove(number) => {
                        prop_assert_eq!(tag.remove(number).is_some(), there.remove(&number));
                    }
                    Step::Default(number) => {
                        prop_assert_eq!(tag.set_default(number), there.contains(&number));
                        if !there.contains(&number) {
                            prop_assert_eq!(&tag, &before);
                        }
                    }
                }
                let numbers: BTreeSet<u32> = tag.versions().keys().copied().collect();
                prop_assert_eq!(&numbers, &there);
                prop_assert!(there.is_empty() || there.contains(&tag.default_version()), "{:?}", tag);
                let kept: Tag = serde_json::from_str(&serde_json::to_string(&tag).unwrap()).unwrap();
                prop_assert_eq!(kept.next(), tag.next());
            }
            let expected: Vec<u32> = (1..).take(given.len()).collect();
            prop_assert_eq!(given, expected);
        }
    }
}
