//! Reads Nix' `internal-json` log: one `@nix {…}` a line.

use std::collections::VecDeque;

use serde::Deserialize;

/// How many lines of build output are remembered.
const TAIL: usize = 60;

/// Error messages and the last build output of one Nix command.
#[derive(Debug, Default)]
pub struct Log {
    errors: Vec<String>,
    /// What programs that Nix runs (`ssh`, a remote Nix) wrote to standard error themselves.
    foreign: VecDeque<String>,
    other: VecDeque<String>,
}

/// The few kinds of entries that matter here; the rest is activity bookkeeping.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Entry {
    Msg {
        level: u8,
        msg: String,
    },
    Result {
        #[serde(rename = "type")]
        kind: u32,
        #[serde(default)]
        fields: Vec<serde_json::Value>,
    },
    #[serde(other)]
    Other,
}

/// `resBuildLogLine` in Nix' `logging.hh`.
const BUILD_LOG_LINE: u32 = 101;
/// `lvlError`: what stopped the command.
const ERROR: u8 = 0;
/// `lvlWarn` and `lvlNotice` are worth remembering, chattier levels are not.
const NOTICE: u8 = 2;

impl Log {
    /// Takes one line of standard error.
    pub(super) fn take(&mut self, line: &str, on_line: &(dyn Fn(&str) + Sync)) {
        let Some(entry) = line.strip_prefix("@nix ") else {
            if !line.trim().is_empty() {
                remember(&mut self.foreign, without_colours(line));
            }
            return;
        };
        match serde_json::from_str(entry) {
            Ok(Entry::Msg { level: ERROR, msg }) => self.errors.push(without_colours(&msg)),
            Ok(Entry::Msg { level, msg }) if level <= NOTICE => {
                remember(&mut self.other, without_colours(&msg));
            }
            Ok(Entry::Result { kind: BUILD_LOG_LINE, fields }) => {
                if let Some(line) = fields.first().and_then(serde_json::Value::as_str) {
                    let line = without_colours(line);
                    on_line(&line);
                    remember(&mut self.other, line);
                }
            }
            _ => {}
        }
    }

    /// The errors, after what other programs said; where there are none the last lines that were printed.
    pub fn error(&self) -> String {
        if self.errors.is_empty() && self.foreign.is_empty() {
            return self.other.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        }
        self.foreign.iter().chain(&self.errors).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// The last lines that builds printed and warnings.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.other.iter().map(String::as_str)
    }
}

/// Adds a line and forgets the oldest one where there are too many.
fn remember(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == TAIL {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// Removes ANSI escape sequences, which Nix puts into messages even here.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\u{1b}' {
            plain.push(c);
            continue;
        }
        if characters.next() == Some('[') {
            for c in characters.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_build_output_are_told_apart() {
        let mut log = Log::default();
        let seen = std::sync::Mutex::new(Vec::new());
        let on_line = |line: &str| seen.lock().unwrap().push(line.to_owned());
        for line in [
            r#"@nix {"action":"start","id":1,"level":3,"parent":0,"text":"building","type":105}"#,
            r#"@nix {"action":"result","fields":["compiling \u001b[32mx\u001b[0m"],"id":1,"type":101}"#,
            r#"@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m builder failed"}"#,
            "plain text",
            "@nix not json",
        ] {
            log.take(line, &on_line);
        }
        assert_eq!(log.error(), "plain text\nerror: builder failed");
        assert_eq!(*seen.lock().unwrap(), ["compiling x"]);
        assert_eq!(log.tail().collect::<Vec<_>>(), ["compiling x"]);
    }
}
