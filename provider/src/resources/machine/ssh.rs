//! A machine that is there already: planned from its address and from what it said when it was seen.

use std::time::Duration;

use nixos_activator::ssh::Wait;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Schema, Severity};

use super::visit::{connect, settle, visit};
use super::{CREATE, Machine};
use crate::context::{Context, SshDefaults};
use crate::machines::ssh::SshBlock;
use crate::machines::{Target, is_same_key, provider_unknown};
use crate::settings::{self, duration_or};

/// Completes a proposed state: what the configuration tells already, what the prior state still tells, and what only the
/// machine can tell.
pub(super) fn planned(
    defaults: Option<&SshDefaults>,
    prior: Option<&Machine>,
    config: &Machine,
    proposed: Machine,
) -> Machine {
    let Attr::Known(block) = proposed.ssh.clone() else {
        return proposed;
    };
    let mut target = block.target();
    let before = prior;
    // At another address, or with another host key, it may be another machine: only a visit tells.
    let prior =
        prior.filter(|prior| prior.target.known().is_some_and(|old| is_known_as(&block, &target, old)));
    let mut planned = proposed;

    // An optional value that is configured wins, also where it is not known yet; one that is not keeps the address's meaning or
    // waits for the machine.
    let open = |configured: &Attr<String>, derived: &Attr<String>| match configured {
        Attr::Null => derived.clone(),
        configured => configured.clone(),
    };
    if let Some((prior, old)) = prior.and_then(|prior| Some((prior, prior.target.known()?))) {
        if block.host_public_key.is_null() {
            target.host_public_key = old.host_public_key.clone();
        }
        target.state_version = open(&config.state_version, &old.state_version);
        target.system = open(&config.system, &old.system);
        target.public_ipv4 = open(&config.public_ipv4, &old.public_ipv4);
        target.private_ipv4 = open(&config.private_ipv4, &old.private_ipv4);
        target.public_ipv6 = open(&config.public_ipv6, &old.public_ipv6);
        planned.os_release = prior.os_release.clone();
        planned.machine_id = prior.machine_id.clone();
        planned.boot_id = prior.boot_id.clone();
        planned.current_system = prior.current_system.clone();
        planned.booted_system = prior.booted_system.clone();
    } else {
        target.state_version = open(&config.state_version, &target.state_version);
        target.system = open(&config.system, &target.system);
        target.public_ipv4 = open(&config.public_ipv4, &target.public_ipv4);
        target.private_ipv4 = open(&config.private_ipv4, &target.private_ipv4);
        target.public_ipv6 = open(&config.public_ipv6, &target.public_ipv6);
        planned.os_release = Attr::Unknown;
        planned.machine_id = Attr::Unknown;
        planned.boot_id = Attr::Unknown;
        planned.current_system = Attr::Unknown;
        planned.booted_system = Attr::Unknown;
    }
    target.target_env = config.target_env.clone();
    target.machine_id = planned.machine_id.clone();
    planned.port = planned.login_port(defaults, prior);
    planned.user = planned.login_user(defaults, before);
    planned.id = match (target.host.known(), planned.user.known(), block.port.is_unknown()) {
        (Some(host), Some(user), false) => Attr::Known(id(user, host, block.port.known().copied())),
        _ => Attr::Unknown,
    };
    planned.host = target.host.clone();
    planned.host_public_key = target.host_public_key.clone();
    planned.system = target.system.clone();
    planned.state_version = target.state_version.clone();
    planned.public_ipv4 = target.public_ipv4.clone();
    planned.private_ipv4 = target.private_ipv4.clone();
    planned.public_ipv6 = target.public_ipv6.clone();
    planned.target = Attr::Known(target);
    planned
}

/// Whether the block leads to the machine that the state knows, as far as an address and a host key can tell.
fn is_known_as(block: &SshBlock, target: &Target, old: &Target) -> bool {
    target.is_at_address_of(old)
        && match (&block.host_public_key, &old.host_public_key) {
            (Attr::Null, _) | (Attr::Known(_), Attr::Null) => true,
            (Attr::Known(now), Attr::Known(before)) => is_same_key(now, before),
            _ => false,
        }
}

/// Asks the machine what it is by now. One that cannot be asked keeps its state, so that it stops nothing but itself.
pub(super) async fn read(cx: &Cx<Context>, machine: &mut Machine) -> Result<(), Diagnostics> {
    let Some(defaults) = cx.data.ssh.as_ref() else {
        cx.warn(crate::machines::not_refreshed(machine.label(), &provider_unknown()));
        return Ok(());
    };
    let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.read), Duration::ZERO);
    match visit(cx, defaults, machine, Wait::UntilReachable(limit)).await {
        Ok(seen) => machine.refresh(&seen),
        Err(error) if error.concerns_machine() => cx.warn(error.warning(machine)),
        Err(error) => return Err(error.diagnostic(machine).into()),
    }
    Ok(())
}

/// Logs in for the first time.
pub(super) async fn create(cx: &Cx<Context>, machine: &mut Machine) -> Result<(), Diagnostics> {
    let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.create), CREATE);
    settle(cx, machine, None, Wait::UntilLetIn(limit)).await
}

/// Logs in where something is to be learned, and where it is done in another way than before. Nothing is learned there: that it does not
/// work is a warning, so that other machines are deployed to all the same.
pub(super) async fn update(
    cx: &Cx<Context>,
    prior: &Machine,
    machine: &mut Machine,
) -> Result<(), Diagnostics> {
    if machine.is_open() {
        let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.update), CREATE);
        return settle(cx, machine, Some(prior), Wait::UntilLetIn(limit)).await;
    }
    let Some(defaults) = cx.data.ssh.as_ref().filter(|_| machine.ssh != prior.ssh) else {
        return Ok(());
    };
    match connect(cx, defaults, machine, Wait::ONE_TRY).await {
        Ok(_) => Ok(()),
        Err(error) if error.concerns_machine() => {
            cx.warn(Diagnostic { severity: Severity::Warning, ..error.diagnostic(machine) });
            Ok(())
        }
        Err(error) => Err(error.diagnostic(machine).into()),
    }
}

/// The machine at an address, or that of a configuration.
pub(super) async fn import(cx: &Cx<Context>, schema: &Schema, id: &str) -> Result<Machine, Diagnostics> {
    let config: Machine = match settings::configuration_in(id)? {
        Some(written) if written.get("ec2").is_some_and(|block| !block.is_null()) => {
            return Err(Diagnostic::error("A machine on EC2 is imported by the id of its instance")
                .detail("Found a configuration with `ec2`, expected an id such as i-0123456789abcdef0.")
                .into());
        }
        Some(written) => schema.read_configuration(&written.into())?,
        None => Machine { ssh: Attr::Known(parse_id(id)?), ..Machine::default() },
    };
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let mut machine = planned(Some(defaults), None, &config, config.clone());
    // One try by default: Terraform shows no progress during an import, and an import with a wrong address should fail at once.
    let limit = duration_or(config.timeouts.known().map(|timeouts| &timeouts.create), Duration::ZERO);
    let seen = visit(cx, defaults, &machine, Wait::UntilReachable(limit))
        .await
        .map_err(|error| error.diagnostic(&machine).appended(settings::IMPORT_KNOWS_ITS_ID))?;
    machine.settle(&seen, None)?;
    if machine.name.is_null() {
        machine.name = Attr::from(seen.facts.hostname);
    }
    Ok(machine)
}

fn id(user: &str, host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| format!("{user}@{host}"), |port| format!("{user}@{host}:{port}"))
}

/// Reads `[user@]host[:port]`, with IPv6 addresses in brackets.
pub(crate) fn parse_id(id: &str) -> Result<SshBlock, Diagnostics> {
    let wrong = || {
        Diagnostics::from(Diagnostic::error("This is not the id of a machine").detail(format!(
            "Found \"{id}\", expected [user@]host[:port], e.g. `root@203.0.113.7` or `[2001:db8::7]:2222`; a configuration, \
             `jsonencode({{ name = …, ssh = {{ host = … }} }})`; or the id of an instance on EC2, `eu-west-1:i-0123456789abcdef0`."
        )))
    };
    let (user, rest) = id.split_once('@').map_or((None, id), |(user, rest)| (Some(user), rest));
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
        (host, port.strip_prefix(':'))
    } else {
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port)),
            _ => (rest, None),
        }
    };
    let port = port.map(|port| port.parse::<u16>().map_err(|_| wrong())).transpose()?;
    if host.is_empty() || user.is_some_and(str::is_empty) || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    Ok(SshBlock {
        host: Attr::Known(host.to_owned()),
        port: Attr::from(port),
        user: Attr::from(user.map(str::to_owned)),
        ..SshBlock::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::visit::Seen;
    use super::*;
    use nixos_activator::facts::Facts;

    fn block(host: &str) -> SshBlock {
        SshBlock { host: Attr::Known(host.into()), ..SshBlock::default() }
    }

    fn configured(host: &str) -> Machine {
        Machine { name: Attr::Known("web".into()), ssh: Attr::Known(block(host)), ..Machine::default() }
    }

    /// As if everything that is proposed were configured, but what `planned` itself had computed.
    fn plan(prior: Option<&Machine>, proposed: Machine) -> Machine {
        let config = Machine { name: proposed.name.clone(), ssh: proposed.ssh.clone(), ..Machine::default() };
        let config = if prior.is_some() { config } else { proposed.clone() };
        planned(Some(&SshDefaults::default()), prior, &config, proposed)
    }

    fn seen() -> Seen {
        let facts = Facts {
            system: Some("x86_64-linux".into()),
            nixos_release: Some("24.11".into()),
            machine_id: Some("m1".into()),
            host_keys: vec!["ssh-ed25519 AAAA".into()],
            address: Some("10.0.0.2".parse().unwrap()),
            ..Facts::default()
        };
        Seen { facts, port: 22, host_key: None, is_checked: true }
    }

    #[test]
    fn a_literal_address_is_a_fact_before_the_machine_was_seen() {
        let target = plan(None, configured("10.0.0.2")).target.into_known().unwrap();
        assert_eq!(target.private_ipv4, Attr::Known("10.0.0.2".into()));
        assert_eq!(target.public_ipv4, Attr::Null);
        assert!(target.state_version.is_unknown());
    }

    #[test]
    fn an_address_that_another_resource_will_bring_is_not_guessed() {
        let later = Machine { public_ipv4: Attr::Unknown, ..configured("10.0.0.2") };
        let machine = plan(None, later.clone());
        assert!(machine.public_ipv4.is_unknown());
        let target = machine.target.into_known().unwrap();
        assert!(target.public_ipv4.is_unknown());
        assert_eq!(target.private_ipv4, Attr::Known("10.0.0.2".into()));

        // Nor is the one from before kept while a new one is on its way.
        let mut before = plan(None, configured("10.0.0.2"));
        before.settle(&seen(), None).unwrap();
        let machine = planned(
            Some(&SshDefaults::default()),
            Some(&before),
            &later,
            Machine { public_ipv4: Attr::Unknown, ..before.clone() },
        );
        assert!(machine.target.into_known().unwrap().public_ipv4.is_unknown());
    }

    #[test]
    fn a_visit_leaves_nothing_open_and_a_second_plan_changes_nothing() {
        let mut machine = plan(None, configured("web.example"));
        assert!(machine.is_open());
        machine.settle(&seen(), None).unwrap();
        assert!(!machine.is_open());
        assert_eq!(machine.private_ipv4, Attr::Known("10.0.0.2".into()));
        let again = plan(Some(&machine), machine.clone());
        assert_eq!(again, machine);
    }

    #[test]
    fn the_state_version_is_that_of_the_first_visit() {
        let mut machine = plan(None, configured("web.example"));
        machine.settle(&seen(), None).unwrap();
        let moved = Machine { ssh: Attr::Known(block("10.9.9.9")), ..machine.clone() };
        let mut moved = plan(Some(&machine), moved);
        assert!(moved.is_open());
        let mut later = seen();
        later.facts.nixos_release = Some("25.05".into());
        moved.settle(&later, Some(&machine)).unwrap();
        assert_eq!(moved.state_version, Attr::Known("24.11".into()));
    }

    #[test]
    fn another_host_key_may_be_another_machine() {
        let mut machine = plan(None, configured("web.example"));
        machine.settle(&seen(), None).unwrap();
        let with_key = |key: &str| Machine {
            ssh: Attr::Known(SshBlock { host_public_key: Attr::Known(key.into()), ..block("web.example") }),
            ..machine.clone()
        };
        assert!(
            !plan(Some(&machine), with_key("ssh-ed25519 AAAA root@web")).is_open(),
            "a comment is no key"
        );
        let mut other = plan(Some(&machine), with_key("ssh-ed25519 BBBB"));
        assert!(other.is_open(), "nothing is believed before it was visited");
        assert!(other.target.known().unwrap().machine_id.is_unknown());
        let facts =
            Facts { machine_id: Some("m2".into()), nixos_release: Some("25.05".into()), ..seen().facts };
        other.settle(&Seen { facts, ..seen() }, Some(&machine)).unwrap();
        assert_eq!(other.target.known().unwrap().machine_id, Attr::Known("m2".into()));
        assert_eq!(other.state_version, Attr::Known("25.05".into()));
    }

    #[test]
    fn a_refresh_that_finds_another_machine_believes_nothing_of_the_one_before() {
        let mut machine = plan(None, configured("web.example"));
        machine.settle(&seen(), None).unwrap();
        let mut later = seen();
        later.facts.nixos_release = Some("25.05".into());
        machine.refresh(&later);
        assert_eq!(machine.state_version, Attr::Known("24.11".into()), "it was only upgraded");
        later.facts.machine_id = Some("m2".into());
        later.facts.system = Some("aarch64-linux".into());
        later.facts.address = Some("10.0.0.9".parse().unwrap());
        machine.refresh(&later);
        let target = machine.target.known().unwrap();
        let text = |text: &str| Attr::Known(text.to_owned());
        assert_eq!((&machine.machine_id, &target.machine_id), (&text("m2"), &text("m2")));
        assert_eq!((&machine.state_version, &target.state_version), (&text("25.05"), &text("25.05")));
        assert_eq!((&machine.system, &target.system), (&text("aarch64-linux"), &text("aarch64-linux")));
        assert_eq!((&machine.private_ipv4, &target.private_ipv4), (&text("10.0.0.9"), &text("10.0.0.9")));
    }

    #[test]
    fn the_providers_login_is_not_kept() {
        let mut machine = plan(None, configured("web.example"));
        machine.settle(&seen(), None).unwrap();
        assert_eq!(machine.user, Attr::Known("root".into()));
        assert_eq!(machine.target.known().unwrap().user, Attr::Null, "only what the block says");
        let later = SshDefaults { user: "deploy".into(), port: Some(2222), ..SshDefaults::default() };
        let changed = planned(Some(&later), Some(&machine), &configured("web.example"), machine.clone());
        assert_eq!((&changed.user, &changed.port), (&Attr::Known("deploy".into()), &Attr::Known(2222)));
        assert_eq!(changed.target, machine.target);
        assert!(!changed.is_open());
    }

    #[test]
    fn a_declared_platform_must_be_the_real_one() {
        let declared = Machine { system: Attr::Known("aarch64-linux".into()), ..configured("10.0.0.2") };
        let mut machine = plan(None, declared);
        assert!(machine.settle(&seen(), None).is_err());
    }

    #[test]
    fn ids_are_read_as_people_write_them() {
        let read = |id: &str| {
            parse_id(id).map(|b| (b.user.into_known(), b.host.into_known(), b.port.into_known())).ok()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("web"), Some((None, some("web"), None)));
        assert_eq!(read("root@10.0.0.1:2222"), Some((some("root"), some("10.0.0.1"), Some(2222))));
        assert_eq!(read("[2001:db8::7]:22"), Some((None, some("2001:db8::7"), Some(22))));
        assert_eq!(read("2001:db8::7"), Some((None, some("2001:db8::7"), None)));
        for bad in ["", "@web", "web:ssh", "root@", "a b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
