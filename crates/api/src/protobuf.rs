//! The few Kubernetes messages that kubectl sends as protobuf, whatever the server says it prefers.
//!
//! Field numbers are those of `k8s.io/apimachinery/pkg/runtime/generated.proto` and
//! `k8s.io/api/authorization/v1/generated.proto`.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use prost::Message;
use serde_json::{Value, json};

use crate::ApiError;

const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

#[derive(Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Message)]
struct TypeMeta {
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Message)]
struct AccessReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<AccessReviewSpec>,
}

#[derive(Message)]
struct AccessReviewSpec {
    #[prost(message, optional, tag = "1")]
    resource_attributes: Option<ResourceAttributes>,
    #[prost(message, optional, tag = "2")]
    path_attributes: Option<PathAttributes>,
    /// Of whom is asked; in reviews of others only.
    #[prost(string, tag = "3")]
    user: String,
    #[prost(string, repeated, tag = "4")]
    groups: Vec<String>,
}

#[derive(Message)]
struct PathAttributes {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    verb: String,
}

#[derive(Message)]
struct ResourceAttributes {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
    #[prost(string, tag = "7")]
    name: String,
}

#[derive(Message)]
struct RulesReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<RulesReviewSpec>,
}

#[derive(Message)]
struct RulesReviewSpec {
    #[prost(string, tag = "1")]
    namespace: String,
}

/// A review as JSON, whether it was sent as JSON or as protobuf.
pub struct Review(pub Value);

impl<S: Send + Sync> FromRequest<S> for Review {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type =
            request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_protobuf = content_type.starts_with(MEDIA_TYPE);
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?;
        let review = if is_protobuf {
            read(&body)
        } else {
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        };
        review
            .map(Self)
            .map_err(|problem| ApiError::bad_request(format!("the review can't be read: {problem}")))
    }
}

fn read(body: &[u8]) -> Result<Value, String> {
    let message = body.strip_prefix(MAGIC).ok_or("it does not begin as Kubernetes protobuf does")?;
    let unreadable = |error: prost::DecodeError| error.to_string();
    let envelope = Envelope::decode(message).map_err(unreadable)?;
    let kind = envelope.type_meta.map(|meta| meta.kind).unwrap_or_default();
    match kind.as_str() {
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let review = AccessReview::decode(envelope.raw.as_slice()).map_err(unreadable)?;
            let asked = review.spec.unwrap_or_default();
            let mut spec = json!({});
            if let Some(asked) = asked.resource_attributes {
                let attributes = json!({
                    "namespace": asked.namespace, "verb": asked.verb, "group": asked.group,
                    "resource": asked.resource, "subresource": asked.subresource, "name": asked.name,
                });
                json_patch::merge(&mut spec, &json!({"resourceAttributes": attributes}));
            }
            if let Some(asked) = asked.path_attributes {
                let attributes = json!({"path": asked.path, "verb": asked.verb});
                json_patch::merge(&mut spec, &json!({"nonResourceAttributes": attributes}));
            }
            if kind != "SelfSubjectAccessReview" {
                json_patch::merge(&mut spec, &json!({"user": asked.user, "groups": asked.groups}));
            }
            Ok(json!({"spec": spec}))
        }
        "SelfSubjectRulesReview" => {
            let review = RulesReview::decode(envelope.raw.as_slice()).map_err(unreadable)?;
            Ok(json!({"spec": {"namespace": review.spec.unwrap_or_default().namespace}}))
        }
        other => Err(format!("`{other}` is not read as protobuf here; send application/json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_kubectl_asks_is_read() {
        let attributes =
            ResourceAttributes { verb: "delete".into(), resource: "sites".into(), ..Default::default() };
        let spec = AccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let raw = AccessReview { spec: Some(spec) }.encode_to_vec();
        let type_meta = Some(TypeMeta { kind: "SelfSubjectAccessReview".into() });
        let body = [MAGIC, &Envelope { type_meta, raw }.encode_to_vec()].concat();
        let review = read(&body).unwrap();
        assert_eq!(review["spec"]["resourceAttributes"]["resource"], "sites");
        assert_eq!(review["spec"]["resourceAttributes"]["verb"], "delete");
    }

    proptest! {
        #[test]
        fn promise_6_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[MAGIC, &bytes].concat());
        }
    }
}
