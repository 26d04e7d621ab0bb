//! Elements of sets have no names. Which element of a plan is which of the configuration or the prior state can be told
//! only by what they have in common: all that the user has written.

use std::collections::{BTreeMap, VecDeque};

use super::parts::part;
use crate::schema::Kind;
use crate::{Attribute, Value};

/// Whether `value` may be what became of the configured `config`: the same but for computed attributes that are not
/// set.
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

/// For each of `values` the index of the configured element it derives from; none is used twice. Where a value may
/// derive from several, it is the one that lets most of the others have one too.
pub(super) fn pairs(
    attributes: &BTreeMap<String, Attribute>,
    configs: &[Value],
    values: &[Value],
) -> Vec<Option<usize>> {
    let fits = |value: usize, config: usize| derives(attributes, &configs[config], &values[value]);
    let mut pairing = Pairing { of_value: vec![None; values.len()], of_config: vec![None; configs.len()] };
    let mut free: Vec<usize> = (0..configs.len()).collect();
    for value in 0..values.len() {
        if let Some(place) = free.iter().position(|&config| fits(value, config)) {
            pairing.join(value, free.remove(place));
        }
    }
    // Usually every value has its element now.
    let left: Vec<usize> = (0..values.len()).filter(|&value| pairing.of_value[value].is_none()).collect();
    let mut asked = vec![None; configs.len()];
    for value in left {
        if pairing.seat(value, &mut asked, fits) {
            asked.fill(None);
        }
        // The elements that were asked for in vain stay marked: they cannot be freed for a later value either.
    }
    pairing.of_value
}

/// Which value has which configured element, by index.
struct Pairing {
    of_value: Vec<Option<usize>>,
    of_config: Vec<Option<usize>>,
}

impl Pairing {
    /// Finds a configured element for one more value, if necessary by moving other values. `asked` says for which value
    /// each element was asked.
    fn seat(
        &mut self,
        start: usize,
        asked: &mut [Option<usize>],
        fits: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let mut waiting = VecDeque::from([start]);
        while let Some(value) = waiting.pop_front() {
            for config in 0..asked.len() {
                if asked[config].is_some() || !fits(value, config) {
                    continue;
                }
                asked[config] = Some(value);
                let Some(other) = self.of_config[config] else {
                    self.move_up(config, asked);
                    return true;
                };
                waiting.push_back(other);
            }
        }
        false
    }

    /// The value that asked for the free element takes it, and leaves its former element to the value that had asked
    /// for that one, and so on.
    fn move_up(&mut self, free: usize, asked: &[Option<usize>]) {
        let mut place = Some(free);
        while let Some(config) = place {
            let Some(value) = asked[config] else { return };
            place = self.join(value, config);
        }
    }

    /// Returns the element that the value had before.
    fn join(&mut self, value: usize, config: usize) -> Option<usize> {
        self.of_config[config] = Some(value);
        self.of_value[value].replace(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nested;

    fn pair(configs: &[Option<&str>], values: &[&str]) -> Vec<Option<usize>> {
        let schema = Nested::new().attribute("both", Attribute::string().optional().computed());
        let piece = |both: Value| Value::Map([("both".to_owned(), both)].into());
        let configs: Vec<_> =
            configs.iter().map(|both| piece(both.map_or(Value::Null, Value::from))).collect();
        let values: Vec<_> = values.iter().map(|both| piece((*both).into())).collect();
        pairs(&schema.attributes, &configs, &values)
    }

    #[test]
    fn who_can_be_anything_makes_room_for_who_cannot() {
        assert_eq!(pair(&[None, Some("x")], &["x", "y"]), [Some(1), Some(0)]);
        assert_eq!(
            pair(&[None, None, Some("x"), Some("y")], &["x", "y", "z", "x"]),
            [Some(0), Some(3), Some(1), Some(2)]
        );
        assert_eq!(pair(&[None, Some("x")], &["y", "z", "x"]), [Some(0), None, Some(1)]);
    }
}
