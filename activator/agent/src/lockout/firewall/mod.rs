//! Whether the firewall of a NixOS system certainly refuses a port.
//!
//! That is certain only where every line of the firewall's script or rules is understood. Only the programs that start
//! the firewall count. The program that reloads it drops everything for a moment, and the program that stops it removes
//! rules, so neither shows what the firewall does while it runs.

mod iptables;
mod nftables;
mod ports;

use std::path::Path;

use super::unit_files::{programs_of, unit};

/// Whether connections to a TCP port are certainly refused.
pub(super) fn refuses(system: &Path, port: u16) -> bool {
    if unit(system, "firewall.service").is_some() {
        return started(system, "firewall.service")
            .is_some_and(|programs| iptables::refuses(&programs.concat(), port));
    }
    started(system, "nftables.service").is_some_and(|programs| nftables::refuses(&programs, port))
}

/// The texts of the programs that run when a unit of the system starts, with the files that they include. `None`: no
/// target starts the unit, or a program of it cannot be read.
fn started(system: &Path, name: &str) -> Option<Vec<String>> {
    let unit = unit(system, name).filter(|_| is_wanted(system, name))?;
    let mut programs = vec![];
    for program in starters(&unit) {
        let script = std::fs::read(program).ok()?;
        let mut text = String::new();
        for line in String::from_utf8_lossy(&script).lines() {
            let included = line.trim().strip_prefix("include \"").and_then(|rest| rest.strip_suffix('"'));
            let included = included.and_then(|path| std::fs::read_to_string(path).ok());
            text.push_str(included.as_deref().unwrap_or(line));
            text.push('\n');
        }
        programs.push(text);
    }
    (!programs.is_empty()).then_some(programs)
}

/// The programs that run when a unit starts.
fn starters(unit: &str) -> impl Iterator<Item = &str> {
    programs_of(unit, &["ExecStartPre", "ExecStart", "ExecStartPost"])
}

/// Whether a target of the system starts the unit.
fn is_wanted(system: &Path, name: &str) -> bool {
    let directories = std::fs::read_dir(system.join("etc/systemd/system")).into_iter().flatten().flatten();
    directories.map(|entry| entry.path()).any(|path| {
        path.extension().is_some_and(|kind| kind == "wants" || kind == "requires")
            && path.join(name).symlink_metadata().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system whose firewall is one of `shapes/`: what nixpkgs' modules write for it, without empty lines. A line
    /// that begins with `+` is there only if port 22 is open, and one with `-` only if it is closed.
    struct Shape {
        name: String,
        tool: &'static str,
        text: String,
    }

    fn shapes(tool: &'static str) -> Vec<Shape> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lockout/firewall/shapes").join(tool);
        let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        let shape = |path: std::path::PathBuf| Shape {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            tool,
            text: std::fs::read_to_string(&path).unwrap(),
        };
        files.map(shape).collect()
    }

    impl Shape {
        /// The system, installed in a directory: each program in a file, and the unit that names them.
        fn install(&self, sign: char) -> tempfile::TempDir {
            let system = tempfile::tempdir().unwrap();
            let units = system.path().join("etc/systemd/system");
            std::fs::create_dir_all(units.join("sysinit.target.wants")).unwrap();
            let mut unit = "[Service]\nType=oneshot\n".to_owned();
            for part in self.text.split("=== ").filter(|part| !part.is_empty()) {
                let (program, lines) = part.split_once('\n').unwrap();
                let is_there = |line: &&str| line.starts_with([' ', sign]);
                let script: Vec<&str> =
                    lines.lines().filter(is_there).map(|line| line.get(2..).unwrap_or_default()).collect();
                let path = system.path().join(program);
                std::fs::write(&path, script.join("\n")).unwrap();
                let key = match program {
                    "firewall-reload" => "ExecReload",
                    "firewall-stop" => "ExecStop",
                    "nftables-save-deletions" => "ExecStartPost",
                    _ => "ExecStart",
                };
                unit.push_str(&format!("{key}=@{} {program}\n", path.display()));
            }
            let name = if self.tool == "iptables" { "firewall.service" } else { "nftables.service" };
            std::fs::write(units.join(name), unit).unwrap();
            std::os::unix::fs::symlink(format!("../{name}"), units.join("sysinit.target.wants").join(name))
                .unwrap();
            system
        }
    }

    #[test]
    fn what_the_modules_write_is_read_rightly() {
        for tool in ["iptables", "nftables"] {
            let shapes = shapes(tool);
            assert!(shapes.len() >= 17, "{tool} has {} shapes", shapes.len());
            for shape in shapes {
                for (sign, expected) in [('-', true), ('+', false)] {
                    let system = shape.install(sign);
                    assert_eq!(refuses(system.path(), 22), expected, "{tool} {} {sign}", shape.name);
                }
            }
        }
    }

    #[test]
    fn a_firewall_that_nothing_starts_refuses_nothing() {
        for tool in ["iptables", "nftables"] {
            let plain = shapes(tool).into_iter().find(|shape| shape.name == "plain").unwrap();
            let system = plain.install('-');
            assert!(refuses(system.path(), 22));
            std::fs::remove_dir_all(system.path().join("etc/systemd/system/sysinit.target.wants")).unwrap();
            assert!(!refuses(system.path(), 22), "{tool}");
        }
    }

    #[test]
    fn rules_may_be_in_a_file_of_their_own() {
        let plain = shapes("nftables").into_iter().find(|shape| shape.name == "plain").unwrap();
        for (sign, expected) in [('-', true), ('+', false)] {
            let system = plain.install(sign);
            let (program, rules) = (system.path().join("nftables-rules"), system.path().join("rules.nft"));
            std::fs::rename(&program, &rules).unwrap();
            // As NixOS 22.11 has it.
            let script = format!("#! /nft/bin/nft -f\nflush ruleset\ninclude \"{}\"\n", rules.display());
            std::fs::write(&program, script).unwrap();
            assert_eq!(refuses(system.path(), 22), expected);
            std::fs::remove_file(&rules).unwrap();
            assert!(!refuses(system.path(), 22), "what cannot be read says nothing");
        }
    }

    #[test]
    fn another_program_of_the_unit_may_let_anything_in() {
        let plain = shapes("nftables").into_iter().find(|shape| shape.name == "plain").unwrap();
        let refuses_with = |line: &str| {
            let (mark, text) = ("=== nftables-save-deletions\n", plain.text.clone());
            assert!(text.contains(mark));
            let text = text.replace(mark, &format!("{mark}  {line}\n"));
            refuses(Shape { name: line.to_owned(), tool: "nftables", text }.install('-').path(), 22)
        };
        assert!(refuses_with("# nothing"));
        assert!(!refuses_with("nft add rule inet nixos-fw input-allow tcp dport 22 accept"));
        assert!(!refuses_with("cp /nix/store/x /var/lib/nftables/deletions.nft; nft -f /more"));
    }

    #[test]
    fn every_line_has_to_be_understood() {
        let plain = shapes("iptables").into_iter().find(|shape| shape.name == "plain").unwrap();
        let refuses_with = |line: &str| {
            let end = "  ip46tables -A nixos-fw -j nixos-fw-log-refuse";
            let text = plain.text.replacen(end, &format!("  {line}\n{end}"), 1);
            let shape = Shape { name: line.to_owned(), tool: "iptables", text };
            refuses(shape.install('-').path(), 22)
        };
        for closed in [
            "",
            "# iptables -A nixos-fw -p tcp --dport 22 -j ACCEPT",
            "iptables -w -A nixos-fw -p tcp --dport 80 -j nixos-fw-accept",
            "iptables -A nixos-fw -p tcp -m multiport --dports 80,443 -j nixos-fw-accept",
            "iptables -A nixos-fw -p tcp --dport 80 -j web-in",
            "for p in 80 443; do iptables -A nixos-fw -p tcp --dport 80 -j nixos-fw-accept; done",
            "iptables -D INPUT -p tcp --dport 22 -j ACCEPT || true",
            "iptables -P INPUT DROP",
            "ip46tables -t raw -A PREROUTING -p tcp --dport 22 -j NOTRACK",
            "ipset create -exist office hash:net",
            "iptables -A nixos-fw -p tcp --dport 22 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        ] {
            assert!(refuses_with(closed), "{closed}");
        }
        for open in [
            "ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp --dport 22 -j nixos-fw-accept -i eth1",
            "ip46tables -A nixos-fw -p tcp --dport 20:30 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp --dport ssh -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp -m multiport --dports 80,22 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -p tcp ! --dport 80 -j nixos-fw-accept",
            "ip46tables -A nixos-fw ! -i lo -j nixos-fw-accept",
            "ip46tables -A nixos-fw ! -p udp -j nixos-fw-accept",
            "ip46tables -A nixos-fw -i wg0 -j nixos-fw-accept",
            "ip46tables -A nixos-fw -m conntrack --ctstate NEW,ESTABLISHED -j nixos-fw-accept",
            "ip46tables -A nixos-fw -m comment --comment '-p udp' -j ACCEPT",
            "iptables -A nixos-fw -s 10.0.0.0/8 -j ACCEPT",
            "iptables -I nixos-fw-log-refuse -p tcp --dport 22 -j ACCEPT",
            "iptables -I nixos-fw-refuse 1 -s 10.0.0.1 -j RETURN",
            "iptables -F nixos-fw-refuse",
            "iptables -F",
            "iptables -I INPUT -p tcp --dport 22 -s 10.0.0.0/8 -j ACCEPT",
            "iptables -A nixos-fw -p tcp --dport 22 -j ssh-in",
            "iptables -A nixos-fw -p tcp \\\n    --dport 22 -j nixos-fw-accept",
            "for p in 22 80; do iptables -A nixos-fw -p tcp --dport \"$p\" -j nixos-fw-accept; done",
            "iptables -A nixos-fw -j RETURN",
            "iptables-restore -n /etc/rules",
            "/nix/store/x-more/bin/more-rules",
            "nft add rule ip filter nixos-fw tcp dport 22 accept",
            "exit 0",
            "if true; then iptables -A nixos-fw -p tcp --dport 22 -j ACCEPT; fi",
        ] {
            assert!(!refuses_with(open), "{open}");
        }
    }

    #[test]
    fn every_statement_has_to_be_understood() {
        let plain = shapes("nftables").into_iter().find(|shape| shape.name == "plain").unwrap();
        let with = |mark: &str, replacement: &str| {
            assert!(plain.text.contains(mark), "{mark}");
            let text = plain.text.replacen(mark, replacement, 1);
            refuses(Shape { name: String::new(), tool: "nftables", text }.install('-').path(), 22)
        };
        let end = "ip6 daddr fe80::/64 udp dport 546 accept comment \"DHCPv6 client\"\n";
        let allowed = |line: &str| with(end, &format!("{end}    {line}\n"));
        for closed in [
            "tcp dport { 80, 8000-8080 } accept",
            "tcp dport {\n    80,\n    443\n    } accept",
            "tcp dport 22 drop",
            "tcp dport 22 counter reject with tcp reset",
            "ct state { established, related } accept",
            "udp dport 22 accept comment \"tcp dport 22 accept\"",
            "tcp dport 80 jump web-in; udp dport 53 accept",
        ] {
            assert!(allowed(closed), "{closed}");
        }
        for open in [
            "tcp dport { 80, 22 } accept",
            "tcp dport {\n    80,\n    22\n    } accept",
            "tcp dport { 20-30 } accept",
            "tcp dport != 80 accept",
            "tcp dport ssh accept",
            "tcp dport $ports accept",
            "tcp dport @ports accept",
            "tcp dport vmap @services",
            "tcp dport vmap { 22 : accept }",
            "tcp dport 22 goto ssh-in",
            "tcp dport 22 jump ssh-in",
            "tcp dport 22 queue num 1",
            "udp dport 53 accept; tcp dport 22 accept",
            "iifname eth1 tcp dport { 22 } accept",
            "iifname wg0 accept",
            "iifname != \"lo\" accept",
            "ip saddr 10.0.0.0/8 accept",
            "ip saddr 10.0.0.0/8 accept comment \"icmp type, udp dport 1\"",
            "meta l4proto { tcp, udp } th dport 22 accept",
            "ct state { new, established } accept",
            "include \"/etc/more.nft\"",
        ] {
            assert!(!allowed(open), "{open}");
        }
        let hook = "type filter hook input priority filter; policy drop;";
        assert!(!with(hook, "type filter hook input priority filter; policy accept;"));
        assert!(!with("new : jump input-allow,", "new : accept,"));
        let top = "table inet nixos-fw {";
        assert!(!with(top, "include \"/etc/more.nft\"\n  table inet nixos-fw {"), "more may come from there");
        assert!(with(
            top,
            "table ip filter {\n  chain input { tcp dport 22 accept; }\n  }\n  table inet nixos-fw {"
        ));
        assert!(!with(
            top,
            "add rule inet nixos-fw input-allow tcp dport 22 accept\n  table inet nixos-fw {"
        ));
    }
}
