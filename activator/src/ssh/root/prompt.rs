//! Which question of a program that gives root is the one for the password.
//!
//! The password is typed into a terminal, and PAM may ask for anything there: a code, a PIN, a name. `sudo` is told
//! what to ask with. `doas` and `run0` are known by what they print. Of any other program a line counts that ends
//! with `password:` and asks for nothing that is used once.

/// What `sudo` asks with, where it would ask for the password.
const OURS: &str = "nixos-activator: password: ";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// `sudo`, with our question behind the word of this number.
    Sudo(usize),
    Doas,
    Run0,
    Other,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Password,
    Other,
}

impl Prompt {
    /// Who asks where these words are run.
    pub(super) fn of(elevate: &[String]) -> Self {
        let is = |word: &String, name: &str| word.rsplit('/').next() == Some(name);
        let first = |name: &str| elevate.iter().position(|word| is(word, name));
        // Who says what is to be asked is asked that.
        let has_own = elevate.iter().any(|word| word == "-p" || word.starts_with("--prompt"));
        match (first("sudo").filter(|_| !has_own), first("doas"), first("run0")) {
            (Some(at), ..) => Self::Sudo(at),
            (None, Some(_), _) => Self::Doas,
            (None, None, Some(_)) => Self::Run0,
            (None, None, None) => Self::Other,
        }
    }

    /// The words with our question in them, where the program takes one.
    pub(super) fn words(self, elevate: &[String]) -> Vec<String> {
        let mut words = elevate.to_vec();
        if let Self::Sudo(at) = self {
            words.splice(at + 1..=at, ["-p".to_owned(), OURS.to_owned()]);
        }
        words
    }

    /// The question that the last thing said is, if it is one.
    pub(super) fn question(self, heard: &str) -> Option<Question> {
        let line = heard.rsplit('\n').next().unwrap_or_default();
        let line = line.rsplit('\r').next().unwrap_or_default().trim();
        if !line.ends_with([':', '?', '>']) {
            return None;
        }
        let is_password = match self {
            Self::Sudo(_) => line == OURS.trim(),
            Self::Doas => line.starts_with("doas (") && line.ends_with(") password:"),
            Self::Run0 => line == "Password:" && heard.contains("==== AUTHENTICATING FOR "),
            Self::Other => is_plain_password(line),
        };
        Some(if is_password { Question::Password } else { Question::Other })
    }
}

/// `Password:`, `[program] password for deploy:`; nothing that is another for each login.
fn is_plain_password(line: &str) -> bool {
    const OTHERS: [&str; 8] =
        ["one-time", "one time", "otp", "code", "token", "pin", "verification", "new password"];
    let line = line.to_lowercase();
    line.contains("password") && line.ends_with(':') && !OTHERS.iter().any(|other| line.contains(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn sudo_asks_what_it_is_told_to() {
        let told = |text: &str| Prompt::of(&words(text)).words(&words(text)).join(" ");
        assert_eq!(told("sudo"), "sudo -p nixos-activator: password: ");
        assert_eq!(
            told("/run/wrappers/bin/sudo -H"),
            "/run/wrappers/bin/sudo -p nixos-activator: password:  -H"
        );
        assert_eq!(told("env A=b sudo -H"), "env A=b sudo -p nixos-activator: password:  -H");
        assert_eq!(told("sudo -p pw:"), "sudo -p pw:");
        assert_eq!(told("doas"), "doas");
        assert_eq!(told("please"), "please");
    }

    #[test]
    fn a_question_is_the_last_thing_said() {
        let asks = |elevate: &str, heard: &str| Prompt::of(&words(elevate)).question(heard);
        assert_eq!(asks("sudo", "nixos-activator: password: "), Some(Question::Password));
        assert_eq!(asks("sudo", "nixos-activator: password: \r\n"), None);
        assert_eq!(asks("sudo -p pw:", "pw:"), Some(Question::Other));
        assert_eq!(asks("sudo -p password:", "password:"), Some(Question::Password));
        let polkit = "==== AUTHENTICATING FOR org.freedesktop.systemd1.manage-units ====\r\nAuthenticating \
                      as: deploy\r\nPassword: ";
        assert_eq!(asks("run0", polkit), Some(Question::Password));
        assert_eq!(asks("su -c", "Password: "), Some(Question::Password));
        assert_eq!(asks("su -c", "PIN for your password card: "), Some(Question::Other));
        assert_eq!(asks("su -c", "working"), None);
    }
}
