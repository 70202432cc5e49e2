//! Giving up, on the calling thread, every right that the function must not have.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};

use super::{filter, rights};
use crate::Level;
use crate::confinement::Confinement;

/// The newest kernel interface whose restrictions were tested here; older kernels enforce what they know.
const FILES: ABI = ABI::V5;
const NETWORK: ABI = ABI::V4;
const SIGNALS: ABI = ABI::V6;

/// Programs and libraries.
const EXECUTE: [&str; 8] =
    ["/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/run/current-system/sw"];
/// What libraries look up: names, time zones, certificates, the machine's size. Not the rest of `/etc`, where
/// secrets are, nor other processes.
const READ: [&str; 35] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/vm/overcommit_memory",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Answers how well the thread, and what it starts, is confined. An error says why it is not enough.
pub fn restrict(confinement: &Confinement) -> Result<Level, String> {
    rights::limit(confinement).map_err(|error| format!("can't set limits: {error}"))?;
    rights::drop_privileges().map_err(|error| format!("can't drop privileges: {error}"))?;
    let status = confine(confinement)?;
    let mut level = match (&status.ruleset, &status.landlock) {
        (RulesetStatus::NotEnforced, _) => Level::None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Level::of(*effective_abi),
        _ => Level::None,
    };
    match filter::filter_system_calls(!confinement.tcp_ports.is_empty()) {
        Ok(()) => {}
        Err(_) if confinement.allow_unconfined => level = Level::None,
        Err(error) => return Err(format!("can't filter system calls: {error}; {ADVICE}")),
    }
    if level == Level::None && !confinement.allow_unconfined {
        return Err(format!("this kernel can't confine functions; {ADVICE}"));
    }
    Ok(level)
}

const ADVICE: &str =
    "use Linux 5.13 or newer with Landlock and seccomp, or allow unconfined functions on this site";

fn confine(confinement: &Confinement) -> Result<RestrictionStatus, String> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let own = AccessFs::from_all(FILES)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::IoctlDev);
    let system = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(FILES))?
            .handle_access(AccessNet::from_all(NETWORK))?
            .scope(Scope::from_all(SIGNALS))?
            .create()?
            .add_rules(path_beneath_rules(EXECUTE, AccessFs::from_read(FILES)))?
            .add_rules(path_beneath_rules(READ, read))?
            .add_rules(path_beneath_rules(DEVICES, devices))
    };
    let explain = |error: RulesetError| format!("can't confine the function: {error}");
    let mut ruleset = system().map_err(explain)?;
    let folders = confinement.read.iter().map(|path| (path, AccessFs::from_read(FILES)));
    for (path, access) in folders.chain(confinement.write.iter().map(|path| (path, own))) {
        let opened =
            PathFd::new(path).map_err(|error| format!("can't open `{}`: {error}", path.display()))?;
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(FILES) };
        ruleset = ruleset.add_rule(PathBeneath::new(opened, access)).map_err(explain)?;
    }
    for port in &confinement.tcp_ports {
        let connect: BitFlags<AccessNet> = AccessNet::ConnectTcp.into();
        ruleset = ruleset.add_rule(NetPort::new(*port, connect)).map_err(explain)?;
    }
    ruleset.restrict_self().map_err(explain)
}
