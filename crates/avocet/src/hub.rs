//! Starting a hub.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use api::authentication::{Identities, IdentityOptions, Oidc, OidcOptions, ServiceAccounts, Tokens, User};
use api::{Hub, Mailbox, SiteTokens, Trust, Upstream, audit::Audit, rbac::Rbac};
use artifacts::Blobs;
use controllers::{Applicant, Errands, Events, Heartbeats, Signer, SourceOptions, SourceQueue};
use daemon::tls::{self, Authorities, Served, Source, Usage};
use daemon::{Shutdown, Tasks};
use registry::Registry;
use store::{Ledger, Seal, Store};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use types::Kind;
use types::core::SecretBody;

use crate::cli::{ListenHub, OidcArgs};
use crate::config::{self, HubAccess};
use crate::lock;

/// How many connections wait to be taken: all sites may come back at once.
const BACKLOG: u32 = 4096;
/// How often it is looked which changes are too old to be kept for watchers.
const FORGET: Duration = Duration::from_secs(10);

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As other listeners do it: the port of a hub that just ended can be taken at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Starts a hub; answers its address, itself, and where its registry listens. `is_below` says that it is to be a site
/// of another hub.
pub async fn start(
    data: &Path,
    site: &str,
    options: &ListenHub,
    is_below: bool,
    tasks: &Tasks,
) -> anyhow::Result<(HubAccess, Hub, SocketAddr)> {
    ensure!(
        types::names::is_dns_label(site),
        "--site {site:?} is not a name: write 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
    );
    let lock = lock::lock_hub(data)?;
    let folder = data.join("hub");
    let listener = listen(options.listen).with_context(|| {
        format!(
            "can't listen on {}; is it taken? Another port, or 0 for a free one, can be given with --listen",
            options.listen
        )
    })?;
    let images = TcpListener::bind(options.listen_registry).await.with_context(|| {
        format!(
            "can't listen on {} for the registry; is it taken? Another port, or 0 for a free one, can be given with \
             --listen-registry",
            options.listen_registry
        )
    })?;
    let address = listener.local_addr()?;
    let registry_address = images.local_addr()?;
    let authorities = Authorities::open(&folder)?;
    let mut names =
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), address.ip().to_string()];
    names.extend(options.names.iter().cloned());
    let served = Served::open(certificate_source(options, &authorities, names), daemon::now())
        .context("the hub's certificate can't be used")?;
    let tls = tls::server_of(served.clone(), authorities.clone(), &given(&options.client_ca_file)?)
        .context("the authorities of clients can't be used")?;
    let ledger = Ledger::open(&folder.join("hub.db"))?;
    let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
    let tokens = Tokens::new(ledger.clone());
    let token = match config::read_kubeconfig(&config::kubeconfig_file(data)) {
        Ok(known) if tokens.identify(&known.token, daemon::now()) == Ok(Some(User::admin())) => known.token,
        _ => {
            let token = daemon::random_hex(24)?;
            tokens.grant(&token, User::admin()).await?;
            token
        }
    };
    // Whom clients trust to know the hub by: its own authorities, and the chain of a given certificate.
    let trust = Trust::new(authorities.clone(), &given(&options.tls_cert_file)?);
    let access = HubAccess { server: reached_at(options, address), authority: trust.bundle(), token };
    config::write_kubeconfig(data, &access)?;
    let seal = Seal::open(&folder.join("secrets.key"), &[SecretBody::PLURAL])?;
    let sealed = store::Options { seal: Some(seal), ..store::Options::default() };
    let store = Store::open_with(ledger.clone(), &plurals, sealed)?;
    let blobs = Blobs::open(folder.join("artifacts"))?;
    let uploads = folder.join("artifacts/uploads");
    let registry = Registry::open(&uploads, blobs.clone(), ledger.clone(), registry::Limits::default())?;
    let parent = is_below.then(Upstream::default);
    let registry = match &parent {
        Some(parent) => registry.with_origin(Arc::new(parent.clone())),
        None => registry,
    };
    let measurements = controllers::Measurements::of(&options.metrics_origins)
        .map_err(|problem| anyhow::anyhow!("--metrics-origin: {problem}"))?;
    let hub = Hub {
        id: identity(&folder)?,
        site: site.to_owned(),
        store: store.clone(),
        tokens,
        identities: identities(&ledger, &trust, options)?,
        site_tokens: SiteTokens::open(&folder.join("site-tokens.key"))?,
        service_accounts: ServiceAccounts::open(
            &folder.join("service-account.key"),
            &options.service_account_issuer,
        )?,
        oidc: trusted_issuer(&options.oidc)?,
        heartbeats: Heartbeats::new(Duration::from_secs(options.grace)),
        blobs,
        parent,
        registry: registry.clone(),
        relay: api::Relay::default(),
        peers: api::Peers::default(),
        outlooks: api::Outlooks::new(measurements.clone()),
        egress: api::Egress::new(api::EgressOptions {
            bytes_per_second: options
                .limits
                .max_artifact_bytes_per_second
                .as_ref()
                .map(types::Quantity::bytes),
            at_once: options.limits.max_artifact_downloads,
        }),
        mailbox: Mailbox::open(&folder.join("mailbox"), ledger)?
            .holding(options.limits.max_mailbox_bytes.bytes()),
        sources: SourceQueue::default(),
        errands: Errands::default(),
        pages: api::Pages::default(),
        limits: api::Limits::new(api::LimitOptions {
            requests_per_second: options.limits.max_requests_per_second,
            requests_at_once: options.limits.max_requests_at_once,
            watches: options.limits.max_watches,
            objects: options.limits.max_objects,
        }),
        rbac: Rbac::new(store),
        quota_turns: api::QuotaTurns::default(),
        metrics: api::Metrics::default(),
        audit: audit(&folder, options, tasks)?,
        shutdown: tasks.shutdown(),
    };
    api::bootstrap(&hub.store, daemon::now()).await?;
    hub.identities.revoked().iter().for_each(|site| hub.heartbeats.revoked(site, true));
    let events = Events::new(hub.store.clone());
    let (store, heartbeats, recorder) = (hub.store.clone(), hub.heartbeats.clone(), events.clone());
    let measured = measurements.clone();
    tasks.supervise("controllers", move |shutdown| {
        controllers::run(store.clone(), heartbeats.clone(), measured.clone(), recorder.clone(), shutdown)
    });
    let (store, shutdown) = (hub.store.clone(), tasks.shutdown());
    tasks.spawn("measurements", controllers::run_measurements(store, measurements, shutdown));
    let (store, shutdown) = (hub.store.clone(), tasks.shutdown());
    tasks.spawn("history", async move {
        while shutdown.sleep(FORGET).await {
            store.forget_old();
        }
    });
    let (known_by, certificates) = watch::channel(access.authority.as_str().into());
    let authority = controllers::Authority { certificates, signer: Arc::new(HubSigner(authorities)) };
    tasks.spawn(
        "authority",
        tell_of_authority(trust, data.to_owned(), access.clone(), known_by, tasks.shutdown()),
    );
    follow_sources(&hub, &folder, options, &events, tasks);
    let (tended, recorder) = (hub.clone(), events.clone());
    tasks.supervise("mailbox", move |shutdown| api::tend_mailbox(tended.clone(), recorder.clone(), shutdown));
    if options.artifact_gc > 0 {
        let (every, shutdown) = (Duration::from_secs(options.artifact_gc), tasks.shutdown());
        tasks.spawn("artifact-gc", api::collect_garbage_regularly(hub.clone(), every, shutdown));
    }
    let store = hub.store.clone();
    tasks.supervise("lifecycle", move |shutdown| {
        controllers::run_lifecycle(store.clone(), events.clone(), authority.clone(), shutdown)
    });
    let shutdown = tasks.shutdown();
    tasks.spawn("certificate", async move { served.keep_fresh(shutdown).await });
    tasks.supervise("registry-uploads", move |shutdown| registry.clone().keep_tidy(shutdown));
    let (serving, certificates) = (hub.clone(), tls.clone());
    tasks.spawn("registry", async move {
        api::serve_registry(images, certificates, serving).await;
    });
    let serving = hub.clone();
    tasks.spawn("api", async move {
        let _lock = lock;
        api::serve(listener, tls, serving).await;
    });
    Ok((access, hub, registry_address))
}

/// Keeps applied what Git repositories say.
fn follow_sources(hub: &Hub, folder: &Path, options: &ListenHub, events: &Events, tasks: &Tasks) {
    let git = sources::Options {
        folder: folder.join("sources"),
        protocols: options.source_protocols.clone(),
        hosts: options.source_hosts.clone(),
        limits: sources::Limits::default(),
    };
    let (store, events) = (hub.store.clone(), events.clone());
    let cluster = Arc::new(api::Inside::new(hub.clone()));
    let wanted = SourceOptions { git, cluster, queue: hub.sources.clone(), errands: hub.errands.clone() };
    tasks.supervise("sources", move |shutdown| {
        controllers::run_sources(store.clone(), events.clone(), wanted.clone(), shutdown)
    });
}

/// Where the hub's own certificate comes from.
fn certificate_source(options: &ListenHub, authorities: &Arc<Authorities>, names: Vec<String>) -> Source {
    match (&options.tls_cert_file, &options.tls_key_file) {
        (Some(certificate), Some(key)) => {
            Source::Files { certificate: certificate.clone(), key: key.clone() }
        }
        _ => Source::Authority { authorities: authorities.clone(), names },
    }
}

/// Where clients reach the hub: a given certificate is for a name, the hub's own for the address, too.
fn reached_at(options: &ListenHub, address: SocketAddr) -> String {
    match options.names.first().filter(|_| options.tls_cert_file.is_some()) {
        Some(name) => format!("https://{name}:{}", address.port()),
        None => format!("https://{address}"),
    }
}

/// The certificates in a file that the options name, if they name one.
fn given(file: &Option<PathBuf>) -> anyhow::Result<String> {
    file.as_deref().map(read_text).transpose().map(Option::unwrap_or_default)
}

/// Whenever an authority comes or goes, says so where people and programs look for it: in the kubeconfig, and in each
/// namespace.
async fn tell_of_authority(
    trust: Trust,
    data: PathBuf,
    access: HubAccess,
    known_by: watch::Sender<Arc<str>>,
    shutdown: Shutdown,
) {
    let mut changed = trust.authorities.subscribe();
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = changed.changed() => {}
        }
        let access = HubAccess { authority: trust.bundle(), ..access.clone() };
        if let Err(error) = config::write_kubeconfig(&data, &access) {
            eprintln!("warning: the kubeconfig can't be written, the next start writes it: {error:#}");
        }
        known_by.send_replace(access.authority.as_str().into());
    }
}

/// The issuer whose tokens are taken, if one is named. It is not asked for anything yet.
fn trusted_issuer(options: &OidcArgs) -> anyhow::Result<Option<Arc<Oidc>>> {
    let (Some(issuer_url), Some(client_id)) = (&options.oidc_issuer_url, &options.oidc_client_id) else {
        return Ok(None);
    };
    let authority = options.oidc_ca_file.as_deref().map(read_text).transpose()?;
    let oidc = Oidc::new(OidcOptions {
        issuer_url: issuer_url.clone(),
        client_id: client_id.clone(),
        username_claim: options.oidc_username_claim.clone(),
        username_prefix: options.oidc_username_prefix.clone(),
        groups_claim: options.oidc_groups_claim.clone(),
        groups_prefix: options.oidc_groups_prefix.clone(),
        authority,
    });
    Ok(Some(Arc::new(oidc.context("the OpenID Connect issuer can't be used")?)))
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
}

/// The keys of sites, and how long their certificates are good.
fn identities(ledger: &Ledger, trust: &Trust, options: &ListenHub) -> anyhow::Result<Identities> {
    let identity = IdentityOptions {
        ttl: Duration::from_secs(options.site_certificate_ttl),
        grace: Duration::from_secs(options.site_certificate_grace),
    };
    Ok(Identities::open(ledger.clone(), trust.clone(), identity)?)
}

/// Signs with the hub's authority.
struct HubSigner(Arc<Authorities>);

impl Signer for HubSigner {
    fn applicant(&self, request: &str) -> Result<Applicant, String> {
        let (name, groups) = tls::applicant(request).map_err(|error| daemon::chain(&error))?;
        Ok(Applicant { name, groups })
    }

    fn sign(&self, request: &str, ttl: Duration, usages: &[String]) -> Result<String, String> {
        let usages: Vec<Usage> = usages.iter().filter_map(|usage| Usage::named(usage)).collect();
        self.0
            .stage()
            .signing()
            .sign(request, ttl, &usages, daemon::now())
            .map_err(|error| daemon::chain(&error))
    }
}

/// Where the options say that requests are written down.
fn audit(folder: &Path, options: &ListenHub, tasks: &Tasks) -> anyhow::Result<Audit> {
    let file = options.audit_log.clone().unwrap_or_else(|| folder.join("audit.log"));
    if file == Path::new("off") {
        return Ok(Audit::off());
    }
    let wanted = api::audit::Options { reads: options.audit_reads, ..api::audit::Options::to(file.clone()) };
    Audit::start(wanted, tasks).with_context(|| format!("can't write the audit log to {}", file.display()))
}

/// The hub's identity, made at its first start.
fn identity(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id);
    }
    let id = daemon::random_hex(8)?;
    daemon::write_durably(&path, id.as_bytes())?;
    Ok(id)
}
