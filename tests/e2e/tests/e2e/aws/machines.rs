//! Machines on EC2, each with a real host of its own: made, deployed to, changed, stopped, ended, imported.

use e2e::{Cloud, World};

use super::{head, instance, instances, key_names, show_volumes};
use crate::support::{apply, fails_saying, no_changes, plan, says, set_up, succeeds, world};

fn volumes(cloud: &Cloud, region: &str) -> Vec<(i32, String)> {
    cloud.ask(region, async |client| {
        let found = client.describe_volumes().send().await.unwrap();
        let volume = |volume: &aws_sdk_ec2::types::Volume| {
            (
                volume.size().unwrap_or(0),
                volume.state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
            )
        };
        found.volumes().iter().map(volume).collect()
    })
}

/// A machine in each of two regions, and the key pairs for them.
fn two_regions(world: &World, cloud: &Cloud, db: &str) -> String {
    let regions = [("db", "eu-west-1", 1, db), ("web", "us-east-1", 2, "")];
    let machines: String = regions
        .iter()
        .map(|(name, region, number, more)| {
            let (image, subnet) =
                (cloud.image(region, "nixos/24.11.1-x86_64-linux"), cloud.subnet(region, *number));
            format!(
                "resource \"nixos_ec2_key_pair\" \"{name}\" {{\n  key_name = \"{name}\"\n  region = \
                 \"{region}\"\n  public_key = nixos_ec2_key_pair.admin.public_key\n}}\nresource \
                 \"nixos_machine\" \"{name}\" {{\n  name = \"{name}\"\n  ec2 = {{\n    region = \
                 \"{region}\"\n    ami = \"{image}\"\n    subnet_id = \"{subnet}\"\n    key_name = \
                 nixos_ec2_key_pair.{name}.key_name\n    private_key_file = \
                 nixos_ec2_key_pair.admin.private_key_file\n    {more}\n  }}\n}}\n"
            )
        })
        .collect();
    let rack = crate::support::machine(world, "rack", "");
    format!(
        "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  generate = {{ type = \
         \"ed25519\" }}\n  private_key_file = \"${{path.root}}/admin.key\"\n}}\n{machines}{rack}resource \
         \"nixos_deployment\" \"site\" {{\n  network = \"${{path.module}}/network.nix\"\n  machines = {{ \
         db = nixos_machine.db.target, web = nixos_machine.web.target, rack = nixos_machine.rack.target \
         }}\n}}\n",
        head(cloud)
    )
}

const NETWORK: &str = r#"{ ... }: let machine = { nixpkgs.hostPlatform = "x86_64-linux"; system.stateVersion = "24.11"; }; in {
  db = { ... }: machine;
  rack = { ... }: machine;
  web = { nodes, ... }: machine // { environment.etc."db".text = nodes.db.config.networking.privateIPv4; };
}"#;

#[test]
fn machines_in_two_regions_and_one_in_the_rack_are_one_deployment() {
    let world = world(&["rack"]);
    let cloud = Cloud::start(&world, &["eu-west-1", "us-east-1"]).unwrap();
    let volume = |size: u32| format!("volumes = {{ data = {{ device = \"/dev/sdf\", size = {size} }} }}");
    let small = format!("instance_type = \"t3.nano\"\n    {}", volume(10));
    let main = two_regions(&world, &cloud, &small).replace(
        "key_name = nixos_ec2_key_pair.web.key_name",
        "key_name = nixos_ec2_key_pair.web.key_name\n    instance_type = \"t3.nano\"",
    );
    set_up(&world, &main, NETWORK);
    succeeds(&apply(&world));
    no_changes(&world);
    let db = world.resource("nixos_machine.db");
    let web = world.resource("nixos_machine.web");
    let id = |machine: &serde_json::Value| machine["id"].as_str().unwrap().to_owned();
    let seen = cloud.with(&id(&web), |host| host.exec(&["cat", "/etc/db"]).unwrap().stdout);
    assert_eq!(seen, db["private_ipv4"].as_str().unwrap(), "db's private address in web's configuration");
    let image = cloud.with(&id(&web), |host| host.exec(&["cat", "/etc/amazon-image"]).unwrap().stdout);
    assert_eq!(image, "nixpkgs' own, HVM", "what NixOps gave machines on EC2");
    assert!(!world.lab.host("rack").exec(&["test", "-e", "/etc/amazon-image"]).unwrap().success);
    // The key that was in user data is not the one the machine has by now.
    let key = cloud.with(&id(&db), |host| host.host_public_key());
    assert_eq!(key, db["host_public_key"].as_str().unwrap());
    let data = cloud.ask("eu-west-1", async |client| {
        let attribute = aws_sdk_ec2::types::InstanceAttributeName::UserData;
        let found = client
            .describe_instance_attribute()
            .instance_id(id(&db))
            .attribute(attribute)
            .send()
            .await
            .unwrap();
        found.user_data().and_then(|value| value.value()).unwrap_or_default().to_owned()
    });
    assert!(!data.is_empty(), "the first host key is handed over in user data");
    let state = world.lab.control().read_file(&format!("{}/terraform.tfstate", e2e::DIRECTORY)).unwrap();
    assert!(
        !state.contains("PRIVATE KEY") && !state.contains("SSH_HOST_ED25519_KEY"),
        "a private key is in state"
    );

    // A change of type stops the machine, so it has to be allowed; a volume grows while it runs.
    let larger = main.replacen("t3.nano", "t3.micro", 1).replace("size = 10", "size = 20");
    world.write("main.tf", &larger).unwrap();
    fails_saying(&plan(&world), &["The change would stop the machine", "allow_stopping_for_update"]);
    let allowed = larger.replacen(
        "instance_type = \"t3.micro\"",
        "instance_type = \"t3.micro\"\n    allow_stopping_for_update = true",
        1,
    );
    world.write("main.tf", &allowed).unwrap();
    let boot = db["boot_id"].clone();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 destroyed"]);
    no_changes(&world);
    let after = world.resource("nixos_machine.db");
    assert_eq!((id(&after), &after["ec2"]["instance_type"]), (id(&db), &serde_json::json!("t3.micro")));
    assert_ne!(after["boot_id"], boot, "the machine was stopped and started");
    assert!(
        volumes(&cloud, "eu-west-1").iter().any(|(size, _)| *size == 20),
        "{:?}",
        volumes(&cloud, "eu-west-1")
    );

    // Ended behind Terraform's back, it is made again and deployed to.
    let gone = id(&db);
    cloud.ask("eu-west-1", async |client| {
        client.terminate_instances().instance_ids(gone.clone()).send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["nixos_machine.db will be created"]);
    succeeds(&apply(&world));
    no_changes(&world);
    assert_ne!(id(&world.resource("nixos_machine.db")), gone);

    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    for region in ["eu-west-1", "us-east-1"] {
        let left = instances(&cloud, region).into_iter().filter(|(_, state)| state != "terminated").count();
        assert_eq!((left, volumes(&cloud, region)), (0, vec![]), "{region}");
    }
    assert_eq!(key_names(&cloud), Vec::<String>::new());
}

#[test]
fn a_machine_is_stopped_started_and_imported() {
    let world = world(&["rack"]);
    let cloud = Cloud::start(&world, &["eu-west-1"]).unwrap();
    let subnet = cloud.subnet("eu-west-1", 1);
    // Images registered with moto have no architecture to look them up by; those it comes with have.
    let main = |power: &str| {
        format!(
            "{}data \"nixos_ami\" \"nixos\" {{\n  name = \"amzn-ami-hvm-2017.09.1.*-gp2\"\n  owners = \
             [\"137112412989\"]\n}}\nresource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \
             \"admin\"\n  generate = {{ type = \"ed25519\" }}\n  private_key_file = \
             \"${{path.root}}/admin.key\"\n}}\nresource \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  \
             power_state = \"{power}\"\n  ec2 = {{\n    ami = data.nixos_ami.nixos.id\n    instance_type = \
             \"t3.nano\"\n    subnet_id = \"{subnet}\"\n    key_name = nixos_ec2_key_pair.admin.key_name\n    \
             private_key_file = \"${{path.root}}/admin.key\"\n    disable_api_termination = false\n    \
             tags = {{ role = \"db\" }}\n  }}\n}}\n",
            head(&cloud)
        )
    };
    set_up(&world, &main("running"), "");
    succeeds(&apply(&world));
    no_changes(&world);
    let db = world.resource("nixos_machine.db");
    assert!(
        db["ec2"]["ami"].as_str().is_some_and(|ami| ami.starts_with("ami-")),
        "the image that was looked up: {db}"
    );
    let id = db["id"].as_str().unwrap().to_owned();
    let power =
        || instances(&cloud, "eu-west-1").into_iter().find(|(found, _)| *found == id).map(|(_, state)| state);

    world.write("main.tf", &main("stopped")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(power().as_deref(), Some("stopped"));
    no_changes(&world);
    world.write("main.tf", &main("running")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(power().as_deref(), Some("running"));
    no_changes(&world);

    // Somebody stops it and takes a tag away: both show, and are put right.
    cloud.ask("eu-west-1", async |client| {
        client.stop_instances().instance_ids(&id).send().await.unwrap();
        let tag = aws_sdk_ec2::types::Tag::builder().key("role").build();
        client.delete_tags().resources(&id).tags(tag).send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy", "\"stopped\" -> \"running\"", "+ \"role\" = \"db\""]);
    succeeds(&apply(&world));
    no_changes(&world);

    // Forgotten and imported, it is changed in place at most.
    succeeds(&world.terraform(&["state", "rm", "nixos_machine.db"]));
    succeeds(&world.terraform(&["import", "nixos_machine.db", &format!("eu-west-1:{id}")]));
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy"]);
    succeeds(&apply(&world));
    no_changes(&world);
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert!(
        instances(&cloud, "eu-west-1").iter().all(|(_, state)| state == "terminated"),
        "an instance is left"
    );
}

#[test]
fn the_example_with_two_regions_runs_as_it_is() {
    let world = world(&["rack"]);
    let cloud = Cloud::start(&world, &["eu-west-1", "us-east-1"]).unwrap();
    let control = world.lab.control();
    control.copy_in(&e2e::repository().join("terraform-examples/two-regions"), e2e::DIRECTORY).unwrap();
    let regions = [("eu-west-1", 1), ("us-east-1", 2)];
    let of = |value: &dyn Fn(&str, u8) -> serde_json::Value| -> serde_json::Map<String, serde_json::Value> {
        regions.iter().map(|(region, number)| ((*region).to_owned(), value(region, *number))).collect()
    };
    let rack = world.lab.host("rack");
    let variables = serde_json::json!({
        "amis": of(&|region, _| cloud.image(region, "nixos/25.11.1-x86_64-linux").into()),
        "networks": of(&|region, number| serde_json::json!({ "subnet_id": cloud.subnet(region, number) })),
        "rack": { "host": rack.address().to_string(), "host_public_key": rack.host_public_key() },
    });
    world.write("terraform.tfvars.json", &variables.to_string()).unwrap();
    // The cloud is not AWS' own: everything else is as the example's reader has it.
    let endpoint = cloud.endpoint();
    let ambient = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let terraform = |arguments: &[&str]| world.terraform_with(&ambient, arguments);
    succeeds(&terraform(&["init"]));
    succeeds(&terraform(&["apply", "-auto-approve"]));
    let run = terraform(&["plan", "-detailed-exitcode"]);
    assert_eq!(run.code, 0, "{}", run.text);
    let db = world.resource("nixos_machine.cloud[\"db\"]");
    let web = world.resource("nixos_machine.cloud[\"web\"]");
    let at = cloud
        .with(web["id"].as_str().unwrap(), |host| host.exec(&["cat", "/etc/www/database"]).unwrap().stdout);
    assert_eq!(at, format!("{}:5432", db["private_ipv4"].as_str().unwrap()));
    let backup = rack.exec(&["cat", "/etc/backup"]).unwrap().stdout;
    assert!(backup.contains(&format!("from={}", db["public_ipv4"].as_str().unwrap())), "{backup}");
    succeeds(&terraform(&["destroy", "-auto-approve"]));
    for (region, _) in regions {
        assert!(instances(&cloud, region).iter().all(|(_, state)| state == "terminated"), "{region}");
    }
}

#[test]
fn a_running_machine_is_changed_in_place() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &["eu-west-1"]).unwrap();
    let (subnet, ami) =
        (cloud.subnet("eu-west-1", 1), cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux"));
    let (elastic, address, group) = cloud.ask("eu-west-1", async |client| {
        let made = client.allocate_address().domain("vpc".into()).address("54.1.2.3").send().await.unwrap();
        let vpc = client.describe_subnets().subnet_ids(&subnet).send().await.unwrap();
        let vpc = vpc.subnets()[0].vpc_id().unwrap().to_owned();
        let group = client.create_security_group().group_name("ssh").description("SSH").vpc_id(vpc);
        let group = group.send().await.unwrap().group_id().unwrap().to_owned();
        (made.allocation_id().unwrap().to_owned(), made.public_ip().unwrap().to_owned(), group)
    });
    let main = |more: &str| {
        format!(
            "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  generate = {{ type \
             = \"ed25519\" }}\n  private_key_file = \"${{path.root}}/admin.key\"\n}}\nresource \
             \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  timeouts = {{ update = \"90s\" }}\n  ec2 = \
             {{\n    ami = \"{ami}\"\n    instance_type = \"t3.nano\"\n    subnet_id = \"{subnet}\"\n    \
             key_name = nixos_ec2_key_pair.admin.key_name\n    private_key_file = \
             \"${{path.root}}/admin.key\"\n{more}  }}\n}}\n",
            head(&cloud)
        )
    };
    let volumes = "    volumes = {\n      a = { device = \"/dev/sdf\", size = 1 }\n      b = { device = \
                   \"/dev/sdg\", size = 2, delete_on_termination = false }\n    }\n";
    set_up(&world, &main(&format!("{volumes}    disable_api_termination = true\n")), "");
    succeeds(&apply(&world));
    no_changes(&world);
    let db = world.resource("nixos_machine.db");
    let id = db["id"].as_str().unwrap().to_owned();
    let kept = db["ec2"]["volumes"]["b"]["volume_id"].as_str().unwrap().to_owned();
    fails_saying(
        &world.terraform(&["destroy", "-auto-approve", "-target=nixos_machine.db"]),
        &["Machine \"db\" is protected against termination", "Nothing was changed"],
    );

    // A volume that the machine uses is not taken away, nor one of which nobody can say whether it does. The devices
    // of a Xen machine have the names that EC2 knows; a process has opened one exclusively, as a mount or a ZFS pool
    // does.
    let without = |volumes: &str| main(volumes).replace("    disable_api_termination = true\n", "");
    world.write("main.tf", &without("")).unwrap();
    fails_saying(
        &apply(&world),
        &[
            "It is not known whether volume \"a\" is in use",
            "The machine shows no such device",
            "Nothing was changed",
        ],
    );
    let on_db = |words: &[&str]| cloud.with(&id, |host| host.exec(words).unwrap());
    cloud.with(&id, |host| show_volumes(host, &[("/dev/xvdf", 6), ("/dev/xvdg", 7)]));
    let held = "use Fcntl; sysopen(F, '/dev/xvdg', O_RDONLY | O_EXCL) or die $!; sleep 1000";
    on_db(&["systemd-run", "--quiet", "--unit=holds-a-volume", "perl", "-e", held]);
    while !on_db(&["sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q xvdg"]).success {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    fails_saying(&apply(&world), &["Volume \"b\" is in use", "has it as /dev/xvdg", "Nothing was changed"]);
    assert!(volumes_of(&cloud, "eu-west-1").iter().all(|(_, state)| state == "in-use"), "one was taken away");
    assert!(on_db(&["systemctl", "stop", "holds-a-volume"]).success);

    // An address of its own, another group; one volume goes, one is let go of.
    let changed = format!("    elastic_ip = \"{elastic}\"\n    security_group_ids = [\"{group}\"]\n");
    world.write("main.tf", &main(&changed).replace("name = \"db\"", "name = \"store\"")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    no_changes(&world);
    assert_eq!(name_tag(&world, &cloud), "store");
    world.write("main.tf", &main(&changed)).unwrap();
    succeeds(&apply(&world));
    assert_eq!(name_tag(&world, &cloud), "db");
    let db = world.resource("nixos_machine.db");
    assert_eq!((db["id"].as_str(), db["host"].as_str()), (Some(id.as_str()), Some(address.as_str())));
    let mut left = volumes_of(&cloud, "eu-west-1");
    left.retain(|(volume, _)| *volume == kept);
    assert_eq!(left, [(kept.clone(), "available".to_owned())]);

    // Somebody takes the address away: it is put back.
    cloud.ask("eu-west-1", async |client| {
        client.disassociate_address().public_ip(&address).send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["+ elastic_ip", "0 to add, 1 to change, 0 to destroy"]);
    succeeds(&apply(&world));
    no_changes(&world);

    // A volume that was there before comes, and stays when the machine goes.
    let adopted = format!(
        "{changed}    volumes = {{ old = {{ device = \"/dev/sdg\", existing_volume_id = \"{kept}\" }} }}\n"
    );
    world.write("main.tf", &main(&adopted)).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(volumes_of(&cloud, "eu-west-1"), [(kept, "available".to_owned())]);
}

fn name_tag(world: &World, cloud: &Cloud) -> String {
    let instance = instance(world, cloud);
    let name = instance.tags().iter().find(|tag| tag.key() == Some("Name")).and_then(|tag| tag.value());
    name.unwrap_or_default().to_owned()
}

fn volumes_of(cloud: &Cloud, region: &str) -> Vec<(String, String)> {
    cloud.ask(region, async |client| {
        let found = client.describe_volumes().send().await.unwrap();
        let volume = |volume: &aws_sdk_ec2::types::Volume| {
            let state = volume.state().map(|state| state.as_str().to_owned());
            (volume.volume_id().unwrap_or_default().to_owned(), state.unwrap_or_default())
        };
        found.volumes().iter().map(volume).collect()
    })
}
