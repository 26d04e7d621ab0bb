//! What is sent to a login shell, which may be any: sh, fish, csh, nushell.

use std::fmt::Write as _;

/// A command line that runs `words` in whatever shell reads it. Words of plain characters stay as they are. All
/// others go to `sh`, in a form in which no shell finds anything to expand: shells differ in quotes, in `!`, in line
/// breaks.
pub(super) fn for_any_shell(words: &[&str]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@".contains(c);
    if words.iter().all(|word| !word.is_empty() && word.chars().all(is_plain)) {
        return words.join(" ");
    }
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let mut text = String::new();
    for byte in format!("exec {}", quoted.join(" ")).bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+:,@ ".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // `printf %b` of POSIX reads this as the byte.
            let _ = write!(text, "\\0{byte:03o}");
        }
    }
    format!("sh -c 'eval \"$(printf %b \"$0\")\"' '{text}'")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ODD: &[&str] = &[
        "printf",
        "%s|",
        "a b",
        "",
        "it's",
        "new\nline",
        "!!",
        "$HOME `id` \\n \\0",
        "*",
        "Grüße",
        "\"",
        "~",
        "#",
        "{a,b}",
    ];

    /// What a command line prints when a shell reads it; `None` where there is no such shell.
    fn printed(shell: &str, line: &str) -> Option<String> {
        let output = Command::new(shell).args(["-c", line]).output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn every_shell_sees_the_same_words() {
        let expected = ODD[2..].iter().map(|word| format!("{word}|")).collect::<String>();
        for shell in ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "nu"] {
            if let Some(found) = printed(shell, &for_any_shell(ODD)) {
                assert_eq!(found, expected, "{shell}");
            }
        }
        assert_eq!(printed("sh", &for_any_shell(ODD)), Some(expected));
    }

    #[test]
    fn plain_words_are_left_alone() {
        assert_eq!(for_any_shell(&["sh", "-s"]), "sh -s");
        assert_eq!(for_any_shell(&["true", ""]).matches("sh -c").count(), 1);
    }
}
