//! Verbs that change nothing.

use std::io::Write as _;
use std::time::Duration;

use nixos_activator::facts::FactsError;
use nixos_activator::generations::{self, Generation};
use nixos_activator::ssh::{Connection, Pool, SshError, Wait};
use nixos_activator::status::{self, Status};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::deployed::Machine;
use crate::problem::Problem;

/// What may be wrong with a machine: bits of the exit code, those of NixOps' `check`. That a machine does not exist
/// is known to Terraform, which has no such machine in state; missing here is one that was declared, and nothing was
/// ever deployed on it.
const MISSING: u8 = 1;
const DOWN: u8 = 2;
const LETS_NOBODY_IN: u8 = 4;
const DISKS: u8 = 8;
const UNITS: u8 = 16;

/// A disk with less than this share left is as good as full.
const FULL: f64 = 0.05;

/// One machine, looked at.
#[derive(Debug, Serialize)]
struct Seen {
    machine: String,
    deployment: String,
    /// What the state says.
    deployed_system: Option<String>,
    problem: Option<String>,
    flags: u8,
    status: Option<Status>,
}

/// Shows how machines are.
pub(crate) async fn status(
    machines: &[Machine],
    json: bool,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let pool = Pool::default();
    let seen = futures::future::join_all(machines.iter().map(|machine| see(&pool, machine, cancel))).await;
    pool.close().await;
    let mut output = std::io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&seen).map_err(|error| Problem::State(error.to_string()))?;
        writeln!(output, "{text}")?;
    } else {
        let heading = ["MACHINE", "STATE", "SYSTEM", "GENERATION", "LOAD", "DISKS", "UNITS"];
        let rows: Vec<Vec<String>> = seen.iter().map(row).collect();
        write!(output, "{}", table(&heading, &rows))?;
        for seen in &seen {
            if let Some(problem) = &seen.problem {
                writeln!(output, "\n{}: {problem}", seen.machine)?;
            }
        }
    }
    Ok(seen.iter().fold(0, |flags, seen| flags | seen.flags))
}

async fn see(pool: &Pool, machine: &Machine, cancel: &CancellationToken) -> Seen {
    let look = async {
        let connection = pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await?;
        let status = status::look(machine.name.as_str(), &connection).await;
        connection.close().await;
        status
    };
    let (status, problem, flags) = match look.await {
        Ok(status) => {
            let flags = flags(&status);
            (Some(status), None, flags)
        }
        Err(FactsError::Ssh(error)) => {
            let down = matches!(error, SshError::Unreachable { .. } | SshError::Lost { .. });
            (None, Some(error.to_string()), if down { DOWN } else { LETS_NOBODY_IN })
        }
        Err(error) => (None, Some(error.to_string()), LETS_NOBODY_IN),
    };
    Seen {
        machine: machine.name.to_string(),
        deployment: machine.deployment.clone(),
        deployed_system: machine.toplevel.clone(),
        problem,
        flags: if machine.toplevel.is_none() { flags | MISSING } else { flags },
        status,
    }
}

fn flags(status: &Status) -> u8 {
    let bad_disk = |disk: &status::Disk| {
        // A size is far below where a float is not exact.
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let left = disk.available as f64 / disk.size.max(1) as f64;
        left < FULL || (disk.read_only && disk.mount_point == "/")
    };
    let disks = if status.disks.iter().any(bad_disk) { DISKS } else { 0 };
    let units = if status.facts.failed_units.is_empty() { 0 } else { UNITS };
    disks | units
}

fn row(seen: &Seen) -> Vec<String> {
    let unknown = || "-".to_owned();
    let Some(status) = &seen.status else {
        let state = if seen.flags & DOWN == 0 { "lets nobody in" } else { "down" };
        return [&[seen.machine.clone(), state.to_owned()][..], &vec![unknown(); 5]].concat();
    };
    let current = status.facts.current_system.as_ref().map(ToString::to_string);
    let mut system = match (&current, &seen.deployed_system) {
        (Some(current), Some(deployed)) if current == deployed => "as deployed".to_owned(),
        (Some(_), Some(_)) => match &status.facts.specialisation {
            Some(name) => format!("specialisation {name}"),
            None => "another one".to_owned(),
        },
        (_, None) => "not deployed".to_owned(),
        _ => unknown(),
    };
    if status.facts.reboot_required {
        system.push_str(", reboot");
    }
    let fullest = status
        .disks
        .iter()
        .map(|disk| disk.size.saturating_sub(disk.available) * 100 / disk.size.max(1))
        .max();
    let read_only = status.disks.iter().filter(|disk| disk.read_only).count();
    let mut disks = fullest.map_or_else(unknown, |percent| format!("{percent} %"));
    if read_only > 0 {
        disks = format!("{disks}, {read_only} read-only");
    }
    let units = match status.facts.failed_units.as_slice() {
        [] => "ok".to_owned(),
        failed => format!("failed: {}", failed.join(" ")),
    };
    let load =
        status.load.map_or_else(unknown, |[one, five, fifteen]| format!("{one:.2} {five:.2} {fifteen:.2}"));
    let generation = status.facts.generation.map_or_else(unknown, |number| number.to_string());
    vec![seen.machine.clone(), "up".to_owned(), system, generation, load, disks, units]
}

/// Columns as wide as what is in them.
fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|text| text.len())).max().unwrap_or_default()
    };
    let heading = heading.iter().map(|text| (*text).to_owned()).collect();
    std::iter::once(&heading)
        .chain(rows)
        .map(|row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        })
        .collect()
}

/// Lists secrets by name; nobody is shown more.
pub(crate) async fn secrets(machines: &[Machine], cancel: &CancellationToken) -> Result<u8, Problem> {
    let pool = Pool::default();
    let found = futures::future::try_join_all(machines.iter().map(async |machine| {
        let Some(owner) = machine.owner.as_ref().filter(|_| !machine.secrets.is_empty()) else {
            return Ok((machine, std::collections::BTreeMap::new()));
        };
        let ssh = |source| Problem::Ssh { name: machine.name.clone(), source };
        let connection = pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await.map_err(ssh)?;
        let there = nixos_activator::secrets::look(&connection, owner).await;
        connection.close().await;
        Ok::<_, Problem>((machine, there.map_err(ssh)?))
    }))
    .await;
    pool.close().await;
    let found = found?;
    let mut rows = vec![];
    let mut code = 0;
    for (machine, there) in &found {
        for (secret, fingerprint) in &machine.secrets {
            let is_there = there.get(secret) == Some(fingerprint);
            code |= u8::from(!is_there);
            let state = if is_there { "as it was sent" } else { "missing or altered" };
            rows.push(vec![machine.name.to_string(), secret.clone(), state.to_owned()]);
        }
    }
    write!(std::io::stdout().lock(), "{}", table(&["MACHINE", "SECRET", "STATE"], &rows))?;
    Ok(code)
}

/// The generations a machine has, oldest first.
pub(crate) async fn list(machine: &Machine, connection: &Connection) -> Result<Vec<Generation>, Problem> {
    let ssh = |source| Problem::Ssh { name: machine.name.clone(), source };
    generations::list(connection).await.map_err(ssh)
}

/// Lists the generations of a machine.
pub(crate) async fn generations(machine: &Machine, cancel: &CancellationToken) -> Result<u8, Problem> {
    let ssh = |source| Problem::Ssh { name: machine.name.clone(), source };
    let pool = Pool::default();
    let connection = pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await.map_err(ssh)?;
    let generations = list(machine, &connection).await?;
    let facts = nixos_activator::facts::gather(machine.name.as_str(), &connection).await;
    connection.close().await;
    pool.close().await;
    let facts = facts.map_err(|source| Problem::Facts { name: machine.name.clone(), source })?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let rows: Vec<Vec<String>> = generations
        .iter()
        .map(|generation| {
            let marks = [
                (facts.generation == Some(generation.number), "boots"),
                (facts.current_system.as_ref() == Some(&generation.toplevel), "runs"),
                (facts.booted_system.as_ref() == Some(&generation.toplevel), "was booted"),
            ];
            let marks = marks.iter().filter(|(is, _)| *is);
            let mut marks: Vec<String> = marks.map(|(_, mark)| (*mark).to_owned()).collect();
            if let Some(name) = &facts.specialisation
                && facts.profile.as_ref() == Some(&generation.toplevel)
            {
                marks.push(format!("runs specialisation {name}"));
            }
            let age = now.saturating_sub(Duration::from_secs(generation.made));
            vec![
                generation.number.to_string(),
                format!("{} ago", rounded(age)),
                generation.toplevel.to_string(),
                marks.join(", "),
            ]
        })
        .collect();
    write!(std::io::stdout().lock(), "{}", table(&["GENERATION", "MADE", "SYSTEM", ""], &rows))?;
    Ok(0)
}

/// In the largest unit of which there is at least one.
fn rounded(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(|| format!("{seconds} s"), |(length, name)| format!("{} {name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nixos_activator::ssh::{Endpoint, HostKeyPolicy, Key};

    use super::*;

    #[test]
    fn the_flags_are_those_of_nixops() {
        let disk = |available, read_only| status::Disk {
            mount_point: "/".to_owned(),
            size: 100,
            available,
            read_only,
        };
        let with = |disks: Vec<status::Disk>| Status { disks, ..Status::default() };
        assert_eq!(flags(&with(vec![disk(50, false)])), 0);
        assert_eq!(flags(&with(vec![disk(4, false)])), DISKS);
        assert_eq!(flags(&with(vec![disk(50, true)])), DISKS);
        let mut status = with(vec![]);
        status.facts.failed_units = vec!["a.service".to_owned()];
        assert_eq!(flags(&status), UNITS);
    }

    #[tokio::test]
    async fn where_nothing_was_deployed_that_is_told_too() {
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            // Nobody listens there.
            port: Some(1),
            user: "root".to_owned(),
            key: Key::Ambient,
            host_public_key: None,
            host_key_policy: HostKeyPolicy::Strict,
            bastion: None,
            options: vec![],
            elevate: vec![],
            elevate_password: None,
            connect_timeout: Duration::from_secs(5),
            compress: false,
        };
        let mut machine = Machine {
            name: "web".parse().unwrap(),
            deployment: "nixos_deployment.site".to_owned(),
            endpoint,
            toplevel: None,
            owner: None,
            secrets: BTreeMap::new(),
        };
        let cancel = CancellationToken::new();
        assert_eq!(see(&Pool::default(), &machine, &cancel).await.flags, MISSING | DOWN);
        machine.toplevel = Some("/nix/store/x".to_owned());
        assert_eq!(see(&Pool::default(), &machine, &cancel).await.flags, DOWN);
    }

    #[test]
    fn ages_are_rounded_down() {
        let text = |seconds| rounded(Duration::from_secs(seconds));
        assert_eq!([text(59), text(60), text(7199), text(86_400)], ["59 s", "1 min", "1 h", "1 d"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".to_owned(), "up".to_owned()], vec!["longer".to_owned(), "down".to_owned()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME    STATE\na       up\nlonger  down\n");
    }
}
