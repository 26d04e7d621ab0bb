//! The one place that runs Nix' command line tools.
//!
//! Any Nix from 2.8 is good enough: only commands and options that exist from there to today are used. A child never
//! gets our standard input (Terraform's lives there), runs in a session of its own (see `children.rs`), and speaks
//! `--log-format internal-json`, which `log` turns into messages.

mod advice;
mod log;
mod settings;
mod spelling;
mod version;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::children::{self, interrupt};
use crate::text::{Lines, plain};

pub use advice::advice;
pub use log::{Log, Note, parts_of};
pub use settings::{NixSettings, mistake};
pub(crate) use spelling::{escaped, hash_of_copy, sri};
pub use version::Version;

/// The longest message that is taken as one: with the trace of an endless recursion it has a few mebibytes.
const LONGEST_MESSAGE: usize = 64 << 20;

/// The oldest Nix that works.
pub const OLDEST: Version = Version { major: 2, minor: 8 };

/// The one that waits for ever for a connection of its own.
const HANGS: Version = Version { major: 2, minor: 15 };

/// How often a running Nix is asked for its memory.
const WATCH: Duration = Duration::from_millis(100);

/// A Nix installation that was found and is new enough.
#[derive(Clone, Debug)]
pub struct Nix {
    bin: PathBuf,
    version: Version,
    settings: NixSettings,
}

/// One command line of Nix, for [`Nix::call`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// `nix`, `nix-store`, `nix-instantiate`.
    pub program: &'a str,
    /// Its arguments; a verb such as `copy` first.
    pub arguments: &'a [&'a str],
    /// Variables to set.
    pub environment: &'a [(&'a str, &'a str)],
    /// Variables it must not see.
    pub hidden: &'a [OsString],
    /// What it reads from standard input.
    pub input: &'a str,
    /// A program that runs it, with that program's own arguments.
    pub through: &'a [OsString],
    /// Whether anybody wants to know how much memory it takes.
    pub is_measured: bool,
    /// How long it may say nothing until it counts as stuck.
    pub silence: Option<Duration>,
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// The most memory it was seen to use, in MiB; `None` where that was not asked or cannot be told.
    pub peak_mib: Option<u64>,
    /// Standard output.
    pub stdout: String,
    /// What it said besides.
    pub log: Log,
}

/// Why Nix did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// There is no `nix` on PATH.
    #[error("no `nix` was found on PATH")]
    NotFound,
    /// It is older than [`OLDEST`].
    #[error("Nix {found} is too old: {OLDEST} or later is needed")]
    TooOld {
        /// The version on PATH.
        found: Version,
    },
    /// Its `nix copy` never ends where it is given a connection (NixOS/nix 8329).
    #[error("Nix {found} hangs when it copies through an SSH connection that is there")]
    Hangs {
        /// The version on PATH.
        found: Version,
    },
    /// It said nothing for a long time, and was stopped.
    #[error("`{program}` said nothing for {seconds} s and was stopped")]
    Stuck {
        /// The program and its verb.
        program: String,
        /// How long.
        seconds: u64,
    },
    /// `nix --version` printed something else.
    #[error("`{program} --version` printed `{output}`, expected something like `nix (Nix) 2.24.9`")]
    Version {
        /// The program asked.
        program: String,
        /// Its output.
        output: String,
    },
    /// A setting that Nix cannot be given.
    #[error("the setting `{name}` of Nix cannot be used: {reason}")]
    Setting {
        /// The setting.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program could not be started or read from.
    #[error("`{program}` could not be run: {source}")]
    Run {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The program ended with a failure.
    #[error("`{program}` failed ({status}):\n{message}")]
    Failed {
        /// The program and its verb.
        program: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// Nix' error, with its trace, without colours.
        message: String,
        /// The last lines that builds printed.
        output: Vec<String>,
    },
    /// Somebody killed it; most often the system, for want of memory.
    #[error("`{program}` was killed")]
    Killed {
        /// The program and its verb.
        program: String,
    },
    /// Its output is not what this version of Nix is known to print.
    #[error("`{program}` printed something unexpected: {reason}")]
    Output {
        /// The program and its verb.
        program: String,
        /// What was wrong.
        reason: String,
    },
    /// The work was cancelled by the user.
    #[error("cancelled")]
    Cancelled,
}

impl Nix {
    /// Looks for Nix on PATH and checks its version.
    pub async fn find(settings: NixSettings) -> Result<Self, NixError> {
        if let Some((name, reason)) = settings.mistake() {
            return Err(NixError::Setting { name: name.to_owned(), reason });
        }
        let program = find_on_path("nix").ok_or(NixError::NotFound)?;
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| NixError::Run { program: program.display().to_string(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&text).ok_or_else(|| NixError::Version {
            program: program.display().to_string(),
            output: plain(text.trim()).chars().take(200).collect(),
        })?;
        if version < OLDEST {
            return Err(NixError::TooOld { found: version });
        }
        if version == HANGS {
            return Err(NixError::Hangs { found: version });
        }
        let bin = program.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { bin, version, settings })
    }

    /// The version found.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How Nix is run.
    pub fn settings(&self) -> &NixSettings {
        &self.settings
    }

    /// The same Nix with more settings, which count for more than those it has.
    #[must_use]
    pub fn with(&self, options: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut nix = self.clone();
        nix.settings.options.extend(options);
        nix
    }

    /// Runs `program` (`nix-store`, `nix-instantiate`, `nix`) to its end.
    ///
    /// `on_line` sees each line a build prints. Cancelling interrupts Nix and waits for it to clean up.
    pub async fn run(
        &self,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        cancel: &CancellationToken,
        on_line: &(dyn Fn(&str) + Sync),
    ) -> Result<Finished, NixError> {
        self.call(Call { program, arguments, environment, ..Call::default() }, cancel, on_line).await
    }

    /// The same with everything that can be said about a command line.
    pub async fn call(
        &self,
        call: Call<'_>,
        cancel: &CancellationToken,
        on_line: &(dyn Fn(&str) + Sync),
    ) -> Result<Finished, NixError> {
        let described = describe(call.program, call.arguments);
        let failed_to_run = |source| NixError::Run { program: described.clone(), source };
        let program = self.bin.join(call.program);
        let mut command = match call.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        // A verb such as `copy` stands before every option.
        command.args(call.arguments).args(["--log-format", "internal-json"]);
        self.add_settings(&mut command);
        call.hidden.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.envs(call.environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tracing::debug!(command = %described, "running");
        let mut child = children::start(command).map_err(failed_to_run)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());

        let write_input = async {
            if let Some(mut stdin) = stdin {
                // Whether it reads it all is its own affair.
                let _ = stdin.write_all(call.input.as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
        };
        let mut peak_mib = None;
        let id = child.id().filter(|_| call.is_measured);
        let watch = async {
            while let Some(id) = id {
                let id = if call.through.is_empty() { Some(id) } else { child_of(id) };
                peak_mib = peak_mib.max(id.and_then(memory_of));
                tokio::time::sleep(WATCH).await;
            }
            std::future::pending::<()>().await;
        };
        let heard = Notify::new();
        let stuck = async {
            let Some(silence) = call.silence else { return std::future::pending().await };
            while tokio::time::timeout(silence, heard.notified()).await.is_ok() {}
            silence
        };
        let (mut text, mut log) = (Vec::new(), Log::default());
        let (mut read_text, mut read_log) = (Ok(0), Ok(()));
        let talk = async {
            let output = async {
                if let Some(mut stdout) = stdout {
                    read_text = stdout.read_to_end(&mut text).await;
                }
            };
            let messages = async {
                if let Some(stderr) = stderr {
                    // A machine that something is copied to speaks here, too.
                    let take = |line: &str| {
                        heard.notify_one();
                        log.take(line, on_line);
                    };
                    read_log = read_lines(stderr, take).await;
                }
            };
            tokio::join!(output, messages, write_input);
        };
        let status = tokio::select! {
            status = children::finished(&mut child, talk) => Some(status),
            () = cancel.cancelled() => None,
            () = watch => None,
            silence = stuck => {
                interrupt(&mut child).await;
                return Err(NixError::Stuck { program: described, seconds: silence.as_secs() });
            }
        };
        let Some(status) = status else {
            interrupt(&mut child).await;
            return Err(NixError::Cancelled);
        };
        let status = status.map_err(failed_to_run)?;
        read_text.and(read_log).map_err(failed_to_run)?;
        // A tracer in between says it as shells do.
        let kill = Signal::KILL.as_raw();
        if status.signal() == Some(kill) || status.code() == Some(128 + kill) {
            return Err(NixError::Killed { program: described });
        }
        if !status.success() {
            return Err(NixError::Failed {
                program: described,
                status,
                message: plain(&log.error()),
                output: log.tail().map(plain).collect(),
            });
        }
        let stdout = String::from_utf8(text)
            .map_err(|_| NixError::Output { program: described, reason: "not UTF-8".to_owned() })?;
        Ok(Finished { peak_mib, stdout, log })
    }

    fn add_settings(&self, command: &mut Command) {
        // Flakes are asked for where a specification is one; naming the feature is harmless elsewhere.
        command.args(["--option", "extra-experimental-features", "nix-command flakes"]);
        if let Some(text) = self.settings.variable(std::env::var_os(settings::VARIABLE)) {
            command.env(settings::VARIABLE, text);
        }
        if !self.settings.nix_path.is_empty() {
            command.env("NIX_PATH", self.settings.nix_path.join(":"));
        }
    }
}

/// Gives every line to `take`.
async fn read_lines(stderr: ChildStderr, mut take: impl FnMut(&str)) -> std::io::Result<()> {
    let mut lines = Lines::of(stderr, usize::MAX).longest(LONGEST_MESSAGE);
    while let Some(line) = lines.next().await? {
        take(&line);
    }
    Ok(())
}

/// The most memory a process has used so far, in MiB, where the system tells.
fn memory_of(id: u32) -> Option<u64> {
    crate::meminfo::mib(&format!("/proc/{id}/status"), "VmHWM")
}

/// The first process that this one has started.
fn child_of(id: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Where `program` is on PATH.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| executable(path))
}

/// The program and its verb, for messages: never its other arguments, which may be long.
fn describe(program: &str, arguments: &[&str]) -> String {
    match arguments.first() {
        Some(verb) => format!("{program} {verb}"),
        None => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a program that takes so long and says something meanwhile, or does not.
    async fn ran(script: &str, silence: Duration) -> Result<Finished, NixError> {
        let version = OLDEST;
        let nix = Nix { bin: "/bin".into(), version, settings: NixSettings::default() };
        let through = ["sh", "-c", script].map(OsString::from);
        let call = Call {
            program: "nix",
            arguments: &["copy"],
            through: &through,
            silence: Some(silence),
            ..Call::default()
        };
        nix.call(call, &CancellationToken::new(), &|_| {}).await
    }

    #[tokio::test]
    async fn a_nix_that_says_nothing_any_more_is_stopped() {
        let stuck = ran("echo something >&2; exec sleep 100000", Duration::from_millis(300)).await;
        let text = stuck.unwrap_err().to_string();
        assert!(text.contains("`nix copy` said nothing for"), "{text}");
        let slow = "for n in 1 2 3 4 5 6; do echo $n >&2; sleep 0.5; done";
        assert!(ran(slow, Duration::from_secs(2)).await.is_ok());
    }
}
