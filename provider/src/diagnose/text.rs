//! Messages of others, cut to what a person reads.

pub(super) fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// How much is shown of what is long.
const LINES: usize = 40;

/// The end of a long message: what counts comes last.
pub(super) fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(LINES) {
        None | Some(0) => lines.join("\n"),
        Some(more) => {
            format!("… ({more} lines before)\n{}", lines.get(more..).unwrap_or_default().join("\n"))
        }
    }
}

/// The beginning of a long message.
pub(super) fn beginning(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.split_at_checked(LINES) {
        None | Some((_, [])) => lines.join("\n"),
        Some((shown, more)) => format!("{}\n… ({} more lines)", shown.join("\n"), more.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_keep_their_end() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let text = shortened(&text);
        assert!(text.starts_with("… (60 lines before)\n60\n"), "{text}");
        assert!(text.ends_with("\n99"), "{text}");
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(beginning(&text).ends_with("\n39\n… (60 more lines)"));
        assert_eq!(beginning("1\n2"), "1\n2");
    }
}
