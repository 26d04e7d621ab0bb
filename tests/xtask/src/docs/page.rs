//! The pages that the registry shows: which there are, and what they are made of. Each is rendered from a template in
//! `provider/docs`, its own (`resources/machine.md.tmpl`) or that of its kind (`page.md.tmpl`, `function.md.tmpl`).

use std::path::{Path, PathBuf};

use minijinja::{Environment, UndefinedBehavior, context};

use super::describe;
use super::example::{Examples, names};
use super::fence::tidy;
use super::schema::{Block, Function, ProviderSchema};

/// What the names of all resources begin with; names of pages do without.
const PREFIX: &str = "nixos_";
pub(crate) const PROVIDER: &str = "nixos";

/// A page, by its path below `docs/`.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Provider,
    Resource,
    DataSource,
    EphemeralResource,
    Function,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Provider, Self::Resource, Self::DataSource, Self::EphemeralResource, Self::Function];

    /// The directory of its pages, its templates and its examples; that of the provider has no pages but the index.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Resource => "resources",
            Self::DataSource => "data-sources",
            Self::EphemeralResource => "ephemeral-resources",
            Self::Function => "functions",
        }
    }

    /// The file of the first example.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Provider => "provider.tf",
            Self::Resource => "resource.tf",
            Self::DataSource => "data-source.tf",
            Self::EphemeralResource => "ephemeral-resource.tf",
            Self::Function => "function.tf",
        }
    }

    /// In titles.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::Resource => "Resource",
            Self::DataSource => "Data Source",
            Self::EphemeralResource => "Ephemeral Resource",
            Self::Function => "function",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Provider => "index.md.tmpl",
            Self::Resource | Self::DataSource | Self::EphemeralResource => "page.md.tmpl",
            Self::Function => "function.md.tmpl",
        }
    }

    /// Where the page about `name` is, without `.md`.
    fn page(self, name: &str) -> String {
        match self {
            Self::Provider => "index".to_owned(),
            _ => format!("{}/{}", self.directory(), name.strip_prefix(PREFIX).unwrap_or(name)),
        }
    }
}

/// All pages, or everything that is wrong with what they are made of.
pub(crate) fn pages(
    schema: &ProviderSchema,
    templates: &Path,
    examples: &Examples,
) -> Result<Vec<Page>, Vec<String>> {
    let subjects = subjects(schema);
    let mut problems = examples.surplus(&subjects.iter().map(Subject::key).collect::<Vec<_>>());
    problems.extend(surplus_templates(&subjects, templates));
    let environment = environment(templates);
    let mut pages = vec![];
    for subject in &subjects {
        match subject.page(&environment, templates, examples) {
            Ok(page) => pages.push(page),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(pages) } else { Err(problems) }
}

/// What a page is about.
struct Subject<'a> {
    kind: Kind,
    name: &'a str,
    what: What<'a>,
}

enum What<'a> {
    Block(&'a Block),
    Function(&'a Function),
}

fn subjects(schema: &ProviderSchema) -> Vec<Subject<'_>> {
    let mut all =
        vec![Subject { kind: Kind::Provider, name: PROVIDER, what: What::Block(&schema.provider.block) }];
    let blocks = [
        (Kind::Resource, &schema.resource_schemas),
        (Kind::DataSource, &schema.data_source_schemas),
        (Kind::EphemeralResource, &schema.ephemeral_resource_schemas),
    ];
    for (kind, schemas) in blocks {
        all.extend(schemas.iter().map(|(name, schema)| Subject {
            kind,
            name,
            what: What::Block(&schema.block),
        }));
    }
    all.extend(schema.functions.iter().map(|(name, function)| Subject {
        kind: Kind::Function,
        name,
        what: What::Function(function),
    }));
    all
}

impl<'a> Subject<'a> {
    fn key(&self) -> (Kind, &'a str) {
        (self.kind, self.name)
    }

    /// As search engines show it: with the provider's name, which the provider has already.
    fn title(&self) -> String {
        let of = if self.kind == Kind::Provider { String::new() } else { format!(" - {PROVIDER}") };
        format!("{} {}{of}", self.name, self.kind.title())
    }

    /// Its own template, if there is one.
    fn template(&self) -> String {
        format!("{}.md.tmpl", self.kind.page(self.name))
    }

    fn page(
        &self,
        environment: &Environment,
        templates: &Path,
        examples: &Examples,
    ) -> Result<Page, Vec<String>> {
        let examples = examples.of(self.kind, self.name)?;
        let own = self.template();
        let template = if templates.join(&own).is_file() { &own } else { self.kind.template() };
        let common = context! {
            name => self.name,
            kind => self.kind.title(),
            page_title => self.title(),
            examples => examples.usage,
            import_command => examples.import_command,
            import_block => examples.import_block,
        };
        let special = match self.what {
            What::Block(block) => context! {
                description => block.description.trim(),
                summary => plain(&block.description),
                deprecated => block.deprecated,
                schema => describe::schema(block),
            },
            What::Function(function) => context! {
                description => function.description.trim(),
                summary => plain(&function.summary),
                deprecated => &function.deprecation_message,
                signature => describe::signature(self.name, function),
                arguments => describe::arguments(function),
                return_type => function.return_type.name(),
            },
        };
        let rendered = environment
            .get_template(template)
            .and_then(|template| template.render(context! { ..special, ..common }))
            .map_err(|error| vec![format!("provider/docs/{template}: {error:#}")])?;
        Ok(Page { path: format!("{}.md", self.kind.page(self.name)).into(), text: tidy(&rendered) })
    }
}

/// Templates that no page is made from.
fn surplus_templates(subjects: &[Subject], templates: &Path) -> Vec<String> {
    let mut problems = vec![];
    for kind in Kind::ALL {
        for file in names(&templates.join(kind.directory())) {
            let path = format!("{}/{file}", kind.directory());
            if !subjects.iter().any(|subject| subject.template() == path) {
                problems.push(format!(
                    "provider/docs/{path} is surplus: the provider has no {} of this name",
                    kind.title().to_lowercase()
                ));
            }
        }
    }
    problems
}

/// A name that a template misspells is an error, not nothing.
fn environment(templates: &Path) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_loader(minijinja::path_loader(templates));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

/// Without the marks of Markdown, in one line: for the list of pages and for search engines.
fn plain(markdown: &str) -> String {
    let mut text = markdown.replace(['`', '*'], "");
    // `[text](target)` is its text.
    while let Some((before, rest)) = text.split_once("](")
        && let Some((before, label)) = before.rsplit_once('[')
        && let Some((_, after)) = rest.split_once(')')
    {
        text = format!("{before}{label}{after}");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
