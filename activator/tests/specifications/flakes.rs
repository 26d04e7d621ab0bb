//! Flakes: where they are, and which of them are evaluated purely.

use super::*;

/// A flake that needs no other, with the machine `a`.
fn write_flake(directory: &Path) {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos"),
        &directory.join("nixpkgs"),
    );
    let flake = format!(
        "{{ outputs = _: {{ nixosConfigurations.a = (import ./nixpkgs/lib).nixosSystem {{ modules = [ {{ {BASE} }} ]; }}; }}; }}"
    );
    std::fs::write(directory.join("flake.nix"), flake).unwrap();
}

fn version(nix: &Installation) -> (u32, u32) {
    let output = Command::new("nix").arg("--version").env("PATH", &nix.0).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers =
        text.trim().rsplit(' ').next().unwrap().split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

const MACHINE: [&str; 2] = ["--machines", "{\"a\":{}}"];

/// Evaluates where the store of this Nix is that of the computer; `None` where the example cannot be run there.
fn evaluate(site: &Site, nix: &Installation, spec: impl AsRef<OsStr>) -> Option<Outcome> {
    let outcome = site.evaluate_by(nix.inside(example()), nix, &MACHINE, spec);
    // A release that is older than this computer may have a C library that is too old for what was compiled here.
    if outcome.error.contains("GLIBC_") {
        println!("left out: {}", outcome.error);
        return None;
    }
    Some(outcome)
}

#[test]
fn a_specification_may_be_in_a_directory_of_any_name() {
    for nix in installations() {
        // Before 2.26 Nix takes for a URL what cannot be one.
        let is_old = version(&nix) < (2, 26);
        for name in ["C#", "a?b", "50%25 \u{fc}", "br[x]^d\"\\", "$x'a:b"] {
            let site = Site::new(&[]);
            let directory = site.0.path().join(name).join("infra");
            write_flake(&directory);
            std::fs::write(directory.join("network.nix"), format!("{{ a = {{ {BASE} }}; }}")).unwrap();
            let written = directory.display();
            let network = site.evaluate_other(&nix, &MACHINE, format!("{written}/network.nix"));
            assert!(network.result["nodes"]["a"].get("exact").is_some(), "{name}: {}", network.error);
            for spec in [written.to_string(), format!("path:{written}#nixosConfigurations")] {
                let Some(outcome) = evaluate(&site, &nix, &spec) else { break };
                if is_old && name != "$x'a:b" {
                    let error = outcome.error;
                    let says =
                        error.contains("cannot read a flake in") && error.contains("rename the directory");
                    assert!(says && !error.contains("error:"), "{spec}: {error}");
                } else {
                    assert!(outcome.result["nodes"]["a"].get("exact").is_some(), "{spec}: {}", outcome.error);
                    assert_eq!(outcome.result["warnings"], json!([]), "{spec}");
                }
            }
        }
    }
}

/// With a double: no Nix with lazy trees can be had here, so a script removes from the answer of the real one what
/// such a Nix leaves out.
#[test]
fn a_nix_that_does_not_name_a_tree_is_asked_for_it() {
    for nix in installations() {
        let site = Site::new(&[]);
        let directory = site.0.path().join("flake");
        write_flake(&directory);
        // There is no shell beside some of these Nixes.
        let script = r#"#!/usr/bin/perl
my $program = "/usr/bin/PROGRAM";
die "error: it will not" if FAILS && "@ARGV" =~ /^--eval --json --read-write-mode - /;
exec $program, @ARGV unless "$ARGV[0] $ARGV[1]" eq "flake metadata";
open(my $real, "-|", $program, @ARGV) or die;
while (<$real>) { s/"path":"\/nix\/store\/[^"]*",?//; print }
close($real);
exit($? >> 8);
"#;
        let tools = site.0.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let lazily = |fails: &str| {
            for program in ["nix", "nix-instantiate", "nix-store"] {
                let double = tools.join(program);
                let script = script.replace("PROGRAM", program).replace("FAILS", fails);
                std::fs::write(&double, script).unwrap();
                let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&double, executable).unwrap();
            }
            let mut command = nix.inside(example());
            command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", tools.display()));
            let outcome = site.evaluate_by(command, &nix, &MACHINE, &directory);
            assert!(outcome.result["nodes"]["a"].get("exact").is_some(), "{}", outcome.error);
            outcome.result
        };
        let Some(Outcome { result: expected, .. }) = evaluate(&site, &nix, &directory) else { continue };
        assert!(expected["nodes"]["a"].get("exact").is_some(), "{expected:#}");
        assert_eq!(expected["warnings"], json!([]));
        assert_eq!(lazily("0"), expected, "it is as pure as before");
        let impure = lazily("1");
        let warnings = impure["warnings"].to_string();
        assert!(warnings.contains("not pure") && warnings.contains("lazy-trees"), "{warnings}");
    }
}

#[test]
fn a_lock_file_that_lacks_an_input_is_warned_of() {
    for nix in installations() {
        let site = Site::new(&[]);
        let directory = site.0.path().join("flake");
        write_flake(&directory);
        let flake = std::fs::read_to_string(directory.join("flake.nix")).unwrap();
        let with_input =
            flake.replacen("{ ", &format!("{{ inputs.x.url = \"path:{}/x\"; ", site.0.path().display()), 1);
        std::fs::write(directory.join("flake.nix"), with_input).unwrap();
        std::fs::create_dir(site.0.path().join("x")).unwrap();
        std::fs::write(site.0.path().join("x/flake.nix"), "{ outputs = _: { }; }").unwrap();
        let Some(outcome) = evaluate(&site, &nix, &directory) else { continue };
        if version(&nix) < (2, 26) {
            // An old one does not look at such a flake at all.
            assert!(outcome.error.contains("requires lock file changes"), "{}", outcome.error);
            continue;
        }
        assert!(outcome.result["nodes"]["a"].get("exact").is_some(), "{}", outcome.error);
        let warnings = outcome.result["warnings"].to_string();
        assert!(warnings.contains("nix flake lock"), "{warnings}");
    }
}

/// Terraform's directory is often the flake's. What git ignores there, such as states and keys, must not come to the
/// store, also where the lock file is not complete.
#[test]
fn what_git_ignores_does_not_come_to_the_store() {
    for nix in installations() {
        let site = Site::new(&[]);
        let directory = site.0.path().join("flake");
        write_flake(&directory);
        let flake = std::fs::read_to_string(directory.join("flake.nix")).unwrap();
        let input = format!("{{ inputs.x.url = \"path:{}/x\"; ", site.0.path().display());
        std::fs::write(directory.join("flake.nix"), flake.replacen("{ ", &input, 1)).unwrap();
        std::fs::create_dir(site.0.path().join("x")).unwrap();
        std::fs::write(site.0.path().join("x/flake.nix"), "{ outputs = _: { }; }").unwrap();
        let unique = site.0.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        let key = format!("{unique}.key");
        std::fs::write(directory.join(&key), "secret").unwrap();
        let in_store = || {
            let trees = std::fs::read_dir(nix.store()).unwrap().flatten();
            trees.map(|tree| tree.path().join(&key)).filter(|path| path.exists()).collect::<Vec<_>>()
        };

        // Without git all of it is the flake, which is said.
        let Some(outcome) = evaluate(&site, &nix, &directory) else { continue };
        if version(&nix) < (2, 26) {
            // An old one does not look at a flake whose inputs are not locked.
            continue;
        }
        let warnings = outcome.result["warnings"].to_string();
        assert!(warnings.contains("not in a git repository") && warnings.contains(&key), "{warnings}");
        for copied in in_store() {
            std::fs::remove_dir_all(copied.parent().unwrap()).unwrap();
        }

        std::fs::write(directory.join(".gitignore"), "*.key\n").unwrap();
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command
                .arg("-C")
                .arg(&directory)
                .args(["-c", "user.name=n", "-c", "user.email=n@n"])
                .args(arguments);
            assert!(command.status().unwrap().success(), "git {arguments:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "all"]);
        let outcome = evaluate(&site, &nix, &directory).unwrap();
        assert!(outcome.result["nodes"]["a"].get("exact").is_some(), "{}", outcome.error);
        let warnings = outcome.result["warnings"].to_string();
        assert!(warnings.contains("nix flake lock") && !warnings.contains(&key), "{warnings}");
        assert_eq!(in_store(), Vec::<std::path::PathBuf>::new());
    }
}
