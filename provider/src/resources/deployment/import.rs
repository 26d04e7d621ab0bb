//! Importing: machines that run something already come under Terraform.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Schema, State, Value};

use super::ids;
use super::model::Deployment;
use super::private::Private;
use super::read;
use crate::context::Context;
use crate::machines::{parse_id, provider_unknown};
use crate::settings;

/// Takes over what the machines run. The id is a configuration, after which a plan of that configuration is empty; or
/// it says where the machines are, and the configuration brings the rest.
pub(super) async fn import(
    cx: &Cx<Context>,
    schema: &Schema,
    id: &str,
) -> Result<State<Deployment, Private>, Diagnostics> {
    let deployment = match settings::configuration_in(id)? {
        Some(mut written) => {
            let id = match written.remove("id") {
                Some(id) => known_id(&id)?,
                None => ids::new_id()?,
            };
            let config: Deployment = schema.read_configuration(&Json::Object(written))?;
            Deployment { id: Attr::Known(id), systems: Attr::Known(BTreeMap::new()), ..config }
        }
        None => at_places(id)?,
    };
    if cx.data.ssh.is_none() {
        return Err(provider_unknown().into());
    }
    let wanted = deployment.on_unreachable.clone();
    // What cannot be seen cannot be imported: machines that do not answer are errors here.
    let strict = Deployment { on_unreachable: Attr::Known("fail".to_owned()), ..deployment };
    let mut state =
        read::read(cx, State { value: strict, private: Private::default() }).await.map_err(|found| {
            found.into_iter().map(|one| one.appended(settings::IMPORT_KNOWS_ITS_ID)).collect::<Diagnostics>()
        })?;
    state.value.on_unreachable = wanted;
    Ok(state)
}

/// The id that a deployment had before its state was lost: its machines know their secrets by it.
fn known_id(id: &Json) -> Result<String, Diagnostic> {
    let is_uuid = |id: &&str| {
        let groups: Vec<&str> = id.split('-').collect();
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups.concat().chars().all(|c| c.is_ascii_hexdigit())
    };
    id.as_str().filter(is_uuid).map(str::to_owned).ok_or_else(|| {
        Diagnostic::error("This is not the `id` of a deployment")
            .detail(format!("Found {id}, expected one such as \"3f2c8a52-6f1e-4f6e-9c53-2d1f0a7c9b1e\"."))
    })
}

/// A deployment onto the machines of `name=[user@]host[:port],…`.
fn at_places(id: &str) -> Result<Deployment, Diagnostics> {
    let mut machines = BTreeMap::new();
    for item in id.split(',').map(str::trim) {
        let Some((name, place)) = item.split_once('=') else {
            return Err(Diagnostic::error("This is not the id of a deployment")
                .detail(format!(
                    "Found \"{item}\", expected name=[user@]host[:port], several separated by commas, or a \
                     configuration: `jsonencode({{ network = …, machines = … }})`."
                ))
                .into());
        };
        let mut target = parse_id(place)?.target();
        // Only what leads to the machine; the configuration has the facts.
        for open in [
            &mut target.host_public_key,
            &mut target.system,
            &mut target.state_version,
            &mut target.public_ipv4,
            &mut target.private_ipv4,
            &mut target.public_ipv6,
            &mut target.machine_id,
        ] {
            *open = Attr::Null;
        }
        machines.insert(name.to_owned(), Attr::Known(target));
    }
    Ok(Deployment {
        id: Attr::Known(ids::new_id()?),
        name: Attr::Null,
        network: Value::Null,
        flake: Attr::Null,
        configuration: Attr::Null,
        import_from_derivation: Attr::Null,
        machines: Attr::Known(machines),
        arguments: Value::Null,
        resources: Value::Null,
        specialisations: Attr::Null,
        action: Attr::Known("switch".to_owned()),
        reboot: Attr::Known("never".to_owned()),
        reboot_timeout: Attr::Null,
        rollback: Attr::Known(true),
        confirm_timeout: Attr::Null,
        activation_timeout: Attr::Null,
        tolerated_units: Attr::Null,
        switch_environment: Attr::Null,
        health_checks: Attr::Null,
        rollout: Attr::Null,
        secrets: Attr::Null,
        keep_generations: Attr::Null,
        generations: Attr::Null,
        copy: Attr::Null,
        on_unreachable: Attr::Known("warn".to_owned()),
        timeouts: Attr::Null,
        systems: Attr::Known(BTreeMap::new()),
    })
}
