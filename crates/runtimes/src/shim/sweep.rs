//! Leaving nothing behind.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, wait};

/// Kills the function's group, then all that fell back to this process, again and again until nothing is left or
/// `patience` is over. Answers how the function exited, if it did, and whether nothing is left.
pub fn kill_all(group: Pid, mut child: Child, patience: Duration) -> (Option<ExitStatus>, bool) {
    // Before the leader is reaped, its number can't belong to anyone else.
    let _ = kill_process_group(group, Signal::KILL);
    let deadline = Instant::now() + patience;
    let mut status = None;
    loop {
        match child.try_wait() {
            Ok(Some(exited)) => status = Some(exited),
            Ok(None) => {}
            Err(_) => status = status.or(Some(ExitStatus::from_raw(libc::SIGKILL))),
        }
        if status.is_some() {
            match wait(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return (status, true),
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => {}
            }
            let own = getpid();
            kill_those(|process| process.parent == Some(own));
        }
        if Instant::now() > deadline {
            return (status, false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills what is left of a shim that vanished: it led a session, which all it started is in, but those that left it.
pub fn kill_session(session: Pid) {
    let deadline = Instant::now() + Duration::from_secs(1);
    // Again, because a process may start another between the look and the shot.
    while kill_those(|process| process.session == Some(session) && process.pid != session)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Process {
    pid: Pid,
    parent: Option<Pid>,
    session: Option<Pid>,
}

/// Answers whether there were any.
fn kill_those(chosen: impl Fn(&Process) -> bool) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut any = false;
    for process in pids.filter_map(Pid::from_raw).filter_map(look).filter(chosen) {
        any |= kill_process(process.pid, Signal::KILL).is_ok();
    }
    any
}

fn look(pid: Pid) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is the name in parentheses, which may hold anything; then: state, parent, group, session.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields =
        fields.split_whitespace().skip(1).map(|field| field.parse().ok().and_then(Pid::from_raw));
    let parent = fields.next()?;
    Some(Process { pid, parent, session: fields.nth(1)? })
}
