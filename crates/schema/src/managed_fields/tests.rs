use super::*;
use proptest::prelude::*;
use serde_json::json;

fn now() -> Time {
    Time("2026-01-01T00:00:00Z".parse().unwrap())
}

fn placement(spec: Value) -> Value {
    json!({"apiVersion": types::API_VERSION, "kind": "Placement", "metadata": {"name": "p"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, manager: &str) -> Result<Value, Vec<Conflict>> {
    apply(live, &placement(spec), manager, Part::Main, false, now())
}

#[test]
fn two_clients_state_different_fields_of_one_object() {
    let first = applied(None, json!({"tiers": ["edge"]}), "a").unwrap();
    let both = applied(Some(&first), json!({"numberOfSites": 2}), "b").unwrap();
    assert_eq!(both["spec"], json!({"tiers": ["edge"], "numberOfSites": 2}));
    let gone = applied(Some(&both), json!({}), "a").unwrap();
    assert_eq!(gone["spec"], json!({"numberOfSites": 2}));
}

#[test]
fn a_branch_that_was_taken_over_with_its_fields_stays_while_one_of_them_is_stated() {
    let mut live = placement(json!({"tiers": ["edge"], "numberOfSites": 1}));
    record_update(None, &mut live, "kubectl-client-side-apply", Part::Main, now());
    // What kubectl does when it begins to apply on the server: it hands its fields over.
    live["metadata"]["managedFields"][0]["operation"] = json!("Apply");
    live["metadata"]["managedFields"][0]["manager"] = json!("a");
    assert!(live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["."].is_object());
    let again = applied(Some(&live), json!({"numberOfSites": 2}), "a").unwrap();
    assert_eq!(again["spec"], json!({"numberOfSites": 2}));
}

#[test]
fn another_value_for_a_field_of_somebody_else_is_a_conflict_unless_forced() {
    let first = applied(None, json!({"numberOfSites": 1}), "a").unwrap();
    let conflict = applied(Some(&first), json!({"numberOfSites": 2}), "b").unwrap_err();
    assert_eq!(conflict, [Conflict { manager: "\"a\"".into(), field: ".spec.numberOfSites".into() }]);
    let same = applied(Some(&first), json!({"numberOfSites": 1}), "b").unwrap();
    assert_eq!(same["metadata"]["managedFields"].as_array().unwrap().len(), 2);
    let forced =
        apply(Some(&first), &placement(json!({"numberOfSites": 2})), "b", Part::Main, true, now()).unwrap();
    assert_eq!(forced["spec"]["numberOfSites"], 2);
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[test]
fn an_update_takes_the_fields_that_it_changes() {
    let first = applied(None, json!({"numberOfSites": 1, "tiers": ["edge"]}), "a").unwrap();
    let mut edited = first.clone();
    edited["spec"]["numberOfSites"] = json!(3);
    record_update(Some(&first), &mut edited, "kubectl-edit", Part::Main, now());
    assert!(applied(Some(&edited), json!({"numberOfSites": 1, "tiers": ["edge"]}), "a").is_err());
    assert!(applied(Some(&edited), json!({"tiers": ["cloud"]}), "a").is_ok());
}

#[test]
fn conflicts_name_who_wrote_how_and_which_entry() {
    let one = |model: &str| json!({"components": [{"name": "x", "placement": model}]});
    let mut made = placement(one("p"));
    record_update(None, &mut made, "kubectl-create", Part::Main, now());
    assert_eq!(
        made["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {".": {}, "f:components": {
            ".": {}, "k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:placement": {}},
        }}})
    );
    let conflict = applied(Some(&made), one("q"), "b").unwrap_err();
    let field = ".spec.components[name=\"x\"].placement".to_owned();
    let manager = "\"kubectl-create\" using avocet.dev/v1alpha1".to_owned();
    assert_eq!(conflict, [Conflict { manager, field }]);
}

#[test]
fn clients_may_change_who_states_what() {
    let mut made = placement(json!({"numberOfSites": 1}));
    record_update(None, &mut made, "a", Part::Main, now());
    let mut renamed = made.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("b");
    record_update(Some(&made), &mut renamed, "c", Part::Main, now());
    assert_eq!(renamed["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    assert_eq!(renamed["metadata"]["managedFields"][0]["manager"], "b");
    let mut reset = made.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    record_update(Some(&made), &mut reset, "c", Part::Main, now());
    assert_eq!(reset["metadata"]["managedFields"], json!([]));
}

#[test]
fn entries_of_keyed_lists_are_stated_apart() {
    let one = |name: &str| json!({"components": [{"name": name, "placement": "p", "models": ["m"]}]});
    let first = applied(None, one("x"), "a").unwrap();
    let both = applied(Some(&first), one("y"), "b").unwrap();
    assert_eq!(both["spec"]["components"].as_array().unwrap().len(), 2);
    let gone = applied(Some(&both), json!({}), "a").unwrap();
    assert_eq!(gone["spec"], one("y"));
}

#[test]
fn managed_fields_are_written_as_the_kubernetes_api_writes_them() {
    let first =
        applied(None, json!({"components": [{"name": "x", "inputs": [{"path": "a"}]}]}), "a").unwrap();
    assert_eq!(
        first["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:components": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:inputs": {}}}}})
    );
}

fn spec() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<u8>().prop_map(Value::from), "[a-c]{1,2}".prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop::collection::btree_map("[a-d]", inner, 0..3).prop_map(|map| json!(map))
    })
    .prop_map(|value| if value.is_object() { value } else { json!({"a": value}) })
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(one in spec(), other in spec()) {
        let first = applied(None, one, "a").unwrap();
        let second = apply(Some(&first), &placement(other.clone()), "b", Part::Main, true, now()).unwrap();
        let again = apply(Some(&second), &placement(other), "b", Part::Main, false, now()).unwrap();
        prop_assert_eq!(again, second);
    }

    #[test]
    fn what_was_applied_is_there(one in spec(), other in spec()) {
        let first = applied(None, one, "a").unwrap();
        let second = apply(Some(&first), &placement(other.clone()), "b", Part::Main, true, now()).unwrap();
        let config = placement(other);
        for path in stated_fields(&config, Part::Main).paths() {
            prop_assert!(same(get(&second, &path), get(&config, &path)));
        }
    }
}
