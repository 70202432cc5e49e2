//! Entry points for fuzzers: each hands bytes to the parsers of one sort of input, and looks at nothing but that they
//! come back. See `fuzz/` at the top of the repository.

use std::collections::HashMap;

use schema::managed_fields::{self, Part};
use serde_json::Value;
use store::{Key, Object};

use crate::filter::Filter;
use crate::pages::Pages;
use crate::target::Target;
use crate::{patch, protobuf};

/// Label and field selectors.
pub fn selectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let manifest = serde_json::json!({"metadata": {"labels": {"a": "b"}}, "type": "Opaque"});
    let Ok(object) = Object::uncreated(Key::new("secrets", "default", "a"), manifest, daemon::now()) else {
        return;
    };
    for parameter in ["labelSelector", "fieldSelector"] {
        let query = HashMap::from([(parameter.to_owned(), text.to_owned())]);
        for info in types::kinds() {
            if let Ok(filter) = Filter::parse(info, "default", &query) {
                let _ = filter.passes(&object);
            }
        }
    }
}

/// Patches: the first line of the input is the object, the rest the patch.
pub fn patches(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut read = || serde_json::from_slice::<Value>(lines.next()?).ok();
    let (Some(object), Some(change)) = (read(), read()) else { return };
    let _ = patch::apply_json_patch(&mut object.clone(), &change);
    let _ = patch::apply_strategic(&mut object.clone(), &change);
    json_patch::merge(&mut object.clone(), &change);
    let now = daemon::now();
    if let Ok(applied) = managed_fields::apply(Some(&object), &change, "fuzzer", Part::Main, true, now) {
        let _ = managed_fields::apply(Some(&applied), &object, "other", Part::All, false, now);
        managed_fields::record_update(Some(&object), &mut applied.clone(), "third", Part::Status, now);
    }
}

/// Paths, continue tokens and protobuf bodies.
pub fn requests(bytes: &[u8]) {
    let _ = protobuf::read(bytes);
    let _ = protobuf::read(&[b"k8s\0", bytes].concat());
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (group, version) in [("", "v1"), (types::GROUP, types::VERSION), ("rbac.authorization.k8s.io", "v1")]
    {
        let _ = Target::parse(group, version, text);
    }
    let _ = Pages::default().go_on("question", text, 1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn promise_6_no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            super::selectors(&bytes);
            super::patches(&bytes);
            super::requests(&bytes);
        }

        #[test]
        fn promise_6_no_patch_of_any_object_makes_one_panic(
            object in crate::patch::tests::json(), change in crate::patch::tests::json(),
        ) {
            super::patches(format!("{object}\n{change}").as_bytes());
        }
    }
}
