//! Looking into values: what is not there is null.

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
