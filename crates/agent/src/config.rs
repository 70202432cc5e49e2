//! How a site is set up, and the keys to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artifacts::signature::TrustedKeys;
use serde::{Deserialize, Serialize};
use types::SmallMap;

use crate::Joining;

/// How a site is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where all state is kept.
    pub data: PathBuf,
    /// The hub's address, for example `http://127.0.0.1:8080`; empty uses the one that was joined.
    pub hub: String,
    /// A join token, needed the first time.
    pub join_token: Option<String>,
    /// The tier to join as.
    pub tier: String,
    /// The labels to join with.
    pub labels: SmallMap,
    /// What the operator says of the site, for selectors.
    pub claims: BTreeMap<String, String>,
    /// Locations to measure the way to: names with a URL there, of which host and port count.
    pub measure: BTreeMap<String, String>,
    /// Of these, documents there that tell how wide the way is: names with a URL.
    pub measure_width: BTreeMap<String, String>,
    /// Where the Open Inference Protocol, functions and invocations are served.
    pub listen: SocketAddr,
    /// Where the Open Inference Protocol is served over gRPC.
    pub listen_grpc: SocketAddr,
    /// Where S3 is served.
    pub listen_objects: SocketAddr,
    /// Where images and other OCI artifacts are served.
    pub listen_registry: SocketAddr,
    /// Where neighbours fetch artifacts; absent takes no part in that.
    pub listen_peers: Option<SocketAddr>,
    /// The Python that runs functions; absent looks for `python3`.
    pub python: Option<PathBuf>,
    /// ONNX Runtime's shared library; absent looks in the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// TensorFlow's shared library; absent looks in the usual places.
    pub tensorflow: Option<PathBuf>,
    /// Runs functions even where the kernel can't confine them.
    pub allow_unconfined: bool,
    /// Loads model files without trying those that are new in a process of their own first.
    pub trust_models: bool,
    /// Asks the hub to leave the site out of rollouts.
    pub rollout_opt_out: bool,
    /// Takes work that other sites offer.
    pub takes_offloads: bool,
    /// How many bytes of the disk are kept free: the oldest telemetry goes first, then functions wait. Absent is a fiftieth of
    /// the disk, 512 MiB at most; 0 is none.
    pub keep_free: Option<u64>,
    /// How often the hub hears of the site.
    pub heartbeat: Duration,
    /// Answers MLBuffet's clients with its own status codes, which are odd in places.
    pub mlbuffet_legacy: bool,
    /// Whose signatures models and functions need; none do if absent.
    pub signers: Option<TrustedKeys>,
    /// Whose signatures images need that are pulled here; none do if absent.
    pub image_signers: Option<TrustedKeys>,
    /// Where results of inference may be sent, for example `https://hooks.example.com`; none are if empty.
    pub callback_origins: Vec<String>,
    /// The hosts whose Git repositories are fetched for the hub; none are if empty.
    pub fetch_hosts: Vec<String>,
    /// The protocols in which they are asked.
    pub fetch_protocols: Vec<String>,
    /// Where traces of inference are sent, and which; absent traces nothing.
    pub traces: Option<serving::TraceSettings>,
}

impl Config {
    /// What is needed to join.
    pub fn joining(&self) -> Joining {
        Joining {
            data: self.data.clone(),
            hub: self.hub.clone(),
            join_token: self.join_token.clone(),
            tier: self.tier.clone(),
            labels: self.labels.clone(),
        }
    }

    /// Where invocations work.
    pub(crate) fn work(&self) -> PathBuf {
        self.data.join("work")
    }

    /// Where the logs of invocations are kept.
    pub(crate) fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// What of Git repositories is fetched for the hub, if anything is.
    pub(crate) fn fetches(&self) -> Option<sources::Options> {
        let limits = sources::Limits::default();
        let hosts = self.fetch_hosts.clone();
        let protocols: Vec<String> = self.fetch_protocols.clone();
        let folder = self.data.join("sources");
        // An empty list of hosts means all of them to a hub, and none to a site: then only its own disk is left.
        let protocols = if hosts.is_empty() {
            protocols.into_iter().filter(|one| one == "file").collect()
        } else {
            protocols
        };
        (!protocols.is_empty()).then_some(sources::Options { folder, protocols, hosts, limits })
    }

    /// Where requests to models that ask for it are logged.
    pub(crate) fn payload_log(&self) -> PathBuf {
        self.logs().join("payloads/payloads.jsonl")
    }

    /// Where outputs wait to travel.
    pub(crate) fn outbox(&self) -> PathBuf {
        self.data.join("outbox")
    }

    /// Where uploaded models are.
    pub(crate) fn models(&self) -> PathBuf {
        self.data.join("models")
    }

    /// Where requests are that are answered later.
    pub(crate) fn jobs(&self) -> PathBuf {
        self.data.join("jobs")
    }

    /// Where unpacked functions are.
    pub(crate) fn functions(&self) -> PathBuf {
        self.data.join("functions")
    }
}

/// The keys to a site and where it listens, in `access.json` of its data folder, readable by its owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The site's name.
    pub site: String,
    /// URL of the Open Inference Protocol, functions and invocations.
    pub inference: String,
    /// Address of the Open Inference Protocol over gRPC.
    #[serde(default)]
    pub grpc: String,
    /// URL of S3.
    pub objects: String,
    /// Address of the registry of images.
    #[serde(default)]
    pub registry: String,
    /// Lets whoever reaches the registry from this machine pull without a token.
    #[serde(default)]
    pub anonymous_pulls: bool,
    /// Bearer token for functions, invocations and the registry.
    pub token: String,
    /// S3 access key.
    pub access_key: String,
    /// S3 secret key.
    pub secret_key: String,
    /// Signs results of inference that are sent to callbacks.
    #[serde(default)]
    pub callback_secret: String,
}

/// Where a site listens now.
pub(crate) struct Listening {
    pub site: String,
    pub inference: String,
    pub grpc: String,
    pub objects: String,
    pub registry: String,
}

impl Access {
    /// The file in a data folder.
    pub fn file(data: &Path) -> PathBuf {
        data.join("access.json")
    }

    /// Reads the keys of a data folder.
    ///
    /// # Errors
    /// If the file is not there or can't be read.
    pub fn read(data: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(Self::file(data))?)?)
    }

    /// Keeps the keys that are there, makes them the first time, and notes where the site listens now.
    pub(crate) fn renew(data: &Path, here: Listening) -> std::io::Result<Self> {
        let Listening { site, inference, grpc, objects, registry } = here;
        let access = match Self::read(data) {
            Ok(old) => Self { site, inference, grpc, objects, registry, ..old },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self {
                site,
                inference,
                grpc,
                objects,
                registry,
                anonymous_pulls: false,
                token: daemon::random_hex(24)?,
                access_key: daemon::random_hex(10)?,
                secret_key: daemon::random_hex(20)?,
                callback_secret: String::new(),
            },
            Err(error) => return Err(error),
        };
        // Sites of older versions have none.
        let callback_secret = match access.callback_secret.is_empty() {
            true => daemon::random_hex(24)?,
            false => access.callback_secret.clone(),
        };
        let access = Self { callback_secret, ..access };
        daemon::write_private(&Self::file(data), serde_json::to_string_pretty(&access)?.as_bytes())?;
        Ok(access)
    }
}
