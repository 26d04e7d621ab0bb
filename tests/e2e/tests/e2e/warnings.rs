//! What NixOS and Nix warn of while they evaluate.

use crate::support::{apply, fails_saying, no_changes, plan, says, set_up, site, succeeds, world};

/// How often Terraform shows a warning with this headline.
fn shown(run: &e2e::Run, headline: &str) -> usize {
    run.text.matches(&format!("Warning: Evaluation warning: {headline}")).count()
}

const DEFAULTS: &str = "nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";";

#[test]
fn a_plan_shows_each_warning_once() {
    let world = world(&["db", "web"]);
    let network = format!(
        "{{ defaults = {{ lib, ... }}: {{ {DEFAULTS} warnings = [ \"services.foo is old,\\nuse \
         services.bar\" ];\nenvironment.etc.x.text = lib.warn \"of lib.warn\" \"x\"; \
         environment.etc.y.text = builtins.trace \"only traced\" \"y\"; }};\ndb = {{ }}; web.warnings = [ \
         \"of web alone\" ]; }}"
    );
    set_up(&world, &site(&world, &["db", "web"], ""), &network);
    let all = ["services.foo is old,", "of lib.warn", "of web alone"];
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &["use services.bar This is about machines \"db\" and \"web\".", "This is about machine \"web\"."],
    );
    assert_eq!(all.map(|headline| shown(&run, headline)), [1, 1, 1], "{}", run.text);
    assert!(!run.text.contains("only traced"), "{}", run.text);
    // Terraform plans a second time while it applies.
    let run = apply(&world);
    succeeds(&run);
    assert_eq!(all.map(|headline| shown(&run, headline)), [1, 1, 1], "{}", run.text);
    // It warns as long as there is something to warn of.
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["No changes."]);
    assert_eq!(all.map(|headline| shown(&run, headline)), [1, 1, 1], "{}", run.text);
}

#[test]
fn what_was_warned_of_is_remembered_with_the_machine() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let flake = format!(
        "{{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = {{ self, nixpkgs }}: {{\n    \
         nixosConfigurations.web = nixpkgs.lib.nixosSystem {{ modules = [ ({{ lib, ... }}: {{ {DEFAULTS}\n      \
         warnings = [ \"of NixOS\" ]; environment.etc.x.text = lib.warn \"of lib.warn\" \"x\"; }}) ]; \
         }};\n  }};\n}}\n"
    );
    control.write_file("/root/flake/flake.nix", flake).unwrap();
    let lock =
        ["nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock", "path:/root/flake"];
    let locked = control.exec(&lock).unwrap();
    assert!(locked.success, "{}", locked.stderr);
    let main = site(&world, &["web"], "")
        .replace("network = \"${path.module}/network.nix\"", "flake = \"/root/flake\"");
    set_up(&world, &main, "");
    succeeds(&apply(&world));
    no_changes(&world);
    let run = world.terraform_with(&[("TF_LOG_PROVIDER", "DEBUG")], &["plan", "-input=false"]);
    succeeds(&run);
    assert_eq!(run.text.matches("command=\"nix-instantiate --eval\"").count(), 0, "it is remembered");
    assert_eq!(["of NixOS", "of lib.warn"].map(|headline| shown(&run, headline)), [1, 1], "{}", run.text);
}

#[test]
fn an_error_hides_no_warning() {
    let world = world(&["db", "web"]);
    let network = format!(
        "{{ defaults = {{ {DEFAULTS} }}; db.warnings = [ \"of db\" ];\nweb = {{ lib, ... }}: {{ \
         environment.etc.x.text = lib.warn \"it will fail\" (builtins.trace \"here\" (throw \"on \
         purpose\")); }}; }}"
    );
    set_up(&world, &site(&world, &["db", "web"], ""), &network);
    let run = plan(&world);
    fails_saying(
        &run,
        &[
            "machine \"web\" does not evaluate",
            "error: on purpose",
            "Printed before that:",
            "it will fail",
            "trace: here",
        ],
    );
    assert_eq!(shown(&run, "of db"), 1, "{}", run.text);
    let (error, printed) = (run.text.find("error: on purpose"), run.text.find("Printed before that"));
    assert!(error < printed, "{}", run.text);
}
