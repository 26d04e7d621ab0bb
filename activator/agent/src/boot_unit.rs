//! Units of ours that run at every boot, whatever system is booted.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nixos_agent::ROOTS;

use crate::files::{failed, replace};
use crate::{AgentError, host, mounts};

/// Where systemd itself keeps what `systemctl set-property` changes: on disk, and no system of NixOS touches it.
const CONTROL: &str = "/etc/systemd/system.control";

/// Where the agents of units and what they work with are.
const OWN: &str = "/var/lib/nixos-agent";

/// A unit with an agent of its own: others come and go with versions of the client.
pub(crate) struct BootUnit {
    /// Its name.
    pub(crate) name: &'static str,
    /// The targets that want it.
    pub(crate) wanted_by: &'static [&'static str],
    /// The agent that it starts.
    pub(crate) agent: &'static str,
    /// Its text.
    pub(crate) text: &'static str,
}

/// Why this machine cannot have any.
pub(crate) fn is_possible() -> Result<(), String> {
    mounts::is_lasting(Path::new("/etc")).and_then(|()| mounts::is_lasting(Path::new(OWN)))
}

impl BootUnit {
    fn file(&self) -> PathBuf {
        Path::new(CONTROL).join(self.name)
    }

    fn wanted(&self) -> impl Iterator<Item = PathBuf> {
        self.wanted_by.iter().map(|target| Path::new(CONTROL).join(format!("{target}.wants")).join(self.name))
    }

    /// Makes sure that it runs at the next boot. systemd reads its units anew by then.
    pub(crate) fn install(&self) -> Result<(), AgentError> {
        let file = self.file();
        let own = std::env::current_exe().map_err(failed("own path"))?;
        let program = std::fs::read(&own).map_err(failed(&own.display().to_string()))?;
        let agent = if mounts::lets_run(Path::new(self.agent)) {
            if std::fs::read(self.agent).ok().as_ref() != Some(&program) {
                replace(Path::new(self.agent), &program, 0o700)?;
            }
            self.agent.to_owned()
        } else {
            self.in_store(&own)?
        };
        let text = self.text.replace(self.agent, &agent);
        if std::fs::read_to_string(&file).is_ok_and(|there| there == text)
            && self.wanted().all(|wanted| wanted.exists())
        {
            return Ok(());
        }
        std::fs::create_dir_all(CONTROL).map_err(failed(CONTROL))?;
        replace(&file, text.as_bytes(), 0o644)?;
        let _ = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644));
        for wanted in self.wanted() {
            let wants = wanted.parent().unwrap_or(Path::new(CONTROL));
            let link = || {
                std::fs::create_dir_all(wants)?;
                let _ = std::fs::remove_file(&wanted);
                std::os::unix::fs::symlink(&file, &wanted)?;
                // It has to be there after a power cut.
                File::open(wants)?.sync_all()?;
                File::open(CONTROL)?.sync_all()
            };
            // Somebody who takes another unit away may have found the directory empty.
            link().or_else(|_| link()).map_err(failed(&wanted.display().to_string()))?;
        }
        Ok(())
    }

    /// The unit's agent in the Nix store, where no program can be run at its own place; and the link that keeps it from the garbage collector,
    /// by which the unit starts it.
    fn in_store(&self, own: &Path) -> Result<String, AgentError> {
        let stored = host::output("nix-store", &["--add", &own.display().to_string()]);
        let stored = stored.map_err(|why| AgentError::Start(format!("its program cannot be kept: {why}")))?;
        host::keep(self.name, stored.trim())?;
        Ok(format!("{ROOTS}/{}", self.name))
    }

    /// Takes it away.
    pub(crate) fn uninstall(&self) {
        let stored = Path::new(ROOTS).join(self.name);
        for file in self.wanted().chain([self.file(), self.agent.into(), stored]) {
            let _ = std::fs::remove_file(file);
        }
        // Where nobody else wants anything in them, nothing of these stays either.
        for wants in self.wanted().filter_map(|wanted| wanted.parent().map(Path::to_owned)) {
            let _ = std::fs::remove_dir(wants);
        }
    }
}
