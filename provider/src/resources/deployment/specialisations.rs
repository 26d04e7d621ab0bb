//! `specialisations`: machines that run one of the specialisations of their configuration instead of its base system.
//!
//! A specialisation is a whole system. It is deployed as one: it is what the machine runs, what its system profile
//! has, and what it boots.

use std::collections::BTreeMap;

use nixos_activator::MachineName;
use nixos_activator::network::Fact;
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Path, Type};

use super::model::{Generations, Specialisations};

pub(super) fn attribute() -> Attribute {
    Attribute::map(Type::String).optional().null_elements().description(
        "Machines that run a specialisation of their configuration (NixOS' option `specialisation`) \
         instead of its base system, by its name: `{ web = \"maintenance\" }`. The machine also boots it, \
         until another system is deployed. With null, or taken out again, the machine gets the base \
         system.",
    )
}

/// What is wrong with it by itself.
pub(super) fn problems(
    specialisations: &Specialisations,
    machines: Option<&[&str]>,
    generations: &Generations,
) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (name, wanted) in specialisations.known().into_iter().flatten() {
        let path = Path::root().attribute("specialisations").key(name);
        if machines.is_some_and(|machines| !machines.contains(&name.as_str())) {
            let detail = format!("Found \"{name}\", which is not a key of `machines` of the deployment.");
            found.push(Diagnostic::error("No such machine").detail(detail).at(path.clone()));
        }
        if wanted.known().is_some_and(String::is_empty) {
            let detail = "Found \"\", expected the name of a specialisation, or null for the base system.";
            found.push(
                Diagnostic::error("This is not the name of a specialisation").detail(detail).at(path.clone()),
            );
        }
        let generation = generations.known().and_then(|generations| generations.get(name)?.known());
        if let (Some(wanted), Some(generation)) = (wanted.known(), generation) {
            found.push(
                Diagnostic::error(format!(
                    "Machine \"{name}\" cannot have both a specialisation and an \
                                           earlier generation"
                ))
                .detail(format!(
                    "Found the specialisation \"{wanted}\", and {generation} in `generations`, which says \
                     all of what the machine runs. Remove one of them."
                ))
                .at(path),
            );
        }
    }
    found
}

/// What the evaluator is told, for those machines that are given. While the attribute is not known, neither is any
/// machine's system.
pub(super) fn facts<'a>(
    specialisations: &Specialisations,
    machines: impl Iterator<Item = &'a MachineName>,
) -> BTreeMap<MachineName, Fact<String>> {
    let wanted = |name: &MachineName| match specialisations {
        Attr::Unknown => Fact::Unknown,
        Attr::Null => Fact::Absent,
        Attr::Known(wanted) => match wanted.get(name.as_str()) {
            Some(Attr::Known(wanted)) => Fact::Known(wanted.clone()),
            Some(Attr::Unknown) => Fact::Unknown,
            Some(Attr::Null) | None => Fact::Absent,
        },
    };
    machines.map(|name| (name.clone(), wanted(name))).filter(|(_, wanted)| *wanted != Fact::Absent).collect()
}

/// What a plan says of a machine that comes to run another specialisation, or another than before.
pub(super) fn changes(before: Option<&str>, next: Option<&str>) -> String {
    match (before, next) {
        (Some(before), None) => format!("base system instead of specialisation {before}"),
        (Some(before), Some(next)) if before != next => format!("specialisation {next} instead of {before}"),
        (None, Some(next)) => format!("specialisation {next}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(entries: &[(&str, Attr<&str>)]) -> Specialisations {
        let entry = |(name, wanted): &(&str, Attr<&str>)| {
            let wanted = match wanted {
                Attr::Known(wanted) => Attr::Known((*wanted).to_owned()),
                Attr::Unknown => Attr::Unknown,
                Attr::Null => Attr::Null,
            };
            ((*name).to_owned(), wanted)
        };
        Attr::Known(entries.iter().map(entry).collect())
    }

    #[test]
    fn only_those_that_have_one_are_told_of() {
        let names: Vec<MachineName> = ["a", "b", "c", "d"].map(|name| name.parse().unwrap()).to_vec();
        let some = wanted(&[
            ("a", Attr::Known("x")),
            ("b", Attr::Null),
            ("c", Attr::Unknown),
            ("z", Attr::Known("x")),
        ]);
        let told: Vec<_> =
            facts(&some, names.iter()).into_iter().map(|(name, fact)| (name.to_string(), fact)).collect();
        assert_eq!(told, [("a".to_owned(), Fact::Known("x".to_owned())), ("c".to_owned(), Fact::Unknown)]);
        assert_eq!(facts(&Attr::Unknown, names.iter()).len(), 4);
        assert!(facts(&Attr::Null, names.iter()).is_empty());
    }

    #[test]
    fn mistakes_name_the_entry() {
        let generations = Attr::Known([("a".to_owned(), Attr::Known(3))].into());
        let some = wanted(&[("a", Attr::Known("x")), ("b", Attr::Known("")), ("c", Attr::Known("x"))]);
        let found: Vec<String> = problems(&some, Some(&["a", "b"]), &generations)
            .into_iter()
            .map(|problem| problem.summary)
            .collect();
        let [both, empty, unknown] = found.as_slice() else { panic!("{found:?}") };
        assert!(both.contains("both a specialisation and an earlier generation"));
        assert!(empty.contains("not the name of a specialisation") && unknown.contains("No such machine"));
        assert!(problems(&wanted(&[("a", Attr::Null)]), Some(&["a"]), &generations).is_empty());
    }
}
