//! The generations of a machine's system profile: one round trip, nothing written there.

use crate::StorePath;
use crate::ssh::{Connection, SshError};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number in the profile.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// The system it leads to.
    pub toplevel: StorePath,
    /// The NixOS version of that.
    pub nixos_version: Option<String>,
}

/// Prints `number seconds path version` for each. One that leads nowhere is none.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"
cd /nix/var/nix/profiles && for link in system-*-link; do
  [ -e "$link" ] || continue
  number="${link#system-}"
  version=; [ ! -r "$link/nixos-version" ] || version="$(cat "$link/nixos-version")"
  echo "${number%-link} $(stat -c %Y "$link") $(readlink -f "$link") $version"
done
"#;

/// Those that a machine has, oldest first.
pub async fn list(connection: &Connection) -> Result<Vec<Generation>, SshError> {
    let answer = connection.run(&["sh", "-s"], SCRIPT.as_bytes()).await?;
    Ok(parse(&answer.text()))
}

/// The newest one that leads to another system than `runs` and was made before generation `number`; whenever it was
/// made where that is not known. The same system may be there more than once.
pub fn before<'a>(
    generations: &'a [Generation],
    number: Option<u64>,
    runs: Option<&StorePath>,
) -> Option<&'a Generation> {
    generations.iter().rev().find(|generation| {
        number.is_none_or(|number| generation.number < number) && Some(&generation.toplevel) != runs
    })
}

fn parse(text: &str) -> Vec<Generation> {
    let generation = |line: &str| {
        let mut words = line.split(' ');
        Some(Generation {
            number: words.next()?.parse().ok()?,
            made: words.next()?.parse().ok()?,
            toplevel: words.next()?.parse().ok()?,
            nixos_version: words.next().filter(|version| !version.is_empty()).map(str::to_owned),
        })
    };
    let mut generations: Vec<_> = text.lines().filter_map(generation).collect();
    generations.sort_by_key(|generation| generation.number);
    generations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_come_in_order() {
        let path = "/nix/store/00000000000000000000000000000000-nixos-system-web-24.11";
        let found =
            parse(&format!("10 1700000100 {path} 24.11.123\n9 1700000000 {path} \nsh: no such thing\n"));
        assert_eq!(found.iter().map(|one| one.number).collect::<Vec<_>>(), [9, 10]);
        assert_eq!(found[0].nixos_version, None);
        assert_eq!(found[1].nixos_version.as_deref(), Some("24.11.123"));
        assert_eq!(found[1].toplevel.as_str(), path);
    }

    #[test]
    fn the_one_before_is_another_system() {
        let path = |c: char| format!("/nix/store/{}-system", c.to_string().repeat(32));
        let systems = [(1, 'a'), (2, 'b'), (3, 'c'), (4, 'b')];
        let lines: String =
            systems.iter().map(|(n, system)| format!("{n} 17 {} \n", path(*system))).collect();
        let all = parse(&lines);
        let before = |number, runs: char| {
            super::before(&all, number, path(runs).parse().ok().as_ref()).map(|found| found.number)
        };
        assert_eq!(before(Some(4), 'b'), Some(3));
        assert_eq!(before(Some(3), 'c'), Some(2));
        assert_eq!(before(Some(2), 'b'), Some(1));
        assert_eq!(before(Some(1), 'a'), None);
        assert_eq!(before(None, 'b'), Some(3), "it runs, and nobody knows since when");
        assert_eq!(before(None, 'd'), Some(4));
    }
}
