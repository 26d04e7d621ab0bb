//! One host of a lab, whatever it runs in.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::error::run;
use crate::image::Images;
use crate::virtual_machine::VirtualMachine;
use crate::{HostOptions, Keys, LabError, namespace};

/// How `ssh` says that it did not get there.
const UNREACHED: i32 = 255;

/// A host, running or not.
#[derive(Debug)]
pub struct Host {
    place: Place,
    machine: Machine,
}

/// Where a host is: in the lab, and on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    /// The lab-wide unique name: of namespace, container and cgroup.
    pub(crate) unique: String,
    pub(crate) directory: PathBuf,
}

/// What it runs in.
#[derive(Debug)]
enum Machine {
    Container(Container),
    Virtual(VirtualMachine),
}

/// How a command on a host ended.
#[derive(Debug)]
pub struct Finished {
    /// Whether it succeeded.
    pub success: bool,
    /// Exit code, where it was not killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Host {
    pub(crate) fn new(id: &str, lab: &Path, name: &str, address: Ipv4Addr, options: HostOptions) -> Self {
        let place =
            Place { name: name.to_owned(), address, unique: namespace(id, name), directory: lab.join(name) };
        let machine = match options.virtual_machine {
            Some(loader) => {
                Machine::Virtual(VirtualMachine::new(place.clone(), loader, options.volumes.clone(), lab))
            }
            None => Machine::Container(Container::new(place.clone(), options)),
        };
        Self { place, machine }
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.place.address
    }

    /// Its IPv6 address, unique and local to the lab.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, u16::from(self.place.address.octets()[3]))
    }

    /// Its link-local IPv6 address, without the zone: that is the interface of whoever asks.
    pub fn link_local(&self) -> Result<String, LabError> {
        let said = run(
            "ip",
            &["-n", &self.place.unique, "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"],
        )?;
        let address = said.split_whitespace().find(|word| word.starts_with("fe80:")).unwrap_or_default();
        Ok(address.split('/').next().unwrap_or_default().to_owned())
    }

    /// Its public SSH host key.
    pub fn host_public_key(&self) -> String {
        let key = self.read_file("/etc/ssh/ssh_host_ed25519_key.pub").unwrap_or_default();
        key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Its root directory, seen from outside; a virtual machine has none there.
    pub fn root(&self) -> Option<PathBuf> {
        match &self.machine {
            Machine::Container(container) => Some(container.root()),
            Machine::Virtual(_) => None,
        }
    }

    /// A command that will run on the host as root, with a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let clean = [
            "/usr/bin/env",
            "-i",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
        ];
        let words = [&clean, arguments].concat();
        let mut command = match &self.machine {
            Machine::Container(container) => container.command(&words),
            Machine::Virtual(machine) => machine.command(&words),
        };
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command on the host as root, to its end. A virtual machine that does not answer is an error.
    pub fn exec(&self, arguments: &[&str]) -> Result<Finished, LabError> {
        let mut command = self.command(arguments);
        let program = PathBuf::from(command.get_program());
        let output = command.output().map_err(LabError::io(&program))?;
        if matches!(self.machine, Machine::Virtual(_)) && output.status.code() == Some(UNREACHED) {
            return Err(LabError::Command {
                command: format!("ssh {}", self.place.name),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(Finished {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Writes a file, with the directories above it. Where the host is a container it need not run.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<(), LabError> {
        match &self.machine {
            Machine::Container(container) => container.write_file(path, content.as_ref()),
            Machine::Virtual(machine) => machine.write_file(path, content.as_ref()),
        }
    }

    /// Reads a file. Where the host is a container it need not run.
    pub fn read_file(&self, path: &str) -> Result<String, LabError> {
        match &self.machine {
            Machine::Container(container) => container.read_file(path),
            Machine::Virtual(machine) => machine.read_file(path),
        }
    }

    /// Copies a file or directory onto the host.
    pub fn copy_in(&self, from: &Path, to: &str) -> Result<(), LabError> {
        match &self.machine {
            Machine::Container(container) => container.copy_in(from, to),
            Machine::Virtual(machine) => machine.copy_in(from, to),
        }
    }

    /// Cuts the power.
    pub fn power_cut(&self) -> Result<(), LabError> {
        let Some(pid) = self.place.pid() else { return Ok(()) };
        match &self.machine {
            Machine::Container(container) => container.kill(),
            Machine::Virtual(machine) => machine.kill(),
        }
        let start = Instant::now();
        while Path::new("/proc").join(pid.to_string()).exists() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let file = self.place.pid_file();
        fs::remove_file(&file).map_err(LabError::io(&file))
    }

    /// Boots the host and waits until it answers.
    pub fn power_on(&self) -> Result<(), LabError> {
        self.power_on_without_waiting()?;
        self.wait_until_up()
    }

    /// Cuts the power and boots again.
    pub fn power_cycle(&self) -> Result<(), LabError> {
        self.power_cut()?;
        self.power_on()
    }

    /// Pulls the network cable.
    pub fn link_down(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.place.unique, "link", "set", "eth0", "down"]).map(drop)
    }

    /// Puts it back.
    pub fn link_up(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.place.unique, "link", "set", "eth0", "up"]).map(drop)
    }

    /// The end of what the host printed on its console.
    pub fn console(&self) -> String {
        let text = fs::read(self.place.console_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Makes its disk, with the keys of this lab, or with those of a guest.
    pub(crate) fn install(&self, images: &Images<'_>, keys: &Keys<'_>) -> Result<(), LabError> {
        match &self.machine {
            Machine::Container(container) => container.install(&images.layers()?, keys),
            Machine::Virtual(machine) => machine.install(images, keys),
        }
    }

    /// Plugs the host into the lab's switch, at port `n`.
    pub(crate) fn connect(&self, switch: &str, n: u8) -> Result<(), LabError> {
        let (own, port) = (&self.place.unique, format!("port{n}"));
        run("ip", &["netns", "add", own])?;
        run(
            "ip",
            &["-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", own],
        )?;
        run("ip", &["-n", switch, "link", "set", &port, "master", "br0", "up"])?;
        run("ip", &["-n", own, "link", "set", "lo", "up"])?;
        match &self.machine {
            Machine::Container(container) => container.connect()?,
            Machine::Virtual(machine) => machine.connect(n)?,
        }
        run("ip", &["-n", own, "link", "set", "eth0", "up"]).map(drop)
    }

    /// Gives the host an IPv6 address, and takes the IPv4 address of one that is to have none.
    pub(crate) fn add_ipv6(&self, n: u8) -> Result<(), LabError> {
        let own = &self.place.unique;
        if let Machine::Container(container) = &self.machine {
            run("ip", &["-n", own, "addr", "add", &format!("fd88::{n:x}/64"), "dev", "eth0", "nodad"])?;
            if container.is_ipv6_only() {
                run("ip", &["-n", own, "-4", "addr", "flush", "dev", "eth0"])?;
            }
        }
        Ok(())
    }

    /// Gives the host these addresses, and all others a way out: everybody is on one wire.
    pub fn set_addresses(&self, addresses: &[Ipv4Addr]) -> Result<(), LabError> {
        run("ip", &["-n", &self.place.unique, "addr", "flush", "dev", "eth0"])?;
        for address in addresses {
            run("ip", &["-n", &self.place.unique, "addr", "add", &format!("{address}/32"), "dev", "eth0"])?;
        }
        self.reach_everybody()
    }

    pub(crate) fn reach_everybody(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.place.unique, "route", "replace", "default", "dev", "eth0"]).map(drop)
    }

    /// Takes the host off the switch and throws its disk away.
    pub fn scrap(&self) -> Result<(), LabError> {
        self.power_cut()?;
        run("ip", &["netns", "del", &self.place.unique])?;
        match &self.machine {
            Machine::Container(container) => container.scrap(),
            Machine::Virtual(machine) => machine.scrap(),
        }
    }

    /// Boots the host and returns at once.
    pub fn power_on_without_waiting(&self) -> Result<(), LabError> {
        match &self.machine {
            Machine::Container(container) => container.boot(),
            Machine::Virtual(machine) => machine.boot(),
        }
    }

    /// Waits until it answers.
    pub fn wait_until_up(&self) -> Result<(), LabError> {
        // Logged in to from outside only when the first system runs and sshd listens.
        let ready = ["bash", "-c", "test -e /run/current-system && exec 3<>/dev/tcp/127.0.0.1/22"];
        let (limit, pause) = match &self.machine {
            Machine::Container(_) => (Duration::from_mins(1), Duration::from_millis(40)),
            Machine::Virtual(_) => (VirtualMachine::BOOT, Duration::from_millis(500)),
        };
        let is_there = || match &self.machine {
            Machine::Container(container) => container.leader().is_some(),
            Machine::Virtual(_) => self.place.pid().is_some(),
        };
        let start = Instant::now();
        loop {
            if is_there() && self.exec(&ready).is_ok_and(|finished| finished.success) {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(LabError::Boot { host: self.place.name.clone(), console: self.console() });
            }
            std::thread::sleep(pause);
        }
    }
}

impl Place {
    /// Where it is written which process of this machine the host is.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.directory.join("pid")
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// Where what it prints goes.
    pub(crate) fn console_file(&self) -> PathBuf {
        self.directory.join("console")
    }
}
