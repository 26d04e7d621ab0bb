//! What is in systems that were built, as the machine that has them says it: one round trip for two of them, nothing
//! written there.
//!
//! An [`Inventory`] of a specification is told by its evaluation; this one by the store, so it works for generations
//! of which nobody has the specification any more. Packages are everything a system needs, not only what was asked
//! for; a unit and a file stand for the store path they lead to.

use std::collections::{BTreeMap, BTreeSet};

use crate::StorePath;
use crate::inventory::Inventory;
use crate::ssh::{Connection, SshError};

/// What is in a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The NixOS version.
    pub nixos_version: Option<String>,
    /// Kernel, packages, units and files; no users and no ports, which a store does not tell.
    pub inventory: Inventory,
    /// Everything it needs, and itself.
    pub closure: BTreeSet<StorePath>,
}

/// Why the contents are not known.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The connection.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The machine could not list them.
    #[error("{host} could not list what is in its systems (exit {code:?}): {message}")]
    Unreadable {
        /// The host.
        host: String,
        /// Exit code of `sh`.
        code: Option<i32>,
        /// What it said.
        message: String,
    },
}

/// Prints `key=value` lines for each system; a unit or a file is a name, a tab and where it leads.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin"
leads() { printf '%s=%s\t%s\n' "$1" "$2" "$(readlink -f "$3")"; }
for system in "$@"; do
  echo "system=$system"
  [ ! -r "$system/nixos-version" ] || echo "version=$(cat "$system/nixos-version")"
  [ ! -e "$system/kernel" ] || echo "kernel=$(readlink -f "$system/kernel")"
  closure="$(nix-store -qR "$system")" || exit 1
  printf '%s\n' "$closure" | sed 's/^/path=/'
  units="$system/etc/systemd/system"
  for unit in "$units"/* "$units"/*.d/*; do
    # A masked one leads to /dev/null.
    [ ! -e "$unit" ] || [ -d "$unit" ] || leads unit "${unit#"$units"/}" "$unit"
  done
  find "$system/etc/" -type l | while IFS= read -r file; do
    leads file "${file#"$system/etc/"}" "$file"
  done
done
echo end=yes
"#;

/// Outputs of a package whose name stands behind its version in a store path.
const OUTPUTS: &[&str] = &[
    "bin", "data", "debug", "dev", "devdoc", "dist", "doc", "info", "lib", "libgcc", "man", "modules", "out",
    "terminfo",
];

/// Asks the machine for what is in two of its systems.
pub async fn look(connection: &Connection, systems: [&StorePath; 2]) -> Result<[Contents; 2], ContentsError> {
    let [old, new] = systems.map(StorePath::as_str);
    let answer = connection.run(&["sh", "-s", old, new], SCRIPT.as_bytes()).await?;
    parse(&answer.text()).ok_or_else(|| ContentsError::Unreadable {
        host: connection.endpoint().host.clone(),
        code: answer.code,
        message: answer.stderr.trim().to_owned(),
    })
}

/// What the script said of one system.
#[derive(Default)]
struct Said {
    toplevel: Option<StorePath>,
    version: Option<String>,
    kernel: Option<StorePath>,
    closure: BTreeSet<StorePath>,
    units: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

/// Reads the script's output; `None` when it did not run to its end.
fn parse(text: &str) -> Option<[Contents; 2]> {
    let mut systems: Vec<Said> = vec![];
    let mut complete = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if key == "system" {
            systems.push(Said { toplevel: value.parse().ok(), ..Said::default() });
        }
        complete = key == "end";
        let Some(system) = systems.last_mut() else {
            continue;
        };
        let leads = || value.split_once('\t').map(|(name, path)| (name.to_owned(), path.to_owned()));
        match key {
            "version" => system.version = Some(value.to_owned()),
            "kernel" => system.kernel = store_path(value),
            "path" => system.closure.extend(value.parse().ok()),
            "unit" => system.units.extend(leads()),
            // Units have been said already.
            "file" => system.files.extend(leads().filter(|(name, _)| !is_of_units(name))),
            _ => {}
        }
    }
    let systems: [Said; 2] = systems.try_into().ok().filter(|_| complete)?;
    Some(systems.map(contents))
}

fn is_of_units(name: &str) -> bool {
    name.strip_prefix("systemd/system").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path in the store in a path of a file.
fn store_path(file: &str) -> Option<StorePath> {
    let end = file.match_indices('/').nth(3).map_or(file.len(), |(at, _)| at);
    file.get(..end)?.parse().ok()
}

fn contents(said: Said) -> Contents {
    let kernel = said.kernel.as_ref().map(package);
    let told: BTreeSet<&str> = said.units.values().chain(said.files.values()).map(String::as_str).collect();
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for path in said.closure.iter().filter(|path| Some(*path) != said.toplevel.as_ref()) {
        let (name, version) = package(path);
        // What has no version is a part of the configuration: a script, a file, a wrapper. The rest is said elsewhere.
        if !version.is_empty() && !told.contains(path.as_str()) && kernel != Some((name, version)) {
            packages.entry(name).or_default().insert(version);
        }
    }
    let together = |versions: BTreeSet<&str>| versions.into_iter().collect::<Vec<_>>().join(", ");
    let packages =
        packages.into_iter().map(|(name, versions)| (name.to_owned(), together(versions))).collect();
    let kernel = kernel.map(|(_, version)| version.to_owned()).filter(|version| !version.is_empty());
    let inventory =
        Inventory { kernel, packages, units: said.units, files: said.files, ..Inventory::default() };
    Contents { nixos_version: said.version, inventory, closure: said.closure }
}

/// Name and version, whichever output of it a path is.
fn package(path: &StorePath) -> (&str, &str) {
    let (name, version) = path.name_and_version();
    let output = version.rsplit_once('-').filter(|(_, output)| OUTPUTS.contains(output));
    (name, output.map_or(version, |(version, _)| version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Difference;

    const A: &str = "/nix/store/00000000000000000000000000000000";
    const B: &str = "/nix/store/11111111111111111111111111111111";

    /// What the script says of a small system.
    fn said(hash: &str, curl: &str, motd: &str) -> String {
        format!(
            "system={hash}-nixos-system-web-24.11\nversion=24.11\nkernel={A}-linux-6.6.63/bzImage\n\
             path={hash}-nixos-system-web-24.11\npath={A}-linux-6.6.63\npath={A}-linux-6.6.63-modules\n\
             path={hash}-curl-{curl}\npath={hash}-curl-{curl}-bin\npath={A}-openssl-1.1.1w\npath={A}-openssl-3.0.14-dev\n\
             path={hash}-etc-motd\npath={A}-wg-quick-0-unit-7\npath={A}-wrapper\n\
             unit=wg-quick-0.service\t{A}-wg-quick-0-unit-7\nunit=nginx.service.d/overrides.conf\t{hash}-unit/x\n\
             file=motd\t{motd}-etc-motd\nfile=systemd/system\t{hash}-system-units\nfile=systemd/system/a.service\t{hash}-a\n\
             file=systemd/journald.conf\t{A}-journald.conf\n"
        )
    }

    #[test]
    fn what_a_machine_lists_becomes_an_inventory() {
        let text = format!("{}{}end=yes\n", said(A, "8.11.0", A), said(B, "8.12.0", B));
        let [old, new] = parse(&text).unwrap();
        assert_eq!(old.nixos_version.as_deref(), Some("24.11"));
        assert_eq!(old.inventory.kernel.as_deref(), Some("6.6.63"));
        let packages: Vec<_> =
            old.inventory.packages.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
        assert_eq!(
            packages,
            [("curl", "8.11.0"), ("openssl", "1.1.1w, 3.0.14")],
            "no kernel, no unit, nothing without a version, and not the system itself"
        );
        let files: Vec<&String> = old.inventory.files.keys().collect();
        assert_eq!(files, ["motd", "systemd/journald.conf"]);
        assert_eq!(old.closure.len(), 10);

        let packages = Difference::between(&old.inventory.packages, &new.inventory.packages);
        assert_eq!(packages.changed, [("curl", "8.11.0", "8.12.0")]);
        let units = Difference::between(&old.inventory.units, &new.inventory.units);
        assert_eq!(units.changed.len(), 1);
        assert_eq!(units.changed[0].0, "nginx.service.d/overrides.conf");
        assert_eq!((units.added.len(), units.removed.len()), (0, 0));
    }

    #[test]
    fn half_an_answer_is_none() {
        let one = said(A, "8.11.0", A);
        assert_eq!(parse(""), None);
        assert_eq!(parse(&format!("{one}{one}")), None, "it was cut");
        assert_eq!(parse(&format!("{one}end=yes\n")), None, "a system is missing");
    }
}
