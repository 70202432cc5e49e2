//! Limits and privileges.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use crate::confinement::Confinement;

const FILE_BYTES: u64 = 1 << 30;
const OPEN_FILES: u64 = 256;
/// Of the agent's user in all, since that is how the kernel counts; it does not count for root.
const PROCESSES: u64 = 4096;

/// Sets limits for this whole process and what it starts.
pub fn limit(confinement: &Confinement) -> io::Result<()> {
    // The clock is the limit; this one holds even if nobody looks at the clock.
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let cpu_seconds = confinement.timeout.as_secs().saturating_add(5).saturating_mul(cores);
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Cpu, cpu_seconds),
        (Resource::Data, confinement.memory_bytes),
        (Resource::Fsize, FILE_BYTES),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Nproc, PROCESSES),
    ] {
        // A limit that is lower already stays.
        let most = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Makes the thread as powerless as any user's, also if that user is root, and for good.
pub fn drop_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    // Only a process with the right to change these sets needs to empty them.
    let _ = set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED,
    );
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {
                let _ = remove_capability_from_bounding_set(capability);
            }
            Ok(false) => {}
            // Past the last that this kernel knows.
            Err(_) => break,
        }
    }
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
