//! Reads Nix' `internal-json` log: one `@nix {…}` a line.

use std::collections::VecDeque;

use serde::Deserialize;

/// How many lines of build output are remembered.
const TAIL: usize = 60;

/// How many lines that an evaluation printed are shown beside its error.
const SHOWN: usize = 20;

/// How many warnings of one evaluation are remembered.
const WARNINGS: usize = 1000;

/// What an evaluation printed stands under this, behind its error.
const PRINTED: &str = "\n\nPrinted before that:\n";

/// Error messages and the last build output of one Nix command.
#[derive(Debug, Default)]
pub struct Log {
    errors: Vec<String>,
    /// What programs that Nix runs (`ssh`, a remote Nix) wrote to standard error themselves, and Nix where it cannot
    /// go on.
    foreign: VecDeque<String>,
    other: VecDeque<String>,
    /// The last lines of `builtins.trace` and `builtins.warn`.
    printed: VecDeque<String>,
    notes: Vec<Note>,
    warnings: usize,
}

/// What an evaluation prints that means something here, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A warning: of `builtins.warn`, or of nixpkgs' `lib.warn` before there was that.
    Warning(String),
    /// Our own, from `nix/`: what comes after `nixos-`.
    Mark(String),
}

/// The few kinds of entries that matter here; the rest is activity bookkeeping.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Entry {
    Msg {
        level: u8,
        msg: String,
        /// The same as it was given, where `msg` begins with what kind of message it is.
        raw_msg: Option<String>,
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
/// `lvlWarn`: of Nix itself, or of `builtins.warn`.
const WARN: u8 = 1;
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
            Ok(Entry::Msg { level, msg, raw_msg }) if level <= NOTICE => {
                let msg = without_colours(&msg);
                if let Some(printed) = Evaluated::new(&msg, level, raw_msg.as_deref()) {
                    self.print(printed, msg);
                } else if level == ERROR {
                    self.errors.push(msg);
                } else {
                    remember(&mut self.other, msg);
                }
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

    fn print(&mut self, printed: Evaluated, line: String) {
        match printed {
            Evaluated::Note(Note::Warning(_)) if self.warnings == WARNINGS => return,
            Evaluated::Note(note) => {
                let is_mark = matches!(note, Note::Mark(_));
                self.notes.push(note);
                if is_mark {
                    return;
                }
                self.warnings += 1;
            }
            Evaluated::Trace => {}
        }
        tracing::debug!("{line}");
        remember(&mut self.printed, line);
    }

    /// The errors, after what other programs said; where there are none the last lines that were printed. What the
    /// evaluation printed itself comes last: see [`parts_of`].
    pub fn error(&self) -> String {
        let lines =
            |lines: &VecDeque<String>| lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let mut text = if self.errors.is_empty() && self.foreign.is_empty() {
            lines(&self.other)
        } else {
            self.foreign.iter().chain(&self.errors).map(String::as_str).collect::<Vec<_>>().join("\n")
        };
        if !self.printed.is_empty() {
            let first = self.printed.len().saturating_sub(SHOWN);
            text.push_str(PRINTED);
            text.push_str(
                &self.printed.iter().skip(first).map(String::as_str).collect::<Vec<_>>().join("\n"),
            );
        }
        text
    }

    /// Warnings of the evaluation, and what our own Nix code says on the way.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The last lines that builds printed and warnings.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.other.iter().map(String::as_str)
    }
}

/// An error message, and what the evaluation had printed before: with the words that say so, or empty.
pub fn parts_of(message: &str) -> (&str, &str) {
    message.split_at(message.find(PRINTED).unwrap_or(message.len()))
}

/// What comes from `builtins.trace` or `builtins.warn`. Nix gives traces the level of errors.
enum Evaluated {
    Note(Note),
    Trace,
}

impl Evaluated {
    fn new(message: &str, level: u8, raw: Option<&str>) -> Option<Self> {
        let warned = |text: &str| Self::Note(Note::Warning(text.trim().to_owned()));
        if level == WARN
            && let Some(text) = message.strip_prefix("evaluation warning:")
        {
            // Nix indents the lines of a message.
            return Some(warned(raw.map(without_colours).as_deref().unwrap_or(text)));
        }
        let traced = message.strip_prefix("trace:").filter(|_| level == ERROR)?.trim_start();
        if let Some(mark) = traced.strip_prefix("nixos-") {
            return Some(Self::Note(Note::Mark(mark.to_owned())));
        }
        // nixpkgs' older `lib.warn`, and a newer one where Nix has none.
        let mut prefixes = ["warning:", "evaluation warning:"].into_iter();
        Some(prefixes.find_map(|prefix| traced.strip_prefix(prefix)).map_or(Self::Trace, warned))
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

    #[test]
    fn what_an_evaluation_prints_is_not_its_error() {
        let mut log = Log::default();
        for line in [
            r#"@nix {"action":"msg","level":0,"msg":"trace: looking at web"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"trace: \u001b[1;31mwarning: old lib.warn\u001b[0m"}"#,
            r#"@nix {"action":"msg","level":1,"msg":"\u001b[35;1mevaluation warning:\u001b[0m two\n                    lines","raw_msg":"two\nlines"}"#,
            r#"@nix {"action":"msg","level":1,"msg":"warning: Git tree is dirty"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"trace: nixos-done:web:"}"#,
            "error: stack overflow (possible infinite recursion)",
        ] {
            log.take(line, &|_| {});
        }
        let warning = |text: &str| Note::Warning(text.to_owned());
        let expected = [warning("old lib.warn"), warning("two\nlines"), Note::Mark("done:web:".to_owned())];
        assert_eq!(log.notes(), expected);
        let message = log.error();
        let (error, printed) = parts_of(&message);
        assert_eq!(error, "error: stack overflow (possible infinite recursion)");
        assert!(
            printed.contains("trace: looking at web\ntrace: warning: old lib.warn\nevaluation"),
            "{printed}"
        );
        assert_eq!(parts_of("error: x"), ("error: x", ""));
    }
}
