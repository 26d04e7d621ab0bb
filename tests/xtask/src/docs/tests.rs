//! Pages of a small provider that has one of everything. What is expected is in `snapshots/`.

use std::path::Path;

use tempfile::TempDir;

use super::example::Examples;
use super::page::{Page, pages};
use super::schema::ProviderSchema;
use super::{differences, surplus};

/// A repository with examples for everything, and the templates that are for all.
struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().expect("a temporary directory"));
        for template in ["front.md.tmpl", "page.md.tmpl", "function.md.tmpl", "index.md.tmpl"] {
            let text = std::fs::read_to_string(e2e::repository().join("provider/docs").join(template));
            repository.write(&format!("provider/docs/{template}"), &text.expect("the template is there"));
        }
        for example in [
            "provider/provider.tf",
            "resources/nixos_thing/resource.tf",
            "data-sources/nixos_look/data-source.tf",
            "ephemeral-resources/nixos_ssh_key_pair/ephemeral-resource.tf",
            "functions/to_nix/function.tf",
            "functions/old_function/function.tf",
        ] {
            repository.write(&format!("terraform-examples/{example}"), &format!("# {example}\n"));
        }
        repository
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.0.path().join(path)).expect("it was there");
    }

    fn pages(&self) -> Result<Vec<Page>, Vec<String>> {
        let schema: ProviderSchema =
            serde_json::from_str(include_str!("fixture.json")).expect("the fixture is a schema");
        let examples = Examples::new(self.0.path().join("terraform-examples"));
        pages(&schema, &self.0.path().join("provider/docs"), &examples)
    }

    fn page(&self, path: &str) -> String {
        let pages = self.pages().expect("nothing is missing");
        pages.into_iter().find(|page| page.path == Path::new(path)).expect("there is such a page").text
    }

    fn problems(&self) -> Vec<String> {
        self.pages().map(|pages| pages.len()).expect_err("something is wrong")
    }
}

#[test]
fn a_resource_has_every_kind_of_attribute_examples_and_import() {
    let repository = Repository::new();
    repository.write("terraform-examples/resources/nixos_thing/another.tf", "# another\n");
    repository
        .write("terraform-examples/resources/nixos_thing/import.tf", "import {\n  to = nixos_thing.a\n}\n");
    repository
        .write("terraform-examples/resources/nixos_thing/import.sh", "terraform import nixos_thing.a id\n");
    insta::assert_snapshot!(repository.page("resources/thing.md"));
}

#[test]
fn a_function_has_a_signature_and_arguments() {
    insta::assert_snapshot!(Repository::new().page("functions/to_nix.md"));
}

#[test]
fn a_function_may_take_nothing_and_be_deprecated() {
    insta::assert_snapshot!(Repository::new().page("functions/old_function.md"));
}

#[test]
fn an_ephemeral_resource_is_like_a_resource() {
    insta::assert_snapshot!(Repository::new().page("ephemeral-resources/ssh_key_pair.md"));
}

#[test]
fn a_data_source_says_that_it_is_deprecated() {
    insta::assert_snapshot!(Repository::new().page("data-sources/look.md"));
}

#[test]
fn a_template_of_its_own_fills_the_parts_of_a_page() {
    let repository = Repository::new();
    let template = "{% extends \"page.md.tmpl\" %}{% block subcategory %}AWS{% endblock %}{% block details \
                    %}More about {{ name }}.{% endblock %}";
    repository.write("provider/docs/data-sources/look.md.tmpl", template);

    let page = repository.page("data-sources/look.md");

    assert!(page.contains("\nsubcategory: \"AWS\"\n"), "{page}");
    assert!(page.contains("```\n\nMore about nixos_look.\n\n## Schema\n"), "{page}");
}

#[test]
fn what_has_no_example_is_named_with_the_file_it_should_be_in() {
    let repository = Repository::new();
    repository.remove("terraform-examples/resources/nixos_thing/resource.tf");
    repository.remove("terraform-examples/functions/to_nix/function.tf");
    let expected = [
        "terraform-examples/resources/nixos_thing/resource.tf is missing: nixos_thing (resource) needs an \
         example",
        "terraform-examples/functions/to_nix/function.tf is missing: to_nix (function) needs an example",
    ];
    assert_eq!(repository.problems(), expected);
}

#[test]
fn examples_and_templates_of_what_is_not_there_are_named() {
    let repository = Repository::new();
    repository.write("terraform-examples/resources/nixos_gone/resource.tf", "");
    repository.write("provider/docs/resources/gone.md.tmpl", "");
    let expected = [
        "terraform-examples/resources/nixos_gone is surplus: the provider has no resource of this name",
        "provider/docs/resources/gone.md.tmpl is surplus: the provider has no resource of this name",
    ];
    assert_eq!(repository.problems(), expected);
}

#[test]
fn an_import_of_something_else_is_no_example() {
    let repository = Repository::new();
    repository
        .write("terraform-examples/resources/nixos_thing/import.sh", "terraform import nixos_other.a id\n");
    let expected = ["terraform-examples/resources/nixos_thing/import.sh imports no nixos_thing"];
    assert_eq!(repository.problems(), expected);
}

#[test]
fn a_name_that_a_template_misspells_is_an_error() {
    let repository = Repository::new();
    repository.write("provider/docs/resources/thing.md.tmpl", "{{ descriptoin }}");
    let problems = repository.problems();
    assert!(
        problems[0].starts_with("provider/docs/resources/thing.md.tmpl: undefined value"),
        "{problems:?}"
    );
}

#[test]
fn stale_missing_and_surplus_pages_are_named_and_guides_are_left_alone() {
    let repository = Repository::new();
    let pages = repository.pages().expect("nothing is missing");
    let docs = repository.0.path().join("docs");
    for page in &pages {
        repository.write(&format!("docs/{}", page.path.display()), &page.text);
    }
    repository.write("docs/guides/a.md", "By hand.\n");
    assert_eq!(differences(&pages, &docs), Vec::<String>::new());

    repository.write("docs/index.md", "Old.\n");
    repository.write("docs/resources/gone.md", "");
    repository.remove("docs/functions/to_nix.md");

    let expected = [
        "docs/index.md is stale",
        "docs/functions/to_nix.md is missing",
        "docs/resources/gone.md is surplus",
    ];
    assert_eq!(differences(&pages, &docs), expected);
    assert_eq!(surplus(&pages, &docs), [Path::new("resources/gone.md")]);
}
