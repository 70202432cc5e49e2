//! Where forges tell that a repository has something new. They have no token of the hub: they sign what they send with
//! what the Source's Secret holds, or show it. All that they bring about is that the Source is looked at now.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use controllers::read_secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use store::Key;
use types::{Kind, Source, SourceSpec};

use crate::{ApiError, Hub};

/// How much a forge may tell, in bytes. GitHub's largest are 25 MiB; nobody here reads them.
const LONGEST: usize = 4 << 20;
/// The key of a Secret that forges know.
const TOKEN: &str = "token";
/// What is shorter can be guessed.
const SHORTEST_TOKEN: usize = 8;
/// GitHub and Gitea sign so; Gitea has a header of its own, too.
const SIGNATURES: [&str; 2] = ["x-hub-signature-256", "x-gitea-signature"];
/// GitLab shows the token itself.
const SHOWN: &str = "x-gitlab-token";

pub fn open_routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/avocet/v1/namespaces/{namespace}/sources/{name}/webhook", post(ring))
        .layer(DefaultBodyLimit::max(LONGEST))
}

/// Has a Source looked at.
///
/// # Errors
/// 401 for whoever doesn't know its token: whether there is such a Source is not told.
async fn ring(
    State(hub): State<Arc<Hub>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let token = token(&hub, &namespace, &name).filter(|token| token.len() >= SHORTEST_TOKEN);
    if !token.is_some_and(|token| is_proven(&headers, &body, &token)) {
        return Err(ApiError::unauthorized("Unauthorized"));
    }
    hub.sources.ask(&namespace, &name);
    Ok(StatusCode::ACCEPTED)
}

fn token(hub: &Hub, namespace: &str, name: &str) -> Option<Vec<u8>> {
    let source: Source = hub.store.get(&Key::new(SourceSpec::PLURAL, namespace, name))?.resource().ok()?;
    let secret = source.spec.webhook?.secret_ref.name;
    read_secret(&hub.store, namespace, &secret)?.remove(TOKEN)
}

fn is_proven(headers: &HeaderMap, body: &[u8], token: &[u8]) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(signature) = SIGNATURES.iter().find_map(|name| text(name)) {
        return is_signed(signature, body, token);
    }
    let shown = text(SHOWN).unwrap_or_default();
    std::str::from_utf8(token).is_ok_and(|token| daemon::same_secret(shown, token))
}

fn is_signed(signature: &str, body: &[u8], token: &[u8]) -> bool {
    let digits = signature.strip_prefix("sha256=").unwrap_or(signature);
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token) else { return false };
    mac.update(body);
    bytes(digits).is_some_and(|given| mac.verify_slice(&given).is_ok())
}

/// Bytes from hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let values = pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2));
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"It's a Secret to Everybody";

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_signature_as_github_documents_it_counts() {
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let body = b"Hello, World!";
        assert!(is_proven(&headers("x-hub-signature-256", good), body, SECRET));
        assert!(!is_proven(&headers("x-hub-signature-256", good), b"Hello, World?", SECRET));
        for wrong in ["", "sha256=", "sha256=75", "sha256=zz", "sha256=é"] {
            let mut given = HeaderMap::new();
            if let Ok(value) = axum::http::HeaderValue::from_bytes(wrong.as_bytes()) {
                given.insert("x-hub-signature-256", value);
            }
            assert!(!is_proven(&given, body, SECRET), "{wrong}");
        }
    }

    #[test]
    fn a_token_as_gitlab_shows_it_counts() {
        assert!(is_proven(&headers(SHOWN, "It's a Secret to Everybody"), b"", SECRET));
        for wrong in ["", "It's", "it's a secret to everybody"] {
            assert!(!is_proven(&headers(SHOWN, wrong), b"", SECRET), "{wrong}");
        }
        assert!(!is_proven(&HeaderMap::new(), b"", SECRET));
    }
}
