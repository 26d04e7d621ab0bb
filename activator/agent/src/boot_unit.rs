//! Units of ours that run at every boot, whatever system is booted.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use crate::AgentError;
use crate::files::{failed, replace};

/// Where systemd itself keeps what `systemctl set-property` changes: on disk, and no system of NixOS touches it.
const CONTROL: &str = "/etc/systemd/system.control";

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
pub(crate) fn is_possible() -> Result<(), &'static str> {
    const MEMORY_ONLY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    let in_memory =
        |stat: rustix::fs::StatFs| MEMORY_ONLY.iter().any(|kind| u64::try_from(stat.f_type) == Ok(*kind));
    if statfs("/etc").is_ok_and(in_memory) {
        return Err("an /etc that survives a reboot, and this one is in memory");
    }
    if statvfs("/etc").is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Err("an /etc that can be written, and this one is read-only");
    }
    Ok(())
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
        if std::fs::read(self.agent).ok().as_ref() != Some(&program) {
            replace(Path::new(self.agent), &program, 0o700)?;
        }
        if std::fs::read_to_string(&file).is_ok_and(|text| text == self.text)
            && self.wanted().all(|wanted| wanted.exists())
        {
            return Ok(());
        }
        std::fs::create_dir_all(CONTROL).map_err(failed(CONTROL))?;
        replace(&file, self.text.as_bytes(), 0o644)?;
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

    /// Takes it away.
    pub(crate) fn uninstall(&self) {
        for file in self.wanted().chain([self.file(), self.agent.into()]) {
            let _ = std::fs::remove_file(file);
        }
        // Where nobody else wants anything in them, nothing of these stays either.
        for wants in self.wanted().filter_map(|wanted| wanted.parent().map(Path::to_owned)) {
            let _ = std::fs::remove_dir(wants);
        }
    }
}
