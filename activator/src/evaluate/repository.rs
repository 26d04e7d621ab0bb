//! Git repositories on this computer that flakes are in. Nix sees of them only what git knows, and says less about
//! that than it could.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::network::reference;

/// A git repository on this computer, of which evaluation sees only what git knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    root: PathBuf,
    tree: PathBuf,
}

impl Repository {
    pub(super) fn new(url: &str, tree: &Path) -> Option<Self> {
        let root = url.split('?').next().filter(|url| url.starts_with("git+file:"))?;
        Some(Self { root: reference::directory_of(root)?, tree: tree.to_owned() })
    }

    /// An error, with what to do where a file is missing that git does not know.
    pub(super) fn explained(&self, trace: String) -> String {
        let tree = format!("{}/", self.tree.display());
        let below = trace.split(tree.as_str()).skip(1).filter_map(|rest| rest.split('\'').next());
        let is_unknown = |file: &&str| !self.tree.join(file).exists() && self.root.join(file).exists();
        match below.filter(|file| !file.is_empty() && !file.contains('\n')).find(is_unknown) {
            Some(file) => format!(
                "{}\n\nThe file {file} is there, but git does not know it, and of a repository Nix sees \
                 only what git knows. Run `git add {file}` in {}; a commit is not needed.",
                trace.trim_end(),
                self.root.display()
            ),
            None => trace,
        }
    }
}

/// A reference to the directory itself, where it is in a repository whose git ignores it: a plain path means the
/// repository, in which nothing of it is. Terraform puts modules into such a directory, `.terraform/modules`.
pub(super) async fn is_ignored(reference: &str, cancel: &CancellationToken) -> Option<String> {
    if reference.starts_with("path:") {
        return None;
    }
    let directory = reference::directory_of(reference)?;
    if !directory.join("flake.nix").is_file() {
        return None;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(&directory).args(["check-ignore", "--quiet", "--", "flake.nix"]);
    git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = tokio::select! {
        status = git.status() => status.ok()?,
        () = cancel.cancelled() => return None,
    };
    status.success().then(|| reference::as_path(&directory).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_git_does_not_know_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (root, tree) = (directory.path().join("a b"), directory.path().join("x-source"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(root.join("sub/new.nix"), "").unwrap();
        let url = format!("git+file://{}?dir=sub", root.display().to_string().replace(' ', "%20"));
        let repository = Repository::new(&url, &tree).unwrap();
        let trace = |file: &str| format!("error: path '{}/{file}' does not exist\n", tree.display());
        let told = repository.explained(trace("sub/new.nix"));
        assert!(told.contains("exist\n\nThe file sub/new.nix is there") && told.contains("/a b;"), "{told}");
        assert_eq!(repository.explained(trace("other.nix")), trace("other.nix"));
        assert_eq!(Repository::new("github:a/b", &tree), None);
    }
}
