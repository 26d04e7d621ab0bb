//! Text that comes from elsewhere: from machines, `ssh`, Nix and what they run.
//!
//! None of it is trusted: it is read up to a limit, so that nothing can fill our memory, and shown without what a
//! terminal would obey.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The longest line that is taken as one; what follows in it is left out.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// As much of a complaint as is kept.
const COMPLAINT: usize = 64 << 10;

/// A text as it may be shown on a terminal: without escape sequences, control characters but line breaks and tabs,
/// and characters that change the direction of what follows.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => match characters.next() {
                // Ends with a letter or a sign.
                Some('[') => drop(characters.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c))),
                // A text for the terminal itself, such as its title: to a bell or `ESC \`.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = characters.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && characters.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            // As a terminal shows it: what comes after goes on in the next line.
            '\r' if characters.peek() != Some(&'\n') => plain.push('\n'),
            '\n' | '\t' => plain.push(c),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Reads a stream to its end; `None` where it has more than `limit` bytes.
pub(crate) async fn read_at_most(stream: impl AsyncRead + Unpin, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    let _ = stream.take(limit as u64 + 1).read_to_end(&mut bytes).await;
    (bytes.len() <= limit).then_some(bytes)
}

/// Reads what a program complains about to its end, and keeps the beginning, made plain.
pub(crate) async fn complaint(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = vec![];
    let _ = (&mut stream).take(COMPLAINT as u64).read_to_end(&mut bytes).await;
    // Nobody is to wait because the rest is not read.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    plain(&String::from_utf8_lossy(&bytes))
}

/// Reads a stream line by line.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    stream: BufReader<R>,
    /// How many bytes may still come.
    left: usize,
    /// How much of a line is kept.
    longest: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// All of its lines, up to `limit` bytes together.
    pub(crate) fn of(stream: R, limit: usize) -> Self {
        Self { stream: BufReader::new(stream), left: limit, longest: LONGEST_LINE }
    }

    /// The same, with lines of up to `bytes`.
    pub(crate) fn longest(self, bytes: usize) -> Self {
        Self { longest: bytes, ..self }
    }

    /// The next line, without its end; `None` at the end, or when more has come than may.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<String>> {
        let mut line = vec![];
        let mut ended = false;
        while !ended && self.left > 0 {
            let read = self.stream.fill_buf().await?;
            if read.is_empty() {
                break;
            }
            let read = read.get(..read.len().min(self.left)).unwrap_or(read);
            let end = memchr::memchr(b'\n', read);
            let part = read.get(..end.unwrap_or(read.len())).unwrap_or(read);
            let room = self.longest.saturating_sub(line.len()).min(part.len());
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            ended = end.is_some();
            let used = end.map_or(read.len(), |end| end + 1);
            self.stream.consume(used);
            self.left -= used;
        }
        let is_there = ended || !line.is_empty();
        Ok(is_there.then(|| String::from_utf8_lossy(&line).into_owned()))
    }

    /// Whether more has come than may.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_would_obey() {
        for (text, expected) in [
            ("\u{1b}[31;1merror:\u{1b}[0m failed", "error: failed"),
            ("a\u{1b}]0;title\u{7}b\u{1b}]8;;http://x\u{1b}\\c", "abc"),
            ("one\r\ntwo\rthree\n\tfour", "one\ntwo\nthree\n\tfour"),
            ("a\u{0}\u{8}\u{7f}\u{9b}b", "ab"),
            ("user\u{202e}txt.exe\u{2066}", "usertxt.exe"),
            ("Grüße ✓", "Grüße ✓"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[tokio::test]
    async fn lines_end_where_they_may_not_go_on() {
        let text = format!("one\n{}\r\n\nlast", "x".repeat(LONGEST_LINE + 10));
        let mut lines = Lines::of(text.as_bytes(), 1 << 30);
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next().await.unwrap().map(|line| line.len()), Some(LONGEST_LINE));
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(""));
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("last"));
        assert_eq!(lines.next().await.unwrap(), None);
        assert!(!lines.is_over());
        let mut lines = Lines::of(tokio::io::repeat(b'\n'), 2);
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(""));
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(""));
        assert_eq!(lines.next().await.unwrap(), None);
        assert!(lines.is_over());
    }

    #[tokio::test]
    async fn a_stream_without_an_end_does_not_fill_the_memory() {
        assert_eq!(read_at_most(tokio::io::repeat(b'x'), 1000).await, None);
        assert_eq!(read_at_most(b"abc".as_slice(), 3).await.as_deref(), Some(b"abc".as_slice()));
        let long = vec![b'x'; COMPLAINT + 5];
        assert_eq!(complaint(long.as_slice()).await.len(), COMPLAINT);
    }
}
