//! A host that is a container: systemd-nspawn over an overlay of the cached image, in a network namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::run;
use crate::host::Place;
use crate::image::Layers;
use crate::{HostOptions, Keys, LabError, text};

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

#[derive(Debug)]
pub(crate) struct Container {
    place: Place,
    options: HostOptions,
}

impl Container {
    pub(crate) fn new(place: Place, options: HostOptions) -> Self {
        Self { place, options }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place.directory.join("root")
    }

    /// A command within it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let leader = self.leader().map_or_else(|| "0".to_owned(), |pid| pid.to_string());
        command.args(["-t", &leader, "-m", "-u", "-i", "-n", "-p", "--wdns=/root", "--"]).args(words);
        command
    }

    /// Best before or while the host runs; overlays do not mind.
    pub(crate) fn write_file(&self, path: &str, content: &[u8]) -> Result<(), LabError> {
        let path = self.outside(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(LabError::io(parent))?;
        }
        fs::write(&path, content).map_err(LabError::io(&path))
    }

    pub(crate) fn read_file(&self, path: &str) -> Result<String, LabError> {
        let path = self.outside(path);
        fs::read_to_string(&path).map_err(LabError::io(&path))
    }

    pub(crate) fn copy_in(&self, from: &Path, to: &str) -> Result<(), LabError> {
        let to = self.outside(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(LabError::io(parent))?;
        }
        run("cp", &["-rT", &text(from), &text(&to)]).map(drop)
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        if let Some(leader) = self.leader() {
            let _ = run("kill", &["-KILL", &leader.to_string()]);
        }
    }

    /// Makes the disk: an overlay with the keys of this lab, or with those of a guest.
    pub(crate) fn install(&self, layers: &Layers, keys: &Keys<'_>) -> Result<(), LabError> {
        let disk = self.place.directory.join("disk");
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
            self.write_file("/etc/ssh/ssh_host_ed25519_key.pub", format!("{public}\n").as_bytes())?;
        } else {
            run(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-C", &self.place.name, "-f", &text(&host_key)],
            )?;
        }
        self.write_file("/etc/hostname", format!("{}\n", self.place.name).as_bytes())?;
        let public = keys.authorized.as_bytes();
        if self.place.name == "control" {
            let private = fs::read(keys.login).map_err(LabError::io(keys.login))?;
            self.write_private("/root/.ssh/id_ed25519", &private)?;
        }
        self.write_private("/root/.ssh/authorized_keys", public)?;
        self.write_private("/home/deploy/.ssh/authorized_keys", public)?;
        run("chroot", &[&text(&self.root()), "chown", "-R", "deploy:deploy", "/home/deploy/.ssh"])?;
        if self.options.sudo {
            self.write_file("/etc/sudoers.d/deploy", b"deploy ALL=(ALL) NOPASSWD: ALL\n")?;
        }
        self.make_awkward()
    }

    /// Does to the host what [`crate::Login`] says.
    fn make_awkward(&self) -> Result<(), LabError> {
        let login = &self.options.login;
        if !login.sshd.is_empty() {
            // The first value counts, and this file comes first.
            self.write_file(
                "/etc/ssh/sshd_config.d/00-awkward.conf",
                (login.sshd.join("\n") + "\n").as_bytes(),
            )?;
        }
        if let Some(shell) = &login.shell {
            run("chroot", &[&text(&self.root()), "usermod", "-s", shell, "root"])?;
        }
        if let Some(greeting) = &login.greeting {
            // bash reads it whenever sshd starts it, whatever for.
            self.write_file("/root/.bashrc", format!("echo '{greeting}'\n").as_bytes())?;
            run("chroot", &[&text(&self.root()), "usermod", "-s", "/bin/bash", "root"])?;
        }
        if let Some(locale) = &login.locale {
            self.write_file("/etc/default/locale", format!("LANG={locale}\n").as_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn is_ipv6_only(&self) -> bool {
        self.options.login.ipv6_only
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

    /// The host's end of its cable is the one in its namespace.
    pub(crate) fn connect(&self) -> Result<(), LabError> {
        let address = format!("{}/24", self.place.address);
        run("ip", &["-n", &self.place.unique, "addr", "add", &address, "dev", "eth0"]).map(drop)
    }

    pub(crate) fn scrap(&self) -> Result<(), LabError> {
        run("umount", &["-l", &text(&self.root())]).map(drop)
    }

    /// Boots the host and returns at once.
    pub(crate) fn boot(&self) -> Result<(), LabError> {
        let console = self.place.console_file();
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&console)
            .map_err(LabError::io(&console))?;
        let again = log.try_clone().map_err(LabError::io(&console))?;
        let pid = self.place.pid_file();
        let mut command = Command::new("setsid");
        command.args(["--fork", "unshare", "-m", "sh", "-c", BOOT, "boot", &self.place.unique]).arg(&pid);
        command.args(["systemd-nspawn", "-q", "-D"]).arg(self.root());
        command.args(["-M", &self.place.unique, "--boot", "--register=no", "--keep-unit", "--console=pipe"]);
        command.arg(format!("--hostname={}", self.place.name));
        command.arg(format!("--network-namespace-path=/run/netns/{}", self.place.unique));
        // Its network is its own, so that it may break it.
        command.arg("--capability=CAP_NET_ADMIN");
        for (here, there) in &self.options.binds {
            command.arg(format!("--bind-ro={}:{}", here.display(), there.display()));
        }
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        command.status().map(drop).map_err(LabError::io(Path::new("setsid")))
    }

    /// Process 1 of the container, as a process of this machine.
    pub(crate) fn leader(&self) -> Option<u32> {
        let outer = self.place.pid()?;
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
