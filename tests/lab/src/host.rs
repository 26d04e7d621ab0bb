//! One host of a lab.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Keys;
use crate::error::run;
use crate::image::Layers;
use crate::{HostOptions, LabError, namespace, text};

/// Boots a host: systemd from 256 on wants a pure cgroup v2 tree, which it gets in a mount namespace of its own.
/// `$1`: name of the cgroup, `$2`: file for the process id; the rest is the command.
const BOOT: &str = r#"
umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"; echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
pid=$2; shift 2
# How systemd-nspawn says that the host wants to boot again.
reboot=133
while sh -c 'echo $$ > "$0"; exec "$@"' "$pid" "$@"; [ $? = $reboot ]; do :; done
"#;

/// A host, running or not.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    /// The lab-wide unique name: of namespace, container and cgroup.
    unique: String,
    directory: PathBuf,
    options: HostOptions,
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
        Self {
            name: name.to_owned(),
            address,
            unique: namespace(id, name),
            directory: lab.join(name),
            options,
        }
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its public SSH host key.
    pub fn host_public_key(&self) -> String {
        let key = self.read_file("/etc/ssh/ssh_host_ed25519_key.pub").unwrap_or_default();
        key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Its root directory, seen from outside.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A command that will run on the host as root, with a clean environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let leader = self.leader().map_or_else(|| "0".to_owned(), |pid| pid.to_string());
        command.args([
            "-t",
            &leader,
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "--wdns=/root",
            "--",
            "/usr/bin/env",
            "-i",
        ]);
        command.args(["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command on the host as root, to its end.
    pub fn exec(&self, arguments: &[&str]) -> Result<Finished, LabError> {
        let output = self.command(arguments).output().map_err(LabError::io(Path::new("nsenter")))?;
        Ok(Finished {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Writes a file, with the directories above it. Best before or while the host runs; overlays do not mind.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<(), LabError> {
        let path = self.outside(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(LabError::io(parent))?;
        }
        fs::write(&path, content).map_err(LabError::io(&path))
    }

    /// Reads a file.
    pub fn read_file(&self, path: &str) -> Result<String, LabError> {
        let path = self.outside(path);
        fs::read_to_string(&path).map_err(LabError::io(&path))
    }

    /// Copies a file or directory onto the host.
    pub fn copy_in(&self, from: &Path, to: &str) -> Result<(), LabError> {
        let to = self.outside(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(LabError::io(parent))?;
        }
        run("cp", &["-rT", &text(from), &text(&to)]).map(drop)
    }

    /// Cuts the power.
    pub fn power_cut(&self) -> Result<(), LabError> {
        let Some(outer) = self.outer() else { return Ok(()) };
        if let Some(leader) = self.leader() {
            let _ = run("kill", &["-KILL", &leader.to_string()]);
        }
        let start = Instant::now();
        while Path::new("/proc").join(outer.to_string()).exists() && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = self.directory.join("pid");
        fs::remove_file(&pid).map_err(LabError::io(&pid))
    }

    /// Boots the host and waits until it answers.
    pub fn power_on(&self) -> Result<(), LabError> {
        self.power_on_without_waiting()?;
        self.wait_until_up(Duration::from_mins(1))
    }

    /// Cuts the power and boots again.
    pub fn power_cycle(&self) -> Result<(), LabError> {
        self.power_cut()?;
        self.power_on()
    }

    /// Pulls the network cable.
    pub fn link_down(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.unique, "link", "set", "eth0", "down"]).map(drop)
    }

    /// Puts it back.
    pub fn link_up(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.unique, "link", "set", "eth0", "up"]).map(drop)
    }

    /// The end of what the host printed on its console.
    pub fn console(&self) -> String {
        let text = fs::read(self.directory.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Makes the disk: an overlay with the keys of this lab, or with those of a guest.
    pub(crate) fn install(&self, layers: &Layers, keys: &Keys<'_>) -> Result<(), LabError> {
        let disk = self.directory.join("disk");
        for path in [&disk, &self.root()] {
            fs::create_dir_all(path).map_err(LabError::io(path))?;
        }
        if let Some(bytes) = self.options.disk_bytes {
            run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &text(&disk)])?;
        }
        let (upper, work) = (disk.join("upper"), disk.join("work"));
        for path in [&upper, &work] {
            fs::create_dir_all(path).map_err(LabError::io(path))?;
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", layers.lower, text(&upper), text(&work));
        run("mount", &["-t", "overlay", "overlay", "-o", &options, &text(&self.root())])?;

        let host_key = self.outside("/etc/ssh/ssh_host_ed25519_key");
        if let Some((private, public)) = &keys.host {
            self.write_private("/etc/ssh/ssh_host_ed25519_key", private.as_bytes())?;
            // `write_private` is for home directories; this one is everybody's to read.
            let directory = self.outside("/etc/ssh");
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
                .map_err(LabError::io(&directory))?;
            self.write_file("/etc/ssh/ssh_host_ed25519_key.pub", format!("{public}\n"))?;
        } else {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", &self.name, "-f", &text(&host_key)])?;
        }
        self.write_file("/etc/hostname", format!("{}\n", self.name))?;
        let public = keys.authorized.as_bytes();
        if self.name == "control" {
            let private = fs::read(keys.login).map_err(LabError::io(keys.login))?;
            self.write_private("/root/.ssh/id_ed25519", &private)?;
        }
        self.write_private("/root/.ssh/authorized_keys", public)?;
        self.write_private("/home/deploy/.ssh/authorized_keys", public)?;
        run("chroot", &[&text(&self.root()), "chown", "-R", "deploy:deploy", "/home/deploy/.ssh"])?;
        if self.options.sudo {
            self.write_file("/etc/sudoers.d/deploy", "deploy ALL=(ALL) NOPASSWD: ALL\n")?;
        }
        Ok(())
    }

    fn write_private(&self, path: &str, content: &[u8]) -> Result<(), LabError> {
        self.write_file(path, content)?;
        let path = self.outside(path);
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(LabError::io(path))
        };
        mode(&path, 0o600)?;
        path.parent().map_or(Ok(()), |parent| mode(parent, 0o700))
    }

    /// Plugs the host into the lab's switch, at port `n`.
    pub(crate) fn connect(&self, switch: &str, n: u8) -> Result<(), LabError> {
        let (own, port) = (&self.unique, format!("port{n}"));
        run("ip", &["netns", "add", own])?;
        run(
            "ip",
            &["-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", own],
        )?;
        run("ip", &["-n", switch, "link", "set", &port, "master", "br0", "up"])?;
        run("ip", &["-n", own, "addr", "add", &format!("{}/24", self.address), "dev", "eth0"])?;
        run("ip", &["-n", own, "link", "set", "lo", "up"])?;
        run("ip", &["-n", own, "link", "set", "eth0", "up"]).map(drop)
    }

    /// Gives the host these addresses, and all others a way out: everybody is on one wire.
    pub fn set_addresses(&self, addresses: &[Ipv4Addr]) -> Result<(), LabError> {
        run("ip", &["-n", &self.unique, "addr", "flush", "dev", "eth0"])?;
        for address in addresses {
            run("ip", &["-n", &self.unique, "addr", "add", &format!("{address}/32"), "dev", "eth0"])?;
        }
        self.reach_everybody()
    }

    pub(crate) fn reach_everybody(&self) -> Result<(), LabError> {
        run("ip", &["-n", &self.unique, "route", "replace", "default", "dev", "eth0"]).map(drop)
    }

    /// Takes the host off the switch and throws its disk away.
    pub fn scrap(&self) -> Result<(), LabError> {
        self.power_cut()?;
        run("ip", &["netns", "del", &self.unique])?;
        run("umount", &["-l", &text(&self.root())]).map(drop)
    }

    /// Boots the host and returns at once.
    pub fn power_on_without_waiting(&self) -> Result<(), LabError> {
        let console = self.directory.join("console");
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&console)
            .map_err(LabError::io(&console))?;
        let again = log.try_clone().map_err(LabError::io(&console))?;
        let pid = self.directory.join("pid");
        let mut command = Command::new("setsid");
        command.args(["--fork", "unshare", "-m", "sh", "-c", BOOT, "boot", &self.unique]).arg(&pid);
        command.args(["systemd-nspawn", "-q", "-D"]).arg(self.root());
        command.args(["-M", &self.unique, "--boot", "--register=no", "--keep-unit", "--console=pipe"]);
        command.arg(format!("--hostname={}", self.name));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.unique));
        // Its network is its own, so that it may break it.
        command.arg("--capability=CAP_NET_ADMIN");
        for (here, there) in &self.options.binds {
            command.arg(format!("--bind-ro={}:{}", here.display(), there.display()));
        }
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        command.status().map(drop).map_err(LabError::io(Path::new("setsid")))
    }

    pub(crate) fn wait_until_up(&self, limit: Duration) -> Result<(), LabError> {
        // Logged in to from outside only when the first system runs and sshd listens.
        let ready = ["bash", "-c", "test -e /run/current-system && exec 3<>/dev/tcp/127.0.0.1/22"];
        let start = Instant::now();
        loop {
            if self.leader().is_some() && self.exec(&ready).is_ok_and(|finished| finished.success) {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(LabError::Boot { host: self.name.clone(), console: self.console() });
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    fn outer(&self) -> Option<u32> {
        fs::read_to_string(self.directory.join("pid")).ok()?.trim().parse().ok()
    }

    /// Process 1 of the container, as a process of this machine.
    fn leader(&self) -> Option<u32> {
        let outer = self.outer()?;
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        let leader = children.split_whitespace().next()?.parse().ok()?;
        // Until it has a root of its own it is still nspawn itself.
        let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
        (name.trim() == "systemd").then_some(leader)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }
}
