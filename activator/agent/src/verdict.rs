//! What a run of `switch-to-configuration` means. Pure: every combination can be tested without a machine.

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// It was killed, or took longer than it may.
    Killed,
}

/// What to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The new system runs.
    Good,
    /// It did not even begin.
    NotStarted,
    /// It cannot take over from the running one.
    NeedsReboot,
    /// It runs, half runs, or does not run; and it should not.
    Bad,
}

/// Exit codes of `switch-to-configuration`: 1 comes before anything is changed, 4 says that units failed, which may well
/// have been so before.
pub(crate) fn judge(exit: Exit, newly_failed: &[String]) -> Verdict {
    match exit {
        Exit::Code(0) => Verdict::Good,
        Exit::Code(4) if newly_failed.is_empty() => Verdict::Good,
        Exit::Code(1) => Verdict::NotStarted,
        Exit::Code(100) => Verdict::NeedsReboot,
        Exit::Code(_) | Exit::Killed => Verdict::Bad,
    }
}

/// Units that have failed since `before`.
pub(crate) fn newly_failed(before: &[String], after: &[String]) -> Vec<String> {
    after.iter().filter(|unit| !before.contains(unit)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_had_failed_before_is_not_the_new_systems_fault() {
        let units = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (before, after) = (units(&["old.service"]), units(&["old.service", "new.service"]));
        assert_eq!(judge(Exit::Code(4), &newly_failed(&before, &before)), Verdict::Good);
        assert_eq!(newly_failed(&before, &after), ["new.service"]);
        assert_eq!(judge(Exit::Code(4), &newly_failed(&before, &after)), Verdict::Bad);
    }

    #[test]
    fn codes_that_come_before_any_change_are_no_reason_to_roll_back() {
        assert_eq!(judge(Exit::Code(1), &[]), Verdict::NotStarted);
        assert_eq!(judge(Exit::Code(100), &[]), Verdict::NeedsReboot);
    }

    #[test]
    fn whatever_is_not_known_to_be_good_is_bad() {
        for exit in [Exit::Killed, Exit::Code(2), Exit::Code(3), Exit::Code(101), Exit::Code(-1)] {
            assert_eq!(judge(exit, &[]), Verdict::Bad, "{exit:?}");
        }
    }
}
