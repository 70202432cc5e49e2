//! `x-kubernetes-validations`.

use avocet_schema::Reason;
use serde_json::{Value, json};

use crate::{compiled, of_spec, said, said_of_change};

fn with_rule(rule: Value) -> avocet_schema::Schema {
    compiled(json!({
        "type": "object", "x-kubernetes-validations": [rule],
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "a-b": {"type": "string"}, "namespace": {"type": "string"},
        },
    }))
}

#[test]
fn a_rule_that_does_not_hold_is_told_with_its_message() {
    let schema = with_rule(json!({"rule": "self.min <= self.max", "message": "min is above max"}));
    assert_eq!(
        said(&schema, json!({"min": 2, "max": 1})),
        ["spec: Invalid value: \"object\": min is above max"]
    );
    assert!(said(&schema, json!({"min": 1, "max": 1})).is_empty());
    let plain = with_rule(json!({"rule": "self.min <= self.max"}));
    assert_eq!(
        said(&plain, json!({"min": 2, "max": 1})),
        ["spec: Invalid value: \"object\": failed rule: self.min <= self.max"]
    );
    let made = with_rule(json!({
        "rule": "self.min <= self.max", "messageExpression": "'at least ' + string(self.min)",
        "fieldPath": ".max", "reason": "FieldValueForbidden",
    }));
    assert_eq!(said(&made, json!({"min": 2, "max": 1})), ["spec.max: Forbidden: at least 2"]);
    let required =
        with_rule(json!({"rule": "has(self.min)", "reason": "FieldValueRequired", "fieldPath": ".min"}));
    let violations = required.validate(&json!({"spec": {}}), None);
    assert_eq!(violations[0].reason, Reason::Required);
    assert_eq!(violations[0].to_string(), "spec.min: Required value: failed rule: has(self.min)");
}

#[test]
fn names_that_are_no_identifiers_are_escaped() {
    let schema = with_rule(json!({"rule": "self.a__dash__b == 'x' && self.__namespace__ == 'y'"}));
    assert!(said(&schema, json!({"a-b": "x", "namespace": "y"})).is_empty());
}

#[test]
fn a_rule_that_fails_is_a_violation() {
    let schema = with_rule(json!({"rule": "self.min <= self.max"}));
    assert_eq!(
        said(&schema, json!({"min": 2})),
        ["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"]
    );
    let mixed = with_rule(json!({"rule": "self.min < 'a'"}));
    assert_eq!(
        said(&mixed, json!({"min": 2})),
        [
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, \
          function or macro signature for rule: self.min < 'a'"
        ]
    );
}

#[test]
fn rules_are_not_checked_on_objects_of_the_wrong_shape() {
    let schema = with_rule(json!({"rule": "self.min <= self.max"}));
    let said = said(&schema, json!({"min": "a", "max": 1}));
    assert_eq!(said.len(), 2);
    assert!(
        said[1].starts_with("<nil>: Invalid value: \"null\": some validation rules were not checked"),
        "{said:?}"
    );
}

#[test]
fn transitions_are_checked_on_updates_only() {
    let immutable = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}]});
    let schema = of_spec(json!({"a": immutable}));
    assert!(said(&schema, json!({"a": "x"})).is_empty());
    assert!(said_of_change(&schema, json!({"a": "x"}), json!({"a": "x"})).is_empty());
    assert!(said_of_change(&schema, json!({"a": "x"}), json!({})).is_empty());
    assert_eq!(
        said_of_change(&schema, json!({"a": "y"}), json!({"a": "x"})),
        ["spec.a: Invalid value: \"string\": Value is immutable"]
    );
    let once = json!({"type": "string", "x-kubernetes-validations": [
        {"rule": "oldSelf.hasValue() || self == 'new'", "optionalOldSelf": true},
    ]});
    let schema = of_spec(json!({"a": once}));
    assert!(said(&schema, json!({"a": "new"})).is_empty());
    assert_eq!(said(&schema, json!({"a": "x"})).len(), 1);
    assert!(said_of_change(&schema, json!({"a": "x"}), json!({"a": "y"})).is_empty());
}

#[test]
fn entries_of_lists_are_matched_by_their_keys() {
    let schema = of_spec(json!({"list": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {
            "name": {"type": "string"},
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "shrinks"}]},
        }},
    }}));
    let old = json!({"list": [{"name": "a", "size": 1}, {"name": "b", "size": 5}]});
    let grown =
        json!({"list": [{"name": "b", "size": 5}, {"name": "c", "size": 0}, {"name": "a", "size": 2}]});
    assert!(said_of_change(&schema, grown, old.clone()).is_empty());
    let shrunk = json!({"list": [{"name": "c", "size": 9}, {"name": "b", "size": 4}]});
    assert_eq!(
        said_of_change(&schema, shrunk, old),
        ["spec.list[1].size: Invalid value: \"integer\": shrinks"]
    );
}

#[test]
fn what_was_wrong_before_and_did_not_change_passes() {
    let schema = of_spec(json!({
        "n": {"type": "integer", "minimum": 5},
        "r": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]},
        "other": {"type": "string"},
    }));
    let old = json!({"n": 1, "r": 1, "other": "a"});
    assert_eq!(said(&schema, old.clone()).len(), 2);
    assert!(said_of_change(&schema, json!({"n": 1, "r": 1, "other": "b"}), old.clone()).is_empty());
    assert_eq!(said_of_change(&schema, json!({"n": 2, "r": 2, "other": "a"}), old).len(), 2);
}

#[test]
fn a_rule_that_costs_too_much_is_cut_short() {
    let rule = "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))";
    let schema = of_spec(json!({"list": {
        "type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": rule}],
    }}));
    let long: Vec<i64> = (0..1000).collect();
    let said = said(&schema, json!({"list": long}));
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("call cost exceeds limit for rule"), "{said:?}");
}

#[test]
fn all_rules_of_an_object_share_a_budget() {
    let rule = "range.all(a, range.all(b, range.all(c, true)))".replace("range", &format!("{:?}", [1; 60]));
    let schema = of_spec(json!({"list": {
        "type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": rule}]},
    }}));
    let said = said(&schema, json!({"list": vec![1; 1000]}));
    let last = said.last().unwrap();
    assert!(last.contains("running out of cost budget"), "{last}");
}
