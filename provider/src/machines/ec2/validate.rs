//! Checks of the `ec2` block that its schema cannot express.

use std::collections::BTreeMap;

use tfplugin::{Attr, Diagnostic, Diagnostics, Path};

use super::block::Ec2Block;
use super::volume_identity::device_letter;

impl Ec2Block {
    /// What the schema cannot say.
    pub(crate) fn validate(&self) -> Result<(), Diagnostics> {
        let mut problems = Diagnostics::default();
        let block = || Path::root().attribute("ec2");
        let mut say = |path: Path, summary: &str, detail: &str| {
            problems.push(Diagnostic::error(summary).detail(detail).at(path));
        };
        if let (Attr::Known(count), Attr::Known(addresses)) = (&self.ipv6_address_count, &self.ipv6_addresses)
            && usize::try_from(*count) != Ok(addresses.len())
        {
            say(
                block().attribute("ipv6_address_count"),
                "IPv6 addresses are chosen or counted",
                &format!(
                    "Found `ipv6_address_count` {count} and {} `ipv6_addresses`; expected one of the \
                     attributes. Remove the one that EC2 is to decide.",
                    addresses.len()
                ),
            );
        }
        if self.use_private_address == Attr::Known(true) && self.use_ipv6_address == Attr::Known(true) {
            say(
                block().attribute("use_ipv6_address"),
                "SSH connects to one address",
                "Found `use_private_address` and `use_ipv6_address`; expected one of them to be true.",
            );
        }
        let handed_over = self.host_key.known().is_some_and(|how| how != "none");
        if self.user_data.is_known() && handed_over {
            say(
                block().attribute("user_data"),
                "User data cannot hold both",
                "Found `user_data` and a `host_key` that is handed over in user data; expected one of \
                 them. Remove `user_data`, or set host_key = \"none\".",
            );
        }
        if self.host_public_key.is_known()
            && (handed_over || (self.host_key.is_null() && self.user_data.is_null()))
        {
            say(
                block().attribute("host_public_key"),
                "Two host keys for one machine",
                "Found `host_public_key`, but a new host key is made for this machine. Remove it, or set \
                 host_key = \"none\" for an image that has its own.",
            );
        }
        if let Some(spot) = self.spot.known() {
            let lasting = spot.interruption_behavior.known().is_some_and(|what| what != "terminate");
            if lasting && !spot.kind.is_unknown() && spot.kind.known().is_none_or(|kind| kind != "persistent")
            {
                say(
                    block().attribute("spot"),
                    "Only persistent spot instances come back",
                    "Found `interruption_behavior` \"stop\" or \"hibernate\" without type = \
                     \"persistent\"; expected both, or neither.",
                );
            }
        }
        let mut devices = BTreeMap::new();
        for (name, volume) in self.volumes.known().into_iter().flatten() {
            let path = block().attribute("volumes").key(name);
            if let Attr::Known(device) = &volume.device
                && let Some(other) = devices.insert(device_letter(device), name)
            {
                say(
                    path.clone().attribute("device"),
                    "Two volumes at one device",
                    &format!(
                        "Found {device} for \"{name}\" and for \"{other}\" (`sdX` and `xvdX` are one); \
                         expected a device for each."
                    ),
                );
            }
            if volume.existing_volume_id.is_null() && volume.size.is_null() && volume.snapshot_id.is_null() {
                say(
                    path.attribute("size"),
                    "A volume without a size",
                    "Found neither `size`, nor `snapshot_id`, nor `existing_volume_id`; expected one of \
                     them, e.g. size = 100 (GiB).",
                );
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// What a configuration says of volumes that somebody else has made; to say what they are like, as `old` has it,
    /// is no harm.
    pub(crate) fn check_existing(&self, old: Option<&Self>) -> Diagnostics {
        let mut problems = Diagnostics::default();
        for (name, volume) in self.volumes.known().into_iter().flatten() {
            let was = old.and_then(|old| old.volumes.known()?.get(name)).cloned().unwrap_or_default();
            macro_rules! differs {
                ($($field:ident)*) => { [$(volume.$field.is_known() && volume.$field != was.$field),*] };
            }
            let differs = differs!(size kind iops throughput encrypted kms_key_id snapshot_id);
            if volume.existing_volume_id.is_known() && differs.contains(&true) {
                let path = Path::root().attribute("ec2").attribute("volumes").key(name);
                problems.push(
                    Diagnostic::error("A volume that exists already is as it is")
                        .detail(
                            "Found `existing_volume_id` together with what a new volume would be like; \
                             expected only `device` beside it.",
                        )
                        .at(path.attribute("existing_volume_id")),
                );
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::super::volume_map::Volume;
    use super::*;

    fn known(text: &str) -> Attr<String> {
        Attr::Known(text.to_owned())
    }

    fn problems(block: &Ec2Block) -> Vec<String> {
        block
            .validate()
            .err()
            .map(|found| found.iter().map(|one| one.summary.clone()).collect())
            .unwrap_or_default()
    }

    fn volumes(entries: &[(&str, Volume)]) -> Ec2Block {
        let volumes = entries.iter().map(|(name, volume)| ((*name).to_owned(), volume.clone())).collect();
        Ec2Block { volumes: Attr::Known(volumes), ..Ec2Block::default() }
    }

    #[test]
    fn each_volume_has_a_device_and_a_size() {
        let at = |device: &str| Volume { device: known(device), size: Attr::Known(10), ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", at("/dev/sdf")), ("b", at("/dev/sdg"))])), Vec::<String>::new());
        assert_eq!(
            problems(&volumes(&[("a", at("/dev/sdf")), ("b", at("/dev/xvdf"))])),
            ["Two volumes at one device"]
        );
        let bare = Volume { device: known("/dev/sdf"), ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", bare.clone())])), ["A volume without a size"]);
        let existing = Volume { existing_volume_id: known("vol-1"), ..bare };
        assert_eq!(problems(&volumes(&[("a", existing.clone())])), Vec::<String>::new());
        let both = volumes(&[("a", Volume { size: Attr::Known(10), ..existing.clone() })]);
        let said = |old: Option<&Ec2Block>| {
            let found = both.check_existing(old);
            found.iter().map(|one| one.summary.clone()).collect::<Vec<_>>()
        };
        assert_eq!(said(None), ["A volume that exists already is as it is"]);
        assert_eq!(said(Some(&volumes(&[("a", existing)]))), ["A volume that exists already is as it is"]);
        // As `terraform plan -generate-config-out` writes what an import has found.
        assert_eq!(said(Some(&both)), [""; 0]);
        // What is not known yet may still turn out right.
        let later = Volume { device: Attr::Unknown, size: Attr::Unknown, ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", later.clone()), ("b", later)])), Vec::<String>::new());
    }

    #[test]
    fn user_data_and_host_key_exclude_each_other() {
        let own = Ec2Block { user_data: known("#!/bin/sh"), ..Ec2Block::default() };
        assert_eq!(problems(&own), Vec::<String>::new());
        assert_eq!(
            problems(&Ec2Block { host_key: known("nixos"), ..own.clone() }),
            ["User data cannot hold both"]
        );
        let pinned = Ec2Block { host_public_key: known("ssh-ed25519 A"), ..own };
        assert_eq!(problems(&pinned), Vec::<String>::new());
        assert_eq!(
            problems(&Ec2Block { user_data: Attr::Null, ..pinned }),
            ["Two host keys for one machine"]
        );
    }
}
