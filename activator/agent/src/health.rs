//! Health checks: what they are, and how to try them until they hold.
//!
//! The agent runs them on the machine, the activator where Terraform runs; what a check means is the same on both sides.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Something that must be true of a machine before its new system is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What people call it.
    pub name: String,
    /// What to look at.
    pub probe: Probe,
    /// How many times in a row it has to hold.
    pub successes: u32,
    /// From the end of one try to the next.
    pub interval: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How long all tries together may take.
    pub deadline: Duration,
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Units of systemd are active, and have been for some time.
    Units {
        /// Their names.
        names: Vec<String>,
        /// For how long.
        stable_for: Duration,
    },
    /// A command ends with 0.
    Command(Vec<String>),
    /// A server answers a GET request.
    Http {
        /// Where.
        url: String,
        /// With one of these statuses; empty: any from 200 to 299.
        statuses: Vec<u16>,
        /// With this text somewhere in the first mebibyte of its answer.
        contains: Option<String>,
    },
    /// A server accepts a connection: `host:port`.
    Tcp(String),
}

/// Tries a check until it held often enough in a row. `look` tries once; an error is what it saw, and so is ours.
pub fn hold(
    check: &Check,
    mut look: impl FnMut(&Probe, Duration) -> Result<(), String>,
) -> Result<(), String> {
    let start = Instant::now();
    let mut in_a_row = 0;
    let mut tries = 0_u64;
    // The last thing that went wrong is of more use than that time was up.
    let mut wrong = None;
    loop {
        let left = check.deadline.saturating_sub(start.elapsed());
        if left.is_zero() && tries > 0 {
            let limit = check.deadline.as_secs_f64();
            let why = wrong.unwrap_or_else(|| {
                format!("it held {in_a_row} times in a row, expected {}", check.successes.max(1))
            });
            return Err(format!("not healthy within {limit} s ({tries} tries): {why}"));
        }
        tries += 1;
        match look(&check.probe, check.timeout.min(left.max(Duration::from_millis(100)))) {
            Ok(()) => in_a_row += 1,
            Err(why) => {
                in_a_row = 0;
                wrong = Some(why);
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
    let mut last = format!("{address} has no address");
    for place in resolved {
        match TcpStream::connect_timeout(&place, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{place}: {error}"),
        }
    }
    Err(last)
}

/// Whether a server answers as expected. Redirections are answers, not ways to go.
pub fn http(url: &str, statuses: &[u16], contains: Option<&str>, timeout: Duration) -> Result<(), String> {
    let config = ureq::Agent::config_builder();
    #[cfg(feature = "tls")]
    let config = {
        use ureq::tls::{RootCerts, TlsConfig};
        // Those of the system, as a browser has them.
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

/// Whether a command ends with 0 in time. Its output goes to a file, because a child it leaves behind would hold a pipe open.
pub fn command(command: &mut Command, mut output: File, timeout: Duration) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{program}: {error}");
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?);
    // All it starts goes with it.
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
    let how = match status {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => format!("took longer than {} s", timeout.as_secs_f64()),
    };
    let mut said = Vec::new();
    let _ = output.rewind().and_then(|()| output.take(1 << 20).read_to_end(&mut said));
    Err(format!("{program}: {how}\n{}", last_lines(&String::from_utf8_lossy(&said))))
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
        let held = hold(&check(3, 10_000), |_, _| {
            tried += 1;
            if answers[tried - 1] { Ok(()) } else { Err("no".to_owned()) }
        });
        assert_eq!((held, tried), (Ok(()), 6));
    }

    #[test]
    fn the_error_is_what_was_seen_last() {
        let mut tried = 0;
        let error = hold(&check(1, 20), |_, _| {
            tried += 1;
            Err(format!("try {tried}"))
        })
        .unwrap_err();
        assert!(error.contains(&format!("try {tried}")), "{error}");
        // A check that holds, but not often enough in the time it has.
        let error = hold(&check(u32::MAX, 20), |_, _| Ok(())).unwrap_err();
        assert!(error.contains("in a row, expected"), "{error}");
    }

    /// A server that says the same to everyone.
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
    fn nobody_there_is_an_error_and_not_a_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
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
        // A child that stays behind does not hold us up.
        assert_eq!(command(&mut sh("sleep 3 &"), output(), Duration::from_secs(2)), Ok(()));
    }
}
