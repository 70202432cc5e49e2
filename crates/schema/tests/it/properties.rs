//! What holds whatever is sent.

use std::sync::LazyLock;

use avocet_schema::{Schema, cel, duplicate_fields};
use proptest::prelude::*;
use serde_json::{Map, Value};

static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    types::kinds().map(|info| Schema::compile(&types::structural_schema(info)).unwrap()).collect()
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
        "timestamp(",
        "duration(",
        "-1h.5s",
        "url(",
        "cidr(",
        "1.2.3.4/8",
        "format(",
        "%.3f",
        "parseJSON(",
        "b'",
        "indexOf(",
        "getHours(",
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

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A value that a schema is likely to take, with unknown fields now and then.
fn likely(schema: &Value, name: &str, dice: &mut Dice) -> Value {
    if let Some(choices) = schema["enum"].as_array() {
        return choices[dice.below(choices.len() as u64) as usize].clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        let is_portion = schema["pattern"].as_str().is_some_and(|pattern| pattern.ends_with("%$"));
        return if is_portion && dice.below(2) == 0 { "25%".into() } else { Value::from(1 + dice.below(50)) };
    }
    match schema["type"].as_str().unwrap() {
        "boolean" => Value::from(dice.below(2) == 0),
        "integer" | "number" => Value::from(1 + dice.below(50)),
        "string" => Value::from(match name {
            "digest" => format!("sha256:{}", "0".repeat(64)),
            "path" => "photos/in".into(),
            "url" => "http://a/b".into(),
            "memory" => format!("{}Mi", dice.below(64)),
            "lastTransitionTime" | "succeeded" | "started" | "since" => "2024-01-01T00:00:00Z".into(),
            "start" => "22:00".into(),
            "duration" | "minSuccessTime" | "progressDeadline" => format!("{}m", 1 + dice.below(50)),
            _ => format!("a{}", dice.below(3)),
        }),
        "array" => {
            let count = 1 + dice.below(2);
            (0..count).map(|_| likely(&schema["items"], name, dice)).collect()
        }
        _ => {
            let mut fields = Map::new();
            for (name, child) in schema["properties"].as_object().into_iter().flatten() {
                let is_required = schema["required"]
                    .as_array()
                    .is_some_and(|names| names.contains(&Value::from(name.as_str())));
                if is_required || dice.below(2) == 0 {
                    fields.insert(name.clone(), likely(child, name, dice));
                } else if dice.below(50) == 0 {
                    fields.insert(name.clone(), Value::Null);
                }
            }
            // A model has either; with versions, more of what else is said makes sense.
            let choices = ["ensemble", "versions"].map(|name| schema["properties"].get(name));
            if let [Some(_), Some(versions)] = choices
                && dice.below(8) > 0
            {
                fields.remove("ensemble");
                fields.insert("versions".into(), likely(versions, "versions", dice));
            }
            if dice.below(8) == 0 {
                fields.insert("unknown".into(), Value::from(1));
            }
            Value::Object(fields)
        }
    }
}

#[test]
fn what_is_valid_stays_valid_when_it_is_pruned_and_defaulted() {
    let mut dice = Dice(7);
    for (info, schema) in types::kinds().zip(SCHEMAS.iter()) {
        let openapi = types::structural_schema(info);
        let mut valid = 0;
        for _ in 0..500 {
            let mut object = likely(&openapi, "", &mut dice);
            if !schema.validate(&object, None).is_empty() {
                continue;
            }
            valid += 1;
            schema.prune(&mut object);
            schema.apply_defaults(&mut object);
            assert_eq!(schema.validate(&object, None), [], "{object}");
            assert_eq!(schema.validate(&object, Some(&object)), [], "{object}");
        }
        assert!(valid >= 10, "{}: {valid} of 500", info.kind);
    }
}
