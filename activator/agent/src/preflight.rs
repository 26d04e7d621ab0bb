//! Before anything is touched: whether it may be, and whether it can work.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nixos_agent::{Action, Request};
use rustix::fs::{FlockOperation, flock};

use crate::{host, lockout, room};

/// Names the activation that holds it. Only root can open it: any user who can open a file can lock it, and so could block every
/// deployment.
pub(crate) const LOCK: &str = "/run/nixos-agent/lock";

/// One activation at a time. The kernel gives the lock back whatever becomes of us.
pub(crate) fn lock(holder: &str) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("The lock {LOCK} cannot be taken: {error}.");
    let directory = Path::new(LOCK).parent().unwrap_or(Path::new("/run"));
    DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(failed)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(LOCK).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut other = String::new();
        let _ = file.read_to_string(&mut other);
        return Err(format!(
            "Another activation ({}) is under way on the machine; nothing was changed.",
            other.trim()
        ));
    }
    let _ = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
    Ok(file)
}

/// What must be true before anything is touched.
pub(crate) fn look(request: &Request, current: Option<&str>) -> Result<(), String> {
    let toplevel = request.toplevel.as_str();
    is_whole(toplevel)?;
    nobody_else_switches()?;
    if matches!(request.action, Action::Switch | Action::Boot) {
        room::for_boot(Path::new(toplevel))?;
    }
    // What runs already has let us in.
    let login = request.login.as_ref().filter(|_| current != Some(toplevel));
    login.map_or(Ok(()), |login| lockout::look(login, current, toplevel))
}

fn is_whole(toplevel: &str) -> Result<(), String> {
    let system = Path::new(toplevel);
    if !system.join("bin/switch-to-configuration").is_file() {
        return Err(if system.join("activate").is_file() && system.join("init").exists() {
            format!(
                "{toplevel} has no bin/switch-to-configuration: its configuration says `system.switch.enable = false`. Remove \
                 that (or set it to `true`), so that the running machine can be switched to it; nothing was changed."
            )
        } else {
            format!(
                "{toplevel} is not a NixOS system: it has no bin/switch-to-configuration; nothing was changed."
            )
        });
    }
    host::output("nix-store", &["--check-validity", toplevel])
        .map(drop)
        .map_err(|message| format!("The system is not complete in the machine's store: {message}."))
}

fn nobody_else_switches() -> Result<(), String> {
    // The name nixos-rebuild gives its own unit, and the units of an agent that was killed: both may still be at work.
    match host::any_unit_is_alive(&["nixos-rebuild-switch-to-configuration*", "nixos-agent-switch-*"]) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err("Another switch-to-configuration is at work on the machine; nothing was changed.".to_owned())
        }
        Err(why) => Err(format!("systemd does not say which units run: {why}; nothing was changed.")),
    }
}
