//! Examples in `terraform-examples`, as the registry's own generator lays them out:
//! `resources/nixos_machine/resource.tf`, further files beside it, and `import.sh` and `import.tf`.

use std::path::{Path, PathBuf};

use super::page::Kind;

/// The directory of all examples.
#[derive(Debug)]
pub(crate) struct Examples {
    root: PathBuf,
}

/// What a page shows.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The first example, then the others by their file names.
    pub(crate) usage: Vec<String>,
    pub(crate) import_command: Option<String>,
    pub(crate) import_block: Option<String>,
}

impl Examples {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads what there is about one subject.
    pub(crate) fn of(&self, kind: Kind, name: &str) -> Result<Shown, Vec<String>> {
        let directory = self.directory(kind, name);
        let first = directory.join(kind.example());
        if !first.is_file() {
            return Err(vec![format!(
                "{} is missing: {name} ({}) needs an example",
                self.told(&directory, kind.example()),
                kind.title().to_lowercase()
            )]);
        }
        let mut shown = Shown::default();
        let mut problems = vec![];
        let mut read = |file: &str| {
            std::fs::read_to_string(directory.join(file))
                .map(|text| text.trim().to_owned())
                .map_err(|error| problems.push(format!("{}: {error}", self.told(&directory, file))))
                .ok()
        };
        for file in files(&directory, kind) {
            match file.as_str() {
                "import.sh" => shown.import_command = read(&file),
                "import.tf" => shown.import_block = read(&file),
                _ => shown.usage.extend(read(&file)),
            }
        }
        // Terraform does not look whether what an import names is there.
        for (file, text) in [("import.sh", &shown.import_command), ("import.tf", &shown.import_block)] {
            if text.as_ref().is_some_and(|text| !text.contains(&format!(" {name}."))) {
                problems.push(format!("{} imports no {name}", self.told(&directory, file)));
            }
        }
        if problems.is_empty() { Ok(shown) } else { Err(problems) }
    }

    /// Names directories of things that the provider does not have.
    pub(crate) fn surplus(&self, known: &[(Kind, &str)]) -> Vec<String> {
        let mut problems = vec![];
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Provider) {
            for name in names(&self.root.join(kind.directory())) {
                if !known.contains(&(kind, &name)) {
                    problems.push(format!(
                        "terraform-examples/{}/{name} is surplus: the provider has no {} of this name",
                        kind.directory(),
                        kind.title().to_lowercase()
                    ));
                }
            }
        }
        problems
    }

    fn directory(&self, kind: Kind, name: &str) -> PathBuf {
        let directory = self.root.join(kind.directory());
        if kind == Kind::Provider { directory } else { directory.join(name) }
    }

    fn told(&self, directory: &Path, file: &str) -> String {
        let below = directory.strip_prefix(&self.root).unwrap_or(directory);
        format!("terraform-examples/{}", below.join(file).display())
    }
}

/// The files that a page shows, the first example first.
fn files(directory: &Path, kind: Kind) -> Vec<String> {
    let mut files = names(directory);
    files.retain(|name| Path::new(name).extension().is_some_and(|end| end == "tf" || end == "sh"));
    files.sort_by_key(|name| (name != kind.example(), name.clone()));
    files
}

/// Sorted; none where there is no such directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return vec![] };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}
