//! Bringing the agent to a machine.
//!
//! The agent lives at a path that names its own content, so that it travels once a version.

use nixos_agent::STORED_AGENT;

use super::binary::{self, AGENTS};
use super::error::AgentError;
use crate::facts::Facts;
use crate::ssh::{Connection, Endpoint, SshError};

/// How many sessions an activation has open at once: one listens to the agent, the other tells it something.
const SESSIONS: usize = 2;

/// Makes sure that this login can activate a system, before anything is sent: that it is or becomes root, that its
/// shell does what it is asked for and nothing else, and that the SSH server opens enough sessions.
pub async fn check_login(connection: &Connection, facts: &Facts) -> Result<(), AgentError> {
    let Endpoint { host, user, elevate, .. } = connection.endpoint();
    if elevate.is_empty() && facts.uid != Some(0) {
        return Err(AgentError::NotRoot { host: host.clone(), user: user.clone() });
    }
    let text = connection.greeting();
    if !text.is_empty() {
        let (host, user, text) = (host.clone(), user.clone(), text.to_owned());
        return Err(SshError::Greeting { host, user, text }.into());
    }
    connection.to_root().await?;
    connection.check_sessions(SESSIONS).await?;
    Ok(())
}

/// Brings the agent for `system` to the machine unless it is there, and returns its path. Agents of other versions
/// that were not used for a week, and that nothing can start any more, are removed.
pub async fn install(connection: &Connection, system: &str) -> Result<String, AgentError> {
    let platform = || AgentError::Platform { system: system.to_owned() };
    let binary = binary::binary(system).ok_or_else(platform)?;
    let path = format!("{AGENTS}/{}/nixos-agent", binary.sha256);
    let run = async |script: &str, input| {
        let words = ["sh", "-c", script, "sh", &path, binary.sha256, AGENTS, STORED_AGENT];
        connection.run_as_root(&words, input).await
    };
    // Its content decides: after a power cut a file may be there without it.
    let found = run(&format!("{COMMON}{FIND}"), b"".as_slice()).await?;
    if found.code == Some(0) {
        return Ok(found.text().trim().to_owned());
    }
    let answer = match found.code {
        Some(READ_ONLY) => found,
        _ => run(&format!("{COMMON}{INSTALL}"), binary.bytes).await?,
    };
    if answer.code == Some(0) {
        return Ok(answer.text().trim().to_owned());
    }
    let (host, message) = (connection.endpoint().host.clone(), answer.stderr.trim().to_owned());
    let says = |text: &str| message.contains(text);
    Err(match answer.code {
        _ if says("No space left on device") => AgentError::DiskFull { host, message },
        _ if says("Read-only file system") => AgentError::ReadOnly { host, message },
        Some(CANNOT_RUN) => AgentError::CannotRun { host, message },
        code => AgentError::Agent { host, code, message },
    })
}

/// The script's exit code where no program can be run.
const CANNOT_RUN: i32 = 126;

/// The script's exit code where the directory of agents cannot be written.
const READ_ONLY: i32 = 30;

/// `$1` is the agent's path, `$2` its hash, `$3` the directory of agents, `$4` the link to it in the store.
///
/// What its programs say is read, so that they say it in the language they were written in.
const COMMON: &str = r#"
export LC_ALL=C
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin"
is_whole() { found="$(sha256sum <"$1")" && [ "${found%% *}" = "$2" ]; }
works() { is_whole "$1" "$2" 2>/dev/null && "$1" --version >/dev/null 2>&1; }
"#;

/// Finds the agent, and says that it is in use.
const FIND: &str = r#"
[ ! -d "$3" ] || [ -w "$3" ] || { echo "$3: Read-only file system" >&2; exit 30; }
if works "$1" "$2"; then agent="$1"; touch "$1"
elif works "$4" "$2"; then agent="$(readlink -f "$4")"
else exit 1; fi
for old in $(find "$3" -mindepth 2 -maxdepth 2 -name nixos-agent -mtime +7 2>/dev/null); do
  [ "$old" != "$1" ] || continue
  # A unit may start it again, and a process run it.
  ! grep -rqF "$old" /run/systemd /etc/systemd/system 2>/dev/null || continue
  for program in /proc/[0-9]*/exe; do
    [ "$(readlink "$program" 2>/dev/null)" != "$old" ] || continue 2
  done
  rm -rf "${old%/*}"
done
echo "$agent"
"#;

/// Complete and on the disk, or not there at all: the rename comes when all else is written. Where its directory lets
/// no program run (`noexec`), it goes to the Nix store, with a link that keeps it there.
const INSTALL: &str = r#"
set -e; umask 022
d="$(dirname "$1")"; mkdir -p "$d"; t="$d/.new.$$"; rm -rf "$t"; mkdir "$t"; trap 'rm -rf "$t"' EXIT
durable() { sync "$@" 2>/dev/null || sync; }
new="$t/nixos-agent"; cat >"$new"; chmod 755 "$new"
is_whole "$new" "$2" || { echo "it did not arrive whole" >&2; exit 1; }
if "$new" --version >/dev/null 2>&1; then
  durable "$new"; mv -f "$new" "$1"; durable "$d" "$3"
  echo "$1"; exit
fi
mkdir -p "${4%/*}"
if stored="$(nix-store --add "$new")"; then
  ln -sfn "$stored" "$4.new"; mv -fT "$4.new" "$4"
  if works "$4" "$2"; then rm -rf "$d"; readlink -f "$4"; exit; fi
fi
"$new" --version >/dev/null || exit 126
"#;
