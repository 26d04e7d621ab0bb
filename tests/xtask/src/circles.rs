//! No two files of a crate may need each other, directly or through others: a reader, and a change, would have to
//! take them all at once.
//!
//! A file needs another one when it names something that is defined there. A re-export (`pub use`) is only another
//! name for a thing: what is reached through it is looked up where it is defined. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

use crate::TaskError;

/// The crates of the house, by the files they begin with.
const CRATES: &[&str] = &[
    "provider/src/main.rs",
    "provider/tfplugin/src/lib.rs",
    "activator/src/lib.rs",
    "activator/agent/src/lib.rs",
    "activator/agent/src/main.rs",
    "activator/cli/src/main.rs",
];

/// Which file needs which, and the names that it needs of it.
type Needs = BTreeMap<usize, BTreeMap<usize, BTreeSet<String>>>;

/// Fails with one circle of each group of files that need each other.
pub(crate) fn check() -> Result<(), TaskError> {
    let root = e2e::repository();
    let mut found = vec![];
    for start in CRATES {
        let modules = Modules::read(&root.join(start))?;
        let needs = modules.needs();
        for (circle, tied) in circles(&needs) {
            let mut text = format!("{tied} files need each other, first of all\n");
            for (n, file) in circle.iter().enumerate() {
                let next = circle[(n + 1) % circle.len()];
                let names: Vec<&str> = needs[file][&next].iter().map(String::as_str).collect();
                let [from, to] = [*file, next].map(|module| modules.0[module].show(&root));
                text.push_str(&format!("  {from} needs {to}: {}\n", names.join(", ")));
            }
            found.push(text);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(TaskError::Failed(format!("circles between files:\n\n{}", found.join("\n"))))
}

/// A module that is a file.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// What it defines itself.
    defined: BTreeSet<String>,
    /// Names for what is defined elsewhere. A glob has none.
    imported: Vec<(Option<String>, Vec<String>)>,
    /// Imports that are for its own use, and the paths in its code.
    named: BTreeSet<Vec<String>>,
}

impl Module {
    fn show(&self, root: &Path) -> String {
        self.file.strip_prefix(root).unwrap_or(&self.file).display().to_string()
    }
}

/// All modules of a crate; the first is its root.
struct Modules(Vec<Module>);

impl Modules {
    fn read(root: &Path) -> Result<Self, TaskError> {
        let mut modules = Self(vec![]);
        modules.add(root, root.parent().unwrap_or(root), None)?;
        Ok(modules)
    }

    /// Reads a file and those below it, which are in `directory`.
    fn add(&mut self, file: &Path, directory: &Path, parent: Option<usize>) -> Result<usize, TaskError> {
        let text = std::fs::read_to_string(file).map_err(TaskError::io(file.display()))?;
        let failed = |error| TaskError::Failed(format!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).map_err(failed)?;
        let own = self.0.len();
        self.0.push(Module { file: file.to_owned(), parent, ..Module::default() });
        let mut reader = Reader { module: &mut self.0[own], files: vec![] };
        parsed.items.iter().for_each(|item| reader.visit_item(item));
        for name in reader.files {
            let below = directory.join(&name);
            let [flat, story] = [below.with_extension("rs"), below.join("mod.rs")];
            let child = self.add(if flat.is_file() { &flat } else { &story }, &below, Some(own))?;
            self.0[own].children.insert(name, child);
        }
        Ok(own)
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (own, module) in self.0.iter().enumerate() {
            for path in &module.named {
                if let Some((file, name)) = self.find(own, path, &mut BTreeSet::new())
                    && file != own
                {
                    needs.entry(own).or_default().entry(file).or_default().insert(name);
                }
            }
        }
        needs
    }

    /// The file that defines what `path` means in a module, and its name there; `None`: another crate does.
    fn find<'a>(
        &'a self,
        within: usize,
        path: &'a [String],
        seen: &mut BTreeSet<(usize, &'a [String])>,
    ) -> Option<(usize, String)> {
        if !seen.insert((within, path)) {
            return None;
        }
        let module = &self.0[within];
        let (first, rest) = path.split_first()?;
        let there = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(within),
            "super" => module.parent,
            name => module.children.get(name).copied(),
        };
        if let Some(there) = there {
            // A whole module that is imported is named again where something of it is.
            return self.find(there, rest, seen);
        }
        if module.defined.contains(first) {
            return Some((within, first.clone()));
        }
        module.imported.iter().find_map(|(name, of)| match name {
            Some(name) if name == first => {
                let (file, name) =
                    self.find(within, of, seen).or_else(|| self.through(within, of, rest, seen))?;
                Some((file, name))
            }
            Some(_) => None,
            // What comes by a glob.
            None => self.through(within, of, path, seen),
        })
    }

    /// The same for a path below an imported module.
    fn through<'a>(
        &'a self,
        within: usize,
        module: &'a [String],
        path: &'a [String],
        seen: &mut BTreeSet<(usize, &'a [String])>,
    ) -> Option<(usize, String)> {
        let there = self.module(within, module)?;
        self.find(there, path, seen)
    }

    /// The module that a path means.
    fn module(&self, within: usize, path: &[String]) -> Option<usize> {
        path.iter().try_fold(within, |module, name| match name.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.0[module].parent,
            name => self.0[module].children.get(name).copied(),
        })
    }
}

/// Collects what is in one file.
struct Reader<'a> {
    module: &'a mut Module,
    /// Modules in files of their own.
    files: Vec<String>,
}

impl Reader<'_> {
    fn import(&mut self, tree: &UseTree, before: &[String], is_reexport: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (name, path) = match tree {
            UseTree::Path(path) => return self.import(&path.tree, &with(&path.ident), is_reexport),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, before, is_reexport));
            }
            UseTree::Glob(_) => return self.module.imported.push((None, before.to_vec())),
            UseTree::Name(name) if name.ident == "self" => (before.last().cloned(), before.to_vec()),
            UseTree::Name(name) => (Some(name.ident.to_string()), with(&name.ident)),
            UseTree::Rename(rename) => (Some(rename.rename.to_string()), with(&rename.ident)),
        };
        if !is_reexport {
            self.module.named.insert(path.clone());
        }
        self.module.imported.push((name, path));
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (name, attributes) = match item {
            Item::Mod(item) if item.content.is_none() => {
                if !is_test(&item.attrs) {
                    self.files.push(item.ident.to_string());
                }
                return;
            }
            Item::Mod(item) => (Some(&item.ident), &item.attrs),
            Item::Use(item) => {
                return self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
            }
            Item::Const(item) => (Some(&item.ident), &item.attrs),
            Item::Enum(item) => (Some(&item.ident), &item.attrs),
            Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
            Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
            Item::Static(item) => (Some(&item.ident), &item.attrs),
            Item::Struct(item) => (Some(&item.ident), &item.attrs),
            Item::Trait(item) => (Some(&item.ident), &item.attrs),
            Item::Type(item) => (Some(&item.ident), &item.attrs),
            Item::Impl(item) => (None, &item.attrs),
            _ => return,
        };
        if is_test(attributes) {
            return;
        }
        self.module.defined.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.module.named.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// The shortest circle of each group of files that need each other, and how many they are.
fn circles(needs: &Needs) -> Vec<(Vec<usize>, usize)> {
    let mut left = needs.clone();
    let mut found = vec![];
    while let Some(circle) = left.keys().filter_map(|start| shortest(&left, *start)).min_by_key(Vec::len) {
        // Nothing that is tied to it is told of twice.
        let group: Vec<usize> = left
            .keys()
            .copied()
            .filter(|file| reaches(&left, circle[0], *file) && reaches(&left, *file, circle[0]))
            .collect();
        left.retain(|file, _| !group.contains(file));
        found.push((circle, group.len()));
    }
    found
}

/// The shortest way from a file back to it.
fn shortest(needs: &Needs, start: usize) -> Option<Vec<usize>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = vec![];
        for way in ways {
            for next in way.last().and_then(|last| needs.get(last)).into_iter().flat_map(BTreeMap::keys) {
                if *next == start {
                    return Some(way);
                }
                if seen.insert(*next) {
                    longer.push([way.as_slice(), &[*next]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

fn reaches(needs: &Needs, from: usize, to: usize) -> bool {
    let mut seen = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        if file == to {
            return true;
        }
        open.extend(needs.get(&file).into_iter().flat_map(BTreeMap::keys).filter(|next| seen.insert(**next)));
    }
    false
}
