//! Blocks of code in Markdown.

/// A fenced block.
#[derive(Debug, PartialEq)]
pub(crate) struct Fence {
    /// The first word behind the opening fence.
    pub(crate) language: String,
    /// The line of the opening fence, counted from 1.
    pub(crate) line: usize,
    /// What is between the fences, without the indentation that the fences have.
    pub(crate) text: String,
    /// The line before the opening fence.
    pub(crate) before: String,
}

/// A fence that is never closed: the line it opens at.
#[derive(Debug, PartialEq)]
pub(crate) struct Unclosed(pub(crate) usize);

/// All fenced blocks of a document, in order.
pub(crate) fn fences(document: &str) -> Result<Vec<Fence>, Unclosed> {
    let mut found = vec![];
    let mut lines = document.lines().zip(1..);
    let mut before = "";
    while let Some((line, number)) = lines.next() {
        let Some(opening) = Opening::of(line) else {
            before = line;
            continue;
        };
        let mut text = String::new();
        loop {
            let Some((line, _)) = lines.next() else { return Err(Unclosed(number)) };
            if opening.is_closed_by(line) {
                break;
            }
            text.push_str(opening.unindented(line));
            text.push('\n');
        }
        let language = opening.info.split_whitespace().next().unwrap_or_default().to_owned();
        found.push(Fence { language, line: number, text, before: before.trim().to_owned() });
        before = "";
    }
    Ok(found)
}

/// Joins runs of empty lines, except in fenced blocks, and ends the document with one line break. Templates need not
/// care.
pub(crate) fn tidy(document: &str) -> String {
    let mut tidy = String::new();
    let mut fence: Option<Opening> = None;
    let mut last_empty = true;
    for line in document.lines() {
        fence = match fence {
            Some(opening) if opening.is_closed_by(line) => None,
            Some(opening) => Some(opening),
            None => Opening::of(line),
        };
        let empty = fence.is_none() && line.trim().is_empty();
        if !(empty && last_empty) {
            tidy.push_str(if empty { "" } else { line });
            tidy.push('\n');
        }
        last_empty = empty;
    }
    format!("{}\n", tidy.trim_end())
}

/// An opening fence.
#[derive(Clone, Copy)]
struct Opening<'a> {
    indent: usize,
    mark: char,
    length: usize,
    info: &'a str,
}

impl<'a> Opening<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let content = line.trim_start();
        let mark = content.chars().next().filter(|first| matches!(first, '`' | '~'))?;
        let info = content.trim_start_matches(mark);
        let length = content.len() - info.len();
        // `` ```a``` `` is code within a line.
        let opens = length >= 3 && !(mark == '`' && info.contains('`'));
        opens.then_some(Self { indent: line.len() - content.len(), mark, length, info })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|character| character == self.mark)
    }

    fn unindented<'b>(&self, line: &'b str) -> &'b str {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        &line[blanks.min(self.indent)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(document: &str) -> Fence {
        let mut all = fences(document).expect("every fence is closed");
        assert_eq!(all.len(), 1, "one block was expected: {all:?}");
        all.remove(0)
    }

    #[test]
    fn a_block_has_its_language_its_line_and_the_line_before() {
        let fence = only("Text.\n\n<!-- not validated: why -->\n```hcl title\na = 1\n\nb = 2\n```\nMore.\n");
        let expected = Fence {
            language: "hcl".to_owned(),
            line: 4,
            text: "a = 1\n\nb = 2\n".to_owned(),
            before: "<!-- not validated: why -->".to_owned(),
        };
        assert_eq!(fence, expected);
    }

    #[test]
    fn a_block_in_a_list_loses_the_indentation_of_the_list() {
        assert_eq!(
            only("1. Do:\n\n   ```terraform\n   a {\n     b = 1\n   }\n\n   ```\n").text,
            "a {\n  b = 1\n}\n\n"
        );
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one_and_tildes_hold_backticks() {
        assert_eq!(only("````\n```\nx\n```\n````\n").text, "```\nx\n```\n");
        assert_eq!(only("~~~ hcl\n```\n~~~\n").text, "```\n");
    }

    #[test]
    fn code_within_a_line_opens_nothing() {
        assert_eq!(fences("```a``` and `b`\n``x``\n"), Ok(vec![]));
    }

    #[test]
    fn two_blocks_do_not_share_the_line_before() {
        let all = fences("<!-- x -->\n```a\n```\n```b\n```\n").expect("every fence is closed");
        assert_eq!(all.iter().map(|fence| fence.before.as_str()).collect::<Vec<_>>(), ["<!-- x -->", ""]);
    }

    #[test]
    fn a_fence_that_is_never_closed_is_named_by_its_line() {
        assert_eq!(fences("a\n\n```hcl\nb\n"), Err(Unclosed(3)));
    }

    #[test]
    fn empty_lines_are_joined_but_not_in_code() {
        assert_eq!(tidy("\n\na\n\n\n\nb\n```\nc\n\n\nd\n```\n \n\n"), "a\n\nb\n```\nc\n\n\nd\n```\n");
    }
}
