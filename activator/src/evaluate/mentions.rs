//! Whether what was evaluated has the name of its flake's tree in it.
//!
//! A path of a flake that is turned into a text has the tree's hash in it, which is another one after any change.
//! What such a text gets into is not the same for another tree, though all files that were read are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::store_tree::Root;
use crate::derivation;

/// No text is that long; whatever has more bytes is not looked into.
const LONGEST: u64 = 16 << 20;

/// How much of a hash is looked for: some take that much of it for a version.
const ENOUGH: usize = 7;

/// Looks for a tree in derivations and all that they are made from.
#[derive(Debug)]
pub(super) struct Search {
    root: Root,
    hash: String,
    /// What has no such tree in it, nor has anything that it is made from.
    clean: HashSet<PathBuf>,
}

impl Search {
    /// For a tree; `None` where its hash in the store does not follow from that of its content as it does for
    /// whatever is fetched.
    pub(super) fn new(root: Root) -> Option<Self> {
        let item = root.path().file_name()?;
        let hash = item.to_str()?.get(..ENOUGH)?.to_owned();
        root.is_copied_to(item).then(|| Self { root, hash, clean: HashSet::new() })
    }

    /// Whether a text has the tree's hash in it.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        memchr::memmem::find(text, self.hash.as_bytes()).is_some()
    }

    /// Whether a derivation, or anything it is made from, has the tree's hash in it, or is the tree under another
    /// name. What cannot be read may be.
    pub(super) fn finds(&mut self, derivation: &Path) -> bool {
        let Some(store) = derivation.parent() else {
            return true;
        };
        let (mut seen, mut pending) = (HashSet::new(), vec![derivation.to_owned()]);
        while let Some(path) = pending.pop() {
            if self.clean.contains(&path) || !seen.insert(path.clone()) {
                continue;
            }
            let Ok(text) = text(&path) else {
                return true;
            };
            let is_copy = path.file_name().is_some_and(|item| self.root.is_copied_to(item));
            if is_copy || text.as_ref().is_some_and(|text| self.is_in(text)) {
                return true;
            }
            let Some(text) = text else {
                continue;
            };
            if path.extension().is_some_and(|extension| extension == "drv") {
                let made_from = std::str::from_utf8(&text).ok().and_then(derivation::made_from);
                let Some(made_from) = made_from else {
                    return true;
                };
                pending.extend(made_from.into_iter().map(PathBuf::from));
            } else {
                pending.extend(references(store, &text).into_iter().filter(|path| path.exists()));
            }
        }
        self.clean.extend(seen);
        false
    }
}

/// What a file or a link says; `None` for a directory, which is a copy of files that were read.
fn text(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        Ok(None)
    } else if metadata.is_symlink() {
        std::fs::read_link(path).map(|target| Some(target.into_os_string().into_encoded_bytes()))
    } else if metadata.len() > LONGEST {
        Err(std::io::ErrorKind::FileTooLarge.into())
    } else {
        std::fs::read(path).map(Some)
    }
}

/// Paths of the store that a text names.
fn references(store: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut beginning = store.as_os_str().as_encoded_bytes().to_owned();
    beginning.push(b'/');
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    let name = |at: usize| {
        let rest = text.get(at + beginning.len()..)?;
        let end = rest.iter().position(|byte| !is_in_name(byte)).unwrap_or(rest.len());
        let name = std::str::from_utf8(rest.get(..end)?).ok()?;
        (name.len() > 33).then(|| store.join(name))
    };
    memchr::memmem::find_iter(text, &beginning).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "xfjmdkiq3q6xj17q3glpd2j6pmg6drq3";
    /// The same tree under another name.
    const COPY: &str = "h6lh8a3pjmd400cwwmmyibs9acv5dij5-config";
    /// The hash of its content.
    const NAR: &str = "651dc009a6d3ea07ba8b26f5bd22fd8279cb5ae00a19bf0b71bf318818bdd83d";

    fn search() -> Search {
        Search::new(root(&format!("/nix/store/{HASH}-source"))).unwrap()
    }

    fn root(path: &str) -> Root {
        Root::new(path.into(), NAR.to_owned()).unwrap()
    }

    #[test]
    fn the_name_of_a_tree_follows_from_its_content() {
        assert!(Search::new(root("/nix/store/8msmig1hvkbrfvabnza3am2xykz1755i-source")).is_none());
    }

    #[test]
    fn the_tree_is_found_wherever_it_is_reached() {
        let store = tempfile::tempdir().unwrap();
        let path = |letter: char, name: &str| {
            let base = format!("{}-{name}", String::from(letter).repeat(32));
            store.path().join(base).display().to_string()
        };
        let (top, middle, text, link) =
            (path('a', "top.drv"), path('b', "middle.drv"), path('c', "text"), path('d', "link"));
        let derivation = |out: &str, inputs: &str, sources: &str| {
            format!("Derive([(\"out\",\"{out}\",\"\",\"\")],[{inputs}],[{sources}],\"x\",\"/bin/sh\",[],[])")
        };
        let unbuilt = path('e', "unbuilt");
        std::fs::write(&top, derivation(&unbuilt, &format!("(\"{middle}\",[\"out\"])"), "")).unwrap();
        let sources = |more: &str| derivation("", "", &format!("\"{text}\",\"{link}\"{more}"));
        let (directory, copy) = (path('f', "directory"), store.path().join(COPY));
        std::fs::create_dir(&directory).unwrap();
        std::fs::create_dir(&copy).unwrap();
        let copied = format!(",\"{}\"", copy.display());
        for (contents, target, more, found) in [
            ("nothing".to_owned(), "nowhere".to_owned(), "", false),
            (format!("/nix/store/{HASH}-source/x"), "nowhere".to_owned(), "", true),
            (format!("version-{}", &HASH[..7]), "nowhere".to_owned(), "", true),
            ("nothing".to_owned(), format!("/nix/store/{HASH}-source"), "", true),
            (format!("round and round: {text} {directory} {unbuilt}"), "nowhere".to_owned(), "", false),
            ("nothing".to_owned(), "nowhere".to_owned(), copied.as_str(), true),
        ] {
            std::fs::write(&middle, sources(more)).unwrap();
            std::fs::write(&text, &contents).unwrap();
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let mut search = search();
            assert_eq!(search.finds(Path::new(&top)), found, "{contents} {target} {more}");
            assert_eq!(search.finds(Path::new(&top)), found, "asked again");
        }
        std::fs::remove_file(&middle).unwrap();
        assert!(search().finds(Path::new(&middle)), "who knows?");
    }
}
