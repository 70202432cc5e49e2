//! The shim: one small process beside each invocation that confines, watches and cleans up.

mod filter;
mod log;
mod restrict;
mod rights;
mod sweep;

pub(crate) use sweep::kill_session;

use std::collections::BTreeMap;
use std::io::{self, BufRead, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::Level;
use crate::confinement::{Confinement, Report};
use log::Log;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to go: the kernel may have to write out its memory.
const DEATH: Duration = Duration::from_secs(5);
/// As long as any clock counts: without a limit.
const FOR_EVER: Duration = Duration::MAX;
/// A run's environment, with the largest event in it, is far smaller.
const MAXIMUM_LINE_BYTES: u64 = 16 << 20;

/// Takes every right from this process that computing doesn't need, for good: it reads only these files and folders
/// beside the system's, writes none, opens no sockets and holds at most this many bytes of data. What is open stays
/// open. Call it before any other thread is started: those would keep their rights.
///
/// # Errors
/// When the kernel can't confine it and `allow_unconfined` isn't set, or a path to read can't be opened.
pub fn confine_this_process(
    read: &[PathBuf],
    memory_bytes: u64,
    allow_unconfined: bool,
) -> Result<Level, String> {
    // Away from the terminal of whoever started it, and its Ctrl-C.
    let _ = rustix::process::setsid();
    restrict::restrict(&Confinement {
        program: PathBuf::new(),
        arguments: Vec::new(),
        environment: BTreeMap::new(),
        working_folder: PathBuf::new(),
        log: PathBuf::new(),
        read: read.to_vec(),
        write: Vec::new(),
        tcp_ports: Vec::new(),
        memory_bytes,
        timeout: FOR_EVER,
        allow_unconfined,
    })
}

/// What the hidden subcommand does; call it before any thread is started. It reads what to run from standard input
/// and says on standard output what became of it.
pub fn shim_main() -> ExitCode {
    // What whoever started the agent left open must not reach the function. Ours are marked already.
    close_fds::set_fds_cloexec(3, &[]);
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&Report::Refused { reason });
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> Result<(), String> {
    // Away from the agent's terminal and its Ctrl-C.
    let _ = rustix::process::setsid();
    // Orphaned descendants of the function become children of this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("can't adopt orphans: {error}"))?;
    let confinement = listen()?;
    let log = Log::create(&confinement.log)
        .map_err(|error| format!("can't write the log `{}`: {error}", confinement.log.display()))?;
    let (output, input) = io::pipe().map_err(|error| format!("can't make a pipe: {error}"))?;
    rustix::fs::fcntl_setfl(&output, rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| format!("can't set up a pipe: {error}"))?;

    let timeout = confinement.timeout;
    let started = Instant::now();
    let (child, level) = start(confinement, input)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the process has no id")?;
    say(&Report::Started { level });
    let Ok(exit) = pidfd_open(group, PidfdFlags::empty()) else {
        sweep::kill_all(group, child, DEATH);
        return Err("this kernel is too old; Linux 5.4 or newer is needed".to_owned());
    };
    let deadline = started.checked_add(timeout).unwrap_or(started);
    let mut watch = Watch { exit, group, output: Some(output), log, deadline, phase: Phase::Running };
    watch.until_the_end();
    let timed_out = watch.phase != Phase::Running;
    let (status, clean) = sweep::kill_all(group, child, DEATH);
    watch.copy_output();
    let log_bytes = watch.log.finish();
    say(&Report::Ended {
        code: status.as_ref().and_then(ExitStatus::code),
        signal: status.as_ref().and_then(ExitStatusExt::signal),
        timed_out,
        log_bytes,
        stray: !clean,
    });
    Ok(())
}

fn listen() -> Result<Confinement, String> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(MAXIMUM_LINE_BYTES).read_until(b'\n', &mut line);
    read.map_err(|error| format!("can't read what to run: {error}"))?;
    serde_json::from_slice(&line).map_err(|error| format!("can't understand what to run: {error}"))
}

fn say(report: &Report) {
    // An agent that is gone hears nothing; what must be done is done all the same.
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    }
}

/// Rights are given up per thread and inherited by children: the function is started from a thread that has given
/// up everything, while this one keeps what it takes to watch, and is out of the function's reach.
fn start(confinement: Confinement, output: io::PipeWriter) -> Result<(Child, Level), String> {
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let level = restrict::restrict(&confinement)?;
        let shared = output.try_clone().map_err(|error| format!("can't copy a pipe: {error}"))?;
        let child = Command::new(&confinement.program)
            .args(&confinement.arguments)
            .env_clear()
            .envs(&confinement.environment)
            .current_dir(&confinement.working_folder)
            .stdin(Stdio::null())
            .stdout(shared)
            .stderr(output)
            .process_group(0)
            .spawn();
        child.map(|child| (child, level)).map_err(|error| {
            let program = confinement.program.display();
            format!("can't execute `{program}`: {error}; see that it is executable and made for this machine")
        })
    });
    let thread = thread.map_err(|error| format!("can't start a thread: {error}"))?;
    thread.join().map_err(|_| "confining failed in an unexpected way".to_owned())?
}

#[derive(PartialEq)]
enum Phase {
    Running,
    Terminating,
    Killed,
}

struct Watch {
    /// Readable when the function has exited.
    exit: OwnedFd,
    group: Pid,
    output: Option<PipeReader>,
    log: Log,
    deadline: Instant,
    phase: Phase,
}

impl Watch {
    /// Copies output until the function exits, can't be killed, or the agent is gone.
    fn until_the_end(&mut self) {
        let lifeline = io::stdin();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if self.phase == Phase::Killed {
                    return;
                }
                self.press();
                continue;
            }
            let mut watched = vec![
                PollFd::new(&self.exit, PollFlags::IN),
                PollFd::from_borrowed_fd(lifeline.as_fd(), PollFlags::IN),
            ];
            watched.extend(self.output.iter().map(|output| PollFd::new(output, PollFlags::IN)));
            let left = Timespec::try_from(left).ok();
            match poll(&mut watched, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let mut ready = watched.iter().map(|fd| !fd.revents().is_empty());
            let ended = ready.next() == Some(true) || ready.next() == Some(true);
            let has_output = watched.get(2).is_some_and(|fd| !fd.revents().is_empty());
            if has_output {
                self.copy_output();
            }
            if ended {
                return;
            }
        }
    }

    /// Time is up: first a request, then an order.
    fn press(&mut self) {
        let (signal, phase, patience) = match self.phase {
            Phase::Running => (Signal::TERM, Phase::Terminating, GRACE),
            Phase::Terminating | Phase::Killed => (Signal::KILL, Phase::Killed, DEATH),
        };
        let _ = kill_process_group(self.group, signal);
        self.phase = phase;
        self.deadline = Instant::now() + patience;
    }

    /// Copies what is there, a bounded amount so that the clock is looked at in between.
    fn copy_output(&mut self) {
        let mut chunk = [0; 64 << 10];
        for _ in 0..64 {
            let Some(output) = &mut self.output else { return };
            match output.read(&mut chunk) {
                Ok(0) => self.output = None,
                Ok(read) => self.log.write(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }
}
