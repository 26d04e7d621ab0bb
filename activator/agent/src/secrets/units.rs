//! Units that use secrets are to see their new contents, or the old ones again.

use std::collections::BTreeSet;

use nixos_agent::FailedUnit;

use super::{PUBLISHED, REFRESHED, RESTORED, Secrets};
use crate::files::replace;
use crate::host;

/// What makes a unit see a new content.
#[derive(Clone, Copy)]
enum Refresh {
    Restart,
    Reload,
}

impl Refresh {
    /// The verb of `systemctl` that does so where the unit runs.
    fn tried(self) -> &'static str {
        match self {
            Self::Restart => "try-restart",
            Self::Reload => "try-reload-or-restart",
        }
    }
}

impl<'a> Secrets<'a> {
    /// Restarts and reloads the units that use what has changed, unless they have been started since. Returns those that fail.
    pub(crate) fn refresh_units(&self) -> Vec<FailedUnit> {
        let Some(published) = self.moment(PUBLISHED) else { return vec![] };
        let due: Vec<_> = self
            .users()
            .into_iter()
            .filter(|(_, unit)| host::active_since(unit).is_some_and(|since| since < published))
            .collect();
        // Known before it happens, so that it can be undone whatever becomes of us.
        let names: Vec<&str> = due.iter().map(|(_, unit)| unit.as_str()).collect();
        let _ = replace(&self.aside().join(REFRESHED), names.join("\n").as_bytes(), 0o600);
        if due.is_empty() {
            return vec![];
        }
        let before = host::units().unwrap_or_default().failed;
        let refused =
            due.into_iter().filter(|(verb, unit)| host::output("systemctl", &[verb.tried(), unit]).is_err());
        let mut failed: BTreeSet<String> = refused.map(|(_, unit)| unit.clone()).collect();
        // What requires a unit is restarted with it.
        failed.extend(
            host::units().unwrap_or_default().failed.into_iter().filter(|unit| !before.contains(unit)),
        );
        failed.into_iter().map(|name| FailedUnit { journal: host::journal(&name), name }).collect()
    }

    /// After `restore`: units that may have seen the new contents get to see the old ones.
    pub(crate) fn refresh_units_again(&self) {
        let (Some(published), Some(restored)) = (self.moment(PUBLISHED), self.moment(RESTORED)) else {
            return;
        };
        let refreshed = std::fs::read_to_string(self.aside().join(REFRESHED)).unwrap_or_default();
        for (verb, unit) in self.users() {
            let touched = refreshed.lines().any(|line| line == unit);
            let verb = match host::active_since(unit) {
                Some(since) if since < restored && (touched || since >= published) => verb.tried(),
                // It ran before, and could not live with what we gave it.
                None if touched => "restart",
                _ => continue,
            };
            let _ = host::output("systemctl", &["reset-failed", unit]);
            let _ = host::output("systemctl", &[verb, unit]);
        }
    }

    /// Who uses what has changed, and what it takes to make them see it.
    fn users(&self) -> Vec<(Refresh, &'a String)> {
        let changed = || self.entries.iter().filter(|entry| entry.content.is_some());
        let restart: BTreeSet<&String> = changed().flat_map(|entry| &entry.file.restart).collect();
        let reload: BTreeSet<&String> =
            changed().flat_map(|entry| &entry.file.reload).filter(|unit| !restart.contains(unit)).collect();
        let restart = restart.into_iter().map(|unit| (Refresh::Restart, unit));
        restart.chain(reload.into_iter().map(|unit| (Refresh::Reload, unit))).collect()
    }
}
