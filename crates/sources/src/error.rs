//! What keeps a source from being followed.

use std::io;

/// What keeps a source from being followed. Messages are for its status: they say what to do, and hold no secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not there.
    #[error("`{program}` is not installed on the machine that fetches; install it there")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// The hub's operator doesn't allow that address.
    #[error("{0}")]
    Forbidden(String),
    /// A Secret doesn't hold what is needed.
    #[error("{0}")]
    Secret(String),
    /// The repository doesn't have what is followed.
    #[error("{url} has no {what}")]
    NoReference {
        /// The repository.
        url: String,
        /// What is not there, for people.
        what: String,
    },
    /// A program failed.
    #[error("can't {action}: {message}")]
    Failed {
        /// What was tried.
        action: String,
        /// What the program said, shortened.
        message: String,
    },
    /// It took too long.
    #[error("can't {action} within {seconds} s; is it reachable? `spec.timeout` can be longer")]
    TimedOut {
        /// What was tried.
        action: String,
        /// How long it took.
        seconds: u64,
    },
    /// There is too much of it.
    #[error("{0}")]
    TooLarge(String),
    /// The signature is missing or of somebody else.
    #[error("{0}")]
    Unverified(String),
    /// A file is not as it should be.
    #[error("{place}: {problem}")]
    Invalid {
        /// File and line.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The hub's own disk or processes.
    #[error("can't {action} on the machine that fetches: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it didn't work.
        source: io::Error,
    },
}

/// All words that [`Error::reason`] has.
pub const REASONS: [&str; 10] = [
    "ProgramMissing",
    "AddressNotAllowed",
    "SecretUnusable",
    "ReferenceNotFound",
    "FetchFailed",
    "FetchTimedOut",
    "TooLarge",
    "NotVerified",
    "BuildFailed",
    "HubFailed",
];

impl Error {
    /// A CamelCase word for conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "ProgramMissing",
            Self::Forbidden(_) => "AddressNotAllowed",
            Self::Secret(_) => "SecretUnusable",
            Self::NoReference { .. } => "ReferenceNotFound",
            Self::Failed { .. } => "FetchFailed",
            Self::TimedOut { .. } => "FetchTimedOut",
            Self::TooLarge(_) => "TooLarge",
            Self::Unverified(_) => "NotVerified",
            Self::Invalid { .. } => "BuildFailed",
            Self::Io { .. } => "HubFailed",
        }
    }

    /// Whether it stays so until somebody does something.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::TimedOut { .. } | Self::Io { .. })
    }

    pub(crate) fn invalid(place: impl ToString, problem: impl ToString) -> Self {
        Self::Invalid { place: place.to_string(), problem: problem.to_string() }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// How much of a complaint is told, in characters.
const LONGEST_MESSAGE: usize = 600;

/// What a program complained of, in one line.
pub fn shorten(complaint: &str) -> String {
    let lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let text: String = lines.collect::<Vec<_>>().join("; ").chars().filter(|c| !c.is_control()).collect();
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None if text.is_empty() => "it says nothing".to_owned(),
        None => text,
    }
}
