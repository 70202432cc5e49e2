//! Machines of one process each, as network namespaces that are connected by cables.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Ran, Tree};

/// Namespaces in a line or around the first one, with cables between them that can be cut: cable N is the one above
/// machine N + 1. They are removed when this is dropped.
pub struct Network {
    names: Vec<String>,
    /// Where hubs of each machine listen.
    addresses: Vec<String>,
    cables: Vec<Cable>,
    binary: PathBuf,
}

/// Its lower end is the device `above` of a machine of its own.
struct Cable {
    /// The machine at its upper end, and the device there.
    above: usize,
    end: String,
    below: usize,
}

/// What a packet on a bad cable is up against.
const LOSS: &str = "0.05";
/// The end of a cable that is at the lower machine.
const ABOVE: &str = "above";

impl Network {
    /// So many machines for a program, each connected to the one before and the one after; none where this machine lets
    /// nobody make them, which is said.
    pub fn line(binary: &str, machines: usize) -> Option<Self> {
        let mut network = Self::machines(binary, machines)?;
        for machine in 1..machines {
            network.connect(machine - 1, machine);
            network.addresses.push(format!("10.77.{}.1", machine - 1));
        }
        Some(network)
    }

    /// The same with all of them connected to the first one, and not to each other.
    pub fn star(binary: &str, machines: usize) -> Option<Self> {
        let mut network = Self::machines(binary, machines)?;
        let address = "10.77.255.1";
        network.on(0, "ip", &["addr", "add", &format!("{address}/32"), "dev", "lo"]);
        network.addresses.push(address.to_owned());
        for machine in 1..machines {
            network.connect(0, machine);
            let way = format!("10.77.{}.1", machine - 1);
            network.on(machine, "ip", &["route", "add", &format!("{address}/32"), "via", &way]);
        }
        Some(network)
    }

    fn machines(binary: &str, machines: usize) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            |machine| format!("av{}-{}-{machine}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { names: vec![], addresses: vec![], cables: vec![], binary: binary.into() };
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
        Some(network)
    }

    fn connect(&mut self, above: usize, below: usize) {
        let (number, end) = (self.cables.len(), format!("below{}", self.cables.len()));
        run(Command::new("ip")
            .args(["link", "add", "name", &end, "netns", &self.names[above], "type", "veth"])
            .args(["peer", "name", ABOVE, "netns", &self.names[below]]));
        for (device, machine, host) in [(end.as_str(), above, 1), (ABOVE, below, 2)] {
            let address = format!("10.77.{number}.{host}/24");
            self.on(machine, "ip", &["addr", "add", &address, "dev", device]);
            self.on(machine, "ip", &["link", "set", device, "up"]);
        }
        self.cables.push(Cable { above, end, below });
    }

    /// What runs on a machine; its hubs listen towards the machines below.
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
        let address = self.addresses.get(machine).map_or("127.0.0.1", String::as_str);
        Tree::at(script, address)
    }

    /// Cuts a cable.
    pub fn cut(&self, cable: usize) {
        self.deafen(cable);
        self.mute(cable);
    }

    /// The lower end of a cable hears nothing of the upper one, which hears it.
    pub fn deafen(&self, cable: usize) {
        self.on(self.cables[cable].below, "iptables", &["-A", "INPUT", "-i", ABOVE, "-j", "DROP"]);
    }

    /// The upper end of a cable hears nothing of the lower one, which hears it.
    pub fn mute(&self, cable: usize) {
        let Cable { above, end, .. } = &self.cables[cable];
        self.on(*above, "iptables", &["-A", "INPUT", "-i", end, "-j", "DROP"]);
    }

    /// Breaks each connection over a cable as soon as the lower end says anything, and each new one.
    pub fn tear(&self, cable: usize) {
        let reset = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"];
        let below = self.cables[cable].below;
        self.on(below, "iptables", &[&["-A", "OUTPUT", "-o", ABOVE], &reset[..]].concat());
    }

    /// Makes all cables lose one packet of twenty, and slow: by 50 ms where the kernel can, else they carry less.
    pub fn worsen(&self) {
        for (machine, device) in self.ends() {
            let queue = |words: &[&str]| {
                self.try_on(machine, "tc", &[&["qdisc", "add", "dev", device, "root"], words].concat())
                    .success
            };
            if queue(&["netem", "delay", "25ms", "loss", "5%"]) {
                continue;
            }
            let is_narrow = queue(&["tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms"]);
            eprintln!("this kernel has no netem: packets are lost, and not late (narrow: {is_narrow})");
            let lossy = ["-m", "statistic", "--mode", "random", "--probability", LOSS, "-j", "DROP"];
            self.on(machine, "iptables", &[&["-A", "INPUT", "-i", device], &lossy[..]].concat());
        }
    }

    /// All cables are whole again, and good.
    pub fn heal(&self) {
        (0..self.names.len()).for_each(|machine| self.on(machine, "iptables", &["-F"]));
        for (machine, device) in self.ends() {
            // There is nothing to take away from a cable that was not made worse.
            let _ = self.try_on(machine, "tc", &["qdisc", "del", "dev", device, "root"]);
        }
    }

    /// What cables are up against that is no more than a cable: rules for packets, and how they wait for their turn.
    pub fn faults(&self) -> Vec<String> {
        let rules = (0..self.names.len()).map(|machine| self.try_on(machine, "iptables", &["-S"]).ok());
        let queues = self
            .ends()
            .map(|(machine, device)| self.try_on(machine, "tc", &["qdisc", "show", "dev", device]).ok());
        let is_fault =
            |line: &&str| ["-A ", "qdisc netem", "qdisc tbf"].iter().any(|word| line.starts_with(word));
        let faults = |text: String| text.lines().filter(is_fault).map(str::to_owned).collect::<Vec<_>>();
        rules.chain(queues).flat_map(faults).collect()
    }

    /// How many bytes the upper end of a cable has sent.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn bytes_down(&self, cable: usize) -> u64 {
        let Cable { above, end, .. } = &self.cables[cable];
        let file = format!("/sys/class/net/{end}/statistics/tx_bytes");
        self.try_on(*above, "cat", &[&file]).ok().trim().parse().unwrap()
    }

    /// All ends of all cables: machines, and devices there.
    fn ends(&self) -> impl Iterator<Item = (usize, &str)> {
        self.cables.iter().flat_map(|cable| [(cable.above, cable.end.as_str()), (cable.below, ABOVE)])
    }

    fn on(&self, machine: usize, program: &str, arguments: &[&str]) {
        self.try_on(machine, program, arguments).ok();
    }

    fn try_on(&self, machine: usize, program: &str, arguments: &[&str]) -> Ran {
        Ran::of(Command::new("ip").args(["netns", "exec", &self.names[machine], program]).args(arguments))
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
