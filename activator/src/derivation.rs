//! Derivations as Nix writes them to the store, and what makes two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::StorePath;

/// How many differences are worth telling.
const TOLD: usize = 8;
/// How many pairs of derivations are compared at most; a changed compiler changes everything.
const COMPARED: usize = 2000;

/// The parts of a derivation that decide what it builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Derivation {
    /// Path and outputs of what it is built with.
    input_derivations: Vec<String>,
    input_sources: Vec<String>,
    platform: String,
    builder: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

/// What two derivations differ in, at the bottom of the tree where the difference begins: one line for each
/// derivation, such as `etc-motd (text)`. Empty where they are the same, or not both in the local store.
pub fn differences(old: &StorePath, new: &StorePath) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let mut comparison = Comparison { read: &read, seen: BTreeSet::new(), told: vec![] };
    comparison.compare(old.as_str(), new.as_str());
    comparison.told
}

/// The derivations and sources that a derivation in the local store is made from; `None` where it is none.
pub(crate) fn made_from(text: &str) -> Option<Vec<String>> {
    let Derivation { input_derivations, input_sources, .. } = parse(text)?;
    // A path, a space and outputs.
    let path = |input: String| input.split(' ').next().map(str::to_owned);
    Some(input_derivations.into_iter().filter_map(path).chain(input_sources).collect())
}

struct Comparison<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    seen: BTreeSet<(String, String)>,
    told: Vec<String>,
}

impl Comparison<'_> {
    fn compare(&mut self, old: &str, new: &str) {
        let is_new = self.seen.len() < COMPARED && self.seen.insert((old.to_owned(), new.to_owned()));
        if old == new || !is_new || self.told.len() >= TOLD {
            return;
        }
        let load = |path: &str| parse(&(self.read)(path)?);
        let (Some(before), Some(after)) = (load(old), load(new)) else {
            return;
        };
        let mut own: Vec<String> = vec![];
        let names = before.environment.keys().chain(after.environment.keys()).collect::<BTreeSet<_>>();
        for name in names {
            let value = |derivation: &Derivation| derivation.environment.get(name).map(|v| without_hashes(v));
            if value(&before) != value(&after) {
                own.push(name.clone());
            }
        }
        let together = |list: &[String]| without_hashes(&list.join("\0"));
        if before.platform != after.platform {
            own.push("system".to_owned());
        }
        if without_hashes(&before.builder) != without_hashes(&after.builder)
            || together(&before.arguments) != together(&after.arguments)
        {
            own.push("builder".to_owned());
        }
        for (old, new) in pairs(&before.input_sources, &after.input_sources) {
            match (old, new) {
                (Some(old), Some(new)) if old == new => {}
                (Some(path), _) | (None, Some(path)) => own.push(format!("source {}", name_of(path))),
                (None, None) => {}
            }
        }
        if !own.is_empty() {
            let name = name_of(new);
            self.told.push(format!("{} ({})", name.strip_suffix(".drv").unwrap_or(name), own.join(", ")));
        }
        for (old, new) in pairs(&before.input_derivations, &after.input_derivations) {
            if let (Some(old), Some(new)) = (old, new) {
                self.compare(old, new);
            }
        }
    }
}

/// Paths of the same name side by side, in their order where several have one.
fn pairs<'a>(old: &'a [String], new: &'a [String]) -> Vec<(Option<&'a str>, Option<&'a str>)> {
    let mut by_name: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    let changed = |path: &&String, other: &[String]| !other.contains(path);
    for path in old.iter().filter(|path| changed(path, new)) {
        by_name.entry(name_of(path)).or_default().0.push(path);
    }
    for path in new.iter().filter(|path| changed(path, old)) {
        by_name.entry(name_of(path)).or_default().1.push(path);
    }
    let mut all = vec![];
    for (old, new) in by_name.into_values() {
        for n in 0..old.len().max(new.len()) {
            all.push((old.get(n).copied(), new.get(n).copied()));
        }
    }
    all
}

/// The name in `/nix/store/HASH-NAME`.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().and_then(|base| base.split_once('-')).map_or(path, |(_, name)| name)
}

/// A text whose store paths are only names: that what they lead to has changed is said where it changed.
fn without_hashes(text: &str) -> String {
    const HASH: usize = 32;
    let is_hash = |candidate: &str| {
        candidate.len() == HASH && candidate.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    let mut pieces = text.split("/store/");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str("/store/");
        let rest = match piece.get(..HASH) {
            Some(hash) if is_hash(hash) => piece.get(HASH..).unwrap_or_default(),
            _ => piece,
        };
        plain.push_str(rest);
    }
    plain
}

/// Reads `Derive(outputs, inputDrvs, inputSrcs, platform, builder, args, env)`.
fn parse(text: &str) -> Option<Derivation> {
    let body = text.trim().strip_prefix("Derive(")?.strip_suffix(')')?;
    let Term::List(fields) = Reader { rest: &format!("[{body}]") }.term()? else {
        return None;
    };
    let [_outputs, drvs, sources, platform, builder, arguments, environment] = fields.try_into().ok()?;
    let pair = |term: Term| match term {
        Term::List(items) => {
            let mut items = items.into_iter();
            Some((items.next()?.text()?, items.next()?))
        }
        Term::Text(_) => None,
    };
    let texts = |term: Term| term.list()?.into_iter().map(Term::text).collect::<Option<Vec<_>>>();
    Some(Derivation {
        input_derivations: drvs.list()?.into_iter().map(|term| Some(pair(term)?.0)).collect::<Option<_>>()?,
        input_sources: texts(sources)?,
        platform: platform.text()?,
        builder: builder.text()?,
        arguments: texts(arguments)?,
        environment: environment
            .list()?
            .into_iter()
            .map(|term| {
                let (name, value) = pair(term)?;
                Some((name, value.text()?))
            })
            .collect::<Option<_>>()?,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Text(String),
    /// A list or a tuple.
    List(Vec<Term>),
}

impl Term {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) => None,
        }
    }

    fn list(self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items),
            Self::Text(_) => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next()?;
        self.rest = characters.as_str();
        Some(next)
    }

    fn term(&mut self) -> Option<Term> {
        match self.next()? {
            '"' => self.string().map(Term::Text),
            open @ ('[' | '(') => {
                let close = if open == '[' { ']' } else { ')' };
                let mut items = vec![];
                if self.rest.starts_with(close) {
                    self.next()?;
                    return Some(Term::List(items));
                }
                loop {
                    items.push(self.term()?);
                    match self.next()? {
                        ',' => {}
                        c if c == close => return Some(Term::List(items)),
                        _ => return None,
                    }
                }
            }
            _ => None,
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => text.push(match self.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }),
                other => text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00000000000000000000000000000000";
    const B: &str = "11111111111111111111111111111111";

    fn path(hash: &str, name: &str) -> String {
        format!("/nix/store/{hash}-{name}")
    }

    fn derivation(inputs: &[String], sources: &[String], environment: &[(&str, String)]) -> String {
        let inputs: Vec<_> = inputs.iter().map(|input| format!("(\"{input}\",[\"out\"])")).collect();
        let sources: Vec<_> = sources.iter().map(|source| format!("\"{source}\"")).collect();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| format!("(\"{name}\",\"{value}\")")).collect();
        format!(
            "Derive([(\"out\",\"/nix/store/x-out\",\"\",\"\")],[{}],[{}],\"x86_64-linux\",\"/bin/sh\",[\"-c\",\"a \
             \\\"b\\\"\\n\"],[{}])",
            inputs.join(","),
            sources.join(","),
            environment.join(",")
        )
    }

    fn told(store: &[(String, String)], old: &str, new: &str) -> Vec<String> {
        let read = |path: &str| store.iter().find(|(name, _)| name == path).map(|(_, text)| text.clone());
        let mut comparison = Comparison { read: &read, seen: BTreeSet::new(), told: vec![] };
        comparison.compare(old, new);
        comparison.told
    }

    #[test]
    fn a_derivation_is_read_as_nix_writes_it() {
        let read =
            parse(&derivation(&[path(A, "dep.drv")], &[path(A, "src")], &[("text", "x".into())])).unwrap();
        assert_eq!(read.input_derivations, [path(A, "dep.drv")]);
        assert_eq!(read.arguments, ["-c", "a \"b\"\n"]);
        assert_eq!(read.environment["text"], "x");
        for broken in ["", "Derive(", "Derive([],[],[],\"\",\"\",[],[)", "Derive([])", "Derive(\"\\"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_difference_is_told_where_it_begins() {
        let leaf = |text: &str| derivation(&[], &[], &[("text", text.to_owned())]);
        let top = |hash: &str| {
            let leaf = path(hash, "etc-motd.drv");
            derivation(
                std::slice::from_ref(&leaf),
                &[],
                &[("etc", path(hash, "etc-motd")), ("same", "1".into())],
            )
        };
        let store = [
            (path(A, "etc-motd.drv"), leaf("one")),
            (path(B, "etc-motd.drv"), leaf("two")),
            (path(A, "system.drv"), top(A)),
            (path(B, "system.drv"), top(B)),
        ];
        assert_eq!(told(&store, &path(A, "system.drv"), &path(B, "system.drv")), ["etc-motd (text)"]);
        assert_eq!(told(&store, &path(A, "system.drv"), &path(A, "system.drv")), Vec::<String>::new());
    }

    #[test]
    fn sources_and_missing_derivations_do_not_stop_it() {
        let with = |hash: &str| derivation(&[], &[path(hash, "page.html")], &[]);
        let store = [(path(A, "x.drv"), with(A)), (path(B, "x.drv"), with(B))];
        assert_eq!(told(&store, &path(A, "x.drv"), &path(B, "x.drv")), ["x (source page.html)"]);
        assert_eq!(told(&store, &path(A, "x.drv"), &path(B, "gone.drv")), Vec::<String>::new());
    }
}
