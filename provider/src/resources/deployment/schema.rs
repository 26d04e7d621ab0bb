//! What users can write in a `nixos_deployment`, and what they get back.

use tfplugin::{Attribute, Nested, Schema, Timeouts, Type, validators};

use super::{generations, health, rollout, secrets, specialisations};
use crate::machines::{Direction, target_attributes};

pub(super) fn schema() -> Schema {
    spec_attributes(Schema::new(0).description(
        "A NixOS network deployed onto machines: evaluated at plan, so that the plan names the exact \
         system of every machine; built, copied and activated at apply. Destroying it leaves the machines \
         running what they run.",
    ))
    .attribute(
        "id",
        Attribute::string()
            .computed()
            .use_state_for_unknown()
            .description("Identity of the deployment: `uuid` in modules."),
    )
    .attribute("machines", machines_attribute().required())
    .attribute("specialisations", specialisations::attribute())
    .attribute(
        "action",
        Attribute::string()
            .optional()
            .computed()
            .default("switch")
            .validate(validators::one_of(&["switch", "boot", "test", "dry_activate", "push"]))
            .description(
                "What to do with a system once it is on its machine, as in `switch-to-configuration`: \
                 `switch` (activate now and at boot; the default), `boot` (at the next boot), `test` (now, \
                 not at boot), `dry_activate` (only say what would happen), `push` (nothing).",
            ),
    )
    .attribute(
        "reboot",
        Attribute::string()
            .optional()
            .computed()
            .default("never")
            .validate(validators::one_of(&["never", "if_needed", "always"]))
            .description(
                "Whether a machine is rebooted once it boots its new system: `never` (the default); \
                 `if_needed`, when it was booted with another kernel, initial RAM disk or set of modules, \
                 when the new system cannot take over from the running one, or with `action = \"boot\"`; \
                 `always`, when it was booted with any other system. It has to come back with the new \
                 system; then it gets its secrets and has to pass its health checks. Needs `action` \
                 `switch` or `boot`.",
            ),
    )
    .attribute(
        "reboot_timeout",
        Attribute::duration().optional().description(
            "How long a machine may be away when it reboots. Default: `10m`. Where it goes back by itself \
             if the new system does not come up, Terraform waits for twice that and a minute. `timeouts` \
             have to leave room for it.",
        ),
    )
    .attribute(
        "rollback",
        Attribute::bool().optional().computed().default(true).description(
            "Whether a machine goes back to what it ran before when its new system fails. With false no \
             new login has to confirm the system either, and a machine whose new system fails is left as \
             it is. Default: true.",
        ),
    )
    .attribute(
        "confirm_timeout",
        Attribute::duration().optional().description(
            "How long a machine runs its new system without anybody having logged in to it anew; then it \
             goes back to the old one. Default: `30s`. With `0s` nobody has to log in, and a system that \
             by its files could not let this login in any more is not refused: for moving a machine to \
             another port or address.",
        ),
    )
    .attribute(
        "activation_timeout",
        Attribute::duration().optional().description(
            "How long `switch-to-configuration` may take on a machine. \
                    Default: `10m`.",
        ),
    )
    .attribute("tolerated_units", tolerated_units())
    .attribute("switch_environment", switch_environment())
    .attribute("health_checks", health::attribute())
    .attribute("rollout", rollout::attribute())
    .attribute("secrets", secrets::attribute())
    .attribute(
        "keep_generations",
        Attribute::number().optional().validate(validators::integer_between(2, 1_000_000)).description(
            "How many generations of the system profile stay on a machine, of those that were deployed \
             from here; older ones are removed once a new one is confirmed. At least 2. What the machine \
             runs, was booted with or would go back to always stays, and so do generations that others \
             made. Default: all.",
        ),
    )
    .attribute("generations", generations::attribute())
    .attribute(
        "copy",
        Attribute::nested_single(copy_attributes())
            .optional()
            .description("How systems travel to the machines."),
    )
    .attribute(
        "on_unreachable",
        Attribute::string()
            .optional()
            .computed()
            .default("warn")
            .validate(validators::one_of(&["warn", "fail"]))
            .description(
                "What a refresh does about a machine that cannot be asked, because it does not answer, \
                 refuses the login or shows another host key: `warn` (keep its last known state; the \
                 default) or `fail`. It counts from the apply on that sets it.",
            ),
    )
    .attribute(
        "timeouts",
        Timeouts::attribute(
            "Default for `create` and `update`: `60m`. `read` is how long a refresh tries again to reach a \
             machine that does not answer; default: one try. There is nothing to wait for in `delete`.",
        ),
    )
    .attribute(
        "systems",
        Attribute::nested_map(system_attributes())
            .computed()
            .description("What each machine runs; in a plan, what it will run."),
    )
}

fn tolerated_units() -> Attribute {
    Attribute::list(Type::String).optional().description(
        "Units of systemd that may fail while a machine comes to run its new system, as `systemctl` names \
         them: `[\"systemd-networkd-wait-online.service\"]`. That they do is a warning, and no reason to \
         go back.",
    )
}

fn switch_environment() -> Attribute {
    Attribute::map(Type::String).optional().description(
        "Environment variables of `switch-to-configuration` and of the system's pre-switch checks. `{ \
         NIXOS_NO_CHECK = \"1\" }` switches although such a check does not pass. The way back to the old \
         system never asks them.",
    )
}

/// What to evaluate: the same for the deployment and the data source.
pub(crate) fn spec_attributes(schema: Schema) -> Schema {
    schema
        .attribute(
            "name",
            Attribute::string().optional().description(
                "The deployment's name: `deploymentName` in \
                                                                       modules. Default: `default`.",
            ),
        )
        .attribute(
            "network",
            Attribute::dynamic().optional().description(
                "Path of a NixOps network file, or a list of paths that are merged. Exactly one of \
                 `network`, `flake` and `configuration` is set.",
            ),
        )
        .attribute(
            "flake",
            Attribute::string().optional().description(
                "A flake: a directory (a relative path counts from where Terraform runs: `path.module`) or \
                 a reference such as `github:owner/repo`. Its specification is the first it has of \
                 `nixosConfigurations`, `nixopsConfigurations` (`default`), `colmenaHive` and `colmena`, \
                 or the one named after `#`. Exactly one of `network`, `flake` and `configuration` is set.",
            ),
        )
        .attribute(
            "configuration",
            Attribute::string().optional().description(
                "Path of a NixOS configuration (`configuration.nix`) that every machine gets; what differs \
                 between them it learns from the module arguments `name`, `nodes` and `arguments`. Exactly \
                 one of `network`, `flake` and `configuration` is set.",
            ),
        )
        .exactly_one_of(&["network", "flake", "configuration"])
        .attribute(
            "import_from_derivation",
            Attribute::bool().optional().description(
                "Whether evaluation may build what it imports. Default: false, so that a plan builds \
                 nothing.",
            ),
        )
        .attribute(
            "arguments",
            Attribute::dynamic().optional().description(
                "Any object: the arguments of the network file, and `arguments` in modules. What is in it \
                 ends up in the world-readable Nix store, so no secrets.",
            ),
        )
        .attribute(
            "resources",
            Attribute::dynamic().optional().description(
                "Any object: `resources` in modules, the results of other Terraform resources under \
                 NixOps' name.",
            ),
        )
}

/// `machines`, without being required or optional.
pub(crate) fn machines_attribute() -> Attribute {
    Attribute::nested_map(target_attributes(Direction::Input)).description(
        "The machine of each node, by the node's name: `{ web = nixos_machine.web.target }`. The resource \
         itself (`nixos_machine.web`) is accepted, too, but has no `bastion`, keys, `elevate` and \
         `options`.",
    )
}

fn copy_attributes() -> Nested {
    Nested::new()
        .attribute(
            "substitute_on_destination",
            Attribute::bool().optional().description(
                "Let machines fetch what they can from their own binary caches. Default: false.",
            ),
        )
        .attribute(
            "compress",
            Attribute::bool().optional().description(
                "Compress all that goes through the deployment's connections to machines: worth it on slow \
                 links. Default: false.",
            ),
        )
}

fn system_attributes() -> Nested {
    let text = |description: &str| Attribute::string().computed().description(description);
    Nested::new()
        .attribute("toplevel", text("The system: its store path."))
        .attribute(
            "drv",
            text(
                "The derivation that builds it; null for a system that was not deployed \
                                from here.",
            ),
        )
        .attribute(
            "generation",
            Attribute::number().computed().description(
                "The generation of the machine's system profile that is this system; null where the \
                 profile is another one.",
            ),
        )
        .attribute(
            "specialisation",
            text(
                "Which specialisation of its configuration the system is; null \
                                           for the base system.",
            ),
        )
        .attribute("nixos_version", text("The NixOS version, e.g. `24.11.20250101.abcdef`."))
        .attribute("kernel", text("The version of the kernel in it."))
        .attribute(
            "reboot_required",
            Attribute::bool().computed().description(
                "Whether the machine was booted with another kernel, initial RAM disk or set of modules, \
                 or is still to be rebooted for another reason that `reboot` names.",
            ),
        )
        .attribute(
            "secrets",
            Attribute::map(Type::String).computed().description(
                "What stands for the content, place and owner of each secret the machine has (a keyed \
                 hash); null without secrets.",
            ),
        )
        .attribute(
            "changes",
            text(
                "What the system changes against the one before: kernel, packages, units, users, open \
                 ports, files in `/etc`. In a plan, what stands before the arrow is about the deployment \
                 before.",
            ),
        )
}
