//! Machines of one process each, as network namespaces in a line.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Ran, Tree};

/// Namespaces in a line: each is connected to the one before and the one after, by cables that can be cut. They are
/// removed when this is dropped.
pub struct Network {
    names: Vec<String>,
    binary: PathBuf,
}

/// What a packet on a bad cable is up against.
const LOSS: &str = "0.05";

impl Network {
    /// So many machines for a program; none where this machine lets nobody make them, which is said.
    pub fn line(binary: &str, machines: usize) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            |machine| format!("av{}-{}-{machine}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { names: vec![], binary: binary.into() };
        for machine in 0..machines {
            let name = name(machine);
            let made = Command::new("ip").args(["netns", "add", &name]).output();
            if !made.as_ref().is_ok_and(|made| made.status.success()) {
                eprintln!("SKIPPED: network namespaces can't be made here: {made:?}");
                return None;
            }
            network.names.push(name);
            network.on(machine, "ip", &["link", "set", "lo", "up"]);
        }
        for machine in 1..machines {
            let (above, below) = (&network.names[machine - 1], &network.names[machine]);
            run(Command::new("ip")
                .args(["link", "add", "name", "below", "netns", above, "type", "veth"])
                .args(["peer", "name", "above", "netns", below]));
            for (end, place, address) in [("below", machine - 1, 1), ("above", machine, 2)] {
                let address = format!("10.77.{}.{address}/24", machine - 1);
                network.on(place, "ip", &["addr", "add", &address, "dev", end]);
                network.on(place, "ip", &["link", "set", end, "up"]);
            }
        }
        Some(network)
    }

    /// What runs on a machine; its hubs listen towards the next one.
    ///
    /// # Panics
    /// If the disk fails.
    pub fn tree(&self, machine: usize) -> Tree {
        let script = std::env::temp_dir().join(format!("{}.sh", self.names[machine]));
        let text = format!(
            "#!/bin/sh\nexec ip netns exec {} {} \"$@\"\n",
            self.names[machine],
            self.binary.display()
        );
        std::fs::write(&script, text).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Tree::at(script, &format!("10.77.{machine}.1"))
    }

    /// Cuts the cable between a machine and the next one.
    pub fn cut(&self, machine: usize) {
        self.deafen(machine);
        self.on(machine, "iptables", &["-A", "INPUT", "-i", "below", "-j", "DROP"]);
    }

    /// The next machine hears nothing of this one, which hears it.
    pub fn deafen(&self, machine: usize) {
        self.on(machine + 1, "iptables", &["-A", "INPUT", "-i", "above", "-j", "DROP"]);
    }

    /// Makes all cables slow (50 ms where the kernel can) and lose one packet of twenty.
    pub fn worsen(&self) {
        for machine in 0..self.names.len() {
            for end in ["above", "below"] {
                if (end == "above" && machine == 0) || (end == "below" && machine + 1 == self.names.len()) {
                    continue;
                }
                let slow = ["qdisc", "add", "dev", end, "root", "netem", "delay", "25ms", "loss", "5%"];
                if !Ran::of(Command::new("ip").args(["netns", "exec", &self.names[machine], "tc"]).args(slow))
                    .success
                {
                    eprintln!("this kernel has no netem: packets are lost, and not late");
                    let lossy = ["-m", "statistic", "--mode", "random", "--probability", LOSS, "-j", "DROP"];
                    self.on(machine, "iptables", &[&["-A", "INPUT", "-i", end], &lossy[..]].concat());
                }
            }
        }
    }

    /// All cables are whole again, and good.
    pub fn heal(&self) {
        (0..self.names.len()).for_each(|machine| self.on(machine, "iptables", &["-F"]));
    }

    fn on(&self, machine: usize, program: &str, arguments: &[&str]) {
        run(Command::new("ip").args(["netns", "exec", &self.names[machine], program]).args(arguments));
    }
}

fn run(command: &mut Command) {
    Ran::of(command).ok();
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
            let _ = std::fs::remove_file(std::env::temp_dir().join(format!("{name}.sh")));
        }
    }
}
