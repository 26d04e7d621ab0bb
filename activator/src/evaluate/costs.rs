//! What it costs to evaluate nodes: a process costs something before its first node, and then something for each.
//!
//! The first part is nixpkgs' library and packages, and in a network whose nodes look at each other all that they
//! look at, which may be more than the nodes themselves.

use serde::{Deserialize, Serialize};

/// What is asked about nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Their systems.
    Systems,
    /// What they say about themselves, which is a few options.
    Descriptions,
}

/// Time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) millis: u64,
    pub(super) mib: u64,
}

/// What a process costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Costs {
    /// Before its first node.
    pub(super) base: Cost,
    /// For each node.
    pub(super) node: Cost,
    /// Whether any of this was seen.
    is_measured: bool,
}

/// What is known about a process that has ended.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// How many nodes it held.
    pub(super) nodes: usize,
    /// The most memory it took.
    pub(super) peak_mib: Option<u64>,
    /// What it had taken when each of its nodes was done, where somebody watched.
    pub(super) done: Vec<Cost>,
}

impl Costs {
    /// Those of a plain NixOS; a large one takes several times as much.
    pub(super) const fn assumed(asked: Asked) -> Self {
        let (base, node) = match asked {
            Asked::Systems => (Cost { millis: 1000, mib: 400 }, Cost { millis: 3000, mib: 1000 }),
            Asked::Descriptions => (Cost { millis: 1200, mib: 400 }, Cost { millis: 600, mib: 200 }),
        };
        Self { base, node, is_measured: false }
    }

    /// What they are after another process was seen.
    pub(super) fn learned(self, process: &Process) -> Self {
        let (base, node) = self.seen(process);
        let cost = |before: Cost, now: Cost| Cost {
            // Nodes differ, and a disk may be cold: no single process tells what all are like.
            millis: u64::midpoint(before.millis, now.millis),
            // What was once needed is forgotten slowly: too little memory is worse than a process too many.
            mib: if self.is_measured { now.mib.max(before.mib - before.mib.div_ceil(8)) } else { now.mib },
        };
        Self { base: cost(self.base, base), node: cost(self.node, node), is_measured: true }
    }

    /// What a process cost before its first node and for each.
    fn seen(&self, process: &Process) -> (Cost, Cost) {
        let nodes = u64::try_from(process.nodes).unwrap_or(u64::MAX).max(1);
        let peak = process.peak_mib.unwrap_or(0);
        if let [first, .., last] = process.done.as_slice() {
            let between = u64::try_from(process.done.len() - 1).unwrap_or(u64::MAX);
            let each = |first: u64, last: u64| last.saturating_sub(first) / between;
            let millis = each(first.millis, last.millis);
            let mib = each(first.mib, last.mib);
            let base =
                Cost { millis: first.millis.saturating_sub(millis), mib: first.mib.saturating_sub(mib) };
            return (base, Cost { millis, mib: mib.max(peak.saturating_sub(base.mib) / nodes) });
        }
        // How much of it was for the nodes is not known: it is taken to be as much of it as before.
        let scaled = |base: u64, node: u64, whole: Option<u64>| {
            let expected = u128::from(base) + u128::from(nodes) * u128::from(node);
            let Some(whole) = whole.filter(|_| expected > 0) else {
                return (base, node);
            };
            let scale = |part: u64| {
                u64::try_from(u128::from(part) * u128::from(whole) / expected).unwrap_or(u64::MAX)
            };
            (scale(base), scale(node))
        };
        let millis = process.done.first().map(|done| done.millis);
        let (base_millis, node_millis) = scaled(self.base.millis, self.node.millis, millis);
        let (base_mib, node_mib) = scaled(self.base.mib, self.node.mib, process.peak_mib);
        (Cost { millis: base_millis, mib: base_mib }, Cost { millis: node_millis, mib: node_mib })
    }

    /// What a process with so many nodes takes, in MiB.
    pub(super) fn mib(&self, nodes: usize) -> u64 {
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        self.node.mib.saturating_mul(nodes).saturating_add(self.base.mib)
    }

    /// How many nodes a process is to hold where it is remembered what was read. Nodes of one process share all that
    /// was read before, so the first change of one costs those after it, too: there are as few as that the base does
    /// not count for much.
    pub(super) fn enough(&self, asked: Asked) -> usize {
        let least = match asked {
            Asked::Systems => 3,
            Asked::Descriptions => 10,
        };
        let enough = usize::try_from(self.base.millis.saturating_mul(4).div_ceil(self.node.millis.max(1)));
        enough.unwrap_or(usize::MAX).clamp(least, 8 * least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(done: &[(u64, u64)]) -> Process {
        let done: Vec<Cost> = done.iter().map(|(millis, mib)| Cost { millis: *millis, mib: *mib }).collect();
        Process { nodes: done.len(), peak_mib: done.last().map(|last| last.mib), done }
    }

    /// After the same was seen again and again.
    fn after_many(costs: Costs, process: &Process) -> Costs {
        (0..40).fold(costs, |costs, _| costs.learned(process))
    }

    #[test]
    fn what_a_process_costs_and_what_its_nodes_do_is_told_apart() {
        let assumed = Costs::assumed(Asked::Systems);
        let plain = after_many(assumed, &process(&[(4000, 1100), (7000, 1600), (10_000, 2100)]));
        assert_eq!(
            (plain.base, plain.node),
            (Cost { millis: 1000, mib: 600 }, Cost { millis: 3000, mib: 500 })
        );
        assert_eq!(plain.enough(Asked::Systems), 3);

        // All look at all: what the first one costs is mostly the others.
        let tangled = assumed.learned(&process(&[(12_000, 1700), (14_000, 2000), (16_000, 2300)]));
        assert_eq!((tangled.base.mib, tangled.node.mib), (1400, 300));
        assert!(tangled.enough(Asked::Systems) > 5, "the first process counts already");
        let tangled = after_many(tangled, &process(&[(12_000, 1700), (14_000, 2000), (16_000, 2300)]));
        assert_eq!(tangled.enough(Asked::Systems), 20);
        // One that was evaluated alone says nothing else.
        let alone = after_many(tangled, &process(&[(12_000, 1700)]));
        assert_eq!(alone.enough(Asked::Systems), 20);
        assert_eq!(alone.mib(1), 1700);
        // Nor do many of another kind keep it from being known what one takes.
        let smaller = after_many(tangled, &process(&[(3000, 850)]));
        assert!((2990..=3010).contains(&(smaller.base.millis + smaller.node.millis)), "{smaller:?}");
        assert!((849..=870).contains(&smaller.mib(1)), "{smaller:?}");
    }

    #[test]
    fn memory_that_nobody_watched_is_spread_over_the_nodes() {
        let unwatched = |nodes, peak| Process { nodes, peak_mib: Some(peak), done: vec![] };
        let costs = Costs::assumed(Asked::Systems).learned(&unwatched(4, 2200));
        assert_eq!((costs.base.mib, costs.node.mib), (200, 500));
        assert_eq!(costs.learned(&unwatched(4, 1100)).node.mib, 437, "it is not forgotten at once");
        assert_eq!(costs.learned(&unwatched(4, 4400)).node.mib, 1000);
        let unknown = Process { nodes: 1, peak_mib: None, done: vec![] };
        assert_eq!((costs.learned(&unknown).base, costs.learned(&unknown).node), (costs.base, costs.node));
        // What is used between two looks counts, too.
        let peak = Process { peak_mib: Some(5000), ..process(&[(1, 1000), (2, 1000)]) };
        assert_eq!(Costs::assumed(Asked::Systems).learned(&peak).node.mib, 2000);
    }

    #[test]
    fn no_measurement_is_too_strange() {
        for odd in [&[(0, 0), (0, 0)][..], &[(5000, 900), (1, 1)], &[(u64::MAX, u64::MAX), (0, 0)], &[(0, 0)]]
        {
            let costs = after_many(Costs::assumed(Asked::Descriptions), &process(odd));
            assert!((10..=80).contains(&costs.enough(Asked::Descriptions)), "{costs:?}");
            assert!(costs.mib(usize::MAX) >= costs.mib(1));
        }
    }
}
