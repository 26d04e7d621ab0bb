//! What is in a system, and the short answer to "what will change?".

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The parts of a system that people ask about first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Version of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// `environment.systemPackages`: name and version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
    /// Units of the system manager and a hash of their text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, String>,
    /// Files in `/etc` and a hash of what they come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// `environment.systemPackages`: name and a hash of where it is, which is another one for another build of the
    /// same version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub builds: BTreeMap<String, String>,
    /// Parts of the activation script and a hash of their text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, String>,
    /// Specialisations and a hash of where they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub specialisations: BTreeMap<String, String>,
    /// Users; only the names say something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, String>,
    /// What the firewall lets in, e.g. `tcp/443`; only the names say something.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, String>,
}

/// How many names of a kind are spelled out.
const NAMED: usize = 8;

impl Inventory {
    /// A line on what replacing `self` by `new` changes, e.g.
    /// `nginx 1.26.2 -> 1.28.0; + curl 8.11.0; units changed: web.service`.
    pub fn changes(&self, new: &Self) -> String {
        let mut parts = Vec::new();
        match (&self.kernel, &new.kernel) {
            (Some(old), Some(new)) if old != new => parts.push(format!("kernel {old} -> {new}")),
            _ => {}
        }
        let packages = Difference::between(&self.packages, &new.packages);
        parts.extend(named(
            "",
            packages
                .changed
                .iter()
                .map(|(name, old, new)| format!("{name} {} -> {}", version(old), version(new))),
        ));
        let with_version = |(name, version): &(&str, &str)| format!("{name} {version}").trim_end().to_owned();
        parts.extend(named("+ ", packages.added.iter().map(with_version)));
        parts.extend(named("- ", packages.removed.iter().map(with_version)));

        parts.extend(named("rebuilt: ", self.rebuilt(new).into_iter()));

        let units = Difference::between(&self.units, &new.units);
        parts.extend(named("units added: ", units.added.iter().map(|(name, _)| (*name).to_owned())));
        parts.extend(named("units changed: ", units.changed.iter().map(|(name, ..)| (*name).to_owned())));
        parts.extend(named("units removed: ", units.removed.iter().map(|(name, _)| (*name).to_owned())));

        for (what, old, new) in [("users", &self.users, &new.users), ("open ports", &self.ports, &new.ports)]
        {
            let names = Difference::between(old, new);
            let name = |(name, _): &(&str, &str)| (*name).to_owned();
            parts.extend(named(&format!("{what} added: "), names.added.iter().map(name)));
            parts.extend(named(&format!("{what} removed: "), names.removed.iter().map(name)));
        }

        // systemd's own directory in /etc changes with every unit, which has been said already.
        let listed = |name: &&str| !name.starts_with("systemd/");
        let files = Difference::between(&self.files, &new.files);
        let one = |(name, _): &(&str, &str)| format!("/etc/{name}");
        parts.extend(named("files added: ", keep(&files.added, |(name, _)| listed(name)).iter().map(one)));
        let changed = files.changed.iter().map(|(name, ..)| (*name, "")).collect::<Vec<_>>();
        parts.extend(named("files changed: ", keep(&changed, |(name, _)| listed(name)).iter().map(one)));
        parts
            .extend(named("files removed: ", keep(&files.removed, |(name, _)| listed(name)).iter().map(one)));
        parts.extend(self.hidden_changes(new, parts.is_empty()).into_iter().flatten());
        if parts.is_empty() {
            // Something differs, or nobody would ask.
            return "details of its derivation".to_owned();
        }
        parts.join("; ")
    }

    /// What is neither a package, a unit nor a file; `is_all`: there was nothing else to say.
    fn hidden_changes(&self, new: &Self, is_all: bool) -> Vec<Option<String>> {
        // Every system has packages: this one was deployed when nothing of the kind was remembered.
        if self.builds.is_empty() {
            return vec![];
        }
        let name = |(name, _): &(&str, &str)| (*name).to_owned();
        let changed = |(name, ..): &(&str, &str, &str)| (*name).to_owned();
        let scripts = Difference::between(&self.scripts, &new.scripts);
        let specialisations = Difference::between(&self.specialisations, &new.specialisations);
        let mut parts = vec![
            named("activation scripts added: ", scripts.added.iter().map(name)),
            named("activation scripts changed: ", scripts.changed.iter().map(changed)),
            named("activation scripts removed: ", scripts.removed.iter().map(name)),
            named("specialisations added: ", specialisations.added.iter().map(name)),
            named("specialisations removed: ", specialisations.removed.iter().map(name)),
        ];
        // A specialisation is the system with something more: it changes with everything that has been said.
        if is_all && parts.iter().all(Option::is_none) {
            parts.push(named("specialisations changed: ", specialisations.changed.iter().map(changed)));
        }
        parts
    }

    /// Packages that are of the same version, but not the same, with that version.
    fn rebuilt(&self, new: &Self) -> Vec<String> {
        let builds = Difference::between(&self.builds, &new.builds);
        let same = |(name, ..): &(&str, &str, &str)| {
            let version = self.packages.get(*name)?;
            (new.packages.get(*name) == Some(version))
                .then(|| format!("{name} {version}").trim_end().to_owned())
        };
        builds.changed.iter().filter_map(same).collect()
    }

    /// The same for a machine of which nothing is known yet.
    pub fn summary(&self) -> String {
        let mut text = format!("new: {} packages, {} units", self.packages.len(), self.units.len());
        if let Some(kernel) = &self.kernel {
            let _ = write!(text, ", kernel {kernel}");
        }
        text
    }
}

fn keep<'a>(
    entries: &[(&'a str, &'a str)],
    wanted: impl Fn(&(&'a str, &'a str)) -> bool,
) -> Vec<(&'a str, &'a str)> {
    entries.iter().copied().filter(|entry| wanted(entry)).collect()
}

fn version(text: &str) -> &str {
    if text.is_empty() { "(no version)" } else { text }
}

/// `prefix` and the first names, or nothing where there are none.
fn named(prefix: &str, names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        return None;
    }
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    Some(format!("{prefix}{text}"))
}

/// What two lists of names and values differ in, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Names that only the new one has, with their values.
    pub added: Vec<(&'a str, &'a str)>,
    /// Names that only the old one has, with their values.
    pub removed: Vec<(&'a str, &'a str)>,
    /// Names with the old value and the new one.
    pub changed: Vec<(&'a str, &'a str, &'a str)>,
}

impl<'a> Difference<'a> {
    /// Compares the two.
    pub fn between(old: &'a BTreeMap<String, String>, new: &'a BTreeMap<String, String>) -> Self {
        let mut difference = Self { added: vec![], removed: vec![], changed: vec![] };
        for (name, value) in new {
            match old.get(name) {
                None => difference.added.push((name, value)),
                Some(before) if before != value => difference.changed.push((name, before, value)),
                Some(_) => {}
            }
        }
        for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
            difference.removed.push((name, value));
        }
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(packages: &[(&str, &str)], units: &[(&str, &str)]) -> Inventory {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Inventory {
            kernel: Some("6.6".into()),
            packages: map(packages),
            units: map(units),
            ..Inventory::default()
        }
    }

    #[test]
    fn changes_read_like_a_changelog() {
        let old =
            inventory(&[("nginx", "1.26.2"), ("wget", "1.2")], &[("a.service", "1"), ("b.service", "1")]);
        let new =
            inventory(&[("nginx", "1.28.0"), ("curl", "8.11")], &[("a.service", "2"), ("c.service", "1")]);
        assert_eq!(
            old.changes(&new),
            "nginx 1.26.2 -> 1.28.0; + curl 8.11; - wget 1.2; units added: c.service; units changed: \
             a.service; units removed: b.service"
        );
    }

    #[test]
    fn users_and_ports_are_named() {
        let with = |users: &[&str], ports: &[&str]| {
            let map = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
            Inventory { users: map(users), ports: map(ports), ..Inventory::default() }
        };
        let (old, new) =
            (with(&["root"], &["tcp/22", "tcp/80"]), with(&["alice", "root"], &["tcp/22", "tcp/443"]));
        assert_eq!(
            old.changes(&new),
            "users added: alice; open ports added: tcp/443; open ports removed: tcp/80"
        );
    }

    #[test]
    fn what_is_rebuilt_is_named_and_so_are_scripts_and_specialisations() {
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        fn of(packages: Pairs, builds: Pairs, scripts: Pairs, specialisations: Pairs) -> Inventory {
            let map = |pairs: Pairs| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            Inventory {
                packages: map(packages),
                builds: map(builds),
                scripts: map(scripts),
                specialisations: map(specialisations),
                ..Inventory::default()
            }
        }
        let old = of(
            &[("hello", "2.12"), ("curl", "8.1")],
            &[("hello", "1"), ("curl", "1")],
            &[("users", "1")],
            &[],
        );
        let new = of(
            &[("hello", "2.12"), ("curl", "8.2")],
            &[("hello", "2"), ("curl", "2")],
            &[("users", "2"), ("binsh", "1")],
            &[("graphical", "1")],
        );
        assert_eq!(
            old.changes(&new),
            "curl 8.1 -> 8.2; rebuilt: hello 2.12; activation scripts added: binsh; activation scripts \
             changed: users; specialisations added: graphical"
        );
        // Before this was known.
        let before = of(&[("hello", "2.12")], &[], &[], &[]);
        assert_eq!(before.changes(&new), "+ curl 8.2");
        // It changes with the system, which is said of the system.
        let with = |users, specialisation| {
            of(&[], &[("hello", "1")], &[("users", users)], &[("graphical", specialisation)])
        };
        assert_eq!(with("1", "1").changes(&with("1", "2")), "specialisations changed: graphical");
        assert_eq!(with("1", "1").changes(&with("2", "2")), "activation scripts changed: users");
    }

    #[test]
    fn a_change_without_a_name_is_still_a_change() {
        let same = inventory(&[], &[]);
        assert_eq!(same.changes(&same), "details of its derivation");
    }

    #[test]
    fn files_are_named_but_not_those_that_units_explain() {
        let with = |files: &[(&str, &str)]| Inventory {
            files: files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            ..Inventory::default()
        };
        let old = with(&[("motd", "1"), ("systemd/system", "1")]);
        let new = with(&[("motd", "2"), ("systemd/system", "2"), ("www/index.html", "1")]);
        assert_eq!(old.changes(&new), "files added: /etc/www/index.html; files changed: /etc/motd");
    }

    #[test]
    fn long_lists_are_cut() {
        let units: Vec<String> = (0..20).map(|n| format!("u{n:02}.service")).collect();
        let units: Vec<(&str, &str)> = units.iter().map(|name| (name.as_str(), "1")).collect();
        let text = inventory(&[], &[]).changes(&inventory(&[], &units));
        assert!(text.ends_with("u07.service and 12 more"), "{text}");
    }
}
