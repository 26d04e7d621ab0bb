//! Planning that is the same for every resource, and the rules every plan and result must keep.

mod check;
mod propose;

pub(crate) use check::{check_applied, check_planned};
pub(crate) use propose::{null_write_only, propose, replaced};
