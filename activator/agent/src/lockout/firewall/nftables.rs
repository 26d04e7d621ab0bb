//! The rules of nixpkgs' `firewall-nftables.nix`, with what `extraInputRules` and other tables add to them.
//!
//! The chain `input` of the table `inet nixos-fw` drops what it does not accept, whatever other tables accept. It
//! accepts replies itself, and sends new connections to the chain `input-allow`.

use super::ports::may_have;

/// Whether connections to a port are certainly refused. `programs` are the texts of the unit's programs: rules for
/// `nft`, and scripts that keep the file of deletions.
pub(super) fn refuses(programs: &[String], port: u16) -> bool {
    let is_for_nft = |program: &&String| {
        program
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("#!") && line.trim_end().ends_with("/nft -f"))
    };
    let (rules, scripts): (Vec<&String>, Vec<&String>) = programs.iter().partition(is_for_nft);
    scripts.into_iter().all(|script| only_keeps_deletions(script))
        && rules_refuse(&rules.into_iter().map(String::as_str).collect::<String>(), port)
}

/// Whether a shell script handles the file of deletions and does nothing else.
fn only_keeps_deletions(script: &str) -> bool {
    script.lines().map(str::trim).all(|line| {
        let mut words = line.split_whitespace();
        let is_plain = !line.contains([';', '|', '&', '$', '`', '(', '<', '>']);
        line.is_empty()
            || line.starts_with('#')
            || is_plain
                && words.next().is_some_and(|program| ["touch", "chmod", "cp", "rm"].contains(&program))
                && words.last() == Some(DELETIONS)
    })
}

/// The file of deletions: the rules by which the module removes its tables again.
const DELETIONS: &str = "/var/lib/nftables/deletions.nft";

fn rules_refuse(rules: &str, port: u16) -> bool {
    let rules = without_comments(rules);
    let Some(top) = block(&rules) else { return false };
    let is_ours = |head: &str| head.split_whitespace().eq(["table", "inet", "nixos-fw"]);
    let mut chains: Vec<(&str, Vec<Statement<'_>>)> = vec![];
    for statement in &top {
        match statement.body {
            Some(body) if is_ours(statement.head) => {
                let Some(parts) = block(body) else { return false };
                for part in parts {
                    let mut words = part.head.split_whitespace();
                    if words.next() != Some("chain") {
                        // A set or a map. The rules that use it are looked at.
                        continue;
                    }
                    let Some(statements) = part.body.and_then(block) else { return false };
                    chains.push((words.next().unwrap_or_default(), statements));
                }
            }
            Some(_) if statement.head.starts_with("table ") => {}
            // The deletions of the module itself, before it adds anything.
            _ if chains.is_empty() && is_deletion(statement.head) => {}
            _ => return false,
        }
    }
    let of =
        |name: &'static str| chains.iter().filter(move |(chain, _)| *chain == name).flat_map(|(_, all)| all);
    let drops = of("input").any(|statement| statement.head == "policy drop")
        && of("input").any(|statement| statement.head.starts_with("type filter hook input "));
    drops && of("input").chain(of("input-allow")).all(|statement| !statement.may_accept(port))
}

/// Whether a statement removes tables of the system before.
fn is_deletion(head: &str) -> bool {
    head.starts_with("include ") && head.trim_end_matches('"').ends_with("deletions")
        || head.contains(DELETIONS)
        || head == "flush ruleset"
        || head.starts_with("delete table ")
        || head.starts_with("table ") && head.split_whitespace().count() == 3
}

/// The rules without comments, and without quoted texts behind `comment` and `prefix`, which mean nothing to the
/// firewall.
fn without_comments(rules: &str) -> String {
    let mut plain = String::with_capacity(rules.len());
    for line in rules.lines() {
        let mut rest = line;
        while let Some(at) = rest.find(['#', '"']) {
            let (before, found) = rest.split_at(at);
            plain.push_str(before);
            if found.starts_with('#') {
                rest = "";
                break;
            }
            let end = found.get(1..).and_then(|text| text.find('"')).map_or(found.len(), |end| end + 2);
            let (text, after) = found.split_at(end);
            if !before.trim_end().ends_with("comment") && !before.trim_end().ends_with("prefix") {
                plain.push_str(text);
            }
            rest = after;
        }
        plain.push_str(rest);
        plain.push('\n');
    }
    plain
}

/// `HEAD` or `HEAD { BODY } TAIL`.
#[derive(Debug)]
struct Statement<'a> {
    /// What is before the braces, or all of a statement without a block.
    head: &'a str,
    /// What is in the braces; `None`: the statement has no block.
    body: Option<&'a str>,
}

/// The statements of a block; `None`: its braces do not match.
///
/// A statement ends with its line or with `;`, unless a brace is open.
fn block(text: &str) -> Option<Vec<Statement<'_>>> {
    let mut statements = vec![];
    let (mut start, mut depth, mut opened) = (0, 0_u32, None);
    for (at, sign) in text.char_indices().chain([(text.len(), '\n')]) {
        match sign {
            '{' => {
                opened = opened.or(Some(at));
                depth += 1;
            }
            '}' => depth = depth.checked_sub(1)?,
            '\n' | ';' if depth == 0 => {
                let whole = text.get(start..at)?.trim();
                let body = opened.filter(|_| whole.ends_with('}')).and_then(|open| {
                    let inner = text.get(open + 1..at)?;
                    Some((text.get(start..open)?.trim(), inner.get(..inner.rfind('}')?)?))
                });
                match body {
                    // A rule may have sets in braces, which are no block.
                    Some((head, body)) if !is_rule(head) => {
                        statements.push(Statement { head, body: Some(body) });
                    }
                    _ if !whole.is_empty() => statements.push(Statement { head: whole, body: None }),
                    _ => {}
                }
                (start, opened) = (at + 1, None);
            }
            _ => {}
        }
    }
    (depth == 0).then_some(statements)
}

/// Whether braces behind `head` are a set of a rule, and no block.
fn is_rule(head: &str) -> bool {
    !["table", "chain", "set", "map", "flowtable", "counter", "quota", "limit", "ct"]
        .contains(&head.split_whitespace().next().unwrap_or_default())
        || head.starts_with("ct state")
}

impl Statement<'_> {
    /// Whether the statement may let a new connection to the port in, or send it to a chain that may.
    fn may_accept(&self, port: u16) -> bool {
        const DECIDE: [&str; 7] = ["accept", "jump", "goto", "vmap", "queue", "include", "continue"];
        const REPLIES: [&str; 2] = ["established", "related"];
        if self.body.is_some() {
            return true;
        }
        let spaced = self.head.replace('{', " { ").replace('}', " } ").replace([',', ':'], " ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        if !words.iter().any(|word| DECIDE.contains(word)) {
            return false;
        }
        if words.starts_with(&["ct", "state", "vmap"]) {
            return !self.maps_new_connections_to_input_allow();
        }
        let is_about = |keywords: &[&str], values: &[&str]| {
            operand(&words, keywords).is_some_and(|found| found.iter().all(|word| values.contains(word)))
        };
        let has = |keywords: &[&str]| operand(&words, keywords).is_some();
        if is_about(&["ct", "state"], &REPLIES)
            || is_about(&["iifname"], &["lo", "\"lo\""])
            || is_about(&["iif"], &["lo", "\"lo\""])
            || has(&["udp", "dport"])
            || has(&["icmp", "type"])
            || has(&["icmpv6", "type"])
        {
            return false;
        }
        let ports = operand(&words, &["tcp", "dport"]);
        ports.is_none_or(|ports| ports.iter().any(|one| may_have(one, '-', port)))
    }

    /// Whether a map of states accepts replies only, and sends new connections nowhere but to `input-allow`:
    /// `ct state vmap { established : accept, new : jump input-allow, … }`.
    fn maps_new_connections_to_input_allow(&self) -> bool {
        let map = self.head.split(['{', '}']).nth(1).unwrap_or("?");
        let mut entries = map.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.all(|entry| {
            entry.split_once(':').is_some_and(|(state, verdict)| {
                ["established", "related"].contains(&state.trim())
                    || ["drop", "jump input-allow"].contains(&verdict.trim())
            })
        })
    }
}

/// The words behind these keywords: those of a set, or one word.
fn operand<'a>(words: &'a [&'a str], keywords: &[&str]) -> Option<&'a [&'a str]> {
    let at = words.windows(keywords.len()).position(|window| window == keywords)? + keywords.len();
    let rest = words.get(at..)?;
    match rest.split_first()? {
        (&"{", set) => set.get(..set.iter().position(|word| *word == "}")?),
        _ => rest.get(..1),
    }
}
