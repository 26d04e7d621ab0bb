//! The life of a machine on EC2: planned, made, changed, ended.

use std::time::Duration;

use aws_sdk_ec2::types::InstanceStateName;
use nixos_activator::Secret;
use nixos_activator::ssh::{HostKeyPolicy, KeyPair, KeyType};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::visit::{VisitError, connect, fill, settle};
use super::{Machine, Private};
use crate::aws::{Aws, AwsError, Patience, Seen, TagModel, aws_unknown, import_id, planned_region};
use crate::context::Context;
use crate::machines::ec2::{
    Ec2, Ec2Block, Volume, WaitError, become_, check_change, delete_volume, imported, is_gone,
    keep_or_delete, needs_stop, power, rotate, user_data, volume_exists, volume_made_by, while_stopped,
};
use crate::machines::{host_key_policy, not_refreshed, provider_unknown};
use crate::settings::{completed, duration_or, unique};

/// How long making, changing or ending a machine may take.
const LIMIT: Duration = Duration::from_mins(10);

/// Is asked on a machine before a volume is taken from it: what is mounted of it. `$1`: the volume's id without the dash, `$2`: the
/// letter of its device.
const MOUNTED: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"
for device in "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$1" "/dev/xvd$2" "/dev/sd$2"; do
  if [ -b "$device" ]; then lsblk -nro MOUNTPOINT "$device" | grep . ; exit 0; fi
done
exit 0
"#;

/// Whether this is the id of an instance, perhaps with its region.
pub(super) fn is_id(id: &str) -> bool {
    import_id(id).1.starts_with("i-")
}

/// Checks that the schema cannot express.
pub(super) fn validate(config: &Machine) -> Result<(), Diagnostics> {
    let mut problems = Diagnostics::default();
    let mut say = |name: &str, summary: &str, detail: &str| {
        problems.push(Diagnostic::error(summary).detail(detail).at(Path::root().attribute(name)));
    };
    if config.ec2.is_null() {
        if config.power_state.is_known() {
            say(
                "power_state",
                "Only machines that are made here can be powered",
                "Found `power_state` with `ssh`; expected it only with `ec2`. Remove it.",
            );
        }
    } else {
        let addresses = [("public_ipv4", &config.public_ipv4), ("private_ipv4", &config.private_ipv4)];
        for (name, _) in addresses.iter().filter(|(_, value)| value.is_known()) {
            say(
                name,
                "EC2 gives the machine its addresses",
                "Found an address for a machine with `ec2`; expected none. Remove it; `ec2.private_ip` and `ec2.elastic_ip` choose addresses.",
            );
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Completes a proposed state by what the configuration and the prior state tell.
pub(super) async fn planned(
    cx: &Cx<Context>,
    prior: Option<&Machine>,
    config: &Machine,
    proposed: Machine,
) -> Result<Machine, Diagnostics> {
    let mut planned = proposed;
    let (Attr::Known(configured), Attr::Known(mut block)) = (&config.ec2, planned.ec2.clone()) else {
        return Ok(planned);
    };
    let aws = cx.data.aws.as_ref();
    let path = || Path::root().attribute("ec2");
    let old = prior.and_then(|prior| prior.ec2.known());
    block.region = match old {
        Some(old) if configured.region.is_null() && aws.is_none() => old.region.clone(),
        _ => planned_region(aws, &configured.region, &path().attribute("region")).await?,
    };
    block.tags_all = TagModel::planned_all(&configured.tags, aws.map(Aws::default_tags));
    block.settle_choices(configured, old);
    if planned.power_state.is_unknown() && config.power_state.is_null() {
        planned.power_state = Attr::Known("running".to_owned());
    }
    let Some((prior, old)) = prior.and_then(|prior| Some((prior, prior.ec2.known()?))) else {
        check_host_key(cx, &block)?;
        let target = block.connection(Attr::Unknown).target(cx.data.ssh.as_ref());
        planned.port = if block.port.is_null() { Attr::Unknown } else { block.port.clone() };
        planned.user = target.user.clone();
        planned.ec2 = Attr::Known(block);
        planned.point_target(cx);
        return Ok(planned);
    };
    let problems = check_change(old, &block, prior.runs() && planned.runs());
    if !problems.is_empty() {
        return Err(problems);
    }
    if prior.ec2 == Attr::Known(block.clone())
        && prior.power_state == planned.power_state
        && planned.same_beside_ec2(prior)
    {
        return Ok(prior.clone());
    }
    let restarts = planned.runs() && (!prior.runs() || needs_stop(old, &block));
    let another_elastic_address = old.elastic_ip != block.elastic_ip;
    let moves =
        another_elastic_address || (restarts && block.elastic_ip.is_null() && !prior.public_ipv4.is_null());
    let other_address = moves || old.use_private_address != block.use_private_address;
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
    planned.port = if block.port.is_null() { prior.port.clone() } else { block.port.clone() };
    planned.host_public_key = configured_or(&block.host_public_key, &prior.host_public_key);
    planned.system = configured_or(&config.system, &prior.system);
    planned.state_version = configured_or(&config.state_version, &prior.state_version);
    planned.os_release = prior.os_release.clone();
    planned.machine_id = prior.machine_id.clone();
    planned.boot_id = if_not(restarts, &prior.boot_id);
    planned.current_system = if_not(restarts, &prior.current_system);
    planned.booted_system = if_not(restarts, &prior.booted_system);
    planned.user = block.connection(Attr::Null).target(cx.data.ssh.as_ref()).user;
    planned.ec2 = Attr::Known(block);
    planned.point_target(cx);
    Ok(planned)
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
            "With host_key = \"none\" (the default beside `user_data`) no host key is handed over, so the first login could be to any \
             machine. Expected one of: `host_public_key`, the key that the image or `user_data` gives it; `host_key_policy = \
             \"accept_new\"`, to trust the first one seen; or no `user_data`.",
        )
        .at(Path::root().attribute("ec2").attribute("host_key")))
}

/// Asks EC2; whether the machine is still there.
pub(super) async fn read(
    cx: &Cx<Context>,
    machine: &mut Machine,
    private: &mut Private,
) -> Result<bool, Diagnostics> {
    let (Some(aws), Attr::Known(mut block)) = (cx.data.aws.as_ref(), machine.ec2.clone()) else {
        cx.warn(not_refreshed(machine.label(), &aws_unknown()));
        return Ok(true);
    };
    let ec2 = Ec2::new(aws, block.region()).await;
    if !machine.find(&ec2, private).await? {
        return Ok(false);
    }
    let id = machine.instance_id();
    let seen = ec2.seen(&id, &block).await.map_err(machine.problem("describe"))?;
    let Some(seen) = seen.filter(|seen| !is_gone(&seen.instance)) else {
        warn_of_left_volumes(cx, &ec2, machine, &block).await?;
        return Ok(false);
    };
    for (name, volume) in block.volumes.known().into_iter().flatten() {
        if volume.volume_id.known().is_some_and(|id| !seen.volumes.contains_key(id)) {
            cx.warn(Diagnostic::warning(format!("Volume \"{name}\" of machine \"{}\" is gone", machine.label())).detail(
                "It was deleted outside of Terraform, with what was on it. The plan makes an empty one in its place.",
            ));
        }
    }
    block.take(&seen, machine.label(), aws.default_tags());
    if block.disable_api_termination.is_known() {
        block.disable_api_termination =
            Attr::Known(ec2.is_protected(&id).await.map_err(machine.problem("describe"))?);
    }
    machine.ec2 = Attr::Known(block);
    machine.take_addresses(&seen);
    machine.power_state = Attr::Known(power(&seen.instance).to_owned());
    machine.point_target(cx);
    Ok(true)
}

/// Makes the machine and waits until it can be logged in to. `machine` follows each step: from the moment there is an instance it has
/// its id, or, where no answer came, `private` what to find it by.
pub(super) async fn create(
    cx: &Cx<Context>,
    machine: &mut Machine,
    private: &mut Private,
) -> Result<(), Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.create), LIMIT);
    let patience = Patience::new(limit, &cx.cancel);
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
    let made = ec2.run(&block, machine.label(), &image, data.as_ref(), &token, &patience).await;
    let made = made.map_err(|error| {
        let diagnostic = machine.problem("create")(error.clone());
        if !error.is_open() {
            return diagnostic;
        }
        private.instance = Some(token.clone());
        diagnostic.appended("Whether there is an instance by now is not known. The next plan looks for it.")
    })?;
    let id = made.instance_id().unwrap_or_default().to_owned();
    machine.id = Attr::Known(id.clone());
    // What is there so far is what it was asked for, without what comes later.
    let mut there = block.at_launch();
    machine.ec2 = Attr::Known(there.clone());

    let running = ec2.wait(&id, &InstanceStateName::Running, &patience).await;
    running.map_err(|error| machine.waited("create", &error))?;
    machine.settle_instance(cx, &ec2, &mut there, &patience).await?;
    block = completed(&block, &there);
    let asked = &mut private.volumes;
    let done =
        become_(&ec2, &id, (machine.label(), machine.label()), &mut there, &block, asked, &patience).await;
    machine.ec2 = Attr::Known(there.clone());
    done?;
    there = completed(&block, &there);
    machine.settle_instance(cx, &ec2, &mut there, &patience).await?;
    machine.point_target_at(cx, key.as_ref().map(|key| key.public.clone()));

    let connection = match connect(cx, defaults, machine, patience.left()).await {
        Ok(connection) => connection,
        Err(error) => return Err(machine.no_login(&ec2, &error).await),
    };
    if key.is_some() {
        match rotate(&connection).await {
            Ok(public) => machine.point_target_at(cx, Some(public)),
            Err(error) => cx.warn(
                Diagnostic::warning(format!("Machine \"{}\" keeps its first host key", machine.label()))
                    .detail(format!(
                        "{error}\n\nIt was handed over in user data, which the machine's users can read: {}",
                        "whoever can log in there could pretend to be this machine."
                    )),
            ),
        }
    }
    settle(cx, machine, None, patience.left().max(Duration::from_secs(30))).await?;
    if machine.power_state.known().is_some_and(|state| state == "stopped") {
        ec2.stop(&id, &patience).await.map_err(|error| machine.waited("stop", &error))?;
    }
    Ok(())
}

/// Brings the machine to what is planned. `there` follows each step.
pub(super) async fn update(
    cx: &Cx<Context>,
    there: &mut Machine,
    planned: Machine,
    private: &mut Private,
) -> Result<Machine, Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let limit = duration_or(planned.timeouts.known().map(|timeouts| &timeouts.update), LIMIT);
    let patience = Patience::new(limit, &cx.cancel);
    let prior = there.clone();
    let mut machine = planned;
    let mut block = machine.ec2.known().cloned().unwrap_or_default();
    block.tags_all = TagModel::planned_all(&block.tags, Some(aws.default_tags()));
    let mut now = there.ec2.known().cloned().unwrap_or_default();
    let ec2 = Ec2::new(aws, now.region()).await;
    let id = there.instance_id();

    check_removed_volumes(cx, there, &now, &block).await?;
    let stops = needs_stop(&now, &block);
    if prior.runs() && (stops || !machine.runs()) {
        ec2.stop(&id, &patience).await.map_err(|error| there.waited("stop", &error))?;
        there.power_state = Attr::Known("stopped".to_owned());
    }
    if stops {
        let changed = while_stopped(&ec2, &id, &mut now, &block).await;
        there.ec2 = Attr::Known(now.clone());
        changed.map_err(there.problem("change"))?;
    }
    let asked = &mut private.volumes;
    let changed =
        become_(&ec2, &id, (prior.label(), machine.label()), &mut now, &block, asked, &patience).await;
    there.ec2 = Attr::Known(now.clone());
    changed?;
    if machine.runs() && !there.runs() {
        ec2.start(&id, &patience).await.map_err(|error| there.waited("start", &error))?;
        there.power_state = Attr::Known("running".to_owned());
    }
    let mut settled = completed(&block, &now);
    machine.settle_instance(cx, &ec2, &mut settled, &patience).await?;
    *there = Machine { ec2: machine.ec2.clone(), ..there.clone() };
    machine.point_target(cx);
    if !machine.runs() {
        // A machine that does not run says nothing: what is open stays as it was.
        return Ok(completed(&machine, &prior));
    }
    let restarted = machine.boot_id.is_unknown();
    if machine.is_open() || restarted {
        let waited =
            settle(cx, &mut machine, Some(&prior), patience.left().max(Duration::from_secs(30))).await;
        if waited.is_err() {
            *there = Machine { power_state: machine.power_state.clone(), ..there.clone() };
        }
        waited?;
    }
    Ok(machine)
}

/// Ends the machine and what goes with it.
pub(super) async fn delete(
    cx: &Cx<Context>,
    mut machine: Machine,
    private: &Private,
) -> Result<(), Diagnostics> {
    let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
    let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.delete), LIMIT);
    let patience = Patience::new(limit, &cx.cancel);
    let block = machine.ec2.known().cloned().unwrap_or_default();
    let ec2 = Ec2::new(aws, block.region()).await;
    if !machine.find(&ec2, private).await? {
        return Ok(());
    }
    let id = machine.instance_id();
    if block.spot.known().is_some_and(|spot| spot.kind.known().is_some_and(|kind| kind == "persistent")) {
        // A request that lasts would make another one.
        ec2.cancel_spot_request(&id).await.map_err(machine.problem("cancel the spot request of"))?;
    }
    let problem = |name: &str| machine.problem(&format!("delete volume \"{name}\" of"));
    // When the instance is gone, nothing but it may be left to do: the next refresh would forget what else there is.
    let mut loose = loose_volumes(&ec2, &machine, &block).await?;
    for (name, token) in &private.volumes {
        let made = volume_made_by(&ec2, token).await.map_err(problem(name))?;
        loose.extend(made.map(|id| (name.clone(), id)));
    }
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
    ec2.terminate(&id, &patience).await.map_err(|error| machine.waited("terminate", &error))?;
    for (name, volume) in block.volumes.known().into_iter().flatten() {
        if let (Attr::Known(volume_id), true, false) =
            (&volume.volume_id, volume.is_ours(), volume.goes_with_machine())
        {
            cx.warn(stays(machine.label(), name, volume_id, volume));
        }
    }
    Ok(())
}

/// The volumes that go with the machine, and would not by themselves: those that are not attached to it. Sees to it that the others
/// do.
async fn loose_volumes(
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
            .detail(format!("Found none in region {region}; expected the id of an instance, or REGION:i-… for another region."))
            .into());
    };
    let name = seen.instance.tags().iter().find(|tag| tag.key() == Some("Name")).and_then(|tag| tag.value());
    let name = name.unwrap_or(id).to_owned();
    machine.ec2 = Attr::Known(imported(&region, &seen, &name, aws.default_tags()));
    machine.name = Attr::Known(name);
    machine.power_state = Attr::Known(power(&seen.instance).to_owned());
    machine.take_addresses(&seen);
    machine.user = machine.connection(cx).user;
    machine.port = Attr::Known(22);
    machine.point_target(cx);
    Ok(machine)
}

/// A volume that somebody still mounts must not be taken away.
async fn check_removed_volumes(
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
    let connection = connect(cx, defaults, there, Duration::from_secs(30)).await;
    let connection = connection.map_err(|error| error.diagnostic(there))?;
    for (name, volume) in removed {
        let id = volume.volume_id.known().map(|id| id.replace('-', "")).unwrap_or_default();
        let letter =
            volume.device.known().and_then(|device| device.chars().last()).unwrap_or_default().to_string();
        let answer = connection.run(&["sh", "-s", "--", &id, &letter], MOUNTED.as_bytes()).await;
        let answer = answer.map_err(|error| VisitError::Ssh(error).diagnostic(there))?;
        let mounts =
            String::from_utf8_lossy(&answer.stdout).split_whitespace().collect::<Vec<_>>().join(", ");
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
async fn warn_of_left_volumes(
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

fn no_image(ami: &str, region: &str) -> Diagnostic {
    Diagnostic::error(format!("There is no image {ami}"))
        .detail(format!(
            "Region {region} has none that this account can see. Images have another id in every region: `data.nixos_ami` looks up \
             the right one."
        ))
        .at(Path::root().attribute("ec2").attribute("ami"))
}

fn stays(machine: &str, name: &str, id: &str, volume: &Volume) -> Diagnostic {
    let size = volume.size.known().map_or_else(String::new, |size| format!(" of {size} GiB"));
    Diagnostic::warning(format!("Volume \"{name}\" of machine \"{machine}\" stays")).detail(format!(
        "As `delete_on_termination = false` says. It is {id}{size}, costs money, and is not Terraform's any more; \
         `existing_volume_id` attaches it to another machine."
    ))
}

impl Machine {
    /// Whether it is to run; machines that nobody here powers always do.
    pub(super) fn runs(&self) -> bool {
        self.power_state.known().is_none_or(|state| state == "running")
    }

    fn instance_id(&self) -> String {
        self.id.known().cloned().unwrap_or_default()
    }

    /// Finds the instance where it is known only by what it was asked for with; whether there is one.
    async fn find(&mut self, ec2: &Ec2<'_>, private: &Private) -> Result<bool, Diagnostic> {
        if let (Attr::Null, Some(token)) = (&self.id, &private.instance) {
            self.id = Attr::from(ec2.made_by(token).await.map_err(self.problem("look for"))?);
        }
        Ok(self.id.is_known())
    }

    /// Whether everything that users write, but for the block, is as it was.
    fn same_beside_ec2(&self, prior: &Self) -> bool {
        let written = |machine: &Self| (machine.name.clone(), machine.timeouts.clone());
        let same = |now: &Attr<String>, prior: &Attr<String>| now == prior || now.is_unknown();
        written(self) == written(prior)
            && same(&self.system, &prior.system)
            && same(&self.state_version, &prior.state_version)
    }

    /// How to log in, as far as the block says.
    fn connection(&self, cx: &Cx<Context>) -> crate::machines::Target {
        let block = self.ec2.known().cloned().unwrap_or_default();
        block.connection(self.host.clone()).target(cx.data.ssh.as_ref())
    }

    /// The target as everything else says.
    fn point_target(&mut self, cx: &Cx<Context>) {
        let mut target = self.connection(cx);
        target.host_public_key = self.host_public_key.clone();
        target.system = self.system.clone();
        target.state_version = self.state_version.clone();
        target.public_ipv4 = self.public_ipv4.clone();
        target.private_ipv4 = self.private_ipv4.clone();
        self.target = Attr::Known(target);
    }

    /// The same, with this host key as the only one to accept, unless the block names one.
    fn point_target_at(&mut self, cx: &Cx<Context>, key: Option<String>) {
        let configured = self.ec2.known().and_then(|block| block.host_public_key.known().cloned());
        if let Some(key) = configured.or(key) {
            self.host_public_key = Attr::Known(key);
        }
        self.point_target(cx);
    }

    /// Takes over where the instance is. While it is stopped, its last addresses stay.
    fn take_addresses(&mut self, seen: &Seen) {
        let text = |value: Option<&str>| Attr::from(value.filter(|text| !text.is_empty()).map(str::to_owned));
        let private = text(seen.instance.private_ip_address());
        let public = text(seen.instance.public_ip_address());
        if power(&seen.instance) == "running" || self.host.is_null() {
            self.public_ipv4 = public;
            self.private_ipv4 = private;
        }
        let inside = self.ec2.known().is_some_and(|block| block.use_private_address == Attr::Known(true));
        self.host = match (&self.public_ipv4, inside) {
            (Attr::Known(address), false) => Attr::Known(address.clone()),
            _ => self.private_ipv4.clone(),
        };
    }

    /// Looks at the instance as it is now and completes block and addresses by it.
    async fn settle_instance(
        &mut self,
        cx: &Cx<Context>,
        ec2: &Ec2<'_>,
        block: &mut Ec2Block,
        patience: &Patience,
    ) -> Result<(), Diagnostics> {
        let id = self.instance_id();
        let seen = ec2.settled(&id, block, patience).await.map_err(self.problem("describe"))?;
        let mut found = block.clone();
        found.take(&seen, self.label(), ec2.default_tags());
        // What was asked for is what the plan promised, also where EC2 has not come round to showing it.
        *block = completed(block, &found);
        self.ec2 = Attr::Known(block.clone());
        let mut found = Self { host: Attr::Null, ..self.clone() };
        found.take_addresses(&seen);
        fill(&mut self.public_ipv4, || found.public_ipv4.clone());
        fill(&mut self.private_ipv4, || found.private_ipv4.clone());
        fill(&mut self.host, || found.host.clone());
        self.point_target(cx);
        Ok(())
    }

    fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic + use<> {
        let summary = format!("AWS did not {verb} machine \"{}\"", self.label());
        move |error| error.diagnostic(&summary, Path::root().attribute("ec2"))
    }

    fn waited(&self, verb: &str, error: &WaitError) -> Diagnostic {
        match error {
            WaitError::Aws(error) => self.problem(verb)(error.clone()),
            error => Diagnostic::error(format!("AWS did not {verb} machine \"{}\"", self.label()))
                .detail(format!("Instance {}: {error}.", self.instance_id()))
                .at(self.block_path()),
        }
    }

    /// The instance runs, but nobody gets in.
    async fn no_login(&self, ec2: &Ec2<'_>, error: &VisitError) -> Diagnostics {
        let id = self.instance_id();
        let diagnostic = error.diagnostic(self).appended(&format!("Instance {id} runs; it is in the state."));
        match ec2.console(&id).await {
            Some(console) => diagnostic.appended(&format!("The end of its console:\n{console}")).into(),
            None => diagnostic.into(),
        }
    }
}
