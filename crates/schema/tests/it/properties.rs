//! What holds whatever is sent.

use std::sync::LazyLock;

use avocet_schema::{Schema, cel, duplicate_fields};
use proptest::prelude::*;
use serde_json::{Map, Value};

static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    types::kinds().iter().map(|info| Schema::compile(&types::structural_schema(info)).unwrap()).collect()
});

/// Names that our kinds know, so that arbitrary objects get past the first field.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "name",
        "components",
        "versions",
        "artifact",
        "digest",
        "path",
        "tier",
        "taints",
        "key",
        "value",
        "effect",
        "siteSelector",
        "matchExpressions",
        "operator",
        "values",
        "near",
        "site",
        "numberOfSites",
        "placement",
        "function",
        "models",
        "inputs",
        "outputs",
        "memory",
        "runtime",
        "environment",
        "conditions",
        "type",
        "defaultVersion",
        "handler",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,4}"]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["edge", "In", "Exists", "a/b", "python", "1Gi", "1"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 96, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            3 => prop::collection::vec((name(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn expression() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "self",
        ".",
        "a",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "&&",
        "||",
        "==",
        "<",
        "in",
        " ",
        "1",
        "2u",
        "0.5",
        "'x'",
        "null",
        "true",
        "all(",
        "map(",
        "exists(",
        "x,",
        "x",
        "size(",
        "has(",
        "matches('",
        "split(",
        "substring(",
        "replace(",
        "quantity(",
        "optional.of(",
        ".?",
        "[?",
        "\\",
        "é",
        "9223372036854775808",
    ]);
    prop_oneof![
        4 => prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),
        1 => ".{0,60}",
    ]
}

proptest! {
    #[test]
    fn nothing_makes_a_schema_of_ours_panic(new in json(), old in json(), kind in 0usize..7) {
        let schema = &SCHEMAS[kind];
        let _ = schema.validate(&new, None);
        let _ = schema.validate(&new, Some(&old));
    }

    #[test]
    fn pruning_and_defaulting_twice_is_doing_it_once(object in json(), kind in 0usize..7) {
        let schema = &SCHEMAS[kind];
        let mut once = object;
        schema.prune(&mut once);
        let mut twice = once.clone();
        prop_assert!(schema.prune(&mut twice).is_empty());
        prop_assert_eq!(&twice, &once);
        schema.apply_defaults(&mut once);
        let mut twice = once.clone();
        schema.apply_defaults(&mut twice);
        prop_assert_eq!(&twice, &once);
        prop_assert!(schema.prune(&mut twice).is_empty());
    }

    #[test]
    fn what_is_valid_stays_valid(spec in json(), kind in 0usize..7) {
        let schema = &SCHEMAS[kind];
        let mut object = serde_json::json!({"spec": spec});
        if schema.validate(&object, None).is_empty() {
            schema.prune(&mut object);
            schema.apply_defaults(&mut object);
            prop_assert_eq!(schema.validate(&object, None), []);
        }
    }

    #[test]
    fn no_text_makes_the_expression_language_panic(source in expression(), value in json()) {
        if let Ok(expression) = cel::Expression::compile(&source, &["self", "a", "x"]) {
            let mut budget = 10_000;
            let _ = expression.evaluate(&[("self", (&value).into())], &mut budget);
        }
    }

    #[test]
    fn no_bytes_make_the_search_for_duplicates_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), object in json()) {
        let _ = duplicate_fields(&bytes);
        prop_assert_eq!(duplicate_fields(object.to_string().as_bytes()).unwrap(), Vec::<String>::new());
    }
}
