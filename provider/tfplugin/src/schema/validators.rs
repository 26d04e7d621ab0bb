use std::fmt;
use std::sync::Arc;

use crate::Number;
use crate::Value;

/// A check of one known value: `Err` says what was expected instead.
#[derive(Clone)]
pub struct Validator {
    check: Arc<dyn Fn(&Value) -> Result<(), String> + Send + Sync>,
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only tests ask for it"))]
    example: Option<Value>,
}

impl Validator {
    /// A check of one's own.
    pub fn new(check: impl Fn(&Value) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), example: None }
    }

    /// With a value that passes, for tests which need one.
    #[must_use]
    pub fn such_as(self, example: impl Into<Value>) -> Self {
        Self { example: Some(example.into()), ..self }
    }

    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        (self.check)(value)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn example(&self) -> Option<&Value> {
        self.example.as_ref()
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Validator")
    }
}

fn text(check: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Validator {
    Validator::new(move |value| value.as_str().map_or(Ok(()), &check))
}

/// One of these strings.
pub fn one_of(allowed: &[&str]) -> Validator {
    let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
    let example = allowed.first().cloned().unwrap_or_default();
    text(move |found| {
        if allowed.iter().any(|text| text == found) {
            return Ok(());
        }
        let all = allowed.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        Err(format!("one of {all}"))
    })
    .such_as(example)
}

/// A string with something in it.
pub fn not_empty() -> Validator {
    text(|found| if found.trim().is_empty() { Err("a string that is not empty".to_owned()) } else { Ok(()) })
}

/// A string that passes `check`; `expected` describes those that do.
pub fn matches(check: impl Fn(&str) -> bool + Send + Sync + 'static, expected: &str) -> Validator {
    let expected = expected.to_owned();
    text(move |found| if check(found) { Ok(()) } else { Err(expected.clone()) })
}

/// A duration as Go writes it: `90s`, `30m`, `1h30m`.
pub fn duration() -> Validator {
    matches(is_duration, "a duration such as \"90s\", \"30m\" or \"1h30m\"").such_as("90s")
}

/// An integer of this range, both ends included.
pub fn integer_between(low: i64, high: i64) -> Validator {
    Validator::new(move |value| match value {
        Value::Number(number) if !Number::as_i64(number).is_some_and(|n| (low..=high).contains(&n)) => {
            Err(format!("a whole number from {low} to {high}"))
        }
        _ => Ok(()),
    })
    .such_as(low)
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(unit_at);
        let Some(after) = ["ms", "h", "m", "s"].iter().find_map(|unit| after.strip_prefix(unit)) else {
            return false;
        };
        if number.parse::<f64>().is_err() {
            return false;
        }
        rest = after;
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(validator: &Validator, value: &str) -> bool {
        validator.check(&value.into()).is_ok()
    }

    #[test]
    fn durations_are_those_of_go() {
        for good in ["90s", "1h30m", "0.5h", "250ms"] {
            assert!(accepts(&duration(), good), "{good}");
        }
        for bad in ["", "90", "s", "1d", "-5s", "1h30"] {
            assert!(!accepts(&duration(), bad), "{bad}");
        }
    }

    #[test]
    fn a_rejected_choice_names_all_choices() {
        assert_eq!(one_of(&["a", "b"]).check(&"c".into()).unwrap_err(), r#"one of "a", "b""#);
    }
}
