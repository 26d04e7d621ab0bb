//! Terraform's own judgement on every configuration of the documentation: `terraform validate`, which asks the
//! provider, and `terraform fmt`; and ours on names that Terraform does not look at.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::collect::{Collection, Configuration, collect};
use super::names::{Unknown, unknown_names};
use super::schema::ProviderSchema;
use super::terraform::{Diagnostic, Terraform, write};
use crate::TaskError;

/// What was looked at, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) validated: usize,
    pub(crate) fragments: usize,
    pub(crate) problems: Vec<String>,
}

/// Validates everything.
pub(crate) fn validate(
    root: &Path,
    schema: &ProviderSchema,
    terraform: &Terraform,
) -> Result<Verdict, TaskError> {
    let Collection { configurations, fragments, mut problems } = collect(root)?;
    let mut modules = vec![];
    for (index, configuration) in configurations.iter().enumerate() {
        let module = terraform.module(&format!("{index:03}"))?;
        for (name, content) in &configuration.files {
            write(&module.join(name), content)?;
        }
        modules.push((configuration, module));
    }
    for diagnostics in at_once(&modules, |(_, module)| terraform.validate(module)).into_iter().zip(&modules) {
        let (diagnostics, (configuration, _)) = diagnostics;
        problems.extend(diagnostics?.iter().map(|diagnostic| told(configuration, diagnostic)));
    }
    problems.extend(configurations.iter().flat_map(|configuration| name_problems(configuration, schema)));
    // It gives up at a syntax error, which is then named above as well.
    problems.extend(format_problems(terraform, &modules).unwrap_or_else(|error| vec![error.to_string()]));
    Ok(Verdict { validated: configurations.len(), fragments, problems })
}

/// A few at a time: each of them starts the provider, and waits for it.
fn at_once<I: Sync, O: Send>(inputs: &[I], work: impl Fn(&I) -> O + Sync) -> Vec<O> {
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
    let next = AtomicUsize::new(0);
    let turn = || {
        let mut done = vec![];
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(input) = inputs.get(index) else { return done };
            done.push((index, work(input)));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(turn)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect::<Vec<_>>()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, output)| output).collect()
}

/// As Terraform tells it, with the place where a reader finds the line.
fn told(configuration: &Configuration, diagnostic: &Diagnostic) -> String {
    let place = match &diagnostic.range {
        Some(range) => configuration.place(&range.filename, range.start.line),
        None => configuration.name(),
    };
    let mut text = format!("{place}: {}: {}\n", diagnostic.severity, diagnostic.summary);
    // Of a syntax error it may be all the rest of the file.
    let code = diagnostic.snippet.iter().flat_map(|snippet| snippet.code.lines().take(3));
    code.for_each(|line| text.push_str(&format!("    | {line}\n")));
    diagnostic.detail.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    text.trim_end().to_owned()
}

fn name_problems(configuration: &Configuration, schema: &ProviderSchema) -> Vec<String> {
    let files = configuration
        .files
        .iter()
        .filter(|(name, _)| Path::new(name).extension().is_some_and(|end| end == "tf"));
    let told = |(name, content): &(String, Vec<u8>)| {
        let unknown = unknown_names(&String::from_utf8_lossy(content), schema);
        let line = |unknown: Unknown| {
            let place = configuration.place(name, unknown.line);
            format!("{place}: error: `{}` has no `{}`; Terraform would ignore it", unknown.path, unknown.name)
        };
        unknown.into_iter().map(line).collect::<Vec<_>>()
    };
    files.flat_map(told).collect()
}

fn format_problems(
    terraform: &Terraform,
    modules: &[(&Configuration, PathBuf)],
) -> Result<Vec<String>, TaskError> {
    let mut problems = vec![];
    for file in terraform.unformatted()? {
        let Some((configuration, _)) = modules.iter().find(|(_, module)| file.starts_with(module)) else {
            continue;
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let changes = terraform.format_changes(&file)?;
        let place = configuration.place(&name, first_change(&changes));
        let changes: String = changes
            .lines()
            .filter(|line| line.starts_with(['-', '+']))
            .map(|line| format!("\n    {line}"))
            .collect();
        problems.push(format!("{place}: `terraform fmt` writes it otherwise:{changes}"));
    }
    Ok(problems)
}

/// The line at which the first hunk of a diff, `@@ -12,7 +12,7 @@`, changes something.
fn first_change(diff: &str) -> usize {
    let mut lines = diff.lines();
    let start = lines
        .next()
        .and_then(|hunk| hunk.strip_prefix("@@ -")?.split([',', ' ']).next()?.parse::<usize>().ok())
        .unwrap_or(1);
    start + lines.take_while(|line| line.starts_with(' ')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_of_a_diff_is_found() {
        assert_eq!(first_change("@@ -12,7 +12,7 @@\n a\n b\n-c\n+d\n e\n"), 14);
        assert_eq!(first_change("@@ -1 +1 @@\n-c\n+d\n"), 1);
        assert_eq!(first_change(""), 1);
    }

    #[test]
    fn what_is_done_at_once_comes_back_in_order() {
        let inputs: Vec<usize> = (0..100).collect();
        assert_eq!(at_once(&inputs, |number| number * 2), (0..200).step_by(2).collect::<Vec<_>>());
    }
}
