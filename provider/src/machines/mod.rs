//! Where machines can run.
//!
//! Each place is a folder and owns one block of `nixos_machine`: [`Place`] says what it has to do. Everything after
//! that is the same for all of them: the first login, the facts that a machine tells about itself, its host key, and
//! the [`Target`] that deployments take.
//!
//! To add a place: a folder with its block and its `Place`, a line in [`PLACES`], and its block in [`machine`]; its
//! name in `target_env_values`, what it remembers in [`Private`], and a configuration in
//! `tests/fixtures/configurations`.

mod addresses;
mod bastion;
mod defaults;
pub(crate) mod ec2;
mod host_key;
mod machine;
mod place;
mod sameness;
mod schema;
mod seen;
mod ssh;
mod target;
mod unreachable;
mod visit;

pub(crate) use bastion::Bastion;
pub(crate) use defaults::{CONNECT_TIMEOUT, SshDefaults};
pub(crate) use machine::Machine;
pub(crate) use place::{Place, Planned, Planning, Presence, Private};
pub(crate) use sameness::Sameness;
pub(crate) use schema::{
    Direction, ELEVATE, TARGET_ENV, bastion_attributes, effective_options, target_attributes,
    target_env_values,
};
pub(crate) use ssh::parse_id;
pub(crate) use target::{Target, host_key_policy};
pub(crate) use unreachable::{NoEndpoint, not_refreshed, provider_unknown};
pub(crate) use visit::refresh;

/// All places. The order matters: [`place_of`] falls back to the last one, where only a configuration gets that the
/// schema refuses, and an import asks them in this order whose id it is.
pub(crate) const PLACES: &[&dyn Place] = &[&ec2::Ec2Place, &ssh::SshPlace];

/// The place of a machine.
pub(crate) fn place_of(machine: &Machine) -> &'static dyn Place {
    let block = machine.block();
    PLACES.iter().copied().find(|place| place.block() == block).unwrap_or(&ssh::SshPlace)
}

#[cfg(test)]
mod tests {
    use tfplugin::testing::object;

    use crate::provider::tests::configured;

    #[tokio::test]
    async fn a_bastion_needs_a_host() {
        let terraform = configured(&object([])).await;
        let bastion = object([("user", "jump".into())]);
        let ssh = object([("host", "10.0.0.12".into()), ("bastion", bastion)]);
        let config = object([("name", "db".into()), ("ssh", ssh)]);
        let errors = terraform.validate("nixos_machine", &config).await.unwrap_err();
        let places = errors.iter().filter_map(|one| one.path.as_ref().map(ToString::to_string));
        assert_eq!(places.collect::<Vec<_>>(), ["ssh.bastion.host"], "{errors:#?}");
    }
}
