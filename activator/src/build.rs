//! Building: derivations become store paths, and roots keep them from the garbage collector.
//!
//! Roots are links below a directory of ours, registered with Nix as indirect ones. A deployment has one set for what
//! is planned (derivations), one for what was built last, and one for what is deployed (systems); a new set is
//! complete before the old one goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nixos_agent::DeploymentId;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::StorePath;
use crate::nix::{Call, Nix, NixError};
use crate::progress::{Progress, Stage};

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nix, most often with the builder's last lines.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// A derivation gave another path than evaluation had promised.
    #[error("{drv} was planned to build {expected}, but built {found}")]
    Mismatch {
        /// The derivation.
        drv: StorePath,
        /// The path evaluation named.
        expected: StorePath,
        /// What Nix printed.
        found: String,
    },
    /// The directory for roots cannot be used.
    #[error("cannot keep garbage collector roots in {path}: {source}")]
    Roots {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// How many systems one Nix is given: whenever a derivation is built it looks anew at each that waits, so that time
/// grows with the square of what it is given, and it holds all of it in memory.
const PORTION: usize = 50;

/// Builds all of `systems` (derivation, system). Either all are there afterwards or none is used. What is built is
/// kept by `roots` at once: a garbage collection may come before the last of them is built, and before all are
/// pushed.
pub async fn build(
    nix: &Nix,
    systems: &[(StorePath, StorePath)],
    roots: Option<&Roots>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), BuildError> {
    // Machines that are alike have the same system.
    let systems: BTreeMap<_, _> = systems.iter().map(|(drv, system)| (drv, system)).collect();
    let systems: Vec<_> = systems.into_iter().collect();
    let set = roots.map(|roots| roots.begin(Kept::Built)).transpose()?;
    for (number, portion) in systems.chunks(PORTION).enumerate() {
        if systems.len() > PORTION {
            let first = number * PORTION + 1;
            let last = first + portion.len() - 1;
            progress.all(Stage::Build, format!("systems {first} to {last} of {}", systems.len()));
        }
        let link = set.as_ref().map(|set| set.link(&format!("portion-{number}")));
        build_portion(nix, portion, link.as_deref(), progress, cancel).await?;
    }
    set.map_or(Ok(()), NewSet::replace_others)
}

async fn build_portion(
    nix: &Nix,
    systems: &[(&StorePath, &StorePath)],
    link: Option<&str>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), BuildError> {
    let mut arguments = vec!["--realise"];
    arguments.extend(link.into_iter().flat_map(|link| ["--add-root", link]));
    arguments.extend(systems.iter().map(|(drv, _)| drv.as_str()));
    let on_line = |line: &str| progress.all(Stage::Build, line);
    let finished = nix.run("nix-store", &arguments, &[], cancel, &on_line).await?;
    let mut built = finished.stdout.lines().map(str::trim);
    for &(drv, expected) in systems {
        let printed = built.next().unwrap_or_default();
        // With roots, their links are printed.
        let found = match std::fs::read_link(printed) {
            Ok(path) if link.is_some() => path.display().to_string(),
            _ => printed.to_owned(),
        };
        if found != expected.as_str() {
            return Err(BuildError::Mismatch { drv: drv.clone(), expected: expected.clone(), found });
        }
    }
    Ok(())
}

/// The roots of one deployment.
#[derive(Clone, Debug)]
pub struct Roots {
    directory: PathBuf,
}

/// What a set of roots keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Derivations of a plan that may be applied later.
    Planned,
    /// Systems that were built last, until the next ones are.
    Built,
    /// Systems that machines run.
    Deployed,
}

impl Kept {
    fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Built => "built",
            Self::Deployed => "deployed",
        }
    }
}

impl Roots {
    /// The roots of `deployment`, below the user's state directory; `None` where there is no home.
    pub fn of(deployment: &DeploymentId) -> Option<Self> {
        let state = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
        Some(Self { directory: state.join("nixos-activator/roots").join(deployment.as_str()) })
    }

    /// Keeps exactly `paths` in the set `kept`.
    pub async fn keep(
        &self,
        nix: &Nix,
        kept: Kept,
        paths: &[StorePath],
        cancel: &CancellationToken,
    ) -> Result<(), BuildError> {
        let set = self.begin(kept)?;
        if !paths.is_empty() {
            let link = set.link("root");
            match kept {
                Kept::Built | Kept::Deployed => {
                    let mut arguments = vec!["--realise", "--add-root", &link];
                    arguments.extend(paths.iter().map(StorePath::as_str));
                    nix.run("nix-store", &arguments, &[], cancel, &|_| {}).await?;
                }
                Kept::Planned => {
                    // An argument may not be longer than 128 KiB, which is a few hundred machines.
                    let input = derivations(paths);
                    let arguments = ["--add-root", link.as_str(), "-"];
                    let call = Call {
                        program: "nix-instantiate",
                        arguments: &arguments,
                        input: &input,
                        ..Call::default()
                    };
                    nix.call(call, cancel, &|_| {}).await?;
                }
            }
        }
        set.replace_others()
    }

    /// Begins a set that is to take the place of those there are.
    fn begin(&self, kept: Kept) -> Result<NewSet, BuildError> {
        let path = self.directory.join(kept.name());
        let failed = |source| BuildError::Roots { path: path.clone(), source };
        let others = entries(&path).map_err(failed)?;
        std::fs::create_dir_all(&path).map_err(failed)?;
        let new = tempfile::Builder::new().prefix("set-").tempdir_in(&path).map_err(failed)?;
        Ok(NewSet { new, others })
    }

    /// Gives up all roots of the deployment.
    pub fn remove(&self) -> Result<(), BuildError> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(BuildError::Roots { path: self.directory.clone(), source: error })
            }
            _ => Ok(()),
        }
    }
}

/// A set of roots that is being made: gone again unless it comes to take the place of the others.
struct NewSet {
    new: TempDir,
    others: Vec<PathBuf>,
}

impl NewSet {
    /// Where a link for Nix goes.
    fn link(&self, name: &str) -> String {
        self.new.path().join(name).display().to_string()
    }

    fn replace_others(self) -> Result<(), BuildError> {
        let Self { new, others } = self;
        let _ = new.keep();
        others.into_iter().try_for_each(|other| {
            std::fs::remove_dir_all(&other).map_err(|source| BuildError::Roots { path: other, source })
        })
    }
}

/// An expression whose instantiation is just these derivations: Nix has no command to root one without building it.
fn derivations(paths: &[StorePath]) -> String {
    let items = paths.iter().map(|path| {
        let name = path.name();
        format!(r#"{{ type = "derivation"; name = "{name}"; system = ""; outputName = "out"; drvPath = "{path}"; }}"#)
    });
    format!("[ {} ]", items.collect::<Vec<_>>().join(" "))
}

fn entries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    }
}
