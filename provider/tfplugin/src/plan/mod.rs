//! Planning that is the same for every resource, and the rules every plan and result must keep.

mod breach;
mod check_applied;
mod check_planned;
mod normalize;
mod pair;
mod parts;
mod propose;
mod replace;
#[cfg(test)]
pub(crate) mod sample;
mod spelling;

pub(crate) use check_applied::{check_applied, check_known};
pub(crate) use check_planned::check_planned;
#[cfg(feature = "testing")]
pub(crate) use normalize::normal_form;
pub(crate) use normalize::{known_only, normalized, normalized_type, retyped};
#[cfg(any(test, feature = "testing"))]
pub(crate) use pair::derives;
#[cfg(feature = "testing")]
pub(crate) use parts::{NULL, item, part};
pub(crate) use propose::propose;
pub(crate) use replace::{check_paths, replaced};
pub(crate) use spelling::keep_spelling;
