//! What an import has found on an instance and no configuration has named: it stays as it is.
//!
//! An import cannot see the configuration. Where that says nothing of the root volume, of further volumes or of
//! metadata options, the machine must not lose what it has; where it says what the machine has, there must be nothing
//! to change. So an import takes over everything, and remembers beside the state what nobody has asked for yet.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Diagnostic};

use super::block::Ec2Block;
use super::volume_map::Volume;

/// Names of attributes, and ids of volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    attributes: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    volumes: BTreeSet<String>,
}

/// Calls a macro with the attributes that are null where neither a configuration nor an import has named them.
macro_rules! for_unnamed {
    ($do:ident) => {
        $do! { spot disable_api_termination metadata_options user_data root_volume volumes }
    };
}

impl Found {
    /// Of what an import has made of an instance.
    pub(crate) fn in_block(block: &Ec2Block) -> Self {
        let mut attributes = BTreeSet::new();
        macro_rules! note {
            ($($field:ident)*) => {
                $(if block.$field.is_known() {
                    attributes.insert(stringify!($field).to_owned());
                })*
            };
        }
        for_unnamed!(note);
        Self { attributes, volumes: ids(block) }
    }

    /// What of it a configuration leaves unnamed.
    pub(crate) fn beside(&self, configured: &Ec2Block) -> Self {
        let mut rest = self.clone();
        macro_rules! strike {
            ($($field:ident)*) => {
                $(if !configured.$field.is_null() {
                    rest.attributes.remove(stringify!($field));
                })*
            };
        }
        for_unnamed!(strike);
        if !configured.volumes.is_null() {
            rest.volumes.clear();
        }
        rest
    }

    /// Plans what a configuration does not name: as it was found, or not at all.
    pub(super) fn fill_unnamed(&self, planned: &mut Ec2Block, configured: &Ec2Block, old: Option<&Ec2Block>) {
        macro_rules! fill {
            ($($field:ident)*) => {
                $(if configured.$field.is_null() {
                    planned.$field = match old {
                        Some(old) if self.attributes.contains(stringify!($field)) => old.$field.clone(),
                        _ => Attr::Null,
                    };
                })*
            };
        }
        for_unnamed!(fill);
    }

    /// Whether a volume came with an import.
    pub(super) fn has(&self, volume: &Volume) -> bool {
        volume.volume_id.known().is_some_and(|id| self.volumes.contains(id))
    }

    /// The names of volumes that came with an import and are not planned.
    fn unplanned(&self, there: &Ec2Block, planned: &Ec2Block) -> Vec<String> {
        // A volume that is not known yet may be any of them: the plan of the apply tells.
        if planned.volumes.known().is_none_or(|volumes| volumes.has_open()) {
            return vec![];
        }
        let planned = ids(planned);
        let unplanned = |volume: &Volume| volume.volume_id.known().is_some_and(|id| !planned.contains(id));
        let there = there.volumes.known().into_iter().flatten();
        there
            .filter(|(_, volume)| self.has(volume) && unplanned(volume))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Takes volumes that came with an import, and that the plan does not have, out of what is to be changed.
    pub(crate) fn let_go(&self, there: &mut Ec2Block, planned: &Ec2Block) {
        for name in self.unplanned(there, planned) {
            there.volumes.known_mut().and_then(|volumes| volumes.remove(&name));
        }
    }

    /// Says so.
    pub(crate) fn warnings(&self, machine: &str, there: &Ec2Block, planned: &Ec2Block) -> Vec<Diagnostic> {
        let volumes = there.volumes.known();
        let id = |name: &String| volumes?.get(name)?.volume_id.known().cloned();
        let warning = |name: String| {
            Diagnostic::warning(format!("Volume \"{name}\" of machine \"{machine}\" stays attached")).detail(
                format!(
                    "{} was attached before the machine was imported, and `volumes` does not have it: it \
                     leaves the state and is neither detached nor deleted. To manage it, add it to \
                     `volumes`, at the device where it is.",
                    id(&name).unwrap_or_default()
                ),
            )
        };
        self.unplanned(there, planned).into_iter().map(warning).collect()
    }
}

fn ids(block: &Ec2Block) -> BTreeSet<String> {
    let volumes = block.volumes.known().into_iter().flatten();
    volumes.filter_map(|(_, volume)| volume.volume_id.known().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::block::{MetadataOptions, RootVolume};
    use super::super::volume_map::Volumes;
    use super::*;

    fn volumes(ids: &[&str]) -> Attr<Volumes> {
        let volume = |id: &&str| {
            let volume = Volume { volume_id: Attr::Known((*id).to_owned()), ..Volume::default() };
            ((*id).to_owned(), volume)
        };
        Attr::Known(ids.iter().map(volume).collect())
    }

    fn imported() -> Ec2Block {
        Ec2Block {
            root_volume: Attr::Known(RootVolume { size: Attr::Known(8), ..RootVolume::default() }),
            metadata_options: Attr::Known(MetadataOptions::default()),
            volumes: volumes(&["vol-1", "vol-2"]),
            ..Ec2Block::default()
        }
    }

    #[test]
    fn what_was_found_stays_until_a_configuration_names_it() {
        let there = imported();
        let found = Found::in_block(&there);
        let mut planned = Ec2Block::default();
        found.fill_unnamed(&mut planned, &Ec2Block::default(), Some(&there));
        assert_eq!(planned, there);
        assert!(found.warnings("db", &there, &planned).is_empty());

        // Named once, it is Terraform's: without it the machine is planned without it.
        let configured = Ec2Block { metadata_options: there.metadata_options.clone(), ..Ec2Block::default() };
        let rest = found.beside(&configured);
        rest.fill_unnamed(&mut planned, &Ec2Block::default(), Some(&there));
        assert_eq!((&planned.metadata_options, &planned.root_volume), (&Attr::Null, &there.root_volume));
        Found::default().fill_unnamed(&mut planned, &Ec2Block::default(), Some(&there));
        assert_eq!(planned, Ec2Block::default());
    }

    #[test]
    fn volumes_that_nobody_names_are_neither_detached_nor_deleted() {
        let (mut there, planned) =
            (imported(), Ec2Block { volumes: volumes(&["vol-2"]), ..Ec2Block::default() });
        let found = Found::in_block(&there);
        assert_eq!(found.warnings("db", &there, &planned).len(), 1);
        found.let_go(&mut there, &planned);
        assert_eq!(there.volumes, planned.volumes);
        assert!(found.beside(&planned).warnings("db", &imported(), &planned).is_empty());
    }
}
