//! Real hosts on one machine: booted containers with systemd, sshd and a Nix store, each at an address of its own.
//!
//! A host may also be a virtual machine with firmware, boot loader, kernel and clock of its own; it takes half a
//! minute to boot.
//!
//! Every lab is a private network: a bridge in a network namespace, one more namespace a host, no route to anywhere
//! else. A host's disk is an overlay over a cached image, so that booting takes a second or two and what happens on a
//! host is gone with the lab. One host, `control`, is where tests run Terraform: nothing of the machine's own
//! configuration leaks in.
//!
//! However the owner of a lab ends, nothing of it stays: a reaper process holds one end of a pipe and cleans up when
//! the other end is gone.

mod container;
mod error;
mod host;
mod image;
mod login;
mod reaper;
mod virtual_machine;

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

pub use error::LabError;
pub use host::{Finished, Host};
pub use image::mirror;
pub use login::Login;

use error::run;
use image::Images;
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
    "python3-venv",
    "qemu-system-x86",
    "ovmf",
    "dosfstools",
    "mtools",
    "fdisk",
    "e2fsprogs",
    "xz-utils",
    "git",
];

/// A running lab. Dropping it powers everything off and removes it.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    switch: String,
    cache: PathBuf,
    fixture: PathBuf,
    hosts: Vec<Host>,
    guests: AtomicU8,
    // After the hosts: they must not outlive it.
    _reaper: Reaper,
}

/// Where the lab itself can be talked to, once its network is open: services of the lab listen there.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 254);

/// A machine that somebody makes while the lab runs: at addresses and with keys of their choosing.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name, unique in the lab.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Its SSH host key, private and public; `None`: one of its own.
    pub host_key: Option<(String, String)>,
    /// Who may log in as root.
    pub authorized_keys: String,
}

/// The keys of a new host.
pub(crate) struct Keys<'a> {
    host: Option<(String, String)>,
    authorized: String,
    login: &'a Path,
}

/// What starts a virtual machine's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootLoader {
    /// systemd-boot; the EFI system partition is mounted at `/boot`.
    SystemdBoot,
    /// GRUB for UEFI; `/boot` is a directory of the root file system.
    Grub,
}

impl BootLoader {
    /// As NixOS calls it: `boot.loader.NAME.enable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemdBoot => "systemd-boot",
            Self::Grub => "grub",
        }
    }
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
    /// What is unusual about logging in to it.
    pub login: Login,
    /// It is a virtual machine with this boot loader; all other options but `volumes` are of containers.
    pub virtual_machine: Option<BootLoader>,
    /// The serial numbers of further disks of a virtual machine: empty `NVMe` devices of 256 MiB each, as volumes are
    /// on EC2.
    pub volumes: Vec<String>,
}

/// Describes a lab before it is booted.
pub struct Builder<'a> {
    cache: PathBuf,
    fixture: PathBuf,
    hosts: Vec<(String, HostOptions)>,
    progress: &'a dyn Fn(&str),
}

impl Lab {
    /// A lab with only `control` so far. `cache` keeps images between labs; `fixture` is the tree whose
    /// `installer.nix` the hosts are installed with.
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

impl Lab {
    /// Lets every host reach every address: all are on one wire. Services of the lab listen at [`GATEWAY`].
    pub fn open_network(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.switch, "addr", "replace", &format!("{GATEWAY}/32"), "dev", "br0"])?;
        run("ip", &["-n", &self.switch, "link", "set", "lo", "up"])?;
        run("ip", &["-n", &self.switch, "route", "replace", "default", "dev", "br0"])?;
        self.hosts.iter().try_for_each(Host::reach_everybody)
    }

    /// Moves the calling thread to where services of the lab listen. It cannot go back.
    pub fn join_network(&self) -> Result<(), LabError> {
        let path = Path::new("/run/netns").join(&self.switch);
        let file = std::fs::File::open(&path).map_err(LabError::io(&path))?;
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), network)
            .map_err(|error| LabError::io(&path)(error.into()))
    }

    /// Starts a program there; it ends with the lab. What it prints goes to a file.
    pub fn start_service(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<PathBuf, LabError> {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory).map_err(LabError::io(&directory))?;
        let log = directory.join("log");
        let file = std::fs::File::create(&log).map_err(LabError::io(&log))?;
        let again = file.try_clone().map_err(LabError::io(&log))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.switch]).arg(program).args(arguments);
        command.stdin(std::process::Stdio::null()).stdout(file).stderr(again);
        let child = command.spawn().map_err(LabError::io(program))?;
        // The reaper looks for it there.
        let pid = directory.join("pid");
        std::fs::write(&pid, child.id().to_string()).map_err(LabError::io(&pid))?;
        Ok(log)
    }

    /// Makes and boots a guest; it is there at once, but may not answer yet.
    pub fn add(&self, guest: &Guest) -> Result<Host, LabError> {
        let port = FIRST_GUEST + self.guests.fetch_add(1, Ordering::Relaxed);
        let address = guest.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let host = Host::new(&self.id, &self.directory, &guest.name, address, HostOptions::default());
        let keys = Keys {
            host: guest.host_key.clone(),
            authorized: guest.authorized_keys.clone(),
            login: &login_key(&self.directory),
        };
        let images = Images { cache: &self.cache, fixture: &self.fixture, progress: &|_| {} };
        host.install(&images, &keys)?;
        host.connect(&self.switch, port)?;
        host.set_addresses(&guest.addresses)?;
        host.power_on_without_waiting()?;
        Ok(host)
    }
}

/// The switch's first port for guests.
const FIRST_GUEST: u8 = 100;

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
        let images = Images { cache: &self.cache, fixture: &self.fixture, progress: self.progress };
        allow_watchers();
        // What takes long comes before anything is there that would have to be cleaned up.
        images.layers()?;
        for loader in self.hosts.iter().filter_map(|(_, options)| options.virtual_machine) {
            images.disk(loader)?;
        }
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = self.cache.join("run").join(&id);
        std::fs::create_dir_all(&directory).map_err(LabError::io(&directory))?;
        let directory = std::fs::canonicalize(&directory).map_err(LabError::io(&directory))?;
        let reaper = Reaper::start(&id, &directory)?;

        let switch = namespace(&id, "switch");
        run("ip", &["netns", "add", &switch])?;
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"])?;
        let key = login_key(&directory);
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", &text(&key)])?;

        let public = key.with_extension("pub");
        let authorized = std::fs::read_to_string(&public).map_err(LabError::io(&public))?;
        let mut hosts = vec![];
        for (n, (name, options)) in (1u8..).zip(self.hosts) {
            let address = Ipv4Addr::new(10, 88, 0, n);
            let host = Host::new(&id, &directory, &name, address, options);
            host.install(&images, &Keys { host: None, authorized: authorized.clone(), login: &key })?;
            host.connect(&switch, n)?;
            host.add_ipv6(n)?;
            host.power_on_without_waiting()?;
            hosts.push(host);
        }
        for host in &hosts {
            host.wait_until_up()?;
        }
        let (cache, fixture) = (self.cache, self.fixture);
        Ok(Lab { id, directory, switch, cache, fixture, hosts, guests: AtomicU8::new(0), _reaper: reaper })
    }
}

/// A host's systemd and bus have several inotify instances, and what the kernel allows a user (128) is meant for one
/// machine. Where that cannot be changed there are fewer hosts at once.
fn allow_watchers() {
    const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 2048;
    let allowed = std::fs::read_to_string(INSTANCES).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if allowed.is_some_and(|allowed| allowed < ENOUGH) {
        let _ = std::fs::write(INSTANCES, ENOUGH.to_string());
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
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mkfs.vfat", "dosfstools"),
        ("mcopy", "mtools"),
        ("sfdisk", "fdisk"),
        ("mke2fs", "e2fsprogs"),
        ("xz", "xz-utils"),
        ("git", "git"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    };
    let mut missing: Vec<&str> =
        programs.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    if !Path::new(virtual_machine::FIRMWARE).exists() {
        missing.push("ovmf");
    }
    // Debian's Python comes without what makes virtual environments.
    let venv = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    if !venv.is_ok_and(|output| output.status.success()) {
        missing.push("python3-venv");
    }
    missing
}

/// What labs have left on this machine: processes, mounts and namespaces of labs whose owner is gone.
pub fn leftovers() -> Vec<String> {
    let namespaces = run("ip", &["netns", "list"]).unwrap_or_default();
    let namespaces =
        namespaces.lines().filter(|line| line.starts_with("nixlab-")).map(|line| format!("namespace {line}"));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains("/lab/run/")).map(|line| format!("mount {line}"));
    let processes = run("pgrep", &["-af", "(systemd-nspawn|qemu-system).*nixlab-"]).unwrap_or_default();
    let processes = processes.lines().map(|line| format!("process {line}"));
    namespaces.chain(mounts).chain(processes).collect()
}

/// What logs in to the hosts of the lab in this directory.
fn login_key(lab: &Path) -> PathBuf {
    lab.join("key")
}

fn namespace(id: &str, host: &str) -> String {
    format!("nixlab-{id}-{host}")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
