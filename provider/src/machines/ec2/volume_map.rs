//! The volumes of a machine beside its root volume, by their names. Some may not be known while a plan is made.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};
use tfplugin::Attr;

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) device: Attr<String>,
    pub(crate) size: Attr<i32>,
    #[serde(rename = "type")]
    pub(crate) kind: Attr<String>,
    pub(crate) iops: Attr<i32>,
    pub(crate) throughput: Attr<i32>,
    pub(crate) snapshot_id: Attr<String>,
    pub(crate) existing_volume_id: Attr<String>,
    pub(crate) encrypted: Attr<bool>,
    pub(crate) kms_key_id: Attr<String>,
    pub(crate) delete_on_termination: Attr<bool>,
    pub(crate) volume_id: Attr<String>,
    pub(crate) client_token: Attr<String>,
}

/// Volumes by name, as a map of those whose attributes can be looked at.
///
/// A plan may have a volume of which nothing is known but the name, as in `data = terraform_data.disk.output`. It is
/// not in the map, and never there in a state or an apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Attr<Volume>>", into = "BTreeMap<String, Attr<Volume>>")]
pub(crate) struct Volumes {
    known: BTreeMap<String, Volume>,
    open: BTreeSet<String>,
}

impl Volumes {
    /// Whether there is, or will be, a volume of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.known.contains_key(name) || self.open.contains(name)
    }

    /// Whether nothing but its name is known of some volume.
    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }
}

impl Deref for Volumes {
    type Target = BTreeMap<String, Volume>;

    fn deref(&self) -> &Self::Target {
        &self.known
    }
}

impl DerefMut for Volumes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.known
    }
}

impl<'a> IntoIterator for &'a Volumes {
    type Item = (&'a String, &'a Volume);
    type IntoIter = btree_map::Iter<'a, String, Volume>;

    fn into_iter(self) -> Self::IntoIter {
        self.known.iter()
    }
}

impl<'a> IntoIterator for &'a mut Volumes {
    type Item = (&'a String, &'a mut Volume);
    type IntoIter = btree_map::IterMut<'a, String, Volume>;

    fn into_iter(self) -> Self::IntoIter {
        self.known.iter_mut()
    }
}

impl FromIterator<(String, Volume)> for Volumes {
    fn from_iter<I: IntoIterator<Item = (String, Volume)>>(volumes: I) -> Self {
        Self { known: volumes.into_iter().collect(), open: BTreeSet::new() }
    }
}

impl From<BTreeMap<String, Attr<Volume>>> for Volumes {
    fn from(all: BTreeMap<String, Attr<Volume>>) -> Self {
        let mut volumes = Self::default();
        for (name, volume) in all {
            match volume {
                Attr::Known(volume) => _ = volumes.known.insert(name, volume),
                Attr::Unknown => _ = volumes.open.insert(name),
                // The schema refuses it.
                Attr::Null => {}
            }
        }
        volumes
    }
}

impl From<Volumes> for BTreeMap<String, Attr<Volume>> {
    fn from(volumes: Volumes) -> Self {
        let known = volumes.known.into_iter().map(|(name, volume)| (name, Attr::Known(volume)));
        known.chain(volumes.open.into_iter().map(|name| (name, Attr::Unknown))).collect()
    }
}
