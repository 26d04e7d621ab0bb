//! `health_checks`: what must hold on a machine before its new system is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_activator::agent::health::{Check, Probe};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, DurationText, Nested, Path, Type, validators};

use crate::settings::{List, known_elements, strings_attribute};

/// One of `health_checks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    machines: List<String>,
    units: List<String>,
    stable_for: Attr<DurationText>,
    command: List<String>,
    http: Attr<Http>,
    tcp: Attr<String>,
    from: Attr<String>,
    successes: Attr<u32>,
    interval: Attr<DurationText>,
    timeout: Attr<DurationText>,
    deadline: Attr<DurationText>,
}

/// A request over HTTP and the answer that is expected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Http {
    url: Attr<String>,
    status: List<u16>,
    contains: Attr<String>,
}

/// All of them.
pub(crate) type HealthChecks = Attr<BTreeMap<String, Attr<HealthCheck>>>;

pub(super) fn attribute() -> Attribute {
    let duration = |description: &str| Attribute::duration().optional().description(description);
    let http = Nested::new()
        .attribute(
            "url",
            Attribute::string().required().description(
                "What to get. `https` only with `from = \"here\"`; the certificate is checked with the \
                 system's authorities.",
            ),
        )
        .attribute(
            "status",
            Attribute::list(Type::Number).optional().description(
                "Status codes that are good. Default: any from 200 to 299. \
                    Redirections are not followed.",
            ),
        )
        .attribute(
            "contains",
            Attribute::string().optional().description("Text that the answer has to contain."),
        );
    let check = Nested::new()
        .attribute("machines", strings_attribute("The machines it is for. Default: all."))
        .attribute(
            "units",
            strings_attribute(
                "Units of systemd that have to be active, e.g. \
                                               `nginx.service`.",
            ),
        )
        .attribute(
            "stable_for",
            duration(
                "With `units`: how long they have to have been active. Default: `3s`, so that a unit that \
                 is started again and again does not pass.",
            ),
        )
        .attribute(
            "command",
            strings_attribute(
                "A program and its arguments that has to end with exit code 0; run as root, or by \
                 Terraform's user with `from = \"here\"`. There is no shell between.",
            ),
        )
        .attribute(
            "http",
            Attribute::nested_single(http)
                .optional()
                .description("A server that has to answer a GET request."),
        )
        .attribute(
            "tcp",
            Attribute::string()
                .optional()
                .validate(validators::matches(is_place, "`host:port`"))
                .description("A server that has to accept connections: `host:port`."),
        )
        .attribute(
            "from",
            Attribute::string().optional().validate(validators::one_of(&["target", "here"])).description(
                "Where it is tried: on the machine (`target`; the default) or where Terraform runs \
                 (`here`).",
            ),
        )
        .attribute(
            "successes",
            Attribute::number()
                .optional()
                .validate(validators::integer_between(1, 1000))
                .description("How many times in a row it has to hold. Default: 1."),
        )
        .attribute("interval", duration("From one try to the next. Default: `1s`."))
        .attribute("timeout", duration("How long one try may take. Default: `10s`."))
        .attribute("deadline", duration("How long all tries together may take. Default: `1m`."))
        .exactly_one_of(&["units", "command", "http", "tcp"]);
    Attribute::nested_map(check).optional().description(
        "What must hold with a new system (`action` `switch` or `test`) before it is kept, by a name of \
         your choice. Each has exactly one of `units`, `command`, `http` and `tcp`. Where one does not \
         hold the machine goes back to its old system.",
    )
}

fn is_place(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// What a schema cannot say.
pub(super) fn problems(checks: &HealthChecks, machines: Option<&[&str]>) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (name, check) in checks.known().into_iter().flatten() {
        let path = Path::root().attribute("health_checks").key(name);
        let Some(check) = check.known() else { continue };
        let mut wrong = |attribute: Option<&str>, summary: &str, detail: String| {
            let path = attribute.map_or_else(|| path.clone(), |attribute| path.clone().attribute(attribute));
            found.push(Diagnostic::error(summary).detail(detail).at(path));
        };
        let here = check.from.known().is_some_and(|from| from == "here");
        if here && check.units.is_known() {
            wrong(
                Some("from"),
                "Units can only be looked at on the machine",
                "Remove `from = \"here\"`, or check something that can be seen from there: `http`, `tcp` or \
                 `command`."
                    .to_owned(),
            );
        }
        let may_be_here = here || check.from.is_unknown();
        let url = check.http.known().and_then(|http| http.url.known());
        if let Some(url) = url {
            let expected = if here { "http:// or https://" } else { "http:// (or `from = \"here\"`)" };
            if !(url.starts_with("http://") || may_be_here && url.starts_with("https://")) {
                wrong(
                    Some("http"),
                    "This URL cannot be checked",
                    format!("Found {url:?}, expected {expected}."),
                );
            }
        }
        for (attribute, list) in [("units", &check.units), ("command", &check.command)] {
            let empty = |first: &Attr<String>| first.known().is_some_and(String::is_empty);
            if list.known().is_some_and(|items| items.first().is_none_or(empty)) {
                wrong(Some(attribute), "The list is empty", format!("Expected `{attribute} = [\"…\"]`."));
            }
        }
        for machine in known_elements(&check.machines) {
            if machines.is_some_and(|machines| !machines.contains(&machine.as_str())) {
                wrong(
                    Some("machines"),
                    "No such machine",
                    format!("Found \"{machine}\", which is not a key of `machines` of the deployment."),
                );
            }
        }
    }
    found
}

/// The checks of a machine: those tried on it, and those tried from here.
pub(super) fn of_machine(checks: &HealthChecks, machine: &str) -> (Vec<Check>, Vec<Check>) {
    let of = |name: &String, check: &HealthCheck| {
        let all = !check.machines.is_known() || known_elements(&check.machines).any(|name| name == machine);
        let check = all.then(|| {
            Some(Check {
                name: name.clone(),
                probe: check.probe()?,
                successes: check.successes.known().copied().unwrap_or(1),
                interval: check.interval.or(Duration::from_secs(1)),
                timeout: check.timeout.or(Duration::from_secs(10)),
                deadline: check.deadline.or(Duration::from_mins(1)),
            })
        });
        check.flatten()
    };
    let (mut there, mut here) = (vec![], vec![]);
    for (name, check) in checks.known().into_iter().flatten() {
        let Some(check) = check.known() else { continue };
        let from_here = check.from.known().is_some_and(|from| from == "here");
        if from_here { &mut here } else { &mut there }.extend(of(name, check));
    }
    (there, here)
}

impl HealthCheck {
    fn probe(&self) -> Option<Probe> {
        let strings = |list: &List<String>| known_elements(list).cloned().collect();
        if self.units.is_known() {
            let stable_for = self.stable_for.or(Duration::from_secs(3));
            return Some(Probe::Units { names: strings(&self.units), stable_for });
        }
        if self.command.is_known() {
            return Some(Probe::Command(strings(&self.command)));
        }
        if let Some(http) = self.http.known() {
            return Some(Probe::Http {
                url: http.url.known()?.clone(),
                statuses: known_elements(&http.status).copied().collect(),
                contains: http.contains.known().cloned(),
            });
        }
        self.tcp.known().cloned().map(Probe::Tcp)
    }
}
