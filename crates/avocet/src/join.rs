//! `avocet join-token`, `avocet site` and `avocet certificate`: who may join, who is in, and who is out.

use agent::JoinToken;
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};
use types::Kind;
use types::core::CertificateSigningRequestSpec;

use crate::cli::{ClientOptions, Format, duration};
use crate::{config, output, site_tree};

const TOKENS: &str = "/avocet/v1/join-tokens";

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
    avocet join-token create --site plant-7 --ttl 1h     prints the command for the machine that joins\n  \
    avocet join-token create --site plant-7 --tier edge --label line=3 --approve manual\n  \
    avocet join-token --site plant-7                     prints the token alone, for scripts"
)]
pub struct JoinTokenOptions {
    #[command(subcommand)]
    pub command: Option<JoinTokenCommand>,
    #[command(flatten)]
    pub wanted: Wanted,
}

#[derive(Subcommand)]
pub enum JoinTokenCommand {
    /// Make a token, and print the command that joins with it: it can't be shown again
    #[command(after_help = "Example:\n  avocet join-token create --site plant-7 --ttl 1h")]
    Create {
        #[command(flatten)]
        wanted: Wanted,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List tokens that are good or were used of late, without showing them
    #[command(after_help = "Examples:\n  avocet join-token list\n  avocet join-token list -o json")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a token away; who joined with it stays
    #[command(after_help = "Example:\n  avocet join-token revoke 0f3a9c51")]
    Revoke {
        /// Its id, as `avocet join-token list` shows it
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Args)]
pub struct Wanted {
    /// The name that the joining site gets; it keeps it for good
    #[arg(long, required = true, value_name = "NAME")]
    pub site: Option<String>,
    /// For how long the token is good: 30s, 15m, 1h or 2d
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub ttl: u64,
    /// The site's place in the landscape [default: what the agent says]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIER")]
    pub tier: String,
    /// A label of the site, beside those that the agent names; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Who lets the machine in: the token, or a person with `avocet certificate approve`
    #[arg(long, value_enum, default_value_t)]
    pub approve: Approve,
}

/// Who lets a machine in.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Approve {
    /// The token alone
    #[default]
    Token,
    /// The token, and then a person
    Manual,
}

pub async fn join_token(client: &ClientOptions, options: JoinTokenOptions) -> anyhow::Result<()> {
    match options.command {
        None => {
            let made = create(client, &options.wanted).await?;
            println!("{}", made.token);
            eprintln!(
                "# on the machine that joins as `{}`, once, within {} s:",
                made.site, options.wanted.ttl
            );
            eprintln!("#   {}", made.command.replace(&made.token, "<the token above>"));
        }
        Some(JoinTokenCommand::Create { wanted, output }) => {
            let made = create(client, &wanted).await?;
            match output {
                Format::Json | Format::Yaml => output::print_value(&made.value(), output)?,
                _ => {
                    eprintln!(
                        "# on the machine that joins as `{}`, once, within {} s:",
                        made.site, wanted.ttl
                    );
                    println!("{}", made.command);
                    made.hint();
                }
            }
        }
        Some(JoinTokenCommand::List { output }) => list(client, output).await?,
        Some(JoinTokenCommand::Revoke { id, output }) => {
            let client = config::hub_client(client)?;
            client.send(client.request(Method::DELETE, &format!("{TOKENS}/{id}"))).await?;
            let done = json!({"id": id, "revoked": true});
            output::print_done(&done, &format!("join token {id} revoked"), &id, output)?;
        }
    }
    Ok(())
}

/// A token that was just made.
struct Made {
    site: String,
    token: String,
    hub: String,
    command: String,
    info: Value,
}

async fn create(options: &ClientOptions, wanted: &Wanted) -> anyhow::Result<Made> {
    let access = config::hub_access(options)?;
    let client = access.client()?;
    let mut labels = Map::new();
    for label in &wanted.labels {
        let (key, value) =
            label.split_once('=').with_context(|| format!("--label {label} is not KEY=VALUE"))?;
        labels.insert(key.to_owned(), json!(value));
    }
    let site = wanted.site.clone().unwrap_or_default();
    let request = json!({
        "site": site, "ttlSeconds": wanted.ttl, "tier": wanted.tier, "labels": labels,
        "manual": wanted.approve == Approve::Manual,
    });
    let answer: Value = client.json(client.request(Method::POST, TOKENS).json(&request)).await?;
    let secret = answer.get("token").and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = JoinToken { secret, authority: access.authority, site: site.clone() }.encode();
    let hub = client.base();
    let command = format!("avocet agent --join {hub} --token {token}");
    Ok(Made { site, token, hub, command, info: answer.get("info").cloned().unwrap_or_default() })
}

impl Made {
    fn value(&self) -> Value {
        json!({"site": self.site, "hub": self.hub, "token": self.token, "command": self.command, "info": self.info})
    }

    /// Where the address is good on this machine alone, says so.
    fn hint(&self) {
        if ["//127.", "//localhost", "//[::1]"].iter().any(|loopback| self.hub.contains(loopback)) {
            eprintln!(
                "# {} is this machine alone: for others, start the hub with --listen 0.0.0.0:8080 --hub-name NAME, and \
                 write that name in its place",
                self.hub
            );
        }
    }
}

async fn list(options: &ClientOptions, format: Format) -> anyhow::Result<()> {
    let client = config::hub_client(options)?;
    let listed: Value = client.json(client.request(Method::GET, TOKENS)).await?;
    if matches!(format, Format::Json | Format::Yaml) {
        return output::print_value(&listed, format);
    }
    let heading = ["ID", "SITE", "TIER", "APPROVAL", "CREATED", "EXPIRES", "USED"].map(str::to_owned);
    let tokens = listed.get("joinTokens").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<Vec<String>> = tokens
        .map(|token| {
            let text = |field: &str| token.get(field).map(output::cell).unwrap_or_default();
            let is = |field: &str| token.get(field) == Some(&Value::Bool(true));
            let approval = if is("manual") { "manual" } else { "token" }.to_owned();
            let used = if is("used") { "yes" } else { "no" }.to_owned();
            vec![text("id"), text("site"), text("tier"), approval, text("created"), text("expires"), used]
        })
        .collect();
    output::print_table(&heading, &rows, true);
    Ok(())
}

#[derive(Subcommand)]
pub enum SiteCommand {
    /// Take away all that a site proves itself with, at once: it runs on, but the hub hears it no more
    #[command(after_help = "Example:\n  avocet site revoke plant-7\n\n\
        What is assigned to the site stays, and so does its name: a machine that joins with a new token for it takes its \
        place (avocet join-token create --site plant-7). To give a site another key, as after a copy of its disk got about, \
        nothing need be revoked: make a new token and start its agent with it once. Its old key is refused from then on.")]
    Revoke {
        /// The site
        name: String,
    },
    /// Draw the tree of sites: who joined whom, who is heard, and how far each is from the one above
    #[command(
        after_help = "Examples:\n  avocet site tree\n  avocet site tree plant-7        it and what is below it\n  \
                            avocet site tree -o json"
    )]
    Tree {
        /// Draw one site and what is below it
        name: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

pub async fn site(options: &ClientOptions, command: SiteCommand) -> anyhow::Result<()> {
    let name = match command {
        SiteCommand::Revoke { name } => name,
        SiteCommand::Tree { name, output } => {
            return site_tree::print(options, name.as_deref(), output).await;
        }
    };
    let client = config::hub_client(options)?;
    client.send(client.request(Method::POST, &format!("/avocet/v1/sites/{name}/revoke"))).await?;
    println!("site {name} revoked: its certificates are refused from now on");
    Ok(())
}

#[derive(Subcommand)]
pub enum CertificateCommand {
    /// List requests for certificates
    #[command(after_help = "Examples:\n  avocet certificate list\n  avocet certificate list -o json")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Let in who made a request
    #[command(after_help = "Example:\n  avocet certificate approve site-plant-7-0f3a9c51d2e8")]
    Approve {
        /// The request
        name: String,
    },
    /// Refuse a request
    #[command(
        after_help = "Example:\n  avocet certificate deny site-plant-7-0f3a9c51d2e8 --message \"not one of ours\""
    )]
    Deny {
        /// The request
        name: String,
        /// Why, for whoever made it
        #[arg(long, default_value = "denied by a person", value_name = "TEXT")]
        message: String,
    },
}

pub async fn certificate(options: &ClientOptions, command: CertificateCommand) -> anyhow::Result<()> {
    let client = config::hub_client(options)?;
    match command {
        CertificateCommand::List { output: format } => {
            let (requests, _) = client.list::<CertificateSigningRequestSpec>("").await?;
            match format {
                Format::Json | Format::Yaml => {
                    return output::print_value(&json!({"items": requests}), format);
                }
                Format::Name => {
                    requests.iter().for_each(|request| println!("{}", request.name()));
                    return Ok(());
                }
                Format::Table | Format::Wide => {}
            }
            let heading = ["NAME", "FOR", "SIGNER", "STATE", "CREATED"].map(str::to_owned);
            let rows: Vec<Vec<String>> = requests
                .iter()
                .map(|request| {
                    let states = request.status.conditions.iter().map(|condition| condition.kind.as_str());
                    let states: Vec<&str> = states.collect();
                    let state = if states.is_empty() { "Pending".to_owned() } else { states.join(",") };
                    let created = request.metadata.creation_timestamp.map(|time| time.to_string());
                    let signer = request.spec.signer_name.clone();
                    let subject = subject(&request.spec.request);
                    vec![request.name().to_owned(), subject, signer, state, created.unwrap_or_default()]
                })
                .collect();
            output::print_table(&heading, &rows, true);
        }
        CertificateCommand::Approve { name } => {
            decide(&client, &name, "Approved", "ApprovedByPerson", "approved with avocet").await?;
            println!("{name} approved");
        }
        CertificateCommand::Deny { name, message } => {
            decide(&client, &name, "Denied", "DeniedByPerson", &message).await?;
            println!("{name} denied");
        }
    }
    Ok(())
}

/// Whom a request is for.
fn subject(request: &str) -> String {
    let text = STANDARD.decode(request).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let applicant = text.and_then(|text| daemon::tls::applicant(&text).ok());
    applicant.map_or_else(|| "?".to_owned(), |(name, groups)| format!("{name} ({})", groups.join(",")))
}

async fn decide(
    client: &api::Client,
    name: &str,
    kind: &str,
    reason: &str,
    message: &str,
) -> anyhow::Result<()> {
    let path = api::client::path(CertificateSigningRequestSpec::PLURAL, "", name);
    let mut request: Value = client.json(client.request(Method::GET, &path)).await?;
    let decided = json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let Some(fields) = request.as_object_mut() else { bail!("{name} is no request") };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) if conditions.iter().any(|known| known.get("type") == decided.get("type")) => {
            return Ok(());
        }
        Some(conditions) => conditions.push(decided),
        None => *status = json!({"conditions": [decided]}),
    }
    client.send(client.request(Method::PUT, &format!("{path}/approval")).json(&request)).await?;
    Ok(())
}
