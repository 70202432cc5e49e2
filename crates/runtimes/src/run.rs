//! Running one invocation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tracing::warn;
use types::Runtime;

use crate::confinement::{Confinement, Report};
use crate::outcome::last_line;
use crate::python::Python;
use crate::shim::kill_session;
use crate::{Exit, Level, Outcome, confinement_available};

/// The kernel takes no environment variable of 128 KiB or more, its name and end included.
const MAXIMUM_EVENT_BYTES: usize = (128 << 10) - "EVENT=".len() - 1;
/// Beyond the time limit: the grace, the killing and the reporting of a shim that works.
const SHIM_PATIENCE: Duration = Duration::from_secs(20);

/// What a site decides.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The Python to use; none means the `python3` in the path.
    pub python: Option<PathBuf>,
    /// The command that calls [`shim_main`](crate::shim_main): a program, as an absolute path, and its
    /// arguments. `/proc/self/exe` stays right when the file is replaced by an upgrade.
    pub shim: Vec<OsString>,
    /// Whether functions may run where the kernel can't confine them.
    pub allow_unconfined: bool,
}

/// One invocation.
#[derive(Debug, Clone)]
pub struct Run {
    /// What runs the handler.
    pub runtime: Runtime,
    /// The folder with the function's code, unpacked. Read only.
    pub bundle: PathBuf,
    /// The file in the bundle to run.
    pub handler: String,
    /// The function's environment variables.
    pub environment: BTreeMap<String, String>,
    /// The input file; its folder may be read.
    pub input: PathBuf,
    /// An existing folder for this invocation alone: its working folder, `HOME` and `TMPDIR`.
    pub workdir: PathBuf,
    /// An existing folder for the outputs. What the function leaves here may be links and pipes: look before
    /// opening.
    pub output: PathBuf,
    /// Where its standard output and error go, in the order they came. Replaced. Keep it out of the
    /// folders that the function can write.
    pub log: PathBuf,
    /// How long it may take; then it gets SIGTERM, and SIGKILL 2 s later.
    pub timeout: Duration,
    /// How much memory each of its processes may allocate, in bytes.
    pub memory_bytes: u64,
    /// The TCP ports it may connect to, on any host.
    pub tcp_ports: Vec<u16>,
    /// The event: it becomes the file `event.json` beside the input, unless that is called so itself, and the variable `EVENT` if it is shorter
    /// than 128 KiB.
    pub event: Option<String>,
    /// The key of the object that the input is.
    pub storage_object_key: Option<String>,
}

/// What can run here. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtimes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    python: Result<Python, String>,
    shim: Vec<OsString>,
    allow_unconfined: bool,
    level: Level,
}

impl Runtimes {
    /// Looks once at what is there. A missing Python is told by [`Runtimes::python_problem`] and by the runs that
    /// need it.
    pub async fn discover(options: Options) -> Self {
        let python = Python::probe(options.python.as_deref()).await;
        let level = confinement_available();
        if level == Level::None {
            warn!(
                allowed = options.allow_unconfined,
                "this kernel can't confine functions; Linux 5.13 with Landlock can"
            );
        }
        let Options { shim, allow_unconfined, .. } = options;
        Self { inner: Arc::new(Inner { python, shim, allow_unconfined, level }) }
    }

    /// The runtimes that work here, each with a description for people.
    pub fn available(&self) -> Vec<(Runtime, String)> {
        let mut available = Vec::new();
        if let Ok(python) = &self.inner.python {
            let description = format!("Python {} at {}", python.version, python.executable.display());
            available.push((Runtime::Python, description));
        }
        if Path::new("/bin/sh").exists() {
            available.push((Runtime::Shell, "/bin/sh".to_owned()));
        }
        available.push((Runtime::Binary, format!("executables for {} Linux", std::env::consts::ARCH)));
        available
    }

    /// Why there is no Python, and what to do.
    pub fn python_problem(&self) -> Option<&str> {
        self.inner.python.as_ref().err().map(String::as_str)
    }

    /// How well functions are confined here.
    pub fn level(&self) -> Level {
        self.inner.level
    }

    /// Runs one invocation to its end: when this returns, none of its processes is left. Dropping the future kills
    /// them, too, a moment later; so does the death of this process.
    pub async fn run(&self, run: &Run) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome {
            exit: Exit::Refused(String::new()),
            duration: Duration::ZERO,
            level: self.inner.level,
            log_bytes: 0,
            last_line: None,
            stray: false,
        };
        match self.prepare(run).await {
            Err(reason) => outcome.exit = Exit::Refused(reason),
            Ok(line) => outcome.exit = self.supervise(&line, run.timeout, &mut outcome).await,
        }
        if !matches!(outcome.exit, Exit::Refused(_)) {
            outcome.last_line = last_line(&run.log).await;
        }
        outcome.duration = started.elapsed();
        outcome
    }

    /// Works out what the shim must know; as a line of JSON.
    async fn prepare(&self, run: &Run) -> Result<Vec<u8>, String> {
        let handler = run.bundle.join(&run.handler);
        let found = tokio::fs::metadata(&handler).await;
        if !found.is_ok_and(|metadata| metadata.is_file()) {
            return Err(format!("`{}` is not a file in the artifact; correct `spec.handler`", run.handler));
        }
        let inputs = run.input.parent().unwrap_or(Path::new("/"));
        let path = inputs.join("event.json");
        // An input of that very name comes first: it is what the function is for.
        if let Some(event) = run.event.as_ref().filter(|_| run.input != path) {
            let written = replace(&path, event.as_bytes()).await;
            written.map_err(|error| format!("can't write `{}`: {error}", path.display()))?;
        }
        let python = self.inner.python.as_ref();
        let (program, arguments) = match run.runtime {
            Runtime::Python => (python?.executable.clone(), vec!["-B".into(), handler]),
            Runtime::Shell => ("/bin/sh".into(), vec![handler]),
            Runtime::Binary => (handler, Vec::new()),
        };
        let mut read = vec![run.bundle.clone(), inputs.to_owned()];
        read.extend(python.iter().flat_map(|python| python.folders()));
        let confinement = Confinement {
            program,
            arguments,
            environment: self.environment(run, inputs)?,
            working_folder: run.workdir.clone(),
            log: run.log.clone(),
            read,
            write: vec![run.workdir.clone(), run.output.clone()],
            tcp_ports: run.tcp_ports.clone(),
            memory_bytes: run.memory_bytes,
            timeout: run.timeout,
            allow_unconfined: self.inner.allow_unconfined,
        };
        let line = serde_json::to_vec(&confinement);
        let mut line = line.map_err(|error| format!("can't describe the run to the shim: {error}"))?;
        line.push(b'\n');
        Ok(line)
    }

    /// All of the function's environment: nothing of the agent's.
    fn environment(&self, run: &Run, inputs: &Path) -> Result<BTreeMap<String, String>, String> {
        let workdir = text(&run.workdir)?;
        let defaults = [
            ("HOME", workdir.as_str()),
            ("TMPDIR", &workdir),
            ("LANG", "C.UTF-8"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
        ];
        let mut environment: BTreeMap<String, String> =
            defaults.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        environment.extend(run.environment.clone());
        let mut set = |key: &str, value: String| environment.insert(key.to_owned(), value);
        let mut path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        if let Ok(python) = &self.inner.python
            && let Some(folder) = python.executable.parent().and_then(Path::to_str)
        {
            path = format!("{folder}:{path}");
        }
        set("PATH", path);
        set("INPUT_FILE_PATH", text(&run.input)?);
        set("TMP_INPUT_DIR", text(inputs)?);
        set("TMP_OUTPUT_DIR", text(&run.output)?);
        if let Some(key) = &run.storage_object_key {
            set("STORAGE_OBJECT_KEY", key.clone());
        }
        if let Some(event) = run.event.as_ref().filter(|event| event.len() <= MAXIMUM_EVENT_BYTES) {
            set("EVENT", event.clone());
        }
        Ok(environment)
    }

    /// Starts the shim and listens until the end.
    async fn supervise(&self, line: &[u8], timeout: Duration, outcome: &mut Outcome) -> Exit {
        let mut shim = match self.start_shim() {
            Ok(shim) => shim,
            Err(error) => return Exit::Refused(format!("can't start the shim: {error}")),
        };
        // Held to the end: when it closes, for whatever reason, the shim kills everything.
        let mut lifeline = shim.stdin.take();
        let Some(reports) = shim.stdout.take() else {
            return Exit::Lost("it has no output".to_owned());
        };
        let listening = async {
            if let Some(lifeline) = &mut lifeline {
                lifeline.write_all(line).await.map_err(|error| format!("it does not listen: {error}"))?;
            }
            listen(BufReader::new(reports).lines(), outcome).await
        };
        let heard = tokio::time::timeout(timeout.saturating_add(SHIM_PATIENCE), listening).await;
        let heard = heard.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        let exit = match heard {
            Ok(exit) => exit,
            Err(reason) => {
                let _ = shim.start_kill();
                // Until it is waited for, its number can't belong to anyone else.
                let session = shim.id().and_then(|id| id.try_into().ok()).and_then(Pid::from_raw);
                if let Some(session) = session {
                    let _ = tokio::task::spawn_blocking(move || kill_session(session)).await;
                }
                Exit::Lost(reason)
            }
        };
        drop(lifeline);
        if let Err(error) = shim.wait().await {
            warn!(%error, "can't wait for the shim");
        }
        exit
    }

    fn start_shim(&self) -> std::io::Result<Child> {
        let (program, arguments) = self.inner.shim.split_first().ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "no command is configured for it")
        })?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }
}

async fn listen(mut reports: Lines<BufReader<ChildStdout>>, outcome: &mut Outcome) -> Result<Exit, String> {
    loop {
        let line = reports.next_line().await.map_err(|error| format!("it can't be heard: {error}"))?;
        let line = line.ok_or("it ended without a word")?;
        match serde_json::from_str(&line).map_err(|error| format!("it can't be understood: {error}"))? {
            Report::Refused { reason } => return Ok(Exit::Refused(reason)),
            Report::Started { level } => outcome.level = level,
            Report::Ended { code, signal, timed_out, log_bytes, stray } => {
                outcome.log_bytes = log_bytes;
                outcome.stray = stray;
                return Ok(match (timed_out, code, signal) {
                    (true, ..) => Exit::TimedOut,
                    (false, Some(code), _) => Exit::Exited(code),
                    (false, None, Some(signal)) => Exit::Signaled(signal),
                    (false, None, None) => return Err("it does not know how the function ended".to_owned()),
                });
            }
        }
    }
}

/// Never through a link that an earlier attempt of the function may have left there.
async fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(path).await?;
    file.write_all(bytes).await?;
    file.flush().await
}

fn text(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.map(str::to_owned).ok_or_else(|| format!("`{}` is not an absolute path in UTF-8", path.display()))
}
