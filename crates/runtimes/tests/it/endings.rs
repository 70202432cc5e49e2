//! Nothing of a run is left, however it ends. Every process of these functions holds a pipe open, by which the test
//! sees the last of them go; one leaves the session and one ignores SIGTERM.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use avocet_runtimes::Exit;
use tokio::sync::oneshot;
use types::Runtime;

use crate::{Invocation, runtimes};

const FAMILY: &str = "\
exec 9>pipe
setsid sleep 1000 &
setsid sh -c 'trap \"\" TERM; (sleep 1000); sleep 1000' &
(trap '' TERM; sleep 1000) &
echo up >&9
";

/// Resolves when the function is up; then another, when its last process is gone.
fn watch(pipe: &Path) -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let ((up, is_up), (gone, is_gone)) = (oneshot::channel(), oneshot::channel());
    let pipe = pipe.to_owned();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(std::fs::File::open(pipe).unwrap());
        pipe.read_line(&mut String::new()).unwrap();
        let _ = up.send(());
        pipe.read_to_string(&mut String::new()).unwrap();
        let _ = gone.send(());
    });
    (is_up, is_gone)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("processes are left")
}

#[tokio::test]
async fn promise_8_after_a_normal_exit_no_descendant_is_left() {
    let function = Invocation::shell(&format!("{FAMILY} exit 5"));
    let (_, gone) = watch(&function.path("work/pipe"));
    let outcome = function.run().await;
    assert_eq!((outcome.exit, outcome.stray), (Exit::Exited(5), false));
    soon(gone).await.unwrap();
}

#[tokio::test]
async fn promise_8_when_time_is_up_no_descendant_is_left() {
    let function = Invocation::shell(&format!("trap '' TERM\n{FAMILY} wait"))
        .with(|run| run.timeout = Duration::from_millis(300));
    let (_, gone) = watch(&function.path("work/pipe"));
    let outcome = function.run().await;
    assert_eq!((&outcome.exit, outcome.stray), (&Exit::TimedOut, false));
    assert_eq!(outcome.reason(), "TimedOut");
    assert!(outcome.duration >= Duration::from_secs(2), "a grace of 2 s");
    soon(gone).await.unwrap();
}

#[tokio::test]
async fn a_function_may_tidy_up_when_its_time_is_up() {
    let function = Invocation::shell("trap 'echo tidied; exit 0' TERM\nwhile :; do sleep 0.01; done")
        .with(|run| run.timeout = Duration::from_millis(300));
    let outcome = function.run().await;
    assert_eq!(outcome.exit, Exit::TimedOut);
    assert_eq!(outcome.last_line.as_deref(), Some("tidied"));
}

#[tokio::test]
async fn promise_8_when_the_run_is_dropped_no_descendant_is_left() {
    let function = Invocation::shell(&format!("{FAMILY} wait"));
    let (up, gone) = watch(&function.path("work/pipe"));
    tokio::select! {
        outcome = function.run() => panic!("{outcome:?}"),
        _ = up => {}
    }
    soon(gone).await.unwrap();
}

#[tokio::test]
async fn promise_8_after_kill_9_of_the_agent_no_descendant_is_left() {
    const FOLDER: &str = "AVOCET_TEST_FOLDER";
    if let Ok(folder) = std::env::var(FOLDER) {
        // This is the agent that will be killed.
        let run = Invocation::prepare(folder.as_ref(), Runtime::Shell, &format!("{FAMILY} wait"));
        runtimes().await.run(&run).await;
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("work")).unwrap();
    let (up, gone) = watch(&folder.path().join("work/pipe"));
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "endings::promise_8_after_kill_9_of_the_agent_no_descendant_is_left"])
        .env(FOLDER, folder.path())
        .spawn()
        .unwrap();
    soon(up).await.unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    soon(gone).await.unwrap();
}

#[tokio::test]
async fn promise_8_after_kill_9_of_the_shim_the_function_is_killed() {
    let function = Invocation::shell("exec 9>pipe; sleep 1000 & echo $PPID >shim; echo up >&9; wait");
    let (up, gone) = watch(&function.path("work/pipe"));
    let killing = async {
        up.await.unwrap();
        let shim = std::fs::read_to_string(function.path("work/shim")).unwrap();
        let shim = rustix::process::Pid::from_raw(shim.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    };
    let (outcome, ()) = tokio::join!(function.run(), killing);
    assert_eq!(outcome.reason(), "SupervisorLost");
    soon(gone).await.unwrap();
}
