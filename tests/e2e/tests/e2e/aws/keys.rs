//! Key pairs: a whole life, other people's, and those whose making ended open: EC2 was asked, and no answer came.

use e2e::{Cloud, Storm, Weather, World};

use super::{PUBLIC_KEY, head, key_names, once};
use crate::support::{apply, fails_saying, no_changes, plan, says, set_up, succeeds, world};

/// What makes a key pair one whose private half the provider writes.
const GENERATED: &str = "generate = { type = \"ed25519\" }\n  private_key_file = \"admin.key\"\n";

/// Where that is.
const FILE: &str = "/root/site/admin.key";

/// Somebody puts a key under this name.
fn import_elsewhere(cloud: &Cloud, name: &str) {
    cloud.ask("eu-west-1", async |client| {
        let key = PUBLIC_KEY.as_bytes().to_vec().into();
        client.import_key_pair().key_name(name).public_key_material(key).send().await.unwrap();
    });
}

/// A configuration with such a key pair, and weather before the cloud.
fn set_up_generated(world: &World, cloud: &Cloud) -> Weather {
    let weather = Weather::over(cloud, 1, 0);
    let body =
        format!("resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  {GENERATED}}}\n");
    set_up(world, &once(&weather, &body), "");
    weather
}

/// Applies while the call that makes the key pair, or its answer, gets lost.
#[track_caller]
fn ends_open(world: &World, weather: &Weather, lost: Storm) {
    weather.strike("ImportKeyPair", lost);
    fails_saying(&apply(world), &["AWS did not create key pair \"admin\""]);
    weather.calm();
}

/// EC2 has the public half of what is in the file.
#[track_caller]
fn both_halves_are_there(world: &World, cloud: &Cloud) {
    let public = world.lab.control().exec(&["ssh-keygen", "-y", "-f", FILE]).unwrap().stdout;
    let there = cloud.ask("eu-west-1", async |client| {
        let found =
            client.describe_key_pairs().key_names("admin").include_public_key(true).send().await.unwrap();
        found.key_pairs()[0].public_key().unwrap_or_default().to_owned()
    });
    let key = |text: &str| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(key(&there), key(&public));
}

#[test]
fn a_key_pair_lives_its_whole_life() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let main = |body: &str| {
        format!(
            "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n{body}}}\n",
            head(&cloud)
        )
    };
    let generated = GENERATED;
    set_up(&world, &main(generated), "");
    succeeds(&apply(&world));
    no_changes(&world);
    let state = world.resource("nixos_ec2_key_pair.admin");
    let control = world.lab.control();
    let site = |name: &str| format!("{}/{name}", e2e::DIRECTORY);
    let mode = control.exec(&["stat", "-c", "%a", &site("admin.key")]).unwrap().stdout;
    assert_eq!(mode.trim(), "600");
    let public = control.exec(&["ssh-keygen", "-y", "-f", &site("admin.key")]).unwrap().stdout;
    assert!(
        public.starts_with(state["public_key"].as_str().unwrap()),
        "{public} is not the other half of {state}"
    );
    let private = control.read_file(&site("admin.key")).unwrap();
    let secret = private.lines().nth(2).unwrap().to_owned();
    assert!(
        !control.read_file(&site("terraform.tfstate")).unwrap().contains(&secret),
        "the private key is in state"
    );

    // Tags change in place, and the file moves with its name.
    world
        .write(
            "main.tf",
            &main(
                &generated
                    .replace("admin.key", "moved.key")
                    .replace("generate", "tags = { a = \"b\" }\n  generate"),
            ),
        )
        .unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    no_changes(&world);
    assert_eq!(control.read_file(&site("moved.key")).unwrap(), private);

    // Somebody puts another key under the name: the plan says so and replaces it.
    cloud.ask("eu-west-1", async |client| {
        client.delete_key_pair().key_name("admin").send().await.unwrap();
    });
    import_elsewhere(&cloud, "admin");
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["must be replaced", "1 to add, 0 to change, 1 to destroy"]);
    // Terraform lets go of it first, so that it can be made anew; the file is never overwritten.
    succeeds(&apply(&world));
    no_changes(&world);

    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(key_names(&cloud), Vec::<String>::new());
    assert!(control.read_file(&site("moved.key")).is_err(), "the private key stays behind");
}

#[test]
fn nobodys_key_pair_is_replaced_and_one_can_be_imported() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    import_elsewhere(&cloud, "old");
    let body = format!("key_name = \"old\"\n  public_key = \"{PUBLIC_KEY} me@home\"\n");
    let main = format!("{}resource \"nixos_ec2_key_pair\" \"old\" {{\n  {body}}}\n", head(&cloud));
    set_up(&world, &main, "");
    fails_saying(
        &apply(&world),
        &["There is a key pair \"old\" already", "terraform import ADDRESS eu-west-1:old"],
    );
    succeeds(&world.terraform(&["import", "nixos_ec2_key_pair.old", "eu-west-1:old"]));
    let run = plan(&world);
    succeeds(&run);
    // The default tags are all it lacks; the comment of the key is none of its business.
    says(&run, &["0 to add, 1 to change, 0 to destroy", "tags_all"]);
    succeeds(&apply(&world));
    no_changes(&world);
    succeeds(&world.terraform(&["state", "rm", "nixos_ec2_key_pair.old"]));
    succeeds(&world.terraform(&["import", "nixos_ec2_key_pair.old", "eu-west-1:old"]));
    no_changes(&world);

    let wrong = format!(
        "{}resource \"nixos_ec2_key_pair\" \"old\" {{\n  key_name = \"old\"\n  generate = {{ type = \
         \"ed25519\" }}\n}}\n",
        head(&cloud)
    );
    world.write("main.tf", &wrong).unwrap();
    fails_saying(&plan(&world), &["Nowhere to put the private key", "private_key_file"]);
}

#[test]
fn the_file_of_a_key_pair_whose_making_ended_open_is_not_in_the_way() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    let control = world.lab.control();
    for lost in [Storm::RequestLost, Storm::AnswerLost] {
        ends_open(&world, &weather, lost);
        let first = control.read_file(FILE).unwrap();
        succeeds(&apply(&world));
        no_changes(&world);
        assert_ne!(control.read_file(FILE).unwrap(), first, "{lost:?}: a new key");
        both_halves_are_there(&world, &cloud);
        succeeds(&world.terraform(&["destroy", "-auto-approve"]));
        assert!(control.read_file(FILE).is_err(), "{lost:?}: the private key stays behind");
    }
}

#[test]
fn nor_is_that_of_a_key_pair_that_is_made_anew_because_somebody_says_so() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let _weather = set_up_generated(&world, &cloud);
    succeeds(&apply(&world));
    let first = world.lab.control().read_file(FILE).unwrap();
    succeeds(&world.terraform(&["taint", "nixos_ec2_key_pair.admin"]));
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["1 added, 0 changed, 1 destroyed"]);
    assert_ne!(world.lab.control().read_file(FILE).unwrap(), first, "a new key");
    both_halves_are_there(&world, &cloud);
    no_changes(&world);
}

#[test]
fn what_somebody_put_in_place_of_the_file_is_neither_removed_nor_overwritten() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    let control = world.lab.control();
    ends_open(&world, &weather, Storm::RequestLost);
    control.write_file(FILE, "mine").unwrap();
    fails_saying(&apply(&world), &["A file is not removed", "The private key cannot be written"]);
    assert_eq!(control.read_file(FILE).unwrap(), "mine");
    assert_eq!(key_names(&cloud), Vec::<String>::new());
}

#[test]
fn destroying_what_ended_open_leaves_neither_file_nor_key_pair() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    for lost in [Storm::RequestLost, Storm::AnswerLost] {
        for refresh in ["-refresh=true", "-refresh=false"] {
            ends_open(&world, &weather, lost);
            succeeds(&world.terraform(&["destroy", "-auto-approve", refresh]));
            assert!(
                world.lab.control().read_file(FILE).is_err(),
                "{lost:?}, {refresh}: the file stays behind"
            );
            assert_eq!(key_names(&cloud), Vec::<String>::new(), "{lost:?}, {refresh}");
        }
    }
}

#[test]
fn a_key_pair_that_ec2_has_not_heard_of_yet_is_not_forgotten() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    let ends_unheard_of = || {
        ends_open(&world, &weather, Storm::AnswerLost);
        weather.hide("admin", 3);
    };
    for refresh in ["-refresh=true", "-refresh=false"] {
        ends_unheard_of();
        succeeds(&world.terraform(&["destroy", "-auto-approve", refresh]));
        assert_eq!(key_names(&cloud), Vec::<String>::new(), "{refresh}");
    }
    ends_unheard_of();
    succeeds(&apply(&world));
    both_halves_are_there(&world, &cloud);
    no_changes(&world);
}

#[test]
fn what_never_came_to_be_is_made_also_where_somebody_says_it_is_sound() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    ends_open(&world, &weather, Storm::RequestLost);
    succeeds(&world.terraform(&["untaint", "nixos_ec2_key_pair.admin"]));
    succeeds(&apply(&world));
    both_halves_are_there(&world, &cloud);
    no_changes(&world);
}

#[test]
fn somebody_elses_key_pair_of_the_name_outlives_one_that_never_came_to_be() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let weather = set_up_generated(&world, &cloud);
    ends_open(&world, &weather, Storm::RequestLost);
    import_elsewhere(&cloud, "admin");
    fails_saying(&apply(&world), &["There is a key pair \"admin\" already"]);
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(key_names(&cloud), ["admin"]);
    assert!(world.lab.control().read_file(FILE).is_err(), "the file stays behind");
}

#[test]
fn a_key_that_is_replaced_locks_nobody_out() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &["eu-west-1"]).unwrap();
    let (subnet, ami) =
        (cloud.subnet("eu-west-1", 1), cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux"));
    let main = |kind: &str, file: &str| {
        format!(
            "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  generate = {{ type \
             = \"{kind}\" }}\n  private_key_file = \"${{path.root}}/admin.key\"\n}}\nresource \
             \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  ec2 = {{\n    ami = \"{ami}\"\n    \
             instance_type = \"t3.nano\"\n    subnet_id = \"{subnet}\"\n    key_name = \
             nixos_ec2_key_pair.admin.key_name\n    private_key_file = \"${{path.root}}/{file}\"\n  \
             }}\n}}\n",
            head(&cloud)
        )
    };
    set_up(&world, &main("ed25519", "admin.key"), "");
    succeeds(&apply(&world));
    let id = world.resource("nixos_machine.db")["id"].as_str().unwrap().to_owned();
    let control = world.lab.control();
    let first = control.read_file(FILE).unwrap();

    // The plan says which machine does not get the new key.
    world.write("main.tf", &main("rsa", "admin.key")).unwrap();
    let run = plan(&world);
    succeeds(&run);
    let machine = format!("db ({id})");
    says(
        &run,
        &["Machines keep the public key of key pair \"admin\"", &machine, "admin.key.old", "1 to add"],
    );
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["The private key of key pair \"admin\" is kept as", &machine]);
    both_halves_are_there(&world, &cloud);
    let old = format!("{FILE}.old");
    assert_eq!(control.read_file(&old).unwrap(), first);
    assert_eq!(control.exec(&["stat", "-c", "%a", &old]).unwrap().stdout.trim(), "600");

    // The machine is reached with it, from the moment the state has it.
    world.write("main.tf", &main("rsa", "admin.key.old")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["refused the login", "0 added, 1 changed, 0 destroyed"]);
    no_changes(&world);

    // The next one does not overwrite it.
    let second = control.read_file(FILE).unwrap();
    world.write("main.tf", &main("ed25519", "admin.key.old")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(control.read_file(&old).unwrap(), first);
    assert_eq!(control.read_file(&format!("{old}.2")).unwrap(), second);
    no_changes(&world);

    // Machines of other regions may need a key that none of this region needs.
    let third = control.read_file(FILE).unwrap();
    let run = world.terraform(&["destroy", "-auto-approve"]);
    succeeds(&run);
    says(&run, &["admin.key.old.3", "Machines of other regions may have the same public key"]);
    assert!(control.read_file(FILE).is_err(), "the private key stays behind under its name");
    assert_eq!(control.read_file(&old).unwrap(), first);
    assert_eq!(control.read_file(&format!("{old}.3")).unwrap(), third);
}
