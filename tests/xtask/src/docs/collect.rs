//! Every configuration that a reader may copy: the examples, and the blocks of the documentation.
//!
//! A block of `terraform` is complete, and so is each small file among the examples, but for saying where the
//! provider comes from. A block of `hcl` is a fragment that cannot be validated here; the line before it says why:
//! `<!-- not validated: REASON -->`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fence::{Fence, Unclosed, fences};
use super::page::Kind;
use super::terraform::REQUIREMENT;
use crate::TaskError;

const EXAMPLES: &str = "terraform-examples";

/// What there is.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    pub(crate) configurations: Vec<Configuration>,
    /// How many blocks are fragments.
    pub(crate) fragments: usize,
    /// Blocks that do not say what they are.
    pub(crate) problems: Vec<String>,
}

/// One root module.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    origin: Origin,
}

/// Where it is from, by paths below the repository.
#[derive(Debug)]
enum Origin {
    Directory(PathBuf),
    /// A part of a file, below this many lines.
    Part(PathBuf, usize),
}

impl Configuration {
    /// A line of it, as a reader finds it.
    pub(crate) fn place(&self, file: &str, line: usize) -> String {
        match &self.origin {
            Origin::Directory(directory) => format!("{}:{line}", directory.join(file).display()),
            Origin::Part(path, above) => format!("{}:{}", path.display(), above + line),
        }
    }

    /// All of it.
    pub(crate) fn name(&self) -> String {
        match &self.origin {
            Origin::Directory(directory) => directory.display().to_string(),
            Origin::Part(path, above) => format!("{}:{}", path.display(), above + 1),
        }
    }

    fn part(path: &Path, above: usize, text: &str) -> Self {
        let mut files = vec![("main.tf".to_owned(), text.as_bytes().to_vec())];
        if !text.lines().any(|line| line.trim_start().starts_with("required_providers")) {
            files.push(("terraform.tf".to_owned(), REQUIREMENT.as_bytes().to_vec()));
        }
        Self { files, origin: Origin::Part(path.to_owned(), above) }
    }
}

/// Looks through the repository.
pub(crate) fn collect(root: &Path) -> Result<Collection, TaskError> {
    let mut collection = Collection::default();
    for directory in below(root, Path::new(EXAMPLES))?.directories {
        if Kind::ALL.iter().any(|kind| directory.ends_with(kind.directory())) {
            snippets(root, &directory, &mut collection)?;
        } else {
            let mut files = vec![];
            for path in below(root, &directory)?.files {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read(root.join(&path)).map_err(TaskError::io(path.display()))?));
            }
            collection.configurations.push(Configuration { files, origin: Origin::Directory(directory) });
        }
    }
    // Pages show the examples; those are validated already.
    let mut seen: BTreeSet<String> = collection.configurations.iter().filter_map(single_text).collect();
    documents(root, Path::new("docs"), &mut seen, &mut collection)?;
    document(root, Path::new("README.md"), &mut seen, &mut collection)?;
    Ok(collection)
}

fn single_text(configuration: &Configuration) -> Option<String> {
    let Origin::Part(..) = configuration.origin else { return None };
    let (_, content) = configuration.files.first()?;
    Some(String::from_utf8_lossy(content).trim().to_owned())
}

/// The small files, each on its own.
fn snippets(root: &Path, directory: &Path, collection: &mut Collection) -> Result<(), TaskError> {
    let Entries { files, directories } = below(root, directory)?;
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "tf")) {
        collection.configurations.push(Configuration::part(path, 0, &read(root, path)?));
    }
    directories.iter().try_for_each(|directory| snippets(root, directory, collection))
}

fn documents(
    root: &Path,
    directory: &Path,
    seen: &mut BTreeSet<String>,
    collection: &mut Collection,
) -> Result<(), TaskError> {
    let Entries { files, directories } = below(root, directory)?;
    for path in files.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        document(root, path, seen, collection)?;
    }
    directories.iter().try_for_each(|directory| documents(root, directory, seen, collection))
}

fn document(
    root: &Path,
    path: &Path,
    seen: &mut BTreeSet<String>,
    collection: &mut Collection,
) -> Result<(), TaskError> {
    let fences = match fences(&read(root, path)?) {
        Ok(fences) => fences,
        Err(Unclosed(line)) => {
            collection
                .problems
                .push(format!("{}:{line}: the block that begins here does not end", path.display()));
            return Ok(());
        }
    };
    for fence in fences {
        match role(&fence) {
            Ok(Role::Complete) => {
                if seen.insert(fence.text.trim().to_owned()) {
                    let configuration = Configuration::part(path, fence.line, &fence.text);
                    collection.configurations.push(configuration);
                }
            }
            Ok(Role::Fragment) => collection.fragments += 1,
            Ok(Role::Other) => {}
            Err(problem) => {
                collection.problems.push(format!("{}:{}: {problem}", path.display(), fence.line));
            }
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Role {
    Complete,
    Fragment,
    /// Not Terraform's language.
    Other,
}

fn role(fence: &Fence) -> Result<Role, &'static str> {
    let reason = fence
        .before
        .strip_prefix("<!-- not validated:")
        .and_then(|rest| rest.strip_suffix("-->"))
        .map(str::trim);
    match (fence.language.to_lowercase().as_str(), reason) {
        ("terraform", None) => Ok(Role::Complete),
        ("terraform", Some(_)) => {
            Err("a block of `terraform` is validated: make it `hcl`, or remove the comment before it")
        }
        ("hcl", Some(reason)) if !reason.is_empty() => Ok(Role::Fragment),
        ("hcl", _) => Err(
            "a block of `hcl` needs `<!-- not validated: REASON -->` in the line before it; better, make it \
                 `terraform`: complete, and validated",
        ),
        ("tf" | "opentofu" | "tofu", _) => {
            Err("say `terraform` for a complete configuration, `hcl` for a fragment")
        }
        _ => Ok(Role::Other),
    }
}

struct Entries {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

/// What is in a directory, sorted, without what Terraform leaves in it.
fn below(root: &Path, directory: &Path) -> Result<Entries, TaskError> {
    let failed = || TaskError::io(directory.display());
    let mut entries = Entries { files: vec![], directories: vec![] };
    for entry in std::fs::read_dir(root.join(directory)).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') || text.contains(".tfstate") {
            continue;
        }
        let path = directory.join(&name);
        if root.join(&path).is_dir() { entries.directories.push(path) } else { entries.files.push(path) }
    }
    entries.files.sort();
    entries.directories.sort();
    Ok(entries)
}

fn read(root: &Path, path: &Path) -> Result<String, TaskError> {
    std::fs::read_to_string(root.join(path)).map_err(TaskError::io(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(language: &str, before: &str) -> Fence {
        Fence { language: language.to_owned(), line: 1, text: String::new(), before: before.to_owned() }
    }

    #[test]
    fn a_fragment_says_why_it_is_one() {
        assert_eq!(role(&fence("hcl", "<!-- not validated: it needs hashicorp/aws -->")), Ok(Role::Fragment));
        assert!(role(&fence("hcl", "")).is_err());
        assert!(role(&fence("hcl", "<!-- not validated: -->")).is_err());
        assert!(role(&fence("hcl", "Text.")).is_err());
    }

    #[test]
    fn a_complete_configuration_does_not_say_that_it_is_not_validated() {
        assert_eq!(role(&fence("terraform", "Text.")), Ok(Role::Complete));
        assert!(role(&fence("terraform", "<!-- not validated: why -->")).is_err());
    }

    #[test]
    fn there_is_one_name_for_the_language() {
        assert!(role(&fence("tf", "")).is_err());
        assert_eq!(role(&fence("sh", "")), Ok(Role::Other));
        assert_eq!(role(&fence("", "")), Ok(Role::Other));
    }

    #[test]
    fn the_repository_is_looked_through_once_for_each_text() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        };
        let example = "resource \"nixos_machine\" \"a\" {}\n";
        write("terraform-examples/resources/nixos_machine/resource.tf", example);
        write("terraform-examples/resources/nixos_machine/import.sh", "terraform import …");
        write("terraform-examples/quickstart/main.tf", "terraform {\n  required_providers {}\n}\n");
        write("terraform-examples/quickstart/network.nix", "{ }");
        write("docs/resources/machine.md", &format!("```terraform\n{example}```\n"));
        write("docs/guides/a.md", "\n\n```terraform\nlocals {}\n```\n```tf\n```\n");
        write("README.md", "<!-- not validated: it needs a registry -->\n```hcl\n```\n");

        let collection = collect(root.path()).expect("all can be read");

        let names: Vec<_> = collection.configurations.iter().map(Configuration::name).collect();
        let expected = [
            "terraform-examples/quickstart",
            "terraform-examples/resources/nixos_machine/resource.tf:1",
            "docs/guides/a.md:4",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            collection.configurations[0].place("main.tf", 2),
            "terraform-examples/quickstart/main.tf:2"
        );
        assert_eq!(collection.configurations[2].place("main.tf", 2), "docs/guides/a.md:5");
        let files = |index: usize| -> Vec<String> {
            collection.configurations[index].files.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(files(0), ["main.tf", "network.nix"]);
        assert_eq!(files(2), ["main.tf", "terraform.tf"], "it is told where the provider comes from");
        assert_eq!(collection.fragments, 1);
        assert_eq!(
            collection.problems,
            ["docs/guides/a.md:6: say `terraform` for a complete configuration, `hcl` for a fragment"]
        );
    }
}
