//! Listing a bucket in the order of keys, with what lies below a delimiter rolled up, as S3 does.

use store::ledger::Tables;

use crate::records::{self, OBJECTS, ObjectRecord};
use crate::{Error, Info};

/// What to list.
#[derive(Debug, Clone)]
pub struct List {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that contain this after the prefix are rolled up into one common prefix; empty for none.
    pub delimiter: String,
    /// Only what comes after this key or common prefix.
    pub after: String,
    /// How many keys and common prefixes at most; 1000 are never exceeded.
    pub limit: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { prefix: String::new(), delimiter: String::new(), after: String::new(), limit: LARGEST_PAGE }
    }
}

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Objects by ascending key (by bytes).
    pub objects: Vec<Info>,
    /// Prefixes that others were rolled up into, in ascending order.
    pub common_prefixes: Vec<String>,
    /// From where to go on, as [`List::after`]; `None` at the end.
    pub next: Option<String>,
}

const LARGEST_PAGE: usize = 1000;
/// How many records are read at first where most may turn out to be rolled up.
const SMALLEST_BATCH: usize = 32;

pub(crate) fn list(tables: &Tables, bucket: &str, list: &List) -> Result<Page, Error> {
    records::bucket(tables, bucket)?;
    let limit = list.limit.min(LARGEST_PAGE);
    let mut page = Page::default();
    if limit == 0 {
        return Ok(page);
    }
    let within = records::object_key(bucket, &list.prefix);
    let mut cursor = start(list);
    let mut last = String::new();
    let mut batch = if list.delimiter.is_empty() { limit + 1 } else { SMALLEST_BATCH };
    loop {
        let rows: Vec<(String, ObjectRecord)> =
            tables.range(OBJECTS, &within, &records::object_key(bucket, &cursor), batch)?;
        let ended = rows.len() < batch;
        let mut rolled_up = None;
        for (_, ObjectRecord { info, .. }) in rows {
            let common = common_prefix(&info.key, list);
            if rolled_up.is_some() && rolled_up == common.map(str::to_owned) {
                continue;
            }
            if page.objects.len() + page.common_prefixes.len() == limit {
                page.next = Some(last);
                return Ok(page);
            }
            rolled_up = common.map(str::to_owned);
            if let Some(common) = common {
                common.clone_into(&mut last);
                page.common_prefixes.push(last.clone());
                cursor = beyond(common);
            } else {
                last.clone_from(&info.key);
                cursor.clone_from(&info.key);
                page.objects.push(info);
            }
        }
        if ended {
            return Ok(page);
        }
        batch = if rolled_up.is_some() { SMALLEST_BATCH } else { (batch * 2).min(LARGEST_PAGE + 1) };
    }
}

/// After the end of a common prefix come the keys that no longer begin with it.
fn start(list: &List) -> String {
    let rolled_up =
        list.after.starts_with(&list.prefix) && common_prefix(&list.after, list) == Some(&list.after);
    if rolled_up { beyond(&list.after) } else { list.after.clone() }
}

/// Sorts after every key with the prefix: no key contains U+10FFFF.
fn beyond(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

fn common_prefix<'k>(key: &'k str, list: &List) -> Option<&'k str> {
    if list.delimiter.is_empty() {
        return None;
    }
    let rest = key.get(list.prefix.len()..)?;
    let end = list.prefix.len() + rest.find(&list.delimiter)? + list.delimiter.len();
    key.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::BlobId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use store::Ledger;
    use types::{Digest, Time};

    fn record(bucket: &str, key: &str) -> ObjectRecord {
        let info = Info {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size: 0,
            etag: String::new(),
            digest: Digest::of(b""),
            last_modified: Time("2026-01-01T00:00:00Z".parse().unwrap()),
            content_type: None,
            metadata: std::collections::BTreeMap::new(),
            sequence: 1,
        };
        ObjectRecord { blob: BlobId::parse(&"0".repeat(32)).unwrap(), info }
    }

    fn ledger_of(keys: &BTreeSet<String>) -> Ledger {
        let ledger = Ledger::memory().unwrap();
        let keys = keys.clone();
        let written = ledger.write(move |tables| {
            for bucket in ["bucket", "bucket-2", "buckets"] {
                records::create_bucket(tables, bucket, Time("2026-01-01T00:00:00Z".parse().unwrap()))?;
                for key in &keys {
                    tables.put(OBJECTS, &records::object_key(bucket, key), &record(bucket, key))?;
                }
            }
            Ok::<_, Error>(())
        });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(written).unwrap();
        ledger
    }

    /// The same by definition: filter, roll up, cut.
    fn model(keys: &BTreeSet<String>, list: &List) -> (Vec<String>, Vec<String>, Option<String>) {
        let (mut objects, mut prefixes, mut last) = (Vec::new(), Vec::<String>::new(), None);
        for key in keys.iter().filter(|key| key.starts_with(&list.prefix) && **key > list.after) {
            let rest = &key[list.prefix.len()..];
            let end = if list.delimiter.is_empty() { None } else { rest.find(&list.delimiter) };
            let common = end.map(|end| key[..list.prefix.len() + end + list.delimiter.len()].to_owned());
            if common.is_some()
                && (common.as_ref() == prefixes.last() || common.as_ref() == Some(&list.after))
            {
                continue;
            }
            if objects.len() + prefixes.len() == list.limit {
                return (objects, prefixes, last);
            }
            last = Some(common.clone().unwrap_or_else(|| key.clone()));
            match common {
                Some(common) => prefixes.push(common),
                None => objects.push(key.clone()),
            }
        }
        (objects, prefixes, None)
    }

    fn keys_of(page: &Page) -> Vec<String> {
        page.objects.iter().map(|info| info.key.clone()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_page_is_what_the_definition_says_and_pages_add_up(
            keys in prop::collection::btree_set("[ab/é]{1,5}", 0..120),
            prefix in "[ab/é]{0,2}",
            delimiter in prop::sample::select(vec!["", "/", "a", "b/", "é"]),
            after in "[ab/é]{0,3}",
            limit in 1..12_usize,
        ) {
            let ledger = ledger_of(&keys);
            let mut list = List { prefix, delimiter: delimiter.to_owned(), after, limit };
            let all = model(&keys, &List { limit: usize::MAX, ..list.clone() });
            let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
            loop {
                let page = ledger.read(|tables| super::list(tables, "bucket", &list)).unwrap();
                prop_assert_eq!((keys_of(&page), page.common_prefixes.clone(), page.next.clone()), model(&keys, &list));
                objects.extend(keys_of(&page));
                prefixes.extend(page.common_prefixes);
                match page.next {
                    Some(next) => list.after = next,
                    None => break,
                }
            }
            prop_assert_eq!((objects, prefixes), (all.0, all.1));
        }
    }

    #[test]
    fn many_keys_below_one_prefix_are_passed_over() {
        let mut keys: BTreeSet<String> = (0..5000).map(|n| format!("a/{n:05}")).collect();
        keys.extend(["a".to_owned(), "b".to_owned()]);
        let ledger = ledger_of(&keys);
        let list = List { delimiter: "/".to_owned(), ..List::default() };
        let page = ledger.read(|tables| super::list(tables, "bucket", &list)).unwrap();
        assert_eq!((keys_of(&page), page.common_prefixes), (vec!["a".into(), "b".into()], vec!["a/".into()]));
    }

    #[test]
    fn a_list_of_no_bucket_says_so() {
        let listed = Ledger::memory().unwrap().read(|tables| super::list(tables, "none", &List::default()));
        assert!(matches!(listed, Err(Error::NoSuchBucket(_))));
    }
}
