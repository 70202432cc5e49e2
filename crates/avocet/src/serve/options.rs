//! What `serve` can be told.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use types::Quantity;

use crate::engines::Libraries;

/// A TiB: more is a mistake.
const MOST_MIB: u64 = 1 << 20;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    avocet serve iris.onnx                          one model\n  \
    avocet serve models/                            a folder of models, see below\n  \
    avocet serve models/ --model-control poll       follows what changes in the folder\n  \
    avocet serve models/ --model-control explicit --load-model '*'    and lets clients load and unload\n  \
    avocet serve models/ --lazy --model-memory 2Gi  loads a model when it is asked for, and lets go of the least used\n  \
    avocet serve models/ --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --token-file tokens\n\n\
    A folder holds model files (NAME.onnx, .tflite, .pb, .zip or .tar.gz, and what XGBoost and LightGBM save), folders\n\
    of models (NAME/model.onnx, or a SavedModel), and folders of versions (NAME/1/model.onnx, model.savedmodel,\n\
    model.graphdef, model.tflite, model.json, model.ubj or model.txt). Beside them config.pbtxt (Triton's) and\n\
    avocet.yaml (a Model's spec without its versions: aliases, traffic, serving) say how a model is served.\n\n\
    Ask it:\n  \
    curl localhost:8000/v2/models/iris\n  \
    curl localhost:8000/v2/models/iris/infer -d '{\"inputs\": [{\"name\": \"x\", \"shape\": [1, 4], \"datatype\": \"FP32\", \
    \"data\": [5.1, 3.5, 1.4, 0.2]}]}'")]
pub struct ServeOptions {
    /// Model files, folders of models, and models' own folders
    #[arg(required_unless_present = "data", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Take uploads of models (MLBuffet's API) and requests to be answered later (/v2/jobs), and keep them here
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// With --data: where results may be sent, such as https://hooks.example.com; may be repeated
    #[arg(long = "callback-origin", value_name = "ORIGIN", requires = "data")]
    pub callback_origins: Vec<String>,
    /// With --data: most GiB of all uploaded models together
    #[arg(long, default_value_t = 64, value_name = "GIB", requires = "data")]
    pub uploads_gib: u64,
    /// With --data: answer MLBuffet's clients with its own status codes, such as 200 for what failed
    #[arg(long, requires = "data")]
    pub mlbuffet_legacy: bool,
    /// Where traces are sent, such as http://127.0.0.1:4318 or, over gRPC, grpc://127.0.0.1:4317; OpenTelemetry's variables
    /// (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, …) say it, too, and more
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// The port for REST; 0 takes a free one
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    pub http_port: u16,
    /// The port for gRPC; 0 takes a free one
    #[arg(long, default_value_t = 8001, value_name = "PORT")]
    pub grpc_port: u16,
    /// A further port for /metrics, which is at the port for REST in any case; Triton's is 8002
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Log requests and answers as lines of JSON in this file, of 16 MiB at most, and three older ones
    #[arg(long, value_name = "FILE")]
    pub payload_log: Option<PathBuf>,
    /// With --payload-log: an input or output whose values are never written, of whichever model; may be repeated
    #[arg(long = "payload-redact", value_name = "NAME", requires = "payload_log")]
    pub payload_redact: Vec<String>,
    /// With --payload-log: the percentage of the requests, picked at random
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub payload_percent: u32,
    /// Who decides which models are loaded
    #[arg(long, value_enum, default_value_t)]
    pub model_control: ModelControl,
    /// With --model-control explicit: a model to begin with, or * for all; may be repeated
    #[arg(long = "load-model", value_name = "NAME")]
    pub load_models: Vec<String>,
    /// With --model-control poll: seconds between two looks
    #[arg(long, default_value_t = 15, value_name = "SECONDS")]
    pub poll_seconds: u64,
    /// Load each model when the first request asks for it; its avocet.yaml may say so for one model (serving.lazy)
    #[arg(long)]
    pub lazy: bool,
    /// Memory of models above which those go that are loaded on request and were not asked for the longest time, such as
    /// 2Gi [default: half of the machine's]
    #[arg(long, value_name = "BYTES")]
    pub model_memory: Option<Quantity>,
    /// Answers that are kept for equal requests, of all models that keep any (response_cache, serving.cache)
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..=MOST_MIB))]
    pub cache_mib: u64,
    /// Requests that wait for a thread; more are refused as overload
    #[arg(long, default_value_t = 256, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,
    /// Largest request in MiB; its tensors may have four times as many bytes, and those of all that wait eight times
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=MOST_MIB))]
    pub max_message_mib: u64,
    /// Threads that run models [default: one per core]
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<usize>,
    #[command(flatten)]
    pub libraries: Libraries,
    /// Run models that ask for a process of their own even where the kernel can't confine it
    #[arg(long)]
    pub allow_unconfined: bool,
    /// Load model files here at once, without trying those that are new in a process of their own first
    #[arg(long, env = "AVOCET_TRUST_MODELS")]
    pub trust_models: bool,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, default_value = "warn")]
    pub log: String,
    /// Tokens, one a line, of which clients have to show one (`Authorization: Bearer TOKEN`), but to ask for health; read
    /// anew when it changes
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Speak TLS alone, with this certificate in PEM, followed by its chain; read anew when it changes
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Listen beyond loopback although nothing is encrypted or nobody is asked for a token
    #[arg(long)]
    pub insecure_plain_http: bool,
}

/// Who decides which models are loaded.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ModelControl {
    /// What is there at the start, for good
    #[default]
    None,
    /// Clients, by load and unload
    Explicit,
    /// The folder: what changes in it is followed
    Poll,
}
