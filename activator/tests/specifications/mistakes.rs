//! Specifications that are wrong.

use super::*;

/// Cut off anywhere, and with characters that do not belong there.
fn broken_syntax() -> Vec<(String, Option<&'static str>)> {
    let whole = "{ lib ? null, ... }:\n{\n  defaults = { nixpkgs.hostPlatform = \"x86_64-linux\"; };\n  a = { config, ... }: {\n    \
                 system.stateVersion = \"24.11\";\n    environment.etc.\"x y\".text = ''\n      ${config.networking.hostName}\n    '';\n  };\n}";
    let mut bad: Vec<_> =
        (1..whole.len()).step_by(2).map(|end| (whole[..end].to_owned(), Some("network.nix:"))).collect();
    for c in ["@@", "§", "\u{200b}", "==", "}}", "((", ";;", "\"", "${", "\\", "\u{1f980}"] {
        bad.push((whole.replacen("system", &format!("{c} system"), 1), Some("network.nix:")));
        bad.push((format!("{}{c}", &whole[..24]), Some("network.nix:")));
    }
    bad
}

/// Options of the wrong type, and options that are none.
fn broken_options() -> Vec<(String, Option<&'static str>)> {
    let mut bad = vec![];
    for option in ["system.stateVersion", "networking.hostName", "deployment.targetPort", "deployment.owners"]
    {
        for value in ["42", "true", "[ 1 ]", "{ a = 1; }", "(x: x)", "null", "1.5"] {
            // What is right after all.
            if option == "deployment.targetPort" && matches!(value, "42" | "null") {
                continue;
            }
            let used = "environment.etc.used.text = builtins.toJSON";
            bad.push((
                format!(
                    "{{ a = {{ config, lib, ... }}: {{ nixpkgs.hostPlatform = \"x86_64-linux\"; \
                     system.stateVersion = lib.mkDefault \"24.11\"; {option} = {value}; {used} config.{option}; }}; }}"
                ),
                None,
            ));
        }
    }
    for option in
        ["no.such.option", "deployment.ec3.region", "systemd.services.x.noSuch", "environment.etc.x.noSuch"]
    {
        bad.push((format!("{{ a = {{ {BASE} {option} = 1; }}; }}"), Some("does not exist")));
    }
    bad
}

/// Mistakes of other kinds, each with what its message has to say.
const MISTAKES: [(&str, Option<&str>); 26] = [
    ("let x = x; in x", Some("infinite recursion")),
    (
        "{ a = { config, ... }: { BASE networking.hostName = config.networking.hostName; }; }",
        Some("infinite recursion"),
    ),
    (
        "{ a = { nodes, ... }: { BASE environment.etc.x.text = nodes.a.config.environment.etc.x.text; }; }",
        Some("infinite recursion"),
    ),
    ("{ a = ./no-such-file.nix; }", Some("no-such-file.nix")),
    ("{ require = [ ./no-such-file.nix ]; }", Some("no-such-file.nix")),
    ("{ a = { imports = [ ./no-such-file.nix ]; }; }", Some("no-such-file.nix")),
    ("{ a = throw \"thrown\"; }", Some("thrown")),
    ("throw \"thrown\"", Some("thrown")),
    ("abort \"aborted\"", Some("aborted")),
    ("assert false; { }", Some("assertion")),
    ("{ a = { BASE environment.etc.x.text = abort \"aborted\"; }; }", Some("aborted")),
    (
        "{ a = { BASE assertions = [ { assertion = false; message = \"not like this\"; } ]; }; }",
        Some("not like this"),
    ),
    ("{ a = { BASE environment.etc.x.text = builtins.foldl' (a: b: a + b) \"\" 1; }; }", None),
    ("{ a = { BASE environment.etc.x.text = { }.missing; }; }", Some("missing")),
    ("{ a = { BASE environment.etc.x.text = undefinedName; }; }", Some("undefined variable")),
    ("{ a = { BASE environment.etc.x.text = builtins.fetchurl \"http://127.0.0.1:1/x\"; }; }", None),
    ("{ a = { BASE environment.etc.x.source = <no-such-entry>; }; }", Some("no-such-entry")),
    ("42", None),
    ("[ ]", None),
    ("\"text\"", None),
    ("{ a = 42; }", None),
    ("{ a = [ ]; }", None),
    ("{ \"machine 1\" = { BASE }; }", Some("is not the name of a machine")),
    ("{ \"../a\" = { BASE }; }", Some("is not the name of a machine")),
    ("{ needed }: { a = { BASE }; }", Some("takes the argument `needed`")),
    ("{ network.nixpkgs = ./nowhere; a = { BASE }; }", Some("nowhere")),
];

/// Two hundred ways to be wrong: none hangs, none is taken for right, and each says what and, where Nix knows it,
/// where.
#[test]
fn whatever_is_wrong_is_said_once_and_where() {
    let mut bad = broken_syntax();
    bad.extend(broken_options());
    bad.extend(MISTAKES.iter().map(|(text, says)| (complete(text), *says)));
    // Deep, large, and of all alphabets.
    bad.push((format!("{}1{}", "[".repeat(3000), "]".repeat(3000)), None));
    bad.push((
        format!("{{ a = {{ {BASE} environment.etc.x.text = \"{}\" + 1; }}; }}", "x".repeat(200_000)),
        None,
    ));
    for word in ["ümläut", "名前", "имя", "\u{202e}reversed"] {
        // What would change the direction of what follows is not shown.
        let shown = word.trim_start_matches('\u{202e}');
        bad.push((
            format!("{{ a = {{ {BASE} environment.etc.x.text = throw \"{word}\"; }}; }}"),
            Some(shown),
        ));
        bad.push((format!("{{ \"{word}\" = {{ {BASE} }}; }}"), Some("is not the name of a machine")));
    }
    assert!(bad.len() >= 200, "{}", bad.len());
    for nix in &installations() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some((text, says)) = bad.get(next.fetch_add(1, Ordering::Relaxed)) {
                        check_bad(nix, text, *says);
                    }
                });
            }
        });
    }
}

fn check_bad(nix: &Installation, text: &str, says: Option<&str>) {
    let shown: String = text.chars().take(300).collect();
    let outcome = Site::new(&[("network.nix", text.to_owned())]).evaluate(nix, &[]);
    assert!(outcome.took < Duration::from_mins(1), "it hangs: {shown}");
    let nodes = outcome.result["nodes"].as_object().cloned().unwrap_or_default();
    let broken: Vec<&str> = nodes.values().filter_map(|node| node["broken"]["trace"].as_str()).collect();
    let said = if broken.is_empty() { outcome.error.clone() } else { broken.join("\n") };
    assert!(
        broken.len() == 1 || (nodes.is_empty() && said.contains("error:")),
        "it is taken for right: {shown}\n{}\n{:#}",
        outcome.error,
        outcome.result
    );
    if let Some(says) = says {
        assert!(said.contains(says), "it does not say {says:?}: {shown}\n{said}");
    }
}
