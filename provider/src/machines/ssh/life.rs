//! The life of a machine that is there already: it is logged in to, and nothing else is done to it.

use std::time::Duration;

use nixos_activator::ssh::Wait;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Schema};

use super::id::parse_id;
use super::plan::planned;
use crate::context::Context;
use crate::machines::machine::Machine;
use crate::machines::unreachable::provider_unknown;
use crate::machines::visit::{complete, connect, visit};
use crate::settings;

/// How long the first login waits for a machine that does not answer, or does not let it in yet.
const LOGIN: Duration = Duration::from_mins(5);

/// Logs in for the first time.
pub(super) async fn create(cx: &Cx<Context>, machine: &mut Machine) -> Result<(), Diagnostics> {
    let limit = machine.timeouts.create_or(LOGIN);
    complete(cx, machine, None, Wait::UntilLetIn(limit)).await
}

/// Logs in where something is still unknown, and where the login is another one than before. The latter teaches
/// nothing, so that a login that does not work is a warning there: other machines are deployed to all the same.
pub(super) async fn update(
    cx: &Cx<Context>,
    prior: &Machine,
    mut machine: Machine,
) -> Result<Machine, Diagnostics> {
    if machine.needs_login() {
        let limit = machine.timeouts.update_or(LOGIN);
        complete(cx, &mut machine, Some(prior), Wait::UntilLetIn(limit)).await?;
        return Ok(machine);
    }
    let Some(defaults) = cx.data.ssh.as_ref().filter(|_| machine.ssh != prior.ssh) else {
        return Ok(machine);
    };
    match connect(cx, defaults, &machine, Wait::ONE_TRY).await {
        Ok(_) => Ok(machine),
        Err(error) if error.concerns_machine() => {
            cx.warn(error.diagnostic(&machine).into_warning());
            Ok(machine)
        }
        Err(error) => Err(error.diagnostic(&machine).into()),
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
    // One try by default: Terraform shows no progress during an import, and an import with a wrong address should
    // fail at once.
    let limit = config.timeouts.create_or(Duration::ZERO);
    let seen = visit(cx, defaults, &machine, Wait::UntilReachable(limit))
        .await
        .map_err(|error| error.diagnostic(&machine).appended(settings::IMPORT_KNOWS_ITS_ID))?;
    machine.complete(&seen, None)?;
    if machine.name.is_null() {
        machine.name = Attr::from(seen.facts.hostname);
    }
    Ok(machine)
}
