//! Making the units that use secrets see their new contents, or the old ones again.

use std::collections::BTreeSet;

use nixos_agent::FailedUnit;

use super::model::{PUBLISHED, RESTORED, SecretChange};
use crate::files::replace;
use crate::{journal, program, systemd};

/// The file with the names of the units that were restarted or reloaded.
const REFRESHED: &str = "refreshed";

/// What makes a unit see a new content.
#[derive(Clone, Copy)]
enum Refresh {
    Restart,
    Reload,
}

impl Refresh {
    /// The verb of `systemctl`, which does nothing where the unit does not run.
    fn verb(self) -> &'static str {
        match self {
            Self::Restart => "try-restart",
            Self::Reload => "try-reload-or-restart",
        }
    }
}

impl<'a> SecretChange<'a> {
    /// Restarts and reloads the units that use changed secrets, unless they have been started since. Returns units that
    /// fail.
    pub(crate) fn refresh_units(&self) -> Vec<FailedUnit> {
        let Some(published) = self.moment(PUBLISHED) else { return vec![] };
        let due: Vec<_> = self
            .units()
            .into_iter()
            .filter(|(_, unit)| systemd::active_since(unit).is_some_and(|since| since < published))
            .collect();
        // Written down before it happens, so that it can be undone even where the agent is killed.
        let names: Vec<&str> = due.iter().map(|(_, unit)| unit.as_str()).collect();
        let _ = replace(&self.directory().join(REFRESHED), names.join("\n").as_bytes(), 0o600);
        if due.is_empty() {
            return vec![];
        }
        let before = systemd::units().unwrap_or_default().failed;
        let refused = due
            .into_iter()
            .filter(|(refresh, unit)| program::output("systemctl", &[refresh.verb(), unit]).is_err());
        let mut failed: BTreeSet<String> = refused.map(|(_, unit)| unit.clone()).collect();
        // Units that require a restarted unit are restarted with it, and may fail too.
        failed.extend(
            systemd::units().unwrap_or_default().failed.into_iter().filter(|unit| !before.contains(unit)),
        );
        failed.into_iter().map(|name| FailedUnit { journal: journal::last_lines(&name), name }).collect()
    }

    /// After [`SecretChange::restore`]: makes the units that may have seen the new contents see the old ones.
    pub(crate) fn refresh_units_again(&self) {
        let (Some(published), Some(restored)) = (self.moment(PUBLISHED), self.moment(RESTORED)) else {
            return;
        };
        let refreshed = std::fs::read_to_string(self.directory().join(REFRESHED)).unwrap_or_default();
        for (refresh, unit) in self.units() {
            let touched = refreshed.lines().any(|line| line == unit);
            let verb = match systemd::active_since(unit) {
                Some(since) if since < restored && (touched || since >= published) => refresh.verb(),
                // The unit ran before, and failed with the new content.
                None if touched => "restart",
                _ => continue,
            };
            let _ = program::output("systemctl", &["reset-failed", unit]);
            let _ = program::output("systemctl", &[verb, unit]);
        }
    }

    /// The units that use changed secrets, and what makes each see a new content.
    fn units(&self) -> Vec<(Refresh, &'a String)> {
        let changed = || self.entries.iter().filter(|entry| entry.content.is_some());
        let restart: BTreeSet<&String> = changed().flat_map(|entry| &entry.file.restart).collect();
        let reload: BTreeSet<&String> =
            changed().flat_map(|entry| &entry.file.reload).filter(|unit| !restart.contains(unit)).collect();
        let restart = restart.into_iter().map(|unit| (Refresh::Restart, unit));
        restart.chain(reload.into_iter().map(|unit| (Refresh::Reload, unit))).collect()
    }
}
