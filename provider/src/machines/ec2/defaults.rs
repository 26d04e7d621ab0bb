//! Defaults that depend on something else than the schema: on other attributes, on the state, and on what an import
//! has found.

use tfplugin::Attr;

use super::block::Ec2Block;
use super::found::Found;

impl Ec2Block {
    /// Fills in what the configuration leaves open. `old` is the block in state, and `found` what of it came with an
    /// import.
    pub(super) fn fill_defaults(&mut self, configured: &Self, old: Option<&Self>, found: &Found) {
        found.fill_unnamed(self, configured, old);
        if self.host_key.is_unknown() && configured.host_key.is_null() {
            self.host_key = match &configured.user_data {
                Attr::Null => Attr::Known("nixos".to_owned()),
                Attr::Known(_) => Attr::Known("none".to_owned()),
                Attr::Unknown => Attr::Unknown,
            };
        }
        // What EC2 has decided stays, also where it has decided that there is none.
        macro_rules! keep {
            ($block:expr, $configured:expr, $old:expr; $($field:ident)*) => {
                $(if $configured.$field.is_null() && $block.$field.is_unknown() {
                    $block.$field = $old.$field.clone();
                })*
            };
        }
        if let Some(old) = old {
            keep!(self, configured, old; availability_zone key_name subnet_id security_group_ids private_ip
                associate_public_ip_address ipv6_address_count ipv6_addresses instance_profile placement_group tenancy ebs_optimized source_dest_check
                client_token);
            // Another number of addresses is another set of them, and the other way round.
            if !configured.ipv6_address_count.is_null() && self.ipv6_address_count != old.ipv6_address_count {
                self.ipv6_addresses = Attr::Unknown;
            }
            if !configured.ipv6_addresses.is_null() && self.ipv6_addresses != old.ipv6_addresses {
                self.ipv6_address_count = Attr::Unknown;
            }
            if let (Attr::Known(spot), Attr::Known(asked), Attr::Known(was)) =
                (&mut self.spot, &configured.spot, &old.spot)
            {
                keep!(spot, asked, was; max_price kind interruption_behavior);
            }
            if let (Attr::Known(root), Attr::Known(asked), Attr::Known(was)) =
                (&mut self.root_volume, &configured.root_volume, &old.root_volume)
            {
                keep!(root, asked, was; size kind iops throughput encrypted kms_key_id volume_id);
            }
            let planned = self.volumes.known().cloned().unwrap_or_default();
            for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
                let asked = configured.volumes.known().and_then(|volumes| volumes.get(name));
                let was = old.earlier_volume(&planned, name, volume, found);
                if let (Some(asked), Some(was)) = (asked, was.filter(|was| was.volume_id.is_known())) {
                    keep!(volume, asked, was; size kind iops throughput snapshot_id encrypted kms_key_id volume_id client_token);
                }
            }
        }
        self.forget_unasked_spot(configured);
        // Of another type, a volume has another speed unless one is asked for.
        let speed_follows =
            |kind: (&Attr<String>, &Attr<String>), asked: &Attr<i32>, speed: &mut Attr<i32>| {
                if kind.0 != kind.1 && asked.is_null() {
                    *speed = Attr::Unknown;
                }
            };
        if let (Attr::Known(root), Attr::Known(asked), Some(Attr::Known(was))) =
            (&mut self.root_volume, &configured.root_volume, old.map(|old| &old.root_volume))
        {
            speed_follows((&root.kind, &was.kind), &asked.iops, &mut root.iops);
            speed_follows((&root.kind, &was.kind), &asked.throughput, &mut root.throughput);
        }
        let planned = self.volumes.known().cloned().unwrap_or_default();
        for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
            let asked = match configured.volumes.known().and_then(|volumes| volumes.get(name)) {
                Some(asked) => asked.clone(),
                // As an import has found it.
                None => continue,
            };
            let was = old.and_then(|old| old.earlier_volume(&planned, name, volume, found));
            if asked.delete_on_termination.is_null() {
                match volume.existing_volume_id {
                    Attr::Known(_) => volume.delete_on_termination = Attr::Known(false),
                    Attr::Unknown => volume.delete_on_termination = Attr::Unknown,
                    Attr::Null => {}
                }
            }
            if let Some(was) = was {
                speed_follows((&volume.kind, &was.kind), &asked.iops, &mut volume.iops);
                speed_follows((&volume.kind, &was.kind), &asked.throughput, &mut volume.throughput);
            }
        }
    }

    /// EC2 does not tell the options of a spot request that it was not asked with.
    fn forget_unasked_spot(&mut self, configured: &Self) {
        if let (Attr::Known(spot), Attr::Known(asked)) = (&mut self.spot, &configured.spot) {
            let pairs = [
                (&mut spot.max_price, &asked.max_price),
                (&mut spot.kind, &asked.kind),
                (&mut spot.interruption_behavior, &asked.interruption_behavior),
            ];
            for (planned, asked) in pairs {
                if asked.is_null() && planned.is_unknown() {
                    *planned = Attr::Null;
                }
            }
        }
    }
}
