//! The users that a system declares. NixOS makes them from a list in the store, `users-groups.json`.
//!
//! Systems that make users by other means (systemd-sysusers, userborn) have no such list, and raise no objection here.

use std::path::Path;

use serde::Deserialize;

use super::unit_files::store_paths;
use crate::program;

/// The file where NixOS lists the users that exist because a system has declared them.
const DECLARED: &str = "/var/lib/nixos/declarative-users";

/// The users and groups of a system.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Accounts {
    mutable_users: bool,
    users: Option<Vec<User>>,
    groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    name: String,
    group: String,
    shell: Option<String>,
    expires: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    name: String,
    members: Vec<String>,
}

impl Accounts {
    /// The users and groups of a system; `None`: the system has no list, or it cannot be read.
    pub(super) fn of(system: &Path) -> Option<Self> {
        let script = std::fs::read_to_string(system.join("activate")).ok()?;
        let list = store_paths(&script).find(|path| path.ends_with("-users-groups.json"))?;
        serde_json::from_slice(&std::fs::read(list).ok()?).ok()
    }

    /// Whether the system has a user. Every system has root.
    pub(super) fn have(&self, user: &str) -> bool {
        user == "root" || self.users.is_none() || self.user(user).is_some()
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().flatten().find(|user| user.name == name)
    }

    /// The groups of a user that the system declares.
    pub(super) fn groups(&self, user: &str) -> Vec<&str> {
        let Some(declared) = self.user(user) else { return vec![] };
        let of = self.groups.iter().filter(|group| group.members.iter().any(|member| member == user));
        of.map(|group| group.name.as_str()).chain([declared.group.as_str()]).collect()
    }

    /// Whether [`Accounts::groups`] are all groups of a user. With mutable users NixOS keeps groups that were added by
    /// hand.
    pub(super) fn knows_all_groups(&self, user: &str) -> bool {
        let is_kept = || {
            let declared = std::fs::read_to_string(DECLARED).unwrap_or_default();
            !declared.split_whitespace().any(|name| name == user)
        };
        self.user(user).is_some() && !(self.mutable_users && is_kept())
    }

    /// Why the account of a user does not allow a login; `None`: it does.
    pub(super) fn refuses(&self, user: &str) -> Option<String> {
        // In this form, texts compare like dates.
        let today = program::output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default();
        self.refuses_at(user, today.trim())
    }

    fn refuses_at(&self, user: &str, today: &str) -> Option<String> {
        let account = self.user(user)?;
        if let Some(shell) = account.shell.as_deref().filter(|shell| is_closed(shell)) {
            return Some(format!("the shell of {user} is {shell}"));
        }
        let expires = account.expires.as_deref()?;
        let is_past = is_date(expires) && is_date(today) && expires < today;
        is_past.then(|| format!("the account of {user} expired on {expires}"))
    }
}

/// Whether a shell ends every session at once.
fn is_closed(shell: &str) -> bool {
    shell.rsplit('/').next().is_some_and(|name| ["nologin", "false"].contains(&name))
}

/// `2026-12-31`.
fn is_date(text: &str) -> bool {
    let is_fit =
        |(at, sign): (usize, u8)| if at == 4 || at == 7 { sign == b'-' } else { sign.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Accounts {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_user_that_a_system_does_not_declare_is_missing() {
        let system = tempfile::tempdir().unwrap();
        assert!(Accounts::of(system.path()).is_none(), "a system that declares none says nothing");
        let script = "perl -w /nix/store/x-p.pl '/nix/store/x-users-groups.json'\n";
        std::fs::write(system.path().join("activate"), script).unwrap();
        assert!(Accounts::of(system.path()).is_none(), "a list that cannot be read says nothing");
        let users = list(r#"{"mutableUsers":false,"users":[{"name":"root"},{"name":"alice"}]}"#);
        assert!(users.have("root") && users.have("alice") && !users.have("bob"));
        assert!(list("{}").have("bob"));
    }

    #[test]
    fn groups_are_those_of_the_list() {
        let declared = r#""users":[{"name":"alice","group":"users"}],
            "groups":[{"name":"wheel","members":["alice","bob"]},{"name":"users","members":[]}]"#;
        let fixed = list(&format!(r#"{{"mutableUsers":false,{declared}}}"#));
        assert_eq!(fixed.groups("alice"), ["wheel", "users"]);
        assert!(fixed.knows_all_groups("alice"));
        assert!(!fixed.knows_all_groups("bob"), "a user who is not in the list may have any group");
        let open = list(&format!(r#"{{"mutableUsers":true,{declared}}}"#));
        assert!(!open.knows_all_groups("alice"), "an administrator may have added some");
    }

    #[test]
    fn accounts_that_nobody_can_use_are_known() {
        let users = list(
            r#"{"users":[{"name":"a","shell":"/run/current-system/sw/bin/nologin"},{"name":"b","shell":"/bin/false"},
            {"name":"c","shell":"/run/current-system/sw/bin/bash","expires":"2026-03-01"},{"name":"d","shell":null}]}"#,
        );
        let refused = |user| users.refuses_at(user, "2026-03-02");
        assert_eq!(refused("a").unwrap(), "the shell of a is /run/current-system/sw/bin/nologin");
        assert!(refused("b").is_some());
        assert_eq!(refused("c").unwrap(), "the account of c expired on 2026-03-01");
        assert_eq!(users.refuses_at("c", "2026-03-01"), None);
        assert_eq!(users.refuses_at("c", ""), None, "without a date nothing is said");
        assert_eq!((refused("d"), refused("nobody")), (None, None));
    }
}
