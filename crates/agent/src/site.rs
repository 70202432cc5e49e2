//! Puts the parts of a site together and starts them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use api::{Arriving, Client, Upstream, client};
use artifacts::Blobs;
use daemon::Tasks;
use inference::{EngineOptions, Engines, Repository, WorkerCommand};
use objects::Objects;
use registry::{Demand, Registry};
use runtimes::Runtimes;
use serving::mlbuffet::{self, Buffet};
use serving::{Jobs, Shelf, jobs, shelf};
use store::{Ledger, ledger};
use tokio::net::TcpListener;
use tracing::info;
use types::SiteStatus;

use crate::assignments::{Assignments, Progress};
use crate::bundles::Bundles;
use crate::config::{Access, Config, Listening};
use crate::facts::Facts;
use crate::front::{self, Front};
use crate::identity::Identity;
use crate::images;
use crate::invocations::Invocations;
use crate::links::{self, Links, Named};
use crate::membership::Membership;
use crate::offload::{self, Asking, Counters, Guests, Hosting, Line, Means, Offload, Rates};
use crate::outbox::Outbox;
use crate::peers::Peers;
use crate::prepare::{self, Preparer};
use crate::storage::Storage;
use crate::tokens::Tokens;
use crate::work::{self, Worker};
use crate::{errands, heartbeat, inbox, outbox, report, sync, trigger};

/// Why a site can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The site never joined and has no token to do so.
    #[error(
        "this site has not joined a hub yet; make a token with `avocet join-token create --site NAME` there and pass it as --token"
    )]
    NotJoined,
    /// What was given is no join token.
    #[error("the join token can't be read; copy all of what `avocet join-token` printed")]
    JoinToken,
    /// A join token for a site of another name.
    #[error(
        "this machine is site `{known}`, and the join token is for site `{wanted}`: a site keeps its name, for what it \
         was assigned and what it holds go by it. To make this machine another site, give it an empty --data folder"
    )]
    OtherName {
        /// The site that it is.
        known: String,
        /// The site that it was to become.
        wanted: String,
    },
    /// The site's key is damaged, or can't be made.
    #[error("the site's key can't be used")]
    Key(#[source] std::io::Error),
    /// The site has no key to prove itself with.
    #[error("the site has no key to ask for a certificate with; join again with a new token")]
    NoKey,
    /// The hub refused the join token.
    #[error("the hub refused to let this site join")]
    JoinRefused(#[source] client::Error),
    /// Another hub answers at the hub's address.
    #[error(
        "{url} is another hub (`{found}`) than the one this site joined (`{expected}`); it is not obeyed. Correct the address, or join anew with an empty data folder"
    )]
    AnotherHub {
        /// Where it was met.
        url: String,
        /// The hub that was joined.
        expected: String,
        /// The hub that answers.
        found: String,
    },
    /// The hub can't be reached or refuses.
    #[error("the hub does not answer as it should")]
    Hub(#[from] client::Error),
    /// A manifest from the hub can't be read.
    #[error("the hub sent something that can't be read; is it newer than this agent?")]
    Assignment(#[source] serde_json::Error),
    /// The site's own records can't be read or written.
    #[error("the site's records can't be read or written")]
    Ledger(#[from] ledger::Error),
    /// The buckets can't be read or written.
    #[error("the site's buckets can't be read or written")]
    Objects(#[from] objects::Error),
    /// The registry can't be read or written.
    #[error("the site's registry can't be read or written")]
    Registry(#[from] registry::Error),
    /// The artifacts can't be read or written.
    #[error("the site's artifacts can't be read or written")]
    Artifacts(#[from] artifacts::Error),
    /// The disk failed.
    #[error("can't read or write `{}`", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port can't be listened on.
    #[error("can't listen on {address}; is it taken? Another port, or 0 for a free one, can be given")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The uploaded models can't be read.
    #[error("the uploaded models can't be read")]
    Shelf(#[from] shelf::Error),
    /// The requests that are answered later can't be read or written.
    #[error("the requests that are answered later can't be read or written")]
    Jobs(#[from] jobs::Error),
    /// A place that results may be sent to can't be one.
    #[error("results can't be sent there")]
    CallbackOrigin(#[from] jobs::InvalidOrigin),
    /// Traces can't be sent as it is said.
    #[error(transparent)]
    Traces(#[from] serving::InvalidSetting),
    /// Inference can't start.
    #[error("inference can't start")]
    Inference(#[source] inference::Error),
    /// An invocation left more files than allowed.
    #[error("it left more than {0} files; write fewer, or one archive")]
    TooManyOutputs(usize),
    /// An invocation left a file whose name can't be part of a key.
    #[error(
        "the name of its output {0:?} can't be a key; write names in UTF-8, with their folders below 1024 bytes"
    )]
    OutputName(String),
    /// The hub shows a state that is older than one that was seen.
    #[error(
        "the hub shows version {found} of what is assigned, and version {seen} was seen before; it is not obeyed. If it \
         was made from a copy of its disk, use `avocet restore`, which lets it go on from a newer version"
    )]
    OlderHub {
        /// What it shows.
        found: u64,
        /// What was seen.
        seen: u64,
    },
    /// What the hub itself keeps can't be read or written.
    #[error("this hub's own records can't be read or written")]
    Store(#[from] store::Error),
    /// An output from the hub above has no place here.
    #[error("an output can't be delivered: {0}")]
    Undeliverable(String),
    /// What another site sent is not what it should be.
    #[error("another site sent what can't be used: {0}")]
    Damaged(String),
    /// The hub holds the connection and says nothing.
    #[error("the hub has been silent for too long; connecting anew")]
    Silent,
    /// The process is ending.
    #[error("the process is ending")]
    Interrupted,
}

impl Error {
    pub(crate) fn disk(path: &Path, source: std::io::Error) -> Self {
        Self::Disk { path: path.to_owned(), source }
    }
}

/// Failures of supervised tasks are logged with their causes.
struct Chained(Error);

impl std::fmt::Display for Chained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&daemon::chain(&self.0))
    }
}

/// Starts a site that has joined; answers its keys once it listens. `shim` is the command that confines functions.
///
/// # Errors
/// If its state can't be read or a port is taken. A hub that can't be reached is no error.
pub async fn start(
    config: Config,
    membership: Membership,
    shim: Vec<std::ffi::OsString>,
    worker: WorkerCommand,
    tasks: &Tasks,
) -> Result<Arc<Access>, Error> {
    for folder in [config.work(), config.logs(), config.outbox(), config.functions()] {
        std::fs::create_dir_all(&folder).map_err(|error| Error::disk(&folder, error))?;
    }
    let listener = listen(config.listen).await?;
    let grpc_listener = listen(config.listen_grpc).await?;
    let objects_listener = listen(config.listen_objects).await?;
    let registry_listener = listen(config.listen_registry).await?;
    let peers_listener = match config.listen_peers {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let inference = format!("http://{}", address(&listener)?);
    let here = Listening {
        site: membership.site.clone(),
        inference: inference.clone(),
        grpc: address(&grpc_listener)?.to_string(),
        objects: format!("http://{}", address(&objects_listener)?),
        registry: address(&registry_listener)?.to_string(),
    };
    let access = Access::renew(&config.data, here);
    let access = Arc::new(access.map_err(|error| Error::disk(&Access::file(&config.data), error))?);

    let ledger = Ledger::open(&config.data.join("site.db"))?;
    let objects = Objects::open(&config.data.join("objects"), ledger.clone())?;
    let arriving = Arriving::open(&config.data.join("objects/arriving"))?;
    let blobs = Blobs::open(config.data.join("artifacts"))?;
    let uploads = config.data.join("artifacts/uploads");
    let registry = Registry::open(&uploads, blobs.clone(), ledger.clone(), registry::Limits::default())?;
    let assignments = Assignments::load(ledger.clone())?;
    let invocations = Invocations::load(ledger.clone(), config.logs())?;
    let outbox = Outbox::open(ledger.clone(), config.outbox())?;
    outbox.begin().await?;
    let guests = Guests::open(ledger.clone());
    let hosted = guests.all()?;
    let mut functions = prepare::function_folders(&assignments);
    functions.extend(offload::function_folders(&hosted));
    sweep(&config.functions(), &functions)?;
    let mut open = invocations.open_ids();
    open.extend(hosted.into_iter().map(|guest| guest.attempt));
    sweep(&config.work(), &open)?;
    sweep(&config.outbox(), &outbox.ids()?)?;
    let engines = Engines::discover(&EngineOptions {
        onnxruntime: config.onnxruntime.clone(),
        tensorflow: config.tensorflow.clone(),
        ..EngineOptions::default()
    });
    let worker = Some(worker.with_libraries(&engines));
    let options = inference::Options {
        worker,
        trust_models: config.trust_models,
        ledger: Some(ledger.clone()),
        ..inference::Options::default()
    };
    let repository = Repository::new(engines, options).map_err(Error::Inference)?;
    let assigned = assignments.clone();
    let taken = Arc::new(move |name: &str| prepare::is_assigned(&assigned, name));
    let bounds = shelf::Options { taken, ..shelf::Options::default() };
    let shelf = Shelf::open(&config.models(), ledger.clone(), repository.clone(), bounds)?;
    let runtimes = Runtimes::discover(runtimes::Options {
        python: config.python.clone(),
        shim,
        allow_unconfined: config.allow_unconfined,
    })
    .await;
    let facts = Facts::gather(&config.data, &access, &repository, &runtimes, &config.claims)
        .opted_out(config.rollout_opt_out);
    let storage = Storage::new(&config.data, &config.logs(), config.keep_free, invocations.clone());
    storage.clone().look_now().await?;
    let identity = Identity::open(&config.data, &membership)?;
    let parent = membership.parent.clone();
    let parent = if parent == membership.site { String::new() } else { parent };
    let named = Named { locations: config.measure.clone(), documents: config.measure_width.clone() };
    let links = Links::open(config.data.join("links.json"), parent, named);
    let worker = Worker {
        work: config.work(),
        bundles: Bundles::new(config.functions()),
        storage: storage.clone(),
        runtimes,
        objects: objects.clone(),
        outbox: outbox.clone(),
        invocations: invocations.clone(),
        assignments: assignments.clone(),
        inference_port: address(&listener)?.port(),
        inference,
        running: Arc::new(Mutex::new(HashMap::new())),
        rates: Rates::default(),
    };
    let client = identity.client().clone();
    let registry = registry.with_origin(Arc::new(Upstream::to(client.clone())));
    let mut peers = Peers::alone(&client, links.clone());
    // Beside its hub a site has all that the hub has.
    if let Some(listener) = peers_listener.filter(|_| membership.parent != membership.site) {
        let among = peers.among(&membership.site, &client, registry.blobs(), listener, tasks);
        peers = among.map_err(|error| Error::disk(Path::new("the system's randomness"), error))?;
    }
    let line = Line {
        site: membership.site.clone(),
        client: client.clone(),
        links: links.clone(),
        arriving: arriving.clone(),
        counters: Counters::default(),
        tasks: tasks.clone(),
    };
    let means = Means {
        is_willing: config.takes_offloads,
        functions: config.functions(),
        blobs: registry.blobs().clone(),
        signers: config.signers.clone(),
        cpus: offload::cpus(),
    };
    let offload = Offload {
        asking: Asking::open(line.clone(), worker.clone())?,
        hosting: Hosting::new(line.clone(), worker.clone(), guests, means),
    };
    offload.hosting.resume()?;
    let site = Site {
        config,
        membership,
        client,
        identity,
        links,
        objects,
        arriving,
        registry,
        assignments,
        invocations,
        outbox,
        shelf,
        ledger,
        worker,
        offload,
        peers,
        counters: line.counters,
    };
    site.serve([listener, grpc_listener, objects_listener, registry_listener], &access, &repository, tasks)?;
    site.work(repository, tasks);
    site.follow_hub(facts, tasks);
    info!(site = access.site, inference = access.inference, objects = access.objects, "site is up");
    Ok(access)
}

/// The parts that tasks share.
struct Site {
    config: Config,
    membership: Membership,
    identity: Identity,
    links: Links,
    client: Client,
    objects: Objects,
    /// What of large deliveries is here.
    arriving: Arriving,
    registry: Registry,
    assignments: Assignments,
    invocations: Invocations,
    outbox: Outbox,
    shelf: Shelf,
    ledger: Ledger,
    worker: Worker,
    offload: Offload,
    peers: Peers,
    counters: Counters,
}

impl Site {
    /// What others ask of the site: models, functions, buckets.
    fn serve(
        &self,
        [listener, grpc_listener, objects_listener, registry_listener]: [TcpListener; 4],
        access: &Arc<Access>,
        repository: &Repository,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        let assigned = self.assignments.clone();
        let ready =
            move || assigned.all().iter().all(|known| matches!(known.progress, Progress::Ready { .. }));
        let payloads = serving::PayloadLog::start(self.config.payload_log(), None, tasks);
        let mut models = serving::ServerState::new(repository.clone())
            .payloads(payloads)
            .further_metrics(self.further_metrics())
            .ready_when(ready.clone());
        if let Some(settings) = &self.config.traces {
            models = models.traces(serving::Tracer::start(settings.clone(), tasks)?);
        }
        let front = Front {
            access: access.clone(),
            client: self.client.clone(),
            invocations: self.invocations.clone(),
            assignments: self.assignments.clone(),
            objects: self.objects.clone(),
            worker: self.worker.clone(),
            tokens: Tokens::default(),
        };
        tasks.spawn("grpc-front", serving::grpc::serve(grpc_listener, models.clone(), tasks.shutdown()));
        let demand = self.config.image_signers.clone().map(Demand::new);
        let images = images::router(self.registry.clone(), front.clone(), demand);
        tasks.spawn("registry-front", images::serve(registry_listener, images, tasks.shutdown()));
        let guard = Arc::new(front.clone());
        let buffet = Buffet::new(models.clone(), self.shelf.clone(), guard.clone());
        let buffet = mlbuffet::router(buffet.legacy(self.config.mlbuffet_legacy));
        let answering = serving::router(models).merge(buffet);
        let bounds = jobs::Options {
            origins: jobs::Origins::new(&self.config.callback_origins)?,
            secret: access.callback_secret.clone(),
            ..jobs::Options::default()
        };
        let later = Jobs::open(&self.config.jobs(), self.ledger.clone(), repository.clone(), guard, bounds)?;
        let router = front::router(front, later.router(answering.clone()));
        supervise(tasks, "jobs", move |shutdown| {
            let (later, answering, ready) = (later.clone(), answering.clone(), ready.clone());
            async move {
                later.run(answering, ready, shutdown).await;
                Ok(())
            }
        });
        tasks.spawn("inference-front", serving::serve(listener, router, tasks.shutdown()));
        let credentials = objects::front::Credentials::new(&access.access_key, &access.secret_key)?;
        let (objects, shutdown) = (self.objects.clone(), tasks.shutdown());
        tasks.spawn("objects-front", objects::front::serve(objects_listener, objects, credentials, shutdown));
        Ok(())
    }

    fn further_metrics(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (counters, peers, outbox) = (self.counters.clone(), self.peers.clone(), self.outbox.clone());
        let (storage, invocations) = (self.worker.storage.clone(), self.invocations.clone());
        Arc::new(move || {
            counters.text() + &peers.text() + &outbox.text() + &storage.text() + &invocations.text()
        })
    }

    /// What the site does whether or not its hub is there.
    fn work(&self, repository: Repository, tasks: &Tasks) {
        let registry = self.registry.clone();
        tasks.supervise("registry-uploads", move |shutdown| registry.clone().keep_tidy(shutdown));
        let preparer = Preparer {
            peers: self.peers.clone(),
            registry: self.registry.clone(),
            signers: self.config.signers.clone(),
            bundles: self.worker.bundles.clone(),
            guests: Guests::open(self.ledger.clone()),
            repository,
            shelf: self.shelf.clone(),
            assignments: self.assignments.clone(),
        };
        supervise(tasks, "prepare", move |shutdown| prepare::run(preparer.clone(), shutdown));
        let (objects, assignments, invocations) =
            (self.objects.clone(), self.assignments.clone(), self.invocations.clone());
        supervise(tasks, "trigger", move |shutdown| {
            trigger::run(objects.clone(), assignments.clone(), invocations.clone(), shutdown)
        });
        let (worker, children) = (self.worker.clone(), tasks.clone());
        supervise(tasks, "work", move |shutdown| work::run(worker.clone(), children.clone(), shutdown));
        let storage = self.worker.storage.clone();
        supervise(tasks, "storage", move |shutdown| storage.clone().run(shutdown));
        let asking = self.offload.asking.clone();
        supervise(tasks, "offload", move |shutdown| asking.clone().run(shutdown));
    }

    /// What the site and its hub tell each other.
    fn follow_hub(&self, facts: Facts, tasks: &Tasks) {
        let (identity, membership) = (self.identity.clone(), self.membership.clone());
        let (every, links, outbox) = (self.config.heartbeat, self.links.clone(), self.outbox.clone());
        let (invocations, storage) = (self.invocations.clone(), self.worker.storage.clone());
        supervise(tasks, "heartbeat", move |shutdown| {
            let (identity, membership, facts) = (identity.clone(), membership.clone(), facts.clone());
            let (invocations, storage, outbox) = (invocations.clone(), storage.clone(), outbox.clone());
            let now = move || SiteStatus {
                complaints: storage.complaints(),
                outputs: outbox.status(),
                ..facts.now(invocations.all_waiting())
            };
            heartbeat::beat(identity, membership, now, links.clone(), every, shutdown)
        });
        let (links, client, site) = (self.links.clone(), self.client.clone(), self.membership.site.clone());
        supervise(tasks, "links", move |shutdown| {
            links::measure(links.clone(), client.clone(), site.clone(), shutdown)
        });
        if self.peers.are_told_of() {
            let peers = self.peers.clone();
            supervise(tasks, "peers", move |shutdown| peers.clone().tell(shutdown));
        }
        if let Some(options) = self.config.fetches() {
            sources::forget_all_but(&options, &[]);
            let (client, site) = (self.client.clone(), self.membership.site.clone());
            supervise(tasks, "sources", move |shutdown| {
                errands::run_errands(client.clone(), site.clone(), options.clone(), shutdown)
            });
        }
        let (client, membership, assignments) =
            (self.client.clone(), self.membership.clone(), self.assignments.clone());
        let ledger = self.ledger.clone();
        supervise(tasks, "sync", move |shutdown| {
            sync::follow(client.clone(), membership.clone(), assignments.clone(), ledger.clone(), shutdown)
        });
        let (client, membership) = (self.client.clone(), self.membership.clone());
        let (assignments, invocations, parcels) =
            (self.assignments.clone(), self.invocations.clone(), self.outbox.clone());
        supervise(tasks, "report", move |shutdown| {
            let (assignments, invocations) = (assignments.clone(), invocations.clone());
            let parcels = parcels.clone();
            report::report_assignments(
                client.clone(),
                membership.clone(),
                assignments,
                invocations,
                parcels,
                shutdown,
            )
        });
        let (client, parcels) = (self.client.clone(), self.outbox.clone());
        supervise(tasks, "outbox", move |shutdown| {
            outbox::send_all(client.clone(), parcels.clone(), shutdown)
        });
        let (client, membership, objects) =
            (self.client.clone(), self.membership.clone(), self.objects.clone());
        let (arriving, offload) = (self.arriving.clone(), self.offload.clone());
        supervise(tasks, "inbox", move |shutdown| {
            let (membership, objects, arriving) = (membership.clone(), objects.clone(), arriving.clone());
            inbox::receive_all(client.clone(), membership, objects, arriving, offload.clone(), shutdown)
        });
    }
}

pub(crate) fn supervise<W, F>(tasks: &Tasks, name: &'static str, mut work: W)
where
    W: FnMut(daemon::Shutdown) -> F + Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    tasks.supervise(name, move |shutdown| {
        let work = work(shutdown);
        async move { work.await.map_err(Chained) }
    });
}

/// Removes what a crash left in a folder: all but these names. Only at the start, when nothing runs.
fn sweep(folder: &Path, keep: &HashSet<String>) -> Result<(), Error> {
    let failed = |error| Error::disk(folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if keep.contains(entry.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        let path = entry.path();
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|error| Error::disk(&path, error))?;
    }
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, Error> {
    listener.local_addr().map_err(|error| Error::disk(Path::new("the socket's address"), error))
}
