//! The image hosts boot: Debian with systemd, sshd and Nix, and on top of it a first generation of the fixture, so that a
//! host is like an installed NixOS machine. Both layers are cached under a hash of what they are made from.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::error::run;
use crate::{LabError, text};

/// Debian's release and the packages in the image.
const RELEASE: &str = "trixie";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,openssh-server,openssh-client,nix-bin,nix-setup-systemd,iproute2,zstd,sudo,opendoas,polkitd,\
curl,git,ca-certificates,procps,busybox-static";

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
  nix-daemon.service systemd-logind.service
"#;

/// Prints the system that is to be booted.
const BOOT_LOADER: &str = include_str!("boot-loader.sh");

/// Builds the fixture's first generation inside the image; `$1` is the root.
const INSTALL: &str = r#"set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -euc '
  system=$(nix-build --no-out-link /root/fixture/installer.nix)
  nix-env -p /nix/var/nix/profiles/system --set "$system"
  mkdir -p /boot
  echo "$system" > /boot/default-system
  ln -sfn "$system" /root/installer-system
  rm -rf /root/fixture'
"#;

/// The layers of an overlay, topmost first.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) lower: String,
}

/// The cached layers; builds what is missing.
pub(crate) fn layers(cache: &Path, fixture: &Path, progress: &dyn Fn(&str)) -> Result<Layers, LabError> {
    fs::create_dir_all(cache).map_err(LabError::io(cache))?;
    // Two processes must not build the same image; the second one finds it made.
    let lock_file = cache.join("lock");
    let lock = fs::File::create(&lock_file).map_err(LabError::io(&lock_file))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| LabError::io(&lock_file)(error.into()))?;

    let mirror = mirror()?;
    let base_hash = hash(&[RELEASE.as_bytes(), PACKAGES.as_bytes(), CUSTOMIZE.as_bytes()]);
    let base = cache.join(format!("base-{base_hash}"));
    if !base.exists() {
        progress("building the hosts' image (Debian with systemd, sshd and Nix); this happens once");
        build_base(&base, &mirror)?;
    }
    let mut parts =
        vec![base_hash.into_bytes(), INSTALL.as_bytes().to_vec(), BOOT_LOADER.as_bytes().to_vec()];
    read_tree(fixture, &mut parts)?;
    let machine = cache.join(format!("machine-{}", hash(&parts)));
    if !machine.exists() {
        progress("installing the first system into the image");
        build_machine(&machine, &base, fixture)?;
    }
    let absolute = |path: &Path| fs::canonicalize(path).map_err(LabError::io(path));
    Ok(Layers { lower: format!("{}:{}", text(&absolute(&machine)?), text(&absolute(&base)?)) })
}

fn build_base(base: &Path, mirror: &str) -> Result<(), LabError> {
    let new = base.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let hook = format!("--customize-hook=sh -c '{}' hook \"$1\"", CUSTOMIZE.replace('\'', r"'\''"));
    let include = format!("--include={PACKAGES}");
    run("mmdebstrap", &["--quiet", "--variant=minbase", &include, &hook, RELEASE, &text(&new), mirror])?;
    fs::rename(&new, base).map_err(LabError::io(base))
}

fn build_machine(machine: &Path, base: &Path, fixture: &Path) -> Result<(), LabError> {
    let new = machine.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let part = |name: &str| new.join(name);
    for name in ["upper/root/fixture", "upper/usr/local/sbin", "work", "root"] {
        fs::create_dir_all(part(name)).map_err(LabError::io(&new))?;
    }
    let loader = part("upper/usr/local/sbin/lab-boot-loader");
    fs::write(&loader, BOOT_LOADER)
        .and_then(|()| fs::set_permissions(&loader, fs::Permissions::from_mode(0o755)))
        .map_err(LabError::io(&loader))?;
    run("cp", &["-r", &format!("{}/.", text(fixture)), &text(&part("upper/root/fixture"))])?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", text(base), text(&part("upper")), text(&part("work")));
    let root = text(&part("root"));
    // In a mount namespace of its own, nothing stays mounted whatever happens.
    let script = format!("mount -t overlay overlay -o '{options}' '{root}' && sh -c \"$0\" install '{root}'");
    run("unshare", &["-m", "sh", "-c", &script, INSTALL])?;
    fs::rename(part("upper"), machine).map_err(LabError::io(machine))?;
    fs::remove_dir_all(&new).map_err(LabError::io(&new))
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
