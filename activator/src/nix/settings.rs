//! Settings of Nix, as text for `NIX_CONFIG`.
//!
//! A command line can be read by every user of the machine where Nix runs, an environment by its owner alone, and
//! settings may hold tokens (`access-tokens`). Nix takes what is in `NIX_CONFIG` for more important than its files,
//! and sends it to its daemon.

use std::ffi::OsString;
use std::fmt;

/// The variable that Nix reads settings from, in the form of `nix.conf`.
pub(super) const VARIABLE: &str = "NIX_CONFIG";

/// How Nix is to be run; empty means: as the user's own configuration says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NixSettings {
    /// Settings as in `nix.conf`, name and value. See [`mistake`] for those that it cannot hold.
    pub options: Vec<(String, String)>,
    /// Replaces `NIX_PATH`, each entry as in `-I`.
    pub nix_path: Vec<String>,
    /// Remote builders, each in the syntax of `builders` in `nix.conf`.
    pub builders: Vec<String>,
    /// How many derivations are built at once.
    pub max_jobs: Option<String>,
    /// How many cores a build may use.
    pub cores: Option<u32>,
}

/// Shows which options are set, and not to what: they may be tokens.
impl fmt::Debug for NixSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, nix_path, builders, max_jobs, cores } = self;
        let names: Vec<&str> = options.iter().map(|(name, _)| name.as_str()).collect();
        let mut text = f.debug_struct("NixSettings");
        text.field("options", &names).field("nix_path", nix_path).field("builders", builders);
        text.field("max_jobs", max_jobs).field("cores", cores).finish()
    }
}

impl NixSettings {
    /// Everything in it as one text, to tell settings apart. It holds what the settings hold: not for showing.
    pub(crate) fn identity(&self) -> zeroize::Zeroizing<String> {
        let Self { options, nix_path, builders, max_jobs, cores } = self;
        zeroize::Zeroizing::new(format!("{options:?} {nix_path:?} {builders:?} {max_jobs:?} {cores:?}"))
    }

    /// What is wrong with them, and with which.
    pub(super) fn mistake(&self) -> Option<(&str, &'static str)> {
        let options = self.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let others = self.builders.iter().map(|builder| ("builders", builder.as_str()));
        let others = others.chain(self.max_jobs.iter().map(|jobs| ("max-jobs", jobs.as_str())));
        options.chain(others).find_map(|(name, value)| Some((name, mistake(name, value)?)))
    }

    /// All of them in the form of `nix.conf`, behind what the variable has already: the last one of a name counts.
    pub(super) fn variable(&self, inherited: Option<OsString>) -> Option<OsString> {
        let builders = (!self.builders.is_empty()).then(|| ("builders", self.builders.join(" ; ")));
        let max_jobs = self.max_jobs.clone().map(|jobs| ("max-jobs", jobs));
        let cores = self.cores.map(|cores| ("cores", cores.to_string()));
        let options = self.options.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let all: Vec<_> = options.chain(builders).chain(max_jobs).chain(cores).collect();
        if all.is_empty() {
            return None;
        }
        let mut text = inherited.unwrap_or_default();
        for (name, value) in all {
            // Between the words of a list a line break is as good as a blank.
            text.push(format!("\n{name} = {}", value.replace(['\n', '\r'], " ")));
        }
        text.push("\n");
        Some(text)
    }
}

/// Why a setting cannot be written in `nix.conf`, which has no quotes; `None`: it can.
pub fn mistake(name: &str, value: &str) -> Option<&'static str> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_legal) || name == "include" {
        return Some("expected the name of a setting as in `nix.conf`: letters, digits and `-`");
    }
    if value.contains('#') {
        return Some("its value has a `#`, with which a comment begins in `nix.conf`: expected one without");
    }
    value.contains('\0').then_some("its value has a NUL character: expected a text without")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> NixSettings {
        NixSettings {
            options: vec![
                ("access-tokens".to_owned(), "github.com=ghp_canary".to_owned()),
                ("substituters".to_owned(), "https://a\nhttps://b".to_owned()),
            ],
            builders: vec!["ssh://a x86_64-linux".to_owned(), "ssh://b".to_owned()],
            max_jobs: Some("auto".to_owned()),
            cores: Some(0),
            ..NixSettings::default()
        }
    }

    #[test]
    fn settings_come_behind_those_of_the_user() {
        assert_eq!(
            settings().variable(Some("cores = 4".into())).unwrap(),
            "cores = 4\naccess-tokens = github.com=ghp_canary\nsubstituters = https://a https://b\n\
             builders = ssh://a x86_64-linux ; ssh://b\nmax-jobs = auto\ncores = 0\n"
        );
        assert_eq!(NixSettings::default().variable(Some("cores = 4".into())), None, "nothing to add");
    }

    #[test]
    fn values_are_not_shown() {
        let text = format!("{:?}", settings());
        assert!(text.contains("access-tokens") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn what_a_file_of_nix_cannot_hold_is_known() {
        assert_eq!(settings().mistake(), None);
        for (name, value) in
            [("a b", "x"), ("", "x"), ("include", "/etc/x"), ("!include", "x"), ("a\nb", "x"), ("a", "x#y")]
        {
            assert!(mistake(name, value).is_some(), "{name} {value}");
        }
        let wrong = NixSettings { builders: vec!["ssh://a#b".to_owned()], ..NixSettings::default() };
        assert_eq!(wrong.mistake().unwrap().0, "builders");
    }
}
