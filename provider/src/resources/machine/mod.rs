//! `nixos_machine`: one machine, wherever it runs.

mod ec2;
mod ssh;
mod visit;

use std::time::Duration;

use nixos_activator::MachineName;
use serde::{Deserialize, Serialize};
use tfplugin::{
    ApplyRequest, Attr, Attribute, Cx, Diagnostics, Failed, PlanRequest, PlanResponse, Resource, Schema,
    State, StoredPrivate, validators,
};

use crate::context::Context;
use crate::machines::ec2::{Ec2Block, Found};
use crate::machines::ssh::SshBlock;
use crate::machines::{Direction, TARGET_ENV, Target, target_attributes, target_env_values};
use crate::settings::{Timeouts, computed, timeouts_attribute};

pub(crate) use ssh::parse_id;

/// How long creation waits for a machine that does not answer yet.
const CREATE: Duration = Duration::from_mins(5);

pub(crate) struct MachineResource;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    name: Attr<String>,
    ssh: Attr<SshBlock>,
    ec2: Attr<Ec2Block>,
    power_state: Attr<String>,
    system: Attr<String>,
    public_ipv4: Attr<String>,
    private_ipv4: Attr<String>,
    public_ipv6: Attr<String>,
    target_env: Attr<String>,
    timeouts: Attr<Timeouts>,
    id: Attr<String>,
    host: Attr<String>,
    port: Attr<u16>,
    user: Attr<String>,
    host_public_key: Attr<String>,
    os_release: Attr<String>,
    state_version: Attr<String>,
    machine_id: Attr<String>,
    boot_id: Attr<String>,
    current_system: Attr<String>,
    booted_system: Attr<String>,
    target: Attr<Target>,
}

impl Resource<Context> for MachineResource {
    const TYPE: &'static str = "nixos_machine";
    type Model = Machine;
    type Private = Found;

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description(
                "A machine: one that is there (`ssh`), or one that this resource makes (`ec2`). It is logged in to when it is created, and \
                 asked what it runs at every refresh. Give its `target` to a `nixos_deployment`.",
            )
            .attribute("name", Attribute::string().required().validate(validators::matches(is_machine_name, "letters, digits, `_`, `-` and `.`, and no `.` at the beginning")).description("The name of the machine: letters, digits, `_`, `-` and `.`."))
            .attribute("ssh", crate::machines::ssh::attribute())
            .attribute("ec2", crate::machines::ec2::attribute())
            .exactly_one_of(&["ssh", "ec2"])
            .attribute("power_state", Attribute::string().optional().computed().validate(validators::one_of(&["running", "stopped"])).description("Whether a machine on EC2 is to run: `running` (the default) or `stopped`. While it is stopped its last addresses are kept. Only with `ec2`; null with `ssh`."))
            .attribute("system", Attribute::string().optional().computed().description("Nix' name of the platform, e.g. `x86_64-linux`. Default: what the machine says. Where it is set, a plan can use it before the machine was first seen; the machine must agree."))
            .attribute("public_ipv4", Attribute::string().optional().computed().description("The machine's address on the internet: `networking.publicIPv4`. Default: the address it is reached at, where that is a public one. Not to be set with `ec2`."))
            .attribute("private_ipv4", Attribute::string().optional().computed().description("The machine's address in its own network: `networking.privateIPv4`. Default: the address it is reached at, where that is a private one. Not to be set with `ec2`, where `ec2.private_ip` chooses it."))
            .attribute("public_ipv6", Attribute::string().optional().computed().description("The machine's IPv6 address on the internet: `networking.publicIPv6`. Default: the address it is reached at, where that is one. Not to be set with `ec2`, where `ec2.ipv6_address_count` and `ec2.ipv6_addresses` give the machine some; it is the first of them."))
            .attribute("target_env", Attribute::string().optional().validate(target_env_values()).description(format!("{TARGET_ENV} Default with `ec2`: `ec2`.")))
            .attribute("timeouts", timeouts_attribute("Default with `ec2`: `10m` for `create`, `update` and `delete`. Default with `ssh`: `5m` for `create` and `update`, the time a machine may take until it answers and lets this login in: a refused one is tried again until then, because keys may come late. `read` is how long a refresh tries again to reach a machine that does not answer; default: one try."))
            .attribute("id", computed("With `ssh`: `user@host` or `user@host:port`; with `ec2`: the id of the instance, `i-…`."))
            .attribute("host", computed("Where SSH connects to."))
            .attribute("port", Attribute::number().computed().description("The port of the SSH server."))
            .attribute("user", computed("The user who logs in."))
            .attribute("host_public_key", computed("The machine's public SSH host key; the only one accepted from the first login on."))
            .attribute("os_release", computed("What the machine runs: `PRETTY_NAME` of `/etc/os-release`."))
            .attribute("state_version", Attribute::string().optional().computed().description("The NixOS release that the machine was installed with, e.g. `24.11`; `system.stateVersion` where the specification does not say it. Default: the release that the machine ran when it was first seen, null where that was not NixOS."))
            .attribute("machine_id", computed("`/etc/machine-id`."))
            .attribute("boot_id", computed("Changes with every boot."))
            .attribute("current_system", computed("The system the machine runs: a store path."))
            .attribute("booted_system", computed("The system the machine was booted with: a store path."))
            .attribute("target", Attribute::nested_single(target_attributes(Direction::Output)).computed().description("What a `nixos_deployment` takes in `machines`: how to log in, and what a specification may know about the machine."))
    }

    async fn validate(&self, config: Machine) -> Result<(), Diagnostics> {
        config.ec2.known().map_or(Ok(()), Ec2Block::validate)?;
        ec2::validate(&config)
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Machine, Found>,
    ) -> Result<PlanResponse<Machine, Found>, Diagnostics> {
        let found = request.prior.as_ref().map(|state| state.private.clone()).unwrap_or_default();
        let prior = request.prior.as_ref().map(|state| &state.value);
        let planned = if request.config.ec2.is_null() {
            // Nobody here powers a machine that is there already. What is not known yet can only turn out to be null.
            let power_state =
                if request.config.power_state.is_unknown() { Attr::Unknown } else { Attr::Null };
            let proposed = Machine { power_state, ..request.proposed };
            ssh::planned(cx.data.ssh.as_ref(), prior, &request.config, proposed)
        } else {
            Box::pin(ec2::planned(cx, prior, &request.config, request.proposed, &found)).await?
        };
        // A machine does not move from one place to another; that is another machine.
        let moves = prior.is_some_and(|prior| prior.block_path() != planned.block_path());
        let mut requires_replace = if moves { vec![planned.block_path()] } else { vec![] };
        if let (Some(Attr::Known(old)), Attr::Known(new)) = (prior.map(|prior| &prior.ec2), &planned.ec2) {
            requires_replace.extend(new.replaced(old));
        }
        let private =
            request.config.ec2.known().map(|configured| found.beside(configured)).unwrap_or_default();
        Ok(PlanResponse { planned, private, requires_replace })
    }

    async fn read(
        &self,
        cx: &Cx<Context>,
        state: State<Machine, Found>,
    ) -> Result<Option<State<Machine, Found>>, Diagnostics> {
        let State { value: mut machine, private } = state;
        if !machine.ec2.is_null() && !ec2::read(cx, &mut machine).await? {
            return Ok(None);
        }
        if machine.runs() {
            ssh::read(cx, &mut machine).await?;
        }
        Ok(Some(State { value: machine, private }))
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Machine, Found>,
    ) -> Result<State<Machine, Found>, Failed<Machine, Found>> {
        let mut machine = request.planned;
        if machine.ec2.is_null() {
            ssh::create(cx, &mut machine).await?;
            return Ok(stored(machine));
        }
        match Box::pin(ec2::create(cx, &mut machine)).await {
            Ok(()) => Ok(stored(machine)),
            Err(diagnostics) => {
                // From the moment there is an instance, or may be one, the state knows of it.
                let exists = machine.id.is_known() || machine.asked_with().is_some();
                Err(Failed { diagnostics, partial: exists.then_some(stored(machine)) })
            }
        }
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: State<Machine, Found>,
        request: ApplyRequest<Machine, Found>,
    ) -> Result<State<Machine, Found>, Failed<Machine, Found>> {
        let mut machine = request.planned;
        if machine.ec2.is_null() {
            ssh::update(cx, &prior.value, &mut machine).await?;
            return Ok(stored(machine));
        }
        let mut there = prior.value;
        match Box::pin(ec2::update(cx, &mut there, machine, &prior.private)).await {
            Ok(machine) => Ok(State { value: machine, private: request.private }),
            Err(diagnostics) => {
                let there = State { value: there, private: prior.private };
                Err(Failed { diagnostics, partial: Some(there) })
            }
        }
    }

    async fn delete(&self, cx: &Cx<Context>, state: State<Machine, Found>) -> Result<(), Diagnostics> {
        if state.value.ec2.is_null() {
            // The machine was there before us and stays as it is.
            return Ok(());
        }
        Box::pin(ec2::delete(cx, state.value)).await
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<State<Machine, Found>, Diagnostics> {
        if !ec2::is_id(id) {
            return Ok(stored(ssh::import(cx, &self.schema(), id).await?));
        }
        let machine = Box::pin(ec2::import(cx, id)).await?;
        let private = machine.ec2.known().map(Found::in_block).unwrap_or_default();
        Ok(State { value: machine, private })
    }

    fn upgrade_private(&self, stored: StoredPrivate) -> Option<Found> {
        // Before there was anything to remember, nothing was.
        matches!(stored, StoredPrivate::Version(_, serde_json::Value::Null)).then(Found::default)
    }
}

fn stored(machine: Machine) -> State<Machine, Found> {
    State { value: machine, private: Found::default() }
}

fn is_machine_name(text: &str) -> bool {
    text.parse::<MachineName>().is_ok()
}
