//! What changed between two generations of a machine's system.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use nixos_activator::StorePath;
use nixos_activator::contents::{self, Contents};
use nixos_activator::facts::{self, Facts};
use nixos_activator::generations::{self, Generation};
use nixos_activator::inventory::Difference;
use nixos_activator::ssh::{Connection, Pool, Wait};
use tokio_util::sync::CancellationToken;

use crate::deployed::Machine;
use crate::look;
use crate::problem::Problem;

/// The generations to compare, as they were asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
}

/// One side of the comparison.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    /// `None`: what runs is in no generation.
    number: Option<u64>,
    toplevel: StorePath,
}

/// Prints what changed.
pub(crate) async fn diff(
    machine: &Machine,
    wanted: Wanted,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let ssh = |source| Problem::Ssh { name: machine.name.clone(), source };
    let pool = Pool::default();
    let connection = pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await.map_err(ssh)?;
    let text = tokio::select! {
        text = compare(machine, &connection, wanted) => text,
        () = cancel.cancelled() => Err(ssh(nixos_activator::ssh::SshError::Cancelled)),
    };
    connection.close().await;
    pool.close().await;
    write!(std::io::stdout().lock(), "{}", text?)?;
    Ok(0)
}

async fn compare(machine: &Machine, connection: &Connection, wanted: Wanted) -> Result<String, Problem> {
    let name = || machine.name.clone();
    let facts = facts::gather(machine.name.as_str(), connection)
        .await
        .map_err(|source| Problem::Facts { name: name(), source })?;
    let generations = look::list(machine, connection).await?;
    let sides = sides(&generations, &facts, wanted)
        .map_err(|wanted| Problem::no_generation(&machine.name, wanted, &generations))?;
    let mut text = heading(&sides, facts.current_system.as_ref());
    let [from, to] = &sides;
    if from.toplevel == to.toplevel {
        text.push_str("\nThey are the same system.\n");
        return Ok(text);
    }
    let [old, new] = contents::look(connection, [&from.toplevel, &to.toplevel])
        .await
        .map_err(|source| Problem::Contents { name: name(), source })?;
    text.push_str(&differences(&old, &new));
    Ok(text)
}

/// What is compared with what; an error names the generation that is not there.
fn sides(generations: &[Generation], facts: &Facts, wanted: Wanted) -> Result<[Side; 2], String> {
    let numbered = |number: u64| {
        let found = generations.iter().find(|generation| generation.number == number);
        found.map(side).ok_or_else(|| number.to_string())
    };
    let to = match (wanted.to, &facts.current_system) {
        (Some(number), _) => numbered(number)?,
        (None, Some(runs)) => {
            let mut same = generations.iter().rev().filter(|generation| generation.toplevel == *runs);
            let current = same.clone().find(|generation| Some(generation.number) == facts.generation);
            let number = current.or_else(|| same.next()).map(|generation| generation.number);
            Side { number, toplevel: runs.clone() }
        }
        (None, None) => return Err("that it runs".to_owned()),
    };
    let before = || {
        let shown = to.number.map_or_else(|| "the current one".to_owned(), |number| number.to_string());
        let found = generations::before(generations, to.number, Some(&to.toplevel));
        found.map(side).ok_or_else(|| format!("before {shown}"))
    };
    let from = wanted.from.map_or_else(before, numbered)?;
    Ok([from, to])
}

fn side(generation: &Generation) -> Side {
    Side { number: Some(generation.number), toplevel: generation.toplevel.clone() }
}

fn heading(sides: &[Side; 2], runs: Option<&StorePath>) -> String {
    let line = |(word, side): (&str, &Side)| {
        let number =
            side.number.map_or_else(|| "no generation".to_owned(), |number| format!("generation {number}"));
        let mark = if runs == Some(&side.toplevel) { "  (runs)" } else { "" };
        format!("{word:<4}  {number}  {}{mark}\n", side.toplevel)
    };
    ["from", "to"].into_iter().zip(sides).map(line).collect()
}

/// The differences, a block for each kind of thing.
fn differences(old: &Contents, new: &Contents) -> String {
    let (before, after) = (&old.inventory, &new.inventory);
    let mut text = String::new();
    let versions =
        [("NixOS", &old.nixos_version, &new.nixos_version), ("kernel", &before.kernel, &after.kernel)];
    for (what, old, new) in versions.into_iter().filter(|(_, old, new)| old != new) {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        let _ = write!(text, "\n{what} {} -> {}\n", version(old), version(new));
    }
    text.push_str(&block("packages", "", Values::Versions, &before.packages, &after.packages));
    text.push_str(&block("units", "", Values::Hidden, &before.units, &after.units));
    text.push_str(&block("files", "/etc/", Values::Hidden, &before.files, &after.files));
    let added = new.closure.difference(&old.closure).count();
    let removed = old.closure.difference(&new.closure).count();
    let _ = write!(text, "\nstore paths: {added} new, {removed} gone\n");
    text
}

/// Whether the values of names say something to people.
#[derive(Clone, Copy)]
enum Values {
    Versions,
    Hidden,
}

fn block(
    title: &str,
    prefix: &str,
    values: Values,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> String {
    let difference = Difference::between(old, new);
    let value = |text: String| match values {
        Values::Versions => format!(" {text}"),
        Values::Hidden => String::new(),
    };
    let added = difference.added.iter().map(|(name, new)| (*name, '+', value((*new).to_owned())));
    let removed = difference.removed.iter().map(|(name, old)| (*name, '-', value((*old).to_owned())));
    let changed =
        difference.changed.iter().map(|(name, old, new)| (*name, '~', value(format!("{old} -> {new}"))));
    let mut lines: Vec<_> = added.chain(removed).chain(changed).collect();
    if lines.is_empty() {
        return String::new();
    }
    lines.sort();
    let lines: String =
        lines.iter().map(|(name, sign, value)| format!("  {sign} {prefix}{name}{value}\n")).collect();
    format!("\n{title}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixos_activator::inventory::Inventory;

    fn system(letter: char) -> StorePath {
        format!("/nix/store/{}-nixos-system-web", letter.to_string().repeat(32)).parse().unwrap()
    }

    /// Generations 1, 2, … of these systems.
    fn made(systems: &str) -> Vec<Generation> {
        let generation =
            |(number, letter)| Generation { number, made: 0, toplevel: system(letter), nixos_version: None };
        (1..).zip(systems.chars()).map(generation).collect()
    }

    fn chosen(systems: &str, runs: char, from: Option<u64>, to: Option<u64>) -> Result<String, String> {
        let facts = Facts { current_system: Some(system(runs)), ..Facts::default() };
        let sides = sides(&made(systems), &facts, Wanted { from, to })?;
        Ok(sides.map(|side| side.number.map_or("-".to_owned(), |number| number.to_string())).join(" "))
    }

    #[test]
    fn what_runs_is_compared_with_the_other_system_before_it() {
        assert_eq!(chosen("abc", 'c', None, None).as_deref(), Ok("2 3"));
        assert_eq!(chosen("abcb", 'b', None, None).as_deref(), Ok("3 4"));
        assert_eq!(chosen("abb", 'b', None, None).as_deref(), Ok("1 3"));
        assert_eq!(chosen("abc", 'x', None, None).as_deref(), Ok("3 -"));
        assert_eq!(chosen("abc", 'c', None, Some(2)).as_deref(), Ok("1 2"));
        assert_eq!(chosen("abc", 'c', Some(1), None).as_deref(), Ok("1 3"));
        assert_eq!(chosen("abc", 'c', Some(3), Some(1)).as_deref(), Ok("3 1"));
    }

    #[test]
    fn a_generation_that_is_not_there_is_named() {
        assert_eq!(chosen("abc", 'c', Some(7), None), Err("7".to_owned()));
        assert_eq!(chosen("abc", 'c', None, Some(7)), Err("7".to_owned()));
        assert_eq!(chosen("aa", 'a', None, None), Err("before 2".to_owned()));
        assert_eq!(chosen("", 'a', None, None), Err("before the current one".to_owned()));
    }

    #[test]
    fn differences_are_listed_by_kind_and_name() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let old = Contents {
            nixos_version: Some("24.11".to_owned()),
            inventory: Inventory {
                kernel: Some("6.6.63".to_owned()),
                packages: map(&[("curl", "8.11.0"), ("wget", "1.2"), ("same", "1")]),
                units: map(&[("a.service", "/1"), ("b.service", "/1")]),
                ..Inventory::default()
            },
            closure: [system('a'), system('b')].into(),
        };
        let new = Contents {
            nixos_version: Some("24.11".to_owned()),
            inventory: Inventory {
                kernel: Some("6.6.70".to_owned()),
                packages: map(&[("curl", "8.12.0"), ("same", "1"), ("htop", "3.3.0")]),
                units: map(&[("a.service", "/2"), ("c.service", "/1")]),
                files: map(&[("motd", "/1")]),
                ..Inventory::default()
            },
            closure: [system('b'), system('c'), system('d')].into(),
        };
        assert_eq!(
            differences(&old, &new),
            "\nkernel 6.6.63 -> 6.6.70\n\npackages\n  ~ curl 8.11.0 -> 8.12.0\n  + htop 3.3.0\n  - wget 1.2\n\
             \nunits\n  ~ a.service\n  - b.service\n  + c.service\n\nfiles\n  + /etc/motd\n\
             \nstore paths: 2 new, 1 gone\n"
        );
    }

    #[test]
    fn the_heading_says_what_runs() {
        let sides =
            [Side { number: Some(2), toplevel: system('a') }, Side { number: None, toplevel: system('b') }];
        let text = heading(&sides, Some(&system('b')));
        assert_eq!(
            text,
            format!("from  generation 2  {}\nto    no generation  {}  (runs)\n", system('a'), system('b'))
        );
    }
}
