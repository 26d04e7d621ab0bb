//! Which activation runs.
//!
//! The kernel's list of locks is read. Taking the lock to find out would be in the way of an activation that begins.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use nixos_agent::ActivationId;
use rustix::fs::{major, minor};

use crate::activation::Activation;
use crate::error::{AgentError, io_error};
use crate::lock::LOCK;

/// The kernel's list of locks.
const LOCKS: &str = "/proc/locks";

/// The activation that holds the lock, and the seconds since it was requested.
pub(crate) fn activation_at_work() -> Result<Option<(ActivationId, u64)>, AgentError> {
    let mut lock = match File::open(LOCK) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(LOCK)(error)),
    };
    let file = lock.metadata().map_err(io_error(LOCK))?;
    let locks = std::fs::read_to_string(LOCKS).map_err(io_error(LOCKS))?;
    if !is_held(&locks, (major(file.dev()), minor(file.dev())), file.ino()) {
        return Ok(None);
    }
    let mut holder = String::new();
    lock.read_to_string(&mut holder).map_err(io_error(LOCK))?;
    // An activation that has just taken the lock may not have written its id yet. Then the file is empty, or has the id
    // of an earlier activation, which is over.
    let activation = holder.trim().parse().ok().map(|id| Activation::open(&id));
    let at_work = activation.filter(|activation| !activation.is_over());
    Ok(at_work.map(|activation| (activation.id().clone(), age(&activation))))
}

fn age(activation: &Activation) -> u64 {
    let requested = std::fs::metadata(activation.request_file()).and_then(|file| file.modified());
    let age = requested.ok().and_then(|requested| SystemTime::now().duration_since(requested).ok());
    age.unwrap_or_default().as_secs()
}

/// Whether the list of locks has one by `flock` on this file, in a line such as `1: FLOCK  ADVISORY  WRITE 1234
/// 00:1a:5678 0 EOF`.
///
/// A line with an arrow is of a process that waits for the lock.
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
            ("a process waits for it", (0, 0x1a), 99),
        ] {
            assert!(!is_held(locks, device, inode), "{what}");
        }
    }

    #[test]
    fn a_lock_that_is_taken_is_in_the_list() {
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
