//! How many processes it takes, and what becomes of one that is killed.

use super::*;

/// A program that does something first and then is the real one of this Nix.
fn stand_in(nix: &Installation, directory: &Path, program: &str, first: &str) {
    let real =
        std::env::split_paths(&nix.0).map(|directory| directory.join(program)).find(|path| path.exists());
    let path = directory.join(program);
    std::fs::write(&path, format!("#!/bin/sh\n{first}\nexec '{}' \"$@\"\n", real.unwrap().display()))
        .unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A node with an error that nothing catches does not make the others of its process be evaluated one by one.
#[test]
fn an_error_costs_a_process_and_not_one_for_each_of_the_others() {
    let node = |name: &str, what: &str| format!("{name} = {{ {BASE} {what} }};");
    for nix in installations() {
        let tools = tempfile::tempdir().unwrap();
        let counted = tools.path().join("counted");
        for program in ["nix", "nix-instantiate", "nix-store"] {
            let count = if program == "nix-instantiate" {
                format!("echo >> '{}'", counted.display())
            } else {
                String::new()
            };
            stand_in(&nix, tools.path(), program, &count);
        }
        let path = std::iter::once(tools.path().to_owned()).chain(std::env::split_paths(&nix.0));
        let counting = Installation(std::env::join_paths(path).unwrap());
        let evaluate = |second: &str, fourth: &str| {
            let nodes = [("a", ""), ("b", second), ("c", ""), ("d", fourth), ("e", "")];
            let nodes: String = nodes.iter().map(|(name, what)| node(name, what)).collect();
            let site = Site::new(&[("network.nix", format!("{{ {nodes} }}"))]);
            std::fs::write(&counted, "").unwrap();
            // All in one process.
            let outcome = site.evaluate(&counting, &["--workers", "1", "--memory", "100000"]);
            let processes = std::fs::read_to_string(&counted).unwrap().lines().count();
            let broken =
                |name: &str| outcome.result["nodes"][name]["broken"]["trace"].as_str().map(str::to_owned);
            let traces = ["b", "d"].map(|name| broken(name).unwrap_or_default());
            for name in ["a", "c", "e"] {
                let is_exact = outcome.result["nodes"][name].get("exact").is_some();
                assert!(is_exact, "{name}: {:#}\n{}", outcome.result, outcome.error);
            }
            (processes, traces)
        };
        let (when_all_is_well, traces) = evaluate("", "");
        assert_eq!(traces, ["", ""]);
        let of_type = "environment.etc.x.text = \"x\" + 1;";
        let (processes, [second, fourth]) = evaluate(of_type, "environment.etc.x.text = { }.missing;");
        assert_eq!(processes, when_all_is_well + 2);
        let errors = ["error: cannot coerce an integer", "error: attribute 'missing' missing"];
        for (trace, its_own) in [(&second, [true, false]), (&fourth, [false, true])] {
            assert_eq!(errors.map(|error| trace.contains(error)), its_own, "{trace}");
        }
        for trace in [second, fourth] {
            assert!(!trace.contains("… nixos-node"), "our own is not shown: {trace}");
        }
    }
}

/// A Nix that is killed says nothing: it is not a mistake in the specification.
#[test]
fn a_nix_that_is_killed_is_no_mistake() {
    let nix = &installations()[0];
    let tools = tempfile::tempdir().unwrap();
    let path = std::iter::once(tools.path().to_owned()).chain(std::env::split_paths(&nix.0));
    let killed = Installation(std::env::join_paths(path).unwrap());
    for program in ["nix", "nix-instantiate", "nix-store"] {
        // While it evaluates nodes, as the system would when memory runs out.
        let kill = if program == "nix-instantiate" {
            "case \" $* \" in *\" nodes \"*|*\" node \"*) kill -9 $$ ;; esac"
        } else {
            ""
        };
        stand_in(nix, tools.path(), program, kill);
    }
    let site = Site::new(&[("network.nix", format!("{{ a = {{ {BASE} }}; b = {{ {BASE} }}; }}"))]);
    let outcome = site.evaluate(&killed, &["--workers", "1"]);
    assert!(outcome.error.contains("was killed"), "{}\n{:#}", outcome.error, outcome.result);
}
