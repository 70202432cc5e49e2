//! The command line.

#[cfg(test)]
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use types::Quantity;

use crate::artifact::ArtifactCommand;
use crate::authority::AuthorityCommand;
use crate::engines::{InstallOptions, Libraries};
use crate::join::{CertificateCommand, JoinTokenOptions, SiteCommand};
use crate::model::ModelCommand;
use crate::rollout::RolloutCommand;
use crate::serve::ServeOptions;
use crate::source::SourceCommand;

/// Runs AI applications over cloud and edge: one program, from a laptop to a tree of sites.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
    avocet up                                     a hub and a site on this machine\n  \
    avocet apply -f application.yaml              state an application\n  \
    avocet get applications --watch               see it come up\n  \
    avocet cp photo.jpg SITE:photos/in/           feed it\n\n\
    kubectl works too: kubectl --kubeconfig ~/.avocet/kubeconfig get applications"
)]
pub struct Cli {
    #[command(flatten)]
    pub client: ClientOptions,
    #[command(subcommand)]
    pub command: Command,
}

/// How commands find the hub.
#[derive(Args, Clone)]
pub struct ClientOptions {
    /// The file with the hub's address and your token, as `avocet up` wrote it
    #[arg(long, global = true, env = "AVOCET_KUBECONFIG", value_name = "FILE", help_heading = "Connection")]
    pub kubeconfig: Option<PathBuf>,
    /// Talks to one site directly, with the keys in its data folder's access.json; works without the hub
    #[arg(long, global = true, env = "AVOCET_SITE_ACCESS", value_name = "FILE", help_heading = "Connection")]
    pub site_access: Option<PathBuf>,
    /// The namespace to work in
    #[arg(short, long, global = true, default_value = "default", help_heading = "Connection")]
    pub namespace: String,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a hub and a site in one process
    Up(Box<UpOptions>),
    /// Run a hub alone
    Hub(HubOptions),
    /// Run a site that joins a hub
    Agent(AgentOptions),
    /// Serve models from disk, without a hub: REST and gRPC, in Triton's protocol
    Serve(Box<ServeOptions>),
    /// Write all that a hub keeps into one file, while it runs
    Backup(BackupOptions),
    /// Make a hub's data folder from a backup
    Restore(RestoreOptions),
    /// Make, list and revoke single-use tokens that let a machine join as a site
    JoinToken(JoinTokenOptions),
    /// Draw the tree of sites, or revoke what one proves itself with
    #[command(subcommand, visible_alias = "sites")]
    Site(SiteCommand),
    /// Let in, or refuse, who asks for a certificate
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Show the authority that a hub is known by, and replace it by another one
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Make, list and revoke tokens for people and programs
    #[command(subcommand)]
    Token(TokenCommand),
    /// Create or change resources from manifests, and upload the artifacts they name
    Apply(ApplyOptions),
    /// Upload a file or folder as an artifact, and print its digest
    Push(PushOptions),
    /// Look after the artifacts that a hub keeps
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// List resources, or the invocations of a site
    Get(GetOptions),
    /// Show a resource, its conditions and what belongs to it
    Describe(NamedOptions),
    /// Delete resources
    Delete(DeleteOptions),
    /// Show what an invocation printed
    Logs(LogsOptions),
    /// Run a function on a file now, or replay a failed invocation
    Invoke(InvokeOptions),
    /// Copy files to and from the buckets of sites
    Cp(CopyOptions),
    /// List the objects in a bucket of a site
    Ls(ListOptions),
    /// Print the address of the hub's page, with your token in it
    #[command(after_help = "Example:\n  xdg-open \"$(avocet ui)\"")]
    Ui,
    /// Say why a placement chose its sites and not the others
    Explain(ExplainOptions),
    /// See how a change reaches its sites; pause, promote, abort and undo it
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Follow Git repositories: see what is applied, look now, suspend, resume
    #[command(subcommand, visible_alias = "sources")]
    Source(SourceCommand),
    /// Look at what placements would decide
    #[command(subcommand)]
    Placement(PlacementCommand),
    /// Say which inference engines work on this machine, and why
    Engines(EnginesOptions),
    /// Look into a model file before it is served, and at what models are doing
    #[command(subcommand, visible_alias = "models")]
    Model(ModelCommand),
    /// Print the kinds as CustomResourceDefinitions, for a Kubernetes cluster
    #[command(after_help = "Example:\n  avocet crds | kubectl apply -f -")]
    Crds,
    /// Print the version
    #[command(after_help = "Example:\n  avocet version")]
    Version,
    /// Print a completion script for your shell
    #[command(after_help = "Example:\n  avocet completion bash > /etc/bash_completion.d/avocet")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

pub fn complete(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "avocet", &mut std::io::stdout());
}

#[derive(Args, Clone)]
pub struct DataOptions {
    /// Where all state is kept [default: ~/.avocet]
    #[arg(long, env = "AVOCET_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, default_value = "info")]
    pub log: String,
    /// Serve models and buckets beyond loopback although these are not encrypted yet (the hub's API is)
    #[arg(long)]
    pub insecure_plain_http: bool,
}

#[derive(Args, Clone)]
pub struct ListenHub {
    /// Where the API listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where images and other OCI artifacts are pushed and pulled; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    pub listen_registry: SocketAddr,
    /// A further name or address of the hub, for its certificate; may be repeated
    #[arg(long = "hub-name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Whom the hub may ask for metrics that placements name, such as http://prometheus:9090; may be repeated
    #[arg(long = "metrics-origin", value_name = "ORIGIN")]
    pub metrics_origins: Vec<String>,
    /// A protocol in which Sources may ask Git repositories: https, ssh, http or file; may be repeated
    #[arg(
        long = "source-protocol",
        value_name = "PROTOCOL",
        default_values = ["https", "ssh"],
        value_parser = ["https", "ssh", "http", "file"]
    )]
    pub source_protocols: Vec<String>,
    /// The only hosts whose Git repositories Sources may follow; may be repeated [default: all]
    #[arg(long = "source-host", value_name = "HOST")]
    pub source_hosts: Vec<String>,
    /// The hub's certificate in PEM, followed by its chain up to the authority; read anew when it changes
    #[arg(long, requires = "tls_key_file", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, requires = "tls_cert_file", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// Further authorities (PEM) whose certificates clients may show: CN is the user, each O a group
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Who issues the tokens of service accounts, as they say it
    #[arg(long, default_value = api::authentication::DEFAULT_ISSUER, value_name = "URL")]
    pub service_account_issuer: String,
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Seconds without a heartbeat after which a site counts as silent
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub grace: u64,
    /// For how long the certificate of a site is good; it is renewed from two thirds of that on
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub site_certificate_ttl: u64,
    /// For how long after its certificate ended a site that was away gets another without a person
    #[arg(long, default_value = "90d", value_parser = duration, value_name = "DURATION")]
    pub site_certificate_grace: u64,
    /// Where it is written down who changed what, and who was refused; off for nowhere [default: audit.log beside the
    /// hub's data]
    #[arg(long, value_name = "FILE|off")]
    pub audit_log: Option<PathBuf>,
    /// Write down those requests, too, that change nothing
    #[arg(long)]
    pub audit_reads: bool,
    /// How often artifacts go that nothing has named for a week, and images of a hub above that nobody has pulled for a
    /// month: 30m, 24h or 7d; 0 for never
    #[arg(long, default_value = "24h", value_parser = duration_or_never, value_name = "DURATION")]
    pub artifact_gc: u64,
    #[command(flatten)]
    pub limits: HubLimits,
}

/// What clients of the hub's API may ask for; what is beyond is refused with 429 or 403.
#[derive(Args, Clone)]
pub struct HubLimits {
    /// Requests per second of one client; twice as many at once after a pause
    #[arg(long, default_value_t = 5000, value_name = "NUMBER")]
    pub max_requests_per_second: u32,
    /// Requests at work at once; one client has at most three quarters of them
    #[arg(long, default_value_t = 512, value_name = "NUMBER")]
    pub max_requests_at_once: usize,
    /// Watches of one client
    #[arg(long, default_value_t = 20_000, value_name = "NUMBER")]
    pub max_watches: usize,
    /// Objects of one kind in one namespace
    #[arg(long, default_value_t = 200_000, value_name = "NUMBER")]
    pub max_objects: usize,
    /// Artifacts and images sent at once; who finds no place is told to come again
    #[arg(long, default_value_t = 256, value_name = "NUMBER")]
    pub max_artifact_downloads: usize,
    /// Bytes of artifacts and images per second, all together, such as 10Mi [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub max_artifact_bytes_per_second: Option<Quantity>,
    /// Bytes of outputs that wait for one site, such as 10Gi; who has more for it keeps it until the site fetched some
    #[arg(long, default_value = "32Gi", value_name = "BYTES")]
    pub max_mailbox_bytes: Quantity,
}

/// People whom an OpenID Connect issuer knows.
#[derive(Args, Clone)]
pub struct OidcArgs {
    /// The OpenID Connect issuer whose tokens are taken
    #[arg(long, requires = "oidc_client_id", value_name = "URL", help_heading = "OpenID Connect")]
    pub oidc_issuer_url: Option<String>,
    /// The audience that its tokens must be for
    #[arg(long, requires = "oidc_issuer_url", value_name = "ID", help_heading = "OpenID Connect")]
    pub oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, default_value = "sub", value_name = "CLAIM", help_heading = "OpenID Connect")]
    pub oidc_username_claim: String,
    /// What is put before the name; - for nothing [default: the issuer and #, for email nothing]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "OpenID Connect")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, default_value = "", value_name = "CLAIM", help_heading = "OpenID Connect")]
    pub oidc_groups_claim: String,
    /// What is put before each group
    #[arg(long, default_value = "", value_name = "TEXT", help_heading = "OpenID Connect")]
    pub oidc_groups_prefix: String,
    /// Certificates (PEM) to know the issuer by [default: those that the machine trusts]
    #[arg(long, value_name = "FILE", help_heading = "OpenID Connect")]
    pub oidc_ca_file: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct ListenSite {
    /// Where models, functions and invocations listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    pub listen_inference: SocketAddr,
    /// Where models listen for gRPC; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8001", value_name = "ADDRESS")]
    pub listen_grpc: SocketAddr,
    /// Where the buckets listen (S3); port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    pub listen_objects: SocketAddr,
    /// Where images are pulled and pushed at the site, which asks its hub for what it lacks; port 0 takes a free one
    /// [default: 127.0.0.1:5000, beside a hub 127.0.0.1:5001]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_site_registry: Option<SocketAddr>,
    /// Where sites of the same hub and location fetch artifacts from this one, and it from them; port 0 takes a free one
    /// [default: off, all comes from the hub]
    #[arg(long, value_name = "ADDRESS")]
    pub listen_peers: Option<SocketAddr>,
    /// The site's place in the landscape
    #[arg(long, default_value = "edge", value_name = "TIER")]
    pub tier: String,
    /// Labels to join with
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Something that the site says of itself, for placements to select by; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    pub claims: Vec<String>,
    /// A location to measure the way to, by opening a connection to its URL now and then; may be repeated
    #[arg(long = "measure", value_name = "LOCATION=URL")]
    pub measure: Vec<String>,
    /// A document at a location that `--measure` names, of which 1 MiB at most is fetched once a day to see how wide the
    /// way is; may be repeated
    #[arg(long = "measure-width", value_name = "LOCATION=URL")]
    pub measure_width: Vec<String>,
    /// The Python that runs functions [default: python3 in the path]
    #[arg(long, env = "AVOCET_PYTHON", value_name = "FILE")]
    pub python: Option<PathBuf>,
    #[command(flatten)]
    pub libraries: Libraries,
    /// Run functions even where the kernel can't confine them
    #[arg(long)]
    pub allow_unconfined: bool,
    /// Load model files at once, without trying those that are new in a process of their own first
    #[arg(long, env = "AVOCET_TRUST_MODELS")]
    pub trust_models: bool,
    /// Keep what runs here as it is: ask the hub to leave this site out of rollouts
    #[arg(long, env = "AVOCET_ROLLOUT_OPT_OUT")]
    pub rollout_opt_out: bool,
    /// Take no work that other sites offer when they are busy
    #[arg(long, env = "AVOCET_REFUSE_OFFLOADS")]
    pub refuse_offloads: bool,
    /// How much of the disk to keep free, such as 2Gi: the oldest logs go first, then functions wait until there is room,
    /// and outputs are kept; 0 for none [default: a fiftieth of the disk, 16Mi to 512Mi]
    #[arg(long, env = "AVOCET_KEEP_FREE", value_name = "BYTES")]
    pub keep_free: Option<Quantity>,
    /// Answer MLBuffet's clients with its own status codes, such as 200 for what failed
    #[arg(long)]
    pub mlbuffet_legacy: bool,
    /// Where results of inference may be sent, such as https://hooks.example.com; may be repeated
    #[arg(long = "callback-origin", value_name = "ORIGIN")]
    pub callback_origins: Vec<String>,
    /// A host whose Git repositories the site fetches for Sources that name it; none by default, may be repeated
    #[arg(long = "fetch-host", value_name = "HOST")]
    pub fetch_hosts: Vec<String>,
    /// A protocol in which it may ask them: https, ssh, http or file; may be repeated
    #[arg(
        long = "fetch-protocol",
        value_name = "PROTOCOL",
        default_values = ["https", "ssh"],
        value_parser = ["https", "ssh", "http", "file"]
    )]
    pub fetch_protocols: Vec<String>,
    /// Where traces of inference are sent, such as http://127.0.0.1:4318 or, over gRPC, grpc://127.0.0.1:4317;
    /// OpenTelemetry's variables say more
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Start only models and functions that one of these keys (PEM, ed25519 or ECDSA P-256) signed
    #[arg(long, value_name = "FILE")]
    pub require_signatures: Option<PathBuf>,
    /// Let only images be pulled here that one of these keys signed, as cosign signs
    #[arg(long, value_name = "FILE")]
    pub require_image_signatures: Option<PathBuf>,
    /// Seconds between heartbeats, a third of the hub's --grace or less
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub heartbeat: u64,
}

impl ListenSite {
    /// Everywhere that it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let images = self.listen_site_registry.into_iter();
        images.chain([self.listen_inference, self.listen_grpc, self.listen_objects]).collect()
    }
}

/// A hub can be a site of another hub, with all its sites below it.
#[derive(Args, Clone)]
pub struct UplinkArgs {
    /// Be a site of the hub at this address, too; needed the first time
    #[arg(
        long,
        default_value = "",
        value_name = "URL",
        hide_default_value = true,
        help_heading = "Hub above"
    )]
    pub join: String,
    /// A join token of that hub, for the name that --site says; needed the first time
    #[arg(long, env = "AVOCET_JOIN_TOKEN", hide_env_values = true, help_heading = "Hub above")]
    pub token: Option<String>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    avocet up --site cloud --tier cloud --data /var/lib/avocet\n  \
    avocet up --site plant-7 --tier plant --join https://cloud:8080 --token TOKEN    a hub below another one")]
pub struct UpOptions {
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub hub: ListenHub,
    #[command(flatten)]
    pub site: ListenSite,
    #[command(flatten)]
    pub uplink: UplinkArgs,
    /// The site's name
    #[arg(long = "site", default_value = "local", value_name = "NAME")]
    pub name: String,
}

#[derive(Args)]
#[command(after_help = "Example:\n  avocet hub --site cloud --data /var/lib/avocet")]
pub struct HubOptions {
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub hub: ListenHub,
    #[command(flatten)]
    pub uplink: UplinkArgs,
    /// The name of the site that the hub is at: the parent of those that join
    #[arg(long = "site", default_value = "local", value_name = "NAME")]
    pub name: String,
}

#[derive(Args)]
#[command(
    after_help = "Example:\n  avocet agent --join https://127.0.0.1:8080 --token $(avocet join-token --site plant-7) --tier edge\n\n\
    `avocet join-token create --site plant-7` at the hub prints the whole command. A site that joined needs neither \
    --join nor --token again; a new token for the same name lets it join once more."
)]
pub struct AgentOptions {
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub site: ListenSite,
    /// The hub's address; needed the first time
    #[arg(long, default_value = "", value_name = "URL", hide_default_value = true)]
    pub join: String,
    /// The join token; needed the first time
    #[arg(long, env = "AVOCET_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet backup hub.tar\n  avocet backup /backups/hub.tar --data /var/lib/avocet --without-artifacts\n\n\
                  The file holds the hub's private keys and tokens, and where it is a site of another hub its key for that: \
                  keep it as you keep those. Not in there: what sites keep (that beside the hub, too), images that are \
                  being pushed, and what was fetched of Git repositories, which is fetched again."
)]
pub struct BackupOptions {
    /// The file to write; one that is there is replaced when the new one is whole
    pub file: PathBuf,
    /// Where the hub keeps its state [default: ~/.avocet]
    #[arg(long, env = "AVOCET_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Leave the artifacts out: after a restore they have to be applied or pushed again
    #[arg(long)]
    pub without_artifacts: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet restore hub.tar --data /var/lib/avocet\n  avocet restore hub.tar --force      \
                  replaces a hub, whose state is kept aside\n\n\
                  Everything is checked before anything is put in place. Clients that watched the old hub list again. A hub \
                  that is a site of another goes on as that, on this machine too: start the old one nowhere any more. \
                  If it joined anew after the backup, its key of then is refused, and it needs a new --join and --token."
)]
pub struct RestoreOptions {
    /// What `avocet backup` wrote
    pub file: PathBuf,
    /// Where the hub is to keep its state [default: ~/.avocet]
    #[arg(long, env = "AVOCET_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Replace the hub that is there; its state is moved aside, not deleted
    #[arg(long)]
    pub force: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Seconds, from 30s, 15m, 1h or 2d.
pub fn duration(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds).filter(|total| *total > 0)
    });
    found.ok_or_else(|| format!("`{text}` is not a duration; write for example 30s, 15m, 1h or 2d"))
}

/// The same, or 0 for what is never to happen.
pub fn duration_or_never(text: &str) -> Result<u64, String> {
    if text == "0" || text == "0s" { Ok(0) } else { duration(text) }
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token for a user and print it: it can't be shown again
    #[command(after_help = "Example:\n  avocet token create anna --group operators --ttl 30d")]
    Create {
        /// The user's name
        user: String,
        /// A group that the user is in; may be repeated. Admins are in system:masters
        #[arg(short, long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// How long it is good, for example 90s, 15m, 1h or 2d
        #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
        ttl: u64,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List tokens, without showing them
    #[command(after_help = "Examples:\n  avocet token list\n  avocet token list -o json")]
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a token away
    #[command(after_help = "Example:\n  avocet token revoke 7f3a9c51")]
    Revoke {
        /// Its id, as `avocet token list` shows it
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet apply -f application.yaml\n  avocet apply -f manifests/ --dry-run\n  \
                        cat site.yaml | avocet apply -f -"
)]
pub struct ApplyOptions {
    /// A manifest, a folder of them, or - for standard input; may be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only check
    #[arg(long)]
    pub dry_run: bool,
    /// Sign the artifacts that are uploaded, with this ed25519 key (PEM)
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  avocet push model.onnx\n  avocet push --bundle functions/")]
pub struct PushOptions {
    /// A file or a folder
    pub path: PathBuf,
    /// Pack it as a function's bundle, which folders always are
    #[arg(long)]
    pub bundle: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// kind/name
    Name,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  avocet get sites\n  avocet get application mask-detection -o yaml\n  \
                        avocet get applications --watch\n  avocet get invocations --site edge")]
pub struct GetOptions {
    /// What: sites, placements, applications, … or invocations
    pub kind: String,
    /// Only this one
    pub name: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Only those with these labels, for example tier=edge
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Go on and print what changes
    #[arg(short, long)]
    pub watch: bool,
    /// For invocations: only of this site
    #[arg(long)]
    pub site: Option<String>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  avocet describe application/mask-detection\n  \
                        avocet describe application/mask-detection -o json    with its Assignments")]
pub struct NamedOptions {
    /// KIND/NAME
    pub what: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet delete application/mask-detection\n  avocet delete -f application.yaml"
)]
pub struct DeleteOptions {
    /// KIND/NAME; may be repeated
    #[arg(required_unless_present = "files")]
    pub what: Vec<String>,
    /// What these manifests name
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet logs 3f2a…                 one invocation, by the beginning of its id\n  \
                        avocet logs function/anonymise    the newest invocation of a function"
)]
pub struct LogsOptions {
    /// The beginning of an invocation's id, or function/NAME
    pub what: String,
    /// The site where it ran; otherwise all are asked
    #[arg(long)]
    pub site: Option<String>,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  avocet invoke anonymise --site edge --file photo.jpg --output out/\n  \
                        avocet invoke --replay 3f2a --site edge")]
pub struct InvokeOptions {
    /// The function
    #[arg(required_unless_present = "replay")]
    pub function: Option<String>,
    /// The site where to run it
    #[arg(long)]
    pub site: Option<String>,
    /// The input
    #[arg(long, required_unless_present = "replay")]
    pub file: Option<PathBuf>,
    /// The folder for the outputs
    #[arg(long, default_value = ".")]
    pub output: PathBuf,
    /// Run a failed invocation anew; the beginning of its id is enough
    #[arg(long, value_name = "INVOCATION", conflicts_with = "file")]
    pub replay: Option<String>,
    /// How to print what came of it; --output is where the outputs go
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet cp *.jpg edge:photos/in/\n  avocet cp cloud:photos/result/a.json .\n  \
                        avocet cp cloud:photos/result/ results/    all that is in the folder"
)]
pub struct CopyOptions {
    /// From where, and last to where; a place at a site is SITE:BUCKET/KEY
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<String>,
}

#[derive(Args)]
#[command(after_help = "Example:\n  avocet ls edge:photos/in/")]
pub struct ListOptions {
    /// SITE:BUCKET/PREFIX
    pub place: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet explain placement/edge-sites\n  avocet explain placement/edge-sites --site plant-7 -o wide"
)]
pub struct ExplainOptions {
    /// placement/NAME
    pub what: String,
    /// Explain this site alone
    #[arg(long)]
    pub site: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Subcommand)]
pub enum PlacementCommand {
    /// Show which sites placements would select if manifests were applied, and why; nothing is applied
    Simulate(SimulateOptions),
}

#[derive(Args)]
#[command(after_help = "Example:\n  avocet placement simulate -f placement.yaml")]
pub struct SimulateOptions {
    /// A manifest of a Placement, Site, PlacementScore or Application, a folder of them, or - for standard input; may
    /// be repeated
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  avocet engines\n  avocet engines -o json\n  avocet engines install onnxruntime"
)]
pub struct EnginesOptions {
    #[command(subcommand)]
    pub command: Option<EnginesCommand>,
    #[command(flatten)]
    pub libraries: Libraries,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Subcommand)]
pub enum EnginesCommand {
    /// Bring an engine's library to this machine, out of its Python wheel
    #[command(after_help = "Examples:\n  avocet engines install onnxruntime\n  \
                            avocet engines install tensorflow --wheel tensorflow_cpu-2.21.0-….whl")]
    Install(InstallOptions),
}
