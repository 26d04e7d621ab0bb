//! Machines on AWS EC2: the `ec2` block.
//!
//! [`schema`] says what users may write, [`block`] is what they wrote, [`api`] the calls of EC2 a machine's life consists of, [`change`] brings an instance from what it
//! is to what is planned, [`drift`] takes over what EC2 says, [`found`] is what of that an import has found,
//! [`ipv6`] has its IPv6 addresses, [`volume_map`] its volumes by name, [`host_key`] makes sure that the first login is to the right machine.

mod api;
mod block;
mod change;
mod drift;
mod found;
mod host_key;
mod ipv6;
mod schema;
mod volume_map;
mod volumes;

pub(crate) use api::{Ec2, WaitError};
pub(crate) use block::{Ec2Block, Volume};
pub(crate) use change::{become_, check_change, needs_stop, while_stopped};
pub(crate) use drift::{import, is_gone, power};
pub(crate) use found::Found;
pub(crate) use host_key::{rotate, user_data};
pub(crate) use ipv6::addresses as ipv6_addresses;
pub(crate) use schema::attribute;
pub(crate) use volumes::{
    delete as delete_volume, exists as volume_exists, keep_or_delete, made_by as volume_made_by, name_volumes,
};
