//! Which volume of a plan is which volume that is there: by name, else by device.

use std::collections::BTreeMap;

use tfplugin::Attr;

use super::block::Ec2Block;
use super::found::Found;
use super::volume_map::{Volume, Volumes};

impl Ec2Block {
    /// The volume here that will be `name`: the one of this name, or one at the same device that has no name in
    /// `planned`. A volume is not another one because it is called otherwise.
    pub(super) fn earlier_volume<'a>(
        &'a self,
        planned: &Volumes,
        name: &str,
        volume: &Volume,
        found: &Found,
    ) -> Option<&'a Volume> {
        let volumes = self.volumes.known()?;
        volumes.get(name).or_else(|| {
            let mut unnamed = volumes.iter().filter(|(other, _)| !planned.has(other));
            unnamed.find(|(_, was)| was.can_become(volume, found)).map(|(_, was)| was)
        })
    }

    /// Gives volumes the names they have in a plan; those that get another one, by id.
    pub(crate) fn rename_volumes(&mut self, planned: &Self) -> BTreeMap<String, String> {
        let mut renamed = BTreeMap::new();
        let (Attr::Known(there), Attr::Known(planned)) = (&mut self.volumes, &planned.volumes) else {
            return renamed;
        };
        for (name, volume) in planned.iter().filter(|(_, volume)| volume.volume_id.is_known()) {
            let before = there.iter().find(|(_, was)| was.volume_id == volume.volume_id);
            let Some(before) = before.map(|(before, _)| before.clone()).filter(|before| before != name)
            else {
                continue;
            };
            if let (Some(volume), Attr::Known(id)) = (there.remove(&before), &volume.volume_id) {
                renamed.insert(id.clone(), name.clone());
                there.insert(name.clone(), volume);
            }
        }
        renamed
    }
}

impl Volume {
    /// Whether this volume, which is there, may be the one that `planned` asks for at its device.
    fn can_become(&self, planned: &Self, found: &Found) -> bool {
        let (Attr::Known(here), Attr::Known(there)) = (&self.device, &planned.device) else { return false };
        let fits = |asked: &Attr<String>, now: &Attr<String>| !asked.is_known() || asked == now;
        device_letter(here) == device_letter(there)
            && self.volume_id.is_known()
            && self.may_be_owned_as(planned, found)
            && fits(&planned.snapshot_id, &self.snapshot_id)
            && (!planned.encrypted.is_known() || planned.encrypted == self.encrypted)
            && planned.size.known().is_none_or(|size| self.size.known().is_none_or(|now| now <= size))
    }

    /// Whether it belongs to the machine as planned: as now, or to nobody from now on. That somebody else's becomes
    /// the machine's, and so goes with it, is meant only where an import could not know whose it is.
    pub(super) fn may_be_owned_as(&self, planned: &Self, found: &Found) -> bool {
        match &planned.existing_volume_id {
            Attr::Known(id) => self.volume_id.known() == Some(id),
            Attr::Null => self.existing_volume_id.is_null() || found.has(self),
            Attr::Unknown => true,
        }
    }
}

/// `sdX` and `xvdX` are one device to EC2.
pub(crate) fn device_letter(device: &str) -> char {
    device.chars().last().unwrap_or_default()
}
