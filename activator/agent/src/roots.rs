//! Links that keep store paths from the garbage collector.

use std::path::Path;

use nixos_agent::{PUSHED, ROOTS};

use crate::error::{AgentError, io_error};

/// Keeps a store path from the garbage collector, under a name. The path that had the name before is no longer kept.
pub(crate) fn keep(name: &str, path: &str) -> Result<(), AgentError> {
    let link = Path::new(ROOTS).join(name);
    let new = Path::new(ROOTS).join(format!(".{name}.new"));
    let make = || {
        std::fs::create_dir_all(ROOTS)?;
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(path, &new)?;
        std::fs::rename(&new, &link)
    };
    make().map_err(io_error(link.display()))
}

/// Removes the link that keeps the system that was pushed: it is kept under another name now, or another system is
/// deployed.
pub(crate) fn remove_pushed() {
    let _ = std::fs::remove_file(PUSHED);
}
