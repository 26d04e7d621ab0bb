//! The verdict on a switch. Pure, so that every combination can be tested without a machine.
//!
//! What the machine is in afterwards decides, never the exit code alone. A switch is good when `/run/current-system` is
//! the new system, the machine is not in emergency mode, the activation script did not fail, and every unit that fails
//! now had failed before or is tolerated.

use super::printed::Printed;
use super::step::Exit;
use crate::systemd::Units;

/// The system that a machine runs after a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// The new one.
    New,
    /// The one from before.
    Old,
    /// Another one, or none.
    Other,
}

/// All that the verdict depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) exit: Exit,
    pub(crate) printed: &'a Printed,
    pub(crate) runs: Runs,
    /// Whether the machine is in emergency or rescue mode.
    pub(crate) emergency: bool,
    /// The units before the switch; `None`: systemd did not say.
    pub(crate) before: Option<&'a Units>,
    /// The units after the switch; `None`: systemd did not say.
    pub(crate) after: Option<&'a Units>,
    /// Units that may fail.
    pub(crate) tolerated: &'a [String],
}

/// What has become of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The new system runs.
    Good {
        /// What is not as it should be all the same, a sentence each.
        warnings: Vec<String>,
    },
    /// `switch-to-configuration` did not begin to change the machine.
    NotStarted,
    /// The new system cannot take over from the running one without a reboot.
    NeedsReboot,
    /// The new system failed: it runs, runs in part, or does not run.
    Bad {
        /// Why, as the beginning of a sentence.
        why: String,
        /// Units that failed because of the new system.
        units: Vec<String>,
    },
}

/// Exit codes that do not decide: the rest of the evidence does.
const UNDECIDED: [i32; 4] = [0, 2, 3, 4];

/// Judges a switch.
///
/// Exit code 2 says that the activation script failed, 3 that temporary files or units could not be set up, 4 that
/// units failed, 100 that only a reboot leads to the system. Any other code is 1 or an error number, such as 11 for a
/// lock that another process holds. The program ends with those before it has changed anything as well as after that.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let Evidence { exit, printed, runs, .. } = *evidence;
    let begun = printed.began || runs != Runs::Old;
    if !begun {
        match exit {
            Exit::Code(100) => return Verdict::NeedsReboot,
            Exit::Code(1) if printed.is_inhibited => return Verdict::NeedsReboot,
            Exit::Code(0) | Exit::Killed => {}
            Exit::Code(_) => return Verdict::NotStarted,
        }
    }
    let (units, mut warnings) = newly_failed(evidence);
    let why = if exit == Exit::Killed {
        Some("Activation took too long or was killed".to_owned())
    } else if evidence.emergency {
        Some("The machine went into emergency mode".to_owned())
    } else if printed.activation_failed || exit == Exit::Code(2) {
        Some("The activation script failed".to_owned())
    } else if !units.is_empty() {
        Some("Units failed".to_owned())
    } else if let Exit::Code(code) = exit
        && !UNDECIDED.contains(&code)
    {
        Some(format!("Activation failed with exit code {code}"))
    } else if runs != Runs::New {
        Some("`switch-to-configuration` ended without making the new system the one that runs".to_owned())
    } else if evidence.before.is_none() || evidence.after.is_none() {
        Some("systemd did not say which units failed".to_owned())
    } else {
        match exit {
            Exit::Code(3) if printed.daemon_reload_failed => {
                Some("systemd could not read its units anew".to_owned())
            }
            Exit::Code(3) => {
                warnings.push(
                    "`systemd-tmpfiles` failed while the system was activated (exit code 3).".to_owned(),
                );
                None
            }
            // Each failure is known by name and was forgiven.
            Exit::Code(4)
                if !printed.failed_units.is_empty()
                    || !printed.user_failures.is_empty()
                    || !warnings.is_empty() =>
            {
                None
            }
            Exit::Code(4) => Some("Units failed, and `switch-to-configuration` did not say which".to_owned()),
            _ => None,
        }
    };
    match why {
        None => Verdict::Good { warnings },
        Some(why) => Verdict::Bad { why, units },
    }
}

/// Units that the new system has made fail; and warnings about other failures.
fn newly_failed(evidence: &Evidence<'_>) -> (Vec<String>, Vec<String>) {
    let Evidence { printed, before, after, tolerated, .. } = *evidence;
    let none = Units::default();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    let mut failed: Vec<&String> = after.failed.iter().collect();
    failed.extend(printed.failed_units.iter().filter(|unit| !after.failed.contains(unit)));
    let (mut new, mut old, mut allowed) = (vec![], vec![], vec![]);
    for unit in failed {
        // The unit was down before the switch and was not started by it, because a unit that it needs failed before and
        // fails now.
        let is_waiting = !after.failed.contains(unit)
            && !before.active.contains(unit)
            && before.failed.iter().any(|one| after.failed.contains(one));
        if tolerated.contains(unit) {
            allowed.push(unit.as_str());
        } else if before.failed.contains(unit) || is_waiting {
            old.push(unit.as_str());
        } else {
            new.push(unit.clone());
        }
    }
    // A target fails because a unit that it requires fails. The unit is the one to name.
    let is_target = |unit: &String| unit.ends_with(".target");
    if !new.iter().all(is_target) {
        new.retain(|unit| !is_target(unit));
    }
    let mut warnings = vec![];
    if !old.is_empty() {
        warnings.push(format!("Units that had failed before still fail: {}.", old.join(", ")));
    }
    if !allowed.is_empty() {
        warnings.push(format!("Units failed that `tolerated_units` names: {}.", allowed.join(", ")));
    }
    if !printed.user_failures.is_empty() {
        warnings.push(format!("Units or activations of users failed: {}.", printed.user_failures.join("; ")));
    }
    (new, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn units(failed: &[&str], active: &[&str]) -> Units {
        Units { failed: names(failed), active: names(active) }
    }

    /// The evidence of a switch.
    struct Case {
        exit: Exit,
        text: &'static str,
        runs: Runs,
        emergency: bool,
        before: Option<Units>,
        after: Option<Units>,
        tolerated: Vec<String>,
    }

    impl Case {
        fn judge(&self) -> Verdict {
            let printed = Printed::of(self.text);
            judge(&Evidence {
                exit: self.exit,
                printed: &printed,
                runs: self.runs,
                emergency: self.emergency,
                before: self.before.as_ref(),
                after: self.after.as_ref(),
                tolerated: &self.tolerated,
            })
        }

        fn is_good(&self) -> bool {
            matches!(self.judge(), Verdict::Good { .. })
        }

        fn failed(&self) -> Vec<String> {
            match self.judge() {
                Verdict::Bad { units, .. } => units,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A switch that went well.
    fn fine() -> Case {
        Case {
            exit: Exit::Code(0),
            text: "activating the configuration...",
            runs: Runs::New,
            emergency: false,
            before: Some(units(&[], &[])),
            after: Some(units(&[], &[])),
            tolerated: vec![],
        }
    }

    #[test]
    fn a_switch_is_good_where_the_machine_says_so_too() {
        assert!(fine().is_good());
        assert!(!Case { runs: Runs::Old, ..fine() }.is_good(), "exit code 0, and the old system runs");
        assert!(!Case { runs: Runs::Other, ..fine() }.is_good());
        assert!(!Case { runs: Runs::Old, text: "", ..fine() }.is_good(), "it ended and printed nothing");
        assert!(!Case { emergency: true, ..fine() }.is_good());
        assert!(!Case { exit: Exit::Killed, ..fine() }.is_good(), "its end was not seen");
        assert!(!Case { after: None, ..fine() }.is_good());
        assert!(!Case { before: None, exit: Exit::Code(4), ..fine() }.is_good());
    }

    #[test]
    fn a_unit_that_had_failed_before_is_not_the_new_systems_fault() {
        let old = Case {
            exit: Exit::Code(4),
            text: "activating the configuration...\nwarning: the following units failed: old.service",
            before: Some(units(&["old.service"], &[])),
            after: Some(units(&["old.service"], &[])),
            ..fine()
        };
        let Verdict::Good { warnings } = old.judge() else { panic!() };
        assert!(warnings[0].contains("old.service"), "{warnings:?}");
        let more = Case { after: Some(units(&["old.service", "new.service"], &[])), ..old };
        assert_eq!(more.failed(), ["new.service"]);
    }

    #[test]
    fn a_failed_reload_is_a_failure_although_the_unit_stays_active() {
        let reload = Case {
            exit: Exit::Code(4),
            text: "activating the configuration...\nreloading the following units: firewall.service\n\
                   Failed to reload firewall.service",
            before: Some(units(&["old.service"], &["firewall.service"])),
            after: Some(units(&["old.service"], &["firewall.service"])),
            ..fine()
        };
        assert_eq!(reload.failed(), ["firewall.service"]);
        assert!(Case { tolerated: names(&["firewall.service"]), ..reload }.is_good());
    }

    #[test]
    fn a_unit_whose_dependency_fails_is_down() {
        let text = "activating the configuration...\nFailed to start b.service";
        let new = Case {
            exit: Exit::Code(4),
            text,
            before: Some(units(&["a.service"], &["b.service"])),
            after: Some(units(&["a.service"], &[])),
            ..fine()
        };
        assert_eq!(new.failed(), ["b.service"], "it was active before");
        let old = Case { before: Some(units(&["a.service"], &[])), ..new };
        assert!(old.is_good(), "it was down before, for the same reason");
        let first = Case { before: Some(units(&[], &[])), ..old };
        assert_eq!(first.failed(), ["a.service", "b.service"]);
    }

    #[test]
    fn targets_that_fail_with_a_unit_are_not_named() {
        let text = "activating the configuration...\nwarning: the following units failed: local-fs.target, nope.mount";
        let both = Case {
            exit: Exit::Code(4),
            text,
            after: Some(units(&["local-fs.target", "nope.mount"], &[])),
            ..fine()
        };
        assert_eq!(both.failed(), ["nope.mount"]);
        let alone =
            Case { text: "activating the configuration...", after: Some(units(&["x.target"], &[])), ..both };
        assert_eq!(alone.failed(), ["x.target"]);
    }

    #[test]
    fn an_activation_script_that_failed_is_a_failure_whatever_the_code() {
        for text in [
            "activating the configuration...\nActivation script snippet 'boom' failed (1)",
            "activating the configuration...\nFailed to run activate script\n\
             warning: the following units failed: old.service",
        ] {
            let four = Case {
                exit: Exit::Code(4),
                text,
                before: Some(units(&["old.service"], &[])),
                after: Some(units(&["old.service"], &[])),
                ..fine()
            };
            assert!(matches!(four.judge(), Verdict::Bad { why, .. } if why.contains("activation script")));
        }
        assert!(!Case { exit: Exit::Code(2), ..fine() }.is_good());
    }

    #[test]
    fn temporary_files_that_could_not_be_made_are_a_warning() {
        let Verdict::Good { warnings } = (Case { exit: Exit::Code(3), ..fine() }).judge() else { panic!() };
        assert!(warnings[0].contains("tmpfiles"));
        let text = "activating the configuration...\nFailed to reload daemon: Connection timed out";
        assert!(!Case { exit: Exit::Code(3), text, ..fine() }.is_good());
    }

    #[test]
    fn units_of_users_are_a_warning() {
        let text = "activating the configuration...\nwarning: user activation for alice failed";
        let Verdict::Good { warnings } = (Case { exit: Exit::Code(4), text, ..fine() }).judge() else {
            panic!()
        };
        assert!(warnings[0].contains("alice"));
    }

    #[test]
    fn tolerated_units_may_fail_whether_they_had_failed_before_or_not() {
        for before in [&["wait-online.service"][..], &[]] {
            let case = Case {
                exit: Exit::Code(4),
                text: "activating the configuration...\nwarning: the following units failed: wait-online.service",
                before: Some(units(before, &[])),
                after: Some(units(&["wait-online.service"], &[])),
                tolerated: names(&["wait-online.service"]),
                ..fine()
            };
            assert!(case.is_good());
        }
    }

    #[test]
    fn the_same_code_means_nothing_or_much_depending_on_whether_anything_was_changed() {
        let untouched = || Case { runs: Runs::Old, text: "", ..fine() };
        for code in [1, 2, 11, 101] {
            assert_eq!(Case { exit: Exit::Code(code), ..untouched() }.judge(), Verdict::NotStarted, "{code}");
            assert!(
                matches!(Case { exit: Exit::Code(code), ..fine() }.judge(), Verdict::Bad { .. }),
                "{code}"
            );
        }
        assert_eq!(Case { exit: Exit::Code(100), ..untouched() }.judge(), Verdict::NeedsReboot);
        assert!(matches!(Case { exit: Exit::Code(100), ..fine() }.judge(), Verdict::Bad { .. }));
    }

    #[test]
    fn what_only_a_reboot_can_change_asks_for_one() {
        let text = "dbus-implementation : dbus -> broker\nPre-switch check 'switchInhibitors' failed";
        let case = Case { exit: Exit::Code(1), runs: Runs::Old, text, ..fine() };
        assert_eq!(case.judge(), Verdict::NeedsReboot);
        let other = Case { text: "Pre-switch check 'hostname' failed", ..case };
        assert_eq!(other.judge(), Verdict::NotStarted);
    }

    #[test]
    fn a_killed_program_may_have_changed_anything() {
        let killed = Case { exit: Exit::Killed, runs: Runs::Old, text: "", ..fine() };
        assert!(matches!(killed.judge(), Verdict::Bad { .. }));
    }

    #[test]
    fn four_without_a_name_is_no_success() {
        assert!(!Case { exit: Exit::Code(4), ..fine() }.is_good());
    }
}
