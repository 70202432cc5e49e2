//! The long-running commands: `up`, `hub` and `agent`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agent::{Access, Config, JoinToken, Joining, Membership, Uplink};
use anyhow::{Context, bail};
use api::Hub;
use api::authentication::Invitation;
use daemon::Tasks;
use serving::TraceSettings;

use crate::artifact;
use crate::cli::{AgentOptions, DataOptions, HubOptions, ListenSite, UpOptions, UplinkArgs};
use crate::settle::settle;
use crate::{config, hub as hubs, ui, worker};

/// Where a site's registry listens if it isn't said: alone on its machine, or beside a hub that has that port.
const ALONE: u16 = 5000;
const BESIDE_HUB: u16 = 5001;
/// Where a hub keeps as what it is known to the hub above, in its data folder.
const UPLINK: &str = "uplink";
/// The tier of a hub without a site beside it, at the hub above, unless its token says another.
const TIER: &str = "edge";
/// How often it tells that hub of itself.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How long tasks get to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the join token of a hub's own site is good, in seconds: it is used at once.
const OWN_TOKEN: Duration = Duration::from_secs(600);

pub async fn up(options: UpOptions) -> anyhow::Result<()> {
    let data = prepare(&options.data, &options.site.addresses())?;
    let tasks = Tasks::default();
    let known = Membership::read(&data.join("site"))?;
    if let Some(known) = known.as_ref().filter(|known| known.site != options.name) {
        bail!(
            "this machine is site `{}`, and --site says `{}`: a site keeps its name, for what it was assigned and what it \
             holds go by it. Start it under its name, or give the other an empty --data folder",
            known.site,
            options.name
        );
    }
    let uplink = uplink(&data, &options.name, &options.uplink)?;
    let (reached, hub, registry) =
        hubs::start(&data, &options.name, &options.hub, uplink.is_some(), &tasks).await?;
    let token = match known {
        Some(_) => None,
        None => Some(own_token(&hub, &reached.authority).await?),
    };
    let site = site_config(&data, &options.site, BESIDE_HUB, reached.server.clone(), token)?;
    let as_site = site.joining();
    let every = site.heartbeat;
    let access = start_site(site, &tasks).await?;
    if let Some(joining) = uplink {
        let joining = Joining { tier: as_site.tier, labels: as_site.labels, ..joining };
        agent::start_uplink(Uplink { joining, heartbeat: every }, hub, &tasks);
    }
    greet(&data, &reached.server, registry, Some(&access));
    run_on(tasks).await
}

/// A token for the hub's own site.
async fn own_token(hub: &Hub, authority: &str) -> anyhow::Result<String> {
    let invitation = Invitation { site: hub.site.clone(), ..Invitation::default() };
    let (secret, _) = hub.tokens.create_join_token(invitation, daemon::now(), OWN_TOKEN).await?;
    Ok(JoinToken { secret, authority: authority.to_owned(), site: hub.site.clone() }.encode())
}

pub async fn hub(options: HubOptions) -> anyhow::Result<()> {
    let data = prepare(&options.data, &[])?;
    let tasks = Tasks::default();
    let uplink = uplink(&data, &options.name, &options.uplink)?;
    let (reached, hub, registry) =
        hubs::start(&data, &options.name, &options.hub, uplink.is_some(), &tasks).await?;
    if let Some(joining) = uplink {
        agent::start_uplink(Uplink { joining, heartbeat: HEARTBEAT }, hub, &tasks);
    }
    greet(&data, &reached.server, registry, None);
    run_on(tasks).await
}

/// As what to be a site of the hub above, if that is wanted or was before.
fn uplink(data: &Path, name: &str, options: &UplinkArgs) -> anyhow::Result<Option<Joining>> {
    let data = data.join(UPLINK);
    let known = Membership::read(&data)?;
    if known.is_none() && options.join.is_empty() {
        return Ok(None);
    }
    let token = options.token.as_deref().filter(|_| !options.join.is_empty());
    let invited = token.and_then(JoinToken::parse).map(|token| token.site);
    if token.is_some() && invited.is_none() {
        bail!("the join token can't be read; copy all of what `avocet join-token` printed at the hub above");
    }
    if known.is_none() && token.is_none() {
        bail!(
            "to be a site of {}, this hub needs a token of it the first time: make one there with `avocet join-token create \
             --site {name}`, and pass it as --token",
            options.join
        );
    }
    let known = known.map(|known| known.site);
    if let Some(other) = invited.iter().chain(&known).find(|other| *other != name) {
        bail!(
            "this hub is site `{name}`, and at the hub above it is to be `{other}`: it has one name in the whole tree. Pass \
             --site {other}, or make a token for `{name}`"
        );
    }
    std::fs::create_dir_all(&data).with_context(|| format!("can't make {}", data.display()))?;
    Ok(Some(Joining {
        data,
        hub: options.join.trim_end_matches('/').to_owned(),
        join_token: token.map(str::to_owned),
        tier: TIER.to_owned(),
        labels: types::SmallMap::new(),
    }))
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
    run_on(tasks).await
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
    Ok(Config {
        data: data.join("site"),
        hub: hub.trim_end_matches('/').to_owned(),
        join_token,
        tier: options.tier.clone(),
        labels: pairs("label", &options.labels)?.into(),
        claims: pairs("claim", &options.claims)?,
        measure: pairs("measure", &options.measure)?,
        measure_width: documents(options)?,
        listen: options.listen_inference,
        listen_grpc: options.listen_grpc,
        listen_objects: options.listen_objects,
        listen_registry: options
            .listen_site_registry
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, registry_port))),
        listen_peers: options.listen_peers,
        python: options.python.clone(),
        onnxruntime: options.libraries.onnxruntime.clone(),
        tensorflow: options.libraries.tensorflow.clone(),
        allow_unconfined: options.allow_unconfined,
        trust_models: options.trust_models,
        rollout_opt_out: options.rollout_opt_out,
        takes_offloads: !options.refuse_offloads,
        keep_free: options.keep_free.as_ref().map(types::Quantity::bytes),
        heartbeat: Duration::from_secs(options.heartbeat.max(1)),
        mlbuffet_legacy: options.mlbuffet_legacy,
        callback_origins: options.callback_origins.clone(),
        fetch_hosts: options.fetch_hosts.clone(),
        fetch_protocols: options.fetch_protocols.clone(),
        traces: traces(options.otlp_endpoint.as_deref())?,
        signers: options.require_signatures.as_deref().map(artifact::trusted_keys).transpose()?,
        image_signers: options.require_image_signatures.as_deref().map(artifact::trusted_keys).transpose()?,
    })
}

/// How requests of inference are traced, as an option and OpenTelemetry's variables say it.
pub fn traces(endpoint: Option<&str>) -> anyhow::Result<Option<TraceSettings>> {
    Ok(TraceSettings::read(endpoint, |name| std::env::var(name).ok())?)
}

/// Documents that tell how wide the ways to locations are.
fn documents(options: &ListenSite) -> anyhow::Result<BTreeMap<String, String>> {
    let (locations, found) =
        (pairs("measure", &options.measure)?, pairs("measure-width", &options.measure_width)?);
    for (location, url) in &found {
        anyhow::ensure!(
            locations.contains_key(location),
            "--measure-width {location}={url} names a location that no --measure names; add --measure {location}=URL"
        );
        anyhow::ensure!(
            url.starts_with("http://") || url.starts_with("https://"),
            "--measure-width {location}={url} is no URL that can be fetched; write http://… or https://…"
        );
    }
    Ok(found)
}

fn pairs(option: &str, texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').with_context(|| format!("--{option} {text} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

async fn start_site(config: Config, tasks: &Tasks) -> anyhow::Result<std::sync::Arc<Access>> {
    let membership = agent::join(&config.joining(), &tasks.shutdown()).await?;
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

/// Goes on until somebody ends it.
async fn run_on(tasks: Tasks) -> anyhow::Result<()> {
    settle(&tasks);
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
