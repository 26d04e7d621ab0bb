//! Machines that are there already and answer to SSH, wherever they run: the `ssh` block.

mod block;
mod id;
mod life;
mod plan;

use futures::future::BoxFuture;
use tfplugin::{Attribute, Cx, Diagnostic, Diagnostics, Path, Schema};

use super::machine::Machine;
use super::place::{Place, Planned, Planning, Presence, Private};
use crate::context::Context;

pub(crate) use block::SshBlock;
pub(crate) use id::parse_id;

/// The place of machines that are there already. It has no power over them.
pub(crate) struct SshPlace;

impl Place for SshPlace {
    fn block(&self) -> &'static str {
        "ssh"
    }

    fn attribute(&self) -> Attribute {
        block::attribute()
    }

    fn validate(&self, config: &Machine) -> Result<(), Diagnostics> {
        if config.power_state.is_known() {
            let found = Diagnostic::error("Only machines that are made here can be powered")
                .detail("Found `power_state` with `ssh`; expected it only with `ec2`. Remove it.")
                .at(Path::root().attribute("power_state"));
            return Err(found.into());
        }
        Ok(())
    }

    fn plan<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        Planning { prior, config, proposed, .. }: Planning<'a>,
    ) -> BoxFuture<'a, Result<Planned, Diagnostics>> {
        let machine = plan::planned(cx.data.ssh.as_ref(), prior, config, proposed);
        Box::pin(async { Ok(Planned { machine, private: Private::default(), requires_replace: vec![] }) })
    }

    fn read<'a>(
        &'a self,
        _: &'a Cx<Context>,
        _: &'a mut Machine,
    ) -> BoxFuture<'a, Result<Presence, Diagnostics>> {
        // A machine that does not answer is not gone.
        Box::pin(async { Ok(Presence::There) })
    }

    fn create<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        machine: &'a mut Machine,
    ) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(life::create(cx, machine))
    }

    fn may_exist(&self, _: &Machine) -> bool {
        // Nothing is made here, so nothing is left to end.
        false
    }

    fn update<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        there: &'a mut Machine,
        planned: Machine,
        _: &'a Private,
    ) -> BoxFuture<'a, Result<Machine, Diagnostics>> {
        Box::pin(life::update(cx, there, planned))
    }

    fn delete<'a>(&'a self, _: &'a Cx<Context>, _: Machine) -> BoxFuture<'a, Result<(), Diagnostics>> {
        // The machine was there before us and stays as it is.
        Box::pin(async { Ok(()) })
    }

    fn is_id(&self, _: &str) -> bool {
        // Whatever is not the id of another place is the address of a machine.
        true
    }

    fn import<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        schema: &'a Schema,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(Machine, Private), Diagnostics>> {
        Box::pin(async { Ok((life::import(cx, schema, id).await?, Private::default())) })
    }
}
