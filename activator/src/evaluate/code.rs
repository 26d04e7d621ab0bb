//! Our Nix code, and how it comes into the store.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::disk::Cache;
use super::error::EvaluateError;
use crate::StorePath;
use crate::hash::sha256_of;
use crate::nix::{Nix, NixError, sri};

/// The Nix code that evaluates, as it is built into this program.
pub(super) const TREE: &[(&str, &str)] = &[
    ("eval.nix", include_str!("../../../nix/eval.nix")),
    ("lib/configuration.nix", include_str!("../../../nix/lib/configuration.nix")),
    ("lib/flake.nix", include_str!("../../../nix/lib/flake.nix")),
    ("lib/gen-attrs.nix", include_str!("../../../nix/lib/gen-attrs.nix")),
    ("lib/hive.nix", include_str!("../../../nix/lib/hive.nix")),
    ("lib/input.nix", include_str!("../../../nix/lib/input.nix")),
    ("lib/network.nix", include_str!("../../../nix/lib/network.nix")),
    ("lib/nodes.nix", include_str!("../../../nix/lib/nodes.nix")),
    ("lib/peers.nix", include_str!("../../../nix/lib/peers.nix")),
    ("lib/report.nix", include_str!("../../../nix/lib/report.nix")),
    ("lib/resource.nix", include_str!("../../../nix/lib/resource.nix")),
    ("lib/system.nix", include_str!("../../../nix/lib/system.nix")),
    ("modules/default.nix", include_str!("../../../nix/modules/default.nix")),
    ("modules/deployment.nix", include_str!("../../../nix/modules/deployment.nix")),
    ("modules/facts.nix", include_str!("../../../nix/modules/facts.nix")),
    ("modules/keys.nix", include_str!("../../../nix/modules/keys.nix")),
    ("modules/legacy.nix", include_str!("../../../nix/modules/legacy.nix")),
    ("modules/places.nix", include_str!("../../../nix/modules/places.nix")),
    ("modules/ec2.nix", include_str!("../../../nix/modules/ec2.nix")),
];

/// Our Nix code in the store: its path is then the same wherever the same version runs, and so are derivations that
/// mention it (NixOS' option manual does).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tree {
    pub(super) path: StorePath,
    /// Its hash as Nix' fetchers want it.
    pub(super) nar_hash: String,
}

impl Tree {
    /// Puts it there, unless the cache knows that it is there already.
    pub(super) async fn add(
        nix: &Nix,
        cache: Option<&Cache>,
        cancel: &CancellationToken,
    ) -> Result<Self, EvaluateError> {
        let content: Vec<&[u8]> =
            TREE.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]).collect();
        let name = format!("tree-{}", sha256_of(&content));
        if let Some(known) = cache.and_then(|cache| cache.read::<Self>(&name))
            && std::path::Path::new(known.path.as_str()).is_dir()
        {
            return Ok(known);
        }
        let directory = tempfile::tempdir()?;
        // The name under which a fetcher looks for it: then it finds it here and asks no binary cache.
        let root = directory.path().join("source");
        for (name, text) in TREE {
            let path = root.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        let root = root.display().to_string();
        let output = |what: &str, reason: &dyn std::fmt::Display| NixError::Output {
            program: what.to_owned(),
            reason: reason.to_string(),
        };
        let finished = nix.run("nix-store", &["--add", &root], &[], cancel, &|_| {}).await?;
        let path: StorePath =
            finished.stdout.trim().parse().map_err(|error| output("nix-store --add", &error))?;
        let asked = nix.run("nix-store", &["--query", "--hash", path.as_str()], &[], cancel, &|_| {}).await?;
        let nar_hash =
            sri(asked.stdout.trim()).ok_or_else(|| output("nix-store --query", &asked.stdout.trim()))?;
        let tree = Self { path, nar_hash };
        if let Some(cache) = cache {
            cache.write(&name, &tree);
        }
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_nix_tree_is_built_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix");
        let mut pending = vec![root.clone()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "nix") {
                    assert!(TREE.iter().any(|(known, _)| *known == name), "nix/{name} is missing in TREE");
                }
            }
        }
    }
}
