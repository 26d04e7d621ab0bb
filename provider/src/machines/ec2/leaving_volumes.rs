//! Volumes that a machine on EC2 leaves behind, or that leave it.

use nixos_activator::ssh::Wait;
use std::time::Duration;

use nixos_activator::volume::{self, VolumeUse};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::api::Ec2;
use super::block::Ec2Block;
use super::volume_map::Volume;
use super::volumes::{exists as volume_exists, keep_or_delete, made_by as volume_made_by};
use crate::context::Context;
use crate::machines::machine::Machine;
use crate::machines::unreachable::provider_unknown;
use crate::machines::visit::connect;

/// Names the volumes in the block that EC2 was asked for without an answer, and made.
pub(super) async fn find_asked_volumes(
    cx: &Cx<Context>,
    ec2: &Ec2<'_>,
    machine: &Machine,
    block: &mut Ec2Block,
) -> Result<(), Diagnostic> {
    for (name, volume) in block.volumes.known_mut().into_iter().flatten() {
        let Some(token) = volume.asked_with() else { continue };
        let made = volume_made_by(ec2, token, &cx.cancel).await;
        let problem = machine.problem(&format!("look for volume \"{name}\" of"));
        volume.volume_id = Attr::from(made.map_err(problem)?);
    }
    Ok(())
}

/// A volume that the machine still uses must not be taken away, nor one of which that is not known: what is on it may
/// be deleted with it.
pub(super) async fn check_removed_volumes(
    cx: &Cx<Context>,
    there: &Machine,
    now: &Ec2Block,
    planned: &Machine,
) -> Result<(), Diagnostics> {
    let kept = planned.ec2.known().and_then(|block| block.volumes.known());
    let removed: Vec<(&String, &Volume)> = now
        .volumes
        .known()
        .into_iter()
        .flatten()
        .filter(|(name, volume)| {
            kept.is_none_or(|kept| !kept.contains_key(*name)) && volume.device.is_known()
        })
        .collect();
    let Some((first, _)) = removed.first() else { return Ok(()) };
    // A machine that is stopped uses nothing, also where it is only stopped in the same apply: that comes first.
    if !there.runs() || !planned.runs() {
        return Ok(());
    }
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let connection = connect(cx, defaults, there, Wait::UntilReachable(Duration::from_secs(30))).await;
    let connection = connection.map_err(|error| not_told(there, first, &error.diagnostic(there)))?;
    for (name, volume) in removed {
        let id = volume.volume_id.known().map_or("", String::as_str);
        let device = volume.device.known().map_or("", String::as_str);
        let problem = match volume::ask(there.label(), &connection, id, device).await {
            Ok(VolumeUse::Free) => continue,
            Ok(VolumeUse::InUse { device, by }) => in_use(there, name, &device, &by),
            Ok(VolumeUse::NotFound) => {
                let why = Diagnostic::error("The machine shows no such device").detail(format!(
                    "EC2 says that {id} is attached at {device}, and no block device of the machine is it."
                ));
                not_told(there, name, &why)
            }
            Err(error) => not_told(there, name, &Diagnostic::error(error.to_string())),
        };
        return Err(problem.into());
    }
    Ok(())
}

fn in_use(machine: &Machine, name: &str, device: &str, by: &[String]) -> Diagnostic {
    let by = match by {
        [] => "something that the kernel does not name, such as a ZFS pool".to_owned(),
        by => by.join(", "),
    };
    Diagnostic::error(format!("Volume \"{name}\" is in use"))
        .detail(format!(
            "Machine \"{}\" has it as {device}, which is in use: {by}. Nothing was changed. First deploy a \
             configuration that does not use it, then remove it here.",
            machine.label()
        ))
        .at(volume_path(name))
}

/// Whether it is in use could not be found out.
fn not_told(machine: &Machine, name: &str, why: &Diagnostic) -> Diagnostic {
    let detail = if why.detail.is_empty() { String::new() } else { format!(" {}", why.detail) };
    Diagnostic::error(format!("It is not known whether volume \"{name}\" is in use"))
        .detail(format!(
            "{}.{detail}\n\nNothing was changed, because what is on a volume could be lost with it. To \
             take it from machine \"{}\" without asking, stop the machine first: power_state = \
             \"stopped\".",
            why.summary.trim_end_matches('.'),
            machine.label()
        ))
        .at(volume_path(name))
}

fn volume_path(name: &str) -> Path {
    Path::root().attribute("ec2").attribute("volumes").key(name)
}

/// The machine was ended by somebody else: says which of its volumes are still there.
pub(super) async fn warn_of_left_volumes(
    cx: &Cx<Context>,
    ec2: &Ec2<'_>,
    machine: &Machine,
    block: &Ec2Block,
) -> Result<(), Diagnostic> {
    for (name, volume) in block.volumes.known().into_iter().flatten().filter(|(_, volume)| volume.is_ours()) {
        let Some(id) = volume.volume_id.known() else { continue };
        if volume_exists(ec2, id).await.map_err(machine.problem("describe the volumes of"))? {
            cx.warn(
                Diagnostic::warning(format!(
                    "Volume \"{name}\" of machine \"{}\" outlived it",
                    machine.label()
                ))
                .detail(format!(
                    "The instance was ended outside of Terraform, but {id} is still there, with what was \
                     on it. A new machine gets an empty one: to have this one instead, say \
                     existing_volume_id = \"{id}\"; else delete it."
                )),
            );
        }
    }
    Ok(())
}

/// The volumes that go with the machine, and would not by themselves: those that are not attached to it. Sees to it
/// that the others do.
pub(super) async fn loose_volumes(
    ec2: &Ec2<'_>,
    machine: &Machine,
    block: &Ec2Block,
) -> Result<Vec<(String, String)>, Diagnostics> {
    let id = machine.instance_id();
    let ours = block.volumes.known().into_iter().flatten();
    let ours = ours.filter(|(_, volume)| volume.goes_with_machine());
    let ours: Vec<_> = ours.filter_map(|(name, volume)| Some((name, volume.volume_id.known()?))).collect();
    if ours.is_empty() {
        return Ok(vec![]);
    }
    let seen = ec2.look(&id, block).await.map_err(machine.problem("describe"))?;
    let mut loose = vec![];
    for (name, volume) in ours {
        let found = seen.as_ref().and_then(|seen| seen.volumes.get(volume));
        let attachment = found.and_then(|found| {
            found.attachments().iter().find(|there| there.instance_id() == Some(id.as_str()))
        });
        match attachment {
            None => loose.push((name.clone(), volume.clone())),
            Some(there) if there.delete_on_termination() == Some(true) => {}
            Some(there) => {
                let set = keep_or_delete(ec2, &id, there.device().unwrap_or_default(), true).await;
                set.map_err(machine.problem(&format!("let volume \"{name}\" go with")))?;
            }
        }
    }
    Ok(loose)
}

pub(super) fn stays(machine: &str, name: &str, id: &str, volume: &Volume) -> Diagnostic {
    let size = volume.size.known().map_or_else(String::new, |size| format!(" of {size} GiB"));
    Diagnostic::warning(format!("Volume \"{name}\" of machine \"{machine}\" stays")).detail(format!(
        "As `delete_on_termination = false` says. It is {id}{size}, costs money, and is not Terraform's \
         any more; `existing_volume_id` attaches it to another machine."
    ))
}
