//! The documentation in `docs/` that nobody writes by hand: a page for each thing the provider has, in the Terraform
//! registry's layout. It is made from the schemas of the built provider, the templates in `provider/docs` and the
//! examples in `terraform-examples`; and it is checked that nothing of it is out of date, and that every
//! configuration shown anywhere is one that Terraform accepts. Guides are written by hand, and only checked.

mod collect;
mod describe;
mod example;
mod fence;
mod names;
mod page;
mod schema;
mod terraform;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::example::Examples;
use self::page::{Kind, Page};
use self::schema::ProviderSchema;
use self::terraform::Terraform;
use crate::TaskError;
use crate::build::build;

/// Writes the pages, and removes those of things that are no more.
pub(crate) fn generate() -> Result<(), TaskError> {
    build(false)?;
    let root = e2e::repository();
    let pages = pages(&root, &Terraform::start()?.schema()?)?;
    let docs = root.join("docs");
    for path in surplus(&pages, &docs) {
        std::fs::remove_file(docs.join(&path)).map_err(TaskError::io(path.display()))?;
    }
    for page in &pages {
        let path = docs.join(&page.path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(TaskError::io(directory.display()))?;
        }
        terraform::write(&path, &page.text)?;
    }
    println!("{} pages written to docs/", pages.len());
    Ok(())
}

/// Fails where a page is not what would be written, or a configuration in examples and documentation is not valid.
pub(crate) fn check() -> Result<(), TaskError> {
    build(false)?;
    let root = e2e::repository();
    let terraform = Terraform::start()?;
    let schema = terraform.schema()?;
    let pages = pages(&root, &schema)?;
    let mut problems = differences(&pages, &root.join("docs"));
    if !problems.is_empty() {
        problems.push("`cargo xtask docs` mends the pages".to_owned());
    }
    let verdict = validate::validate(&root, &schema, &terraform)?;
    problems.extend(verdict.problems);
    println!(
        "   {} pages, {} configurations validated, {} fragments left out",
        pages.len(),
        verdict.validated,
        verdict.fragments
    );
    if problems.is_empty() { Ok(()) } else { Err(TaskError::Failed(problems.join("\n"))) }
}

fn pages(root: &Path, schema: &ProviderSchema) -> Result<Vec<Page>, TaskError> {
    let examples = Examples::new(root.join("terraform-examples"));
    page::pages(schema, &root.join("provider/docs"), &examples)
        .map_err(|problems| TaskError::Failed(problems.join("\n")))
}

/// What is to be done to the directory, a line each.
fn differences(pages: &[Page], docs: &Path) -> Vec<String> {
    let state = |page: &Page| match std::fs::read_to_string(docs.join(&page.path)) {
        Ok(text) if text == page.text => None,
        Ok(_) => Some("stale"),
        Err(_) => Some("missing"),
    };
    let mut lines: Vec<String> = pages
        .iter()
        .filter_map(|page| Some(format!("docs/{} is {}", page.path.display(), state(page)?)))
        .collect();
    lines.extend(surplus(pages, docs).iter().map(|path| format!("docs/{} is surplus", path.display())));
    lines
}

/// Pages about things that the provider does not have. What is in other directories is somebody's own work.
fn surplus(pages: &[Page], docs: &Path) -> Vec<PathBuf> {
    let wanted: BTreeSet<&Path> = pages.iter().map(|page| page.path.as_path()).collect();
    let mut found = vec![];
    for kind in Kind::ALL {
        let Ok(entries) = std::fs::read_dir(docs.join(kind.directory())) else { continue };
        let paths = entries.flatten().map(|entry| Path::new(kind.directory()).join(entry.file_name()));
        found.extend(paths.filter(|path| !wanted.contains(path.as_path())));
    }
    found.sort();
    found
}
