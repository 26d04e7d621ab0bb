//! What is planned for a machine on EC2.

use nixos_activator::ssh::HostKeyPolicy;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::block::Ec2Block;
use super::change::{check_change, needs_stop};
use super::found::Found;
use crate::aws::{Aws, TagModel, moves_with_surroundings, planned_region};
use crate::context::Context;
use crate::machines::machine::Machine;
use crate::machines::target::host_key_policy;

/// Completes a proposed state by what the configuration and the prior state tell.
pub(super) async fn planned(
    cx: &Cx<Context>,
    prior: Option<&Machine>,
    config: &Machine,
    proposed: Machine,
    found: &Found,
) -> Result<Machine, Diagnostics> {
    let mut planned = proposed;
    let (Attr::Known(configured), Attr::Known(mut block)) = (&config.ec2, planned.ec2.clone()) else {
        return Ok(planned);
    };
    // What Terraform has put in place of what EC2 tells.
    (planned.public_ipv4, planned.private_ipv4, planned.public_ipv6) =
        (Attr::Unknown, Attr::Unknown, Attr::Unknown);
    let aws = cx.data.aws.as_ref();
    let path = || Path::root().attribute("ec2");
    let old = prior.and_then(|prior| prior.ec2.known());
    block.region = match old {
        Some(old) if configured.region.is_null() && aws.is_none() => old.region.clone(),
        _ => planned_region(aws, &configured.region, &path().attribute("region")).await?,
    };
    let elsewhere = old.and_then(|old| {
        let machine = format!("Machine \"{}\"", planned.label());
        let path = path().attribute("region");
        moves_with_surroundings(&machine, &old.region, &configured.region, &block.region, path)
    });
    if let Some(warning) = elsewhere {
        cx.warn(warning);
    }
    block.tags_all = TagModel::planned_all(&configured.tags, aws.map(Aws::default_tags));
    block.fill_defaults(configured, old, found);
    check_groups(configured, old)?;
    // Also where somebody has stopped it.
    if config.power_state.is_null() {
        planned.power_state = Attr::Known("running".to_owned());
    }
    let Some((prior, old)) = prior.and_then(|prior| Some((prior, prior.ec2.known()?))) else {
        errors_of(check_addresses(config, &planned))?;
        errors_of(configured.check_existing(None))?;
        check_host_key(cx, &block)?;
        planned.ec2 = Attr::Known(block);
        planned.port = planned.login_port(cx.data.ssh.as_ref(), None);
        planned.user = planned.login_user(cx.data.ssh.as_ref(), None);
        planned.update_target();
        return Ok(planned);
    };
    errors_of(check_change(old, &block, prior.runs() && planned.runs(), found))?;
    errors_of(configured.check_existing(Some(old)))?;
    for warning in found.warnings(planned.label(), old, &block) {
        cx.warn(warning);
    }
    if prior.ec2 == Attr::Known(block.clone())
        && prior.power_state == planned.power_state
        && planned.same_beside_ec2(prior)
    {
        // But for what the provider says about logins.
        let mut kept = prior.clone();
        kept.user = kept.login_user(cx.data.ssh.as_ref(), Some(prior));
        kept.port = kept.login_port(cx.data.ssh.as_ref(), Some(prior));
        errors_of(check_addresses(config, &kept))?;
        kept.leave_open(config);
        kept.update_target();
        return Ok(kept);
    }
    let restarts = planned.runs() && (!prior.runs() || needs_stop(old, &block));
    let another_elastic_address = old.elastic_ip != block.elastic_ip;
    let moves =
        another_elastic_address || (restarts && block.elastic_ip.is_null() && !prior.public_ipv4.is_null());
    let other_ipv6 = old.ipv6_addresses != block.ipv6_addresses;
    let other_address = moves
        || other_ipv6
        || old.use_private_address != block.use_private_address
        || old.use_ipv6_address != block.use_ipv6_address;
    let if_not = |changes: bool, prior: &Attr<String>| if changes { Attr::Unknown } else { prior.clone() };
    let configured_or = |configured: &Attr<String>, prior: &Attr<String>| match configured {
        Attr::Null => prior.clone(),
        configured => configured.clone(),
    };
    block.public_dns = if_not(moves, &old.public_dns);
    planned.id = prior.id.clone();
    planned.host = if_not(other_address, &prior.host);
    planned.public_ipv4 = if_not(moves, &prior.public_ipv4);
    planned.private_ipv4 = prior.private_ipv4.clone();
    planned.public_ipv6 = if_not(other_ipv6, &prior.public_ipv6);
    errors_of(check_addresses(config, &planned))?;
    planned.host_public_key = configured_or(&block.host_public_key, &prior.host_public_key);
    planned.system = configured_or(&config.system, &prior.system);
    planned.state_version = configured_or(&config.state_version, &prior.state_version);
    planned.os_release = prior.os_release.clone();
    planned.machine_id = prior.machine_id.clone();
    planned.boot_id = if_not(restarts, &prior.boot_id);
    planned.current_system = if_not(restarts, &prior.current_system);
    planned.booted_system = if_not(restarts, &prior.booted_system);
    planned.ec2 = Attr::Known(block);
    planned.port = planned.login_port(cx.data.ssh.as_ref(), Some(prior));
    planned.user = planned.login_user(cx.data.ssh.as_ref(), Some(prior));
    planned.leave_open(config);
    planned.update_target();
    Ok(planned)
}

fn errors_of(problems: Diagnostics) -> Result<(), Diagnostics> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// EC2 gives a machine that is to have no security group the default one, and refuses to take the last one away.
fn check_groups(configured: &Ec2Block, old: Option<&Ec2Block>) -> Result<(), Diagnostic> {
    let none = configured.security_group_ids.known().is_some_and(Vec::is_empty);
    if !none || old.is_some_and(|old| old.security_group_ids == configured.security_group_ids) {
        return Ok(());
    }
    Err(Diagnostic::error("A machine on EC2 has at least one security group")
        .detail(
            "Found an empty list; expected ids of groups, or no `security_group_ids` for the default group \
             of the VPC.",
        )
        .at(Path::root().attribute("ec2").attribute("security_group_ids")))
}

/// A new machine whose host key nobody knows cannot be logged in to.
fn check_host_key(cx: &Cx<Context>, block: &Ec2Block) -> Result<(), Diagnostic> {
    let trusts = match (&block.host_key_policy, cx.data.ssh.as_ref()) {
        (Attr::Known(policy), _) => host_key_policy(policy) != HostKeyPolicy::Strict,
        (Attr::Null, Some(defaults)) => defaults.host_key_policy != HostKeyPolicy::Strict,
        _ => true,
    };
    if block.host_key != Attr::Known("none".to_owned()) || !block.host_public_key.is_null() || trusts {
        return Ok(());
    }
    Err(Diagnostic::error("Nobody would know the new machine's host key")
        .detail(
            "With host_key = \"none\" (the default beside `user_data`) no host key is handed over, so the \
             first login could be to any machine. Expected one of: `host_public_key`, the key that the \
             image or `user_data` gives it; `host_key_policy = \"accept_new\"`, to trust the first one \
             seen; or no `user_data`.",
        )
        .at(Path::root().attribute("ec2").attribute("host_key")))
}

/// EC2 gives the machine its addresses. A configuration may have them as they are: `terraform plan
/// -generate-config-out` writes it so.
fn check_addresses(config: &Machine, planned: &Machine) -> Diagnostics {
    let addresses = [
        ("public_ipv4", &config.public_ipv4, &planned.public_ipv4),
        ("private_ipv4", &config.private_ipv4, &planned.private_ipv4),
        ("public_ipv6", &config.public_ipv6, &planned.public_ipv6),
    ];
    let wrong = addresses.into_iter().filter(|(_, said, planned)| said.is_known() && said != planned);
    let problem = |(name, said, _): (&str, &Attr<String>, _)| {
        let said = said.known().map_or("", String::as_str);
        Diagnostic::error("EC2 gives the machine its addresses")
            .detail(format!(
                "Found {said}; expected nothing here for a machine with `ec2`. Remove it; `ec2.private_ip`, \
                 `ec2.elastic_ip` and `ec2.ipv6_addresses` choose addresses."
            ))
            .at(Path::root().attribute(name))
    };
    wrong.map(problem).collect()
}

impl Machine {
    /// Promises nothing of what the configuration says and nobody knows yet.
    fn leave_open(&mut self, config: &Self) {
        let said = [
            (&mut self.public_ipv4, &config.public_ipv4),
            (&mut self.private_ipv4, &config.private_ipv4),
            (&mut self.public_ipv6, &config.public_ipv6),
            (&mut self.system, &config.system),
            (&mut self.state_version, &config.state_version),
        ];
        for (planned, _) in said.into_iter().filter(|(_, said)| said.is_unknown()) {
            *planned = Attr::Unknown;
        }
    }

    /// Whether everything that users write, but for the block, is as it was.
    fn same_beside_ec2(&self, prior: &Self) -> bool {
        let written =
            |machine: &Self| (machine.name.clone(), machine.target_env.clone(), machine.timeouts.clone());
        let same = |now: &Attr<String>, prior: &Attr<String>| now == prior || now.is_unknown();
        written(self) == written(prior)
            && same(&self.system, &prior.system)
            && same(&self.state_version, &prior.state_version)
    }
}
