//! AWS: key pairs, buckets and machines, against the moto server with real hosts behind its instances.

use std::time::Duration;

use e2e::{Cloud, World};

use crate::support::{apply, fails_saying, no_changes, plan, says, set_up, succeeds, world};

/// What a configuration for the cloud begins with.
pub(crate) fn head(cloud: &Cloud, more: &str) -> String {
    head_at(&cloud.endpoint(), more)
}

/// The same for the API at an address.
pub(crate) fn head_at(url: &str, more: &str) -> String {
    format!(
        "{}provider \"nixos\" {{\n  aws = {{\n    region = \"eu-west-1\", access_key = \"test\", secret_key = \"test\"\n    \
         endpoints = {{ ec2 = \"{url}\", s3 = \"{url}\", sts = \"{url}\" }}\n    s3_use_path_style = true\n    default_tags = {{ team = \
         \"infra\" }}\n  }}\n{more}}}\n",
        crate::support::HEAD
    )
}

fn keys(cloud: &Cloud) -> Vec<String> {
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_key_pairs().send().await.unwrap();
        found.key_pairs().iter().filter_map(|pair| pair.key_name().map(str::to_owned)).collect()
    })
}

#[test]
fn a_key_pair_lives_its_whole_life() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let main = |body: &str| {
        format!(
            "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n{body}}}\n",
            head(&cloud, "")
        )
    };
    let generated = "generate = { type = \"ed25519\" }\n  private_key_file = \"admin.key\"\n";
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
        let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMfkVUHQAsJcVRU7pLtAuI6AHfOU3wDbqvkxYJ0oHnB";
        client
            .import_key_pair()
            .key_name("admin")
            .public_key_material(other.as_bytes().to_vec().into())
            .send()
            .await
            .unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["must be replaced", "1 to add, 0 to change, 1 to destroy"]);
    // Terraform lets go of it first, so that it can be made anew; the file is never overwritten.
    succeeds(&apply(&world));
    no_changes(&world);

    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(keys(&cloud), Vec::<String>::new());
    assert!(control.read_file(&site("moved.key")).is_err(), "the private key stays behind");
}

#[test]
fn nobodys_key_pair_is_replaced_and_one_can_be_imported() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMfkVUHQAsJcVRU7pLtAuI6AHfOU3wDbqvkxYJ0oHnB";
    cloud.ask("eu-west-1", async |client| {
        client
            .import_key_pair()
            .key_name("old")
            .public_key_material(public.as_bytes().to_vec().into())
            .send()
            .await
            .unwrap();
    });
    let body = format!("key_name = \"old\"\n  public_key = \"{public} me@home\"\n");
    let main = format!("{}resource \"nixos_ec2_key_pair\" \"old\" {{\n  {body}}}\n", head(&cloud, ""));
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

    let wrong = format!(
        "{}resource \"nixos_ec2_key_pair\" \"old\" {{\n  key_name = \"old\"\n  generate = {{ type = \"ed25519\" }}\n}}\n",
        head(&cloud, "")
    );
    world.write("main.tf", &wrong).unwrap();
    fails_saying(&plan(&world), &["Nowhere to put the private key", "private_key_file"]);
}

const BUCKET: &str = r#"
resource "nixos_s3_bucket" "assets" {
  bucket        = "assets-1"
  force_destroy = true
  versioning    = "Enabled"
  policy = jsonencode({ Version = "2012-10-17", Statement = [
    { Effect = "Allow", Principal = "*", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::assets-1/*"] }] })
  public_access_block    = { block_public_policy = false, restrict_public_buckets = false }
  object_ownership       = "BucketOwnerPreferred"
  server_side_encryption = { sse_algorithm = "aws:kms" }
  website                = { index_document = "index.html", error_document = "error.html" }
  cors_rules             = [{ allowed_methods = ["GET"], allowed_origins = ["*"], max_age_seconds = 60 }]
  lifecycle_rules = [
    { id = "old", expiration = { days = 30 }, filter = { prefix = "log/" } },
    { id = "cold", enabled = false, transitions = [{ days = 30, storage_class = "GLACIER" }], noncurrent_version_expiration = { noncurrent_days = 10 } },
  ]
  tags = { class = "web" }
}
"#;

#[test]
fn a_bucket_lives_its_whole_life() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    set_up(&world, &format!("{}{BUCKET}", head(&cloud, "")), "");
    succeeds(&apply(&world));
    no_changes(&world);

    // What somebody changes shows, and is put back; and nothing else is written.
    cloud.ask_s3("eu-west-1", async |client| {
        client.delete_bucket_policy().bucket("assets-1").send().await.unwrap();
        client.delete_bucket_website().bucket("assets-1").send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy", "+ policy", "+ website"]);
    succeeds(&apply(&world));
    no_changes(&world);

    // Imported into another state, it needs no change.
    succeeds(&world.terraform(&["state", "rm", "nixos_s3_bucket.assets"]));
    fails_saying(&apply(&world), &["There is a bucket \"assets-1\" already", "adopt_existing"]);
    succeeds(&world.terraform(&["import", "nixos_s3_bucket.assets", "assets-1"]));
    let run = apply(&world);
    succeeds(&run);
    no_changes(&world);

    // A part that is removed goes back to what a new bucket has.
    let bare = "resource \"nixos_s3_bucket\" \"assets\" {\n  bucket = \"assets-1\"\n}\n";
    world.write("main.tf", &format!("{}{bare}", head(&cloud, ""))).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    let (policy, rules) = cloud.ask_s3("eu-west-1", async |client| {
        let policy = client.get_bucket_policy().bucket("assets-1").send().await.is_ok();
        (policy, client.get_bucket_lifecycle_configuration().bucket("assets-1").send().await.is_ok())
    });
    assert!(!policy && !rules, "policy or lifecycle rules are still there");

    // What is in it is not deleted by accident, and all of it when asked for.
    cloud.ask_s3("eu-west-1", async |client| {
        let put = async |body: &'static str| {
            let body = aws_sdk_s3::primitives::ByteStream::from_static(body.as_bytes());
            client.put_object().bucket("assets-1").key("page").body(body).send().await.unwrap();
        };
        put("one").await;
        client.delete_object().bucket("assets-1").key("page").send().await.unwrap();
        put("two").await;
        client.create_multipart_upload().bucket("assets-1").key("big").send().await.unwrap();
    });
    fails_saying(
        &world.terraform(&["destroy", "-auto-approve"]),
        &["BucketNotEmpty", "force_destroy = true"],
    );
    let forced = bare.replace("}\n", "  force_destroy = true\n}\n");
    world.write("main.tf", &format!("{}{forced}", head(&cloud, ""))).unwrap();
    succeeds(&apply(&world));
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    let left =
        cloud.ask_s3("eu-west-1", async |client| client.list_buckets().send().await.unwrap().buckets().len());
    assert_eq!(left, 0);
}

/// The state of every instance of a region.
fn instances(cloud: &Cloud, region: &str) -> Vec<(String, String)> {
    cloud.ask(region, async |client| {
        let found = client.describe_instances().send().await.unwrap();
        let instances = found.reservations().iter().flat_map(|reservation| reservation.instances());
        let state = |instance: &aws_sdk_ec2::types::Instance| {
            let state =
                instance.state().and_then(|state| state.name()).map(|state| state.as_str().to_owned());
            (instance.instance_id().unwrap_or_default().to_owned(), state.unwrap_or_default())
        };
        instances.map(state).collect()
    })
}

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

/// Waits for what takes a moment.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A machine in each of two regions, and the key pairs for them.
fn two_regions(world: &World, cloud: &Cloud, db: &str) -> String {
    let regions = [("db", "eu-west-1", 1, db), ("web", "us-east-1", 2, "")];
    let machines: String = regions
        .iter()
        .map(|(name, region, number, more)| {
            let (image, subnet) = (cloud.image(region, "nixos/24.11.1-x86_64-linux"), cloud.subnet(region, *number));
            format!(
                "resource \"nixos_ec2_key_pair\" \"{name}\" {{\n  key_name = \"{name}\"\n  region = \"{region}\"\n  public_key = \
                 nixos_ec2_key_pair.admin.public_key\n}}\nresource \"nixos_machine\" \"{name}\" {{\n  name = \"{name}\"\n  ec2 = {{\n    \
                 region = \"{region}\"\n    ami = \"{image}\"\n    subnet_id = \"{subnet}\"\n    key_name = \
                 nixos_ec2_key_pair.{name}.key_name\n    private_key_file = nixos_ec2_key_pair.admin.private_key_file\n    {more}\n  }}\n}}\n"
            )
        })
        .collect();
    let rack = crate::support::machine(world, "rack", "");
    format!(
        "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  generate = {{ type = \"ed25519\" }}\n  private_key_file = \
         \"${{path.root}}/admin.key\"\n}}\n{machines}{rack}resource \"nixos_deployment\" \"site\" {{\n  network = \
         \"${{path.module}}/network.nix\"\n  machines = {{ db = nixos_machine.db.target, web = nixos_machine.web.target, rack = \
         nixos_machine.rack.target }}\n}}\n",
        head(cloud, "")
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
    assert_eq!(keys(&cloud), Vec::<String>::new());
}

#[test]
fn a_machine_is_stopped_started_and_imported() {
    let world = world(&["rack"]);
    let cloud = Cloud::start(&world, &["eu-west-1"]).unwrap();
    let subnet = cloud.subnet("eu-west-1", 1);
    // Images registered with moto have no architecture to look them up by; those it comes with have.
    let main = |power: &str| {
        format!(
            "{}data \"nixos_ami\" \"nixos\" {{\n  name = \"amzn-ami-hvm-2017.09.1.*-gp2\"\n  owners = [\"137112412989\"]\n}}\nresource \"nixos_ec2_key_pair\" \"admin\" \
             {{\n  key_name = \"admin\"\n  generate = {{ type = \"ed25519\" }}\n  private_key_file = \"${{path.root}}/admin.key\"\n}}\nresource \
             \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  power_state = \"{power}\"\n  ec2 = {{\n    ami = data.nixos_ami.nixos.id\n    \
             instance_type = \"t3.nano\"\n    subnet_id = \"{subnet}\"\n    key_name = nixos_ec2_key_pair.admin.key_name\n    \
             private_key_file = \"${{path.root}}/admin.key\"\n    disable_api_termination = false\n    tags = {{ role = \"db\" }}\n  }}\n}}\n",
            head(&cloud, "")
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

    // One that nobody can log in to is in the state all the same, with what its console says.
    cloud.boot_nothing(true);
    let dead = main("running")
        .replace("\"nixos_machine\" \"db\"", "\"nixos_machine\" \"dead\"")
        .replace("name = \"db\"", "name = \"dead\"\n  timeouts = { create = \"8s\" }");
    let dead = format!("{}{}", main("running"), &dead[dead.find("resource \"nixos_machine\"").unwrap()..]);
    world.write("main.tf", &dead).unwrap();
    fails_saying(
        &world.terraform(&["apply", "-auto-approve", "-target=nixos_machine.dead"]),
        &["Machine \"dead\" cannot be reached", "it is in the state"],
    );
    until("two instances", || instances(&cloud, "eu-west-1").len() == 2);
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
            "{}resource \"nixos_ec2_key_pair\" \"admin\" {{\n  key_name = \"admin\"\n  generate = {{ type = \"ed25519\" }}\n  private_key_file \
             = \"${{path.root}}/admin.key\"\n}}\nresource \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  timeouts = {{ update = \"90s\" \
             }}\n  ec2 = {{\n    ami = \"{ami}\"\n    instance_type = \"t3.nano\"\n    subnet_id = \"{subnet}\"\n    key_name = \
             nixos_ec2_key_pair.admin.key_name\n    private_key_file = \"${{path.root}}/admin.key\"\n{more}  }}\n}}\n",
            head(&cloud, "")
        )
    };
    let volumes = "    volumes = {\n      a = { device = \"/dev/sdf\", size = 1 }\n      b = { device = \"/dev/sdg\", size = 2, \
                   delete_on_termination = false }\n    }\n";
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

    // An address of its own, another group; one volume goes, one is let go of.
    let changed = format!("    elastic_ip = \"{elastic}\"\n    security_group_ids = [\"{group}\"]\n");
    world.write("main.tf", &main(&changed).replace("name = \"db\"", "name = \"store\"")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    no_changes(&world);
    assert_eq!(name_tag(&cloud, &id), "store");
    world.write("main.tf", &main(&changed)).unwrap();
    succeeds(&apply(&world));
    assert_eq!(name_tag(&cloud, &id), "db");
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

fn name_tag(cloud: &Cloud, id: &str) -> String {
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_instances().instance_ids(id).send().await.unwrap();
        let tags = found.reservations()[0].instances()[0].tags();
        let name = tags.iter().find(|tag| tag.key() == Some("Name")).and_then(|tag| tag.value());
        name.unwrap_or_default().to_owned()
    })
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

#[test]
fn what_aws_refuses_says_what_to_do() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let machine = |ami: &str, more: &str| {
        format!(
            "{}resource \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  ec2 = {{\n    ami = \"{ami}\"\n    instance_type = \"t3.nano\"\n{more}  }}\n}}\n",
            head(&cloud, "")
        )
    };
    set_up(&world, &machine("ami-0123456789abcdef0", ""), "");
    fails_saying(&apply(&world), &["There is no image ami-0123456789abcdef0", "data.nixos_ami", "eu-west-1"]);
    let wrong = [
        ("    user_data = \"x\"\n", "Nobody would know the new machine's host key"),
        (
            "    volumes = { a = { device = \"/dev/sdf\", size = 1 }, b = { device = \"/dev/xvdf\", size = 1 } }\n",
            "Two volumes at one device",
        ),
        ("    volumes = { a = { device = \"/dev/sdf\" } }\n", "A volume without a size"),
        ("    volumes = { a = { device = \"sdf\", size = 1 } }\n", "Found \"sdf\""),
        ("    spot = { max_price = \"cheap\" }\n", "Found \"cheap\""),
    ];
    for (more, says) in wrong {
        world.write("main.tf", &machine("ami-1", more)).unwrap();
        fails_saying(&plan(&world), &[says]);
    }
    // Without credentials, without an answer.
    let bare =
        format!("{}provider \"nixos\" {{\n  aws = {{ region = \"eu-west-1\" }}\n}}\n", crate::support::HEAD);
    let bucket = "resource \"nixos_s3_bucket\" \"b\" {\n  bucket = \"some-bucket\"\n}\n";
    world.write("main.tf", &format!("{bare}{bucket}")).unwrap();
    let off = [("AWS_EC2_METADATA_DISABLED", "true")];
    fails_saying(
        &world.terraform_with(&off, &["apply", "-auto-approve"]),
        &["No usable credentials were found", "AWS_PROFILE"],
    );
    let nowhere = head(&cloud, "").replace(":5000", ":1").replace("region = ", "max_attempts = 1, region = ");
    world.write("main.tf", &format!("{nowhere}{bucket}")).unwrap();
    fails_saying(&apply(&world), &["There was no answer", "aws.endpoints"]);
}
