//! Planning that is the same for every resource, and the rules every plan and result must keep.

mod check;
mod pair;
mod propose;
mod replace;
#[cfg(test)]
pub(crate) mod sample;
mod settle;

pub(crate) use check::{check_applied, check_known, check_planned};
#[cfg(any(test, feature = "testing"))]
pub(crate) use pair::derives;
pub(crate) use propose::propose;
pub(crate) use replace::{check_paths, replaced};
#[cfg(feature = "testing")]
pub(crate) use settle::normal_form;
pub(crate) use settle::{known_only, retyped, settle, settle_type};

use crate::Value;

/// Stands for what is not there.
pub(crate) static NULL: Value = Value::Null;

/// The attribute `name` of an object; null where there is no object.
pub(crate) fn part<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&NULL)
}

/// The item at `index` of a list; null where there is none.
pub(crate) fn item(value: &Value, index: usize) -> &Value {
    match value {
        Value::List(items) => items.get(index).unwrap_or(&NULL),
        _ => &NULL,
    }
}
