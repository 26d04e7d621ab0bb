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

/// Exit code 4 of `switch-to-configuration` says that units failed, which may well have been so before; 100 that only a
/// reboot leads to the system. What any other code means depends on whether the program had `begun` to change something: it
/// ends with 1 or with an error number, such as 11 for a lock that another one holds, both before and after that.
/// `newly_failed` is `None` where systemd could not be asked.
pub(crate) fn judge(exit: Exit, begun: bool, newly_failed: Option<&[String]>) -> Verdict {
    match exit {
        Exit::Code(0) => Verdict::Good,
        Exit::Code(4) if newly_failed.is_some_and(<[_]>::is_empty) => Verdict::Good,
        Exit::Code(100) if !begun => Verdict::NeedsReboot,
        Exit::Code(_) if !begun => Verdict::NotStarted,
        Exit::Code(_) | Exit::Killed => Verdict::Bad,
    }
}

/// Whether a line of `switch-to-configuration` shows that it changes something. It says so before it does.
pub(crate) fn shows_a_change(line: &str) -> bool {
    line.starts_with("stopping ") || line.starts_with("activating the configuration")
}

/// Units that have failed since `before`.
pub(crate) fn newly_failed(before: Option<&[String]>, after: Option<Vec<String>>) -> Option<Vec<String>> {
    let (before, mut after) = (before?, after?);
    after.retain(|unit| !before.contains(unit));
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_had_failed_before_is_not_the_new_systems_fault() {
        let units = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (before, after) = (units(&["old.service"]), units(&["old.service", "new.service"]));
        let same = newly_failed(Some(&before), Some(before.clone()));
        assert_eq!(judge(Exit::Code(4), true, same.as_deref()), Verdict::Good);
        let more = newly_failed(Some(&before), Some(after));
        assert_eq!(more.as_deref(), Some(&units(&["new.service"])[..]));
        assert_eq!(judge(Exit::Code(4), true, more.as_deref()), Verdict::Bad);
    }

    #[test]
    fn units_that_nobody_could_ask_for_are_not_taken_for_good_ones() {
        assert_eq!(newly_failed(None, Some(vec![])), None);
        assert_eq!(newly_failed(Some(&[]), None), None);
        assert_eq!(judge(Exit::Code(4), true, None), Verdict::Bad);
    }

    #[test]
    fn the_same_code_means_nothing_or_much_depending_on_whether_anything_was_changed() {
        for code in [1, 2, 11, 101] {
            assert_eq!(judge(Exit::Code(code), false, Some(&[])), Verdict::NotStarted, "{code}");
            assert_eq!(judge(Exit::Code(code), true, Some(&[])), Verdict::Bad, "{code}");
        }
        assert_eq!(judge(Exit::Code(100), false, Some(&[])), Verdict::NeedsReboot);
        assert_eq!(judge(Exit::Code(100), true, Some(&[])), Verdict::Bad);
    }

    #[test]
    fn a_killed_program_may_have_changed_anything() {
        assert_eq!(judge(Exit::Killed, false, Some(&[])), Verdict::Bad);
    }

    #[test]
    fn what_it_would_do_is_no_change() {
        assert!(shows_a_change("stopping the following units: a.service"));
        assert!(shows_a_change("activating the configuration..."));
        assert!(!shows_a_change("would stop the following units: a.service"));
    }
}
