//! `nixos_machine`: one machine, wherever it runs. What depends on where it runs is its
//! [`Place`](crate::machines::Place)'s.

use nixos_activator::MachineName;
use tfplugin::{
    ApplyRequest, Attribute, Cx, Diagnostics, Failed, PlanRequest, PlanResponse, Resource, Schema, State,
    StoredPrivate, Timeouts, validators,
};

use crate::context::Context;
use crate::machines::{
    Direction, Machine, PLACES, Planned, Planning, Presence, Private, TARGET_ENV, place_of, refresh,
    target_attributes, target_env_values,
};
use crate::settings::computed;

pub(crate) struct MachineResource;

impl Resource<Context> for MachineResource {
    const TYPE: &'static str = "nixos_machine";
    type Model = Machine;
    type Private = Private;

    fn schema(&self) -> Schema {
        let text = || Attribute::string().optional().computed();
        let name = "letters, digits, `_`, `-` and `.`, and no `.` at the beginning";
        let name = Attribute::string().required().validate(validators::matches(is_machine_name, name));
        let power = text().validate(validators::one_of(&["running", "stopped"]));
        let target_env = Attribute::string().optional().validate(target_env_values());
        let target = Attribute::nested_single(target_attributes(Direction::Output)).computed();
        // In the order in which messages name them.
        let blocks: Vec<&str> = PLACES.iter().rev().map(|place| place.block()).collect();
        PLACES
            .iter()
            .fold(Schema::new(0), |schema, place| schema.attribute(place.block(), place.attribute()))
            .description(
                "A machine: one that is there (`ssh`), or one that this resource makes (`ec2`). It is \
                 logged in to when it is created, and asked what it runs at every refresh. Give its \
                 `target` to a `nixos_deployment`.",
            )
            .exactly_one_of(&blocks)
            .attribute(
                "name",
                name.description(
                    "The name of the machine: letters, digits, `_`, `-` and \
                                                 `.`.",
                ),
            )
            .attribute("power_state", power.description(POWER_STATE))
            .attribute("system", text().description(SYSTEM))
            .attribute("public_ipv4", text().description(PUBLIC_IPV4))
            .attribute("private_ipv4", text().description(PRIVATE_IPV4))
            .attribute("public_ipv6", text().description(PUBLIC_IPV6))
            .attribute(
                "target_env",
                target_env.description(format!("{TARGET_ENV} Default with `ec2`: `ec2`.")),
            )
            .attribute("timeouts", Timeouts::attribute(TIMEOUTS))
            .attribute(
                "id",
                computed(
                    "With `ssh`: `user@host` or `user@host:port`; with `ec2`: the id of the instance, \
                     `i-…`.",
                ),
            )
            .attribute("host", computed("Where SSH connects to."))
            .attribute("port", Attribute::number().computed().description("The port of the SSH server."))
            .attribute("user", computed("The user who logs in."))
            .attribute(
                "host_public_key",
                computed("The machine's public SSH host key; the only one accepted from the first login on."),
            )
            .attribute("os_release", computed("What the machine runs: `PRETTY_NAME` of `/etc/os-release`."))
            .attribute("state_version", text().description(STATE_VERSION))
            .attribute("machine_id", computed("`/etc/machine-id`."))
            .attribute("boot_id", computed("Changes with every boot."))
            .attribute("current_system", computed("The system the machine runs: a store path."))
            .attribute("booted_system", computed("The system the machine was booted with: a store path."))
            .attribute("target", target.description(TARGET))
    }

    async fn validate(&self, config: Machine) -> Result<(), Diagnostics> {
        place_of(&config).validate(&config)
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Machine, Private>,
    ) -> Result<PlanResponse<Machine, Private>, Diagnostics> {
        let PlanRequest { prior, config, proposed, .. } = request;
        let private = prior.as_ref().map(|state| state.private.clone()).unwrap_or_default();
        let prior = prior.as_ref().map(|state| &state.value);
        let planning = Planning { prior, config: &config, proposed, private };
        let planned = place_of(&config).plan(cx, planning).await?;
        let Planned { machine, private, mut requires_replace } = planned;
        // A machine does not move from one place to another: there it is another machine.
        if prior.is_some_and(|prior| prior.block() != machine.block()) {
            requires_replace.push(machine.block_path());
        }
        Ok(PlanResponse::new(machine, private).requires_replace(requires_replace))
    }

    async fn read(
        &self,
        cx: &Cx<Context>,
        state: State<Machine, Private>,
    ) -> Result<Option<State<Machine, Private>>, Diagnostics> {
        let State { value: mut machine, private } = state;
        if place_of(&machine).read(cx, &mut machine).await? == Presence::Gone {
            return Ok(None);
        }
        if machine.runs() {
            refresh(cx, &mut machine).await?;
        }
        Ok(Some(State { value: machine, private }))
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Machine, Private>,
    ) -> Result<State<Machine, Private>, Failed<Machine, Private>> {
        let mut machine = request.planned;
        let place = place_of(&machine);
        let made = place.create(cx, &mut machine).await;
        let exists = place.may_exist(&machine);
        let state = State { value: machine, private: Private::default() };
        match made {
            Ok(()) => Ok(state),
            Err(diagnostics) => Err(Failed { diagnostics, partial: exists.then_some(state) }),
        }
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: State<Machine, Private>,
        request: ApplyRequest<Machine, Private>,
    ) -> Result<State<Machine, Private>, Failed<Machine, Private>> {
        let State { value: mut there, private: remembered } = prior;
        match place_of(&there).update(cx, &mut there, request.planned, &remembered).await {
            Ok(machine) => Ok(State { value: machine, private: request.private }),
            Err(diagnostics) => {
                let there = State { value: there, private: remembered };
                Err(Failed { diagnostics, partial: Some(there) })
            }
        }
    }

    async fn delete(&self, cx: &Cx<Context>, state: State<Machine, Private>) -> Result<(), Diagnostics> {
        place_of(&state.value).delete(cx, state.value).await
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<State<Machine, Private>, Diagnostics> {
        let schema = self.schema();
        let place =
            PLACES.iter().copied().find(|place| place.is_id(id)).unwrap_or(place_of(&Machine::default()));
        let (machine, private) = place.import(cx, &schema, id).await?;
        Ok(State { value: machine, private })
    }

    fn upgrade_private(&self, stored: StoredPrivate) -> Option<Private> {
        // Earlier versions remembered nothing.
        matches!(stored, StoredPrivate::Version(_, serde_json::Value::Null)).then(Private::default)
    }
}

fn is_machine_name(text: &str) -> bool {
    text.parse::<MachineName>().is_ok()
}

const POWER_STATE: &str = "Whether a machine on EC2 is to run: `running` (the default) or `stopped`. While \
                           it is stopped its last addresses are kept. Only with `ec2`; null with `ssh`.";

const SYSTEM: &str = "Nix' name of the platform, e.g. `x86_64-linux`. Default: what the machine says. \
                      Where it is set, a plan can use it before the machine was first seen; the machine \
                      must agree.";

const PUBLIC_IPV4: &str = "The machine's address on the internet: `networking.publicIPv4`. Default: the \
                           address it is reached at, where that is a public one. Not to be set with `ec2`.";

const PRIVATE_IPV4: &str = "The machine's address in its own network: `networking.privateIPv4`. Default: \
                            the address it is reached at, where that is a private one. Not to be set with \
                            `ec2`, where `ec2.private_ip` chooses it.";

const PUBLIC_IPV6: &str = "The machine's IPv6 address on the internet: `networking.publicIPv6`. Default: \
                           the address it is reached at, where that is one. Not to be set with `ec2`, \
                           where `ec2.ipv6_address_count` and `ec2.ipv6_addresses` give the machine some; \
                           it is the first of them.";

const TIMEOUTS: &str = "Default with `ec2`: `10m` for `create`, `update` and `delete`. Default with `ssh`: \
                        `5m` for `create` and `update`, the time a machine may take until it answers and \
                        lets this login in: a refused one is tried again until then, because keys may come \
                        late. `read` is how long a refresh tries again to reach a machine that does not \
                        answer; default: one try.";

const STATE_VERSION: &str = "The NixOS release that the machine was installed with, e.g. `24.11`; \
                             `system.stateVersion` where the specification does not say it. Default: the \
                             release that the machine ran when it was first seen, null where that was not \
                             NixOS.";

const TARGET: &str = "What a `nixos_deployment` takes in `machines`: how to log in, and what a \
                      specification may know about the machine.";
