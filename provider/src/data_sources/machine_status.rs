//! `nixos_machine_status`: how a machine is doing now, for `check` blocks and outputs. Changes nothing.

use std::time::Duration;

use nixos_activator::facts::FactsError;
use nixos_activator::ssh::{SshError, Wait};
use nixos_activator::status::{self, Status};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Cx, DataSource, Diagnostics, DurationText, Nested, Path, Schema, Type};

use crate::context::Context;
use crate::machines::{Direction, Target, provider_unknown, target_attributes};

pub(crate) struct MachineStatus;

/// Configuration and result.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Model {
    machine: Attr<Target>,
    connect_deadline: Attr<DurationText>,
    reachable: Attr<bool>,
    problem: Attr<String>,
    current_system: Attr<String>,
    specialisation: Attr<String>,
    booted_system: Attr<String>,
    profile: Attr<String>,
    generation: Attr<u64>,
    reboot_required: Attr<bool>,
    nixos_release: Attr<String>,
    machine_id: Attr<String>,
    boot_id: Attr<String>,
    uptime_seconds: Attr<u64>,
    systemd_state: Attr<String>,
    failed_units: Attr<Vec<String>>,
    load_average: Attr<Vec<f64>>,
    memory_bytes: Attr<u64>,
    memory_available_bytes: Attr<u64>,
    disks: Attr<Vec<Disk>>,
}

/// A mounted disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Disk {
    mount_point: Attr<String>,
    size_bytes: Attr<u64>,
    available_bytes: Attr<u64>,
    read_only: Attr<bool>,
}

impl DataSource<Context> for MachineStatus {
    const TYPE: &'static str = "nixos_machine_status";
    type Model = Model;

    fn schema(&self) -> Schema {
        let text = |description: &str| Attribute::string().computed().description(description);
        let number = |description: &str| Attribute::number().computed().description(description);
        let flag = |description: &str| Attribute::bool().computed().description(description);
        let disk = Nested::new()
            .attribute("mount_point", text("Where it is mounted."))
            .attribute("size_bytes", number("Its size."))
            .attribute("available_bytes", number("How much of it is left for users."))
            .attribute(
                "read_only",
                flag(
                    "Whether nothing can be written to it: as it is wanted, or because the kernel found \
                     errors on it.",
                ),
            );
        Schema::new(0)
            .description(
                "How a machine is doing now, for `check` blocks and outputs. A machine that cannot be \
                 reached is no error: `reachable` is false, and everything that only the machine could \
                 tell is null, or an empty list.",
            )
            .attribute(
                "machine",
                Attribute::nested_single(target_attributes(Direction::Input))
                    .required()
                    .description("The machine: `nixos_machine.web.target`."),
            )
            .attribute(
                "connect_deadline",
                Attribute::duration().optional().description(
                    "How long to try again to reach a machine that does not \
                    answer. Default: one try.",
                ),
            )
            .attribute("reachable", flag("Whether somebody can log in and run a command."))
            .attribute("problem", text("Why the machine cannot be reached; null where it can."))
            .attribute("current_system", text("The system that the machine runs: a store path."))
            .attribute(
                "specialisation",
                text(
                    "Which specialisation of its system profile's system the machine runs; null where it \
                     runs that system itself, or another one.",
                ),
            )
            .attribute("booted_system", text("The system that the machine was booted with: a store path."))
            .attribute(
                "profile",
                text(
                    "The system that `/nix/var/nix/profiles/system` leads to, normally the one that boots \
                     next: a store path.",
                ),
            )
            .attribute(
                "generation",
                number(
                    "The number of the generation that `profile` is; null where a deployment has not made \
                     it the one that boots yet.",
                ),
            )
            .attribute(
                "reboot_required",
                flag(
                    "Whether the machine was booted with another kernel, initial RAM disk or set of \
                     modules than it runs.",
                ),
            )
            .attribute("nixos_release", text("The NixOS release, e.g. `24.11`."))
            .attribute("machine_id", text("`/etc/machine-id`."))
            .attribute("boot_id", text("Changes with every boot."))
            .attribute("uptime_seconds", number("Time since boot."))
            .attribute(
                "systemd_state",
                text(
                    "What `systemctl is-system-running` says: `running`, \
                                              `degraded`, …",
                ),
            )
            .attribute(
                "failed_units",
                Attribute::list(Type::String).computed().description("Names of the units that failed."),
            )
            .attribute(
                "load_average",
                Attribute::list(Type::Number)
                    .computed()
                    .description("Load averages over 1, 5 and 15 minutes."),
            )
            .attribute("memory_bytes", number("All memory of the machine."))
            .attribute("memory_available_bytes", number("How much of the memory programs could still have."))
            .attribute(
                "disks",
                Attribute::nested_list(disk).computed().description("Mounted disks, each once."),
            )
    }

    async fn read(&self, cx: &Cx<Context>, config: Model) -> Result<Model, Diagnostics> {
        let path = Path::root().attribute("machine");
        let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
        let target = config.machine.known().cloned().unwrap_or_default();
        let endpoint = target.endpoint(defaults, &path).map_err(tfplugin::Diagnostic::from)?;
        let name = target.host.known().cloned().unwrap_or_default();
        let deadline = config.connect_deadline.or(Duration::ZERO);
        let look = async {
            let connection =
                cx.data.tools.pool.connect(&endpoint, Wait::UntilReachable(deadline), &cx.cancel).await?;
            status::look(&name, &connection).await
        };
        match look.await {
            Ok(status) => Ok(config.with(status)),
            // These are mistakes of the configuration or of this side; they say nothing about the machine.
            Err(FactsError::Ssh(
                error @ (SshError::NotFound
                | SshError::Setting { .. }
                | SshError::Local { .. }
                | SshError::Cancelled),
            )) => Err(crate::diagnose::ssh(&name, &error, &path).into()),
            Err(error) => Ok(Model {
                machine: config.machine,
                connect_deadline: config.connect_deadline,
                reachable: Attr::Known(false),
                problem: Attr::Known(error.to_string()),
                // Not null: `reachable && length(failed_units) == 0` looks at both sides before Terraform 1.12.
                failed_units: Attr::Known(vec![]),
                load_average: Attr::Known(vec![]),
                disks: Attr::Known(vec![]),
                ..Model::default()
            }),
        }
    }
}

impl Model {
    fn with(self, status: Status) -> Self {
        let facts = status.facts;
        let path = |path: Option<nixos_activator::StorePath>| Attr::from(path.map(|path| path.to_string()));
        let disk = |disk: nixos_activator::status::Disk| Disk {
            mount_point: Attr::Known(disk.mount_point),
            size_bytes: Attr::Known(disk.size),
            available_bytes: Attr::Known(disk.available),
            read_only: Attr::Known(disk.read_only),
        };
        Self {
            machine: self.machine,
            connect_deadline: self.connect_deadline,
            reachable: Attr::Known(true),
            problem: Attr::Null,
            current_system: path(facts.current_system),
            specialisation: Attr::from(facts.specialisation),
            booted_system: path(facts.booted_system),
            profile: path(facts.profile),
            generation: Attr::from(facts.generation),
            reboot_required: Attr::Known(facts.reboot_required),
            nixos_release: Attr::from(facts.nixos_release),
            machine_id: Attr::from(facts.machine_id),
            boot_id: Attr::from(facts.boot_id),
            uptime_seconds: Attr::from(status.uptime.map(|uptime| uptime.as_secs())),
            systemd_state: Attr::from(status.systemd),
            failed_units: Attr::Known(facts.failed_units),
            load_average: Attr::from(status.load.map(|load| load.to_vec())),
            memory_bytes: Attr::from(status.memory.map(|(total, _)| total)),
            memory_available_bytes: Attr::from(status.memory.map(|(_, available)| available)),
            disks: Attr::Known(status.disks.into_iter().map(disk).collect()),
        }
    }
}
