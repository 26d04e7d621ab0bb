//! Whether two targets are one machine.

use tfplugin::Attr;

use super::Target;

/// Whether two targets are one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// It is the same machine, wherever it is reached by now.
    Same,
    /// It is another one; nothing that is known about the first holds for it.
    Other,
    /// It will be known after apply.
    Open,
}

impl Target {
    /// Whether this is the machine that `prior` was.
    ///
    /// An instance stays one when it gets another host key. Without an instance, machine id and host key must both be
    /// the same where both targets have them, because images may bring a machine id that all their machines share.
    /// What has neither is its address.
    pub(crate) fn sameness(&self, prior: &Self) -> Sameness {
        let is_equal = |one: &String, other: &String| one == other;
        let instance = compared(&self.instance_id, &prior.instance_id, is_equal);
        let machine = compared(&self.machine_id, &prior.machine_id, is_equal);
        match (instance, machine) {
            // With another root volume an instance is another machine.
            (Some(Sameness::Same), Some(Sameness::Other)) => return Sameness::Other,
            (Some(instance), _) => return instance,
            (None, _) => {}
        }
        let host_key =
            compared(&self.host_public_key, &prior.host_public_key, |one, other| is_same_key(one, other));
        let found = [machine, host_key];
        if found.contains(&Some(Sameness::Other)) {
            Sameness::Other
        } else if found.contains(&Some(Sameness::Open)) {
            Sameness::Open
        } else if found.contains(&Some(Sameness::Same)) || self.is_at_address_of(prior) {
            Sameness::Same
        } else if self.host.is_unknown() || self.port.is_unknown() || self.bastion.is_unknown() {
            Sameness::Open
        } else {
            Sameness::Other
        }
    }

    /// Whether both are reached at the same address.
    pub(crate) fn is_at_address_of(&self, other: &Self) -> bool {
        self.host.is_known()
            && self.host == other.host
            && self.port == other.port
            && self.bastion == other.bastion
    }
}

/// What two values say that identify a machine; `None` where one of them is missing.
fn compared(
    now: &Attr<String>,
    prior: &Attr<String>,
    is_equal: impl Fn(&String, &String) -> bool,
) -> Option<Sameness> {
    match (now, prior) {
        (Attr::Known(now), Attr::Known(prior)) if is_equal(now, prior) => Some(Sameness::Same),
        (Attr::Known(_), Attr::Known(_)) => Some(Sameness::Other),
        (Attr::Unknown, Attr::Known(_)) => Some(Sameness::Open),
        _ => None,
    }
}

/// Whether two lines are one public key, whatever their comments say.
pub(crate) fn is_same_key(one: &str, other: &str) -> bool {
    one.split_whitespace().take(2).eq(other.split_whitespace().take(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_identifies_a_machine_decides_whether_it_is_the_same() {
        let known = |text: &str| match text {
            "?" => Attr::Unknown,
            "" => Attr::Null,
            text => Attr::Known(text.to_owned()),
        };
        let target = |[host, instance, machine, key]: [&str; 4]| Target {
            host: known(host),
            instance_id: known(instance),
            machine_id: known(machine),
            host_public_key: known(key),
            ..Target::default()
        };
        for (now, prior, expected) in [
            // Nothing but an address.
            (["a", "", "", ""], ["a", "", "", ""], Sameness::Same),
            (["b", "", "", ""], ["a", "", "", ""], Sameness::Other),
            (["?", "", "", ""], ["a", "", "", ""], Sameness::Open),
            // What only one side knows says nothing.
            (["a", "", "m", "k"], ["a", "", "", ""], Sameness::Same),
            (["a", "", "", ""], ["a", "", "m", "k"], Sameness::Same),
            (["b", "", "m", ""], ["a", "", "", "k"], Sameness::Other),
            // The same machine with another address, and another one with the same.
            (["b", "", "m", "k"], ["a", "", "m", "k"], Sameness::Same),
            (["a", "", "n", "k"], ["a", "", "m", "k"], Sameness::Other),
            (["a", "", "m", "l"], ["a", "", "m", "k"], Sameness::Other),
            (["a", "", "?", "k"], ["a", "", "m", "k"], Sameness::Open),
            (["a", "", "?", "?"], ["a", "", "m", "k"], Sameness::Open),
            (["a", "", "?", "l"], ["a", "", "m", "k"], Sameness::Other),
            (["a", "", "m", "t k"], ["a", "", "m", "t k comment"], Sameness::Same),
            // An instance has its host key renewed, or its root volume replaced.
            (["a", "i", "m", "l"], ["a", "i", "m", "k"], Sameness::Same),
            (["?", "i", "m", "k"], ["a", "i", "m", "k"], Sameness::Same),
            (["a", "i", "n", "k"], ["a", "i", "m", "k"], Sameness::Other),
            (["a", "j", "m", "k"], ["a", "i", "m", "k"], Sameness::Other),
            (["a", "?", "?", "?"], ["a", "i", "m", "k"], Sameness::Open),
        ] {
            assert_eq!(target(now).sameness(&target(prior)), expected, "{now:?} after {prior:?}");
        }
    }
}
