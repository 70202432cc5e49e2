//! Ctrl-C and SIGTERM end what was started, too.

use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Processes to end with this one.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends a process when this one is told to end.
pub fn adopt(pid: Pid) {
    CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(pid);
}

/// No longer.
pub fn release(pid: Pid) {
    CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|known| *known != pid);
}

/// Begins to wait for signals.
pub fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let code = runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        for pid in CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
            let _ = kill_process(*pid, Signal::TERM);
        }
        eprintln!("\ninterrupted; what was started is ended, too");
        std::process::exit(code);
    })?;
    Ok(())
}
