//! Logs to standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging at `level` (`RUST_LOG` refines it), without colours where nobody looks. Later calls do nothing.
pub fn start_logs(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let _ = logs.try_init();
}
