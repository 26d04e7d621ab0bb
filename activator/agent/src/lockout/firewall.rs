//! What the firewall of a NixOS system lets through, as far as its script or its rules say so plainly.

use std::ops::RangeInclusive;
use std::path::Path;

use super::{programs, store_paths, unit};

/// Whether connections to a TCP port are certainly refused.
pub(super) fn refuses(system: &Path, port: u16) -> bool {
    if let Some(text) = scripts(system, "firewall.service") {
        return iptables_refuses(&text, port);
    }
    scripts(system, "nftables.service").is_some_and(|text| nftables_refuses(&text, port))
}

/// What a unit of the system starts, and the files with rules that it names.
fn scripts(system: &Path, name: &str) -> Option<String> {
    let unit = unit(system, name)?;
    let mut text = String::new();
    for program in programs(&unit) {
        // What a unit runs at its end is not there before it has run.
        let Ok(script) = std::fs::read(program) else { continue };
        let script = String::from_utf8_lossy(&script).into_owned();
        for path in store_paths(&script).filter(|path| path.contains("rules")) {
            text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
        text.push_str(&script);
    }
    (!text.is_empty()).then_some(text)
}

/// `ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept`, as the module writes it. Whatever else decides about packets that come
/// in may be about this port too.
fn iptables_refuses(script: &str, port: u16) -> bool {
    const REFUSE: [&str; 7] =
        ["DROP", "REJECT", "LOG", "nixos-fw", "nixos-fw-log-refuse", "nixos-fw-refuse", "nixos-fw-drop"];
    // What is about replies, other protocols or the machine itself is not about us.
    const OTHERS: [&str; 5] = ["ESTABLISHED", "-i lo ", "-p udp", "-p icmp", "-p ipv6-icmp"];
    let script = script.replace("\\\n", " ");
    let may_be_ours = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |option: &[&str]| {
            words.iter().position(|word| option.contains(word)).and_then(|at| words.get(at + 1)).copied()
        };
        let decides = after(&["-A", "-I", "--append", "--insert"])
            .is_some_and(|chain| ["INPUT", "nixos-fw"].contains(&chain));
        let refuses = after(&["-j", "--jump", "-g", "--goto"]).is_none_or(|target| REFUSE.contains(&target));
        if line.trim_start().starts_with('#')
            || !decides
            || refuses
            || OTHERS.iter().any(|text| line.contains(text))
        {
            return false;
        }
        let ports = after(&["--dport", "--destination-port"]).and_then(|ports| ports_of(ports, ':'));
        ports.is_none_or(|ports| ports.contains(&port))
    };
    // Without the last word of the module's own chain it is none of the kind known here.
    script.contains("-A nixos-fw -j nixos-fw-log-refuse") && !script.lines().any(may_be_ours)
}

/// `tcp dport { 22, 8000-8080 } accept`, as the module writes it.
fn nftables_refuses(rules: &str, port: u16) -> bool {
    let accepts = |line: &&str| line.split_whitespace().any(|word| word == "accept" || word == "jump");
    let may_be_ours = |line: &str| {
        // What is about replies, other protocols or the machine itself is not about us.
        let others = [
            "established :",
            "related :",
            "jump input-allow",
            "udp dport",
            "icmp",
            "iifname lo ",
            "iifname \"lo\" ",
            "iifname { \"lo\" } ",
        ];
        if others.iter().any(|text| line.contains(text)) {
            return false;
        }
        let Some((_, rest)) = line.split_once("tcp dport ") else {
            return true;
        };
        let set = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(set, _)| set);
        let set = set.unwrap_or_else(|| rest.split_whitespace().next().unwrap_or_default());
        set.split(',').any(|ports| ports_of(ports.trim(), '-').is_none_or(|ports| ports.contains(&port)))
    };
    let mut lines = input_chains(rules).filter(accepts);
    rules.contains("table inet nixos-fw") && !lines.any(may_be_ours)
}

/// The lines of the chains that decide about what comes in.
fn input_chains(rules: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    rules.lines().filter(move |line| {
        let line = line.trim();
        if let Some(chain) = line.strip_prefix("chain ") {
            inside = chain.starts_with("input");
            return false;
        }
        inside
    })
}

/// `22`, or a range such as `8000:8080`. `None`: something else.
fn ports_of(text: &str, between: char) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_iptables_is_read() {
        let script = |rules: &str| {
            format!(
                "ip46tables -N nixos-fw\nip46tables -A nixos-fw -i lo -j nixos-fw-accept\n\
                 ip46tables -A nixos-fw -m conntrack --ctstate ESTABLISHED,RELATED -j nixos-fw-accept\n{rules}\n\
                 ip46tables -A nixos-fw -p udp --dport 60000:61000 -j nixos-fw-accept\n\
                 #iptables -A nixos-fw -d 224.0.0.0/4 -j nixos-fw-accept\n\
                 iptables -w -A nixos-fw -p icmp --icmp-type echo-request -j nixos-fw-accept\n\
                 ip46tables -A nixos-fw -j nixos-fw-log-refuse\n"
            )
        };
        let refuses = |rules: &str| iptables_refuses(&script(rules), 22);
        assert!(refuses(""));
        assert!(refuses("ip46tables -A nixos-fw -p tcp --dport 80 -j nixos-fw-accept"));
        assert!(refuses("ip46tables -A nixos-fw -p tcp --dport 23:99 -j nixos-fw-accept"));
        for open in [
            "ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept -i eth1",
            "ip46tables -A nixos-fw -p tcp --dport 20:30 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp --dport ssh -j nixos-fw-accept",
            "ip46tables -A nixos-fw -i wg0 -j nixos-fw-accept",
            "iptables -A nixos-fw -s 10.0.0.0/8 -j ACCEPT",
            "iptables -I INPUT -p tcp --dport 22 -s 10.0.0.0/8 -j ACCEPT",
            "iptables -A nixos-fw -p tcp --dport 22 -j ssh-in",
            "iptables -A nixos-fw -p tcp \\\n  --dport 22 -j nixos-fw-accept",
        ] {
            assert!(!refuses(open), "{open}");
        }
        assert!(!iptables_refuses("iptables -P INPUT DROP", 22), "a script of somebody's own says nothing");
    }

    #[test]
    fn the_rules_of_nftables_are_read() {
        let rules = |allow: &str| {
            format!(
                "table inet nixos-fw {{\n  chain rpfilter {{\n    type filter hook prerouting priority mangle + 10; policy drop;\n    \
                 fib saddr . mark oif exists accept\n  }}\n  chain input {{\n    type filter hook input priority filter; policy \
                 drop;\n    iifname {{ \"lo\" }} accept comment \"trusted interfaces\"\n    ct state vmap {{\n      invalid : \
                 drop,\n      established : accept,\n      related : accept,\n      new : jump input-allow,\n      untracked: jump \
                 input-allow,\n    }}\n  }}\n  chain input-allow {{\n    {allow}\n    icmp type echo-request accept comment \
                 \"allow ping\"\n    icmpv6 type != {{ nd-redirect, 139 }} accept\n    ip6 daddr fe80::/64 udp dport 546 accept\n  \
                 }}\n  chain forward {{\n    accept\n  }}\n}}\n"
            )
        };
        let refuses = |allow: &str| nftables_refuses(&rules(allow), 22);
        assert!(refuses(""));
        assert!(refuses("tcp dport { 80, 8000-8080 } accept"));
        for open in [
            "tcp dport { 80, 22 } accept",
            "tcp dport { 20-30 } accept",
            "tcp dport 22 accept",
            "iifname eth1 tcp dport { 22 } accept",
            "iifname wg0 accept",
            "ip saddr 10.0.0.0/8 accept",
        ] {
            assert!(!refuses(open), "{open}");
        }
    }
}
