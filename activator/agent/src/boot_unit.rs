//! Units of the agent that run at every boot, whatever system is booted.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nixos_agent::ROOTS;

use crate::error::{AgentError, io_error};
use crate::files::replace;
use crate::{mounts, program, roots};

/// The directory where systemd keeps what `systemctl set-property` changes: it is on disk, and no NixOS system touches
/// it.
const CONTROL: &str = "/etc/systemd/system.control";

/// The directory of the programs of these units, and of the files that they work with.
const OWN: &str = "/var/lib/nixos-agent";

/// A unit and its own copy of the agent's program, because the client replaces the agent with other versions.
pub(crate) struct BootUnit {
    /// The name of the unit.
    pub(crate) name: &'static str,
    /// The targets that start it.
    pub(crate) wanted_by: &'static [&'static str],
    /// The path of the unit's copy of the agent.
    pub(crate) agent: &'static str,
    /// The text of the unit file.
    pub(crate) text: &'static str,
}

/// Checks that this machine can have such units. The error continues a sentence that ends with "needs".
pub(crate) fn check_possible() -> Result<(), String> {
    mounts::check_lasting(Path::new("/etc")).and_then(|()| mounts::check_lasting(Path::new(OWN)))
}

impl BootUnit {
    fn file(&self) -> PathBuf {
        Path::new(CONTROL).join(self.name)
    }

    /// The links by which targets start the unit.
    fn links(&self) -> impl Iterator<Item = PathBuf> {
        self.wanted_by.iter().map(|target| Path::new(CONTROL).join(format!("{target}.wants")).join(self.name))
    }

    /// Makes sure that the unit runs at the next boot. systemd is not told: it reads all units at that boot anyway.
    pub(crate) fn install(&self) -> Result<(), AgentError> {
        let file = self.file();
        let own = std::env::current_exe().map_err(io_error("own path"))?;
        let program = std::fs::read(&own).map_err(io_error(own.display()))?;
        let agent = if mounts::lets_run(Path::new(self.agent)) {
            if std::fs::read(self.agent).ok().as_ref() != Some(&program) {
                replace(Path::new(self.agent), &program, 0o700)?;
            }
            self.agent.to_owned()
        } else {
            self.copy_to_store(&own)?
        };
        let text = self.text.replace(self.agent, &agent);
        if std::fs::read_to_string(&file).is_ok_and(|there| there == text)
            && self.links().all(|link| link.exists())
        {
            return Ok(());
        }
        std::fs::create_dir_all(CONTROL).map_err(io_error(CONTROL))?;
        replace(&file, text.as_bytes(), 0o644)?;
        let _ = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644));
        for link in self.links() {
            let directory = link.parent().unwrap_or(Path::new(CONTROL));
            let make = || {
                std::fs::create_dir_all(directory)?;
                let _ = std::fs::remove_file(&link);
                std::os::unix::fs::symlink(&file, &link)?;
                // The link has to survive a power cut.
                File::open(directory)?.sync_all()?;
                File::open(CONTROL)?.sync_all()
            };
            // Another agent that uninstalls a unit may remove the directory while it is empty, so a second try.
            make().or_else(|_| make()).map_err(io_error(link.display()))?;
        }
        Ok(())
    }

    /// Copies the agent's program to the Nix store, for a machine where no program can be run in the agent's directory.
    ///
    /// Returns the link that keeps the copy from the garbage collector. The unit starts the program by this link.
    fn copy_to_store(&self, own: &Path) -> Result<String, AgentError> {
        let stored = program::output("nix-store", &["--add", &own.display().to_string()]);
        let stored = stored.map_err(|why| AgentError::Start(format!("its program cannot be kept: {why}")))?;
        roots::keep(self.name, stored.trim())?;
        Ok(format!("{ROOTS}/{}", self.name))
    }

    /// Removes the unit and its copy of the agent.
    pub(crate) fn uninstall(&self) {
        let stored = Path::new(ROOTS).join(self.name);
        for file in self.links().chain([self.file(), self.agent.into(), stored]) {
            let _ = std::fs::remove_file(file);
        }
        // Fails, as it should, where another unit still has a link in the directory.
        for directory in self.links().filter_map(|link| link.parent().map(Path::to_owned)) {
            let _ = std::fs::remove_dir(directory);
        }
    }
}
