//! The timer of systemd that ends an activation if the activation does not end by itself.

use std::time::Duration;

use crate::activation::Activation;
use crate::program;
use crate::systemd::{SURVIVES, TIMER_SURVIVES};

/// Starts the timer: after `limit` it runs `rescue` for this activation.
pub(crate) fn start(activation: &Activation, limit: Duration) -> Result<(), String> {
    let own = program::own().map_err(|error| error.to_string())?;
    let own = own.to_str().ok_or("the agent's path is not text")?;
    let unit = format!("--unit=nixos-agent-rescue-{}", activation.id());
    let after = format!("--on-active={}", limit.as_secs());
    let fixed = ["--quiet", "--collect", "--no-ask-password", "--timer-property=AccuracySec=1s"];
    let timer = [unit.as_str(), &after];
    let rescue = [own, "rescue", activation.id().as_str()];
    program::output("systemd-run", &[&fixed[..], &timer, &TIMER_SURVIVES, &SURVIVES, &rescue].concat())
        .map(drop)
}

/// Stops the timers of all activations: the agent that holds the lock answers for the machine.
pub(crate) fn stop_all() {
    let _ = program::output("systemctl", &["stop", "nixos-agent-rescue-*.timer"]);
}

/// Stops the units of an activation that has not ended in time.
pub(crate) fn stop_units_of(activation: &Activation) {
    let id = activation.id();
    let units = [format!("nixos-agent-{id}.service"), format!("nixos-agent-switch-{id}-*")];
    let _ = program::output("systemctl", &["stop", &units[0], &units[1]]);
}
