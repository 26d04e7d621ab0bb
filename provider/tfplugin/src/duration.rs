//! Durations as Go and Terraform's own providers write them: `90s`, `30m`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Attr;

/// A duration in a model, for an attribute made by [`Attribute::duration`](crate::Attribute::duration).
///
/// It keeps the text that the user wrote: Terraform takes another spelling of the same duration for another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationText {
    text: String,
    duration: Duration,
}

/// A text that is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {DURATIONS}")]
pub struct NotADuration;

/// What a duration looks like, for messages.
pub(crate) const DURATIONS: &str = "a duration such as \"90s\", \"30m\" or \"1h30m\"";

impl DurationText {
    /// How long it is.
    pub fn get(&self) -> Duration {
        self.duration
    }
}

impl Attr<DurationText> {
    /// The duration, or another one where it is null or not known.
    pub fn or(&self, default: Duration) -> Duration {
        self.known().map_or(default, DurationText::get)
    }
}

impl FromStr for DurationText {
    type Err = NotADuration;

    /// Reads numbers with the units `h`, `m`, `s` and `ms`. A sign is refused: no duration of a configuration is
    /// negative.
    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let (mut seconds, mut rest) = (0.0, text);
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(unit_at);
            let units = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
            let unit = units.iter().find_map(|(name, length)| Some((after.strip_prefix(name)?, length)));
            let (after, length) = unit.ok_or(NotADuration)?;
            seconds += number.parse::<f64>().map_err(|_| NotADuration)? * length;
            rest = after;
        }
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_| NotADuration)?;
        if text.is_empty() { Err(NotADuration) } else { Ok(Self { text: text.to_owned(), duration }) }
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let read = |text: &str| text.parse::<DurationText>().map(|read| read.get());
        assert_eq!(read("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(read("0.5h"), Ok(Duration::from_mins(30)));
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "90", "s", "m", "1d", "1x", "-5s", "1h30", "1..5s", "99999999999999999999h"] {
            assert_eq!(read(bad), Err(NotADuration), "{bad}");
        }
    }

    #[test]
    fn the_spelling_stays() {
        let value = crate::Value::from("90m");
        let read: DurationText = crate::from_value(&value).unwrap();
        assert_eq!(crate::to_value(&read), Ok(value));
    }
}
