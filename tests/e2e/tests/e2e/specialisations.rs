//! `specialisations`: machines that run one of the variants that their configuration has.

use e2e::{DIRECTORY, World};

use crate::support::{apply, cat, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world};

const VARIANTS: &str = "environment.etc.motd.text = lib.mkDefault \"open\";\n\
    specialisation.maintenance.configuration = { environment.etc.motd.text = \"closed\"; };";
/// A secret that only the specialisation has.
const KEY: &str = "\nspecialisation.maintenance.configuration = { deployment.keys.page.text = \"soon\"; };";

fn wants(world: &World, specialisations: &str) {
    world.write("main.tf", &site(world, &["web"], specialisations)).unwrap();
}

fn system(world: &World) -> serde_json::Value {
    world.resource("nixos_deployment.site")["systems"]["web"].clone()
}

#[test]
fn a_machine_runs_a_specialisation_and_its_base_system_again() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(&format!("{VARIANTS}{KEY}")));
    succeeds(&apply(&world));
    let base = world.current_system("web");
    assert_eq!(
        (cat(&world, "web", "/etc/motd").as_str(), &system(&world)["specialisation"]),
        ("open", &serde_json::Value::Null)
    );

    // As the page says.
    wants(&world, "specialisations = { web = \"maintenance\" }");
    says(
        &plan(&world),
        &[
            "specialisation maintenance; units added: page-key.service; files changed: /etc/motd; secrets \
             added: page",
            "1 to change",
        ],
    );
    succeeds(&apply(&world));
    let maintenance = world.current_system("web");
    assert_ne!(maintenance, base);
    assert_eq!(cat(&world, "web", "/etc/motd"), "closed");
    assert_eq!(cat(&world, "web", "/run/keys/page"), "soon", "its own secrets come with it");
    assert_eq!(system(&world)["specialisation"], "maintenance");
    assert_eq!(web.read_file("/boot/default-system").unwrap().trim(), maintenance, "it boots what it runs");
    no_changes(&world);
    web.power_cut().unwrap();
    web.power_on().unwrap();
    assert_eq!(world.current_system("web"), maintenance);
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/run/keys/page"), "soon");
    no_changes(&world);

    // A switch in a variable: null is the base system.
    wants(&world, "specialisations = { web = null }");
    says(
        &plan(&world),
        &["base system instead of specialisation maintenance; units removed: page-key.service"],
    );
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), base);
    no_changes(&world);

    // Known only after apply.
    let mode = "resource \"terraform_data\" \"mode\" {\n  input = \"maintenance\"\n}\n";
    let main = site(&world, &["web"], "specialisations = { web = terraform_data.mode.output }");
    world.write("main.tf", &format!("{main}{mode}")).unwrap();
    says(&plan(&world), &["(known after apply)"]);
    succeeds(&apply(&world));
    assert_eq!(
        (world.current_system("web"), &system(&world)["specialisation"]),
        (maintenance, &"maintenance".into())
    );
    no_changes(&world);
}

#[test]
fn a_specialisation_that_was_chosen_on_the_machine_is_recognised() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(VARIANTS));
    succeeds(&apply(&world));
    let base = world.current_system("web");
    let choose = || {
        let program = format!("{base}/specialisation/maintenance/bin/switch-to-configuration");
        let done = web.exec(&[&program, "test"]).unwrap();
        assert!(done.success, "{}{}", done.stdout, done.stderr);
    };

    choose();
    let chosen = world.current_system("web");
    let run = plan(&world);
    says(
        &run,
        &[
            "specialisation maintenance of the system that was deployed",
            "base system instead of specialisation maintenance",
        ],
    );
    assert!(!run.text.contains("deployed last"), "{}", run.text);
    for (command, seen) in
        [("status", "specialisation maintenance"), ("generations", "runs specialisation maintenance")]
    {
        let words = ["nixos-activator", "-C", DIRECTORY, command, "web"];
        let words = if command == "status" { &words[..4] } else { &words[..] };
        let shown = world.lab.control().exec(words).unwrap().stdout;
        assert!(shown.contains(seen), "{shown}");
    }

    // It may stay.
    wants(&world, "specialisations = { web = \"maintenance\" }");
    says(&plan(&world), &["same system, activated again"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), chosen);
    no_changes(&world);

    wants(&world, "");
    succeeds(&apply(&world));
    choose();
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), base);
    no_changes(&world);
}

#[test]
fn mistakes_in_specialisations_are_named() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], "specialisations = { web = \"maintainance\" }"), &one(VARIANTS));
    fails_saying(
        &plan(&world),
        &[
            "Error: Machine \"web\" has no such specialisation",
            "names `maintainance` for machine `web`",
            "has only `maintenance`",
            "specialisations = {",
        ],
    );
    wants(&world, "specialisations = { db = \"maintenance\" }");
    fails_saying(&plan(&world), &["No such machine", "Found \"db\""]);
    wants(&world, "specialisations = { web = \"\" }");
    fails_saying(&plan(&world), &["This is not the name of a specialisation"]);
    wants(&world, "specialisations = { web = \"maintenance\" }\n  generations = { web = 1 }");
    fails_saying(&plan(&world), &["cannot have both a specialisation and an earlier generation"]);
    world.write("network.nix", &one("")).unwrap();
    wants(&world, "specialisations = { web = \"maintenance\" }");
    fails_saying(&plan(&world), &["whose configuration has no specialisations"]);
}
