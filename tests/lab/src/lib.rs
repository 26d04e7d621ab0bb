//! Real hosts on one machine: booted containers with systemd, sshd and a Nix store, each at an address of its own.
//!
//! Every lab is a private network: a bridge in a network namespace, one more namespace a host, no route to anywhere else. A
//! host's disk is an overlay over a cached image, so that booting takes a second or two and what happens on a host is gone
//! with the lab. One host, `control`, is where tests run Terraform: nothing of the machine's own configuration leaks in.
//!
//! However the owner of a lab ends, nothing of it stays: a reaper process holds one end of a pipe and cleans up when the
//! other end is gone.

mod error;
mod host;
mod image;
mod reaper;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use error::LabError;
pub use host::{Finished, Host};
pub use image::mirror;

use error::run;
use reaper::Reaper;

/// Debian packages the lab needs on the machine. The one list of them.
pub const PACKAGES: &[&str] = &[
    "mmdebstrap",
    "systemd-container",
    "iproute2",
    "util-linux",
    "openssh-client",
    "busybox-static",
    "procps",
];

/// How long a host may take to boot.
const BOOT: Duration = Duration::from_mins(1);

/// A running lab. Dropping it powers everything off and removes it.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    // After the hosts: they must not outlive it.
    _reaper: Reaper,
}

/// What kind of host.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The size of its disk; `None`: as large as the machine's.
    pub disk_bytes: Option<u64>,
    /// Whether the user `deploy` may become root by `sudo` without a password.
    pub sudo: bool,
    /// Directories or files of the machine to show read-only: (path here, path there).
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// Describes a lab before it is booted.
pub struct Builder<'a> {
    cache: PathBuf,
    fixture: PathBuf,
    hosts: Vec<(String, HostOptions)>,
    progress: &'a dyn Fn(&str),
}

impl Lab {
    /// A lab with only `control` so far. `cache` keeps images between labs; `fixture` is the tree whose `installer.nix` the
    /// hosts are installed with.
    pub fn builder<'a>(cache: &Path, fixture: &Path) -> Builder<'a> {
        Builder {
            cache: cache.to_owned(),
            fixture: fixture.to_owned(),
            hosts: vec![("control".to_owned(), HostOptions::default())],
            progress: &|_| {},
        }
    }

    /// The host where Terraform runs.
    pub fn control(&self) -> &Host {
        self.host("control")
    }

    /// A host by name.
    ///
    /// # Panics
    ///
    /// When the lab was built without it.
    #[expect(clippy::panic, reason = "a mistake in the test itself")]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .iter()
            .find(|host| host.name() == name)
            .unwrap_or_else(|| panic!("the lab has no host {name}"))
    }
}

impl<'a> Builder<'a> {
    /// With another host.
    #[must_use]
    pub fn host(self, name: &str) -> Self {
        self.host_with(name, HostOptions::default())
    }

    /// With another host of a certain kind.
    #[must_use]
    pub fn host_with(mut self, name: &str, options: HostOptions) -> Self {
        self.hosts.retain(|(known, _)| known != name);
        self.hosts.push((name.to_owned(), options));
        self
    }

    /// Tells `progress` about steps that take long.
    #[must_use]
    pub fn on_progress(self, progress: &'a dyn Fn(&str)) -> Self {
        Self { progress, ..self }
    }

    /// Boots all hosts and waits until they answer.
    pub fn boot(self) -> Result<Lab, LabError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let missing = missing_packages();
        if !missing.is_empty() {
            return Err(LabError::Missing(missing));
        }
        let layers = image::layers(&self.cache, &self.fixture, self.progress)?;
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = self.cache.join("run").join(&id);
        std::fs::create_dir_all(&directory).map_err(LabError::io(&directory))?;
        let directory = std::fs::canonicalize(&directory).map_err(LabError::io(&directory))?;
        let reaper = Reaper::start(&id, &directory)?;

        let switch = namespace(&id, "switch");
        run("ip", &["netns", "add", &switch])?;
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"])?;
        let key = directory.join("key");
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", &text(&key)])?;

        let mut hosts = vec![];
        for (n, (name, options)) in (1u8..).zip(self.hosts) {
            let address = Ipv4Addr::new(10, 88, 0, n);
            let host = Host::new(&id, &directory, &name, address, options);
            host.install(&layers, &key)?;
            host.connect(&switch, n)?;
            host.power_on_without_waiting()?;
            hosts.push(host);
        }
        for host in &hosts {
            host.wait_until_up(BOOT)?;
        }
        Ok(Lab { hosts, _reaper: reaper })
    }
}

/// The packages of [`PACKAGES`] that are not installed.
pub fn missing_packages() -> Vec<&'static str> {
    let programs = [
        ("mmdebstrap", "mmdebstrap"),
        ("systemd-nspawn", "systemd-container"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("ssh-keygen", "openssh-client"),
        ("busybox", "busybox-static"),
        ("pgrep", "procps"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    };
    programs.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect()
}

/// What labs have left on this machine: processes, mounts and namespaces of labs whose owner is gone.
pub fn leftovers() -> Vec<String> {
    let namespaces = run("ip", &["netns", "list"]).unwrap_or_default();
    let namespaces =
        namespaces.lines().filter(|line| line.starts_with("nixlab-")).map(|line| format!("namespace {line}"));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains("/lab/run/")).map(|line| format!("mount {line}"));
    let processes = run("pgrep", &["-af", "systemd-nspawn.*nixlab-"]).unwrap_or_default();
    let processes = processes.lines().map(|line| format!("process {line}"));
    namespaces.chain(mounts).chain(processes).collect()
}

fn namespace(id: &str, host: &str) -> String {
    format!("nixlab-{id}-{host}")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
