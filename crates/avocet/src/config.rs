//! Where things are: the data folder, the kubeconfig, and the sites behind a hub.

use std::path::{Path, PathBuf};

use agent::Access;
use anyhow::{Context, bail};
use api::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use types::SiteSpec;

use crate::cli::ClientOptions;

/// The data folder: as given, or `~/.avocet`.
pub fn data_folder(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(data) => Ok(std::path::absolute(data)?),
        None => default_folder(),
    }
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let home =
        std::env::var_os("HOME").context("the environment has no HOME; name the data folder with --data")?;
    Ok(PathBuf::from(home).join(".avocet"))
}

/// The kubeconfig of a hub's data folder.
pub fn kubeconfig_file(data: &Path) -> PathBuf {
    data.join("kubeconfig")
}

/// What a kubeconfig says of a hub.
#[derive(Debug, Clone)]
pub struct HubAccess {
    /// URL.
    pub server: String,
    /// The certificate of its authority, in PEM.
    pub authority: String,
    /// Bearer token.
    pub token: String,
}

impl HubAccess {
    /// A client of the hub.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.server, &self.token, Some(&self.authority))?)
    }
}

/// Writes a kubeconfig for an admin, readable by its owner.
pub fn write_kubeconfig(data: &Path, hub: &HubAccess) -> anyhow::Result<()> {
    let cluster =
        json!({"server": hub.server, "certificate-authority-data": STANDARD.encode(&hub.authority)});
    let context = json!({"cluster": "avocet", "user": "admin", "namespace": "default"});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "avocet",
        "clusters": [{"name": "avocet", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": hub.token}}],
        "contexts": [{"name": "avocet", "context": context}],
    });
    let path = kubeconfig_file(data);
    daemon::write_private(&path, serde_saphyr::to_string(&config)?.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

/// What a kubeconfig's current context says.
pub fn read_kubeconfig(path: &Path) -> anyhow::Result<HubAccess> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "can't read {}; run `avocet up`, or name the hub's kubeconfig with --kubeconfig",
            path.display()
        )
    })?;
    let config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
    let entry = |list: &str, name: &str| -> Value {
        let mut entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
        let found = entries.find(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
        found.cloned().unwrap_or_default()
    };
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let context = text(&config, "/current-context").map(|name| entry("contexts", &name)).unwrap_or_default();
    let cluster = text(&context, "/context/cluster").map(|name| entry("clusters", &name)).unwrap_or_default();
    let user = text(&context, "/context/user").map(|name| entry("users", &name)).unwrap_or_default();
    let authority = text(&cluster, "/cluster/certificate-authority-data");
    let authority = authority.and_then(|data| String::from_utf8(STANDARD.decode(data).ok()?).ok());
    match (text(&cluster, "/cluster/server"), authority, text(&user, "/user/token")) {
        (Some(server), Some(authority), Some(token)) => Ok(HubAccess { server, authority, token }),
        _ => bail!(
            "{} names no server, certificate-authority-data and token in its current context",
            path.display()
        ),
    }
}

/// What the kubeconfig says of the hub.
pub fn hub_access(options: &ClientOptions) -> anyhow::Result<HubAccess> {
    match &options.kubeconfig {
        Some(path) => read_kubeconfig(path),
        None => read_kubeconfig(&kubeconfig_file(&default_folder()?)),
    }
}

/// A client of the hub.
pub fn hub_client(options: &ClientOptions) -> anyhow::Result<Client> {
    hub_access(options)?.client()
}

/// A site that commands talk to.
pub struct SiteClient {
    /// Its name.
    pub name: String,
    /// Its own HTTP API.
    pub client: Client,
}

#[derive(Deserialize)]
struct SiteToken {
    token: String,
}

/// S3 keys of a site.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectKeys {
    /// URL.
    pub endpoint: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
}

impl SiteClient {
    /// The site's S3 keys.
    pub async fn object_keys(&self) -> anyhow::Result<ObjectKeys> {
        let request = self.client.request(Method::GET, "/site/v1/credentials");
        self.client.json(request).await.with_context(|| format!("can't get the keys of site `{}`", self.name))
    }
}

/// The site of that name, or all that the hub knows; with `--site-access` always that one.
pub async fn sites(options: &ClientOptions, name: Option<&str>) -> anyhow::Result<Vec<SiteClient>> {
    if let Some(path) = &options.site_access {
        let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let access: Access = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not a site's access.json", path.display()))?;
        if let Some(name) = name.filter(|name| *name != access.site) {
            bail!("{} is for site `{}`, not `{name}`", path.display(), access.site);
        }
        let client = Client::new(&access.inference, &access.token, None)?;
        return Ok(vec![SiteClient { client, name: access.site }]);
    }
    let access = hub_access(options)?;
    let hub = access.client()?;
    let found = match name {
        Some(name) => vec![hub.get::<SiteSpec>("", name).await?],
        None => hub.list::<SiteSpec>("").await?.0,
    };
    let mut clients = Vec::new();
    for site in found.iter().filter(|site| !site.status.endpoints.inference.is_empty()) {
        // Never the admin's own token: a site must not be able to use it against the hub.
        let request = hub.request(Method::POST, &format!("/avocet/v1/sites/{}/token", site.name()));
        let signed: SiteToken = hub.json(request).await?;
        let client = Client::new(&site.status.endpoints.inference, &signed.token, None)?;
        clients.push(SiteClient { name: site.name().to_owned(), client });
    }
    if let (Some(name), true) = (name, clients.is_empty()) {
        bail!("site `{name}` has not told where it listens yet");
    }
    Ok(clients)
}
