//! Decimal numbers of any size, exact to the last digit.

use std::cmp::Ordering;
use std::fmt;

/// A decimal number, kept exactly as it came.
#[derive(Clone, Debug)]
pub struct Number(Repr);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Repr {
    Signed(i64),
    Unsigned(u64),
    /// Never NaN or infinite: Terraform would crash on it.
    Float(f64),
    /// A decimal text that fits in none of the above.
    Text(String),
}

impl Number {
    /// Reads a decimal number such as `-12`, `0.1` or `1e30`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<i64>() {
            return Some(Self(Repr::Signed(number)));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Some(Self(Repr::Unsigned(number)));
        }
        is_decimal(text).then(|| Self(Repr::Text(text.to_owned())))
    }

    /// A float; `None` for NaN and infinities.
    pub fn from_f64(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(Repr::Float(number)))
    }

    /// The number, where it is an integer of 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Repr::Signed(number) => Some(*number),
            _ => self.integer().and_then(|number| i64::try_from(number).ok()),
        }
    }

    /// The number, where it is a natural number of 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Repr::Unsigned(number) => Some(*number),
            _ => self.integer().and_then(|number| u64::try_from(number).ok()),
        }
    }

    /// The nearest float; `None` beyond its range.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn as_f64(&self) -> Option<f64> {
        match &self.0 {
            Repr::Signed(number) => Some(*number as f64),
            Repr::Unsigned(number) => Some(*number as f64),
            Repr::Float(number) => Some(*number),
            Repr::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }

    /// The number, where it is an integer of 64 bits, with or without a sign.
    fn integer(&self) -> Option<i128> {
        match &self.0 {
            Repr::Signed(number) => Some((*number).into()),
            Repr::Unsigned(number) => Some((*number).into()),
            Repr::Float(number) => integer(*number),
            Repr::Text(text) => whole(text),
        }
    }

    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self.as_i64(), other.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => canonical(&self.to_string()).cmp(&canonical(&other.to_string())),
        }
    }

    pub(crate) fn repr(&self) -> &Repr {
        &self.0
    }
}

/// The integer of 64 bits that a float is.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn integer(number: f64) -> Option<i128> {
    let range = -2f64.powi(63)..2f64.powi(64);
    (number.fract() == 0.0 && range.contains(&number)).then_some(number as i128)
}

/// The integer that a decimal text is, exactly, if it is one: `1e3` is, `1.00000000000000000001` is not.
fn whole(text: &str) -> Option<i128> {
    let (negative, digits, exponent) = canonical(text);
    if digits.is_empty() {
        return Some(0);
    }
    let zeros = usize::try_from(exponent).ok().filter(|zeros| digits.len() + zeros <= 20)?;
    let sign = if negative { "-" } else { "" };
    format!("{sign}{digits}{}", "0".repeat(zeros)).parse().ok()
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self(Repr::Signed(number))
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self(Repr::Unsigned(number)), Self::from)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.order(other).is_eq()
    }
}

/// Whether a text is a number as JSON writes it, of any size.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// Digits without leading and trailing zeros, and the exponent: equal numbers have equal canonical forms.
fn canonical(text: &str) -> (bool, String, i64) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) =
        text.split_once(['e', 'E']).map_or((text, 0), |(mantissa, exponent)| (mantissa, bounded(exponent)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('+'));
    let exponent = exponent - i64::try_from(fraction.len()).unwrap_or(0);
    let trimmed = digits.trim_end_matches('0');
    let shift = i64::try_from(digits.len() - trimmed.len()).unwrap_or(0);
    let trimmed = trimmed.trim_start_matches('0');
    if trimmed.is_empty() {
        (false, String::new(), 0)
    } else {
        (negative, trimmed.to_owned(), exponent + shift)
    }
}

/// An exponent. Those beyond any number Terraform can have are all the same.
fn bounded(exponent: &str) -> i64 {
    let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
    exponent.parse().unwrap_or(beyond).clamp(i64::MIN / 2, i64::MAX / 2)
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Signed(number) => number.fmt(f),
            Repr::Unsigned(number) => number.fmt(f),
            // By itself a large float would be shown with zeros in place of its last digits.
            Repr::Float(number) => match integer(*number) {
                Some(integer) => integer.fmt(f),
                None => number.fmt(f),
            },
            Repr::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_every_digit() {
        for text in ["0.1", "3.14159265358979323846264338327950288", "1e30", "18446744073709551615", "-7"] {
            assert_eq!(Number::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "NaN", "inf", "1x", "-", "e5", ".5", "2.", "+0.5", "00.5", "1e", " 0.5", "0.5 "] {
            assert!(Number::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_equal_by_value_not_by_spelling() {
        let number = |text| Number::parse(text).unwrap();
        assert_eq!(number("0.10"), number("1e-1"));
        assert_eq!(number("1e3"), Number::from(1000i64));
        assert_eq!(Number::from_f64(0.1).unwrap(), number("0.1"));
        assert_ne!(number("0.1"), number("0.10000000000000001"));
        assert_ne!(number("1.00000000000000000001"), Number::from(1i64));
        assert_ne!(number("9007199254740991.3"), Number::from(9_007_199_254_740_991i64));
        assert_eq!(number("1e17"), Number::from(100_000_000_000_000_000i64));
        assert_eq!(number("0e99999999999999999999"), Number::from(0i64));
    }

    #[test]
    fn no_exponent_is_too_large() {
        let number = |text| Number::parse(text).unwrap();
        let (huge, tiny) = (number("1e99999999999999999999"), number("1e-99999999999999999999"));
        assert_eq!((huge.as_i64(), huge.as_f64()), (None, None));
        assert_eq!((tiny.as_i64(), tiny.as_f64()), (None, Some(0.0)));
        assert_ne!(huge, Number::from(1i64));
        assert_ne!(tiny, number("1e-1000000000"));
        assert_eq!(number("10e1000000000000"), number("1e1000000000001"));
    }

    #[test]
    fn an_integer_is_one_however_it_is_held() {
        let float = |number| Number::from_f64(number).unwrap();
        assert_eq!(float(-2f64.powi(63)), Number::from(i64::MIN));
        assert_eq!(float(2f64.powi(60)).to_string(), "1152921504606846976");
        assert_eq!(float(2f64.powi(63)).as_u64(), Some(1 << 63));
        assert_eq!(float(2f64.powi(64)).as_u64(), None);
        assert_eq!(Number::parse("1e19").unwrap().as_u64(), Some(10_000_000_000_000_000_000));
        assert_eq!(Number::parse("18446744073709551615.0").unwrap(), Number::from(u64::MAX));
    }
}
