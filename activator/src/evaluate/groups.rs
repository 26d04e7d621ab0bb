//! How nodes are spread over processes.
//!
//! Nodes in one process share what they have in common, but the process keeps all of them in memory. So there are as many
//! processes at once as cores and memory allow, and as many nodes in each as fit. Where it is remembered what was read, a node
//! is remembered with what was read for those before it in its process, so there are few of them; and one that was evaluated
//! after others and changed since is next evaluated after fewer, so that what is remembered about it becomes about it alone.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::cache::Missing;
use crate::MachineName;

/// What a process takes before its first node, in MiB: nixpkgs' library and packages.
pub(super) const BASE: u64 = 400;
/// What a process of one system takes, in MiB.
const SMALLEST: u64 = BASE + Asked::Systems.mib_per_node();

/// The largest heap a process begins with, in MiB: Nix does not start when it cannot have it.
const LARGEST_HEAP: u64 = 4096;

/// What is asked about nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Their systems.
    Systems,
    /// What they say about themselves, which is a few options.
    Descriptions,
}

impl Asked {
    /// What a node is taken for before one was measured, in MiB: a small NixOS takes 500, a large one several times that; a few of its
    /// options a fifth.
    const fn mib_per_node(self) -> u64 {
        match self {
            Self::Systems => 1000,
            Self::Descriptions => 200,
        }
    }

    /// How many nodes a process may hold where it is remembered what was read. What nodes share is worth two seconds or so: of the five
    /// to seven that a real NixOS takes, so that three in a process cost about a twentieth more than five; and of the two and a half that
    /// a description takes.
    pub(super) const fn watched(self) -> usize {
        match self {
            Self::Systems => 3,
            Self::Descriptions => 10,
        }
    }
}

/// Limits of this computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) workers: usize,
    memory_mib: u64,
}

impl Limits {
    pub(super) fn new(workers: Option<usize>, memory_mib: Option<u64>) -> Self {
        let memory_mib = memory_mib.unwrap_or_else(|| free_memory().unwrap_or(2 * SMALLEST) / 2);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = usize::try_from(memory_mib / SMALLEST).unwrap_or(usize::MAX);
        Self { workers: workers.unwrap_or_else(|| cores.min(fitting)).max(1), memory_mib }
    }

    /// What one process may take, in MiB.
    fn share(&self) -> u64 {
        self.memory_mib / u64::try_from(self.workers).unwrap_or(1).max(1)
    }

    /// How large the heap of a process with this many nodes is before anything is collected in it, in MiB. Nix begins with 384 or less
    /// (Determinate's with more), and a third of its time goes into collecting what a NixOS then leaves behind; half of what a node is
    /// taken for saves most of that, and costs a fifth to a third more memory.
    pub(super) fn heap(&self, asked: Asked, nodes: usize) -> u64 {
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        nodes
            .saturating_mul(asked.mib_per_node() / 2)
            .saturating_add(BASE)
            .min(self.share())
            .min(LARGEST_HEAP)
    }

    /// How many nodes a process may hold. `measured` is what one was seen to take, in MiB.
    pub(super) fn nodes_per_process(&self, asked: Asked, measured: Option<u64>) -> usize {
        let each = measured.unwrap_or_else(|| asked.mib_per_node());
        let nodes = self.share().saturating_sub(BASE) / each.max(1);
        usize::try_from(nodes).unwrap_or(usize::MAX).max(1)
    }
}

/// Permits to run an evaluation, each with a number of its own.
#[derive(Debug)]
pub(super) struct Slots {
    permits: Semaphore,
    free: Mutex<Vec<usize>>,
}

/// One that was taken; it goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    number: usize,
    /// Only a closed semaphore gives none, and this one is never closed.
    _permit: Option<SemaphorePermit<'a>>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { permits: Semaphore::new(count), free: Mutex::new((0..count).rev().collect()) }
    }

    /// Waits for a free one.
    pub(super) async fn take(&self) -> Slot<'_> {
        let permit = self.permits.acquire().await.ok();
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Slot { slots: self, number: number.unwrap_or_default(), _permit: permit }
    }
}

impl Slot<'_> {
    /// Smaller than the number of slots, and no other's at the same time.
    pub(super) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

/// Memory that can be had without pushing others out, in MiB.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Groups of nodes, each for one process.
pub(super) fn split(missing: &[Missing], workers: usize, per_process: usize) -> Vec<Vec<MachineName>> {
    let even = missing.len().div_ceil(workers.max(1)).max(1);
    let mut groups: Vec<(usize, Vec<MachineName>)> = vec![];
    let mut by_size: Vec<&Missing> = missing.iter().collect();
    by_size.sort_by_key(|one| one.together);
    for one in by_size {
        let before = one.together.map_or(usize::MAX, |together| (together / 4).max(1));
        let size = even.min(per_process).min(before).max(1);
        match groups.last_mut() {
            Some((limit, group)) if *limit == size && group.len() < size => group.push(one.name.clone()),
            _ => groups.push((size, vec![one.name.clone()])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(together: &[Option<usize>]) -> Vec<Missing> {
        let name = |n: usize| format!("m{n}").parse().unwrap();
        together
            .iter()
            .enumerate()
            .map(|(n, together)| Missing { name: name(n), together: *together })
            .collect()
    }

    fn sizes(groups: &[Vec<MachineName>]) -> Vec<usize> {
        groups.iter().map(Vec::len).collect()
    }

    #[test]
    fn new_nodes_are_spread_evenly_over_the_workers() {
        assert_eq!(sizes(&split(&missing(&[None; 10]), 2, 100)), [5, 5]);
        assert_eq!(sizes(&split(&missing(&[None; 1]), 4, 100)), [1]);
        assert_eq!(sizes(&split(&missing(&[]), 4, 100)), Vec::<usize>::new());
    }

    #[test]
    fn no_process_holds_more_than_fits() {
        assert_eq!(sizes(&split(&missing(&[None; 10]), 2, 2)), [2, 2, 2, 2, 2]);
    }

    #[test]
    fn what_changed_is_evaluated_with_fewer_than_before() {
        assert_eq!(sizes(&split(&missing(&[Some(1), Some(1)]), 1, 100)), [1, 1]);
        assert_eq!(sizes(&split(&missing(&[Some(8); 8]), 2, 100)), [2, 2, 2, 2]);
    }

    #[test]
    fn no_heap_begins_larger_than_its_share() {
        let limits = Limits { workers: 2, memory_mib: 4000 };
        assert_eq!(limits.heap(Asked::Systems, 1), 900);
        assert_eq!(limits.heap(Asked::Systems, 3), 1900);
        assert_eq!(limits.heap(Asked::Systems, 50), 2000);
        assert_eq!(limits.heap(Asked::Descriptions, 3), 700);
        assert_eq!(Limits { workers: 1, memory_mib: 64_000 }.heap(Asked::Systems, 50), LARGEST_HEAP);
    }

    #[test]
    fn memory_decides_about_nodes_in_a_process() {
        let limits = Limits { workers: 2, memory_mib: 8000 };
        assert_eq!(limits.nodes_per_process(Asked::Systems, None), 3);
        assert_eq!(limits.nodes_per_process(Asked::Descriptions, None), 18);
        assert_eq!(limits.nodes_per_process(Asked::Systems, Some(400)), 9);
        assert_eq!(limits.nodes_per_process(Asked::Systems, Some(100_000)), 1);
    }
}
