//! Machines on AWS EC2: the `ec2` block.
//!
//! [`schema`] says what users may write, [`block`] is what they wrote, [`plan`] what is planned, [`life`] the way
//! from one state to the next. Below them: [`api`] has the calls of EC2, [`change`] brings an instance from what it
//! is to what is planned, [`drift`] takes over what EC2 says, [`found`] remembers what an import has found, [`ipv6`]
//! has the IPv6 addresses, [`volume_map`] the volumes by name, and [`leaving_volumes`] those that a machine loses or
//! leaves behind.

mod api;
mod block;
mod change;
mod defaults;
mod drift;
mod elastic_ip;
mod found;
mod instance;
mod ipv6;
mod leaving_volumes;
mod life;
mod messages;
mod plan;
mod root_volume;
mod schema;
mod validate;
mod volume_identity;
mod volume_map;
mod volume_schema;
mod volumes;

use futures::future::BoxFuture;
use tfplugin::{Attr, Attribute, Cx, Diagnostics, Schema};

use super::machine::Machine;
use super::place::{Place, Planned, Planning, Presence, Private};
use crate::aws::import_id;
use crate::context::Context;

pub(crate) use block::Ec2Block;
pub(crate) use found::Found;

/// The place of instances on EC2.
pub(crate) struct Ec2Place;

impl Place for Ec2Place {
    fn block(&self) -> &'static str {
        "ec2"
    }

    fn attribute(&self) -> Attribute {
        schema::attribute()
    }

    fn validate(&self, config: &Machine) -> Result<(), Diagnostics> {
        config.ec2.known().map_or(Ok(()), Ec2Block::validate)
    }

    fn plan<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        Planning { prior, config, proposed, private }: Planning<'a>,
    ) -> BoxFuture<'a, Result<Planned, Diagnostics>> {
        Box::pin(async move {
            let machine = Box::pin(plan::planned(cx, prior, config, proposed, &private.ec2)).await?;
            let requires_replace = match (prior.map(|prior| &prior.ec2), &machine.ec2) {
                (Some(Attr::Known(old)), Attr::Known(new)) => new.replaced(old),
                _ => vec![],
            };
            let ec2 = config.ec2.known().map(|configured| private.ec2.beside(configured));
            Ok(Planned { machine, private: Private { ec2: ec2.unwrap_or_default() }, requires_replace })
        })
    }

    fn read<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        machine: &'a mut Machine,
    ) -> BoxFuture<'a, Result<Presence, Diagnostics>> {
        Box::pin(life::read(cx, machine))
    }

    fn create<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        machine: &'a mut Machine,
    ) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(life::create(cx, machine))
    }

    fn may_exist(&self, machine: &Machine) -> bool {
        machine.id.is_known() || machine.asked_with().is_some()
    }

    fn update<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        there: &'a mut Machine,
        planned: Machine,
        private: &'a Private,
    ) -> BoxFuture<'a, Result<Machine, Diagnostics>> {
        Box::pin(life::update(cx, there, planned, &private.ec2))
    }

    fn delete<'a>(&'a self, cx: &'a Cx<Context>, machine: Machine) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(life::delete(cx, machine))
    }

    fn is_id(&self, id: &str) -> bool {
        import_id(id).1.starts_with("i-")
    }

    fn import<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        _: &'a Schema,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(Machine, Private), Diagnostics>> {
        Box::pin(async move {
            let machine = Box::pin(life::import(cx, id)).await?;
            let ec2 = machine.ec2.known().map(Found::in_block).unwrap_or_default();
            Ok((machine, Private { ec2 }))
        })
    }
}
