//! How a machine is doing: what NixOps' `check` looked at, in one round trip, with nothing but a POSIX shell.

use std::time::Duration;

use serde::Serialize;

use crate::facts::{self, Facts, FactsError};
use crate::ssh::Connection;

/// One look at a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// What it is and runs.
    pub facts: Facts,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Time since boot.
    pub uptime: Option<Duration>,
    /// What `systemctl is-system-running` says, e.g. `running` or `degraded`.
    pub systemd: Option<String>,
    /// Memory, in bytes: all of it, and what programs could still have.
    pub memory: Option<(u64, u64)>,
    /// Mounted disks.
    pub disks: Vec<Disk>,
}

/// A mounted disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount_point: String,
    /// Its size in bytes.
    pub size: u64,
    /// What is left of it for users, in bytes.
    pub available: u64,
    /// Whether nothing can be written to it: as it is wanted, or because the kernel found errors on it.
    pub read_only: bool,
}

/// Prints `key=value` lines, as the script of [`facts`] does.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"
{
  echo "load=$(cat /proc/loadavg)"
  echo "uptime=$(cat /proc/uptime)"
  echo "systemd=$(systemctl is-system-running)"
  echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo) $(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
  sed 's/^/mount=/' /proc/mounts
  df -P -k | sed -n '2,$s/^/df=/p'
} 2>/dev/null
echo end=yes
"#;

/// Looks at a machine.
pub async fn look(machine: &str, connection: &Connection) -> Result<Status, FactsError> {
    let facts = facts::gather(machine, connection).await?;
    let answer = connection.run(&["sh", "-s"], SCRIPT.as_bytes()).await?;
    let text = answer.text();
    if !text.ends_with("end=yes\n") {
        let (host, stderr) = (connection.endpoint().host.clone(), answer.stderr.trim().to_owned());
        return Err(FactsError::Shell { host, code: answer.code, stderr });
    }
    Ok(Status { facts, ..parse(&text) })
}

fn parse(text: &str) -> Status {
    let mut status = Status::default();
    let mut read_only = vec![];
    let mut seen = vec![];
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let words: Vec<&str> = value.split_whitespace().collect();
        match (key, words.as_slice()) {
            ("load", [one, five, fifteen, ..]) => {
                let numbers = [one, five, fifteen].map(|number| number.parse().ok());
                if let [Some(one), Some(five), Some(fifteen)] = numbers {
                    status.load = Some([one, five, fifteen]);
                }
            }
            ("uptime", [seconds, ..]) => {
                status.uptime =
                    seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            }
            ("systemd", [state]) => status.systemd = Some((*state).to_owned()),
            ("memory", [total, available]) => status.memory = kibibytes(total).zip(kibibytes(available)),
            // What a container's host has put there is not its own.
            ("mount", [_, place, ..]) if place.starts_with("/run/host/") => {}
            ("df", [.., place]) if place.starts_with("/run/host/") => {}
            ("mount", [_, place, _, options, ..]) if options.split(',').any(|option| option == "ro") => {
                read_only.push(unescaped(place));
            }
            // Source, size, used, available and use in KiB; the rest is the place, which may have blanks.
            ("df", [source, size, _, available, _, place @ ..]) => {
                let place = place.join(" ");
                // What is no disk is of no interest, unless the machine lives on it. One disk may be mounted more
                // than once.
                let is_disk = source.starts_with("/dev/") || place == "/";
                if is_disk
                    && !seen.contains(source)
                    && let (Some(size), Some(available)) = (kibibytes(size), kibibytes(available))
                {
                    seen.push(source);
                    status.disks.push(Disk { mount_point: place, size, available, read_only: false });
                }
            }
            _ => {}
        }
    }
    for disk in &mut status.disks {
        disk.read_only = read_only.contains(&disk.mount_point);
    }
    status
}

fn kibibytes(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_mul(1024)
}

/// `/proc/mounts` writes a blank in a path as `\040`.
fn unescaped(place: &str) -> String {
    place.replace("\\040", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_is_read_line_by_line() {
        let status = parse(
            "load=0.50 0.25 1.00 2/345 678\nuptime=61.50 100.0\nsystemd=degraded\nmemory=2048 \
             1024\nmount=/dev/vda1 / ext4 rw,relatime 0 0\nmount=/dev/vdb /data\\040set ext4 ro,relatime 0 \
             0\nmount=/dev/vdc /run/host/os-release ext4 ro 0 0\ndf=/dev/vdc 10 10 0 100% \
             /run/host/os-release\ndf=/dev/vda1 1000 400 600 40% /\ndf=/dev/vda1 1000 400 600 40% \
             /nix/store\ndf=tmpfs 10 0 10 0% /run\ndf=/dev/vdb 2000 2000 0 100% /data set\nend=yes\n",
        );
        assert_eq!(status.load, Some([0.5, 0.25, 1.0]));
        assert_eq!(status.uptime, Some(Duration::from_millis(61_500)));
        assert_eq!(status.systemd.as_deref(), Some("degraded"));
        assert_eq!(status.memory, Some((2 << 20, 1 << 20)));
        let disk = |mount_point: &str, size: u64, available: u64, read_only| Disk {
            mount_point: mount_point.to_owned(),
            size: size * 1024,
            available: available * 1024,
            read_only,
        };
        assert_eq!(status.disks, [disk("/", 1000, 600, false), disk("/data set", 2000, 0, true)]);
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        assert_eq!(parse("load=\nuptime=\nsystemd=\nmemory= \nend=yes\n"), Status::default());
    }
}
