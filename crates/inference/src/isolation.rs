//! Models in processes of their own: what a malicious or broken model file does there, it does to itself.
//!
//! A worker process loads one model and answers over a socket, one request at a time. When it dies, or takes longer
//! than it may, its request fails and the next request starts another one; a model whose workers die again and again
//! is restarted ever more rarely.

mod channel;
mod frames;
mod rehearsal;
mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub(crate) use rehearsal::{Rehearsed, rehearse};
use types::ModelSignature;
pub use worker::{rehearse_in_worker, serve_worker};

use crate::engine::chain;
use crate::engines::Loaded;
use crate::format::Source;
use crate::memory::resident;
use crate::{EngineChoice, EngineError, Engines, Limits, LoadError, LoadedModel, Name, Signature, Tensor};
use channel::{Channel, Reader, Writer};
use frames::{Hello, Reply};

/// Time for a worker to load its model.
const LOADING: Duration = Duration::from_secs(300);
/// Time for a run, where the model doesn't say.
pub(crate) const RUN: Duration = Duration::from_secs(60);
/// Longest wait before a worker that keeps dying is started again.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How to start a worker: a program and its arguments, behind which the model's own are put:
/// `ENGINE PATH THREADS SIGNATURE OTHERS…`: the signature as JSON, the others what may be read beside the path. It must
/// end up in [`serve_worker`]. With `--rehearse BYTES` before them the first is a list of engines with commas between,
/// the process may hold so many bytes, and must end up in [`rehearse_in_worker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand(pub Vec<OsString>);

impl WorkerCommand {
    /// Adds `--onnxruntime FILE` and `--tensorflow FILE` as they were found here, or `off`, so that a worker looks
    /// for nothing: it is started without this process's environment, which may hold secrets.
    #[must_use]
    pub fn with_libraries(mut self, engines: &Engines) -> WorkerCommand {
        let found = engines.list();
        for name in ["onnxruntime", "tensorflow"] {
            let path = found.iter().find(|engine| engine.name == name).and_then(|engine| engine.path.clone());
            let file = path.map_or("off".into(), |path| std::path::absolute(&path).unwrap_or(path).into());
            self.0.extend([format!("--{name}").into(), file]);
        }
        self
    }
}

/// What of the environment a worker gets: where its libraries' own libraries are.
const ENVIRONMENT: &str = "LD_LIBRARY_PATH";

/// TensorFlow's notices about itself say nothing of a model.
const QUIET: (&str, &str) = ("TF_CPP_MIN_LOG_LEVEL", "2");

/// Reads bytes as each sort of frame that goes over the socket.
pub(crate) fn read_all(bytes: &[u8]) {
    let _ = frames::read_hello(&mut &*bytes);
    let _ = frames::read_request(&mut &*bytes);
    let _ = frames::read_reply(&mut &*bytes, 2);
}

/// Starts as many workers as runs may go on at once, and waits until each has loaded the model.
pub(crate) fn load(
    command: &WorkerCommand,
    engine: EngineChoice,
    path: &Path,
    wanted: Wanted<'_>,
) -> Result<Loaded, LoadError> {
    let Wanted { instances, threads, declared, run_limit } = wanted;
    // Processes write no files: what has to be unpacked or translated is so when they start.
    let source = Source::open(path).map_err(|source| LoadError::Format { path: path.into(), source })?;
    let signature = serde_json::to_string(declared)
        .map_err(|error| LoadError::Engine { engine: "isolated", reason: error.to_string() })?;
    let launch = Launch { command: command.clone(), engine, source, threads, signature, run_limit };
    let (first, hello) = launch.start()?;
    let mut seats = vec![Seat::taken(first)];
    for _ in 1..instances.max(1) {
        seats.push(Seat::taken(launch.start()?.0));
    }
    let Hello { engine, why, signature, labels } = hello;
    let why = format!("{why}; in a process of its own");
    let seats = seats.into_iter().map(Mutex::new).collect();
    let model = Arc::new(IsolatedModel { launch, signature, labels, seats });
    Ok(Loaded { model, engine: known_engine(&engine)?, why, tried: Vec::new() })
}

/// Our own name for an engine that a worker names.
fn known_engine(name: &str) -> Result<Name, LoadError> {
    let choice: EngineChoice = name.parse().unwrap_or_default();
    choice.engine().ok_or_else(|| LoadError::Engine {
        engine: "isolated",
        reason: "its process named an engine that this program doesn't know; use one version of avocet"
            .into(),
    })
}

/// How a model is served by processes of its own.
pub(crate) struct Wanted<'a> {
    /// Runs that may go on at once.
    pub(crate) instances: usize,
    /// Threads of one run; 0 for as many as the engine takes where it isn't said.
    pub(crate) threads: usize,
    pub(crate) declared: &'a ModelSignature,
    /// Time for a run.
    pub(crate) run_limit: Duration,
}

struct Launch {
    command: WorkerCommand,
    engine: EngineChoice,
    source: Source,
    threads: usize,
    /// What is declared, as JSON.
    signature: String,
    run_limit: Duration,
}

/// A process that has loaded the model.
struct Worker {
    child: Child,
    reader: Reader,
    writer: Writer,
}

impl Launch {
    fn start(&self) -> Result<(Worker, Hello), LoadError> {
        let refused = |reason: String| LoadError::Engine { engine: "isolated", reason };
        let Launch { command, engine, source, threads, signature, .. } = self;
        let words = [engine.to_string().into(), source.path.clone().into(), threads.to_string().into()];
        let words =
            words.into_iter().chain([signature.into()]).chain(source.others().into_iter().map(Into::into));
        let mut worker = Worker::start(command, words).map_err(refused)?;
        match worker.within(LOADING, |reader, _| frames::read_hello(reader)) {
            Ok(Ok(hello)) => Ok((worker, hello)),
            Ok(Err(reason)) => Err(refused(reason)),
            Err(reason) => Err(refused(format!("its process {reason}"))),
        }
    }
}

impl Worker {
    fn start(command: &WorkerCommand, words: impl Iterator<Item = OsString>) -> Result<Worker, String> {
        let (program, arguments) = command.0.split_first().ok_or("no command")?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| format!("can't make a socket: {error}"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os(ENVIRONMENT).map(|folders| (ENVIRONMENT, folders)))
            .env(QUIET.0, QUIET.1)
            .args(words)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("can't start its process: {error}"))?;
        match Channel::pair(ours) {
            Ok((reader, writer)) => Ok(Worker { child, reader, writer }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.to_string())
            }
        }
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[&str], limit: Duration) -> Result<Reply, String> {
        self.within(limit, |reader, writer| {
            frames::write_request(writer, inputs, outputs)?;
            writer.flush()?;
            frames::read_reply(reader, outputs.len())
        })
    }

    /// Talks with the worker for a limited time; if that is not enough, says what became of the process, which then
    /// is gone.
    fn within<T>(
        &mut self,
        limit: Duration,
        talk: impl FnOnce(&mut Reader, &mut Writer) -> std::io::Result<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        self.reader.get_mut().deadline = deadline;
        self.writer.get_mut().deadline = deadline;
        talk(&mut self.reader, &mut self.writer).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                let _ = self.child.kill();
                format!("took longer than {} ms and was stopped", limit.as_millis())
            }
            std::io::ErrorKind::InvalidData => {
                let _ = self.child.kill();
                format!("gave an answer that makes no sense ({error}) and was stopped")
            }
            _ => self.obituary(),
        })
    }

    /// How a process that no longer answers ended.
    fn obituary(&mut self) -> String {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(9), _) => "was killed, perhaps for want of memory".into(),
                (Some(signal), _) => format!("died of signal {signal}{}", signal_name(signal)),
                (None, code) => format!("exited with {}", code.unwrap_or_default()),
            },
            Err(error) => format!("is gone ({error})"),
        }
    }
}

/// What people call the signals that broken code ends with.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        11 => " (SIGSEGV)",
        24 => " (SIGXCPU)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place for one worker, and how its predecessors did.
struct Seat {
    worker: Option<Worker>,
    /// Deaths since the last answer.
    deaths: u32,
    /// When the next one may be started.
    next_start: Instant,
}

impl Seat {
    fn taken(worker: Worker) -> Seat {
        Seat { worker: Some(worker), deaths: 0, next_start: Instant::now() }
    }

    fn bury(&mut self) {
        self.worker = None;
        let pause = Duration::from_millis(100) * 2_u32.saturating_pow(self.deaths.min(16));
        self.deaths += 1;
        // The first death is forgiven at once.
        let pause = if self.deaths == 1 { Duration::ZERO } else { pause.min(MAX_PAUSE) };
        self.next_start = Instant::now() + pause;
    }
}

struct IsolatedModel {
    launch: Launch,
    signature: Signature,
    labels: BTreeMap<String, Vec<String>>,
    seats: Vec<Mutex<Seat>>,
}

impl IsolatedModel {
    /// A free seat, or a wait for the first one.
    fn seat(&self) -> Result<MutexGuard<'_, Seat>, EngineError> {
        for seat in &self.seats {
            match seat.try_lock() {
                Ok(seat) => return Ok(seat),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let first = self.seats.first().ok_or_else(|| EngineError::Failed("no worker".into()))?;
        Ok(first.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LoadedModel for IsolatedModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn labels(&self, output: &str) -> Option<&[String]> {
        self.labels.get(output).map(Vec::as_slice)
    }

    fn instances(&self) -> usize {
        self.seats.len()
    }

    fn runs_on_caller(&self) -> bool {
        false
    }

    fn waits(&self) -> bool {
        true
    }

    fn outside_memory(&self) -> u64 {
        let resident = |seat: &Mutex<Seat>| {
            let seat = seat.lock().unwrap_or_else(PoisonError::into_inner);
            seat.worker.as_ref().map_or(0, |worker| resident(worker.child.id()))
        };
        self.seats.iter().map(resident).sum()
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let mut seat = self.seat()?;
        let mut worker = match seat.worker.take() {
            Some(worker) => worker,
            None if Instant::now() < seat.next_start => {
                let reason = "its process died several times and is started again in a moment";
                return Err(EngineError::Failed(reason.into()));
            }
            None => match self.launch.start() {
                Ok((worker, hello)) if hello.signature == self.signature => worker,
                Ok(_) => {
                    seat.bury();
                    return Err(EngineError::Failed("the model's file was changed; load it again".into()));
                }
                Err(error) => {
                    seat.bury();
                    return Err(EngineError::Failed(chain(&error)));
                }
            },
        };
        match worker.run(inputs, outputs, self.launch.run_limit) {
            Ok(reply) => {
                seat.worker = Some(worker);
                seat.deaths = 0;
                checked(reply, &self.signature, outputs)
            }
            Err(fate) => {
                seat.bury();
                Err(EngineError::Failed(format!("the model's process {fate}")))
            }
        }
    }
}

/// What an output may be at most.
const OUTPUTS: Limits = Limits { elements: 1 << 31, bytes: usize::MAX, rank: 32 };

/// A worker is not trusted: what it gives must be what was asked for.
fn checked(reply: Reply, signature: &Signature, outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
    let tensors = match reply {
        Reply::Outputs(tensors) => tensors,
        Reply::Failed(reason) => return Err(EngineError::Failed(reason)),
    };
    let fits = |(tensor, name): (&Tensor, &&str)| {
        let spec = signature.output(name);
        tensor.name() == *name
            && spec.is_some_and(|spec| spec.datatype == tensor.datatype() && spec.accepts(tensor.shape()))
            && OUTPUTS.check_shape(tensor.shape()).is_ok()
    };
    if tensors.len() != outputs.len() || !tensors.iter().zip(outputs).all(fits) {
        return Err(EngineError::Failed("the model's process gave other outputs than were asked for".into()));
    }
    Ok(tensors)
}
