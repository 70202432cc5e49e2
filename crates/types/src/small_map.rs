//! Maps that a hub keeps many of.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Index;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map of few entries, in the order of their keys. It takes what its entries take, where a [`BTreeMap`] takes at least
/// half a kilobyte; with many entries an insertion is slow.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct SmallMap<V = String>(#[schemars(with = "BTreeMap<String, V>")] Vec<(String, V)>);

impl<V> SmallMap<V> {
    /// One without entries.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    /// Whether a key has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_ok()
    }

    /// Gives a key a value; answers the one before.
    pub fn insert(&mut self, key: String, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(place) => self.0.get_mut(place).map(|(_, known)| std::mem::replace(known, value)),
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (key, value));
                None
            }
        }
    }

    /// Takes a key's value away, and answers it.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    /// Keeps what is wanted of it.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&str, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| is_wanted(key, value));
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, V> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> + DoubleEndedIterator {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + DoubleEndedIterator {
        self.0.iter().map(|(_, value)| value)
    }
}

/// The entries of a map.
pub type Iter<'a, V> = std::iter::Map<std::slice::Iter<'a, (String, V)>, fn(&(String, V)) -> (&String, &V)>;

impl<V> Default for SmallMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V, K: Borrow<str> + ?Sized> Index<&K> for SmallMap<V> {
    type Output = V;

    /// # Panics
    /// If the key has no value.
    #[expect(clippy::panic, reason = "as with all maps")]
    fn index(&self, key: &K) -> &V {
        self.get(key.borrow()).unwrap_or_else(|| panic!("no entry of the key `{}`", key.borrow()))
    }
}

impl<V> FromIterator<(String, V)> for SmallMap<V> {
    /// Of entries of one key the last counts.
    fn from_iter<T: IntoIterator<Item = (String, V)>>(entries: T) -> Self {
        Self::from(entries.into_iter().collect::<BTreeMap<_, _>>())
    }
}

impl<V> From<BTreeMap<String, V>> for SmallMap<V> {
    fn from(entries: BTreeMap<String, V>) -> Self {
        let mut exact = Vec::with_capacity(entries.len());
        exact.extend(entries);
        Self(exact)
    }
}

impl<V, const N: usize> From<[(String, V); N]> for SmallMap<V> {
    fn from(entries: [(String, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<V> Extend<(String, V)> for SmallMap<V> {
    fn extend<T: IntoIterator<Item = (String, V)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<V> IntoIterator for SmallMap<V> {
    type Item = (String, V);
    type IntoIter = std::vec::IntoIter<(String, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a SmallMap<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<V: Serialize> Serialize for SmallMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for SmallMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_as_any_other(
            first in proptest::collection::vec(("[a-e]{0,2}", 0..9), 0..12),
            changes in proptest::collection::vec(("[a-e]{0,2}", proptest::option::of(0..9)), 0..12),
        ) {
            let mut expected: BTreeMap<String, i32> = first.iter().cloned().collect();
            let mut map: SmallMap<i32> = first.into_iter().collect();
            for (key, value) in changes {
                prop_assert_eq!(map.get(&key), expected.get(&key));
                prop_assert_eq!(map.contains_key(&key), expected.contains_key(&key));
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key.clone(), value), expected.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), expected.remove(&key)),
                }
                prop_assert!(map.iter().eq(expected.iter()) && map.len() == expected.len());
                prop_assert!(map.keys().eq(expected.keys()) && map.values().eq(expected.values()));
            }
            let text = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&expected).unwrap());
            prop_assert_eq!(&serde_json::from_str::<SmallMap<i32>>(&text).unwrap(), &map);
            map.retain(|_, value| *value % 2 == 0);
            expected.retain(|_, value| *value % 2 == 0);
            prop_assert_eq!(map, SmallMap::from(expected));
        }
    }

    #[test]
    fn what_is_no_map_is_refused_and_the_last_of_two_counts() {
        assert!(serde_json::from_str::<SmallMap>(r#"[["a", "b"]]"#).is_err());
        let map: SmallMap = serde_json::from_str(r#"{"b": "1", "a": "2", "b": "3"}"#).unwrap();
        assert_eq!(
            map,
            SmallMap::from([("a", "2"), ("b", "3")].map(|(key, value)| (key.into(), value.into())))
        );
        assert_eq!(map["b"], "3");
    }
}
