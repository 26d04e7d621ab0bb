//! Which activation runs. The lock is looked at and never tried: whoever only asks must not be in the way of one that begins.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use nixos_agent::ActivationId;
use rustix::fs::{major, minor};

use crate::AgentError;
use crate::files::{Deployment, failed};
use crate::preflight::LOCK;

/// The kernel's list of locks.
const LOCKS: &str = "/proc/locks";

/// The activation that holds the lock, and the seconds since it was asked for.
pub(crate) fn look() -> Result<Option<(ActivationId, u64)>, AgentError> {
    let mut lock = match File::open(LOCK) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(LOCK)(error)),
    };
    let file = lock.metadata().map_err(failed(LOCK))?;
    let locks = std::fs::read_to_string(LOCKS).map_err(failed(LOCKS))?;
    if !is_held(&locks, (major(file.dev()), minor(file.dev())), file.ino()) {
        return Ok(None);
    }
    let mut holder = String::new();
    lock.read_to_string(&mut holder).map_err(failed(LOCK))?;
    // Whoever has just taken it may not have written its name yet: then it is empty, or that of one that is over.
    let deployment = holder.trim().parse().ok().map(|id| Deployment::open(&id));
    let running = deployment.filter(|deployment| !deployment.is_over());
    Ok(running.map(|deployment| (deployment.id().clone(), age(&deployment))))
}

fn age(deployment: &Deployment) -> u64 {
    let asked = std::fs::metadata(deployment.path("request.json")).and_then(|file| file.modified());
    let age = asked.ok().and_then(|asked| SystemTime::now().duration_since(asked).ok());
    age.unwrap_or_default().as_secs()
}

/// Whether `flock` holds this file, according to lines such as `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`. A line with
/// an arrow is of one who waits.
fn is_held(locks: &str, (major, minor): (u32, u32), inode: u64) -> bool {
    let held = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.nth(3) == Some(held.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_says_whether_a_file_is_locked() {
        let locks = "1: POSIX  ADVISORY  WRITE 77 00:1a:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 1235 00:1a:99 0 EOF\n";
        assert!(is_held(locks, (0, 0x1a), 5678));
        for (what, device, inode) in [
            ("another file", (0, 0x1a), 567),
            ("another disk", (8, 0x1a), 5678),
            ("another kind of lock", (0, 0x1a), 12),
            ("somebody waits for it", (0, 0x1a), 99),
        ] {
            assert!(!is_held(locks, device, inode), "{what}");
        }
    }

    #[test]
    fn a_lock_of_our_own_is_in_the_list() {
        use rustix::fs::{FlockOperation, flock};
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let held = || {
            let (file, locks) = (file.metadata().unwrap(), std::fs::read_to_string(LOCKS).unwrap());
            is_held(&locks, (major(file.dev()), minor(file.dev())), file.ino())
        };
        assert!(!held());
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(held());
        flock(&file, FlockOperation::Unlock).unwrap();
        assert!(!held());
    }
}
