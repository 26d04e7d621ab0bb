//! How nodes are spread over processes.
//!
//! Nodes in one process share what they have in common, but the process keeps all of them in memory. So there are as
//! many processes at once, with as many nodes in each, as is quickest with these cores and this memory. Where it is
//! remembered what was read, a node is remembered with what was read for those before it in its process, so there are
//! few of them; and when only a few nodes have changed each gets a process of its own, so that what is remembered
//! about it is about it alone.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::costs::{Asked, Costs};
use crate::MachineName;

/// The largest heap a process begins with, in MiB: Nix does not start when it cannot have it.
const LARGEST_HEAP: u64 = 4096;

/// So many nodes, or fewer, get processes of their own where it is remembered what was read.
const FEW: usize = 3;

/// Limits of this computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    workers: usize,
    memory_mib: u64,
}

/// How nodes are best spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    /// How many processes at once.
    processes: usize,
    /// How many nodes a process holds at most.
    nodes: usize,
}

/// Nodes that have no process yet.
#[derive(Debug)]
pub(super) struct Queue {
    nodes: Vec<MachineName>,
    asked: Asked,
    /// Where it is remembered what was read: how many nodes there were in the beginning.
    watched: Option<usize>,
    /// How those are spread that come next, and how many processes of that are still to begin.
    wave: Option<(Spread, usize)>,
}

impl Limits {
    pub(super) fn new(workers: Option<usize>, memory_mib: Option<u64>) -> Self {
        let one = Costs::assumed(Asked::Systems).mib(1);
        let memory_mib = memory_mib.unwrap_or_else(|| free_memory().unwrap_or(2 * one) / 2);
        let workers = workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Self { workers: workers.max(1), memory_mib: memory_mib.max(1) }
    }

    /// What each of so many processes may take, in MiB.
    fn share(&self, processes: usize) -> u64 {
        self.memory_mib / u64::try_from(processes).unwrap_or(u64::MAX).max(1)
    }

    /// How large the heap of a process with this many nodes is before anything is collected in it, in MiB. Nix begins
    /// with 384 or less (Determinate's with more), and a third of its time goes into collecting what a NixOS then
    /// leaves behind; half of what a node is taken for saves most of that, and costs a fifth to a third more memory.
    pub(super) fn heap(&self, asked: Asked, costs: &Costs, nodes: usize) -> u64 {
        let assumed = Costs::assumed(asked);
        // By time, because memory depends on the heap itself.
        let times = (costs.base.millis / assumed.base.millis).max(1);
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        let base = assumed.base.mib.saturating_mul(times);
        let heap = nodes.saturating_mul(assumed.node.mib / 2).saturating_add(base);
        let fitting = usize::try_from(self.memory_mib / assumed.mib(1)).unwrap_or(usize::MAX);
        heap.min(self.share(self.workers.min(fitting))).min(LARGEST_HEAP)
    }

    /// The quickest way to evaluate so many nodes, by what they cost, with at most `most` in a process: more
    /// processes at once, each of which has to do what nodes share, or fewer that hold more.
    fn spread(&self, costs: &Costs, nodes: usize, most: usize) -> Spread {
        let spread = |processes: usize| {
            let room = self.share(processes).checked_sub(costs.mib(1))?;
            let fitting =
                usize::try_from(room / costs.node.mib.max(1)).unwrap_or(usize::MAX).saturating_add(1);
            Some(Spread { processes, nodes: fitting.min(most).min(nodes.div_ceil(processes)).max(1) })
        };
        let took = |spread: &Spread| {
            let rounds = nodes.div_ceil(spread.nodes).div_ceil(spread.processes);
            let each = u64::try_from(spread.nodes).unwrap_or(u64::MAX).saturating_mul(costs.node.millis);
            u64::try_from(rounds).unwrap_or(u64::MAX).saturating_mul(costs.base.millis.saturating_add(each))
        };
        // What fits nowhere is tried all the same, alone.
        let ways = (1..=self.workers).rev().filter_map(spread);
        ways.min_by_key(took).unwrap_or(Spread { processes: 1, nodes: 1 })
    }
}

impl Queue {
    pub(super) fn new(nodes: Vec<MachineName>, asked: Asked, is_watched: bool) -> Self {
        Self { watched: is_watched.then_some(nodes.len()), nodes, asked, wave: None }
    }

    /// The nodes of the process that is to begin now, while so many others run, by what processes were found to cost
    /// until now.
    pub(super) fn next(
        &mut self,
        limits: &Limits,
        costs: &Costs,
        running: usize,
    ) -> Option<Vec<MachineName>> {
        if self.nodes.is_empty() {
            return None;
        }
        // As many processes as run at once are made alike, so that they end at about the same time.
        let (spread, left) = self.wave.unwrap_or_else(|| {
            let spread = limits.spread(costs, self.nodes.len(), self.most(costs));
            (spread, spread.processes)
        });
        if running >= spread.processes {
            return None;
        }
        self.wave = (left > 1).then_some((spread, left - 1));
        Some(self.nodes.drain(..spread.nodes.min(self.nodes.len())).collect())
    }

    /// How many nodes a process may hold, whatever fits.
    fn most(&self, costs: &Costs) -> usize {
        match self.watched {
            None => usize::MAX,
            Some(..=FEW) => 1,
            Some(_) => costs.enough(self.asked),
        }
    }
}

/// Permits to run an evaluation, each with a number of its own.
#[derive(Debug)]
pub(super) struct Slots {
    permits: Semaphore,
    /// Of each MiB.
    memory: Semaphore,
    memory_mib: u32,
    free: Mutex<Vec<usize>>,
}

/// One that was taken; it goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    number: usize,
    /// Only a closed semaphore gives none, and these are never closed.
    _permits: [Option<SemaphorePermit<'a>>; 2],
}

impl Slots {
    pub(super) fn new(limits: Limits) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let memory_mib = u32::try_from(limits.memory_mib).unwrap_or(u32::MAX).min(most);
        Self {
            permits: Semaphore::new(limits.workers),
            memory: Semaphore::new(usize::try_from(memory_mib).unwrap_or(usize::MAX)),
            memory_mib,
            free: Mutex::new((0..limits.workers).rev().collect()),
        }
    }

    /// Waits for a free one and for that much memory. What wants more than there is gets all of it.
    pub(super) async fn take(&self, mib: u64) -> Slot<'_> {
        let permit = self.permits.acquire().await.ok();
        let mib = u32::try_from(mib).unwrap_or(u32::MAX).min(self.memory_mib);
        let memory = self.memory.acquire_many(mib).await.ok();
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Slot { slots: self, number: number.unwrap_or_default(), _permits: [permit, memory] }
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
    let whole = crate::meminfo::mib("/proc/meminfo", "MemAvailable")?;
    Some(crate::meminfo::free_in_cgroup().map_or(whole, |limited| limited.min(whole)))
}

#[cfg(test)]
mod tests {
    use super::super::costs::Cost;
    use super::*;

    const GIB: u64 = 1024;

    /// Of processes: milliseconds and MiB before the first node, and for each.
    fn costs(base: (u64, u64), node: (u64, u64)) -> Costs {
        let cost = |(millis, mib)| Cost { millis, mib };
        let mut costs = Costs::assumed(Asked::Systems);
        (costs.base, costs.node) = (cost(base), cost(node));
        costs
    }

    fn spread(workers: usize, memory_mib: u64, costs: &Costs, nodes: usize, most: usize) -> (usize, usize) {
        let Spread { processes, nodes } = Limits { workers, memory_mib }.spread(costs, nodes, most);
        (processes, nodes)
    }

    #[test]
    fn nodes_are_spread_evenly_over_the_workers() {
        let plain = Costs::assumed(Asked::Systems);
        assert_eq!(spread(2, 64 * GIB, &plain, 10, usize::MAX), (2, 5));
        assert_eq!(spread(4, 64 * GIB, &plain, 1, usize::MAX), (4, 1));
        assert_eq!(spread(2, 64 * GIB, &plain, 10, 3), (2, 3));
        assert_eq!(spread(2, 64 * GIB, &plain, 0, 3), (2, 1));
    }

    #[test]
    fn memory_decides_about_nodes_in_a_process_and_processes_at_once() {
        let plain = Costs::assumed(Asked::Systems);
        assert_eq!(spread(2, 8 * GIB, &plain, 50, usize::MAX), (2, 3));
        let large = costs((1000, 400), (9000, 5000));
        assert_eq!(spread(4, 12 * GIB, &large, 10, usize::MAX), (2, 1));
        assert_eq!(
            spread(4, 4 * GIB, &large, 10, usize::MAX),
            (1, 1),
            "too large for this computer, but who knows"
        );
        // What they share is most of it: two processes of few would both do it, again and again.
        let tangled = costs((15_000, 5000), (2500, 700));
        assert_eq!(spread(2, 11 * GIB, &tangled, 50, usize::MAX), (1, 8));
        assert_eq!(spread(2, 64 * GIB, &tangled, 50, usize::MAX), (2, 25));
    }

    /// How many nodes the processes hold when they end in the order in which they began.
    fn sizes(missing: usize, is_watched: bool, limits: Limits, costs: &[Costs]) -> Vec<usize> {
        let nodes = (0..missing).map(|n| format!("m{n}").parse().unwrap()).collect();
        let mut queue = Queue::new(nodes, Asked::Systems, is_watched);
        let (mut sizes, mut running) = (vec![], 0);
        for ended in 0.. {
            let costs = costs.get(ended).or(costs.last()).unwrap();
            while let Some(group) = queue.next(&limits, costs, running) {
                sizes.push(group.len());
                running += 1;
            }
            if running == 0 {
                break;
            }
            running -= 1;
        }
        assert_eq!(sizes.iter().sum::<usize>(), missing);
        sizes
    }

    #[test]
    fn processes_of_one_time_hold_as_many_nodes() {
        let plain = [Costs::assumed(Asked::Systems)];
        let limits = Limits { workers: 2, memory_mib: 64 * GIB };
        assert_eq!(sizes(10, false, limits, &plain), [5, 5]);
        assert_eq!(sizes(10, true, limits, &plain), [3, 3, 2, 2]);
        assert_eq!(sizes(0, true, limits, &plain), [0; 0]);
        let limits = Limits { workers: 2, memory_mib: 8 * GIB };
        assert_eq!(sizes(13, false, limits, &plain), [3, 3, 3, 3, 1]);
    }

    #[test]
    fn a_few_that_changed_are_evaluated_alone() {
        let limits = Limits { workers: 2, memory_mib: 64 * GIB };
        let plain = [Costs::assumed(Asked::Systems)];
        assert_eq!(sizes(1, true, limits, &plain), [1]);
        assert_eq!(sizes(3, true, limits, &plain), [1, 1, 1]);
        assert_eq!(sizes(3, false, limits, &plain), [2, 1]);
    }

    #[test]
    fn what_the_first_processes_cost_decides_about_the_others() {
        let limits = Limits { workers: 2, memory_mib: 64 * GIB };
        let plain = Costs::assumed(Asked::Systems);
        let tangled = costs((15_000, 5000), (2500, 700));
        assert_eq!(sizes(50, true, limits, &[plain, tangled]), [3, 3, 22, 22]);
        let large = costs((1000, 400), (9000, 40_000));
        assert_eq!(sizes(9, false, limits, &[plain, large]), [5, 4]);
        let limits = Limits { workers: 2, memory_mib: 8 * GIB };
        assert_eq!(sizes(9, false, limits, &[plain, large]), [3, 3, 1, 1, 1]);
    }

    #[test]
    fn no_heap_begins_larger_than_its_share() {
        let limits = Limits { workers: 2, memory_mib: 4000 };
        let [systems, descriptions] = [Asked::Systems, Asked::Descriptions].map(Costs::assumed);
        assert_eq!(limits.heap(Asked::Systems, &systems, 1), 900);
        assert_eq!(limits.heap(Asked::Systems, &systems, 3), 1900);
        assert_eq!(limits.heap(Asked::Systems, &systems, 50), 2000);
        assert_eq!(limits.heap(Asked::Systems, &costs((3500, 0), (0, 0)), 1), 1700);
        let many = Limits { workers: 16, memory_mib: 5000 };
        assert_eq!(many.heap(Asked::Systems, &systems, 3), 1666, "no more of them fit than three");
        assert_eq!(limits.heap(Asked::Descriptions, &descriptions, 3), 700);
        let limits = Limits { workers: 1, memory_mib: 64_000 };
        assert_eq!(limits.heap(Asked::Systems, &systems, 50), LARGEST_HEAP);
    }

    #[tokio::test]
    async fn what_runs_at_once_fits_into_memory() {
        let slots = Slots::new(Limits { workers: 3, memory_mib: 1000 });
        let wait = |mib| tokio::time::timeout(std::time::Duration::from_millis(20), slots.take(mib));
        let (small, large) = (slots.take(300).await, slots.take(700).await);
        assert_ne!(small.number(), large.number());
        assert!(wait(1).await.is_err(), "no memory is left");
        assert!(wait(0).await.is_ok(), "one that needs none");
        drop(small);
        let another = wait(300).await.unwrap();
        assert!(wait(1).await.is_err());
        drop((large, another));
        let all = wait(5000).await.unwrap();
        assert!(wait(1).await.is_err());
        drop(all);
        let _three = [slots.take(0).await, slots.take(0).await, slots.take(0).await];
        assert!(wait(0).await.is_err(), "no slot is left");
    }
}
