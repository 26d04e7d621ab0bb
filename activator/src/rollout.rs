//! In which order machines get their new systems, and what the others do when one fails.
//!
//! Everything is decided from one table of where each machine stands; deciding is pure, waiting is here too.

use std::collections::BTreeMap;

use nixos_agent::Answer;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::MachineName;
use crate::scheduler::ACTIVATIONS;

/// What the user wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// Machines that go together; a wave begins when the one before it has ended. Who is in none goes last.
    pub waves: Vec<Vec<MachineName>>,
    /// How many machines activate at once; `None`: all of a wave.
    pub max_parallel: Option<usize>,
    /// How many machines may fail before no other one begins; `None`: all.
    pub max_failures: Option<usize>,
    /// Whether all machines keep their new systems or none.
    pub atomic: bool,
}

/// Where a machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its system is on the way to it.
    Preparing,
    /// Its system is there.
    Ready,
    /// It activates.
    Working,
    /// It runs its new system, and would keep it.
    Healthy,
    /// It keeps its new system.
    Done,
    /// It does not run its new system.
    Failed,
    /// It never got its turn.
    NotBegun,
}

type Standings = BTreeMap<MachineName, Standing>;

/// Conducts one deployment.
#[derive(Debug)]
pub(crate) struct Conductor<'a> {
    rollout: &'a Rollout,
    standings: watch::Sender<Standings>,
    at_once: Semaphore,
}

/// How it ended for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It keeps its new system.
    Well,
    /// It failed.
    Failed,
    /// It was left as it was, because others failed or somebody stopped it.
    NotBegun,
}

/// The right of a machine to activate.
pub(crate) type Turn<'a> = Option<SemaphorePermit<'a>>;

/// Why a machine does not get its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// Others failed.
    Failures(String),
    /// The user does not want it any more.
    Cancelled,
}

impl<'a> Conductor<'a> {
    pub(crate) fn new<'m>(rollout: &'a Rollout, machines: impl Iterator<Item = &'m MachineName>) -> Self {
        let standings = machines.map(|machine| (machine.clone(), Standing::Preparing)).collect();
        let at_once = rollout.max_parallel.unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            rollout,
            standings: watch::Sender::new(standings),
            at_once: Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    /// Waits until it is the machine's turn to activate.
    pub(crate) async fn turn(
        &self,
        machine: &MachineName,
        cancel: &CancellationToken,
    ) -> Result<Turn<'_>, NoTurn> {
        self.set(machine, Standing::Ready);
        let mut standings = self.standings.subscribe();
        let wait = async {
            loop {
                let decided = standings
                    .wait_for(|standings| self.rollout.may_begin(standings, machine) != Begin::NotYet)
                    .await
                    .map(|standings| self.rollout.may_begin(&standings, machine));
                if let Ok(Begin::Never(why)) = decided {
                    return Err(NoTurn::Failures(why));
                }
                let permit = self.at_once.acquire().await.ok();
                // Others may have failed while we waited for our place.
                let still = self.rollout.may_begin(&self.standings.borrow(), machine);
                if still == Begin::Now {
                    return Ok(permit);
                }
            }
        };
        let turn = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(NoTurn::Cancelled),
            turn = wait => turn?,
        };
        self.set(machine, Standing::Working);
        Ok(turn)
    }

    /// The machine runs its new system and would keep it: what is to become of it?
    pub(crate) async fn decision(&self, machine: &MachineName, turn: &mut Turn<'_>) -> Answer {
        self.set(machine, Standing::Healthy);
        if !self.rollout.atomic {
            return Answer::Keep;
        }
        // Others need its place to get as far.
        drop(turn.take());
        let mut standings = self.standings.subscribe();
        match standings.wait_for(|standings| decision(standings).is_some()).await {
            Ok(standings) => decision(&standings).unwrap_or(Answer::Keep),
            // We hold the sender ourselves.
            Err(_) => Answer::Keep,
        }
    }

    /// It is over for this machine.
    pub(crate) fn ended(&self, machine: &MachineName, end: End) {
        self.set(
            machine,
            match end {
                End::Well => Standing::Done,
                End::Failed => Standing::Failed,
                End::NotBegun => Standing::NotBegun,
            },
        );
    }

    fn set(&self, machine: &MachineName, standing: Standing) {
        self.standings.send_modify(|standings| {
            standings.insert(machine.clone(), standing);
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    Now,
    NotYet,
    Never(String),
}

impl Rollout {
    /// How many times the longest activation the last machine may have to wait for.
    pub(crate) fn rounds(&self, machines: usize) -> usize {
        let at_once = self.max_parallel.unwrap_or(machines).clamp(1, ACTIVATIONS);
        machines.div_ceil(at_once) + self.waves.len()
    }

    fn wave(&self, machine: &MachineName) -> usize {
        self.waves.iter().position(|wave| wave.contains(machine)).unwrap_or(self.waves.len())
    }

    fn may_begin(&self, standings: &Standings, machine: &MachineName) -> Begin {
        let allowed = if self.atomic { Some(0) } else { self.max_failures };
        let failed: Vec<&str> = standings
            .iter()
            .filter_map(|(name, standing)| (*standing == Standing::Failed).then_some(name.as_str()))
            .collect();
        if allowed.is_some_and(|allowed| failed.len() > allowed) {
            return Begin::Never(failed.join(", "));
        }
        let own = self.wave(machine);
        let holds_up = |(other, standing): (&MachineName, &Standing)| match standing {
            Standing::Done | Standing::Failed | Standing::NotBegun => false,
            Standing::Healthy => !self.atomic && self.wave(other) < own,
            // What was activated must not wait for what is still being copied.
            Standing::Preparing => self.atomic || self.wave(other) < own,
            Standing::Ready | Standing::Working => self.wave(other) < own,
        };
        if standings.iter().any(holds_up) { Begin::NotYet } else { Begin::Now }
    }
}

/// What becomes of healthy machines, once that is clear.
fn decision(standings: &Standings) -> Option<Answer> {
    let first = |wanted| standings.iter().find(|(_, standing)| **standing == wanted).map(|(name, _)| name);
    if let Some(name) = first(Standing::Failed) {
        return Some(Answer::GoBack(format!("Machine \"{name}\" failed, and all were to succeed or none")));
    }
    if let Some(name) = first(Standing::NotBegun) {
        return Some(Answer::GoBack(format!(
            "Machine \"{name}\" was not begun, and all were to succeed or none"
        )));
    }
    let is_confirmed = |standing: &Standing| matches!(standing, Standing::Healthy | Standing::Done);
    standings.values().all(is_confirmed).then_some(Answer::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(number: usize) -> MachineName {
        format!("m{number}").parse().unwrap()
    }

    /// Every machine takes a step, in an order chosen by `steps`, until none can; returns the order of beginnings.
    fn play(rollout: &Rollout, count: usize, failing: &[usize], steps: &[usize]) -> (Vec<usize>, Standings) {
        let mut standings: Standings = (0..count).map(|n| (name(n), Standing::Preparing)).collect();
        let mut begun = vec![];
        let mut idle = 0;
        let mut step = 0;
        while idle <= count * 2 {
            // Every other step goes around, so that nobody is forgotten.
            let who = if step % 2 == 0 { step / 2 } else { steps[step % steps.len()] } % count;
            step += 1;
            let working = standings.values().filter(|standing| **standing == Standing::Working).count();
            let now = standings[&name(who)];
            let next = match now {
                Standing::Preparing => Standing::Ready,
                Standing::Ready => match rollout.may_begin(&standings, &name(who)) {
                    Begin::Now if rollout.max_parallel.is_none_or(|most| working < most) => {
                        begun.push(who);
                        Standing::Working
                    }
                    Begin::Now | Begin::NotYet => now,
                    Begin::Never(failed) => {
                        let of = |name| standings.get(&name) == Some(&Standing::Failed);
                        assert!(failed.split(", ").all(|name| of(name.parse().unwrap())), "{failed}");
                        Standing::NotBegun
                    }
                },
                Standing::Working if failing.contains(&who) => Standing::Failed,
                Standing::Working => Standing::Healthy,
                Standing::Healthy if !rollout.atomic => Standing::Done,
                Standing::Healthy => match decision(&standings) {
                    None => now,
                    Some(Answer::GoBack(_)) => Standing::Failed,
                    Some(_) => Standing::Done,
                },
                ended => ended,
            };
            idle = if next == now { idle + 1 } else { 0 };
            standings.insert(name(who), next);
        }
        (begun, standings)
    }

    #[test]
    fn no_more_machines_activate_at_once_than_the_scheduler_lets() {
        let rounds = |max_parallel, machines| Rollout { max_parallel, ..Rollout::default() }.rounds(machines);
        assert_eq!([rounds(None, 20), rounds(Some(5), 20), rounds(Some(0), 20)], [1, 4, 20]);
        assert_eq!([rounds(None, 1000), rounds(Some(500), 1000)], [32, 32]);
    }

    proptest! {
        #[test]
        fn every_rollout_comes_to_an_end_and_keeps_its_promises(
            count in 1_usize..9,
            waves in prop::collection::vec(0_usize..4, 9),
            max_parallel in prop::option::of(1_usize..4),
            max_failures in prop::option::of(0_usize..3),
            atomic: bool,
            failing in prop::collection::vec(0_usize..9, 0..3),
            steps in prop::collection::vec(0_usize..9, 1..20),
        ) {
            // Number 3 is in no wave.
            let waves = (0..3).map(|wave| (0..count).filter(|n| waves[*n] == wave).map(name).collect());
            let rollout = Rollout { waves: waves.collect(), max_parallel, max_failures, atomic };
            let (begun, end) = play(&rollout, count, &failing, &steps);
            let ended =
                |standing: &Standing| matches!(standing, Standing::Done | Standing::Failed | Standing::NotBegun);
            prop_assert!(end.values().all(ended), "{rollout:?} stands still: {end:?}");
            let of_begun: Vec<usize> = begun.iter().map(|n| rollout.wave(&name(*n))).collect();
            prop_assert!(of_begun.is_sorted(), "waves {of_begun:?}");
            let kept = end.values().filter(|standing| **standing == Standing::Done).count();
            let bad = begun.iter().filter(|n| failing.contains(n)).count();
            if atomic {
                prop_assert!(kept == 0 || kept == count, "{kept} of {count}");
            } else if let Some(most) = max_failures {
                // Those that were at work already may fail too.
                let beside = max_parallel.unwrap_or(count);
                prop_assert!(bad <= most + beside, "{bad} failed, {most} may");
            }
            if bad == 0 {
                prop_assert_eq!(kept, count);
            }
        }
    }
}
