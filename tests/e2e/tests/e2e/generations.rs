//! `generations`: a machine that goes back to what it ran before, whatever is specified.

use e2e::World;

use crate::support::{apply, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world};

fn motd(text: &str) -> String {
    one(&format!("environment.etc.motd.text = \"{text}\";"))
}

fn goes_back(world: &World, generations: &str) {
    let main = site(world, &["web"], &format!("generations = {generations}"));
    world.write("main.tf", &main).unwrap();
}

fn deployed(world: &World) -> (String, u64) {
    let system = world.resource("nixos_deployment.site")["systems"]["web"].clone();
    (system["toplevel"].as_str().unwrap_or_default().to_owned(), system["generation"].as_u64().unwrap_or(0))
}

/// A machine that ran `one` and now runs `two`, with the first system and its generation.
fn after_two() -> (World, String, u64) {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &motd("one"));
    succeeds(&apply(&world));
    let (first, generation) = deployed(&world);
    world.write("network.nix", &motd("two")).unwrap();
    succeeds(&apply(&world));
    (world, first, generation)
}

#[test]
fn a_machine_goes_back_to_a_generation_and_on_again() {
    let (world, first, generation) = after_two();
    let (second, _) = deployed(&world);
    assert_ne!(first, second);

    // What is specified need not even be right.
    world.write("network.nix", "{ web = { ... }: throw \"nobody can build this\"; }").unwrap();
    goes_back(&world, &format!("{{ web = {generation} }}"));
    says(&plan(&world), &[&format!("back to generation {generation}"), &first, "1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), first);
    let web = world.lab.host("web");
    assert_eq!(web.read_file("/boot/default-system").unwrap().trim(), first, "it boots what it runs");
    assert!(deployed(&world).1 > 0, "and it is a generation of its profile");
    no_changes(&world);

    // It is known now; nobody has to be asked.
    web.power_cut().unwrap();
    let unreachable = plan(&world);
    says(&unreachable, &["Machine \"web\" cannot be reached", "No changes."]);
    web.power_on().unwrap();

    goes_back(&world, "{ web = 99 }");
    fails_saying(
        &plan(&world),
        &["Machine \"web\" has no generation 99", "Its system profile has", "generations = { web = 99 }"],
    );
    goes_back(&world, "{ db = 1 }");
    fails_saying(&plan(&world), &["No such machine", "Found \"db\""]);
    goes_back(&world, "{ web = 0 }");
    fails_saying(&plan(&world), &["There is no generation 0"]);

    world.write("network.nix", &motd("two")).unwrap();
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    says(&plan(&world), &["what is specified, in place of an earlier generation", "1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), second);
    no_changes(&world);
}

#[test]
fn a_generation_that_is_known_only_after_apply_is_found_then() {
    let (world, first, generation) = after_two();
    let number = format!("resource \"terraform_data\" \"number\" {{\n  input = {generation}\n}}\n");
    let main = site(&world, &["web"], "generations = { web = terraform_data.number.output }");
    world.write("main.tf", &format!("{main}{number}")).unwrap();
    says(&plan(&world), &["(known after apply)", "1 to add, 1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), first);
    no_changes(&world);

    // What it runs becomes what is specified, together with something that is known only after apply.
    world.lab.control().write_file("/root/token", "hush").unwrap();
    world.write("network.nix", &motd("one")).unwrap();
    let secrets = "secrets = { token = { file = \"/root/token\", machines = [terraform_data.who.output] } }";
    let who = "resource \"terraform_data\" \"who\" {\n  input = \"web\"\n}\n";
    world.write("main.tf", &format!("{}{who}", site(&world, &["web"], secrets))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), first);
    assert_eq!(world.lab.host("web").exec(&["cat", "/run/keys/token"]).unwrap().stdout, "hush");
    no_changes(&world);
}
