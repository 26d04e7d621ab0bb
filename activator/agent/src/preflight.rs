//! Whether an activation may begin and can work, before anything is touched.

use std::path::Path;

use nixos_agent::{Action, Request};

use crate::{boot_space, lockout, program, systemd};

/// Says why an activation must not begin. `current` is the system that runs.
pub(crate) fn check(request: &Request, current: Option<&str>) -> Result<(), String> {
    let toplevel = request.toplevel.as_str();
    check_complete(toplevel)?;
    check_no_other_switch()?;
    if matches!(request.action, Action::Switch | Action::Boot) {
        boot_space::check(Path::new(toplevel))?;
    }
    // The system that runs has let the client in, so it is not looked at.
    let login = request.login.as_ref().filter(|_| current != Some(toplevel));
    login.map_or(Ok(()), |login| lockout::check(login, current, toplevel))
}

fn check_complete(toplevel: &str) -> Result<(), String> {
    let system = Path::new(toplevel);
    if !system.join("bin/switch-to-configuration").is_file() {
        return Err(if system.join("activate").is_file() && system.join("init").exists() {
            format!(
                "{toplevel} has no bin/switch-to-configuration: its configuration says `system.switch.enable = false`. \
                 Remove that (or set it to `true`), so that the running machine can be switched to it; nothing was \
                 changed."
            )
        } else {
            format!(
                "{toplevel} is not a NixOS system: it has no bin/switch-to-configuration; nothing was changed."
            )
        });
    }
    program::output("nix-store", &["--check-validity", toplevel])
        .map(drop)
        .map_err(|message| format!("The system is not complete in the machine's store: {message}."))
}

fn check_no_other_switch() -> Result<(), String> {
    // The first is the name that nixos-rebuild gives its unit. The second are units of agents: one whose agent was
    // killed may still be at work.
    match systemd::any_unit_is_alive(&["nixos-rebuild-switch-to-configuration*", "nixos-agent-switch-*"]) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err("Another switch-to-configuration is at work on the machine; nothing was changed.".to_owned())
        }
        Err(why) => Err(format!("systemd does not say which units run: {why}; nothing was changed.")),
    }
}
