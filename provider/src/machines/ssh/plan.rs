//! What is planned for a machine that is there already: what its address tells, and what it said when it was seen.

use tfplugin::Attr;

use super::block::SshBlock;
use crate::machines::defaults::SshDefaults;
use crate::machines::machine::Machine;
use crate::machines::sameness::is_same_key;
use crate::machines::target::Target;

/// Completes a proposed state: what the configuration tells already, what the prior state still tells, and what only
/// the machine can tell.
pub(super) fn planned(
    defaults: Option<&SshDefaults>,
    prior: Option<&Machine>,
    config: &Machine,
    proposed: Machine,
) -> Machine {
    let mut planned = proposed;
    // Nothing here can power a machine that is there already. An unknown power state can only turn out to be null.
    planned.power_state = if config.power_state.is_unknown() { Attr::Unknown } else { Attr::Null };
    let Attr::Known(block) = planned.ssh.clone() else {
        return planned;
    };
    let told = block.target();
    // At another address, or with another host key, it may be another machine: only a login tells.
    let same = prior.and_then(|prior| Some((prior, prior.target.known()?)));
    let same = same.filter(|(_, old)| is_known_as(&block, &told, old));
    let known = same.map_or(&told, |(_, old)| old);

    planned.host = told.host.clone();
    let key = if block.host_public_key.is_null() { known } else { &told };
    planned.host_public_key = key.host_public_key.clone();
    // An optional value that is configured wins, also where it is not known yet. One that is not configured keeps
    // what is known, or waits for the machine.
    let or_known = |configured: &Attr<String>, known: &Attr<String>| match configured {
        Attr::Null => known.clone(),
        configured => configured.clone(),
    };
    planned.system = or_known(&config.system, &known.system);
    planned.state_version = or_known(&config.state_version, &known.state_version);
    planned.public_ipv4 = or_known(&config.public_ipv4, &known.public_ipv4);
    planned.private_ipv4 = or_known(&config.private_ipv4, &known.private_ipv4);
    planned.public_ipv6 = or_known(&config.public_ipv6, &known.public_ipv6);
    let same = same.map(|(prior, _)| prior);
    let as_before = |of: fn(&Machine) -> &Attr<String>| same.map_or(Attr::Unknown, |prior| of(prior).clone());
    planned.os_release = as_before(|prior| &prior.os_release);
    planned.machine_id = as_before(|prior| &prior.machine_id);
    planned.boot_id = as_before(|prior| &prior.boot_id);
    planned.current_system = as_before(|prior| &prior.current_system);
    planned.booted_system = as_before(|prior| &prior.booted_system);
    planned.port = planned.login_port(defaults, same);
    planned.user = planned.login_user(defaults, prior);
    planned.id = match (planned.host.known(), planned.user.known(), block.port.is_unknown()) {
        (Some(host), Some(user), false) => Attr::Known(id(user, host, block.port.known().copied())),
        _ => Attr::Unknown,
    };
    planned.update_target();
    planned
}

fn id(user: &str, host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| format!("{user}@{host}"), |port| format!("{user}@{host}:{port}"))
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

#[cfg(test)]
mod tests {
    use nixos_activator::facts::Facts;

    use super::*;
    use crate::machines::seen::Seen;

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
        before.complete(&seen(), None).unwrap();
        let machine = planned(
            Some(&SshDefaults::default()),
            Some(&before),
            &later,
            Machine { public_ipv4: Attr::Unknown, ..before.clone() },
        );
        assert!(machine.target.into_known().unwrap().public_ipv4.is_unknown());
    }

    #[test]
    fn a_login_leaves_nothing_unknown_and_a_second_plan_changes_nothing() {
        let mut machine = plan(None, configured("web.example"));
        assert!(machine.needs_login());
        machine.complete(&seen(), None).unwrap();
        assert!(!machine.needs_login());
        assert_eq!(machine.private_ipv4, Attr::Known("10.0.0.2".into()));
        let again = plan(Some(&machine), machine.clone());
        assert_eq!(again, machine);
    }

    #[test]
    fn the_state_version_is_that_of_the_first_visit() {
        let mut machine = plan(None, configured("web.example"));
        machine.complete(&seen(), None).unwrap();
        let moved = Machine { ssh: Attr::Known(block("10.9.9.9")), ..machine.clone() };
        let mut moved = plan(Some(&machine), moved);
        assert!(moved.needs_login());
        let mut later = seen();
        later.facts.nixos_release = Some("25.05".into());
        moved.complete(&later, Some(&machine)).unwrap();
        assert_eq!(moved.state_version, Attr::Known("24.11".into()));
    }

    #[test]
    fn another_host_key_may_be_another_machine() {
        let mut machine = plan(None, configured("web.example"));
        machine.complete(&seen(), None).unwrap();
        let with_key = |key: &str| Machine {
            ssh: Attr::Known(SshBlock { host_public_key: Attr::Known(key.into()), ..block("web.example") }),
            ..machine.clone()
        };
        assert!(
            !plan(Some(&machine), with_key("ssh-ed25519 AAAA root@web")).needs_login(),
            "a comment is no key"
        );
        let mut other = plan(Some(&machine), with_key("ssh-ed25519 BBBB"));
        assert!(other.needs_login(), "nothing is believed before it was visited");
        assert!(other.target.known().unwrap().machine_id.is_unknown());
        let facts =
            Facts { machine_id: Some("m2".into()), nixos_release: Some("25.05".into()), ..seen().facts };
        other.complete(&Seen { facts, ..seen() }, Some(&machine)).unwrap();
        assert_eq!(other.target.known().unwrap().machine_id, Attr::Known("m2".into()));
        assert_eq!(other.state_version, Attr::Known("25.05".into()));
    }

    #[test]
    fn a_refresh_that_finds_another_machine_believes_nothing_of_the_one_before() {
        let mut machine = plan(None, configured("web.example"));
        machine.complete(&seen(), None).unwrap();
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
        machine.complete(&seen(), None).unwrap();
        assert_eq!(machine.user, Attr::Known("root".into()));
        assert_eq!(machine.target.known().unwrap().user, Attr::Null, "only what the block says");
        let later = SshDefaults { user: "deploy".into(), port: Some(2222), ..SshDefaults::default() };
        let changed = planned(Some(&later), Some(&machine), &configured("web.example"), machine.clone());
        assert_eq!((&changed.user, &changed.port), (&Attr::Known("deploy".into()), &Attr::Known(2222)));
        assert_eq!(changed.target, machine.target);
        assert!(!changed.needs_login());
    }

    #[test]
    fn a_declared_platform_must_be_the_real_one() {
        let declared = Machine { system: Attr::Known("aarch64-linux".into()), ..configured("10.0.0.2") };
        let mut machine = plan(None, declared);
        assert!(machine.complete(&seen(), None).is_err());
    }
}
