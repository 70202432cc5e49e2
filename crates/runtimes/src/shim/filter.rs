//! The system calls that no function needs and that lead around the other fences: Landlock does not know sockets
//! other than TCP, and a container engine's socket is as good as root.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// Never allowed, whatever the arguments.
const DENIED: [c_long; 20] = [
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_fsopen,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Filters the calling thread's system calls, for good.
pub fn filter_system_calls(tcp: bool) -> Result<(), Error> {
    let mut denied: Rules = DENIED.into_iter().map(|call| (call, Vec::new())).collect();
    denied.insert(libc::SYS_socket, if tcp { sockets_other_than_tcp()? } else { Vec::new() });
    // Sending with this flag connects without being asked for the port.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        denied.insert(call, vec![flag(flags, libc::MSG_FASTOPEN.cast_unsigned().into())?]);
    }
    denied.insert(libc::SYS_clone, vec![flag(0, libc::CLONE_NEWUSER.cast_unsigned().into())?]);
    // To everyone it may signal.
    let everyone = SeccompCondition::new(0, Dword, Eq, u32::MAX.into())?;
    denied.insert(libc::SYS_kill, vec![SeccompRule::new(vec![everyone])?]);
    apply(denied, libc::EPERM)?;
    // Its flags are behind a pointer, where no filter sees them; libraries fall back to `clone`.
    apply(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn apply(rules: Rules, answer: i32) -> Result<(), Error> {
    let action = SeccompAction::Errno(answer.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?.try_into()?;
    apply_filter(&program)
}

fn sockets_other_than_tcp() -> Result<Vec<SeccompRule>, Error> {
    let differs =
        |argument, value: i32| SeccompCondition::new(argument, Dword, Ne, value.cast_unsigned().into());
    let mut rules = vec![
        SeccompRule::new(vec![differs(0, libc::AF_INET)?, differs(0, libc::AF_INET6)?])?,
        SeccompRule::new(vec![differs(2, 0)?, differs(2, libc::IPPROTO_TCP)?])?,
    ];
    // There is no "masked and differs": one rule for each kind but SOCK_STREAM, below the flags.
    for kind in (0..16).filter(|kind| *kind != libc::SOCK_STREAM) {
        let other = SeccompCondition::new(1, Dword, MaskedEq(0xf), kind.cast_unsigned().into())?;
        rules.push(SeccompRule::new(vec![other])?);
    }
    Ok(rules)
}

fn flag(argument: u8, flag: u64) -> Result<SeccompRule, Error> {
    let set = SeccompCondition::new(argument, Qword, MaskedEq(flag), flag)?;
    Ok(SeccompRule::new(vec![set])?)
}
