//! A host that is a virtual machine: what a container cannot have is its own there. A boot loader, a kernel that may
//! panic, a clock.
//!
//! QEMU emulates the processor, so it is slow everywhere and the same everywhere. Its keys and its address are
//! credentials of systemd, handed over by QEMU: <https://systemd.io/CREDENTIALS/>.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::run;
use crate::host::Place;
use crate::image::Images;
use crate::{BootLoader, Keys, LabError, text};

/// Debian's UEFI firmware, and the variables it begins with.
pub(crate) const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

#[derive(Debug)]
pub(crate) struct VirtualMachine {
    place: Place,
    loader: BootLoader,
    /// The serial numbers of further disks.
    volumes: Vec<String>,
    /// What this machine logs in with, to run commands there.
    key: PathBuf,
}

impl VirtualMachine {
    /// How long it may take to boot.
    pub(crate) const BOOT: Duration = Duration::from_mins(8);

    pub(crate) fn new(place: Place, loader: BootLoader, volumes: Vec<String>, lab: &Path) -> Self {
        Self { place, loader, volumes, key: crate::login_key(lab) }
    }

    /// A command within it, over a cable that is never cut: by SSH from the host's own namespace.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.place.unique, "ssh", "-i", &text(&self.key), "-F", "/dev/null"]);
        let options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=60",
            "ServerAliveInterval=15",
        ];
        command.args(options.iter().flat_map(|option| ["-o", option]));
        let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
        command.arg(format!("root@{}", self.place.address)).arg(quoted.collect::<Vec<_>>().join(" "));
        command
    }

    pub(crate) fn write_file(&self, path: &str, content: &[u8]) -> Result<(), LabError> {
        let script = "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\"";
        let mut command = self.command(&["sh", "-c", script, path]);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(LabError::io(Path::new("ssh")))?;
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(content));
        let status = child.wait().map_err(LabError::io(Path::new("ssh")))?;
        written.map_err(LabError::io(Path::new(path)))?;
        if status.success() { Ok(()) } else { Err(self.failed(path)) }
    }

    pub(crate) fn read_file(&self, path: &str) -> Result<String, LabError> {
        let output = self.command(&["cat", path]).output().map_err(LabError::io(Path::new("ssh")))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(self.failed(path))
        }
    }

    fn failed(&self, path: &str) -> LabError {
        LabError::Command { command: format!("ssh {}", self.place.name), message: path.to_owned() }
    }

    pub(crate) fn copy_in(&self, from: &Path, to: &str) -> Result<(), LabError> {
        let unpack = self.command(&["sh", "-c", "mkdir -p \"$0\" && tar -x -C \"$0\"", to]);
        let words = std::iter::once(unpack.get_program()).chain(unpack.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let from = text(from);
        run("sh", &[&["-c", "tar -c -C \"$0\" . | \"$@\"", &from], words.as_slice()].concat()).map(drop)
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.place.pid() {
            let _ = run("kill", &["-KILL", &pid.to_string()]);
        }
    }

    /// Makes its disk, and writes down what it is to be told.
    pub(crate) fn install(&self, images: &Images<'_>, keys: &Keys<'_>) -> Result<(), LabError> {
        let directory = &self.place.directory;
        fs::create_dir_all(directory).map_err(LabError::io(directory))?;
        run("cp", &["--sparse=always", &text(&images.disk(self.loader)?), &text(&self.disk())])?;
        for serial in &self.volumes {
            run("truncate", &["--size=256M", &text(&self.volume(serial))])?;
        }
        run("cp", &[VARIABLES, &text(&self.variables())])?;
        let (private, public) = match &keys.host {
            Some(pair) => pair.clone(),
            None => self.make_host_key()?,
        };
        let files = format!(
            "d /root/.ssh 0700 root root - -\n{}{}{}",
            file("/root/.ssh/authorized_keys", 0o600, &keys.authorized),
            file("/etc/ssh/ssh_host_ed25519_key", 0o600, &private),
            file("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public),
        );
        let address = format!("{}/24", self.place.address);
        for (name, content) in [("tmpfiles.extra", &files), ("lab.address", &address)] {
            let path = self.credential(name);
            fs::write(&path, content).map_err(LabError::io(&path))?;
        }
        Ok(())
    }

    fn make_host_key(&self) -> Result<(String, String), LabError> {
        let path = self.place.directory.join("host_key");
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", &self.place.name, "-f", &text(&path)])?;
        let read = |path: &Path| fs::read_to_string(path).map_err(LabError::io(path));
        Ok((read(&path)?, read(&path.with_extension("pub"))?))
    }

    /// The end of the cable is a bridge to the machine's card; at this side there is an address to run commands from.
    pub(crate) fn connect(&self, n: u8) -> Result<(), LabError> {
        let ip = |words: &[&str]| run("ip", &[&["-n", &self.place.unique], words].concat()).map(drop);
        // Where this machine is a container itself, the device may not be there although the kernel has it.
        run(
            "sh",
            &["-c", "[ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod -m 600 /dev/net/tun c 10 200; }"],
        )?;
        ip(&["link", "add", "br0", "type", "bridge"])?;
        ip(&["tuntap", "add", "tap0", "mode", "tap"])?;
        for port in ["eth0", "tap0"] {
            ip(&["link", "set", port, "master", "br0", "up"])?;
        }
        let [a, b, c, _] = self.place.address.octets();
        ip(&["addr", "add", &format!("{a}.{b}.{c}.{}/24", n.saturating_add(200)), "dev", "br0"])?;
        ip(&["link", "set", "br0", "up"])
    }

    pub(crate) fn scrap(&self) -> Result<(), LabError> {
        let disk = self.disk();
        fs::remove_file(&disk).map_err(LabError::io(&disk))
    }

    pub(crate) fn boot(&self) -> Result<(), LabError> {
        let drive = |path: &Path, options: &str| format!("format=raw,file={},{options}", text(path));
        let credential = |name: &str| {
            format!("name=opt/io.systemd.credentials/{name},file={}", text(&self.credential(name)))
        };
        let mac = {
            let [_, b, c, d] = self.place.address.octets();
            format!("virtio-net-pci,netdev=wire,romfile=,mac=52:54:00:{b:02x}:{c:02x}:{d:02x}")
        };
        let of_volume = |serial: &String| {
            let file = text(&self.volume(serial));
            let drive = format!("if=none,id={serial},format=raw,file={file},cache=unsafe");
            ["-drive".to_owned(), drive, "-device".to_owned(), format!("nvme,drive={serial},serial={serial}")]
        };
        let volumes: Vec<String> = self.volumes.iter().flat_map(of_volume).collect();
        let (console, pid) = (text(&self.place.console_file()), text(&self.place.pid_file()));
        let words: &[&str] = &[
            "netns",
            "exec",
            &self.place.unique,
            "qemu-system-x86_64",
            "-name",
            &self.place.unique,
            "-machine",
            "q35,smm=off",
            "-accel",
            "tcg,tb-size=256",
            // One processor, and no more instructions than it needs: what two have to tell each other is emulated, too.
            "-cpu",
            "qemu64",
            "-smp",
            "1",
            "-m",
            "768",
            "-nodefaults",
            "-display",
            "none",
            "-daemonize",
            "-pidfile",
            &pid,
            "-drive",
            &drive(Path::new(FIRMWARE), "if=pflash,readonly=on"),
            "-drive",
            &drive(&self.variables(), "if=pflash"),
            "-drive",
            &drive(&self.disk(), "if=virtio,cache=writeback"),
            "-netdev",
            "tap,id=wire,ifname=tap0,script=no,downscript=no",
            "-device",
            &mac,
            "-device",
            "virtio-rng-pci",
            "-chardev",
            &format!("file,id=console,path={console},append=on"),
            "-serial",
            "chardev:console",
            "-fw_cfg",
            &credential("tmpfiles.extra"),
            "-fw_cfg",
            &credential("lab.address"),
        ];
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        run("ip", &[words, &volumes].concat()).map(drop)
    }

    fn volume(&self, serial: &str) -> PathBuf {
        self.place.directory.join(format!("volume-{serial}"))
    }

    fn disk(&self) -> PathBuf {
        self.place.directory.join("disk")
    }

    /// What the firmware remembers.
    fn variables(&self) -> PathBuf {
        self.place.directory.join("variables")
    }

    fn credential(&self, name: &str) -> PathBuf {
        self.place.directory.join(name)
    }
}

/// A line of tmpfiles.d that makes a file which is not there.
fn file(path: &str, mode: u32, content: &str) -> String {
    let content = content.replace('\\', r"\\").replace('%', "%%").replace('\n', r"\n");
    format!("f {path} {mode:04o} root root - {content}\n")
}
