//! The script of nixpkgs' `firewall-iptables.nix`, with what `extraCommands` adds to it.
//!
//! An incoming packet goes from INPUT to `nixos-fw`. What `nixos-fw` does not accept goes to `nixos-fw-log-refuse` and
//! from there to `nixos-fw-refuse`, which drops it.

use super::ports::may_have;

/// The chains that a refused packet goes through.
const CHAINS: [&str; 4] = ["INPUT", "nixos-fw", "nixos-fw-log-refuse", "nixos-fw-refuse"];

/// The two chains that refuse. A rule that is removed from them may let everything in.
const REFUSING: [&str; 2] = ["nixos-fw-log-refuse", "nixos-fw-refuse"];

/// Programs that change the tables of the kernel.
const TABLES: [&str; 3] = ["ip46tables", "iptables", "ip6tables"];

/// Words of the shell and programs that change nothing in the tables.
const HARMLESS: [&str; 14] = [
    "for",
    "done",
    "fi",
    "true",
    "false",
    ":",
    "}",
    "echo",
    "logger",
    "ipset",
    "sysctl",
    "modprobe",
    "ip",
    "ip46tables()",
];
/// Words of the shell that a command follows.
const PREFIXES: [&str; 8] = ["do", "then", "else", "if", "elif", "while", "!", "{"];

pub(super) fn refuses(script: &str, port: u16) -> bool {
    let script = script.replace("\\\n", " ");
    let mut firewall = Firewall::default();
    script.lines().all(|line| firewall.read_line(line, port)) && firewall.is_closed()
}

/// Which parts of the way from INPUT to the end the script has built so far.
#[derive(Default)]
struct Firewall {
    /// INPUT leads to `nixos-fw`.
    begins: bool,
    /// `nixos-fw` leads to `nixos-fw-log-refuse`.
    ends: bool,
    /// `nixos-fw-refuse` drops.
    refuses: bool,
}

impl Firewall {
    fn is_closed(&self) -> bool {
        self.begins && self.ends && self.refuses
    }

    /// Reads a line; `false`: it is not understood, or may let connections to the port in.
    fn read_line(&mut self, line: &str, port: u16) -> bool {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return true;
        }
        commands(line).all(|words| self.command(&words, port))
    }

    fn command(&mut self, words: &[&str], port: u16) -> bool {
        let start = words.iter().position(|word| !PREFIXES.contains(word)).unwrap_or(words.len());
        let Some((program, arguments)) = words.get(start..).and_then(<[_]>::split_first) else {
            return true;
        };
        if !TABLES.contains(program) {
            return HARMLESS.contains(program);
        }
        let rule = Rule { words: arguments };
        // Other tables accept nothing. A packet that they rewrite arrives here rewritten.
        if rule.after(&["-t", "--table"]).is_some_and(|table| table != "filter") {
            return true;
        }
        if let Some(chain) = rule.after(&["-A", "-I", "--append", "--insert"]) {
            return self.add(chain, &rule, port);
        }
        let removes = rule.after(&["-D", "-R", "-X", "--delete", "--replace", "--delete-chain"]);
        let flushes =
            rule.position(&["-F", "--flush"]).map(|at| rule.words.get(at + 1).copied().unwrap_or_default());
        match (removes, flushes) {
            // At the beginning of the script, which removes the old chains and makes new ones.
            (Some("\"$chain\""), _) | (_, Some("\"$chain\"")) if !self.begins && !self.refuses => true,
            (Some("INPUT"), _) => {
                rule.position(&["-D", "--delete"]).is_some()
                    && (rule.target() != Some("nixos-fw") || !self.begins)
            }
            (Some(chain), _) => {
                chain != "nixos-fw" && !REFUSING.contains(&chain) || (chain == "nixos-fw" && !self.ends)
            }
            (None, Some("")) => false,
            (None, Some(chain)) => !CHAINS.contains(&chain),
            // A new chain, a policy, or a listing.
            (None, None) => {
                rule.position(&["-N", "-P", "-L", "-S", "-Z", "--new-chain", "--policy"]).is_some()
                    || arguments == ["-w", "\"$@\""]
            }
        }
    }

    fn add(&mut self, chain: &str, rule: &Rule<'_>, port: u16) -> bool {
        if !CHAINS.contains(&chain) {
            // Another chain decides nothing unless a rule of these chains leads there.
            return true;
        }
        let is_unconditional = rule.words.len() == 4;
        match (chain, rule.target()) {
            ("INPUT", Some("nixos-fw")) => self.begins |= is_unconditional,
            ("nixos-fw", Some("nixos-fw-log-refuse")) => self.ends |= is_unconditional,
            ("nixos-fw-refuse", Some("DROP" | "REJECT")) => self.refuses |= is_unconditional,
            _ => {}
        }
        !rule.may_accept(port)
    }
}

/// The commands of a line, each in words. Quotes are kept, so that a quoted text is not taken for an option.
fn commands(line: &str) -> impl Iterator<Item = Vec<&str>> {
    let commands = line.split([';', '|', '&']).map(|command| command.split_whitespace().collect::<Vec<_>>());
    // `2>&1` is cut at the `&`, which leaves a command `1`.
    commands.filter(|words| !words.is_empty() && words.as_slice() != ["1"])
}

/// The arguments of `iptables`.
struct Rule<'a> {
    words: &'a [&'a str],
}

impl<'a> Rule<'a> {
    fn position(&self, options: &[&str]) -> Option<usize> {
        self.words.iter().position(|word| options.contains(word))
    }

    fn after(&self, options: &[&str]) -> Option<&'a str> {
        self.words.get(self.position(options)? + 1).copied()
    }

    fn target(&self) -> Option<&'a str> {
        self.after(&["-j", "--jump", "-g", "--goto"])
    }

    /// Whether the rule may let a new connection to the port in.
    fn may_accept(&self, port: u16) -> bool {
        const REFUSE: [&str; 12] = [
            "DROP",
            "REJECT",
            "LOG",
            "NFLOG",
            "MARK",
            "CONNMARK",
            "SET",
            "nixos-fw",
            "nixos-fw-log-refuse",
            "nixos-fw-refuse",
            "nixos-drop",
            "TARPIT",
        ];
        if self.target().is_none_or(|target| REFUSE.contains(&target)) {
            return false;
        }
        // Negations and quoted words are not understood.
        if self.words.iter().any(|word| *word == "!" || word.starts_with(['\'', '"', '!'])) {
            return true;
        }
        let protocol = self.after(&["-p", "--protocol"]);
        let is_other = protocol
            .is_some_and(|name| ["udp", "icmp", "icmpv6", "ipv6-icmp", "esp", "ah", "gre"].contains(&name));
        let is_local = self.after(&["-i", "--in-interface"]) == Some("lo");
        let is_reply = self
            .after(&["--ctstate", "--state"])
            .is_some_and(|states| states.split(',').all(|state| ["ESTABLISHED", "RELATED"].contains(&state)));
        if is_other || is_local || is_reply {
            return false;
        }
        let ports = self.after(&["--dport", "--dports", "--destination-port", "--destination-ports"]);
        ports.is_none_or(|ports| may_have(ports, ':', port))
    }
}
