//! The life of a machine on EC2: made, looked at, changed, ended, imported.

use std::time::Duration;

use aws_sdk_ec2::types::InstanceStateName;
use nixos_activator::Secret;
use nixos_activator::ssh::{KeyPair, KeyType, Wait};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::api::Ec2;
use super::block::Ec2Block;
use super::change::{apply_changes, needs_stop, while_stopped};
use super::drift::{import as import_block, is_gone, power};
use super::found::Found;
use super::leaving_volumes::{
    check_removed_volumes, find_asked_volumes, loose_volumes, stays, warn_of_left_volumes,
};
use super::messages::no_image;
use super::volumes::{delete as delete_volume, name_volumes};
use crate::aws::{TagModel, aws_unknown, import_id};
use crate::context::Context;
use crate::deadline::Deadline;
use crate::machines::host_key::user_data;
use crate::machines::machine::Machine;
use crate::machines::place::Presence;
use crate::machines::unreachable::{not_refreshed, provider_unknown};
use crate::machines::visit::{complete, first_login};
use crate::settings::{completed, unique};

/// How long making, changing or ending a machine may take.
const LIMIT: Duration = Duration::from_mins(10);

/// Asks EC2 for the instance, and takes over what it says.
pub(super) async fn read(cx: &Cx<Context>, machine: &mut Machine) -> Result<Presence, Diagnostics> {
    let (Some(aws), Attr::Known(mut block)) = (cx.data.aws.as_ref(), machine.ec2.clone()) else {
        cx.warn(not_refreshed(machine.label(), &aws_unknown()));
        return Ok(Presence::There);
    };
    let ec2 = Ec2::new(aws, block.region()).await;
    if !machine.find(&ec2, &cx.cancel).await? {
        return Ok(Presence::Gone);
    }
    let id = machine.instance_id();
    find_asked_volumes(cx, &ec2, machine, &mut block).await?;
    let seen = ec2.seen(&id, &block).await.map_err(machine.problem("describe"))?;
    let Some(seen) = seen.filter(|seen| !is_gone(&seen.instance)) else {
        warn_of_left_volumes(cx, &ec2, machine, &block).await?;
        return Ok(Presence::Gone);
    };
    for (name, volume) in block.volumes.known().into_iter().flatten() {
        if volume.volume_id.known().is_some_and(|id| !seen.volumes.contains_key(id)) {
            cx.warn(Diagnostic::warning(format!("Volume \"{name}\" of machine \"{}\" is gone", machine.label())).detail(
                "It was deleted outside of Terraform, with what was on it. The plan makes an empty one in \
                 its place.",
            ));
        }
    }
    block.take(&seen, machine.label(), aws.tag_rules());
    if block.disable_api_termination.is_known() {
        block.disable_api_termination =
            Attr::Known(ec2.is_protected(&id).await.map_err(machine.problem("describe"))?);
    }
    machine.ec2 = Attr::Known(block);
    machine.take_addresses(&seen);
    machine.power_state = Attr::Known(power(&seen.instance).to_owned());
    machine.update_target();
    Ok(Presence::There)
}

/// Makes the machine and waits until it can be logged in to. `machine` follows each step: from the moment there is an
/// instance it has its id, or, where no answer came, the token to find it by.
pub(super) async fn create(cx: &Cx<Context>, machine: &mut Machine) -> Result<(), Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    if cx.data.ssh.is_none() {
        return Err(provider_unknown().into());
    }
    let limit = machine.timeouts.create_or(LIMIT);
    let deadline = Deadline::new(limit, &cx.cancel);
    let mut block = machine.ec2.known().cloned().unwrap_or_default();
    if block.region.is_unknown() {
        block.region =
            Attr::Known(aws.region(None, &Path::root().attribute("ec2").attribute("region")).await?);
    }
    block.tags_all = TagModel::planned_all(&block.tags, Some(aws.default_tags()));
    let ec2 = Ec2::new(aws, block.region()).await;
    let ami = block.ami.known().cloned().unwrap_or_default();
    let image = ec2.image(&ami).await.map_err(machine.problem("look for the image of"))?;
    let image = image.ok_or_else(|| no_image(&ami, block.region()))?;

    let how = block.host_key.known().map_or("none", String::as_str).to_owned();
    let key = match how.as_str() {
        "none" => None,
        _ => Some(KeyPair::generate(KeyType::Ed25519).await.map_err(|error| {
            Diagnostic::error("No host key could be generated")
                .detail(error.to_string())
                .at(machine.block_path())
        })?),
    };
    let data = match &key {
        Some(key) => Some(Secret::new(user_data(&how, key))),
        None => block.user_data.known().map(Secret::new),
    };
    let token = unique("nixos-");
    let made = ec2.run(&block, machine.label(), &image, data.as_ref(), &token, &deadline).await;
    let made = made.map_err(|error| {
        let diagnostic = machine.problem("create")(error.clone());
        if !error.is_open() {
            return diagnostic;
        }
        block.client_token = Attr::Known(token.clone());
        machine.ec2 = Attr::Known(block.at_launch());
        diagnostic.appended("Whether there is an instance by now is not known. The next plan looks for it.")
    })?;
    let id = made.instance_id().unwrap_or_default().to_owned();
    machine.id = Attr::Known(id.clone());
    // What is there so far is what it was asked for, without what comes later.
    let mut there = Ec2Block { client_token: Attr::Known(token), ..block.at_launch() };
    machine.ec2 = Attr::Known(there.clone());

    let running = ec2.wait(&id, &InstanceStateName::Running, &deadline).await;
    running.map_err(|error| machine.waited("create", &error))?;
    machine.complete_block(&ec2, &mut there, &deadline).await?;
    block = completed(&block, &there);
    let names = (machine.label(), machine.label());
    let done = apply_changes(&ec2, &id, names, &mut there, &block, &deadline).await;
    machine.ec2 = Attr::Known(there.clone());
    done?;
    there = completed(&block, &there);
    machine.complete_from_instance(&ec2, &mut there, &deadline).await?;
    let handed_over = key.as_ref().map(|key| key.public.clone());
    if let Err(error) = first_login(cx, machine, handed_over, Wait::UntilLetIn(deadline.left())).await {
        return Err(machine.no_login(&ec2, &error).await);
    }
    complete(cx, machine, None, Wait::UntilLetIn(deadline.left().max(Duration::from_secs(30)))).await?;
    if machine.power_state.known().is_some_and(|state| state == "stopped") {
        ec2.stop(&id, &deadline).await.map_err(|error| machine.waited("stop", &error))?;
    }
    Ok(())
}

/// Brings the machine to what is planned. `there` follows each step.
pub(super) async fn update(
    cx: &Cx<Context>,
    there: &mut Machine,
    planned: Machine,
    found: &Found,
) -> Result<Machine, Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let limit = planned.timeouts.update_or(LIMIT);
    let deadline = Deadline::new(limit, &cx.cancel);
    let prior = there.clone();
    let mut machine = planned;
    let mut block = machine.ec2.known().cloned().unwrap_or_default();
    block.tags_all = TagModel::planned_all(&block.tags, Some(aws.default_tags()));
    let mut now = there.ec2.known().cloned().unwrap_or_default();
    let ec2 = Ec2::new(aws, now.region()).await;
    let id = there.instance_id();

    found.let_go(&mut now, &block);
    let renamed = now.rename_volumes(&block);
    there.ec2 = Attr::Known(now.clone());
    check_removed_volumes(cx, there, &now, &machine).await?;
    let stops = needs_stop(&now, &block);
    if prior.runs() && (stops || !machine.runs()) {
        ec2.stop(&id, &deadline).await.map_err(|error| there.waited("stop", &error))?;
        there.power_state = Attr::Known("stopped".to_owned());
    }
    if stops {
        let changed = while_stopped(&ec2, &id, &mut now, &block).await;
        there.ec2 = Attr::Known(now.clone());
        changed.map_err(there.problem("change"))?;
    }
    name_volumes(&ec2, machine.label(), &now, &renamed)
        .await
        .map_err(there.problem("name the volumes of"))?;
    let names = (prior.label(), machine.label());
    let changed = apply_changes(&ec2, &id, names, &mut now, &block, &deadline).await;
    there.ec2 = Attr::Known(now.clone());
    changed?;
    if machine.runs() && !there.runs() {
        ec2.start(&id, &deadline).await.map_err(|error| there.waited("start", &error))?;
        there.power_state = Attr::Known("running".to_owned());
    }
    let mut completed_block = completed(&block, &now);
    machine.complete_from_instance(&ec2, &mut completed_block, &deadline).await?;
    *there = Machine { ec2: machine.ec2.clone(), ..there.clone() };
    machine.update_target();
    if !machine.runs() {
        // A machine that does not run says nothing: what is open stays as it was.
        return Ok(completed(&machine, &prior));
    }
    let restarted = machine.boot_id.is_unknown();
    if machine.needs_login() || restarted {
        let wait = Wait::UntilLetIn(deadline.left().max(Duration::from_secs(30)));
        let waited = complete(cx, &mut machine, Some(&prior), wait).await;
        if waited.is_err() {
            *there = Machine { power_state: machine.power_state.clone(), ..there.clone() };
        }
        waited?;
    }
    Ok(machine)
}

/// Ends the machine and what goes with it.
pub(super) async fn delete(cx: &Cx<Context>, mut machine: Machine) -> Result<(), Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let limit = machine.timeouts.delete_or(LIMIT);
    let deadline = Deadline::new(limit, &cx.cancel);
    let mut block = machine.ec2.known().cloned().unwrap_or_default();
    let ec2 = Ec2::new(aws, block.region()).await;
    if !machine.find(&ec2, &cx.cancel).await? {
        return Ok(());
    }
    let id = machine.instance_id();
    if block.spot.known().is_some_and(|spot| spot.kind.known().is_some_and(|kind| kind == "persistent")) {
        // A request that lasts would make another one.
        ec2.cancel_spot_request(&id).await.map_err(machine.problem("cancel the spot request of"))?;
    }
    let problem = |name: &str| machine.problem(&format!("delete volume \"{name}\" of"));
    // When the instance is gone, nothing but it may be left to do: the next refresh would forget what else there is.
    find_asked_volumes(cx, &ec2, &machine, &mut block).await?;
    let loose = loose_volumes(&ec2, &machine, &block).await?;
    let protected = block.disable_api_termination == Attr::Known(true)
        || (!loose.is_empty() && ec2.is_protected(&id).await.map_err(machine.problem("describe"))?);
    if protected {
        return Err(Diagnostic::error(format!(
            "Machine \"{}\" is protected against termination",
            machine.label()
        ))
        .detail(
            "Nothing was changed. Set ec2.disable_api_termination = false and apply before destroying it.",
        )
        .at(Path::root().attribute("ec2").attribute("disable_api_termination"))
        .into());
    }
    for (name, volume) in &loose {
        delete_volume(&ec2, volume).await.map_err(problem(name))?;
    }
    ec2.terminate(&id, &deadline).await.map_err(|error| machine.waited("terminate", &error))?;
    for (name, volume) in block.volumes.known().into_iter().flatten() {
        if let (Attr::Known(volume_id), true, false) =
            (&volume.volume_id, volume.is_ours(), volume.goes_with_machine())
        {
            cx.warn(stays(machine.label(), name, volume_id, volume));
        }
    }
    Ok(())
}

/// The machine that an instance is.
pub(super) async fn import(cx: &Cx<Context>, id: &str) -> Result<Machine, Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let (region, id) = import_id(id);
    let region = aws.region(region, &Path::root()).await?;
    let ec2 = Ec2::new(aws, &region).await;
    let mut machine = Machine { id: Attr::Known(id.to_owned()), ..Machine::default() };
    let everything = Ec2Block { elastic_ip: Attr::Unknown, ..Ec2Block::default() };
    let seen = ec2.look(id, &everything).await.map_err(machine.problem("describe"))?;
    let Some(seen) = seen.filter(|seen| !is_gone(&seen.instance)) else {
        return Err(Diagnostic::error(format!("There is no instance {id}"))
            .detail(format!(
                "Found none in region {region}; expected the id of an instance, or REGION:i-… for another \
                 region."
            ))
            .into());
    };
    let name = seen.instance.tags().iter().find(|tag| tag.key() == Some("Name")).and_then(|tag| tag.value());
    let name = name.unwrap_or(id).to_owned();
    let block = import_block(&ec2, &seen, &name).await.map_err(machine.problem("describe"))?;
    machine.ec2 = Attr::Known(block);
    machine.name = Attr::Known(name);
    machine.power_state = Attr::Known(power(&seen.instance).to_owned());
    machine.take_addresses(&seen);
    machine.user = machine.login_user(cx.data.ssh.as_ref(), None);
    machine.port = Attr::Known(22);
    machine.update_target();
    Ok(machine)
}
