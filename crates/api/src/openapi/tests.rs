use std::collections::BTreeSet;
use std::io::Read;

use axum::body::to_bytes;
use axum::http::HeaderMap;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
};
use flate2::read::GzDecoder;

use super::*;
use crate::wire::{Content, Fields};

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

fn text<'a>(response: &'a Response, name: &HeaderName) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn content(response: Response) -> Vec<u8> {
    to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    for document in v3::documents().values().chain([&*V2]) {
        let mut found = BTreeSet::new();
        references(document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let mut ids = BTreeSet::new();
    let paths = V2["paths"].as_object().unwrap();
    for operation in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
        if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
            assert!(ids.insert(id), "{id}");
        }
    }
}

#[test]
fn every_kind_is_defined_with_descriptions() {
    for info in types::kinds() {
        let definition = &V2["definitions"][schemas::name(info)];
        assert_eq!(definition["x-kubernetes-group-version-kind"][0]["kind"], info.kind);
        for (name, field) in definition["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{}.{name}", info.kind);
        }
    }
    assert_eq!(schemas::name(types::kind_named("role").unwrap()), "io.k8s.api.rbac.v1.Role");
    assert_eq!(schemas::name(types::kind_named("placement").unwrap()), "dev.avocet.v1alpha1.Placement");
}

#[tokio::test]
async fn who_has_the_document_is_not_sent_it_again() {
    let first = all(headers(&[])).await;
    let tag = text(&first, &ETAG).to_owned();
    assert!(tag.len() > 10 && first.status() == 200);
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let second = all(headers(&[(IF_NONE_MATCH, &known)])).await;
        assert_eq!((second.status().as_u16(), text(&second, &ETAG)), (304, tag.as_str()));
        assert!(content(second).await.is_empty());
    }
    assert_eq!(all(headers(&[(IF_NONE_MATCH, "\"other\"")])).await.status(), 200);
}

#[tokio::test]
async fn the_document_comes_compressed_where_that_is_taken() {
    let plain = content(all(headers(&[])).await).await;
    let compressed = all(headers(&[(ACCEPT_ENCODING, "br, gzip;q=0.8")])).await;
    assert_eq!(text(&compressed, &CONTENT_ENCODING), "gzip");
    let mut unpacked = Vec::new();
    GzDecoder::new(content(compressed).await.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let refused = all(headers(&[(ACCEPT_ENCODING, "gzip;q=0")])).await;
    assert_eq!(text(&refused, &CONTENT_ENCODING), "");
}

#[tokio::test]
async fn a_group_is_kept_for_good_under_the_hash_of_its_content() {
    let Json(index) = index().await;
    let address = index["paths"]["apis/avocet.dev/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    let (path, hash) = address.strip_prefix("/openapi/v3/").unwrap().split_once("?hash=").unwrap();
    let ask =
        async |hash: &str| group(Path(path.into()), Query(Wanted { hash: hash.into() }), headers(&[])).await;
    let known = ask(hash).await.unwrap();
    assert!(known.status() == 200 && text(&known, &CACHE_CONTROL).contains("immutable"));
    let unnamed = ask("").await.unwrap();
    assert!(unnamed.status() == 200 && text(&unnamed, &CACHE_CONTROL).contains("no-cache"));
    let other = ask("OLD").await.unwrap();
    assert_eq!((other.status().as_u16(), text(&other, &LOCATION)), (301, address));
    let missing =
        group(Path("apis/other/v1".into()), Query(Wanted { hash: String::new() }), headers(&[])).await;
    assert_eq!(missing.unwrap_err().code, 404);
}

/// The content of a field that occurs once.
fn field(message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut fields = Fields::of(message);
    let mut found = Vec::new();
    while let Some((number, content)) = fields.next().unwrap() {
        if let (true, Content::Bytes(bytes)) = (number == wanted, content) {
            found.push(bytes);
        }
    }
    found
}

#[tokio::test]
async fn older_clients_get_the_same_as_protobuf() {
    let answer = all(headers(&[(ACCEPT, GNOSTIC)])).await;
    assert_eq!(text(&answer, &CONTENT_TYPE), GNOSTIC_ANSWER);
    let bytes = content(answer).await;
    assert_eq!(field(&bytes, 1), [b"2.0"]);
    let definitions = field(field(&bytes, 9)[0], 1);
    assert_eq!(definitions.len(), V2["definitions"].as_object().unwrap().len());
    let of = |name: &str| {
        let named = definitions.iter().find(|entry| field(entry, 1) == [name.as_bytes()]);
        field(named.unwrap(), 2)[0]
    };
    let placement = of("dev.avocet.v1alpha1.Placement");
    assert_eq!(field(placement, 19), [b"spec"]);
    let extension = field(placement, 31)[0];
    assert_eq!(field(extension, 1), [b"x-kubernetes-group-version-kind"]);
    let yaml: Value = serde_json::from_slice(field(field(extension, 2)[0], 2)[0]).unwrap();
    assert_eq!(yaml, V2["definitions"]["dev.avocet.v1alpha1.Placement"]["x-kubernetes-group-version-kind"]);
    assert_eq!(field(field(&bytes, 8)[0], 2).len(), V2["paths"].as_object().unwrap().len());
    let json = all(headers(&[(ACCEPT, "application/json, */*")])).await;
    assert_eq!(text(&json, &CONTENT_TYPE), "application/json");
}
