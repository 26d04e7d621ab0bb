//! What the SSH server of a system would do with a login. The server itself says so: `sshd -T` prints the settings that
//! its configuration has for a login.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nixos_agent::Login;

use super::etc_files::EtcFiles;
use super::objection::Objection;
use super::unit_files::{programs, unit};
use super::users::Accounts;
use crate::program;

const CONFIG: &str = "/etc/ssh/sshd_config";

/// The settings that the server has for a login: keywords in small letters, each with its values.
type Effective = BTreeMap<String, Vec<String>>;

/// What the server of a system has against a login.
pub(super) fn objections(login: &Login, key: Option<&str>, files: &EtcFiles<'_>) -> Vec<Objection> {
    let Some(config) = files.find(Path::new(CONFIG)).filter(|_| !files.comes_later(Path::new(CONFIG))) else {
        return vec![];
    };
    let effective = match ask(&server(files), &config, login) {
        Ok(effective) => effective,
        // A message with the number of a line is a fault of the configuration. Other messages may only come from the
        // server being asked on a machine where it does not run yet.
        Err(message) => {
            const NO_FAULTS: [&str; 3] =
                ["connection test specification", "Deprecated option", "Unsupported option"];
            let is_fault =
                |line: &&str| line.contains(" line ") && !NO_FAULTS.iter().any(|text| line.contains(text));
            let line = message.lines().find(is_fault).filter(|_| !message.contains("no hostkeys available"));
            return line.map(|line| Objection::BadConfiguration(line.to_owned())).into_iter().collect();
        }
    };
    let accounts = files.system.and_then(Accounts::of);
    let mut found = refusals(&effective, login, key, accounts.as_ref());
    if let Some(key) = key.filter(|key| !may_accept_key(&effective, key, login, files)) {
        found.push(Objection::UnknownKey(key.to_owned()));
    }
    found
}

/// The program of the SSH server that the system starts, else of the one that runs.
fn server(files: &EtcFiles<'_>) -> String {
    let own = files.system.and_then(|system| {
        ["sshd.service", "sshd@.service"].iter().find_map(|name| {
            let text = unit(system, name)?;
            programs(&text).find(|program| program.ends_with("/sshd")).map(str::to_owned)
        })
    });
    own.unwrap_or_else(|| "sshd".to_owned())
}

/// Asks a server for the settings that it has for a login.
fn ask(server: &str, config: &Path, login: &Login) -> Result<Effective, String> {
    let Login { user, client, address, port, .. } = login;
    let whom = format!("user={user},host={client},addr={client},laddr={address},lport={port}");
    let config = config.to_str().ok_or("its path is not text")?;
    // `sshd` refuses to start by a name without its path.
    let script = r#"exec "$(command -v "$0")" "$@""#;
    Ok(parse(&program::output("sh", &["-c", script, server, "-T", "-f", config, "-C", &whom])?))
}

fn parse(text: &str) -> Effective {
    let mut effective = Effective::new();
    for line in text.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        effective.entry(keyword.to_lowercase()).or_default().push(value.trim().to_owned());
    }
    effective
}

/// The objections that follow from the settings, whichever key the login has. `key`: the login was made with a key.
fn refusals(
    effective: &Effective,
    login: &Login,
    key: Option<&str>,
    accounts: Option<&Accounts>,
) -> Vec<Objection> {
    let all = |keyword: &str| effective.get(keyword).map(Vec::as_slice).unwrap_or_default();
    let one = |keyword: &str| all(keyword).first().map_or("", String::as_str);
    let mut found = vec![];
    let places = all("listenaddress");
    if !places.is_empty() && !places.iter().any(|place| gets(place, login)) {
        found.push(Objection::Elsewhere(places.to_vec()));
    }
    let mut refuses = |keyword: &str, when: bool| {
        if when {
            found.push(Objection::Refused(format!("{keyword} {}", all(keyword).join(" "))));
        }
    };
    let root = one("permitrootlogin");
    refuses("permitrootlogin", login.user == "root" && ["no", "forced-commands-only"].contains(&root));
    // A pattern may match any user, so only plain names are certain.
    let plain = |names: &[String]| names.iter().all(|name| !name.contains(['*', '?', '!', '@']));
    let (allowed, denied) = (all("allowusers"), all("denyusers"));
    refuses("allowusers", !allowed.is_empty() && plain(allowed) && !allowed.contains(&login.user));
    refuses("denyusers", denied.contains(&login.user));
    let (allowed, denied) = (all("allowgroups"), all("denygroups"));
    let is_in = |names: &[String]| {
        accounts.is_some_and(|all| {
            all.groups(&login.user).iter().any(|group| names.iter().any(|name| name == group))
        })
    };
    let knows_all = accounts.is_some_and(|all| all.knows_all_groups(&login.user));
    refuses("allowgroups", !allowed.is_empty() && plain(allowed) && knows_all && !is_in(allowed));
    refuses("denygroups", is_in(denied));
    refuses("pubkeyauthentication", key.is_some() && one("pubkeyauthentication") == "no");
    let ways: Vec<&str> =
        all("authenticationmethods").iter().flat_map(|line| line.split_whitespace()).collect();
    refuses(
        "authenticationmethods",
        key.is_some() && !ways.is_empty() && !ways.iter().any(|way| needs_keys_only(way)),
    );
    found
}

/// Whether a login can pass a list of `AuthenticationMethods` without typing, as logins of the client have to.
fn needs_keys_only(way: &str) -> bool {
    const SILENT: [&str; 5] = ["any", "none", "publickey", "hostbased", "gssapi-with-mic"];
    way.split(',').all(|method| SILENT.contains(&method.split(':').next().unwrap_or_default()))
}

/// Whether a server that listens at `ADDRESS:PORT` gets this login.
fn gets(place: &str, login: &Login) -> bool {
    let Some((address, port)) = place.rsplit_once(':') else {
        return true;
    };
    let address = address.trim_matches(['[', ']']);
    let Ok(address) = address.parse::<IpAddr>() else {
        return true;
    };
    port.parse() == Ok(login.port) && (address.is_unspecified() || address == login.address)
}

/// Whether the server may accept the key. It certainly does not where it looks only into files and none of them has the
/// key.
fn may_accept_key(effective: &Effective, key: &str, login: &Login, files: &EtcFiles<'_>) -> bool {
    let one = |keyword: &str| effective.get(keyword).and_then(|values| values.first()).map(String::as_str);
    let asks_others = ["authorizedkeyscommand", "trustedusercakeys"]
        .iter()
        .any(|keyword| one(keyword).is_some_and(|value| value != "none"));
    let Some(patterns) = one("authorizedkeysfile").filter(|_| !asks_others) else {
        return true;
    };
    let Some(home) = home(&login.user) else {
        return true;
    };
    let mut places = patterns.split_whitespace().filter(|pattern| *pattern != "none");
    places.any(|pattern| {
        let path = expand(pattern, &login.user, &home);
        if files.comes_later(&path) {
            return true;
        }
        let Some(file) = files.find(&path) else {
            return false;
        };
        let known = file.to_str().map(|file| program::output("ssh-keygen", &["-l", "-f", file]));
        match known {
            Some(Ok(list)) => list.split_whitespace().any(|word| word == key),
            // An empty file has no keys. A file that cannot be read may have any.
            _ => file.metadata().map_or(true, |meta| meta.len() > 0),
        }
    })
}

/// The home of a user.
fn home(user: &str) -> Option<PathBuf> {
    let line = program::output("getent", &["passwd", user]).ok()?;
    line.trim().split(':').nth(5).map(PathBuf::from)
}

/// The path that a pattern of `AuthorizedKeysFile` means: `sshd_config(5)`.
fn expand(pattern: &str, user: &str, home: &Path) -> PathBuf {
    let text = pattern
        .replace("%%", "\0")
        .replace("%u", user)
        .replace("%h", &home.to_string_lossy())
        .replace('\0', "%");
    home.join(text)
}

/// The fingerprint of the key that the login was made with, as the server has written it to the journal.
pub(super) fn key_of(login: &Login) -> Option<String> {
    let Login { user, client, client_port, .. } = login;
    let accepted = format!("Accepted publickey for {user} from {client} port {client_port} ");
    let fixed = ["-q", "-o", "cat", "--no-pager", "-r", "-n", "1", "--since=-2h"];
    let who = ["-t", "sshd", "-t", "sshd-session", "--grep", &accepted];
    fingerprint(&program::output("journalctl", &[&fixed[..], &who].concat()).ok()?)
}

/// The fingerprint in `… ssh2: ED25519 SHA256:…`; `None` for a certificate, because its key is in no file.
fn fingerprint(line: &str) -> Option<String> {
    let mut words = line.split_once(" ssh2: ")?.1.split_whitespace();
    let kind = words.next()?;
    words.next().filter(|word| word.starts_with("SHA256:") && !kind.ends_with("-CERT")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login {
            user: user.to_owned(),
            client: "10.0.0.9".parse().unwrap(),
            client_port: 51234,
            address: "10.0.0.2".parse().unwrap(),
            port: 22,
        }
    }

    fn refused(text: &str, user: &str) -> Vec<String> {
        let describe = |objection: Objection| match objection {
            Objection::Elsewhere(places) => places.join(","),
            Objection::Refused(line) => line,
            other => format!("{other:?}"),
        };
        let accounts = serde_json::from_str::<Accounts>(
            r#"{"mutableUsers":false,"users":[{"name":"alice","group":"users"}],
            "groups":[{"name":"ops","members":["alice"]},{"name":"web","members":["bob"]}]}"#,
        )
        .unwrap();
        let found = refusals(&parse(text), &login(user), Some("SHA256:x"), Some(&accounts));
        found.into_iter().map(describe).collect()
    }

    #[test]
    fn a_server_that_listens_elsewhere_keeps_everyone_out() {
        for open in ["listenaddress 0.0.0.0:22", "listenaddress [::]:22", "listenaddress 10.0.0.2:22", ""] {
            assert_eq!(refused(open, "root"), [""; 0], "{open}");
        }
        assert_eq!(refused("listenaddress 0.0.0.0:2222\nport 2222", "root"), ["0.0.0.0:2222"]);
        assert_eq!(refused("listenaddress 10.0.0.3:22", "root"), ["10.0.0.3:22"]);
        assert_eq!(
            refused("listenaddress 10.0.0.3:22\nlistenaddress [::]:22", "root"),
            [""; 0],
            "one that takes it is enough"
        );
    }

    #[test]
    fn users_are_kept_out_by_name() {
        assert_eq!(refused("permitrootlogin no", "root"), ["permitrootlogin no"]);
        assert_eq!(refused("permitrootlogin no", "alice"), [""; 0]);
        assert_eq!(refused("permitrootlogin without-password", "root"), [""; 0]);
        assert_eq!(refused("allowusers bob\nallowusers carol", "alice"), ["allowusers bob carol"]);
        assert_eq!(refused("allowusers bob\nallowusers alice", "alice"), [""; 0]);
        assert_eq!(refused("allowusers a*", "alice"), [""; 0], "a pattern may mean them");
        assert_eq!(refused("denyusers alice", "alice"), ["denyusers alice"]);
    }

    #[test]
    fn users_are_kept_out_by_their_groups() {
        assert_eq!(refused("allowgroups web\nallowgroups wheel", "alice"), ["allowgroups web wheel"]);
        assert_eq!(refused("allowgroups web\nallowgroups ops", "alice"), [""; 0]);
        assert_eq!(refused("allowgroups users", "alice"), [""; 0], "their own group counts");
        assert_eq!(refused("allowgroups w*", "alice"), [""; 0], "a pattern may mean one of them");
        assert_eq!(
            refused("allowgroups web", "carol"),
            [""; 0],
            "the groups of undeclared users are not known"
        );
        assert_eq!(refused("denygroups ops", "alice"), ["denygroups ops"]);
        assert_eq!(refused("denygroups web", "alice"), [""; 0]);
    }

    #[test]
    fn a_login_by_key_needs_a_server_that_takes_keys() {
        assert_eq!(refused("pubkeyauthentication no", "alice"), ["pubkeyauthentication no"]);
        assert_eq!(refused("pubkeyauthentication yes\nauthenticationmethods any", "alice"), [""; 0]);
        assert_eq!(refused("authenticationmethods publickey,password publickey", "alice"), [""; 0]);
        for typed in ["publickey,password", "password keyboard-interactive:pam"] {
            let line = format!("authenticationmethods {typed}");
            assert_eq!(refused(&line, "alice"), [line.as_str()]);
        }
        let unknown = refusals(&parse("pubkeyauthentication no"), &login("alice"), None, None);
        assert_eq!(unknown, [], "the login may not have been by key");
    }

    #[test]
    fn the_journal_says_which_key_it_was() {
        let line = "Accepted publickey for root from 10.0.0.9 port 51234 ssh2: ED25519 SHA256:abc/+x\n";
        assert_eq!(fingerprint(line).as_deref(), Some("SHA256:abc/+x"));
        let certificate = "Accepted publickey for root from 10.0.0.9 port 1 ssh2: ED25519-CERT SHA256:abc ID x \
                           (serial 0) \
                           CA ED25519 SHA256:def";
        assert_eq!(fingerprint(certificate), None);
        assert_eq!(fingerprint("Accepted password for root from 10.0.0.9 port 1 ssh2"), None);
    }

    #[test]
    fn patterns_of_key_files_become_paths() {
        let expand = |pattern| expand(pattern, "alice", Path::new("/home/alice"));
        assert_eq!(expand(".ssh/authorized_keys"), Path::new("/home/alice/.ssh/authorized_keys"));
        assert_eq!(expand("/etc/ssh/authorized_keys.d/%u"), Path::new("/etc/ssh/authorized_keys.d/alice"));
        assert_eq!(expand("%h/keys%%u"), Path::new("/home/alice/keys%u"));
    }
}
