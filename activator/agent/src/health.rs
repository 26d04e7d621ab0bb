//! Health checks: what they are, and how to try one until it passes.
//!
//! The agent runs them on the machine, the client where Terraform runs. This file is what both share, so that a check
//! means the same on both sides.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A check that must pass before a machine keeps its new system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, for messages.
    pub name: String,
    /// What one try looks at.
    pub probe: Probe,
    /// How many tries in a row have to succeed.
    pub successes: u32,
    /// The pause from the end of one try to the next.
    pub interval: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How long all tries together may take.
    pub deadline: Duration,
}

/// What one try of a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// These units of systemd are active, and have been for some time.
    Units {
        /// Their names.
        names: Vec<String>,
        /// For how long each must have been active.
        stable_for: Duration,
    },
    /// This command ends with exit code 0.
    Command(Vec<String>),
    /// A server answers a GET request.
    Http {
        /// The URL.
        url: String,
        /// The answer has one of these statuses; empty: any from 200 to 299.
        statuses: Vec<u16>,
        /// This text is somewhere in the first mebibyte of the answer.
        contains: Option<String>,
    },
    /// A server accepts a connection at this `host:port`.
    Tcp(String),
}

/// Tries a check until enough tries in a row have succeeded, at most until its deadline.
///
/// `try_once` looks at the probe once, for as long as it is told. Its error says what it saw. The error of this
/// function is the one of the last failed try.
pub fn try_until_healthy(
    check: &Check,
    mut try_once: impl FnMut(&Probe, Duration) -> Result<(), String>,
) -> Result<(), String> {
    let start = Instant::now();
    let mut in_a_row = 0;
    let mut tries = 0_u64;
    // What went wrong last helps the user more than that the time was up.
    let mut last_failure = None;
    loop {
        let left = check.deadline.saturating_sub(start.elapsed());
        if left.is_zero() && tries > 0 {
            let limit = check.deadline.as_secs_f64();
            let why = last_failure.unwrap_or_else(|| {
                format!("it succeeded {in_a_row} times in a row, expected {}", check.successes.max(1))
            });
            return Err(format!("not healthy within {limit} s ({tries} tries): {why}"));
        }
        tries += 1;
        match try_once(&check.probe, check.timeout.min(left.max(Duration::from_millis(100)))) {
            Ok(()) => in_a_row += 1,
            Err(why) => {
                in_a_row = 0;
                last_failure = Some(why);
            }
        }
        if in_a_row >= check.successes.max(1) {
            return Ok(());
        }
        std::thread::sleep(check.interval.min(check.deadline.saturating_sub(start.elapsed())));
    }
}

/// Whether a server accepts connections.
pub fn tcp(address: &str, timeout: Duration) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    let mut last_failure = format!("{address} has no address");
    for address in resolved {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last_failure = format!("{address}: {error}"),
        }
    }
    Err(last_failure)
}

/// Whether a server answers as expected. A redirection counts as the answer and is not followed.
pub fn http(url: &str, statuses: &[u16], contains: Option<&str>, timeout: Duration) -> Result<(), String> {
    let config = ureq::Agent::config_builder();
    #[cfg(feature = "tls")]
    let config = {
        use ureq::tls::{RootCerts, TlsConfig};
        // The certificates that the system trusts, as a browser does.
        config.tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
    };
    let agent: ureq::Agent = config
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent("nixos-agent")
        .proxy(None)
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    let status = answer.status().as_u16();
    let expected =
        if statuses.is_empty() { (200..300).contains(&status) } else { statuses.contains(&status) };
    if expected && contains.is_none() {
        return Ok(());
    }
    let mut body = Vec::new();
    let read = answer.body_mut().as_reader().take(1 << 20).read_to_end(&mut body);
    let body = String::from_utf8_lossy(&body);
    if !expected {
        return Err(format!("{url}: status {status}\n{}", last_lines(&body)));
    }
    read.map_err(|error| format!("{url}: {error}"))?;
    match contains {
        Some(text) if !body.contains(text) => {
            Err(format!("{url}: the answer does not contain {text:?}\n{}", last_lines(&body)))
        }
        _ => Ok(()),
    }
}

/// Whether a command ends with exit code 0 in time.
///
/// Its output goes to a file and not to a pipe: a child that the command leaves behind would keep the pipe open, and
/// reading it would never end.
pub fn command(command: &mut Command, mut output: File, timeout: Duration) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{program}: {error}");
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?);
    // A process group of its own, so that what the command has started can be killed with it.
    let mut child =
        command.stderr(output.try_clone().map_err(failed)?).process_group(0).spawn().map_err(failed)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        if start.elapsed() >= timeout {
            if let Ok(id) = i32::try_from(child.id())
                && let Some(group) = rustix::process::Pid::from_raw(id)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let ending = match status {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => format!("took longer than {} s", timeout.as_secs_f64()),
    };
    let mut printed = Vec::new();
    let _ = output.rewind().and_then(|()| output.take(1 << 20).read_to_end(&mut printed));
    Err(format!("{program}: {ending}\n{}", last_lines(&String::from_utf8_lossy(&printed))))
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 10;
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    fn check(successes: u32, deadline: u64) -> Check {
        let ms = Duration::from_millis;
        let probe = Probe::Tcp(String::new());
        Check {
            name: "x".to_owned(),
            probe,
            successes,
            interval: ms(1),
            timeout: ms(50),
            deadline: ms(deadline),
        }
    }

    #[test]
    fn only_successes_in_a_row_count() {
        let answers = [true, true, false, true, true, true, false];
        let mut tried = 0;
        let healthy = try_until_healthy(&check(3, 10_000), |_, _| {
            tried += 1;
            if answers[tried - 1] { Ok(()) } else { Err("no".to_owned()) }
        });
        assert_eq!((healthy, tried), (Ok(()), 6));
    }

    #[test]
    fn the_error_is_what_was_seen_last() {
        let mut tried = 0;
        let error = try_until_healthy(&check(1, 20), |_, _| {
            tried += 1;
            Err(format!("try {tried}"))
        })
        .unwrap_err();
        assert!(error.contains(&format!("try {tried}")), "{error}");
        // A check whose tries succeed, but not often enough in the time it has.
        let error = try_until_healthy(&check(u32::MAX, 20), |_, _| Ok(())).unwrap_err();
        assert!(error.contains("in a row, expected"), "{error}");
    }

    /// A server that gives every client the same answer.
    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    #[test]
    fn a_server_has_to_give_the_right_answer() {
        let second = Duration::from_secs(5);
        let port =
            serve("HTTP/1.1 503 Busy\r\ncontent-length: 12\r\nconnection: close\r\n\r\nwarming up\r\n");
        let url = format!("http://127.0.0.1:{port}/");
        assert_eq!(tcp(&format!("127.0.0.1:{port}"), second), Ok(()));
        let error = http(&url, &[], None, second).unwrap_err();
        assert!(error.contains("status 503") && error.contains("warming up"), "{error}");
        assert_eq!(http(&url, &[503], Some("warm"), second), Ok(()));
        assert!(http(&url, &[503], Some("ready"), second).unwrap_err().contains("\"ready\""));
        // A redirection is not followed.
        let port = serve(
            "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
        assert_eq!(http(&format!("http://127.0.0.1:{port}/"), &[301], None, second), Ok(()));
    }

    #[test]
    fn a_closed_port_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // The port of a client: no server listens there, and no other test gets it while the client is connected.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap().to_string();
        assert!(tcp(&address, Duration::from_secs(5)).unwrap_err().contains(&address));
        assert!(http(&format!("http://{address}/"), &[], None, Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_command_is_ended_with_all_it_started() {
        let output = || tempfile::tempfile().unwrap();
        let sh = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            sh
        };
        assert_eq!(command(&mut sh("true"), output(), Duration::from_secs(5)), Ok(()));
        let error =
            command(&mut sh("echo out; echo err >&2; exit 3"), output(), Duration::from_secs(5)).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("out\nerr"), "{error}");
        let start = Instant::now();
        let error =
            command(&mut sh("sleep 100 & sleep 100"), output(), Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("longer than 0.1 s") && start.elapsed() < Duration::from_secs(5), "{error}");
        // A child that the command leaves behind is not waited for.
        assert_eq!(command(&mut sh("sleep 3 &"), output(), Duration::from_secs(2)), Ok(()));
    }
}
