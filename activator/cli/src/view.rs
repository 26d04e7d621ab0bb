//! What `watch` shows: a value that is told what happens and says how it looks. It knows neither connections nor
//! terminals.

use std::time::{Duration, Instant};

use nixos_activator::agent::{EventKind, Outcome, Phase};

/// Below this many columns there is no room for a bar.
const WIDE: usize = 60;

/// What is heard of one machine.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It was looked at, and nothing runs.
    Idle,
    /// An activation runs, and has for so long.
    Began(Duration),
    /// It says something.
    Event(EventKind),
    /// The machine cannot be asked for the moment.
    Trouble(String),
    /// Nobody can say how it ended.
    GaveUp(String),
}

/// The room there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

/// All machines.
#[derive(Debug)]
pub(crate) struct View {
    rows: Vec<Row>,
    /// Whether any activation was seen.
    seen: bool,
    /// Whether one did not end well.
    failed: bool,
}

#[derive(Debug)]
struct Row {
    name: String,
    state: State,
    /// Why it cannot be asked.
    trouble: Option<String>,
    /// Whether it was looked at since an activation ended last, here or elsewhere.
    looked: bool,
    /// The last line that was printed of its state, so that it is not printed every second.
    said: Option<String>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Running { since: Instant, phase: Option<Phase>, last: String },
    Ended { text: String, after: Duration },
}

impl View {
    /// Nothing is known yet of the machines of these names.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let row = |name| Row { name, state: State::Waiting, trouble: None, looked: false, said: None };
        Self { rows: names.into_iter().map(row).collect(), seen: false, failed: false }
    }

    /// Takes what is heard of machine `n`, and returns the line to print where nothing can be redrawn.
    pub(crate) fn take(&mut self, n: usize, news: News, now: Instant) -> Option<String> {
        let row = self.rows.get_mut(n)?;
        row.trouble = None;
        let line = match news {
            News::Idle => {
                row.looked = true;
                let waits = matches!(row.state, State::Waiting);
                if waits { row.once("waiting".to_owned()) } else { None }
            }
            News::Began(age) => {
                self.seen = true;
                row.said = None;
                let since = now.checked_sub(age).unwrap_or(now);
                row.state = State::Running { since, phase: None, last: String::new() };
                None
            }
            News::Trouble(text) => {
                row.looked = true;
                let text = clean(&text);
                row.trouble = Some(text.clone());
                row.once(text)
            }
            News::Event(EventKind::Phase(phase)) => {
                row.said = None;
                row.reach(phase);
                Some(format!("{phase:?}"))
            }
            News::Event(EventKind::Output(text)) => {
                row.said = None;
                Some(row.print(clean(&text)))
            }
            News::Event(EventKind::Done(report)) => {
                self.failed |= !matches!(report.outcome, Outcome::Activated | Outcome::Unchanged);
                Some(self.end(n, clean(&format!("{:?}: {}", report.outcome, report.message)), now))
            }
            News::GaveUp(text) => {
                self.failed = true;
                Some(self.end(n, clean(&text), now))
            }
        };
        let name = self.rows.get(n).map_or("", |row| &row.name);
        line.map(|line| format!("{name}: {line}").trim_end().to_owned())
    }

    /// Whether at least one activation was seen and no machine has one any more.
    pub(crate) fn is_over(&self) -> bool {
        let rests = |row: &Row| row.looked && !matches!(row.state, State::Running { .. });
        self.seen && self.rows.iter().all(rests)
    }

    /// 0 where all that was seen ended well.
    pub(crate) fn exit_code(&self) -> u8 {
        u8::from(self.failed)
    }

    /// A line a machine, no longer and no more of them than there is room for: then those where something happens
    /// come first.
    pub(crate) fn lines(&self, size: Size, now: Instant) -> Vec<String> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        let mut more = None;
        if rows.len() > size.lines {
            let shown = size.lines.saturating_sub(1);
            more = Some(format!("and {} more", rows.len() - shown));
            rows.sort_by_key(|row| row.rank());
            rows.truncate(shown);
        }
        let name = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let lines = rows.into_iter().map(|row| row.line(name, size.columns, now)).chain(more);
        lines.map(|line| cut(&line, size.columns)).collect()
    }

    fn end(&mut self, n: usize, text: String, now: Instant) -> String {
        for row in &mut self.rows {
            row.looked = false;
        }
        if let Some(row) = self.rows.get_mut(n) {
            let after = match row.state {
                State::Running { since, .. } => now.saturating_duration_since(since),
                State::Waiting | State::Ended { .. } => Duration::ZERO,
            };
            row.state = State::Ended { text: text.clone(), after };
        }
        text
    }
}

impl Row {
    fn once(&mut self, text: String) -> Option<String> {
        let is_new = self.said.as_ref() != Some(&text);
        self.said = Some(text.clone());
        is_new.then_some(text)
    }

    fn reach(&mut self, new: Phase) {
        if let State::Running { phase, last, .. } = &mut self.state {
            *phase = Some(new);
            last.clear();
        }
    }

    /// Remembers a line of output, and says in which phase it came.
    fn print(&mut self, text: String) -> String {
        let State::Running { phase, last, .. } = &mut self.state else {
            return text;
        };
        if !text.is_empty() {
            last.clone_from(&text);
        }
        phase.map_or_else(|| text.clone(), |phase| format!("{phase:?}: {text}"))
    }

    /// Smaller where there is more to see.
    fn rank(&self) -> u8 {
        match (&self.state, &self.trouble) {
            (State::Running { .. }, _) => 0,
            (State::Ended { .. }, _) => 1,
            (State::Waiting, Some(_)) => 2,
            (State::Waiting, None) => 3,
        }
    }

    fn line(&self, name_width: usize, columns: usize, now: Instant) -> String {
        let name = &self.name;
        let is_wide = columns >= WIDE;
        let line = match &self.state {
            State::Waiting => format!("waiting  {}", self.trouble.as_deref().unwrap_or_default()),
            State::Running { since, phase, last } => {
                let seconds = now.saturating_duration_since(*since).as_secs();
                let place = phase.map_or(0, Phase::position);
                let phase = phase.map_or_else(String::new, |phase| format!("{phase:?}"));
                let last = self.trouble.as_deref().unwrap_or(last);
                if is_wide {
                    let bar = format!("{}{}", "#".repeat(place), ".".repeat(Phase::COUNT - place));
                    format!("[{bar}] {phase:<20} {seconds:>4} s  {last}")
                } else {
                    format!("{phase} {seconds} s  {last}")
                }
            }
            State::Ended { text, after } => {
                let (word, rest) = text.split_once(": ").unwrap_or((text, ""));
                format!("{word} after {} s  {rest}", after.as_secs())
            }
        };
        format!("{name:<name_width$}  {}", line.trim_end())
    }
}

/// The line, or as much of it as there is room for.
fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns.saturating_sub(1)).chain(['…']).take(columns).collect()
}

/// A text in one line that does nothing to a terminal.
fn clean(text: &str) -> String {
    nixos_activator::text::plain(text.trim_end()).replace(['\t', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixos_activator::agent::{Report, SystemState};

    const WHOLE: Size = Size { columns: 200, lines: 20 };

    fn view(names: &[&str]) -> View {
        View::new(names.iter().map(|name| (*name).to_owned()))
    }

    fn phase(phase: Phase) -> News {
        News::Event(EventKind::Phase(phase))
    }

    fn output(text: &str) -> News {
        News::Event(EventKind::Output(text.to_owned()))
    }

    fn done(outcome: Outcome, message: &str) -> News {
        News::Event(EventKind::Done(Box::new(Report {
            outcome,
            message: message.to_owned(),
            exit_code: None,
            system: SystemState::default(),
            old_system: None,
            failed_units: vec![],
            failed_checks: vec![],
            output_tail: vec![],
            warnings: vec![],
            reboots: false,
        })))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_line_a_machine_is_redrawn() {
        let start = Instant::now();
        let mut view = view(&["db", "web-1"]);
        assert_eq!(view.lines(WHOLE, start), ["db     waiting", "web-1  waiting"]);
        view.take(1, News::Began(seconds(2)), start);
        view.take(1, phase(Phase::Activating), start);
        view.take(1, output("starting the following units: \u{1b}[1mx.service\u{1b}[0m\t!\r\n"), start);
        view.take(0, News::Trouble("h cannot be reached:\nno".to_owned()), start);
        assert_eq!(
            view.lines(WHOLE, start + seconds(10)),
            [
                "db     waiting  h cannot be reached: no",
                "web-1  [####......] Activating             12 s  starting the following units: x.service !",
            ]
        );
        view.take(1, phase(Phase::RollingBack), start);
        view.take(1, done(Outcome::RolledBack, "Units failed. It went back."), start + seconds(20));
        view.take(0, News::Idle, start);
        assert_eq!(
            view.lines(WHOLE, start + seconds(99)),
            ["db     waiting", "web-1  RolledBack after 22 s  Units failed. It went back."]
        );
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let start = Instant::now();
        let mut view = view(&["web"]);
        view.take(0, News::Began(seconds(3)), start);
        view.take(0, phase(Phase::CheckingHealth), start);
        view.take(0, output("a long line about something"), start);
        view.take(0, output(""), start);
        let lines = |columns| view.lines(Size { columns, lines: 5 }, start);
        assert_eq!(lines(40), ["web  CheckingHealth 3 s  a long line ab…"]);
        for columns in 0..120 {
            let width = lines(columns)[0].chars().count();
            assert!(width <= columns, "{width} in {columns}");
        }
    }

    #[test]
    fn where_not_all_have_room_those_at_work_are_shown() {
        let start = Instant::now();
        let mut view = view(&["a", "b", "c", "d"]);
        view.take(2, News::Began(seconds(0)), start);
        view.take(3, News::Trouble("no".to_owned()), start);
        let lines = view.lines(Size { columns: 50, lines: 3 }, start);
        assert_eq!(lines, ["c   0 s", "d  waiting  no", "and 2 more"]);
    }

    #[test]
    fn lines_are_printed_as_they_come() {
        let now = Instant::now();
        let mut view = view(&["web"]);
        let mut printed = vec![];
        for news in [
            News::Idle,
            News::Idle,
            News::Trouble("no route".to_owned()),
            News::Trouble("no route".to_owned()),
            News::Idle,
            News::Began(seconds(0)),
            phase(Phase::Activating),
            output("starting the following units: x.service"),
            News::Trouble("the connection broke".to_owned()),
            phase(Phase::Committing),
            done(Outcome::Activated, "It runs."),
            News::Idle,
        ] {
            printed.extend(view.take(0, news, now));
        }
        assert_eq!(
            printed,
            [
                "web: waiting",
                "web: no route",
                "web: waiting",
                "web: Activating",
                "web: Activating: starting the following units: x.service",
                "web: the connection broke",
                "web: Committing",
                "web: Activated: It runs.",
            ]
        );
    }

    #[test]
    fn it_ends_when_nothing_runs_any_more() {
        let now = Instant::now();
        let mut view = view(&["a", "b"]);
        for n in [0, 1] {
            view.take(n, News::Idle, now);
        }
        assert!(!view.is_over(), "nothing was seen yet");
        view.take(0, News::Began(seconds(0)), now);
        assert!(!view.is_over());
        view.take(0, News::Trouble("the connection broke".to_owned()), now);
        assert!(!view.is_over(), "it goes on, whoever listens");
        view.take(0, done(Outcome::Unchanged, ""), now);
        view.take(0, News::Idle, now);
        assert!(!view.is_over(), "b may have begun meanwhile");
        view.take(1, News::Trouble("down".to_owned()), now);
        assert!(view.is_over());
        assert_eq!(view.exit_code(), 0);
    }

    #[test]
    fn one_that_did_not_end_well_is_not_forgotten() {
        let now = Instant::now();
        for end in [done(Outcome::RolledBack, ""), News::GaveUp("the agent is gone".to_owned())] {
            let mut view = view(&["a"]);
            for outcome in [end, done(Outcome::Activated, "")] {
                view.take(0, News::Began(seconds(0)), now);
                view.take(0, outcome, now);
            }
            view.take(0, News::Idle, now);
            assert!(view.is_over());
            assert_eq!(view.exit_code(), 1);
        }
    }
}
