//! Files that a power cut leaves whole.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::{AgentError, io_error};

/// Replaces a file as a whole: a power cut leaves the old file or the new one, never a part.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), AgentError> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(io_error(path.display()))
}
