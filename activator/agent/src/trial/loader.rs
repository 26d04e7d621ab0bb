//! Boot loaders that can start an entry once: systemd-boot and GRUB, as NixOS configures them.
//!
//! Both forget that entry before they start it. The system of an entry is known by the `init=` of its kernel.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use crate::files::replace;
use crate::program;

/// Variables of systemd-boot that hold an entry which a user has chosen: <https://systemd.io/BOOT_LOADER_INTERFACE/>.
const CHOSEN: [&str; 2] = [
    "/sys/firmware/efi/efivars/LoaderEntryPreferred-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
    "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f",
];
/// How many bytes of attributes are before the content of such a variable.
const ATTRIBUTES: usize = 4;
const GRUB: &str = "/boot/grub/grub.cfg";
/// GRUB's own variables: <https://www.gnu.org/software/grub/manual/grub/html_node/Environment-block.html>.
const GRUB_ENVIRONMENT: &str = "/boot/grub/grubenv";
const ENVIRONMENT_HEAD: &str = "# GRUB Environment Block\n";
const ENVIRONMENT_SIZE: usize = 1024;

/// Checks that there is a boot loader that can start an entry once.
pub(super) fn check_can_boot_once() -> Result<(), String> {
    let Err(systemd_boot) = systemd_boot_places() else {
        return Ok(());
    };
    grub_configuration().map(drop).map_err(|grub| neither(&systemd_boot, &grub))
}

fn neither(systemd_boot: &str, grub: &str) -> String {
    format!("systemd-boot: {systemd_boot}; GRUB: {grub}")
}

/// Makes the next boot, and no other, start `system`. The default has to be `fallback` already.
pub(super) fn boot_once(system: &str, fallback: &str) -> Result<(), String> {
    let Err(systemd_boot) = systemd_boot(system, fallback) else {
        return Ok(());
    };
    grub(system, fallback).map_err(|grub| neither(&systemd_boot, &grub))
}

/// Takes that back. It is done for both boot loaders, because it changes nothing for the one that is not used.
pub(super) fn forget() {
    let _ = program::output("bootctl", &["set-oneshot", ""]);
    if let Ok(environment) = std::fs::read_to_string(GRUB_ENVIRONMENT) {
        let _ = with_next_entry(&environment, "")
            .map(|text| replace(Path::new(GRUB_ENVIRONMENT), text.as_bytes(), 0o644));
    }
}

/// The configuration file of systemd-boot, and the directory of its entries.
fn systemd_boot_places() -> Result<(PathBuf, PathBuf), String> {
    let place = |option: &str| program::output("bootctl", &[option]).map(|path| PathBuf::from(path.trim()));
    let configuration = place("--print-esp-path")?.join("loader/loader.conf");
    let entries = place("--print-boot-path")?.join("loader/entries");
    if !configuration.exists() {
        return Err(format!("there is no {}", configuration.display()));
    }
    // An entry that a user has chosen in the menu, or by `bootctl`, overrides the configuration.
    let is_set = |variable: &&str| std::fs::read(variable).is_ok_and(|content| content.len() > ATTRIBUTES);
    if CHOSEN.iter().any(is_set) {
        return Err("another default was chosen (`bootctl set-default` or `set-preferred`)".to_owned());
    }
    Ok((configuration, entries))
}

fn systemd_boot(system: &str, fallback: &str) -> Result<(), String> {
    let (configuration, entries) = systemd_boot_places()?;
    let mut found = vec![];
    for entry in
        std::fs::read_dir(&entries).map_err(|error| format!("{}: {error}", entries.display()))?.flatten()
    {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        found.extend(Entry::of(&entry.file_name().to_string_lossy(), &text));
    }
    let text = std::fs::read_to_string(&configuration)
        .map_err(|error| format!("{}: {error}", configuration.display()))?;
    let entry = systemd_boot_entry(&text, &found, system, fallback)?;
    program::output("bootctl", &["set-oneshot", entry]).map(drop)
}

/// An entry of systemd-boot, which is a file.
#[derive(Debug)]
struct Entry {
    id: String,
    /// Whether systemd-boot still counts the tries of this entry. It may skip such an entry.
    is_counted: bool,
    /// The system of the entry.
    init: String,
}

impl Entry {
    fn of(file: &str, text: &str) -> Option<Self> {
        let id = entry_id(file)?;
        Some(Self { is_counted: id != file, id, init: init_of(text)?.to_owned() })
    }
}

/// The id of the entry of `system`, if the default is an entry of `fallback`: see loader.conf(5).
fn systemd_boot_entry<'a>(
    configuration: &str,
    entries: &'a [Entry],
    system: &str,
    fallback: &str,
) -> Result<&'a str, String> {
    // Of several lines with a key the last one counts.
    let value = |key: &str| {
        let lines = configuration.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        lines.filter(|(found, _)| *found == key).map(|(_, value)| value.trim()).next_back()
    };
    // `preferred` overrides `default`, as long as its entry is not known to be bad.
    let default = value("preferred").or_else(|| value("default")).unwrap_or_default();
    let at_default = entries.iter().find(|entry| entry.id == default && entry.init == fallback);
    let Some(at_default) = at_default else {
        return Err(format!("its default is `{default}`, not the system that the machine was booted with"));
    };
    if at_default.is_counted {
        return Err(format!("its default, `{default}`, was not found good yet (boot counting)"));
    }
    let entry = entries.iter().find(|entry| entry.init == system).ok_or("it has no entry for the system")?;
    Ok(&entry.id)
}

/// The id of an entry is its file name without the number of tries left: `nixos-generation-41.conf` for
/// `nixos-generation-41+2-1.conf`.
fn entry_id(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".conf")?;
    let counted =
        stem.rsplit_once('+').filter(|(_, tries)| tries.chars().all(|c| c.is_ascii_digit() || c == '-'));
    Some(format!("{}.conf", counted.map_or(stem, |(name, _)| name)))
}

/// The system whose `init` a kernel is told to start.
fn init_of(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix("init=")?.strip_suffix("/init"))
}

/// The configuration of GRUB, if it can start an entry once.
fn grub_configuration() -> Result<String, String> {
    let text = std::fs::read_to_string(GRUB).map_err(|error| format!("{GRUB}: {error}"))?;
    can_write_environment()?;
    knows_entries_for_once(&text)?;
    Ok(text)
}

fn knows_entries_for_once(text: &str) -> Result<(), String> {
    if !text.contains("next_entry") {
        return Err("its configuration does not know entries that are started once".to_owned());
    }
    // Then GRUB starts other entries only for a user who types a password, and nobody is at the console.
    if text.contains("superusers") {
        return Err("it asks for a password".to_owned());
    }
    Ok(())
}

fn grub(system: &str, fallback: &str) -> Result<(), String> {
    let entry = grub_entry(&grub_configuration()?, system, fallback)?;
    let old = std::fs::read_to_string(GRUB_ENVIRONMENT).unwrap_or_default();
    let new = with_next_entry(&old, &entry)?;
    replace(Path::new(GRUB_ENVIRONMENT), new.as_bytes(), 0o644).map_err(|error| error.to_string())
}

/// Checks that GRUB can write to its environment file, to forget the entry. Else it would start the entry again and
/// again.
///
/// GRUB overwrites the blocks of the file in place, which some file systems and devices do not allow.
fn can_write_environment() -> Result<(), String> {
    const BTRFS: u64 = 0x9123_683e;
    const ZFS: u64 = 0x2fc1_2fc1;
    let stat = statfs("/boot").map_err(|error| format!("/boot: {error}"))?;
    if [BTRFS, ZFS].iter().any(|kind| u64::try_from(stat.f_type) == Ok(*kind)) {
        return Err("it cannot write to the file system of /boot, and so not forget the entry".to_owned());
    }
    let device = program::output("findmnt", &["--noheadings", "--output", "SOURCE", "--target", "/boot"])?;
    let path = Path::new(device.trim()).canonicalize().unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if ["dm-", "md", "bcache"].iter().any(|kind| name.starts_with(kind)) {
        return Err(format!("it cannot write to {}, and so not forget the entry", device.trim()));
    }
    Ok(())
}

/// An entry of GRUB's menu: its place as GRUB numbers it, and its system. `1>0` is the first entry of the second entry,
/// a submenu.
#[derive(Debug, PartialEq, Eq)]
struct GrubEntry {
    place: String,
    system: Option<String>,
}

fn grub_entry(text: &str, system: &str, fallback: &str) -> Result<String, String> {
    let default = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set default="))
        .next_back()
        .unwrap_or_default();
    let default = default.trim_matches('"');
    let entries = grub_entries(text);
    let at_default = entries.iter().find(|entry| entry.place == default);
    if at_default.and_then(|entry| entry.system.as_deref()) != Some(fallback) {
        return Err(format!("its default is `{default}`, not the system that the machine was booted with"));
    }
    let entry = entries.into_iter().find(|entry| entry.system.as_deref() == Some(system));
    Ok(entry.ok_or("it has no entry for the system")?.place)
}

fn grub_entries(text: &str) -> Vec<GrubEntry> {
    /// What an open brace belongs to.
    enum Block {
        Menu(usize),
        Other,
    }
    let mut entries: Vec<GrubEntry> = vec![];
    let (mut blocks, mut next) = (vec![], vec![0]);
    for line in text.lines().map(str::trim) {
        let keyword = line.split_whitespace().next().unwrap_or_default();
        let is_item = matches!(keyword, "menuentry" | "submenu");
        if is_item && let Some(number) = next.last_mut() {
            let above = blocks.iter().filter_map(|block| match block {
                Block::Menu(number) => Some(number.to_string()),
                Block::Other => None,
            });
            let place: Vec<String> = above.chain([number.to_string()]).collect();
            if keyword == "submenu" {
                blocks.push(Block::Menu(*number));
                *number += 1;
                next.push(0);
                continue;
            }
            *number += 1;
            entries.push(GrubEntry { place: place.join(">"), system: None });
        }
        if line.ends_with('{') {
            blocks.push(Block::Other);
        } else if line == "}" {
            if let Some(Block::Menu(_)) = blocks.pop() {
                next.pop();
            }
        } else if let (Some(entry), Some(init)) = (entries.last_mut(), init_of(line)) {
            entry.system.get_or_insert_with(|| init.to_owned());
        }
    }
    entries
}

/// The text of the environment file with another entry for the next boot.
fn with_next_entry(environment: &str, entry: &str) -> Result<String, String> {
    let variables =
        environment.lines().filter(|line| !line.starts_with('#') && !line.starts_with("next_entry="));
    let mut text = ENVIRONMENT_HEAD.to_owned();
    for line in variables {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!("next_entry={entry}\n"));
    if text.len() > ENVIRONMENT_SIZE {
        return Err(format!("{GRUB_ENVIRONMENT} is full"));
    }
    Ok(text.clone() + &"#".repeat(ENVIRONMENT_SIZE - text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NixOS' `install-grub.pl` writes it, shortened.
    const CONFIGURATION: &str = r#"
search --set=drive1 --fs-uuid 0a
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ]; then
  set default="${next_entry}"
  set next_entry=
  save_env next_entry
  set timeout=1
else
  set default=0
  set timeout=5
fi
function menuentry_of_somebody {
  true
}
menuentry "NixOS" --class nixos --unrestricted {
search --set=drive1 --fs-uuid 0a
  linux ($drive1)//kernels/k-bzImage init=/nix/store/old-system/init loglevel=4
  initrd ($drive1)//kernels/i-initrd
}
menuentry "Windows" {
  chainloader +1
}
submenu "NixOS - All configurations" --class submenu {
menuentry "NixOS - Configuration 42 (2026-11-26)" --class nixos {
  linux ($drive1)//kernels/k-bzImage init=/nix/store/new-system/init loglevel=4
}
menuentry "NixOS - Configuration 41 (2026-11-20)" --class nixos {
  linux ($drive1)//kernels/k-bzImage init=/nix/store/old-system/init loglevel=4
}
}
menuentry "Memtest" {
  linux16 /memtest
}
"#;

    #[test]
    fn entries_of_grub_are_found_by_their_system() {
        let places: Vec<_> =
            grub_entries(CONFIGURATION).into_iter().map(|entry| (entry.place, entry.system)).collect();
        let system = |name: &str| Some(format!("/nix/store/{name}-system"));
        let expected =
            [("0", system("old")), ("1", None), ("2>0", system("new")), ("2>1", system("old")), ("3", None)];
        assert_eq!(places, expected.map(|(place, system)| (place.to_owned(), system)));
        let find = |text: &str, new: &str, old: &str| {
            grub_entry(text, &format!("/nix/store/{new}-system"), &format!("/nix/store/{old}-system"))
        };
        assert_eq!(find(CONFIGURATION, "new", "old"), Ok("2>0".to_owned()));
        assert!(find(CONFIGURATION, "third", "old").unwrap_err().contains("no entry"));
        assert!(find(CONFIGURATION, "old", "new").unwrap_err().contains("its default is `0`"));
        let saved = CONFIGURATION.replace("set default=0", "set default=\"${saved_entry}\"");
        assert!(find(&saved, "new", "old").unwrap_err().contains("saved_entry"));
        let foreign = CONFIGURATION.replace("next_entry", "other");
        assert!(knows_entries_for_once(&foreign).unwrap_err().contains("does not know"));
        let closed = format!("set superusers=\"admin\"\n{CONFIGURATION}");
        assert!(knows_entries_for_once(&closed).unwrap_err().contains("password"));
        assert_eq!(knows_entries_for_once(CONFIGURATION), Ok(()));
    }

    #[test]
    fn the_environment_of_grub_keeps_its_size_and_what_it_has() {
        let new = with_next_entry("", "2>0").unwrap();
        assert_eq!(new.len(), 1024);
        assert!(new.starts_with("# GRUB Environment Block\nnext_entry=2>0\n####"), "{new}");
        let old = format!("# GRUB Environment Block\nsaved_entry=x\nnext_entry=1\n{}", "#".repeat(970));
        let again = with_next_entry(&old, "").unwrap();
        assert!(again.starts_with("# GRUB Environment Block\nsaved_entry=x\nnext_entry=\n#"), "{again}");
        assert_eq!(again.len(), 1024);
        assert!(with_next_entry(&"a=b\n".repeat(300), "0").is_err());
    }

    #[test]
    fn entries_of_systemd_boot_are_named_without_their_tries() {
        assert_eq!(entry_id("nixos-generation-41.conf").as_deref(), Some("nixos-generation-41.conf"));
        assert_eq!(entry_id("nixos-generation-41+2-1.conf").as_deref(), Some("nixos-generation-41.conf"));
        assert_eq!(entry_id("a+b.conf").as_deref(), Some("a+b.conf"));
        assert_eq!(entry_id("README"), None);
        let text = "title NixOS\nlinux /EFI/k.efi\noptions init=/nix/store/a-system/init loglevel=4\n";
        assert_eq!(init_of(text), Some("/nix/store/a-system"));
        assert_eq!(init_of("options root=/dev/sda\n"), None);
    }

    #[test]
    fn the_default_of_systemd_boot_has_to_be_the_system_to_fall_back_to() {
        let system = |name: &str| format!("/nix/store/{name}-system");
        let entry = |file: &str, name: &str| {
            Entry::of(file, &format!("options init={}/init\n", system(name))).expect("an entry")
        };
        let entries = |old: &str| [entry(old, "old"), entry("nixos-generation-2+3.conf", "new")];
        let find = |configuration: &str, old: &str| {
            systemd_boot_entry(configuration, &entries(old), &system("new"), &system("old"))
                .map(str::to_owned)
        };
        let found = Ok("nixos-generation-2.conf".to_owned());
        let old = "nixos-generation-1.conf";
        assert_eq!(find("timeout 5\ndefault nixos-generation-1.conf\n", old), found);
        assert_eq!(find("default x.conf\ndefault  nixos-generation-1.conf \n", old), found);
        // As NixOS writes it where tries are counted.
        assert_eq!(find("preferred nixos-generation-1.conf\ndefault nixos-*\n", old), found);
        let counted =
            find("preferred nixos-generation-1.conf\ndefault nixos-*\n", "nixos-generation-1+3.conf");
        assert!(counted.unwrap_err().contains("not found good yet"));
        for other in ["default nixos-*\n", "default nixos-generation-2.conf\n", "timeout 5\n", ""] {
            assert!(find(other, old).unwrap_err().contains("its default is"), "{other}");
        }
        let only_old = [entry("a.conf", "old")];
        let nothing = systemd_boot_entry("default a.conf\n", &only_old, &system("new"), &system("old"));
        assert!(nothing.unwrap_err().contains("no entry"));
    }
}
