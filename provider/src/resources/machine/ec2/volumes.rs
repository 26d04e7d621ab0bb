//! Volumes that a machine on EC2 leaves behind, or that leave it.

use nixos_activator::ssh::Wait;
use std::time::Duration;

use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::super::visit::{VisitError, connect};
use super::Machine;
use crate::context::Context;
use crate::machines::ec2::{Ec2, Ec2Block, Volume, keep_or_delete, volume_exists, volume_made_by};
use crate::machines::provider_unknown;

/// Is asked on a machine before a volume is taken from it: what is mounted of it. `$1`: the volume's id without the dash, `$2`: the
/// letter of its device.
const MOUNTED: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"
for device in "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$1" "/dev/xvd$2" "/dev/sd$2"; do
  if [ -b "$device" ]; then lsblk -nro MOUNTPOINT "$device" | grep . ; exit 0; fi
done
exit 0
"#;

/// Names the volumes in the block that EC2 was asked for without an answer, and made.
pub(super) async fn find_asked_volumes(
    ec2: &Ec2<'_>,
    machine: &Machine,
    block: &mut Ec2Block,
) -> Result<(), Diagnostic> {
    for (name, volume) in block.volumes.known_mut().into_iter().flatten() {
        let Some(token) = volume.asked_with() else { continue };
        let made = volume_made_by(ec2, token).await;
        let problem = machine.problem(&format!("look for volume \"{name}\" of"));
        volume.volume_id = Attr::from(made.map_err(problem)?);
    }
    Ok(())
}

/// A volume that somebody still mounts must not be taken away.
pub(super) async fn check_removed_volumes(
    cx: &Cx<Context>,
    there: &Machine,
    now: &Ec2Block,
    planned: &Ec2Block,
) -> Result<(), Diagnostics> {
    let kept = planned.volumes.known();
    let removed: Vec<(&String, &Volume)> = now
        .volumes
        .known()
        .into_iter()
        .flatten()
        .filter(|(name, volume)| {
            kept.is_none_or(|kept| !kept.contains_key(*name)) && volume.device.is_known()
        })
        .collect();
    if removed.is_empty() || !there.runs() {
        return Ok(());
    }
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let connection = connect(cx, defaults, there, Wait::UntilReachable(Duration::from_secs(30))).await;
    let connection = connection.map_err(|error| error.diagnostic(there))?;
    for (name, volume) in removed {
        let id = volume.volume_id.known().map(|id| id.replace('-', "")).unwrap_or_default();
        let letter =
            volume.device.known().and_then(|device| device.chars().last()).unwrap_or_default().to_string();
        let answer = connection.run(&["sh", "-s", "--", &id, &letter], MOUNTED.as_bytes()).await;
        let answer = answer.map_err(|error| VisitError::Ssh(error).diagnostic(there))?;
        let mounts = answer.text().split_whitespace().collect::<Vec<_>>().join(", ");
        if !mounts.is_empty() {
            return Err(Diagnostic::error(format!("Volume \"{name}\" is in use"))
                .detail(format!(
                    "Machine \"{}\" has it mounted at {mounts}. Nothing was changed. First deploy a configuration that does not mount \
                     it, then remove it here.",
                    there.label()
                ))
                .at(Path::root().attribute("ec2").attribute("volumes"))
                .into());
        }
    }
    Ok(())
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
            cx.warn(Diagnostic::warning(format!(
                "Volume \"{name}\" of machine \"{}\" outlived it",
                machine.label()
            ))
            .detail(format!(
                "The instance was ended outside of Terraform, but {id} is still there, with what was on it. A new machine gets an empty \
                 one: to have this one instead, say existing_volume_id = \"{id}\"; else delete it."
            )));
        }
    }
    Ok(())
}

/// The volumes that go with the machine, and would not by themselves: those that are not attached to it. Sees to it that the others
/// do.
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
        "As `delete_on_termination = false` says. It is {id}{size}, costs money, and is not Terraform's any more; \
         `existing_volume_id` attaches it to another machine."
    ))
}
