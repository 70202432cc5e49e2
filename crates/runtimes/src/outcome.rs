//! What became of a run, for a program and for a person.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::Level;

const TAIL_BYTES: u64 = 8 << 10;
const LINE_CHARACTERS: usize = 300;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code; 0 is success.
    Exited(i32),
    /// Killed by this signal, but not for its time: a crash, or a limit.
    Signaled(i32),
    /// Killed because its time was up.
    TimedOut,
    /// Never started, for this reason.
    Refused(String),
    /// Its supervisor vanished, for this reason; the function was killed.
    Lost(String),
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// From the request to the end of the last process.
    pub duration: Duration,
    /// How well it was confined.
    pub level: Level,
    /// How much it said, in bytes; the log keeps the beginning and the end of more than 16 MiB.
    pub log_bytes: u64,
    /// The last line of its log that is not empty, at most 300 characters.
    pub last_line: Option<String>,
    /// Whether a process of it could not be killed and is still there.
    pub stray: bool,
}

impl Outcome {
    /// Whether it exited with 0.
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Exited(0)
    }

    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        match self.exit {
            Exit::Exited(0) => "Succeeded",
            Exit::Exited(_) => "ExitedWithError",
            Exit::Signaled(libc::SIGXCPU) => "CpuTimeExceeded",
            Exit::Signaled(libc::SIGXFSZ) => "FileTooLarge",
            Exit::Signaled(_) => "KilledBySignal",
            Exit::TimedOut => "TimedOut",
            Exit::Refused(_) => "Refused",
            Exit::Lost(_) => "SupervisorLost",
        }
    }

    /// One line for people: what happened, the last line of the log, what to do.
    pub fn message(&self) -> String {
        let seconds = self.duration.as_secs_f64();
        let mut message = match &self.exit {
            Exit::Exited(0) => return format!("succeeded in {seconds:.3} s"),
            Exit::Exited(code) => format!("exited with code {code} after {seconds:.3} s"),
            Exit::Signaled(libc::SIGXCPU) => {
                "used more CPU time than its time limit allows on all cores; raise `spec.timeoutSeconds`".into()
            }
            Exit::Signaled(libc::SIGXFSZ) => "wrote a file larger than 1 GiB; write smaller files".into(),
            Exit::Signaled(libc::SIGKILL) => {
                "was killed by signal 9, perhaps by a system that ran out of memory; lower `spec.parallelism` or \
                 the memory that it needs"
                    .into()
            }
            Exit::Signaled(signal) => format!("was killed by signal {signal} after {seconds:.3} s"),
            Exit::TimedOut => {
                format!("was killed after {seconds:.1} s; raise `spec.timeoutSeconds` or give it less to do")
            }
            Exit::Refused(reason) => format!("was not started: {reason}"),
            Exit::Lost(reason) => format!("was killed because its supervisor is gone: {reason}"),
        };
        if let Some(line) = &self.last_line {
            let _ = write!(message, "; its last line was `{line}`");
        }
        message
    }
}

/// The last line that is not empty, in what the log ends with.
pub(crate) async fn last_line(log: &Path) -> Option<String> {
    let mut file = tokio::fs::File::open(log).await.ok()?;
    let length = file.metadata().await.ok()?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).await.ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).await.ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).take(LINE_CHARACTERS).collect())
}
