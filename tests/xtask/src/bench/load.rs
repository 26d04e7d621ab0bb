//! What programs need while something is done, seen from outside: all processes of the lab's hosts are processes of
//! this machine.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The most that any process of a program needed, and the most `ssh` there were at once.
pub(super) struct Load {
    /// As much of its name as the kernel keeps: 15 characters.
    program: &'static str,
    memory_kib: AtomicU64,
    connections: AtomicUsize,
}

impl Load {
    /// `terraform-provider-nixos`.
    pub(super) const PROVIDER: &'static str = "terraform-provi";
    /// `nixos-agent`, on the machines.
    pub(super) const AGENT: &'static str = "nixos-agent";

    pub(super) fn of(program: &'static str) -> Self {
        Self { program, memory_kib: AtomicU64::new(0), connections: AtomicUsize::new(0) }
    }

    /// The most memory of one process, in KiB.
    pub(super) fn memory_kib(&self) -> u64 {
        self.memory_kib.load(Ordering::Relaxed)
    }

    /// The most connections.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Looks again and again while `work` is done.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.look();
                    std::thread::sleep(LOOK);
                }
            });
            let result = work();
            over.store(true, Ordering::Relaxed);
            result
        })
    }

    fn look(&self) {
        let mut connections = 0;
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let read = |name: &str| std::fs::read_to_string(process.path().join(name)).unwrap_or_default();
            let name = read("comm");
            if name.trim() == self.program {
                let status = read("status");
                let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let peak = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
                self.memory_kib.fetch_max(peak.unwrap_or(0), Ordering::Relaxed);
            }
            connections += usize::from(name.trim() == "ssh");
        }
        self.connections.fetch_max(connections, Ordering::Relaxed);
    }
}
