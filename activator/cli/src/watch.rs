//! Watching activations while they run: a connection a machine, and a place where what is heard is shown.
//!
//! Nothing is written on a machine, and an activation does not notice who listens.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use nixos_activator::agent::AgentError;
use nixos_activator::agent::listen::{self, Running};
use nixos_activator::ssh::{Connection, Pool, Wait};
use tokio_util::sync::CancellationToken;

use crate::deployed::Machine;
use crate::problem::Problem;
use crate::view::{News, Size, View};

/// How long a machine is left alone between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what is shown may be old.
const REFRESH: Duration = Duration::from_millis(200);
/// The exit code of a shell for what Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// Shows activations until those that were seen are over, and no other one has begun for as long as `quiet`.
pub(crate) async fn watch(
    machines: &[Machine],
    quiet: Duration,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    // All of them are asked again and again.
    let pool = Pool::keeping(machines.len());
    let screen = RefCell::new(Screen::new(machines));
    let ears = machines.iter().enumerate().map(|(n, machine)| {
        let ear = Ear { machine, n, screen: &screen, heard: None };
        ear.follow(&pool, cancel)
    });
    let code = tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(INTERRUPTED),
        code = show(&screen, quiet) => code,
        // They go on for ever.
        Err(problem) = futures::future::try_join_all(ears) => Err(problem),
    };
    pool.close().await;
    code
}

async fn show(screen: &RefCell<Screen>, quiet: Duration) -> Result<u8, Problem> {
    let mut over_since = None;
    loop {
        {
            let mut screen = screen.borrow_mut();
            screen.draw()?;
            if !screen.view.is_over() {
                over_since = None;
            } else if over_since.get_or_insert_with(Instant::now).elapsed() >= quiet {
                return Ok(screen.view.exit_code());
            }
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// Listens to one machine.
struct Ear<'a> {
    machine: &'a Machine,
    n: usize,
    screen: &'a RefCell<Screen>,
    /// The activation whose end was not heard yet.
    heard: Option<Heard>,
}

struct Heard {
    running: Running,
    /// The number of the event that comes next.
    next: u64,
}

impl Ear<'_> {
    async fn follow(mut self, pool: &Pool, cancel: &CancellationToken) -> Result<Infallible, Problem> {
        loop {
            match pool.connect(&self.machine.endpoint, Wait::ONE_TRY, cancel).await {
                Ok(connection) => self.look(&connection).await?,
                Err(error) => self.tell(News::Trouble(error.to_string()))?,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Listens to what runs there, where something does.
    async fn look(&mut self, connection: &Connection) -> Result<(), Problem> {
        let mut heard = match self.heard.take() {
            Some(heard) => heard,
            None => match listen::running(connection).await {
                Ok(None) => return self.tell(News::Idle),
                Ok(Some(running)) => {
                    self.tell(News::Began(running.age))?;
                    Heard { running, next: 0 }
                }
                Err(error) => return self.lost(connection, &error).await,
            },
        };
        let mut shown = Ok(());
        let mut next = heard.next;
        let ended = listen::attach(connection, &heard.running, heard.next, |event| {
            next = event.seq + 1;
            if shown.is_ok() {
                shown = self.tell(News::Event(event.kind.clone()));
            }
        })
        .await;
        shown?;
        heard.next = next;
        match ended {
            Ok(_) => Ok(()),
            Err(error @ AgentError::Ssh(_)) => {
                self.heard = Some(heard);
                self.lost(connection, &error).await
            }
            Err(error) => self.tell(News::GaveUp(error.to_string())),
        }
    }

    /// Says why, and lets go of a connection that is of no use any more.
    async fn lost(&self, connection: &Connection, error: &AgentError) -> Result<(), Problem> {
        if matches!(error, AgentError::Ssh(_)) {
            // A master that lives but gives no session would be handed out again.
            connection.close().await;
        }
        self.tell(News::Trouble(error.to_string()))
    }

    fn tell(&self, news: News) -> Result<(), Problem> {
        self.screen.borrow_mut().take(self.n, news)
    }
}

/// Standard output: lines that are drawn again and again, or one line after the other where it is no terminal.
struct Screen {
    view: View,
    is_terminal: bool,
    /// How many lines stand there.
    drawn: usize,
}

impl Screen {
    fn new(machines: &[Machine]) -> Self {
        let view = View::new(machines.iter().map(|machine| machine.name.to_string()));
        Self { view, is_terminal: std::io::stdout().is_terminal(), drawn: 0 }
    }

    fn take(&mut self, n: usize, news: News) -> Result<(), Problem> {
        let line = self.view.take(n, news, Instant::now());
        if let Some(line) = line.filter(|_| !self.is_terminal) {
            writeln!(std::io::stdout(), "{line}")?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Result<(), Problem> {
        if !self.is_terminal {
            return Ok(());
        }
        let lines = self.view.lines(size(), Instant::now());
        // Back to the first line and away with what is there. A character may be wider than it was counted: no line
        // goes on in the next.
        let back = if self.drawn > 0 { format!("\x1b[{}F", self.drawn) } else { String::new() };
        let text: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
        let mut output = std::io::stdout().lock();
        write!(output, "{back}\x1b[?7l{text}\x1b[J\x1b[?7h")?;
        output.flush()?;
        self.drawn = lines.len();
        Ok(())
    }
}

/// The room on the terminal, less the line of the cursor.
fn size() -> Size {
    let found = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let known = |number: u16, usual: usize| if number == 0 { usual } else { usize::from(number) };
    let columns = found.map_or(80, |size| known(size.ws_col, 80));
    let lines = found.map_or(24, |size| known(size.ws_row, 24));
    Size { columns, lines: lines.saturating_sub(1).max(1) }
}
