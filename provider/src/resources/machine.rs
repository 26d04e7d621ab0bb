//! `nixos_machine`: one machine, wherever it runs.

use std::net::IpAddr;
use std::time::Duration;

use nixos_activator::facts::{self, Facts, FactsError};
use nixos_activator::ssh::SshError;
use nixos_activator::{MachineName, StorePath};
use serde::{Deserialize, Serialize};
use tfplugin::{
    ApplyRequest, Attr, Attribute, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest, PlanResponse,
    Resource, Schema, State, validators,
};

use crate::context::{Context, SshDefaults};
use crate::diagnose;
use crate::machines::ssh::SshBlock;
use crate::machines::{Direction, NoEndpoint, Target, not_refreshed, provider_unknown, target_attributes};
use crate::settings::{Timeouts, computed, duration_or, timeouts_attribute};

/// How long creation waits for a machine that does not answer yet.
const CREATE: Duration = Duration::from_mins(5);

pub(crate) struct MachineResource;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    name: Attr<String>,
    ssh: Attr<SshBlock>,
    system: Attr<String>,
    public_ipv4: Attr<String>,
    private_ipv4: Attr<String>,
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

/// Nothing has to be remembered beside the state.
type Private = ();

impl Resource<Context> for MachineResource {
    const TYPE: &'static str = "nixos_machine";
    type Model = Machine;
    type Private = Private;

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description(
                "A machine. It is logged in to once when it is created, and asked what it runs at every refresh. Give its `target` \
                 to a `nixos_deployment`. Import with `[user@]host[:port]`.",
            )
            .attribute("name", Attribute::string().required().validate(validators::matches(is_machine_name, "letters, digits, `_`, `-` and `.`, and no `.` at the beginning")).description("The name of the machine."))
            .attribute("ssh", crate::machines::ssh::attribute())
            .exactly_one_of(&["ssh"])
            .attribute("system", Attribute::string().optional().computed().description("Nix' name of the platform, e.g. `x86_64-linux`. Where it is set, a plan can use it before the machine was first seen; the machine must agree."))
            .attribute("public_ipv4", Attribute::string().optional().computed().description("The machine's address on the internet: `networking.publicIPv4`. Default: the address it is reached at, where that is a public one."))
            .attribute("private_ipv4", Attribute::string().optional().computed().description("The machine's address in its own network: `networking.privateIPv4`. Default: the address it is reached at, where that is a private one."))
            .attribute("timeouts", timeouts_attribute("Default for `create`: `5m`, the time a machine may take until it answers."))
            .attribute("id", computed("What the back end calls the machine: `user@host` or `user@host:port`."))
            .attribute("host", computed("Where SSH connects to."))
            .attribute("port", Attribute::number().computed().description("The port of the SSH server."))
            .attribute("user", computed("The user who logs in."))
            .attribute("host_public_key", computed("The machine's public SSH host key; the only one accepted from the first login on."))
            .attribute("os_release", computed("What the machine runs: `PRETTY_NAME` of `/etc/os-release`."))
            .attribute("state_version", Attribute::string().optional().computed().description("The NixOS release the machine was installed with, e.g. `24.11`: the default of `system.stateVersion`. Default: the release it was first seen with; null where it was not NixOS."))
            .attribute("machine_id", computed("`/etc/machine-id`."))
            .attribute("boot_id", computed("Changes with every boot."))
            .attribute("current_system", computed("The system the machine runs: a store path."))
            .attribute("booted_system", computed("The system the machine was booted with: a store path."))
            .attribute("target", Attribute::nested_single(target_attributes(Direction::Output)).computed().description("What a `nixos_deployment` takes in `machines`."))
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Machine, Private>,
    ) -> Result<PlanResponse<Machine, Private>, Diagnostics> {
        let prior = request.prior.as_ref().map(|state| &state.value);
        let planned = planned(cx.data.ssh.as_ref(), prior, &request.config, request.proposed);
        Ok(PlanResponse { planned, private: (), requires_replace: vec![] })
    }

    async fn read(
        &self,
        cx: &Cx<Context>,
        state: State<Machine, Private>,
    ) -> Result<Option<State<Machine, Private>>, Diagnostics> {
        let mut machine = state.value;
        let Some(defaults) = cx.data.ssh.as_ref() else {
            cx.warn(not_refreshed(machine.label(), &provider_unknown()));
            return Ok(Some(State { value: machine, private: () }));
        };
        let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.read), Duration::ZERO);
        match visit(cx, defaults, &machine, limit).await {
            Ok(seen) => machine.refresh(&seen.facts),
            Err(VisitError::Ssh(error)) if error.is_unreachable() => {
                cx.warn(unreachable(machine.label(), &error));
            }
            Err(error) => return Err(error.diagnostic(machine.label()).into()),
        }
        Ok(Some(State { value: machine, private: () }))
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Machine, Private>,
    ) -> Result<State<Machine, Private>, Failed<Machine, Private>> {
        let mut machine = request.planned;
        let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.create), CREATE);
        settle(cx, &mut machine, None, limit).await?;
        Ok(State { value: machine, private: () })
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: State<Machine, Private>,
        request: ApplyRequest<Machine, Private>,
    ) -> Result<State<Machine, Private>, Failed<Machine, Private>> {
        let mut machine = request.planned;
        if machine.is_open() {
            let limit = duration_or(machine.timeouts.known().map(|timeouts| &timeouts.update), CREATE);
            settle(cx, &mut machine, Some(&prior.value), limit).await?;
        }
        Ok(State { value: machine, private: () })
    }

    async fn delete(&self, _cx: &Cx<Context>, _state: State<Machine, Private>) -> Result<(), Diagnostics> {
        // The machine was there before us and stays as it is.
        Ok(())
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<State<Machine, Private>, Diagnostics> {
        let block = parse_id(id)?;
        let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
        let bare = Machine { ssh: Attr::Known(block), ..Machine::default() };
        let mut machine = planned(Some(defaults), None, &bare.clone(), bare);
        let seen =
            visit(cx, defaults, &machine, CREATE).await.map_err(|error| error.diagnostic(machine.label()))?;
        machine.settle(&seen, None)?;
        machine.name = Attr::from(seen.facts.hostname);
        Ok(State { value: machine, private: () })
    }
}

fn is_machine_name(text: &str) -> bool {
    text.parse::<MachineName>().is_ok()
}

/// Completes a proposed state: what the configuration tells already, what the prior state still tells, and what only the
/// machine can tell.
fn planned(
    defaults: Option<&SshDefaults>,
    prior: Option<&Machine>,
    config: &Machine,
    proposed: Machine,
) -> Machine {
    if prior.is_some_and(|prior| *prior == proposed) {
        return proposed;
    }
    let Attr::Known(block) = proposed.ssh.clone() else {
        return proposed;
    };
    let mut target = block.target(defaults);
    let prior = prior.filter(|prior| prior.target.known().is_some_and(|old| old.same_place(&target)));
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
        planned.port = if block.port.is_null() { prior.port.clone() } else { block.port.clone() };
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
        planned.port = if block.port.is_null() { Attr::Unknown } else { block.port.clone() };
    }
    planned.id = match (target.host.known(), target.user.known(), block.port.is_unknown()) {
        (Some(host), Some(user), false) => Attr::Known(id(user, host, block.port.known().copied())),
        _ => Attr::Unknown,
    };
    planned.host = target.host.clone();
    planned.user = target.user.clone();
    planned.host_public_key = target.host_public_key.clone();
    planned.system = target.system.clone();
    planned.state_version = target.state_version.clone();
    planned.public_ipv4 = target.public_ipv4.clone();
    planned.private_ipv4 = target.private_ipv4.clone();
    planned.target = Attr::Known(target);
    planned
}

/// What one visit brought.
struct Seen {
    facts: Facts,
    port: u16,
    accepted_key: Option<String>,
}

/// Why a visit brought nothing.
enum VisitError {
    Setting(NoEndpoint),
    Ssh(SshError),
    Facts(FactsError),
}

impl VisitError {
    fn diagnostic(&self, machine: &str) -> Diagnostic {
        let path = Path::root().attribute("ssh");
        match self {
            Self::Setting(reason) => reason.clone().into(),
            Self::Ssh(error) => diagnose::ssh(machine, error, &path),
            Self::Facts(error) => diagnose::facts(machine, error, &path),
        }
    }
}

/// Logs in and asks the machine for its facts.
async fn visit(
    cx: &Cx<Context>,
    defaults: &SshDefaults,
    machine: &Machine,
    limit: Duration,
) -> Result<Seen, VisitError> {
    let target = machine.target.known().cloned().unwrap_or_default();
    // A key that is not known yet is not pinned yet.
    let target = Target { host_public_key: Attr::from(target.host_public_key.known().cloned()), ..target };
    let endpoint = target.endpoint(defaults, &Path::root().attribute("ssh")).map_err(VisitError::Setting)?;
    let connection =
        cx.data.tools.pool.connect(&endpoint, limit, &cx.cancel).await.map_err(VisitError::Ssh)?;
    let facts = facts::gather(machine.label(), &connection).await.map_err(VisitError::Facts)?;
    let login = connection.login();
    Ok(Seen { facts, port: login.port, accepted_key: login.accepted_key.clone() })
}

/// Visits the machine and fills in what was still open.
async fn settle(
    cx: &Cx<Context>,
    machine: &mut Machine,
    prior: Option<&Machine>,
    limit: Duration,
) -> Result<(), Diagnostics> {
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let seen = match visit(cx, defaults, machine, limit).await {
        Ok(seen) => seen,
        Err(error) => return Err(error.diagnostic(machine.label()).into()),
    };
    machine.settle(&seen, prior)
}

impl Machine {
    /// How messages call the machine.
    fn label(&self) -> &str {
        self.name.known().or(self.host.known()).map_or("?", String::as_str)
    }

    /// Whether a visit is needed to complete the state.
    fn is_open(&self) -> bool {
        let target = self.target.known();
        self.port.is_unknown()
            || self.machine_id.is_unknown()
            || target.is_none_or(|target| {
                [
                    &target.host_public_key,
                    &target.system,
                    &target.state_version,
                    &target.public_ipv4,
                    &target.private_ipv4,
                ]
                .into_iter()
                .any(Attr::is_unknown)
            })
    }

    /// Takes over what changes by itself.
    fn refresh(&mut self, facts: &Facts) {
        let path = |path: &Option<StorePath>| Attr::from(path.as_ref().map(ToString::to_string));
        self.os_release = Attr::from(facts.os_release.clone());
        self.machine_id = Attr::from(facts.machine_id.clone());
        self.boot_id = Attr::from(facts.boot_id.clone());
        self.current_system = path(&facts.current_system);
        self.booted_system = path(&facts.booted_system);
    }

    /// Completes a planned state by what was seen. Values that were planned stay as they are, or it is an error.
    fn settle(&mut self, seen: &Seen, prior: Option<&Self>) -> Result<(), Diagnostics> {
        let facts = &seen.facts;
        if let (Some(declared), Some(found)) = (self.system.known(), &facts.system)
            && declared != found
            && prior.is_none_or(|prior| prior.system.known() != Some(declared))
        {
            return Err(Diagnostic::error(format!(
                "Machine \"{}\" is another kind of machine",
                self.label()
            ))
            .detail(format!(
                "`system` is \"{declared}\", but the machine is \"{found}\". Correct it or leave it out."
            ))
            .at(Path::root().attribute("system"))
            .into());
        }
        self.refresh(facts);
        let same_machine = prior.is_some_and(|prior| prior.machine_id == self.machine_id);
        let release = prior.filter(|_| same_machine).map(|prior| prior.state_version.clone());
        let (public, private) = addresses(facts);

        fill(&mut self.port, || Attr::Known(seen.port));
        let mut target = self.target.known().cloned().unwrap_or_default();
        fill(&mut target.host_public_key, || {
            Attr::from(seen.accepted_key.clone().or_else(|| facts.host_keys.first().cloned()))
        });
        fill(&mut target.system, || Attr::from(facts.system.clone()));
        fill(&mut target.state_version, || {
            release.unwrap_or_else(|| Attr::from(facts.nixos_release.clone()))
        });
        fill(&mut target.public_ipv4, || Attr::from(public));
        fill(&mut target.private_ipv4, || Attr::from(private));
        self.host_public_key = target.host_public_key.clone();
        self.system = target.system.clone();
        self.state_version = target.state_version.clone();
        self.public_ipv4 = target.public_ipv4.clone();
        self.private_ipv4 = target.private_ipv4.clone();
        self.target = Attr::Known(target);
        Ok(())
    }
}

fn fill<T>(value: &mut Attr<T>, with: impl FnOnce() -> Attr<T>) {
    if value.is_unknown() {
        *value = with();
    }
}

/// The address the machine was reached at, as (public, private).
fn addresses(facts: &Facts) -> (Option<String>, Option<String>) {
    match facts.address {
        Some(IpAddr::V4(address)) if facts::is_private(address) => (None, Some(address.to_string())),
        Some(IpAddr::V4(address)) if !address.is_loopback() => (Some(address.to_string()), None),
        _ => (None, None),
    }
}

fn id(user: &str, host: &str, port: Option<u16>) -> String {
    port.map_or_else(|| format!("{user}@{host}"), |port| format!("{user}@{host}:{port}"))
}

/// Reads `[user@]host[:port]`, with IPv6 addresses in brackets.
pub(crate) fn parse_id(id: &str) -> Result<SshBlock, Diagnostics> {
    let wrong = || {
        Diagnostics::from(Diagnostic::error("This is not the id of a machine").detail(format!(
            "Found \"{id}\", expected [user@]host[:port], e.g. `root@203.0.113.7` or `[2001:db8::7]:2222`."
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

fn unreachable(machine: &str, error: &SshError) -> Diagnostic {
    Diagnostic::warning(format!("Machine \"{machine}\" cannot be reached"))
        .detail(format!(
            "{error}\n\nThe last known state is kept; the plan may not show what has changed on it since."
        ))
        .at(Path::root().attribute("ssh"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        Seen { facts, port: 22, accepted_key: None }
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
