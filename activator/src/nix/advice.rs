//! What to do where the words of Nix, git or ssh do not say it: for sources that cannot be fetched or read.

/// Words that only one trouble has, and what mends it.
const KNOWN: [(&[&str], &str); 7] = [
    (
        &["Host key verification failed", "host key is known for"],
        "`ssh` does not know the host key of the server that this comes from, and nothing is asked while \
         Terraform runs. Add the key to `known_hosts` where Terraform runs (`ssh-keyscan` shows it; \
         compare it with what the server's owner says).",
    ),
    (
        &["Permission denied (publickey", "Permission denied (password", "Permission denied (keyboard"],
        "The server that this comes from has refused the SSH login, and nothing is asked while Terraform \
         runs. It takes the keys of `ssh-agent` (`SSH_AUTH_SOCK`) and of `ssh_config`. A key with a \
         passphrase has to be in the agent.",
    ),
    (
        &[
            "could not read Username",
            "could not read Password",
            "terminal prompts disabled",
            "Authentication failed for",
        ],
        "The server that this comes from wants a user name and a password, and nothing is asked while \
         Terraform runs. Give git a credential helper, or use `git+ssh:`; for `github:` and `gitlab:` set \
         `access-tokens` in `nix.options` of the provider block.",
    ),
    (
        &["rate limit"],
        "GitHub answers a few requests an hour without a token. Set one in the provider block: nix = { \
         options = { access-tokens = \"github.com=…\" } }. A reference with a revision \
         (`github:owner/repo/REV`) needs none.",
    ),
    (
        &["is not owned by current user", "dubious ownership", "repository path is not owned"],
        "The repository belongs to another user than the one that Terraform runs as, and git refuses it. \
         If that is as it should be: `git config --global --add safe.directory DIRECTORY`; or take the \
         directory as it is: flake = \"path:${abspath(path.module)}\".",
    ),
    (
        &["is not tracked by Git", "does not contain a 'flake.nix'", "/flake.nix' does not exist"],
        "Of a git repository Nix sees only what git knows: `git add` new files, a commit is not needed. Or \
         take the directory as it is: flake = \"path:${abspath(path.module)}\".",
    ),
    (
        &["HTTP error 404"],
        "A private repository is not there for those without a token: set `access-tokens` in `nix.options` \
         of the provider block.",
    ),
];

/// What to do about an error, where that is known.
pub fn advice(message: &str) -> Option<&'static str> {
    let (words, advice) = KNOWN.iter().find(|(words, _)| words.iter().any(|word| message.contains(word)))?;
    // Other servers have pages that are missing, too.
    let is_elsewhere = words.contains(&"HTTP error 404")
        && !message.contains("api.github.com")
        && !message.contains("gitlab");
    (!is_elsewhere).then_some(*advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_known_by_their_words() {
        for (message, says) in [
            (
                "fatal: could not read Username for 'https://git.example.org': terminal prompts disabled",
                "credential",
            ),
            (
                "git@x: Permission denied (publickey,password).\nfatal: Could not read from remote",
                "ssh-agent",
            ),
            ("Host key verification failed.\nfatal: Could not read from remote repository.", "known_hosts"),
            (
                "HTTP error 403 ('rate limit exceeded')\n{\"message\":\"API rate limit exceeded for \
                 1.2.3.4\"}",
                "access-tokens",
            ),
            (
                "unable to download 'https://api.github.com/repos/a/b/commits/HEAD': HTTP error 404",
                "access-tokens",
            ),
            ("error: repository path '/srv/x' is not owned by current user", "safe.directory"),
            ("error: Path 'x/flake.nix' in the repository \"/r\" is not tracked by Git.", "git add"),
        ] {
            assert!(
                advice(message).is_some_and(|advice| advice.contains(says)),
                "{message}: {:?}",
                advice(message)
            );
        }
        assert_eq!(advice("unable to download 'https://example.org/x': HTTP error 404"), None);
        assert_eq!(advice("error: undefined variable 'x'"), None);
    }
}
