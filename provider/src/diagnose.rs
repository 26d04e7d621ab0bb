//! Turns the activator's errors into diagnostics: what happened in the user's words, the evidence, and what to do.

use nixos_activator::MachineName;
use nixos_activator::activate::ActivateError;
use nixos_activator::agent::{Outcome, Report};
use nixos_activator::build::BuildError;
use nixos_activator::deploy::DeployError;
use nixos_activator::evaluate::{EvaluateError, Node};
use nixos_activator::facts::FactsError;
use nixos_activator::network::SpecError;
use nixos_activator::nix::{NixError, OLDEST};
use nixos_activator::push::PushError;
use nixos_activator::reboot::RebootError;
use nixos_activator::ssh::SshError;
use tfplugin::{Diagnostic, Diagnostics, Path};

/// A machine that cannot be talked to.
pub(crate) fn ssh(machine: &str, error: &SshError, path: &Path) -> Diagnostic {
    let (summary, advice) = match error {
        SshError::NotFound => (
            "OpenSSH's client was not found".to_owned(),
            "Install it where Terraform runs (`apt-get install openssh-client`, `nix profile install nixpkgs#openssh`) or add \
             it to PATH.",
        ),
        SshError::Setting { .. } => {
            (format!("A connection setting of machine \"{machine}\" is not usable"), "Correct the value.")
        }
        SshError::Unreachable { .. } => (
            format!("Machine \"{machine}\" cannot be reached"),
            "Check that it is running, that the address and port are right, and that the network, firewall and bastion let \
             this machine connect.",
        ),
        SshError::HostKeyChanged { .. } => (
            format!("The host key of machine \"{machine}\" is not the expected one"),
            "Either another machine answers at this address, or this one was installed anew. If that is what happened, set \
             `host_public_key` to the new key (or remove the old one from known_hosts).",
        ),
        SshError::HostKeyUnknown { .. } => (
            format!("The host key of machine \"{machine}\" is not known or not the expected one"),
            "Set `host_public_key` to the machine's key (`/etc/ssh/ssh_host_ed25519_key.pub`), add it to known_hosts, or \
             set `host_key_policy = \"accept_new\"` to trust the first key seen.",
        ),
        SshError::Denied { .. } => (
            format!("Machine \"{machine}\" refused the login"),
            "Check `user` and the private key: `ssh.private_keys` and `ssh.private_key_file` of the provider, or the SSH agent. \
             Nothing is asked for interactively.",
        ),
        SshError::Elevate { .. } => (
            format!("No root login on machine \"{machine}\""),
            "Either it must not ask for a password (`NOPASSWD` in sudoers, `nopass` in doas.conf, a rule of polkit), or the \
             provider's `ssh.elevate_password` says what to type, and `elevate` has no option such as `-n` that forbids to ask.",
        ),
        SshError::Lost { .. } => (
            format!("The connection to machine \"{machine}\" broke"),
            "Run the operation again; what was done on the machine is detected.",
        ),
        SshError::Other { .. } | SshError::Local { .. } => {
            (format!("No connection to machine \"{machine}\""), "The message above is from `ssh`.")
        }
        SshError::Cancelled => {
            (format!("Cancelled while connecting to machine \"{machine}\""), "Nothing was changed.")
        }
    };
    Diagnostic::error(summary).detail(format!("{error}\n\n{advice}")).at(path.clone())
}

/// A machine that was connected to but did not say what it is.
pub(crate) fn facts(machine: &str, error: &FactsError, path: &Path) -> Diagnostic {
    match error {
        FactsError::Ssh(error) => ssh(machine, error, path),
        FactsError::Shell { .. } => Diagnostic::error(format!("Machine \"{machine}\" has no usable shell"))
            .detail(format!(
                "{error}\n\nThe login needs a POSIX shell, and no script that asks questions or prints noise."
            ))
            .at(path.clone()),
    }
}

/// Nix on the machine where Terraform runs.
pub(crate) fn nix(error: &NixError) -> Diagnostic {
    match error {
        NixError::NotFound => Diagnostic::error("Nix was not found").detail(format!(
            "There is no `nix` on PATH where Terraform runs, and this configuration has to be evaluated and built with it. \
             Any version from {OLDEST} will do: `apt-get install nix-bin`, or see https://nixos.org/download."
        )),
        NixError::TooOld { found } => Diagnostic::error("Nix is too old").detail(format!(
            "The `nix` on PATH is version {found}; {OLDEST} or later is needed. Install a newer one (`nix upgrade-nix`, or \
             https://nixos.org/download) or put it first on PATH."
        )),
        NixError::Cancelled => Diagnostic::error("Cancelled").detail("Nix was stopped. No machine was changed."),
        error => Diagnostic::error("Nix failed").detail(error.to_string()),
    }
}

/// A specification that does not evaluate. `spec` is the attribute it comes from.
pub(crate) fn evaluation(error: &EvaluateError, spec: &Path) -> Diagnostics {
    let machine = |name: &str| Path::root().attribute("machines").key(name);
    let diagnostic = match error {
        EvaluateError::Nix(error) => nix(error),
        EvaluateError::Spec(SpecError::Missing { path, source }) => {
            Diagnostic::error("The network file cannot be read").detail(format!(
                "{}: {source}.\n\nExpected the path of a NixOps network file; relative paths count from the directory where \
                 Terraform runs, so write \"${{path.module}}/network.nix\".",
                path.display()
            ))
            .at(spec.clone())
        }
        EvaluateError::Spec(error @ SpecError::Flake(_)) => {
            Diagnostic::error("The flake reference is not usable").detail(error.to_string()).at(spec.clone())
        }
        EvaluateError::NoSuchNode { name, .. } => {
            Diagnostic::error(format!("The specification has no node \"{name}\""))
                .detail(format!(
                    "{error}.\n\nEach key of `machines` is the name of a node. Rename the key, or add the node to the specification."
                ))
                .at(machine(name.as_str()))
        }
        EvaluateError::Nodes { broken } => {
            let found = mistakes(broken.iter().map(|(name, trace)| (name.as_str(), trace.as_str())));
            return found.iter().map(|mistake| mistake.diagnostic().at(spec.clone())).collect();
        }
        EvaluateError::Network { trace } => {
            Diagnostic::error("The specification does not evaluate").detail(Trace::new(trace).explained()).at(spec.clone())
        }
        EvaluateError::Input(error) => {
            Diagnostic::error("The evaluator cannot be written").detail(error.to_string())
        }
    };
    diagnostic.into()
}

/// All that is wrong with nodes, in the order of their names.
pub(crate) fn nodes<'a>(nodes: impl IntoIterator<Item = (&'a MachineName, &'a Node)>) -> Diagnostics {
    let machines = Path::root().attribute("machines");
    let (mut found, mut broken) = (vec![], vec![]);
    for (name, node) in nodes {
        let name = name.as_str();
        match node {
            Node::Exact(_) | Node::Waits { .. } => {}
            Node::NoMachine { of, fact } => {
                let summary = format!("Node \"{name}\" needs machine \"{of}\", which is not in `machines`");
                let detail = format!(
                    "The configuration of \"{name}\" uses `{fact}` of \"{of}\". That node is part of the specification, but no \
                     machine was given for it.\n\nAdd it: machines = {{ …, {of} = nixos_machine.{of}.target }}"
                );
                found.push((name, Diagnostic::error(summary).detail(detail).at(machines.clone().key(name))));
            }
            Node::Broken { trace } => broken.push((name, trace.as_str())),
        }
    }
    found.extend(mistakes(broken).iter().map(|mistake| {
        let path =
            if mistake.others.is_empty() { machines.clone().key(mistake.first) } else { machines.clone() };
        (mistake.first, mistake.diagnostic().at(path))
    }));
    found.sort_by_key(|(name, _)| *name);
    found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

/// A mistake and the nodes that it breaks.
struct Mistake<'a> {
    trace: Trace<'a>,
    /// The node that the trace is of.
    first: &'a str,
    others: Vec<&'a str>,
}

/// What breaks nodes, which come with Nix' traces; what breaks several is there once.
fn mistakes<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Mistake<'a>> {
    let mut found: Vec<Mistake<'a>> = vec![];
    for (name, trace) in nodes {
        let trace = Trace::new(trace);
        match found.iter_mut().find(|mistake| mistake.trace.identity() == trace.identity()) {
            Some(mistake) => mistake.others.push(name),
            None => found.push(Mistake { trace, first: name, others: vec![] }),
        }
    }
    found
}

impl Mistake<'_> {
    fn diagnostic(&self) -> Diagnostic {
        let first = self.first;
        let summary = match self.others.as_slice() {
            [] => format!("The configuration of machine \"{first}\" does not evaluate"),
            [second] => {
                format!("The configurations of machines \"{first}\" and \"{second}\" do not evaluate")
            }
            [second, more @ ..] => format!(
                "The configurations of machines \"{first}\", \"{second}\" and {} more do not evaluate",
                more.len()
            ),
        };
        let mut detail = self.trace.explained();
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(|name| format!("\"{name}\"")).collect();
            detail.push_str(&format!(
                "\n\nThis was said of machine \"{first}\"; it is the same for {}.",
                others.join(", ")
            ));
        }
        Diagnostic::error(summary).detail(detail)
    }
}

/// A build that failed; no machine has been touched.
pub(crate) fn build(error: &BuildError) -> Diagnostic {
    match error {
        BuildError::Nix(NixError::Failed { message, output, .. }) => {
            let mut detail = shortened(message);
            if !output.is_empty() {
                let lines = output.get(output.len().saturating_sub(20)..).unwrap_or_default();
                detail = format!("{detail}\n\nThe last lines of what was built:\n{}", indented(lines));
            }
            Diagnostic::error("The build failed").detail(format!(
                "{detail}\n\nNo machine was changed: everything is built before anything is deployed."
            ))
        }
        BuildError::Nix(error) => nix(error),
        error => Diagnostic::error("The build failed").detail(error.to_string()),
    }
}

/// A machine that does not run its new system.
pub(crate) fn deployment(machine: &str, error: &DeployError) -> Diagnostic {
    let path = Path::root().attribute("machines").key(machine);
    let failed =
        |summary: &str| Diagnostic::error(format!("{summary} machine \"{machine}\"")).at(path.clone());
    match error {
        DeployError::Ssh(error)
        | DeployError::Activate(ActivateError::Ssh(error))
        | DeployError::Push(PushError::Ssh(error)) => ssh(machine, error, &path),
        DeployError::Facts(error) => facts(machine, error, &path),
        DeployError::NoNix => failed("There is no Nix on").detail(
            "`nix-store` was not found on the machine, so it cannot receive a system. Expected a machine that runs NixOS, or \
             another Linux with Nix installed.",
        ),
        DeployError::Platform { system, found } => failed("The system is for another platform than").detail(format!(
            "It was built for {system}, the machine is {found}. Set `nixpkgs.hostPlatform = \"{found}\"` in its configuration."
        )),
        DeployError::Push(PushError::DiskFull { message })
        | DeployError::Activate(ActivateError::DiskFull { message, .. }) => {
            failed("No space is left on").detail(format!(
                "{}\n\nThe machine still runs what it ran before. Free space there (`nix-collect-garbage -d`, larger disk) and apply again.",
                shortened(message)
            ))
        }
        DeployError::Push(PushError::Nix(error)) => failed("The system could not be copied to").detail(format!(
            "{}\n\nThe machine still runs what it ran before.",
            shortened(&error.to_string())
        )),
        DeployError::Activate(ActivateError::NotRoot { user, .. }) => failed("No root login on").detail(format!(
            "The login is {user}'s, and activating a system needs root. Set `user = \"root\"`, or say how {user} becomes root: \
             `elevate = [\"sudo\", \"-n\"]`."
        )),
        DeployError::Activate(error) => failed("The system could not be activated on").detail(error.to_string()),
        DeployError::Refused(report) => failed(headline(report)).detail(report_detail(report)),
        DeployError::Reboot(error) => {
            let summary = match error {
                RebootError::Refused { .. } => "A reboot was refused by",
                RebootError::Away { .. } => "Not back after its reboot:",
                RebootError::SameBoot { .. } => "Not rebooted:",
                RebootError::WentBack { .. } => "Back with its old system, after a reboot:",
                RebootError::OtherSystem { .. } => "Another system was booted by",
                RebootError::Cancelled => "Not waited for:",
            };
            let then = match error {
                RebootError::WentBack { .. } => {
                    "The new system did not boot, or nobody could log in to it in time. The machine boots the old one: `journalctl -b -1` \
                     there says what happened, as far as it came."
                }
                _ => "Its new system was activated and is the one that it is to boot. The next plan shows what it runs.",
            };
            failed(summary).detail(format!("{error}.\n\n{then}"))
        }
        DeployError::NotWellAfterReboot(report) => failed("Not well after its reboot:").detail(report_detail(report)),
        DeployError::Secret(error) => failed("A secret could not be sent to").detail(format!(
            "{error}.\n\nThe machine still runs what it ran before."
        )),
        DeployError::ChangedSincePlan { expected, found } => failed("Someone else has changed").detail(format!(
            "The plan was made when it ran\n  {expected}\nbut now it runs\n  {found}\n\nNothing was changed on it. Plan again to see \
             what is different."
        )),
        DeployError::NotBegun { failed: others } => failed("Not deployed:").detail(format!(
            "It was not begun, because others failed ({others}) and `rollout` allows no more. It still runs what it ran before; \
             the next apply continues here."
        )),
        DeployError::Cancelled => {
            failed("Cancelled before deploying").detail("It still runs what it ran before; the next apply continues here.")
        }
    }
}

fn headline(report: &Report) -> &'static str {
    match report.outcome {
        Outcome::RolledBack => "The new system failed and was rolled back on",
        Outcome::RollbackFailed => "The new system failed, and so did going back, on",
        Outcome::Rejected => "The new system was not accepted by",
        Outcome::RebootRequired => "The new system needs a reboot of",
        Outcome::NotPersisted => "The new system runs, but will not survive a reboot of",
        Outcome::Activated | Outcome::Unchanged => "Something went wrong after activating",
    }
}

/// What the agent says, the journal of units that failed, and the last lines of the activation.
fn report_detail(report: &Report) -> String {
    let mut text = report.message.clone();
    for unit in &report.failed_units {
        text.push_str("\n\n");
        text.push_str(&unit.name);
        text.push_str(" failed; its journal:\n");
        text.push_str(&indented(&unit.journal));
    }
    for check in &report.failed_checks {
        text.push_str(&format!("\n\nHealth check \"{}\":\n", check.name));
        text.push_str(&indented(&check.reason.lines().map(str::to_owned).collect::<Vec<_>>()));
    }
    // What the activation said is of no interest where it succeeded.
    if !report.output_tail.is_empty() && report.failed_checks.is_empty() {
        text.push_str("\n\nThe activation said:\n");
        text.push_str(&indented(&report.output_tail));
    }
    text
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// How much is shown of what is long.
const LINES: usize = 40;

/// The end of a long message: what counts comes last.
fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(LINES) {
        None | Some(0) => lines.join("\n"),
        Some(more) => {
            format!("… ({more} lines before)\n{}", lines.get(more..).unwrap_or_default().join("\n"))
        }
    }
}

/// The beginning of a long message.
fn beginning(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.split_at_checked(LINES) {
        None | Some((_, [])) => lines.join("\n"),
        Some((shown, more)) => format!("{}\n… ({} more lines)", shown.join("\n"), more.len()),
    }
}

/// An error of Nix, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace<'a> {
    /// The error itself, and where it is.
    cause: &'a str,
    /// The way there.
    frames: &'a str,
    /// The last step of it.
    innermost: &'a str,
    /// Whether that comes first, as it does before Nix 2.13.
    is_innermost_first: bool,
}

impl<'a> Trace<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.trim_end();
        let is_error = |line: &str| line == "error:" || line.starts_with("error: ");
        let (before, cause) = text.split_at(lines_that(text, is_error).last().unwrap_or_default());
        let is_frame = |line: &str| line.starts_with("… ");
        if !before.trim().trim_start_matches("error:").is_empty() {
            let innermost = lines_that(before, is_frame).last().and_then(|at| before.get(at..));
            let innermost = innermost.unwrap_or_default();
            return Self { cause, frames: before, innermost, is_innermost_first: false };
        }
        let mut steps = lines_that(cause, is_frame);
        let Some((cause, frames)) = steps.next().and_then(|at| cause.split_at_checked(at)) else {
            return Self { cause, frames: "", innermost: "", is_innermost_first: false };
        };
        let end = steps.next().map_or(frames.len(), |at| at - cause.len());
        let innermost = frames.get(..end).unwrap_or(frames);
        Self { cause: cause.trim_end(), frames, innermost, is_innermost_first: true }
    }

    /// What tells it from other mistakes: where it is, or where it was noticed. Of a recursion nobody knows where it began.
    fn identity(&self) -> [&'a str; 2] {
        let is_place = |line: &str| line.starts_with("at ") && line.ends_with(':');
        if self.cause.contains("infinite recursion") {
            [self.cause, self.frames]
        } else if lines_that(self.cause, is_place).next().is_some() {
            [self.cause, ""]
        } else {
            [self.cause, self.innermost]
        }
    }

    /// The error on top, where people look first, and what to do where Nix does not say that.
    fn explained(&self) -> String {
        let cause = self.cause.trim_end();
        let mut text = match (self.frames, self.is_innermost_first) {
            ("", _) => shortened(cause),
            (frames, false) => format!("{cause}\n\nThe way there, innermost last:\n{}", shortened(frames)),
            (frames, true) => format!("{cause}\n\nThe way there, innermost first:\n{}", beginning(frames)),
        };
        if [self.cause, self.frames].iter().any(|text| text.contains("allow-import-from-derivation")) {
            text.push_str(
                "\n\nThe evaluation imports something that has to be built first. Set `import_from_derivation = true` to let a \
                 plan build it, or commit what is built to the source.",
            );
        }
        text
    }
}

/// Where lines begin that are such, not counting their indentation.
fn lines_that<'a>(text: &'a str, are_such: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    let mut end = 0;
    let starts = text.split_inclusive('\n').map(move |line| {
        end += line.len();
        (end - line.trim_start().len(), line.trim())
    });
    starts.filter(move |(_, line)| are_such(line)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_trace_comes_first() {
        let frames = "       … while evaluating x\n         at a.nix:1:2:\n\n       … while calling y\n         at b.nix:3:4:";
        let text =
            Trace::new(&format!("error:\n{frames}\n\n       error: on purpose\n       more\n")).explained();
        assert!(
            text.starts_with("error: on purpose\n       more\n\nThe way there, innermost last:"),
            "{text}"
        );
        assert!(text.ends_with("at b.nix:3:4:"), "{text}");
        // Nix 2.8.
        let text = Trace::new(&format!("error: on purpose\n\n{frames}")).explained();
        assert!(
            text.starts_with("error: on purpose\n\nThe way there, innermost first:\n… while evaluating x"),
            "{text}"
        );
        assert_eq!(Trace::new("error: syntax error").explained(), "error: syntax error");
        assert_eq!(Trace::new("").explained(), "");
        // A message that begins with a line break.
        let text =
            Trace::new(&format!("error:\n{frames}\n\n       error:\n       Failed assertions:\n       - x"))
                .explained();
        assert!(text.starts_with("error:\n       Failed assertions:\n       - x\n\nThe way"), "{text}");
    }

    #[test]
    fn what_breaks_many_is_said_once() {
        let frame = |what: &str, place: &str| format!("       … while {what}\n         at {place}:\n\n");
        let with_place = |way: &str, cause: &str| {
            format!(
                "error:\n{}       error: {cause}\n       at x.nix:1:2:\n         1| x",
                frame("going", way)
            )
        };
        let without_place = |way: &str, last: &str, cause: &str| {
            format!("error:\n{}{}       error: {cause}", frame("going", way), frame("looking", last))
        };
        let old = |way: &str, last: &str| {
            format!("error: no set\n\n{}{}", frame("looking", last), frame("going", way))
        };
        let recursion = |way: &str| with_place(way, "infinite recursion encountered");
        for (first, second, is_same) in [
            (with_place("a", "one"), with_place("b", "one"), true),
            (with_place("a", "one"), with_place("a", "two"), false),
            (without_place("a", "x", "no set"), without_place("b", "x", "no set"), true),
            (without_place("a", "x", "no set"), without_place("a", "y", "no set"), false),
            (old("a", "x"), old("b", "x"), true),
            (old("a", "x"), old("a", "y"), false),
            (recursion("a"), recursion("b"), false),
            (recursion("a"), recursion("a"), true),
        ] {
            let count = mistakes([("a", first.as_str()), ("b", second.as_str())]).len();
            assert_eq!(count == 1, is_same, "{first}\n{second}");
        }

        let (one, two) = (with_place("a", "one"), with_place("a", "two"));
        let found = mistakes([("a", &*two), ("b", &*one), ("c", &*two), ("d", &*two)]);
        let said: Vec<_> = found.iter().map(|mistake| mistake.diagnostic()).collect();
        let summaries: Vec<&str> = said.iter().map(|diagnostic| diagnostic.summary.as_str()).collect();
        let expected = [
            "The configurations of machines \"a\", \"c\" and 1 more do not evaluate",
            "The configuration of machine \"b\" does not evaluate",
        ];
        assert_eq!(summaries, expected);
        assert!(said[0].detail.ends_with("of machine \"a\"; it is the same for \"c\", \"d\"."), "{said:?}");
    }

    #[test]
    fn long_messages_keep_their_end() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let text = shortened(&text);
        assert!(text.starts_with("… (60 lines before)\n60\n"), "{text}");
        assert!(text.ends_with("\n99"), "{text}");
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(beginning(&text).ends_with("\n39\n… (60 more lines)"));
        assert_eq!(beginning("1\n2"), "1\n2");
    }
}
