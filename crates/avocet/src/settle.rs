//! What only a start needs goes back.

use std::time::Duration;

use daemon::Tasks;

/// How long after everything was started.
const SETTLED: Duration = Duration::from_secs(2);

/// Gives back memory once a process that goes on has started.
pub fn settle(tasks: &Tasks) {
    let shutdown = tasks.shutdown();
    tasks.spawn("settle", async move {
        if shutdown.sleep(SETTLED).await {
            heap::give_back();
            heap::let_go_of_code();
        }
    });
}
