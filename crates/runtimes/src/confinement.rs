//! What the agent tells the shim and hears from it, one line of JSON each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use serde::{Deserialize, Serialize};

/// How well this kernel confines a function. Whatever the level, it has no privileges, limited memory, CPU time,
/// files and file sizes, and no sockets but outgoing TCP, if that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Linux before 5.13, or Landlock is off: a function can touch what the agent's user can. Runs are refused
    /// unless [`Options::allow_unconfined`](crate::Options::allow_unconfined) is set.
    None,
    /// Linux 5.13: only its own files. A function that may use TCP may use all of it.
    Files,
    /// Linux 6.7: only its own files and TCP ports.
    Network,
    /// Linux 6.12: only its own files, TCP ports and processes.
    Full,
}

impl Level {
    pub(crate) fn of(abi: ABI) -> Self {
        match abi {
            abi if abi >= ABI::V6 => Self::Full,
            abi if abi >= ABI::V4 => Self::Network,
            abi if abi >= ABI::V1 => Self::Files,
            _ => Self::None,
        }
    }
}

/// How well functions can be confined here. Tries it without confining anything.
pub fn confinement_available() -> Level {
    let required = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = required().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok();
    let network = required().handle_access(AccessNet::from_all(ABI::V4)).and_then(Ruleset::create).is_ok();
    let signals = required().scope(Scope::from_all(ABI::V6)).and_then(Ruleset::create).is_ok();
    match (files, network, signals) {
        (true, true, true) => Level::Full,
        (true, true, false) => Level::Network,
        (true, false, _) => Level::Files,
        (false, ..) => Level::None,
    }
}

/// What to run and what it may do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confinement {
    pub program: PathBuf,
    pub arguments: Vec<PathBuf>,
    /// All of the environment.
    pub environment: BTreeMap<String, String>,
    pub working_folder: PathBuf,
    pub log: PathBuf,
    /// Folders and files to read and execute, beside the system's.
    pub read: Vec<PathBuf>,
    /// Folders to do anything in.
    pub write: Vec<PathBuf>,
    /// TCP ports to connect to.
    pub tcp_ports: Vec<u16>,
    /// Per process.
    pub memory_bytes: u64,
    pub timeout: Duration,
    pub allow_unconfined: bool,
}

/// What the shim says: `Started` then `Ended`, or `Refused`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Started { level: Level },
    Refused { reason: String },
    Ended { code: Option<i32>, signal: Option<i32>, timed_out: bool, log_bytes: u64, stray: bool },
}
