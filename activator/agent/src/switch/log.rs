//! The files that steps print into.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::activation::Activation;

/// The file that a step prints into.
pub(crate) fn path(activation: &Activation, step: &str) -> PathBuf {
    activation.on_disk(&format!("{step}.log"))
}

/// The last lines that a step has printed.
pub(crate) fn tail(activation: &Activation, step: &str) -> Vec<String> {
    const LINES: usize = 30;
    let text = std::fs::read(path(activation, step)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect()
}

/// How many bytes of a text are whole lines.
pub(super) fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Reads whole lines from an offset on, at the end of the step also what is left, and returns the next offset.
pub(super) fn new_lines(log: &Path, offset: u64, at_end: bool, on_line: &mut dyn FnMut(&str)) -> u64 {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return offset;
    }
    let end = if at_end { bytes.len() } else { whole_lines(&bytes) };
    let text = bytes.get(..end).unwrap_or_default();
    String::from_utf8_lossy(text).lines().for_each(on_line);
    offset + u64::try_from(end).unwrap_or(0)
}
