//! The long-running commands: `up`, `hub` and `agent`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agent::{Access, Config, JoinToken};
use anyhow::{Context, bail};
use daemon::Tasks;

use crate::artifact;
use crate::cli::{AgentOptions, DataOptions, HubOptions, ListenSite, UpOptions};
use crate::{config, hub as hubs, ui, worker};

/// Where a site's registry listens if it isn't said: alone on its machine, or beside a hub that has that port.
const ALONE: u16 = 5000;
const BESIDE_HUB: u16 = 5001;
/// How long tasks get to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the join token of a hub's own site is good, in seconds: it is used at once.
const OWN_TOKEN: Duration = Duration::from_secs(600);

pub async fn up(options: UpOptions) -> anyhow::Result<()> {
    let data = prepare(&options.data, &options.site.addresses())?;
    let tasks = Tasks::default();
    let (reached, hub, registry) = hubs::start(&data, &options.name, &options.hub, &tasks).await?;
    let secret = hub.tokens.create_join_token(&options.name, daemon::now(), OWN_TOKEN).await?;
    let token = JoinToken { secret, authority: reached.authority.clone() }.encode();
    let site = site_config(&data, &options.site, BESIDE_HUB, reached.server.clone(), Some(token))?;
    let access = start_site(site, &tasks).await?;
    greet(&data, &reached.server, registry, Some(&access));
    end(tasks).await
}

pub async fn hub(options: HubOptions) -> anyhow::Result<()> {
    let data = prepare(&options.data, &[])?;
    let tasks = Tasks::default();
    let (reached, _, registry) = hubs::start(&data, &options.name, &options.hub, &tasks).await?;
    greet(&data, &reached.server, registry, None);
    end(tasks).await
}

pub async fn agent(options: AgentOptions) -> anyhow::Result<()> {
    let data = prepare(&options.data, &options.site.addresses())?;
    let tasks = Tasks::default();
    let site = site_config(&data, &options.site, ALONE, options.join, options.token)?;
    let access = tokio::select! {
        access = start_site(site, &tasks) => access?,
        signal = daemon::wait_for_signal() => return Ok(signal?),
    };
    println!(
        "site {} is up: models at {} (gRPC at {}), buckets at {}, registry at {}",
        access.site, access.inference, access.grpc, access.objects, access.registry
    );
    println!("keys: {}", Access::file(&data.join("site")).display());
    end(tasks).await
}

/// Logs, the data folder, and no listening beyond loopback by accident.
fn prepare(options: &DataOptions, addresses: &[SocketAddr]) -> anyhow::Result<std::path::PathBuf> {
    daemon::start_logs(&options.log);
    if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback())
        && !options.insecure_plain_http
    {
        bail!(
            "{address} can be reached from other machines, and models and buckets are not served encrypted yet; listen on 127.0.0.1 \
             (and put an encrypting proxy before it), or pass --insecure-plain-http on a network that you trust"
        );
    }
    let data = config::data_folder(options.data.as_deref())?;
    std::fs::create_dir_all(&data).with_context(|| format!("can't make {}", data.display()))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
    Ok(data)
}

fn site_config(
    data: &Path,
    options: &ListenSite,
    registry_port: u16,
    hub: String,
    join_token: Option<String>,
) -> anyhow::Result<Config> {
    let mut labels = BTreeMap::new();
    for label in &options.labels {
        let (key, value) =
            label.split_once('=').with_context(|| format!("--label {label} is not KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(Config {
        data: data.join("site"),
        hub: hub.trim_end_matches('/').to_owned(),
        join_token,
        tier: options.tier.clone(),
        labels,
        listen: options.listen_inference,
        listen_grpc: options.listen_grpc,
        listen_objects: options.listen_objects,
        listen_registry: options
            .listen_site_registry
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, registry_port))),
        python: options.python.clone(),
        onnxruntime: options.onnxruntime.clone(),
        tensorflow: options.tensorflow.clone(),
        allow_unconfined: options.allow_unconfined,
        heartbeat: Duration::from_secs(options.heartbeat.max(1)),
        mlbuffet_legacy: options.mlbuffet_legacy,
        callback_origins: options.callback_origins.clone(),
        signers: options.require_signatures.as_deref().map(artifact::trusted_keys).transpose()?,
    })
}

async fn start_site(config: Config, tasks: &Tasks) -> anyhow::Result<std::sync::Arc<Access>> {
    let membership = agent::join(&config, &tasks.shutdown()).await?;
    let shim: Vec<OsString> = ["/proc/self/exe", "runtime-shim"].map(OsString::from).to_vec();
    let worker = worker::command(config.allow_unconfined);
    Ok(agent::start(config, membership, shim, worker, tasks).await?)
}

fn greet(data: &Path, url: &str, registry: SocketAddr, access: Option<&Access>) {
    let kubeconfig = config::kubeconfig_file(data);
    println!("hub is up: {url}");
    println!("registry is up: {registry}");
    if let Some(access) = access {
        println!(
            "site {} is up: models at {} (gRPC at {}), buckets at {}, registry at {}",
            access.site, access.inference, access.grpc, access.objects, access.registry
        );
    }
    println!("next:  export AVOCET_KUBECONFIG={0} KUBECONFIG={0}", kubeconfig.display());
    println!("       avocet get sites          (or: kubectl get sites)");
    // Without the token: what is printed here ends in logs.
    if let Ok(page) = ui::page(url) {
        println!("page:  {page}             (avocet ui prints it with your token)");
    }
}

async fn end(tasks: Tasks) -> anyhow::Result<()> {
    daemon::wait_for_signal().await?;
    println!("ending");
    if !tasks.end(PATIENCE).await {
        eprintln!(
            "some tasks did not end within {} s; nothing that was acknowledged is lost",
            PATIENCE.as_secs()
        );
    }
    Ok(())
}
