//! A document that is made once and sent often.

use std::io::Write;

use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes with a name that is made of them.
pub struct Document {
    media_type: &'static str,
    content: Bytes,
    /// `None` if it could not be compressed.
    compressed: Option<Bytes>,
    hash: String,
}

impl Document {
    pub fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hash = Sha256::digest(&content).iter().map(|byte| format!("{byte:02X}")).collect();
        let compressed = compress(&content).ok().map(Bytes::from);
        Self { media_type, content: content.into(), compressed, hash }
    }

    pub fn json(value: &Value) -> Self {
        Self::new("application/json", value.to_string().into_bytes())
    }

    /// SHA-256 in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The document, or that the client has it already.
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        self.respond(headers, "no-cache, private")
    }

    /// The document under an address that never means another one.
    pub fn answer_for_good(&self, headers: &HeaderMap) -> Response {
        self.respond(headers, "public, immutable, max-age=31536000")
    }

    fn respond(&self, headers: &HeaderMap, caching: &'static str) -> Response {
        let text =
            |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let tag = format!("\"{}\"", self.hash);
        let known = [
            (ETAG, tag.clone()),
            (CACHE_CONTROL, caching.to_owned()),
            (VARY, "Accept, Accept-Encoding".to_owned()),
        ];
        let is_known = |known: &str| {
            let known = known.trim().trim_start_matches("W/");
            known == "*" || known == tag
        };
        if text(IF_NONE_MATCH).split(',').any(is_known) {
            return (StatusCode::NOT_MODIFIED, known).into_response();
        }
        let kind = [(CONTENT_TYPE, self.media_type)];
        match &self.compressed {
            Some(compressed) if takes_gzip(text(ACCEPT_ENCODING)) => {
                (known, kind, [(CONTENT_ENCODING, "gzip")], compressed.clone()).into_response()
            }
            _ => (known, kind, self.content.clone()).into_response(),
        }
    }
}

fn takes_gzip(accepted: &str) -> bool {
    let mut choices = accepted.split(',').map(|choice| choice.split_once(';').unwrap_or((choice, "")));
    choices.any(|(coding, weight)| coding.trim() == "gzip" && !matches!(weight.trim(), "q=0" | "q=0.0"))
}

fn compress(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content)?;
    encoder.finish()
}
