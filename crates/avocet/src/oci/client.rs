//! A client of registries: the hub's own with the token of the hub, others with what podman and docker noted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::{ContentDigest, Reference};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use types::Digest;

use super::place::Place;
use crate::cli::ClientOptions;
use crate::config;

/// How large a manifest may be, in bytes.
const LARGEST_MANIFEST: usize = 4 << 20;
/// Manifests, and indices of them.
const ANY: &str = "application/vnd.oci.image.manifest.v1+json, \
                   application/vnd.docker.distribution.manifest.v2+json, \
                   application/vnd.oci.image.index.v1+json, \
                   application/vnd.docker.distribution.manifest.list.v2+json";

/// A client of one repository.
pub struct Client {
    http: reqwest::Client,
    /// Where the repository is: `SCHEME://HOST/v2/REPOSITORY`.
    base: reqwest::Url,
    /// What to send as `Authorization`, once it is known.
    authorization: Option<String>,
    /// User and password, for registries that ask for them or give tokens for them.
    basic: Option<String>,
}

/// A manifest and the digest of its bytes.
pub struct Manifest {
    pub digest: ContentDigest,
    pub bytes: bytes::Bytes,
    pub media_type: String,
}

impl Client {
    /// For the repository of a place.
    pub fn of(options: &ClientOptions, place: &Place) -> anyhow::Result<Self> {
        let repository = &place.repository;
        let Some(host) = &place.host else {
            let access = config::hub_access(options)?;
            let http = api::client::http(Some(&access.authority))?;
            let base = format!("{}/v2/{repository}/", access.server.trim_end_matches('/')).parse()?;
            return Ok(Self {
                http,
                base,
                authorization: Some(format!("Bearer {}", access.token)),
                basic: None,
            });
        };
        // As other tools have it: nobody listens in between on this very machine.
        let is_here =
            ["localhost", "127.0.0.1", "[::1]"].contains(&host.split(':').next().unwrap_or_default());
        let scheme = if is_here { "http" } else { "https" };
        let tls = if is_here { daemon::tls::client_of_nobody() } else { daemon::tls::client_of_all() };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls?)
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .build()?;
        let base = format!("{scheme}://{host}/v2/{repository}/").parse()?;
        Ok(Self { http, base, authorization: None, basic: noted_login(host) })
    }

    /// The manifest of an image or artifact; of an index, that of its first one for any machine. (Builders put proofs of
    /// how they built beside it, which are for the platform `unknown`.)
    pub async fn image(&mut self, reference: &Reference) -> anyhow::Result<Manifest> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Option<Vec<Member>>,
        }
        #[derive(Deserialize)]
        struct Member {
            digest: ContentDigest,
            platform: Option<Platform>,
        }
        #[derive(Deserialize)]
        struct Platform {
            os: String,
        }
        let found = self.find(reference).await?.context("there is nothing; push it first")?;
        let index: Index = serde_json::from_slice(&found.bytes)?;
        let Some(members) = index.manifests else { return Ok(found) };
        let is_model =
            |member: &Member| member.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
        let member = members.into_iter().find(is_model).context("the index is empty")?;
        let member = self.find(&Reference::Digest(member.digest)).await?;
        member.context("the index names a manifest that is not there; push it whole")
    }

    /// A manifest, or an index of manifests; none if there is none.
    pub async fn find(&mut self, reference: &Reference) -> anyhow::Result<Option<Manifest>> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let response = self.answer(|client| client.request(Method::GET, &url).header(ACCEPT, ANY)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Self::read_manifest(&url, reference, response).await.map(Some),
            _ => Err(refusal(response).await),
        }
    }

    /// The digests of manifests of some type that refer to another: as the registry tells them, or where it keeps no
    /// account of that, as clients noted them.
    pub async fn referrers(
        &mut self,
        digest: &Digest,
        is_wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<Digest>> {
        #[derive(Deserialize)]
        struct Index {
            #[serde(default)]
            manifests: Vec<Referrer>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Referrer {
            digest: Digest,
            #[serde(default)]
            artifact_type: String,
        }
        let url = self.url(&format!("referrers/{digest}"))?;
        let response = self.answer(|client| client.request(Method::GET, &url)).await?;
        let bytes = if response.status().is_success() {
            bounded(response, LARGEST_MANIFEST, &url).await?
        } else {
            let noted = Reference::Tag(format!("sha256-{}", digest.hex()).parse()?);
            let Some(noted) = self.find(&noted).await? else { return Ok(vec![]) };
            noted.bytes
        };
        let found: Index = serde_json::from_slice(&bytes).context("the list of referrers can't be read")?;
        let wanted = found.manifests.into_iter().filter(|referrer| is_wanted(&referrer.artifact_type));
        Ok(wanted.map(|referrer| referrer.digest).collect())
    }

    /// A small blob, whole and right.
    pub async fn small_blob(&mut self, digest: &Digest, limit: usize) -> anyhow::Result<bytes::Bytes> {
        let response = self.blob(&(*digest).into()).await?;
        let url = response.url().clone();
        let bytes = bounded(response, limit, &url).await?;
        if Digest::of(&bytes) != *digest {
            bail!("{url} is not what its digest says; it broke, or somebody changed it");
        }
        Ok(bytes)
    }

    /// The host of the registry, with its port.
    pub fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    async fn read_manifest(
        url: &reqwest::Url,
        reference: &Reference,
        response: Response,
    ) -> anyhow::Result<Manifest> {
        let media_type = header(&response, CONTENT_TYPE).to_owned();
        let bytes = bounded(response, LARGEST_MANIFEST, url).await?;
        let digest = match reference {
            Reference::Tag(_) => Digest::of(&bytes).into(),
            Reference::Digest(wanted) if wanted.again(&bytes) == *wanted => *wanted,
            Reference::Digest(_) => {
                bail!("{url} is not what its digest says; it broke, or somebody changed it")
            }
        };
        Ok(Manifest { digest, bytes, media_type })
    }

    /// A blob, from its beginning. Its digest is for the caller to check.
    pub async fn blob(&mut self, digest: &ContentDigest) -> anyhow::Result<Response> {
        let url = self.url(&format!("blobs/{digest}"))?;
        self.send(|client| client.request(Method::GET, &url)).await
    }

    /// Pushes a file as a blob, unless it is there.
    pub async fn push_blob(&mut self, file: &std::path::Path, digest: &Digest) -> anyhow::Result<()> {
        let known = self.url(&format!("blobs/{digest}"))?;
        let asked = self.answer(|client| client.request(Method::HEAD, &known)).await?;
        if asked.status().is_success() {
            return Ok(());
        }
        let begin = self.url("blobs/uploads/")?;
        let begun =
            self.send(|client| client.request(Method::POST, &begin).header("content-length", "0")).await?;
        let mut upload = self.base.join(header(&begun, LOCATION))?;
        upload.query_pairs_mut().append_pair("digest", &digest.to_string());
        let size = tokio::fs::metadata(file).await?.len();
        let content = tokio::fs::File::open(file).await?;
        let stream = tokio_util::io::ReaderStream::with_capacity(content, 256 << 10);
        let request = self.request(Method::PUT, &upload).header("content-length", size);
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let response = request.body(reqwest::Body::wrap_stream(stream)).send().await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(response).await) }
    }

    /// Pushes a manifest; answers its digest.
    pub async fn push_manifest(
        &mut self,
        reference: &Reference,
        media_type: &str,
        manifest: &serde_json::Value,
    ) -> anyhow::Result<Digest> {
        let bytes = manifest.to_string();
        let url = self.url(&format!("manifests/{reference}"))?;
        let put = |client: &Self| {
            client.request(Method::PUT, &url).header(CONTENT_TYPE, media_type).body(bytes.clone())
        };
        self.send(put).await?;
        Ok(Digest::of(bytes.as_bytes()))
    }

    fn url(&self, path: &str) -> anyhow::Result<reqwest::Url> {
        Ok(self.base.join(&format!("./{path}"))?)
    }

    fn request(&self, method: Method, url: &reqwest::Url) -> RequestBuilder {
        let request = self.http.request(method, url.clone());
        // An upload may go on at another host, which our credentials are not for.
        let is_same = url.origin() == self.base.origin();
        match self.authorization.as_ref().filter(|_| is_same) {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn send(&mut self, request: impl Fn(&Self) -> RequestBuilder) -> anyhow::Result<Response> {
        let response = self.answer(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    /// Whatever the registry answers, once it knows who asks.
    async fn answer(&mut self, request: impl Fn(&Self) -> RequestBuilder) -> anyhow::Result<Response> {
        let host = self.base.host_str().unwrap_or_default().to_owned();
        let unreachable = || format!("can't reach the registry at {host}");
        let first = request(self).send().await.with_context(unreachable)?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        let challenge = header(&first, WWW_AUTHENTICATE).to_owned();
        let Some(authorization) = self.answer_challenge(&challenge).await? else { return Ok(first) };
        self.authorization = Some(authorization);
        request(self).send().await.with_context(unreachable)
    }

    async fn answer_challenge(&self, challenge: &str) -> anyhow::Result<Option<String>> {
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(self.basic.as_ref().map(|basic| format!("Basic {basic}")));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(None);
        }
        let fields = fields(rest);
        let mut url: reqwest::Url =
            fields.get("realm").context("the registry names nobody who gives tokens")?.parse()?;
        if url.scheme() != "https" && url.host_str() != self.base.host_str() {
            bail!("the registry wants its token from {url}, which is not encrypted");
        }
        for name in ["service", "scope"] {
            if let Some(value) = fields.get(name) {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.http.get(url);
        if let Some(basic) = &self.basic {
            request = request.header(AUTHORIZATION, format!("Basic {basic}"));
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let given: Given = serde_json::from_slice(&response.bytes().await?)?;
        Ok(given.token.or(given.access_token).map(|token| format!("Bearer {token}")))
    }
}

/// The fields of a challenge: `key="value", …`.
fn fields(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.insert(key.trim_matches([' ', ',']).to_ascii_lowercase(), value.to_owned());
        rest = after;
    }
    fields
}

/// What `podman login` or `docker login` noted for a host: user and password in base64.
fn noted_login(host: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Notes {
        #[serde(default)]
        auths: BTreeMap<String, Login>,
    }
    #[derive(Deserialize)]
    struct Login {
        auth: Option<String>,
    }
    let folder = |name: &str, rest: &str| Some(PathBuf::from(std::env::var_os(name)?).join(rest));
    let files = [
        folder("REGISTRY_AUTH_FILE", ""),
        folder("XDG_RUNTIME_DIR", "containers/auth.json"),
        folder("DOCKER_CONFIG", "config.json"),
        folder("HOME", ".docker/config.json"),
    ];
    files.into_iter().flatten().find_map(|file| {
        // `REGISTRY_AUTH_FILE` is the file itself.
        let text = std::fs::read(file.components().as_path()).ok()?;
        let notes: Notes = serde_json::from_slice(&text).ok()?;
        let auth = notes.auths.get(host)?.auth.clone()?;
        STANDARD.decode(&auth).ok().map(|_| auth)
    })
}

/// All of an answer that is not larger than it should be.
async fn bounded(mut response: Response, limit: usize, url: &reqwest::Url) -> anyhow::Result<bytes::Bytes> {
    let mut bytes = bytes::BytesMut::new();
    while let Some(part) = response.chunk().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() > limit {
            bail!("{url} is larger than {limit} bytes, which it should not be");
        }
    }
    Ok(bytes.freeze())
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn refusal(response: Response) -> anyhow::Error {
    let (status, url) = (response.status(), response.url().clone());
    let body = response.bytes().await.unwrap_or_default();
    let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let message = said.as_ref().and_then(|said| said.pointer("/errors/0/message")?.as_str());
    let host = url.host_str().unwrap_or_default();
    match (message, status) {
        (_, StatusCode::UNAUTHORIZED) => {
            anyhow::anyhow!("{host} wants to know who asks; run `podman login {host}` first")
        }
        (Some(message), _) => anyhow::anyhow!("{host} refused: {message}"),
        (None, status) => anyhow::anyhow!("{host} refused {} with {status}", url.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let fields = fields(
            r#"realm="https://auth.example/token",service="r.example", scope="repository:a/b:pull,push""#,
        );
        assert_eq!(fields["realm"], "https://auth.example/token");
        assert_eq!(fields["service"], "r.example");
        assert_eq!(fields["scope"], "repository:a/b:pull,push");
    }
}
