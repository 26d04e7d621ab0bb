//! Units that fail after a switch that looked good.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::model::Transaction;
use crate::switch::Printed;
use crate::systemd::{self, Units};

impl Transaction<'_> {
    /// Units that the switch has touched and that have failed since. This is the last look before the new system is
    /// kept.
    pub(super) fn units_that_failed_since(&mut self) -> Vec<String> {
        let Some(switched) = self.switched.as_mut() else {
            return vec![];
        };
        let tolerated = &self.request.tolerated_units;
        let touched = switched.printed.touched_units.iter().filter(|unit| !tolerated.contains(unit));
        let Crashes { mut failed, recovered } =
            watch_for_crashes(&touched.map(String::as_str).collect::<Vec<_>>());
        switched.recovered = recovered;
        // After the watch, because systemd may have given a unit up during it. Such a unit has failed and restarts no
        // more.
        match systemd::units() {
            Some(now) => {
                let given_up = failed_since(&switched.printed, &switched.units, &now, tolerated);
                failed.extend(given_up.into_iter().filter(|unit| !failed.contains(unit)).collect::<Vec<_>>());
            }
            None => self
                .warnings
                .push("systemd did not say which units had failed when the system was kept.".to_owned()),
        }
        failed
    }

    /// Warns of units that failed while the system was made the one that boots. It is too late to go back, so it stays.
    pub(super) fn warn_of_late_failures(&mut self) {
        let Some(switched) = &self.switched else { return };
        let now = systemd::units().unwrap_or_default();
        let tolerated = &self.request.tolerated_units;
        let failed = failed_since(&switched.printed, &switched.units, &now, tolerated);
        let touched = switched.printed.touched_units.iter().filter(|unit| !tolerated.contains(unit));
        let touched: Vec<&str> = touched.map(String::as_str).collect();
        // The restarts of a recovered service were before the system was kept.
        let restarted = systemd::services(&touched).into_iter().filter(|(unit, service)| {
            service.restarts > 0 && !failed.contains(unit) && !switched.recovered.contains(unit)
        });
        let restarted: Vec<String> = restarted.map(|(unit, _)| unit).collect();
        for (what, units) in
            [("Units failed", failed), ("Services crashed and were started again", restarted)]
        {
            if !units.is_empty() {
                self.warnings.push(format!("{what} after the system was kept: {}.", units.join(", ")));
            }
        }
    }
}

/// Units that a good switch has touched and that have failed between `then`, right after the switch, and `now`.
fn failed_since(printed: &Printed, then: &Units, now: &Units, tolerated: &[String]) -> Vec<String> {
    let is_new = |unit: &&String| {
        printed.touched_units.contains(*unit) && !then.failed.contains(unit) && !tolerated.contains(unit)
    };
    now.failed.iter().filter(is_new).cloned().collect()
}

/// Services that systemd has restarted because they crashed.
struct Crashes {
    /// Services that do not stop crashing.
    failed: Vec<String>,
    /// Services that have run well since.
    recovered: Vec<String>,
}

/// Looks for services that systemd starts again and again.
///
/// A service that was started just now is given a moment to crash. A service that has crashed is watched until it has
/// run for some time.
fn watch_for_crashes(units: &[&str]) -> Crashes {
    const MOMENT: Duration = Duration::from_millis(1500);
    const STABLE: Duration = Duration::from_secs(3);
    const PATIENCE: Duration = Duration::from_secs(15);
    let start = Instant::now();
    let restarts = |units: &[&str]| -> BTreeMap<String, u32> {
        systemd::services(units).into_iter().map(|(unit, service)| (unit, service.restarts)).collect()
    };
    let services = systemd::services(units);
    let youngest =
        services.values().filter(|service| service.is_restarted).map(|service| service.active_since).max();
    let rest = youngest.and_then(|since| (since + MOMENT).checked_sub(systemd::monotonic()));
    if let Some(rest) = rest {
        std::thread::sleep(rest);
    }
    let mut crashed = restarts(units);
    crashed.retain(|_, restarts| *restarts > 0);
    let mut last_change = Instant::now();
    while !crashed.is_empty() && last_change.elapsed() < STABLE {
        if start.elapsed() > PATIENCE {
            return Crashes { failed: crashed.into_keys().collect(), recovered: vec![] };
        }
        std::thread::sleep(Duration::from_millis(300));
        let names: Vec<&str> = crashed.keys().map(String::as_str).collect();
        let now = restarts(&names);
        if now != crashed {
            (crashed, last_change) = (now, Instant::now());
        }
    }
    Crashes { failed: vec![], recovered: crashed.into_keys().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_touched_units_that_fail_later_count() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let failed = |units: &[&str]| Units { failed: names(units), active: vec![] };
        let printed = Printed::of("starting the following units: app.service");
        let (then, now) = (failed(&["old.service"]), failed(&["old.service", "app.service", "cron.service"]));
        assert_eq!(failed_since(&printed, &then, &now, &[]), ["app.service"]);
        assert!(failed_since(&printed, &then, &now, &names(&["app.service"])).is_empty());
    }
}
