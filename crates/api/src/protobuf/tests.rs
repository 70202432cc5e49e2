use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MAGIC, messages, read};
use crate::wire::{write_bytes, write_number};

/// A message of fields that are texts, bytes or messages.
fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, bytes) in fields {
        write_bytes(&mut message, *number, bytes);
    }
    message
}

fn numbers(fields: &[(u64, i64)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, value) in fields {
        write_number(&mut message, *number, value.cast_unsigned());
    }
    message
}

fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let names = message(&[(1, version.as_bytes()), (2, kind.as_bytes())]);
    [MAGIC, &message(&[(1, &names), (2, raw), (3, b""), (4, b"")])].concat()
}

fn read_as(version: &str, kind: &str, raw: &[u8]) -> Value {
    read(&body(version, kind, raw)).unwrap()
}

#[test]
fn what_senders_write_although_it_is_empty_is_left_out() {
    let label = message(&[(1, b"team"), (2, b"")]);
    let metadata = [
        message(&[(1, b"a"), (2, b""), (3, b"here"), (4, b""), (5, b""), (6, b"")]),
        numbers(&[(7, 0)]),
        message(&[(8, b""), (11, &label)]),
    ]
    .concat();
    let entries = [message(&[(1, b"k"), (2, b"v")]), message(&[(1, b"empty")])];
    let bytes = message(&[(1, b"b"), (2, &[0, 255])]);
    let raw = message(&[(1, &metadata), (2, &entries[0]), (2, &entries[1]), (3, &bytes)]);
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "here", "labels": {"team": ""}},
        "data": {"k": "v", "empty": ""}, "binaryData": {"b": "AP8="},
    });
    assert_eq!(read_as("v1", "ConfigMap", &raw), expected);
}

#[test]
fn what_was_set_to_nothing_is_kept_where_json_keeps_it() {
    let raw = [message(&[(1, b"")]), numbers(&[(4, 0)])].concat();
    assert_eq!(read_as("v1", "ServiceAccount", &raw)["automountServiceAccountToken"], false);
    let spec = [message(&[(1, b"")]), numbers(&[(2, 15), (5, 0)])].concat();
    let lease = read_as("coordination.k8s.io/v1", "Lease", &message(&[(2, &spec)]));
    let expected = json!({"holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 0});
    assert_eq!(lease["spec"], expected);
    let rule = message(&[(1, b"get"), (2, b""), (3, b"secrets")]);
    let role = read_as("rbac.authorization.k8s.io/v1", "Role", &message(&[(2, &rule)]));
    assert_eq!(role["rules"], json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]));
}

#[test]
fn times_are_to_the_second_or_the_microsecond() {
    let time = numbers(&[(1, 1_700_000_000), (2, 123_456_789)]);
    let event = read_as("v1", "Event", &message(&[(6, &time), (7, b""), (10, &time)]));
    assert_eq!(event["firstTimestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(event.get("lastTimestamp"), None);
    assert_eq!(event["eventTime"], "2023-11-14T22:13:20.123456Z");
    let early = numbers(&[(1, -1)]);
    let event = read_as("v1", "Event", &message(&[(6, &early)]));
    assert_eq!(event["firstTimestamp"], "1969-12-31T23:59:59Z");
}

#[test]
fn managed_fields_are_json_within() {
    let fields = message(&[(1, br#"{"f:data":{}}"#)]);
    let entry = message(&[(1, b"kubectl"), (2, b"Update"), (3, b"v1"), (6, b"FieldsV1"), (7, &fields)]);
    let raw = message(&[(1, &message(&[(17, &entry)]))]);
    let expected = json!([{
        "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {}},
    }]);
    assert_eq!(read_as("v1", "Secret", &raw)["metadata"]["managedFields"], expected);
}

#[test]
fn who_asks_for_a_certificate_keeps_their_extras() {
    let extra = message(&[(1, b"scopes"), (2, &message(&[(1, b"a"), (1, b"b")]))]);
    let spec = message(&[(1, b"PEM"), (6, &extra), (7, b"signer"), (5, b"client auth")]);
    let request = read_as("certificates.k8s.io/v1", "CertificateSigningRequest", &message(&[(2, &spec)]));
    let expected = json!({
        "request": "UEVN", "extra": {"scopes": ["a", "b"]}, "signerName": "signer", "usages": ["client auth"],
    });
    assert_eq!(request["spec"], expected);
}

#[test]
fn options_of_deletions_come_in_any_version() {
    let raw = [numbers(&[(1, 0)]), message(&[(4, b"Foreground"), (5, b"All")])].concat();
    for version in ["v1", "meta.k8s.io/v1", "rbac.authorization.k8s.io/v1"] {
        let options = read_as(version, "DeleteOptions", &raw);
        assert_eq!(options["gracePeriodSeconds"], 0);
        assert_eq!(options["propagationPolicy"], "Foreground");
        assert_eq!(options["dryRun"], json!(["All"]));
    }
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let raw = [message(&[(1, &message(&[(1, b"a")])), (99, b"x")]), numbers(&[(100, 7)])].concat();
    let object = read_as("v1", "Namespace", &raw);
    assert_eq!(object, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
}

#[test]
fn what_is_no_message_is_refused_with_a_reason() {
    let refusal = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert!(refusal(b"{}").contains("does not appear to be a protobuf message"));
    assert!(refusal(&body("v1", "Pod", b"")).contains("no kind \"Pod\" is registered"));
    assert_eq!(refusal(&body("v1", "Secret", &[0x0a, 5, 1])), "unexpected EOF");
    assert_eq!(refusal(&body("v1", "Secret", &[0x08, 5])), "proto: wrong wireType");
    assert_eq!(refusal(&body("v1", "Secret", &[0x02, 0])), "proto: illegal tag 0");
    assert_eq!(refusal(&body("v1", "Secret", &[0xff; 11])), "proto: integer overflow");
    let latin = message(&[(1, &message(&[(1, &[0xe9])]))]);
    assert!(refusal(&body("v1", "Secret", &latin)).contains("not UTF-8"));
    let late = message(&[(6, &numbers(&[(1, i64::MAX)]))]);
    assert!(refusal(&body("v1", "Event", &late)).contains("out of range"));
    let empty_rules = message(&[(2, b"")]).repeat(super::MOST_VALUES + 1);
    assert!(refusal(&body("rbac.authorization.k8s.io/v1", "Role", &empty_rules)).contains("values"));
}

#[test]
fn no_message_has_a_number_or_a_name_twice() {
    fn check(message: messages::Message, kind: &str) {
        for (index, field) in message.iter().enumerate() {
            let rest = &message[index + 1..];
            let is_single = rest.iter().all(|other| other.number != field.number && other.name != field.name);
            assert!(is_single, "{kind}.{}", field.name);
            if let messages::Kind::Message(inner) = field.kind {
                check(inner, field.name);
            }
        }
    }
    for (_, kind, message) in messages::MESSAGES {
        check(message, kind);
    }
}

/// Bytes that are often messages of messages.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        (1..18_u64, any::<i64>()).prop_map(|field| numbers(&[field])),
    ];
    leaf.prop_recursive(5, 64, 4, |inner| {
        prop::collection::vec((1..18_u64, inner), 0..4).prop_map(|fields| {
            let fields: Vec<(u64, &[u8])> =
                fields.iter().map(|(number, bytes)| (*number, &**bytes)).collect();
            message(&fields)
        })
    })
}

proptest! {
    #[test]
    fn promise_6_no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        raw in wire(),
        index in 0..messages::MESSAGES.len(),
    ) {
        let (version, kind, _) = messages::MESSAGES[index];
        let _ = read(&bytes);
        let _ = read(&[MAGIC, &bytes].concat());
        let _ = read(&body(version, kind, &bytes));
        let _ = read(&body(version, kind, &raw));
    }
}
