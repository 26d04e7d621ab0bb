//! `rollout`: in which order machines get their new systems, and what follows from a failure.

use nixos_activator::MachineName;
use nixos_activator::reboot::When;
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Nested, Path, Type, validators};

use crate::settings::{List, known_elements};

/// What the user wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    waves: List<Vec<Attr<String>>>,
    max_parallel: Attr<usize>,
    max_failures: Attr<usize>,
    atomic: Attr<bool>,
}

pub(super) fn attribute() -> Attribute {
    let count = |low: i64, description: &str| {
        let range = validators::integer_between(low, 1_000_000);
        Attribute::number().optional().validate(range).description(description)
    };
    let nested = Nested::new()
        .attribute(
            "waves",
            Attribute::list(Type::List(Box::new(Type::String))).optional().description(
                "Names of machines that go together: `[[\"canary\"], [\"web1\", \"web2\"]]`. A wave begins \
                 when the one before it has ended; machines in none of them go last. All systems are built \
                 before the first wave; no wave waits for the copies of later ones, unless the rollout is \
                 `atomic`.",
            ),
        )
        .attribute(
            "max_parallel",
            count(
                1,
                "How many machines activate at once. Default: all of a wave. One provider process \
                 activates at most 32 machines at once, and copies to at most 4.",
            ),
        )
        .attribute(
            "max_failures",
            count(
                0,
                "How many machines may fail; one more, and no other machine \
                                             begins. Default: 0.",
            ),
        )
        .attribute(
            "atomic",
            Attribute::bool().optional().description(
                "Whether all machines keep their new systems or none: each one holds its new system until \
                 all are healthy, and goes back if one is not. None begins before all have their copies. \
                 Needs `action` `switch` or `test`, and not `reboot`, `rollback = false` or `max_failures` \
                 above 0. Default: false.",
            ),
        );
    Attribute::nested_single(nested).optional().description(
        "In which order machines get their new systems, and what follows from a failure. Without it all \
         machines go at once and none stops another.",
    )
}

/// What a schema cannot say.
pub(super) fn problems(
    rollout: &Attr<Rollout>,
    machines: Option<&[&str]>,
    action: &Attr<String>,
    rollback: &Attr<bool>,
    reboots: When,
) -> Diagnostics {
    let mut found = Diagnostics::default();
    let path = || Path::root().attribute("rollout");
    let Some(rollout) = rollout.known() else { return found };
    let mut seen: Vec<&String> = vec![];
    for (number, wave) in rollout.waves.known().into_iter().flatten().enumerate() {
        for name in wave.known().into_iter().flatten().filter_map(Attr::known) {
            let at = || path().attribute("waves").index(number);
            if machines.is_some_and(|machines| !machines.contains(&name.as_str())) {
                let detail = format!("Found \"{name}\", which is not a key of `machines` of the deployment.");
                found.push(Diagnostic::error("No such machine").detail(detail).at(at()));
            }
            if seen.contains(&name) {
                let detail = format!("\"{name}\" is named twice; a machine gets its system once.");
                found.push(Diagnostic::error("A machine is in two waves").detail(detail).at(at()));
            }
            seen.push(name);
        }
    }
    if rollout.is_atomic() {
        let mut cannot = |detail: &str| {
            found.push(
                Diagnostic::error("The rollout cannot be atomic")
                    .detail(detail)
                    .at(path().attribute("atomic")),
            );
        };
        if rollout.max_failures.known().is_some_and(|most| *most > 0) {
            cannot("`max_failures` lets some machines fail, `atomic` lets none. Remove one of them.");
        }
        if action.known().is_some_and(|action| !matches!(action.as_str(), "switch" | "test")) {
            cannot("Only what runs can prove itself: `atomic` needs `action = \"switch\"` or \"test\".");
        }
        if reboots != When::Never {
            cannot("A machine that was rebooted does not go back: `atomic` needs `reboot = \"never\"`.");
        }
        if rollback.known() == Some(&false) {
            cannot("With `rollback = false` no machine goes back.");
        }
    }
    found
}

impl Rollout {
    fn is_atomic(&self) -> bool {
        self.atomic.known().copied().unwrap_or_default()
    }
}

/// What the activator is to do.
pub(super) fn settings(rollout: &Attr<Rollout>) -> nixos_activator::rollout::Rollout {
    let Some(rollout) = rollout.known() else {
        return nixos_activator::rollout::Rollout::default();
    };
    let wave = |names: &Vec<Attr<String>>| -> Vec<MachineName> {
        names.iter().filter_map(|name| name.known()?.parse().ok()).collect()
    };
    nixos_activator::rollout::Rollout {
        waves: known_elements(&rollout.waves).map(wave).collect(),
        max_parallel: rollout.max_parallel.known().copied(),
        max_failures: Some(rollout.max_failures.known().copied().unwrap_or(0)),
        atomic: rollout.is_atomic(),
    }
}
