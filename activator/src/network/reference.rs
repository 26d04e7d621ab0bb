//! Flake references to local directories, written so that Nix finds the directory whatever its name is.
//!
//! Nix takes a plain path for part of a URL: it cuts the path at `#` and `?`, and older versions refuse blanks, `%`
//! and whatever is not ASCII. So a directory with such a name becomes a URL here, in which those characters are
//! percent-encoded. Which URL that is (`git+file:` or `path:`) follows Nix' own rule for plain paths.

use std::path::{Path, PathBuf};

use super::error::SpecError;
use crate::nix::Version;

/// The first version of which it is known that it decodes the path of a URL. Debian's releases have this one and 2.8,
/// which does not.
const DECODES: Version = Version { major: 2, minor: 26 };

/// How a reference to a directory begins.
const SCHEMES: [&str; 2] = ["path:", "git+file:"];

/// A path of a file or directory that is there, without links.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, SpecError> {
    let path =
        std::fs::canonicalize(path).map_err(|source| SpecError::Missing { path: path.to_owned(), source })?;
    if path.to_str().is_none() { Err(SpecError::NotText(path)) } else { Ok(path) }
}

/// `reference` with an absolute path that Nix can read; what does not lead to a directory here stays as it is.
pub(super) fn resolved(reference: &str) -> Result<String, SpecError> {
    let malformed = || SpecError::Flake(reference.to_owned());
    if reference.trim().is_empty() || reference.contains(char::is_control) {
        return Err(malformed());
    }
    for scheme in SCHEMES {
        if let Some(path) = reference.strip_prefix(scheme) {
            // An authority is empty: `git+file:///srv/infra`.
            let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
            let Some((directory, rest)) = split(path, Path::is_dir) else {
                return Ok(reference.to_owned());
            };
            let slashes = if scheme == "path:" { "" } else { "//" };
            return Ok(format!("{scheme}{slashes}{}{rest}", encoded(&text(&absolute(directory)?)?)));
        }
    }
    if !reference.starts_with(['.', '/']) {
        // `path.module` of Terraform is a path without `./`, which Nix would look for in its registry.
        let Some((directory, rest)) = split(reference, |path| path.join("flake.nix").is_file()) else {
            return Ok(reference.to_owned());
        };
        return plain(&absolute(directory)?, rest);
    }
    let (directory, rest) = split(reference, Path::exists).ok_or_else(malformed)?;
    plain(&absolute(directory)?, rest)
}

/// A directory as if its plain path had been given to Nix.
fn plain(directory: &Path, rest: &str) -> Result<String, SpecError> {
    let whole = text(directory)?;
    // What any Nix reads as it is.
    if whole.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=/".contains(c)) {
        return Ok(format!("{whole}{rest}"));
    }
    // As Nix does, the flake is looked for further up, but in one repository.
    let is_repository = |path: &&Path| path.join(".git").exists();
    let repository = directory.ancestors().find(is_repository);
    let within = |path: &&Path| repository.is_none_or(|repository| path.starts_with(repository));
    let has_flake = |path: &&Path| path.join("flake.nix").exists();
    let flake = directory.ancestors().take_while(within).find(has_flake).unwrap_or(directory);
    let Some(repository) = repository else {
        return Ok(format!("{}{rest}", as_path(flake)?));
    };
    let (query, fragment) = match rest.split_once('#') {
        Some((query, fragment)) => (query, format!("#{fragment}")),
        None => (rest, String::new()),
    };
    let mut queries: Vec<String> = query.trim_start_matches('?').split('&').map(str::to_owned).collect();
    queries.retain(|query| !query.is_empty());
    let below = flake.strip_prefix(repository).unwrap_or(Path::new(""));
    if below != Path::new("") && !queries.iter().any(|query| query.starts_with("dir=")) {
        queries.push(format!("dir={}", encoded(&text(below)?)));
    }
    if repository.join(".git/shallow").exists() {
        queries.push("shallow=1".to_owned());
    }
    let query = if queries.is_empty() { String::new() } else { format!("?{}", queries.join("&")) };
    Ok(format!("git+file://{}{query}{fragment}", encoded(&text(repository)?)))
}

/// A directory as it is, whatever git says about it.
pub(crate) fn as_path(directory: &Path) -> Result<String, SpecError> {
    Ok(format!("path:{}", encoded(&text(directory)?)))
}

/// The directory that a reference from [`resolved`] leads to, if it is a path or a repository here.
pub(crate) fn directory_of(reference: &str) -> Option<PathBuf> {
    let reference = reference.split('#').next()?;
    let (path, query) = reference.split_once('?').unwrap_or((reference, ""));
    let path = match path.strip_prefix("git+file://").or_else(|| path.strip_prefix("path:")) {
        Some(path) => decoded(path)?,
        None => path.to_owned(),
    };
    let below = query.split('&').find_map(|query| decoded(query.strip_prefix("dir=")?));
    let path = Some(PathBuf::from(path)).filter(|path| path.is_absolute())?;
    Some(below.map_or_else(|| path.clone(), |below| path.join(below)))
}

/// What is in the way of a Nix of this version that did not find a reference from [`resolved`].
pub(crate) fn unreadable(reference: &str, version: Version) -> Option<SpecError> {
    let directory = directory_of(reference)?;
    let is_url = SCHEMES.iter().any(|scheme| reference.starts_with(scheme));
    let character = directory.to_str()?.chars().find(|c| !is_literal(*c))?;
    let is_too_old = is_url && version < DECODES && directory.is_dir();
    is_too_old.then_some(SpecError::Encoded { directory, character, version, needed: DECODES })
}

/// The longest beginning that is the path of something which `is_it`, and what follows it: a query, an output, or
/// nothing.
fn split(reference: &str, is_it: impl Fn(&Path) -> bool) -> Option<(&Path, &str)> {
    let ends = reference.rmatch_indices(['?', '#']).map(|(at, _)| at);
    std::iter::once(reference.len()).chain(ends).find_map(|end| {
        let (path, rest) = reference.split_at_checked(end)?;
        let path = Path::new(path);
        is_it(path).then_some((path, rest))
    })
}

fn text(path: &Path) -> Result<String, SpecError> {
    path.to_str().map(str::to_owned).ok_or_else(|| SpecError::NotText(path.to_owned()))
}

/// Whether a character stands for itself in the path of a URL, for every version of Nix.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=/:@".contains(c)
}

/// A path in a URL.
fn encoded(path: &str) -> String {
    let mut url = String::with_capacity(path.len());
    for c in path.chars() {
        if is_literal(c) {
            url.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| url.push_str(&format!("%{byte:02X}")));
        }
    }
    url
}

/// A path from a URL; `None` where that is none.
fn decoded(url: &str) -> Option<String> {
    let mut pieces = url.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for a test, with a flake in `name` below it.
    fn site(name: &str) -> (tempfile::TempDir, PathBuf) {
        let site = tempfile::Builder::new().prefix("reference").tempdir().unwrap();
        let directory = site.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("flake.nix"), "{ outputs = _: { }; }").unwrap();
        (site, directory)
    }

    #[test]
    fn what_a_url_cannot_hold_is_encoded() {
        for (name, url) in [("C#", "C%23"), ("a?b", "a%3Fb"), ("50%25", "50%2525"), ("ü x", "%C3%BC%20x")] {
            let (site, directory) = site(name);
            let base = site.path().canonicalize().unwrap().display().to_string();
            let written = directory.display();
            for (reference, expected) in [
                (format!("{written}"), format!("path:{base}/{url}")),
                (format!("{written}#colmena"), format!("path:{base}/{url}#colmena")),
                (format!("{written}/?dir=x#colmena"), format!("path:{base}/{url}?dir=x#colmena")),
                (format!("path:{written}"), format!("path:{base}/{url}")),
                (format!("git+file:{written}?ref=main"), format!("git+file://{base}/{url}?ref=main")),
                (format!("git+file://{written}"), format!("git+file://{base}/{url}")),
                // It is written as a URL already.
                (format!("path:{base}/{url}"), format!("path:{base}/{url}")),
            ] {
                let found = resolved(&reference).unwrap();
                assert_eq!(found, expected, "{reference}");
                assert!(directory_of(&found).unwrap().starts_with(&directory), "{found}");
            }
            std::fs::create_dir(directory.join(".git")).unwrap();
            std::fs::create_dir(directory.join("sub dir")).unwrap();
            assert_eq!(resolved(&format!("{written}")).unwrap(), format!("git+file://{base}/{url}"));
            let below = format!("{written}/sub dir");
            assert_eq!(
                resolved(&below).unwrap(),
                format!("git+file://{base}/{url}"),
                "the flake is above it"
            );
            std::fs::write(directory.join("sub dir/flake.nix"), "{ }").unwrap();
            let found = resolved(&format!("{below}#colmena")).unwrap();
            assert_eq!(found, format!("git+file://{base}/{url}?dir=sub%20dir#colmena"));
            assert_eq!(directory_of(&found).unwrap(), directory.join("sub dir"));
        }
    }

    #[test]
    fn other_references_stay_as_they_are() {
        let (_site, directory) = site("plain");
        let written = directory.display();
        for reference in [
            "github:owner/repo?dir=a#colmena".to_owned(),
            "git+ssh://git@example.org/infra.git?ref=a%20b".to_owned(),
            "nixpkgs".to_owned(),
            "path:/no/such/C#".to_owned(),
            format!("{written}?dir=x#colmena"),
        ] {
            assert_eq!(resolved(&reference).unwrap(), reference);
        }
        for wrong in ["./no/such", "", " ", "a\nb"] {
            assert!(matches!(resolved(wrong), Err(SpecError::Flake(_))), "{wrong}");
        }
    }

    #[test]
    fn an_old_nix_is_what_is_in_the_way() {
        let (_site, directory) = site("a b");
        let reference = resolved(directory.to_str().unwrap()).unwrap();
        let old = Version { major: 2, minor: 8 };
        let error = unreadable(&reference, old).unwrap().to_string();
        assert!(error.contains("has ` `") && error.contains("Nix 2.8"), "{error}");
        assert!(unreadable(&reference, DECODES).is_none());
        assert!(unreadable("github:a/b", old).is_none());
        assert!(unreadable(directory.parent().unwrap().to_str().unwrap(), old).is_none());
    }
}
