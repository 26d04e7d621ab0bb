//! Turns the activator's errors into diagnostics: what happened in the user's words, the evidence, and what to do.

mod nodes;
mod text;
mod trace;
mod warnings;

use nixos_activator::agent::AgentError;
use nixos_activator::agent::{Outcome, Report};
use nixos_activator::build::BuildError;
use nixos_activator::deploy::DeployError;
use nixos_activator::evaluate::EvaluateError;
use nixos_activator::facts::FactsError;
use nixos_activator::network::SpecError;
use nixos_activator::nix::{NixError, OLDEST, advice};
use nixos_activator::push::PushError;
use nixos_activator::reboot::RebootError;
use nixos_activator::ssh::SshError;
use tfplugin::{Diagnostic, Diagnostics, Path};

use nodes::mistakes;
pub(crate) use nodes::nodes;
use text::{indented, shortened};
use trace::Trace;
pub(crate) use warnings::{of_specification, warnings};

/// A machine that cannot be talked to.
pub(crate) fn ssh(machine: &str, error: &SshError, path: &Path) -> Diagnostic {
    let (summary, advice) = match error {
        SshError::Bastion(error) => return bastion(machine, error, path),
        SshError::NotFound => (
            "OpenSSH's client was not found".to_owned(),
            "Install it where Terraform runs (`apt-get install openssh-client`, `nix profile install \
             nixpkgs#openssh`) or add it to PATH.",
        ),
        SshError::Setting { .. } | SshError::Option { .. } => {
            (format!("A connection setting of machine \"{machine}\" is not usable"), "Correct the value.")
        }
        SshError::Unreachable { .. } => (
            format!("Machine \"{machine}\" cannot be reached"),
            "Check that it is running, that the address and port are right, and that the network, firewall \
             and bastion let this machine connect.",
        ),
        SshError::TurnedAway { .. } => (
            format!("Machine \"{machine}\" closes connections before the login"),
            "Its SSH server, or the one of a host that `ssh_config` jumps over, takes no more logins at \
             once (`MaxStartups` in its sshd_config), has shut this address out for a while \
             (`PerSourcePenalties`, fail2ban), or does not start. A `bastion` is logged in to only once, \
             whatever the number of machines behind it.",
        ),
        SshError::NoForwarding { .. } => (
            format!("Machine \"{machine}\" cannot be reached through the host before it"),
            "Its sshd_config has to allow it: `AllowTcpForwarding yes` (or `local`), no \
             `DisableForwarding`, and `PermitOpen` with this machine if at all; the key must not be \
             restricted in authorized_keys (`restrict`, `no-port-forwarding`).",
        ),
        SshError::NoSession { .. } => (
            format!("Machine \"{machine}\" allows too few sessions in one connection"),
            "Set `MaxSessions` in its sshd_config to at least 4; sshd's default is 10.",
        ),
        SshError::Greeting { .. } => (
            format!("The login shell of machine \"{machine}\" is not quiet"),
            "Have it print only where somebody reads it: in a shell's start-up files such as `~/.bashrc`, \
             after `case $- in *i*) ;; *) return;; esac`. Nix could not tell such a text from an answer.",
        ),
        SshError::HostKeyChanged { .. } => (
            format!("The host key of machine \"{machine}\" is not the expected one"),
            "Either another machine answers at this address, or this one was installed anew. If that is \
             what happened, set `host_public_key` to its new key (`/etc/ssh/ssh_host_ed25519_key.pub`). \
             Where no key was ever set, remove the old one from known_hosts; a `nixos_machine` with \
             `host_key_policy = \"accept_new\"` takes the new one when it is replaced (`terraform apply \
             -replace=…`).",
        ),
        SshError::HostKeyUnknown { .. } => (
            format!("The host key of machine \"{machine}\" is not known"),
            "Set `host_public_key` to the machine's key (`/etc/ssh/ssh_host_ed25519_key.pub`), add it to \
             known_hosts, or set `host_key_policy = \"accept_new\"` to trust the first key seen.",
        ),
        SshError::Denied { .. } => (
            format!("Machine \"{machine}\" refused the login"),
            "Check `user` and the private key: `key` or `private_key_file` of the machine, else \
             `ssh.private_key_file` of the provider, else the SSH agent. Nothing is asked for \
             interactively. Servers count the keys that are offered: name one where there are many.",
        ),
        SshError::Elevate { reason, .. } if reason.contains("PTY allocation request failed") => (
            format!("No root login on machine \"{machine}\""),
            "To type a password takes a terminal: set `PermitTTY yes` in the machine's sshd_config (and no \
             `no-pty` or `restrict` in authorized_keys), or have `elevate` ask for no password.",
        ),
        SshError::Elevate { .. } => (
            format!("No root login on machine \"{machine}\""),
            "Either it must not ask for a password (`NOPASSWD` in sudoers, `nopass` in doas.conf, a rule \
             of polkit), or the provider's `ssh.elevate_password` says what to type, and `elevate` has no \
             option such as `-n` that forbids to ask.",
        ),
        SshError::Lost { .. } => (
            format!("The connection to machine \"{machine}\" broke"),
            "Run the operation again; what was done on the machine is detected.",
        ),
        SshError::Other { .. } => (
            format!("No connection to machine \"{machine}\""),
            "The message above is from `ssh`, or from the shell of the login. `user` needs a login shell \
             that runs commands (not nologin or false), and the machine's sshd_config no `ForceCommand` \
             that runs something else.",
        ),
        SshError::Local { .. } => {
            (format!("No connection to machine \"{machine}\""), "The message above is from `ssh`.")
        }
        SshError::Cancelled => {
            (format!("Cancelled while connecting to machine \"{machine}\""), "Nothing was changed.")
        }
    };
    Diagnostic::error(summary).detail(format!("{error}\n\n{advice}")).at(path.clone())
}

/// A bastion that cannot be passed. The machine behind it was not asked.
fn bastion(machine: &str, error: &SshError, path: &Path) -> Diagnostic {
    let (problem, advice) = match error {
        SshError::Denied { .. } => (
            "refused the login",
            "Check `user` and the private key (`key` or `private_key_file`) of `bastion`. What is left out \
             there is as `ssh_config` says for its host, else as for any other login with `ssh`.",
        ),
        SshError::HostKeyChanged { .. } => (
            "has another host key than the expected one",
            "If it was installed anew, set `bastion.host_public_key` to its new key, or correct known_hosts.",
        ),
        SshError::HostKeyUnknown { .. } => (
            "has a host key that is not known or not the expected one",
            "Set `bastion.host_public_key` to its key (`/etc/ssh/ssh_host_ed25519_key.pub`), or add it to \
             known_hosts.",
        ),
        SshError::NoForwarding { .. } => (
            "lets nobody through",
            "Its sshd_config has to allow it: `AllowTcpForwarding yes` (or `local`), no \
             `DisableForwarding`, and `PermitOpen` with this machine if at all; the key must not be \
             restricted in authorized_keys (`restrict`, `no-port-forwarding`).",
        ),
        SshError::TurnedAway { .. } => (
            "closes connections before the login",
            "Its SSH server takes no more logins at once (`MaxStartups` in its sshd_config), has shut this \
             address out for a while (`PerSourcePenalties`, fail2ban), or does not start.",
        ),
        SshError::Unreachable { .. } | SshError::Lost { .. } => (
            "cannot be reached",
            "Check that it is running, that `host` and `port` of `bastion` are right, and that network and \
             firewall let this machine connect.",
        ),
        _ => ("cannot be used", "Correct `bastion`, or what `ssh_config` says of its host."),
    };
    let summary = format!("The bastion before machine \"{machine}\" {problem}");
    Diagnostic::error(summary).detail(format!("{error}\n\n{advice}")).at(path.clone())
}

/// What a refresh says where it leaves a machine as it was last known.
pub(crate) fn kept(problem: Diagnostic) -> Diagnostic {
    problem.into_warning().appended(
        "It was asked with the login that the state has; an apply uses the one of the configuration. Its \
         last known state is kept; the plan may not show what has changed on it since.",
    )
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
            "There is no `nix` on PATH where Terraform runs, and this configuration has to be evaluated \
             and built with it. Any version from {OLDEST} will do: `apt-get install nix-bin`, or see \
             https://nixos.org/download."
        )),
        NixError::TooOld { found } => Diagnostic::error("Nix is too old").detail(format!(
            "The `nix` on PATH is version {found}; {OLDEST} or later is needed. Install a newer one (`nix \
             upgrade-nix`, or https://nixos.org/download) or put it first on PATH."
        )),
        NixError::Hangs { found } => {
            Diagnostic::error(format!("Nix {found} cannot be used")).detail(format!(
                "The `nix` on PATH is version {found}, whose `nix copy` waits for ever \
                 (https://github.com/NixOS/nix/issues/8329). Install another one, older or newer (`nix \
                 upgrade-nix`, or https://nixos.org/download), or put it first on PATH."
            ))
        }
        NixError::Killed { .. } => Diagnostic::error("Nix was killed").detail(format!(
            "{error}, most often for want of memory: the system's log says so. Give evaluations less of it \
             with `nix = {{ evaluation = {{ memory = \"2GiB\", workers = 1 }} }}` in the provider block, \
             or run Terraform where there is more."
        )),
        NixError::Cancelled => Diagnostic::error("Cancelled").detail(
            "Nix was stopped. No machine was \
                                                                      changed.",
        ),
        error => Diagnostic::error("Nix failed").detail(error.to_string()),
    }
}

/// A specification that does not evaluate. `spec` is the attribute it comes from.
pub(crate) fn evaluation(error: &EvaluateError, spec: &Path) -> Diagnostics {
    let machine = |name: &str| Path::root().attribute("machines").key(name);
    let diagnostic = match error {
        EvaluateError::Nix(error) => nix(error),
        EvaluateError::Spec(SpecError::Missing { path, source }) => Diagnostic::error(
            "The network file cannot be read",
        )
        .detail(format!(
            "{}: {source}.\n\nExpected the path of a NixOps network file; relative paths count from the \
             directory where Terraform runs, so write \"${{path.module}}/network.nix\".",
            path.display()
        ))
        .at(spec.clone()),
        EvaluateError::Spec(error @ SpecError::Flake(_)) => {
            Diagnostic::error("The flake reference is not usable").detail(error.to_string()).at(spec.clone())
        }
        EvaluateError::Spec(error @ (SpecError::NotText(_) | SpecError::Encoded { .. })) => {
            Diagnostic::error("The path is not usable").detail(format!("{error}.")).at(spec.clone())
        }
        EvaluateError::NoSuchNode { name, .. } => Diagnostic::error(format!(
            "The specification has no node \"{name}\""
        ))
        .detail(format!(
            "{error}.\n\nEach key of `machines` is the name of a node. Rename the key, or add the node to \
             the specification."
        ))
        .at(machine(name.as_str())),
        EvaluateError::Nodes { broken } => {
            let found = mistakes(broken.iter().map(|(name, trace)| (name.as_str(), trace.as_str())));
            return found.iter().map(|mistake| mistake.diagnostic().at(spec.clone())).collect();
        }
        EvaluateError::Network { trace } => Diagnostic::error("The specification does not evaluate")
            .detail(Trace::new(trace).explained())
            .at(spec.clone()),
        EvaluateError::Input(error) => {
            Diagnostic::error("The evaluator cannot be written").detail(error.to_string())
        }
    };
    diagnostic.into()
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
            if let Some(advice) = advice(message) {
                detail = format!("{detail}\n\n{advice}");
            }
            Diagnostic::error("The build failed").detail(format!(
                "{detail}\n\nNo machine was changed: everything is built before anything is deployed."
            ))
        }
        BuildError::Nix(error @ NixError::Killed { .. }) => Diagnostic::error("The build was killed").detail(format!(
            "{error}, most often for want of memory: the system's log says so. Build less at once (`nix = \
             {{ max_jobs = \"1\", cores = 1 }}` in the provider block) or elsewhere (`builders`).\n\nNo \
             machine was changed: everything is built before anything is deployed."
        )),
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
        | DeployError::Activate(AgentError::Ssh(error))
        | DeployError::Push(PushError::Ssh(error)) => ssh(machine, error, &path),
        DeployError::Facts(error) => facts(machine, error, &path),
        DeployError::NoNix => failed("There is no Nix on").detail(
            "`nix-store` was not found on the machine, so it cannot receive a system. Expected a machine \
             that runs NixOS, or another Linux with Nix installed.",
        ),
        DeployError::Platform { system, found } => failed("The system is for another platform than").detail(format!(
            "It was built for {system}, the machine is {found}. Set `nixpkgs.hostPlatform = \"{found}\"` \
             in its configuration."
        )),
        DeployError::Push(PushError::DiskFull { message })
        | DeployError::Activate(AgentError::DiskFull { message, .. }) => {
            failed("No space is left on").detail(format!(
                "{}\n\nThe machine still runs what it ran before. Free space there (`nix-collect-garbage \
                 -d`, larger disk) and apply again.",
                shortened(message)
            ))
        }
        DeployError::Push(PushError::Nix(error @ NixError::Stuck { .. })) => {
            failed("The system could not be copied to").detail(format!(
                "{error}. The machine still runs what it ran before. Look what `nix-store --serve` does \
                 there, and at the connection to it; what has been copied already is not copied again."
            ))
        }
        DeployError::Push(error @ PushError::Root { .. }) => failed("The system could not be kept on").detail(format!(
            "{error}.\n\nThe machine still runs what it ran before. Its /nix/var/nix has to be writable \
             for root."
        )),
        DeployError::Push(PushError::Nix(error)) => failed("The system could not be copied to").detail(format!(
            "{}\n\nThe machine still runs what it ran before.",
            shortened(&error.to_string())
        )),
        DeployError::Activate(AgentError::NotRoot { user, .. }) => failed("No root login on").detail(format!(
            "The login is {user}'s, and activating a system needs root. Set `user = \"root\"`, or say how \
             {user} becomes root: `elevate = [\"sudo\", \"-n\"]`."
        )),
        DeployError::Activate(error @ AgentError::ReadOnly { .. }) => failed("The system could not be activated on").detail(format!(
            "{error}.\n\nThe machine still runs what it ran before. What it runs and how it goes back is \
             written down there: mount /var/lib (or /var/lib/nixos-agent alone) so that it can be written."
        )),
        DeployError::Activate(error @ AgentError::CannotRun { .. }) => failed("The system could not be activated on").detail(format!(
            "{error}.\n\nThe machine still runs what it ran before. Mount /var/lib (or \
             /var/lib/nixos-agent alone) or /nix/store without `noexec`."
        )),
        DeployError::Activate(error) => failed("The system could not be activated on").detail(error.to_string()),
        DeployError::Refused(report) => failed(headline(report)).detail(report_detail(report)),
        DeployError::Reboot(error) => {
            let summary = match error {
                RebootError::Refused { .. } => "A reboot was refused by",
                RebootError::Away { .. } => "Not back after its reboot:",
                RebootError::SameBoot { .. } | RebootError::NotBegun => "Not rebooted:",
                RebootError::WentBack { .. } => "Back with its old system, after a reboot:",
                RebootError::OtherSystem { .. } => "Another system was booted by",
                RebootError::Cancelled => "Not waited for:",
            };
            let then = match error {
                RebootError::WentBack { .. } => {
                    "The new system did not boot, or nobody could log in to it in time. The machine boots \
                     the old one: `journalctl -b -1` there says what happened, as far as it came."
                }
                RebootError::Refused { .. } => {
                    "Its new system is the one that it boots next. End what is in the way and apply again: \
                     the next plan shows that it is still to be rebooted."
                }
                _ => "Its new system is the one that it boots next. The next plan shows what it runs.",
            };
            failed(summary).detail(format!("{error}.\n\n{then}"))
        }
        DeployError::NotWellAfterReboot(report) => failed("Not well after its reboot:").detail(report_detail(report)),
        DeployError::Secret(error) => failed("A secret could not be sent to").detail(format!(
            "{error}.\n\nNothing was activated without it. The next plan shows what the machine runs."
        )),
        DeployError::AnotherMachine { expected, found } => failed("Another machine answers in the place of").detail(format!(
            "The plan was made for the machine with `machine_id` {expected}, found {found}. Nothing was \
             changed on it. Plan again to see what it runs and what it gets."
        )),
        DeployError::ChangedSincePlan { expected, found } => failed("Someone else has changed").detail(format!(
            "The plan was made when it ran\n  {expected}\nbut now it runs\n  {found}\n\nNothing was \
             changed on it. Plan again to see what is different."
        )),
        DeployError::NotBegun { failed: others } => failed("Not deployed:").detail(format!(
            "It was not begun, because others failed ({others}) and `rollout` allows no more. It still \
             runs what it ran before; the next apply continues here."
        )),
        DeployError::Cancelled => {
            failed("Cancelled before deploying").detail("It still runs what it ran before; the next apply \
                                                         continues here.")
        }
    }
}

fn headline(report: &Report) -> &'static str {
    match report.outcome {
        Outcome::RolledBack => "The new system failed and was rolled back on",
        Outcome::RollbackFailed => "The new system failed, and so did going back, on",
        Outcome::Interrupted => "The activation was interrupted on",
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
