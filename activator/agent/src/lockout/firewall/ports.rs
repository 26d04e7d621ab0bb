//! Ports in rules of a firewall.

use std::ops::RangeInclusive;

/// The ports of `22` or of a range such as `8000:8080`; `None`: the text is something else.
fn ports_of(text: &str, between: char) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Whether a list of ports and ranges may have a port. A part that is not a number, such as a name, may.
pub(super) fn may_have(list: &str, between: char, port: u16) -> bool {
    list.split(',')
        .map(str::trim)
        .filter(|ports| !ports.is_empty())
        .any(|ports| ports_of(ports, between).is_none_or(|ports| ports.contains(&port)))
}
