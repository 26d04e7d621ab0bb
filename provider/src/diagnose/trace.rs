//! Reads what Nix says when something does not evaluate.

use nixos_activator::nix::{advice, parts_of};

use super::text::{beginning, shortened};

/// An error of Nix, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace<'a> {
    /// The error itself, and where it is.
    cause: &'a str,
    /// The way there.
    frames: &'a str,
    /// The last step of it.
    innermost: &'a str,
    /// Whether that comes first, as it does before Nix 2.13.
    is_innermost_first: bool,
    /// What `builtins.trace` and `builtins.warn` had printed by then, with the words that say so.
    printed: &'a str,
}

impl<'a> Trace<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (text, printed) = parts_of(text);
        let text = text.trim_end();
        let is_error = |line: &str| line == "error:" || line.starts_with("error: ");
        let (before, cause) = text.split_at(lines_that(text, is_error).last().unwrap_or_default());
        let is_frame = |line: &str| line.starts_with("… ");
        if !before.trim().trim_start_matches("error:").is_empty() {
            let innermost = lines_that(before, is_frame).last().and_then(|at| before.get(at..));
            let innermost = innermost.unwrap_or_default();
            return Self { cause, frames: before, innermost, is_innermost_first: false, printed };
        }
        let mut steps = lines_that(cause, is_frame);
        let Some((cause, frames)) = steps.next().and_then(|at| cause.split_at_checked(at)) else {
            return Self { cause, frames: "", innermost: "", is_innermost_first: false, printed };
        };
        let end = steps.next().map_or(frames.len(), |at| at - cause.len());
        let innermost = frames.get(..end).unwrap_or(frames);
        Self { cause: cause.trim_end(), frames, innermost, is_innermost_first: true, printed }
    }

    /// What tells it from other mistakes: where it is, or where it was noticed. Of a recursion nobody knows where it
    /// began.
    pub(super) fn identity(&self) -> [&'a str; 2] {
        let is_place = |line: &str| line.starts_with("at ") && line.ends_with(':');
        if self.cause.contains("infinite recursion") {
            [self.cause, self.frames]
        } else if lines_that(self.cause, is_place).next().is_some() {
            [self.cause, ""]
        } else {
            [self.cause, self.innermost]
        }
    }

    /// The error on top, where people look first, and what to do where Nix does not say that.
    pub(super) fn explained(&self) -> String {
        let cause = self.cause.trim_end();
        let mut text = match (self.frames, self.is_innermost_first) {
            ("", _) => shortened(cause),
            (frames, false) => format!("{cause}\n\nThe way there, innermost last:\n{}", shortened(frames)),
            (frames, true) => format!("{cause}\n\nThe way there, innermost first:\n{}", beginning(frames)),
        };
        if self.cause.contains("stack overflow") {
            text.push_str(
                "\n\nSomething contains itself, or asks for itself: a machine that is printed, an option \
                 that needs its own value. Nix does not say where. The machine named above, and what was \
                 changed last, are where to look.",
            );
        }
        if [self.cause, self.frames].iter().any(|text| text.contains("allow-import-from-derivation")) {
            text.push_str(
                "\n\nThe evaluation imports something that has to be built first. Set \
                 `import_from_derivation = true` to let a plan build it, or commit what is built to the \
                 source.",
            );
        }
        if let Some(advice) = advice(self.cause).or_else(|| advice(self.frames)) {
            text.push_str("\n\n");
            text.push_str(advice);
        }
        text.push_str(self.printed.trim_end());
        text
    }
}

/// Where lines begin that are such, not counting their indentation.
fn lines_that<'a>(text: &'a str, are_such: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    let mut end = 0;
    let starts = text.split_inclusive('\n').map(move |line| {
        end += line.len();
        (end - line.trim_start().len(), line.trim())
    });
    starts.filter(move |(_, line)| are_such(line)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_trace_comes_first() {
        let frames = "       … while evaluating x\n         at a.nix:1:2:\n\n       … while calling y\n         \
                      at b.nix:3:4:";
        let text =
            Trace::new(&format!("error:\n{frames}\n\n       error: on purpose\n       more\n")).explained();
        assert!(
            text.starts_with("error: on purpose\n       more\n\nThe way there, innermost last:"),
            "{text}"
        );
        assert!(text.ends_with("at b.nix:3:4:"), "{text}");
        // Nix 2.8.
        let text = Trace::new(&format!("error: on purpose\n\n{frames}")).explained();
        assert!(
            text.starts_with("error: on purpose\n\nThe way there, innermost first:\n… while evaluating x"),
            "{text}"
        );
        assert_eq!(Trace::new("error: syntax error").explained(), "error: syntax error");
        // What was printed is no cause, and does not make another mistake of it.
        let printed = "\n\nPrinted before that:\ntrace: looking\nevaluation warning: old";
        let with_printed = format!("error: stack overflow (possible infinite recursion){printed}");
        let text = Trace::new(&with_printed).explained();
        assert!(text.starts_with("error: stack overflow") && text.ends_with(printed), "{text}");
        let is_same =
            Trace::new("error: x").identity() == Trace::new(&format!("error: x{printed}")).identity();
        assert!(is_same);
        assert_eq!(Trace::new("").explained(), "");
        // A message that begins with a line break.
        let text =
            Trace::new(&format!("error:\n{frames}\n\n       error:\n       Failed assertions:\n       - x"))
                .explained();
        assert!(text.starts_with("error:\n       Failed assertions:\n       - x\n\nThe way"), "{text}");
    }
}
