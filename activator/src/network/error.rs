//! Why a specification cannot be looked at.

use std::path::PathBuf;

use crate::nix::Version;

/// A specification that cannot even be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file is not there.
    #[error("{path} cannot be read: {source}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A path that cannot stand in an expression of Nix.
    #[error("the path {} is not UTF-8, and Nix can only be given one that is: rename it, or the link that \
             leads to it", .0.display())]
    NotText(PathBuf),
    /// A flake reference that is empty or would break its line.
    #[error("`{0}` is not a flake reference: expected a directory or a URL such as github:owner/repo")]
    Flake(String),
    /// A directory whose name has to be encoded in a URL, for a Nix that does not decode it.
    #[error(
        "Nix {version} cannot read a flake in {}, whose path has `{character}`: rename the directory, or \
         use Nix {needed} or later",
        .directory.display()
    )]
    Encoded {
        /// The flake's directory.
        directory: PathBuf,
        /// The first such character of its path.
        character: char,
        /// The version of Nix.
        version: Version,
        /// The first version that is known to decode it.
        needed: Version,
    },
}
