//! Schemas in Markdown, in the form that readers of the Terraform registry know: one list of attributes for each of
//! required, optional and read-only, and a section of its own, with an anchor, for everything that is nested.

use std::collections::BTreeMap;

use super::schema::{Attribute, Block, BlockType, Function, Nesting, Parameter, Type};

/// All of a schema, below the heading "Schema".
pub(crate) fn schema(block: &Block) -> String {
    let mut text = String::new();
    level(&entries(block, &[]), &|group| format!("### {group}\n\n"), &mut text);
    text
}

/// `to_nix(value dynamic, names string...) string`.
pub(crate) fn signature(name: &str, function: &Function) -> String {
    let mut parameters: Vec<String> = function
        .parameters
        .iter()
        .map(|parameter| format!("{} {}", parameter.name, parameter.r#type.in_signature()))
        .collect();
    if let Some(last) = &function.variadic_parameter {
        parameters.push(format!("{} {}...", last.name, last.r#type.in_signature()));
    }
    format!("{name}({}) {}", parameters.join(", "), function.return_type.in_signature())
}

/// A numbered list of what a function takes, in order; the last one may be there any number of times.
pub(crate) fn arguments(function: &Function) -> String {
    let told = |parameter: &Parameter, variadic: &str| {
        let nullable = if parameter.is_nullable { ", Nullable" } else { "" };
        let kind = format!("{variadic}{}{nullable}", parameter.r#type.name());
        format!("1. `{}` ({kind}){}\n", parameter.name, described(&parameter.description, "   "))
    };
    let mut text: String = function.parameters.iter().map(|parameter| told(parameter, "")).collect();
    if let Some(last) = &function.variadic_parameter {
        text.push_str(&told(last, "Variadic, "));
    }
    text
}

/// A line of a list, with what is nested in it.
struct Entry<'a> {
    name: &'a str,
    group: Group,
    /// What stands in brackets behind the name.
    kind: String,
    description: &'a str,
    nested: Option<Nested<'a>>,
}

struct Nested<'a> {
    /// The first part of its anchor.
    anchor: &'static str,
    path: Vec<&'a str>,
    entries: Vec<Entry<'a>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Group {
    Required,
    Optional,
    ReadOnly,
}

impl Group {
    const ALL: [Self; 3] = [Self::Required, Self::Optional, Self::ReadOnly];

    fn name(self) -> &'static str {
        match self {
            Self::Required => "Required",
            Self::Optional => "Optional",
            Self::ReadOnly => "Read-Only",
        }
    }
}

/// Writes one level, then all that is below it, depth first.
fn level(entries: &[Entry], heading: &dyn Fn(&str) -> String, text: &mut String) {
    for group in Group::ALL {
        let mut lines = entries.iter().filter(|entry| entry.group == group).peekable();
        if lines.peek().is_some() {
            text.push_str(&heading(group.name()));
            lines.for_each(|entry| text.push_str(&entry.line()));
            text.push('\n');
        }
    }
    for nested in entries.iter().filter_map(|entry| entry.nested.as_ref()) {
        text.push_str(&format!(
            "<a id=\"{}\"></a>\n### Nested Schema for `{}`\n\n",
            nested.id(),
            nested.path.join(".")
        ));
        level(&nested.entries, &|group| format!("{group}:\n\n"), text);
    }
}

impl Entry<'_> {
    fn line(&self) -> String {
        let below = match &self.nested {
            Some(nested) => format!(" (see [below for nested schema](#{}))", nested.id()),
            None => String::new(),
        };
        format!("- `{}` ({}){}{below}\n", self.name, self.kind, described(self.description, "  "))
    }
}

impl Nested<'_> {
    fn id(&self) -> String {
        format!("{}--{}", self.anchor, self.path.join("--"))
    }
}

fn entries<'a>(block: &'a Block, path: &[&'a str]) -> Vec<Entry<'a>> {
    let blocks = block.block_types.iter().map(|(name, inner)| of_block(name, inner, path));
    let mut all = of_attributes(&block.attributes, path);
    all.extend(blocks);
    all.sort_by_key(|entry| entry.name);
    all
}

fn of_attributes<'a>(attributes: &'a BTreeMap<String, Attribute>, path: &[&'a str]) -> Vec<Entry<'a>> {
    attributes.iter().map(|(name, attribute)| of_attribute(name, attribute, path)).collect()
}

fn of_attribute<'a>(name: &'a str, attribute: &'a Attribute, path: &[&'a str]) -> Entry<'a> {
    const WRITE_ONLY: &str = "[Write-only](https://developer.hashicorp.com/terraform/language/resources/ephemeral#write-only-arguments)";
    let group = match attribute {
        Attribute { required: true, .. } => Group::Required,
        Attribute { optional: true, .. } => Group::Optional,
        _ => Group::ReadOnly,
    };
    let path = [path, &[name]].concat();
    let mut kind = match (&attribute.nested_type, &attribute.r#type) {
        (Some(nested), _) => format!("Attributes{}", plural(nested.nesting_mode)),
        (None, Some(ty)) => ty.name(),
        (None, None) => "Unknown".to_owned(),
    };
    let marks = [
        (attribute.sensitive, "Sensitive"),
        (attribute.deprecated, "Deprecated"),
        (attribute.write_only, WRITE_ONLY),
    ];
    for (_, mark) in marks.iter().filter(|(holds, _)| *holds) {
        kind.push_str(&format!(", {mark}"));
    }
    let nested = match (&attribute.nested_type, &attribute.r#type) {
        (Some(nested), _) => {
            Some(Nested { anchor: "nestedatt", entries: of_attributes(&nested.attributes, &path), path })
        }
        (None, Some(ty)) => of_object(ty, group, path),
        (None, None) => None,
    };
    Entry { name, group, kind, description: &attribute.description, nested }
}

/// Fields of an object have no properties of their own: they are what the attribute is.
fn of_object<'a>(ty: &'a Type, group: Group, path: Vec<&'a str>) -> Option<Nested<'a>> {
    let entries = ty
        .fields()?
        .iter()
        .map(|(name, ty)| {
            let nested = of_object(ty, group, [&path[..], &[name]].concat());
            Entry { name, group, kind: ty.name(), description: "", nested }
        })
        .collect();
    Some(Nested { anchor: "nestedobjatt", path, entries })
}

fn of_block<'a>(name: &'a str, inner: &'a BlockType, path: &[&'a str]) -> Entry<'a> {
    let path = [path, &[name]].concat();
    let group = if inner.min_items > 0 { Group::Required } else { Group::Optional };
    let mut kind = format!("Block{}", plural(inner.nesting_mode));
    for (what, count) in [("Min", inner.min_items), ("Max", inner.max_items)] {
        if count > 0 {
            kind.push_str(&format!(", {what}: {count}"));
        }
    }
    if inner.block.deprecated {
        kind.push_str(", Deprecated");
    }
    let nested = Nested { anchor: "nestedblock", entries: entries(&inner.block, &path), path };
    Entry { name, group, kind, description: &inner.block.description, nested: Some(nested) }
}

fn plural(nesting: Nesting) -> &'static str {
    match nesting {
        Nesting::Single | Nesting::Group => "",
        Nesting::List => " List",
        Nesting::Set => " Set",
        Nesting::Map => " Map",
    }
}

/// A description behind what it describes; its further lines stay in the item of the list.
fn described(description: &str, indent: &str) -> String {
    let text = description.trim().replace('\n', &format!("\n{indent}"));
    if text.is_empty() { text } else { format!(" {text}") }
}
