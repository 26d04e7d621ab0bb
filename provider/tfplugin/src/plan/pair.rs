//! Elements of sets have no names. Which element of a plan is which of the configuration or the prior state can be told only
//! by what they have in common: all that the user has written.

use std::collections::BTreeMap;

use super::part;
use crate::schema::Kind;
use crate::{Attribute, Value};

/// Whether `value` may be what became of the configured `config`: the same but for computed attributes that are not set.
pub(crate) fn derives(attributes: &BTreeMap<String, Attribute>, config: &Value, value: &Value) -> bool {
    if !matches!((config, value), (Value::Map(_), Value::Map(_))) {
        return config == value;
    }
    attributes.iter().all(|(name, attribute)| {
        let (config, value) = (part(config, name), part(value, name));
        if attribute.write_only || config == value || attribute.computed && config.is_null() {
            return true;
        }
        let Kind::Nested(_, nested) = &attribute.kind else {
            return false;
        };
        match (config, value) {
            (Value::Map(configs), Value::Map(values)) if attribute.is_map() => {
                configs.len() == values.len()
                    && configs.iter().all(|(key, config)| {
                        values.get(key).is_some_and(|value| derives(&nested.attributes, config, value))
                    })
            }
            (Value::Map(_), Value::Map(_)) => derives(&nested.attributes, config, value),
            (Value::List(configs), Value::List(values)) if configs.len() == values.len() => {
                pairs(&nested.attributes, configs, values).iter().all(Option::is_some)
            }
            _ => false,
        }
    })
}

/// For each of `values` the index of the configured element it derives from; none is used twice.
pub(super) fn pairs(
    attributes: &BTreeMap<String, Attribute>,
    configs: &[Value],
    values: &[Value],
) -> Vec<Option<usize>> {
    let mut free: Vec<usize> = (0..configs.len()).collect();
    let pair = |value: &Value| {
        let place = free
            .iter()
            .position(|&index| configs.get(index).is_some_and(|config| derives(attributes, config, value)))?;
        Some(free.remove(place))
    };
    values.iter().map(pair).collect()
}
