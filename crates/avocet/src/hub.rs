//! Starting a hub, and its join tokens.

use std::path::Path;
use std::time::Duration;

use agent::JoinToken;
use anyhow::{Context, ensure};
use api::{Hub, Mailbox, SiteTokens, audit::Audit, auth::Identity, auth::Tokens, rbac::Rbac};
use artifacts::Blobs;
use controllers::Heartbeats;
use daemon::Tasks;
use daemon::tls::Authority;
use reqwest::Method;
use serde_json::{Value, json};
use store::{Ledger, Store};
use tokio::net::TcpListener;

use crate::cli::{ClientOptions, JoinTokenOptions, ListenHub};
use crate::config::{self, HubAccess};

/// Starts a hub; answers its address, and itself.
pub async fn start(
    data: &Path,
    site: &str,
    options: &ListenHub,
    tasks: &Tasks,
) -> anyhow::Result<(HubAccess, Hub)> {
    ensure!(
        types::names::is_dns_label(site),
        "--site {site:?} is not a name: write 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"
    );
    let folder = data.join("hub");
    let listener = TcpListener::bind(options.listen).await.with_context(|| {
        format!(
            "can't listen on {}; is it taken? Another port, or 0 for a free one, can be given with --listen",
            options.listen
        )
    })?;
    let address = listener.local_addr()?;
    let authority = Authority::open(&folder)?;
    let mut names =
        vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), address.ip().to_string()];
    names.extend(options.names.iter().cloned());
    let tls = authority.server(names).context("a name of the hub can't be put into its certificate")?;
    let ledger = Ledger::open(&folder.join("hub.db"))?;
    let plurals: Vec<&'static str> = types::kinds().map(|info| info.plural).collect();
    let tokens = Tokens::new(ledger.clone());
    let token = match config::read_kubeconfig(&config::kubeconfig_file(data)) {
        Ok(known) if tokens.identify(&known.token) == Ok(Identity::Admin) => known.token,
        _ => {
            let token = daemon::random_hex(24)?;
            tokens.grant(&token, Identity::Admin).await?;
            token
        }
    };
    let access = HubAccess {
        server: format!("https://{address}"),
        authority: authority.certificate().to_owned(),
        token,
    };
    config::write_kubeconfig(data, &access)?;
    let store = Store::open(ledger.clone(), &plurals)?;
    let hub = Hub {
        id: identity(&folder)?,
        site: site.to_owned(),
        store: store.clone(),
        tokens,
        site_tokens: SiteTokens::open(&folder.join("site-tokens.key"))?,
        heartbeats: Heartbeats::new(Duration::from_secs(options.grace)),
        blobs: Blobs::open(folder.join("artifacts"))?,
        mailbox: Mailbox::open(&folder.join("mailbox"), ledger)?,
        pages: api::Pages::default(),
        rbac: Rbac::new(store),
        audit: audit(&folder, options, tasks)?,
        shutdown: tasks.shutdown(),
    };
    api::bootstrap(&hub.store, daemon::now()).await?;
    let (store, heartbeats) = (hub.store.clone(), hub.heartbeats.clone());
    tasks.supervise("controllers", move |shutdown| {
        controllers::run(store.clone(), heartbeats.clone(), shutdown)
    });
    let serving = hub.clone();
    tasks.spawn("api", async move {
        if let Err(error) = api::serve(listener, tls, serving).await {
            eprintln!("error: the API ended: {error}");
        }
    });
    Ok((access, hub))
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

pub async fn join_token(options: &ClientOptions, wanted: JoinTokenOptions) -> anyhow::Result<()> {
    let access = config::hub_access(options)?;
    let client = access.client()?;
    let request = json!({"site": wanted.site, "ttlSeconds": wanted.ttl});
    let answer: Value =
        client.json(client.request(Method::POST, "/avocet/v1/join-tokens").json(&request)).await?;
    let secret = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
    println!("{}", JoinToken { secret, authority: access.authority }.encode());
    eprintln!("# on the machine that joins as `{}`, once, within {} s:", wanted.site, wanted.ttl);
    eprintln!("#   avocet agent --join {} --token <the token above>", client.base());
    Ok(())
}
