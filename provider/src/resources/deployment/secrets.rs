//! `secrets`, and `deployment.keys` of a specification: what they are, and what stands for them in a plan.
//!
//! State has fingerprints only, made with a key that is drawn when the deployment is created. So a first plan does
//! not know them; every later one does.

use std::collections::{BTreeMap, BTreeSet};

use nixos_activator::Secret;
use nixos_activator::agent::{DeploymentId, SecretFile, SecretName};
use nixos_activator::evaluate::{self, Texts};
use nixos_activator::secrets::{Content, Declared, Key, OfMachine, SecretError, Source};
use serde::{Deserialize, Serialize, Serializer};
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Nested, Path, validators};
use tokio_util::sync::CancellationToken;

use crate::settings::{List, known_elements, strings_attribute, texts};

/// One of `secrets`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecretConfig {
    machines: List<String>,
    value_wo: Attr<WriteOnly>,
    command: List<String>,
    file: Attr<String>,
    version: Attr<String>,
    path: Attr<String>,
    user: Attr<String>,
    group: Attr<String>,
    permissions: Attr<String>,
    restart: List<String>,
    reload: List<String>,
    persist: Attr<bool>,
}

/// All of them.
pub(crate) type SecretConfigs = Attr<BTreeMap<String, Attr<SecretConfig>>>;

/// Fingerprints by name; null where there are no secrets.
pub(crate) type Fingerprints = Attr<BTreeMap<String, Attr<String>>>;

/// A value that is read from a configuration and never written anywhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct WriteOnly(Secret);

impl Serialize for WriteOnly {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

pub(super) fn attribute() -> Attribute {
    let text = |description: &str| {
        Attribute::string().optional().validate(validators::not_empty()).description(description)
    };
    let path = validators::matches(is_path, "an absolute path such as \"/run/keys/token\"");
    let octal =
        validators::matches(|text| mode(text).is_some(), "permissions in octal digits such as \"0400\"");
    let secret = Nested::new()
        .attribute("machines", strings_attribute("The machines that get it. Default: all."))
        .attribute(
            "value_wo",
            Attribute::string().optional().sensitive().write_only().description(
                "Its content. It is never stored: not in state, not in a plan. Needs Terraform or OpenTofu \
                 1.11; with older ones use `command` or `file`.",
            ),
        )
        .attribute(
            "command",
            strings_attribute(
                "A program and its arguments that prints its content, run where Terraform runs: \
                 `[\"pass\", \"show\", \"db\"]`. There is no shell between. Without `version` it runs in \
                 every plan.",
            ),
        )
        .attribute("file", text("A file with its content, where Terraform runs."))
        .attribute(
            "version",
            text(
                "Changes when the content does. Without it the content itself is compared; with it the \
                 content is fetched only when it has to be sent, and need not be the same each time.",
            ),
        )
        .attribute(
            "path",
            Attribute::string().optional().validate(path).description(
                "Its file on the machine. Default: `/run/keys/NAME`. What is under `/run` is gone after a \
                 reboot, and sent again by the next apply, unless it is to `persist`.",
            ),
        )
        .attribute("user", text("The user its file belongs to, by name or number. Default: `root`."))
        .attribute("group", text("The group its file belongs to. Default: `root`."))
        .attribute(
            "permissions",
            Attribute::string()
                .optional()
                .validate(octal)
                .description("The permissions of its file. Default: `0400`."),
        )
        .attribute(
            "restart",
            strings_attribute(
                "Units to restart when it has changed, if they run: \
                                                 `[\"postgresql.service\"]`.",
            ),
        )
        .attribute("reload", strings_attribute("Units to reload when it has changed, if they run."))
        .attribute(
            "persist",
            Attribute::bool().optional().description(
                "Whether the machine puts it back by itself after a reboot, before anything that may need \
                 it starts: it keeps a copy that `systemd-creds` has encrypted for this machine alone, \
                 with its TPM where it has one. For paths under `/run`; needs systemd 250 on the machine. \
                 Default: false.",
            ),
        )
        .exactly_one_of(&["value_wo", "command", "file"]);
    Attribute::nested_map(secret).optional().description(
        "Secrets of the machines, by name: files that never touch state, plan, log or the Nix store. Each \
         has exactly one of `value_wo`, `command` and `file`. They are there before the new system starts, \
         go back with it, and are removed when they are declared no more. `deployment.keys` of the \
         specification are sent in the same way.",
    )
}

fn is_path(text: &str) -> bool {
    let legal = |c: char| !c.is_control();
    text.starts_with('/')
        && !text.ends_with('/')
        && text.chars().all(legal)
        && !text.split('/').any(|part| part == "..")
}

fn mode(text: &str) -> Option<u32> {
    let octal = text.len() <= 4 && !text.is_empty() && text.bytes().all(|byte| (b'0'..b'8').contains(&byte));
    octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

/// What a schema cannot say.
pub(super) fn problems(secrets: &SecretConfigs, machines: Option<&[&str]>) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (name, secret) in secrets.known().into_iter().flatten() {
        let path = Path::root().attribute("secrets").key(name);
        let Some(secret) = secret.known() else { continue };
        if let Err(error) = name.parse::<SecretName>() {
            found.push(
                Diagnostic::error("The key is not a name of a secret")
                    .detail(format!("{error}: it is the name of a file."))
                    .at(path.clone()),
            );
        }
        if secret.persist.known() == Some(&true)
            && let Some(file) =
                secret.path.known().filter(|file| !std::path::Path::new(file).starts_with("/run"))
        {
            found.push(
                Diagnostic::error("The secret is on disk as it is")
                    .detail(format!(
                        "Found `path = \"{file}\"` and `persist = true`, expected a path under `/run`: \
                         only what is in memory has to be put back after a reboot. Remove one of the two."
                    ))
                    .at(path.clone().attribute("persist")),
            );
        }
        let empty = |first: &Attr<String>| first.known().is_some_and(String::is_empty);
        if secret.command.known().is_some_and(|words| words.first().is_none_or(empty)) {
            found.push(
                Diagnostic::error("The list is empty")
                    .detail("Expected `command = [\"program\", \"argument\"]`.")
                    .at(path.clone().attribute("command")),
            );
        }
        for machine in known_elements(&secret.machines) {
            if machines.is_some_and(|machines| !machines.contains(&machine.as_str())) {
                found.push(
                    Diagnostic::error("No such machine")
                        .detail(format!(
                            "Found \"{machine}\", which is not a key of `machines` of the deployment."
                        ))
                        .at(path.clone().attribute("machines")),
                );
            }
        }
    }
    found
}

/// All secrets of a deployment, with contents where those stand for themselves.
pub(super) struct Wanted {
    /// By name: for which machines (`None`: all), what, and its content; not known: something about it is not known
    /// yet.
    configured: BTreeMap<String, (Option<BTreeSet<String>>, Option<(Declared, Option<Content>)>)>,
    /// What specifications say themselves.
    texts: Texts,
    key: Option<Key>,
    /// Whether it is not even known which machine has which.
    open: bool,
}

impl Wanted {
    /// Reads the configuration, which has the write-only values. Without a key, nothing can be said about contents
    /// yet, and none is fetched.
    pub(super) async fn new(
        config: &SecretConfigs,
        texts: Texts,
        key: Option<Key>,
        cancel: &CancellationToken,
    ) -> Result<Self, Diagnostics> {
        let mut configured = BTreeMap::new();
        let mut errors = Diagnostics::default();
        let mut open = config.is_unknown();
        for (name, secret) in config.known().into_iter().flatten() {
            let Some(secret) = secret.known() else {
                open = true;
                continue;
            };
            open |= secret.machines.is_unknown()
                || secret.machines.known().is_some_and(|names| names.iter().any(Attr::is_unknown));
            let machines =
                secret.machines.known().map(|_| known_elements(&secret.machines).cloned().collect());
            let declared = secret.declared(name);
            let with_content = match declared {
                Some(declared) if declared.version.is_none() && key.is_some() => {
                    match declared.fetch(cancel).await {
                        Ok(content) => Some((declared, Some(content))),
                        Err(error) => {
                            errors.push(problem(&error, Path::root().attribute("secrets").key(name)));
                            None
                        }
                    }
                }
                declared => declared.map(|declared| (declared, None)),
            };
            configured.insert(name.clone(), (machines, with_content));
        }
        if errors.is_empty() { Ok(Self { configured, texts, key, open }) } else { Err(errors) }
    }

    /// What stands for the secrets of a machine that `has` some; what cannot be known yet is unknown.
    pub(super) async fn fingerprints(
        &self,
        machine: &str,
        keys: &BTreeMap<String, evaluate::Key>,
        has: &Fingerprints,
        cancel: &CancellationToken,
    ) -> Result<Fingerprints, Diagnostics> {
        if self.open {
            return Ok(Attr::Unknown);
        }
        let mut prints = BTreeMap::new();
        for (name, print) in self.of(machine, keys, has, cancel).await? {
            prints.insert(name, print.and_then(|(_, print)| print).map_or(Attr::Unknown, Attr::Known));
        }
        Ok(if prints.is_empty() { Attr::Null } else { Attr::Known(prints) })
    }

    /// The secrets of a machine, when everything is known, as they were planned.
    pub(super) async fn of_machine(
        &self,
        owner: &str,
        machine: &str,
        keys: &BTreeMap<String, evaluate::Key>,
        planned: &Fingerprints,
        cancel: &CancellationToken,
    ) -> Result<OfMachine, Diagnostics> {
        let path = |name: &str| {
            let configured = self.configured.contains_key(name);
            let (attribute, key) = if configured { ("secrets", name) } else { ("machines", machine) };
            Path::root().attribute(attribute).key(key)
        };
        let mut declared = vec![];
        for (name, known) in self.of(machine, keys, planned, cancel).await? {
            let Some((secret, Some(print))) = known else {
                return Err(Diagnostic::error(format!("Secret \"{name}\" is still not known"))
                    .detail("Something about it has no value even now.")
                    .at(path(&name))
                    .into());
            };
            let before = planned.known().and_then(|planned| planned.get(&name)?.known());
            if before.is_some_and(|before| *before != print) {
                return Err(changed(&name, path(&name)).into());
            }
            declared.push((secret, print));
        }
        let owner = owner.parse::<DeploymentId>().map_err(|error| Diagnostic::error(error.to_string()))?;
        Ok(OfMachine { owner, declared })
    }

    /// All secrets of a machine. Of what cannot be had now, those stay that are among the `kept`.
    async fn of(
        &self,
        machine: &str,
        keys: &BTreeMap<String, evaluate::Key>,
        kept: &Fingerprints,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, Option<(Declared, Option<String>)>>, Diagnostics> {
        let print = |declared: &Declared, content: Option<&Content>| {
            self.key.as_ref().and_then(|key| key.fingerprint(declared, content))
        };
        let mut all = BTreeMap::new();
        let configured = self.configured.iter();
        for (name, (machines, known)) in configured {
            if machines.as_ref().is_none_or(|machines| machines.contains(machine)) {
                let known = known
                    .as_ref()
                    .map(|(declared, content)| (declared.clone(), print(declared, content.as_ref())));
                all.insert(name.clone(), known);
            }
        }
        let at = || Path::root().attribute("machines").key(machine);
        let texts = self.texts.iter().find(|(of, _)| of.as_str() == machine).map(|(_, texts)| texts);
        for (name, key) in keys {
            let text = texts.and_then(|texts| texts.get(name));
            let declared = declared_key(name, key, text).map_err(|problem| problem.at(at()))?;
            if all.contains_key(name) {
                return Err(Diagnostic::error(format!("Machine \"{machine}\" has two secrets \"{name}\""))
                    .detail(
                        "One is in `secrets`, the other in `deployment.keys` of the specification. Rename \
                         or remove one.",
                    )
                    .at(at())
                    .into());
            }
            let print = match (&self.key, &declared.source) {
                (None, _) => None,
                (Some(_), Source::Missing) => {
                    let Some(kept) = kept.known().and_then(|kept| kept.get(name)?.known()) else { continue };
                    Some(kept.clone())
                }
                _ => {
                    let content = declared.fetch(cancel).await.map_err(|error| problem(&error, at()))?;
                    print(&declared, Some(&content))
                }
            };
            all.insert(name.clone(), Some((declared, print)));
        }
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        for (declared, _) in all.values().flatten() {
            if let Some(other) = places.insert(&declared.file.path, declared.file.name.as_str()) {
                return Err(Diagnostic::error(format!(
                    "Two secrets have the same path on machine \"{machine}\""
                ))
                .detail(format!(
                    "\"{other}\" and \"{}\" both go to {}.",
                    declared.file.name, declared.file.path
                ))
                .at(at())
                .into());
            }
        }
        Ok(all)
    }
}

/// A content that is not the one that was planned.
pub(super) fn changed(name: &str, path: Path) -> Diagnostic {
    Diagnostic::error(format!("Secret \"{name}\" has changed since the plan"))
        .detail(
            "Its content is not the one that was planned, and nothing was deployed. Plan again; if its \
             source gives another content each time, set `version`, and change that when the secret is to \
             be replaced.",
        )
        .at(path)
}

/// The fingerprints that are known.
pub(super) fn known(prints: &Fingerprints) -> BTreeMap<String, String> {
    let known = |(name, print): (&String, &Attr<String>)| Some((name.clone(), print.known()?.clone()));
    prints.known().into_iter().flatten().filter_map(known).collect()
}

/// A content that could not be had.
fn problem(error: &SecretError, path: Path) -> Diagnostic {
    Diagnostic::error("The content of a secret could not be had").detail(format!("{error}.")).at(path)
}

impl SecretConfig {
    /// What it is, once all about it is known that has to be.
    fn declared(&self, name: &str) -> Option<Declared> {
        let text = |value: &Attr<String>, default: &str| match value {
            Attr::Unknown => None,
            value => Some(value.known().cloned().unwrap_or_else(|| default.to_owned())),
        };
        let version = if self.version.is_unknown() { return None } else { self.version.known().cloned() };
        let source = match (&self.value_wo, &self.command, &self.file) {
            (Attr::Known(WriteOnly(value)), ..) => {
                Source::Value(Content::new(value.expose().as_bytes().to_vec()))
            }
            // Its version says enough for a plan.
            (Attr::Unknown, ..) if version.is_some() => Source::Value(Content::new(vec![])),
            (_, Attr::Known(_), _) => Source::Command(texts(&self.command)?),
            (_, _, Attr::Known(file)) => Source::File(file.into()),
            _ => return None,
        };
        let file = SecretFile {
            name: name.parse().ok()?,
            path: text(&self.path, &format!("/run/keys/{name}"))?,
            user: text(&self.user, "root")?,
            group: text(&self.group, "root")?,
            mode: mode(&text(&self.permissions, "0400")?)?,
            restart: texts(&self.restart)?,
            reload: texts(&self.reload)?,
            persist: if self.persist.is_unknown() {
                return None;
            } else {
                self.persist.known() == Some(&true)
            },
        };
        Some(Declared { file, source, version })
    }
}

/// A key of a specification; `text` is its content, where the specification has that itself.
fn declared_key(name: &str, key: &evaluate::Key, text: Option<&Content>) -> Result<Declared, Diagnostic> {
    let given = [("text", key.text), ("keyFile", key.file.is_some()), ("keyCommand", key.command.is_some())];
    let given: Vec<String> =
        given.iter().filter(|(_, given)| *given).map(|(option, _)| format!("`{option}`")).collect();
    if given.len() > 1 {
        return Err(Diagnostic::error(format!("`deployment.keys.{name}` has more than one content"))
            .detail(format!("Found {}, expected one of them.", given.join(" and "))));
    }
    let source = match (&key.command, &key.file) {
        (Some(words), _) => Source::Command(words.clone()),
        (None, Some(file)) => Source::File(file.clone()),
        (None, None) if key.text => text.cloned().map_or(Source::Missing, Source::Value),
        (None, None) => {
            return Err(Diagnostic::error(format!("`deployment.keys.{name}` has no content"))
                .detail("Expected one of `text`, `keyFile` and `keyCommand`."));
        }
    };
    let wrong = |option: &str, found: &str, expected: &str| {
        Diagnostic::error(format!("`deployment.keys.{name}.{option}` is not usable"))
            .detail(format!("Found {found:?}, expected {expected}."))
    };
    let octal = || wrong("permissions", &key.permissions, "octal digits such as \"0600\"");
    if !is_path(&key.path) {
        return Err(wrong("path", &key.path, "an absolute path"));
    }
    let file = SecretFile {
        name: name.parse::<SecretName>().map_err(|error| {
            Diagnostic::error("The name of a key in `deployment.keys` is not usable")
                .detail(format!("{error}."))
        })?,
        path: key.path.clone(),
        user: key.user.clone(),
        group: key.group.clone(),
        mode: mode(&key.permissions).ok_or_else(octal)?,
        // What needs the key requires this unit, and is restarted with it: as NixOps had it.
        restart: vec![format!("{name}-key.service")],
        reload: vec![],
        persist: false,
    };
    Ok(Declared { file, source, version: None })
}

/// What a change of fingerprints means, for people; empty when nothing changes, and unknown while that is open.
pub(super) fn changes(before: &Fingerprints, after: &Fingerprints) -> Attr<String> {
    let empty = BTreeMap::new();
    let (old, new) = (before.known().unwrap_or(&empty), after.known().unwrap_or(&empty));
    let open = new.iter().any(|(name, print)| print.is_unknown() && old.contains_key(name));
    if open || after.is_unknown() {
        return Attr::Unknown;
    }
    let list = |what: &str, names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
    };
    let parts = [
        list("secrets added", new.keys().filter(|name| !old.contains_key(*name)).collect()),
        list(
            "secrets changed",
            new.iter()
                .filter(|(name, print)| old.get(*name).is_some_and(|old| old != *print))
                .map(|(name, _)| name)
                .collect(),
        ),
        list("secrets removed", old.keys().filter(|name| !new.contains_key(*name)).collect()),
    ];
    Attr::Known(parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
}
