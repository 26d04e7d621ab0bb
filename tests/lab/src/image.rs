//! The image hosts boot: Debian with systemd, sshd and Nix, and on top of it a first generation of the fixture, so
//! that a host is like an installed NixOS machine. Both layers are cached under a hash of what they are made from.
//! Virtual machines have a kernel and boot loaders besides, and a disk is made of theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::error::run;
use crate::{BootLoader, LabError, text};

/// Debian's release and the packages in the image.
const RELEASE: &str = "trixie";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,openssh-server,openssh-client,nix-bin,nix-setup-systemd,iproute2,zstd,sudo,opendoas,polkitd,\
curl,git,ca-certificates,procps,busybox-static";

/// What else a container has, so that it can be an awkward host: login shells that are not POSIX', and another
/// language.
const AWKWARD_PACKAGES: &str = "fish,tcsh,locales";

/// What is done for that.
const CUSTOMIZE_AWKWARD: &str =
    "echo 'de_DE.UTF-8 UTF-8' > \"$1/etc/locale.gen\"; chroot \"$1\" locale-gen >/dev/null";

/// What else a virtual machine needs.
const MACHINE_PACKAGES: &str = "udev,kmod,btrfs-progs,cryptsetup-bin,e2fsprogs,fdisk,lvm2,linux-image-cloud-amd64,systemd-boot,systemd-boot-efi,systemd-boot-tools,grub-efi-amd64-bin";

/// What is done to the fresh system; `$1` is its root.
const CUSTOMIZE: &str = r#"set -e
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf "$1"/etc/hostname
: > "$1/etc/machine-id"
printf 'ID=nixos\nNAME=NixOS\nPRETTY_NAME="NixOS 24.11 (lab)"\nVERSION_ID="24.11"\n' > "$1/etc/os-release.lab"
rm -f "$1/etc/os-release"; mv "$1/etc/os-release.lab" "$1/etc/os-release"
: > "$1/etc/NIXOS"
# An empty list of substituters: or every build would wait for a binary cache that cannot be reached.
printf 'sandbox = false\nsubstituters =\nexperimental-features = nix-command flakes\n' > "$1/etc/nix/nix.conf"
chroot "$1" useradd --create-home --shell /bin/sh deploy
printf 'UseDNS no\nPrintMotd no\nLoginGraceTime 20\n' > "$1/etc/ssh/sshd_config.d/lab.conf"
cat > "$1/etc/systemd/system/mini-nixos-boot.service" <<UNIT
[Unit]
Description=Boot the system that the boot loader was given
ConditionPathExists=/boot/default-system
ConditionVirtualization=container
# Once: coming out of emergency mode starts everything again, and that is no boot.
ConditionPathExists=!/run/current-system
After=local-fs.target
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'exec "\$(lab-boot-loader)/init"'
[Install]
WantedBy=multi-user.target
UNIT
chroot "$1" systemctl enable -q mini-nixos-boot.service ssh.service
# systemd in a container has no business with these, and boots faster without them.
chroot "$1" systemctl mask -q systemd-resolved.service systemd-networkd.service systemd-timesyncd.service \
  apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer nix-daemon.socket \
  nix-daemon.service systemd-logind.service systemd-ask-password-console.path systemd-ask-password-wall.path
"#;

/// What else is done to that of a virtual machine.
const CUSTOMIZE_MACHINE: &str = r#"
# The first stage has loaded all drivers there is hardware for and mounted what is to be mounted: nothing is left for udev.
cat > "$1/etc/systemd/system/lab-network.service" <<\UNIT
[Unit]
Description=Take the address that the lab gives
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ImportCredential=lab.address
ExecStart=/bin/sh -c 'ip link set eth0 up && ip addr replace "$(cat "$CREDENTIALS_DIRECTORY/lab.address")" dev eth0'
[Install]
WantedBy=multi-user.target
UNIT
chroot "$1" systemctl enable -q lab-network.service
# An emulated processor takes long for what nobody here needs.
mkdir -p "$1/etc/systemd/system-generators"
for generator in "$1"/usr/lib/systemd/system-generators/*; do
  ln -s /dev/null "$1/etc/systemd/system-generators/${generator##*/}"
done
chroot "$1" systemctl mask -q getty.target ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
  systemd-boot-random-seed.service systemd-boot-update.service e2scrub_reap.service systemd-pstore.service \
  systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
  systemd-udev-load-credentials.service systemd-modules-load.service kmod-static-nodes.service modprobe@configfs.service \
  modprobe@fuse.service systemd-tmpfiles-setup-dev-early.service systemd-tmpfiles-setup-dev.service systemd-sysctl.service \
  systemd-random-seed.service systemd-remount-fs.service systemd-hostnamed.socket systemd-creds.socket systemd-initctl.socket \
  systemd-pcrextend.socket systemd-pcrlock.socket \
  proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-kernel-config.mount sys-fs-fuse-connections.mount run-lock.mount tmp.mount systemd-update-done.service \
  systemd-update-utmp.service systemd-journal-flush.service lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket
"#;

/// Prints the system that is to be booted.
const BOOT_LOADER: &str = include_str!("boot-loader.sh");

/// Makes a virtual machine's kernel and first stage.
const INITRD: &str = include_str!("initrd.sh");

/// Makes its disk.
const DISK: &str = include_str!("disk.sh");

/// Builds the fixture's first generation inside the image; `$1` is the root, `$2` the boot loader.
const INSTALL: &str = r#"set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LOADER="$2" sh -euc '
  system=$(nix-build --no-out-link /root/fixture/installer.nix --argstr bootLoader "$LOADER")
  nix-env -p /nix/var/nix/profiles/system --set "$system"
  "$system/bin/switch-to-configuration" boot
  ln -sfn "$system" /root/installer-system
  rm -rf /root/fixture'
"#;

/// The layers of an overlay, topmost first.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) lower: String,
}

/// The cache of images.
pub(crate) struct Images<'a> {
    /// Where they are kept.
    pub(crate) cache: &'a Path,
    /// What the first generation is made of.
    pub(crate) fixture: &'a Path,
    /// Told about steps that take long.
    pub(crate) progress: &'a dyn Fn(&str),
}

impl Images<'_> {
    /// The layers of containers; builds what is missing.
    pub(crate) fn layers(&self) -> Result<Layers, LabError> {
        let _lock = self.lock()?;
        self.layers_of(None)
    }

    /// The disk of virtual machines with this boot loader; makes it when it is missing.
    pub(crate) fn disk(&self, loader: BootLoader) -> Result<PathBuf, LabError> {
        let _lock = self.lock()?;
        let layers = self.layers_of(Some(loader))?;
        let directory = self.cache.join(format!("disk-{}", hash(&[DISK, layers.lower.as_str()])));
        if !directory.exists() {
            (self.progress)("making the disk of virtual machines");
            let new = fresh(&directory)?;
            let made = new.join("made");
            over(&layers.lower, &new, DISK, &[loader.name(), &text(&made)])?;
            fs::rename(&made, &directory).map_err(LabError::io(&directory))?;
            fs::remove_dir_all(&new).map_err(LabError::io(&new))?;
        }
        Ok(directory.join("disk"))
    }

    fn layers_of(&self, loader: Option<BootLoader>) -> Result<Layers, LabError> {
        let mirror = mirror()?;
        let more: &[_] = match loader {
            Some(_) => &[MACHINE_PACKAGES, CUSTOMIZE_MACHINE, INITRD],
            None => &[AWKWARD_PACKAGES, CUSTOMIZE_AWKWARD],
        };
        let parts = [[RELEASE, PACKAGES, CUSTOMIZE].as_slice(), more];
        let base_hash = hash(&parts.concat());
        let base = self.cache.join(format!("base-{base_hash}"));
        if !base.exists() {
            let whose = if loader.is_some() { "virtual machines' image" } else { "hosts' image" };
            (self.progress)(&format!(
                "building the {whose} (Debian with systemd, sshd and Nix); this happens once"
            ));
            build_base(&base, &mirror, loader.is_some())?;
        }
        let mut parts =
            vec![base_hash.into_bytes(), INSTALL.as_bytes().to_vec(), BOOT_LOADER.as_bytes().to_vec()];
        let loader = loader.map_or("", BootLoader::name);
        parts.push(loader.as_bytes().to_vec());
        read_tree(self.fixture, &mut parts)?;
        let machine = self.cache.join(format!("machine-{}", hash(&parts)));
        if !machine.exists() {
            (self.progress)("installing the first system into the image");
            build_machine(&machine, &base, self.fixture, loader)?;
        }
        let absolute = |path: &Path| fs::canonicalize(path).map_err(LabError::io(path));
        Ok(Layers { lower: format!("{}:{}", text(&absolute(&machine)?), text(&absolute(&base)?)) })
    }

    /// Two processes must not build the same image; the second one finds it made.
    fn lock(&self) -> Result<fs::File, LabError> {
        fs::create_dir_all(self.cache).map_err(LabError::io(self.cache))?;
        let path = self.cache.join("lock");
        let file = fs::File::create(&path).map_err(LabError::io(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| LabError::io(&path)(error.into()))?;
        Ok(file)
    }
}

fn build_base(base: &Path, mirror: &str, of_machine: bool) -> Result<(), LabError> {
    let new = base.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let hook =
        |script: &str| format!("--customize-hook=sh -c '{}' hook \"$1\"", script.replace('\'', r"'\''"));
    let mut words = vec!["--quiet".to_owned(), "--variant=minbase".to_owned(), hook(CUSTOMIZE)];
    if of_machine {
        words.push(format!("--include={PACKAGES},{MACHINE_PACKAGES}"));
        words.extend([hook(CUSTOMIZE_MACHINE), hook(INITRD)]);
    } else {
        words.push(format!("--include={PACKAGES},{AWKWARD_PACKAGES}"));
        words.push(hook(CUSTOMIZE_AWKWARD));
    }
    words.extend([RELEASE.to_owned(), text(&new), mirror.to_owned()]);
    run("mmdebstrap", &words.iter().map(String::as_str).collect::<Vec<_>>())?;
    fs::rename(&new, base).map_err(LabError::io(base))
}

fn build_machine(machine: &Path, base: &Path, fixture: &Path, loader: &str) -> Result<(), LabError> {
    let new = fresh(machine)?;
    let part = |name: &str| new.join(name);
    for name in ["upper/root/fixture", "upper/usr/local/sbin"] {
        fs::create_dir_all(part(name)).map_err(LabError::io(&new))?;
    }
    let program = part("upper/usr/local/sbin/lab-boot-loader");
    fs::write(&program, BOOT_LOADER)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .map_err(LabError::io(&program))?;
    run("cp", &["-r", &format!("{}/.", text(fixture)), &text(&part("upper/root/fixture"))])?;
    over(&text(base), &new, INSTALL, &[loader])?;
    fs::rename(part("upper"), machine).map_err(LabError::io(machine))?;
    fs::remove_dir_all(&new).map_err(LabError::io(&new))
}

/// An empty directory beside `path`, to make it in.
fn fresh(path: &Path) -> Result<PathBuf, LabError> {
    let new = path.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).map_err(LabError::io(&new))?;
    fs::canonicalize(&new).map_err(LabError::io(&new))
}

/// Runs a script over an overlay of these layers: its `$1` is the root. What it changes there is in the directory's
/// `upper`.
fn over(lower: &str, directory: &Path, script: &str, arguments: &[&str]) -> Result<(), LabError> {
    let part = |name: &str| directory.join(name);
    for name in ["upper", "work", "root"] {
        fs::create_dir_all(part(name)).map_err(LabError::io(directory))?;
    }
    let options =
        format!("lowerdir={lower},upperdir={},workdir={}", text(&part("upper")), text(&part("work")));
    // In a mount namespace of its own, nothing stays mounted whatever happens.
    let mount = "mount -t overlay overlay -o \"$0\" \"$1\" && root=$1 script=$2 && shift 2 && exec sh -c \
                 \"$script\" image \"$root\" \"$@\"";
    let words = ["-m", "sh", "-c", mount, &options, &text(&part("root")), script];
    run("unshare", &[words.as_slice(), arguments].concat()).map(drop)
}

/// The mirror this machine itself uses.
pub fn mirror() -> Result<String, LabError> {
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let lines =
        sources.iter().filter_map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>().join("\n");
    let url = lines.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_source = matches!(words.first(), Some(&"URIs:" | &"deb"));
        words.into_iter().find(|word| is_source && word.contains("://") && !word.contains("security"))
    });
    url.map(str::to_owned).ok_or_else(|| LabError::Command {
        command: "apt sources".to_owned(),
        message: "no Debian mirror found in /etc/apt/sources.list or sources.list.d/debian.sources"
            .to_owned(),
    })
}

fn read_tree(directory: &Path, parts: &mut Vec<Vec<u8>>) -> Result<(), LabError> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(LabError::io(directory))?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read_tree(&path, parts)?;
        } else {
            parts.push(text(&path).into_bytes());
            parts.push(fs::read(&path).map_err(LabError::io(&path))?);
        }
    }
    Ok(())
}

fn hash(parts: &[impl AsRef<[u8]>]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_ref().len().to_le_bytes());
        hasher.update(part.as_ref());
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
