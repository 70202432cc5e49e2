//! Where things are: the data folder, the kubeconfig, and the sites behind a hub.

use std::path::{Path, PathBuf};

use agent::Access;
use anyhow::{Context, bail};
use api::Client;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use types::SiteSpec;

use crate::cli::{ClientOptions, DataOptions};

/// The data folder: as given, or `~/.avocet`.
pub fn data_folder(options: &DataOptions) -> anyhow::Result<PathBuf> {
    match &options.data {
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

/// Writes a kubeconfig for an admin, readable by its owner.
pub fn write_kubeconfig(data: &Path, server: &str, token: &str) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "avocet",
        "clusters": [{"name": "avocet", "cluster": {"server": server}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "avocet", "context": {"cluster": "avocet", "user": "admin", "namespace": "default"}}],
    });
    let path = kubeconfig_file(data);
    daemon::write_private(&path, serde_saphyr::to_string(&config)?.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

/// The server and token of a kubeconfig's current context.
pub fn read_kubeconfig(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "can't read {}; run `avocet up`, or name the hub's kubeconfig with --kubeconfig",
            path.display()
        )
    })?;
    let config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
    let entry = |list: &str, name: &str| -> Value {
        let entries = config.get(list).and_then(Value::as_array);
        let found = entries
            .into_iter()
            .flatten()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
        found.cloned().unwrap_or_default()
    };
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let context = text(&config, "/current-context").map(|name| entry("contexts", &name)).unwrap_or_default();
    let cluster = text(&context, "/context/cluster").map(|name| entry("clusters", &name)).unwrap_or_default();
    let user = text(&context, "/context/user").map(|name| entry("users", &name)).unwrap_or_default();
    match (text(&cluster, "/cluster/server"), text(&user, "/user/token")) {
        (Some(server), Some(token)) => Ok((server, token)),
        _ => bail!("{} names no server and token in its current context", path.display()),
    }
}

/// A client of the hub.
pub fn hub_client(options: &ClientOptions) -> anyhow::Result<Client> {
    let path = match &options.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig_file(&default_folder()?),
    };
    let (server, token) = read_kubeconfig(&path)?;
    Ok(Client::new(&server, &token))
}

/// A site that commands talk to.
pub struct SiteClient {
    /// Its name.
    pub name: String,
    /// Its own HTTP API.
    pub client: Client,
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
        return Ok(vec![SiteClient {
            client: Client::new(&access.inference, &access.token),
            name: access.site,
        }]);
    }
    let path = match &options.kubeconfig {
        Some(path) => path.clone(),
        None => kubeconfig_file(&default_folder()?),
    };
    let (server, token) = read_kubeconfig(&path)?;
    let hub = Client::new(&server, &token);
    let found = match name {
        Some(name) => vec![hub.get::<SiteSpec>("", name).await?],
        None => hub.list::<SiteSpec>("").await?.0,
    };
    let clients =
        found.iter().filter(|site| !site.status.endpoints.inference.is_empty()).map(|site| SiteClient {
            name: site.name().to_owned(),
            client: Client::new(&site.status.endpoints.inference, &token),
        });
    let clients: Vec<SiteClient> = clients.collect();
    if let (Some(name), true) = (name, clients.is_empty()) {
        bail!("site `{name}` has not told where it listens yet");
    }
    Ok(clients)
}
