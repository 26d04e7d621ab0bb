//! Whether what was evaluated has the name of its flake's tree in it.
//!
//! A path of a flake that is turned into a text has the tree's hash in it, which is another one after any change. What such a text gets
//! into is not the same for another tree, though all files that were read are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// No text is that long; whatever has more bytes is not looked into.
const LONGEST: u64 = 16 << 20;

/// Looks for a hash in derivations and all that they are made from.
#[derive(Debug)]
pub(super) struct Search {
    hash: String,
    /// What has no such hash in it, nor has anything that it is made from.
    clean: HashSet<PathBuf>,
}

impl Search {
    pub(super) fn new(hash: String) -> Self {
        Self { hash, clean: HashSet::new() }
    }

    /// Whether a derivation, or anything it is made from, has the hash in it. What cannot be read may have.
    pub(super) fn finds(&mut self, derivation: &Path) -> bool {
        let Some(store) = derivation.parent() else {
            return true;
        };
        let (mut seen, mut pending) = (HashSet::new(), vec![derivation.to_owned()]);
        while let Some(path) = pending.pop() {
            if self.clean.contains(&path) || !seen.insert(path.clone()) {
                continue;
            }
            let text = match text(&path) {
                Ok(Some(text)) => text,
                // The output of a derivation that was not built: the derivation says it all.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && path != derivation => continue,
                Err(_) => return true,
                Ok(None) => continue,
            };
            if memchr::memmem::find(&text, self.hash.as_bytes()).is_some() {
                return true;
            }
            pending.extend(references(store, &text));
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

    #[test]
    fn the_hash_is_found_wherever_it_is_reached() {
        let store = tempfile::tempdir().unwrap();
        let path = |letter: char, name: &str| {
            let base = format!("{}-{name}", String::from(letter).repeat(32));
            store.path().join(base).display().to_string()
        };
        let (top, middle, text, link) =
            (path('a', "top.drv"), path('b', "middle.drv"), path('c', "text"), path('d', "link"));
        let unbuilt = path('e', "unbuilt");
        std::fs::write(&top, format!("Derive([(\"out\",\"{unbuilt}\")],[(\"{middle}\",[\"out\"])])"))
            .unwrap();
        std::fs::write(&middle, format!("Derive([],[\"{text}\",\"{link}\"])")).unwrap();
        std::fs::create_dir(path('f', "directory")).unwrap();
        for (contents, target, found) in [
            ("nothing".to_owned(), "nowhere".to_owned(), false),
            (format!("/nix/store/{HASH}-source/x"), "nowhere".to_owned(), true),
            ("nothing".to_owned(), format!("/nix/store/{HASH}-source"), true),
            (format!("a round {top} {}", path('f', "directory")), "nowhere".to_owned(), false),
        ] {
            std::fs::write(&text, &contents).unwrap();
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let mut search = Search::new(HASH.to_owned());
            assert_eq!(search.finds(Path::new(&top)), found, "{contents} {target}");
            assert_eq!(search.finds(Path::new(&top)), found, "asked again");
        }
        std::fs::remove_file(&middle).unwrap();
        assert!(Search::new(HASH.to_owned()).finds(Path::new(&middle)), "who knows?");
    }
}
