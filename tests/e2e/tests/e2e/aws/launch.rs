//! What a machine is launched with: spot, placement, volumes. moto keeps little of it; what it does not keep is
//! looked up in what EC2 was asked for.

use e2e::{Cloud, Storm, Weather, World};

use super::{instance, instances, machine, once, one_host_for_all};
use crate::support::{apply, apply_until, fails_saying, no_changes, plan, says, set_up, succeeds};

/// EC2 has nothing to give at the moment. It says so with the status of a failure of its own.
const NO_CAPACITY: Storm = Storm::Refused {
    status: 500,
    code: "InsufficientInstanceCapacity",
    message: "There is no Spot capacity available that matches your request.",
};

const SPOT: &str = "spot = { max_price = \"0.05\" }";

/// A network, its weather, and a configuration for a machine with `more` in its block.
fn launching() -> (World, Cloud, Weather, impl Fn(&Weather, &str) -> String) {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    (world, cloud, weather, move |weather: &Weather, more: &str| once(weather, &machine(&ami, more)))
}

/// What `RunInstances` was asked for.
fn asked(weather: &Weather, names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| weather.parameter("RunInstances", name)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

#[test]
fn a_spot_machine_is_asked_for_until_there_is_capacity() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, SPOT), "");
    weather.strike("RunInstances", NO_CAPACITY);
    let child = apply_until(&world, || weather.asked("RunInstances") > 2);
    weather.calm();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let names = ["MarketType", "SpotOptions.MaxPrice"].map(|name| format!("InstanceMarketOptions.{name}"));
    assert_eq!(asked(&weather, &[&names[0], &names[1]]), some(&["spot", "0.05"]));
    let lifecycle = instance(&world, &cloud).instance_lifecycle().map(|kind| kind.as_str().to_owned());
    assert_eq!(lifecycle.as_deref(), Some("spot"));
    assert_eq!(world.resource("nixos_machine.db")["ec2"]["spot"]["max_price"], "0.05");
    no_changes(&world);

    // Another price is another request, and so another machine.
    world.write("main.tf", &main(&weather, &SPOT.replace("0.05", "0.1"))).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["must be replaced", "spot = { # forces replacement", "\"0.05\" -> \"0.1\""]);
}

#[test]
fn a_spot_machine_that_is_not_to_be_had_leaves_nothing_in_the_state() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, SPOT).replace("create = \"60s\"", "create = \"3s\""), "");
    weather.strike("RunInstances", NO_CAPACITY);
    let run = apply(&world);
    fails_saying(&run, &["AWS did not create machine \"db\"", "InsufficientInstanceCapacity"]);
    assert!(
        !run.text.contains("Whether there is an instance"),
        "EC2 has said that there is none:\n{}",
        run.text
    );
    assert_eq!(world.terraform(&["state", "list"]).text, "");
    assert_eq!(instances(&cloud, "eu-west-1"), []);
}

#[test]
fn an_interrupted_spot_machine_is_made_again_and_one_that_lasts_is_started() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, SPOT), "");
    succeeds(&apply(&world));
    let first = instances(&cloud, "eu-west-1");
    // EC2 takes it away, as it does when the price rises.
    cloud.ask("eu-west-1", async |client| {
        client.terminate_instances().instance_ids(&first[0].0).send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["nixos_machine.db will be created"]);

    let lasting = "spot = { type = \"persistent\", interruption_behavior = \"stop\" }";
    world.write("main.tf", &main(&weather, lasting)).unwrap();
    succeeds(&apply(&world));
    let options = "InstanceMarketOptions.SpotOptions";
    let names = [format!("{options}.SpotInstanceType"), format!("{options}.InstanceInterruptionBehavior")];
    assert_eq!(asked(&weather, &[&names[0], &names[1]]), some(&["persistent", "stop"]));
    let second = instance(&world, &cloud).instance_id().unwrap().to_owned();
    cloud.ask("eu-west-1", async |client| {
        client.stop_instances().instance_ids(&second).send().await.unwrap();
    });
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy", "\"stopped\" -> \"running\""]);
    // moto has no request behind the instance, which would have to be cancelled here.
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert!(instances(&cloud, "eu-west-1").iter().all(|(_, state)| state == "terminated"));
}

#[test]
fn a_machine_is_placed_where_it_is_to_be() {
    let (world, cloud, weather, main) = launching();
    let zone = "availability_zone = \"eu-west-1b\"";
    set_up(&world, &main(&weather, zone), "");
    succeeds(&apply(&world));
    no_changes(&world);
    let placement = instance(&world, &cloud).placement().cloned().unwrap();
    assert_eq!(placement.availability_zone(), Some("eu-west-1b"));
    let first = world.resource("nixos_machine.db");
    assert_eq!((&first["ec2"]["tenancy"], &first["ec2"]["placement_group"]), (&"default".into(), &().into()));

    // A machine does not move: each of these is another one.
    for (more, says_so) in [
        ("availability_zone = \"eu-west-1a\"", "\"eu-west-1b\" -> \"eu-west-1a\" # forces replacement"),
        ("placement_group = \"rack\"", "+ placement_group = \"rack\" # forces replacement"),
        ("tenancy = \"dedicated\"", "\"default\" -> \"dedicated\" # forces replacement"),
    ] {
        world.write("main.tf", &main(&weather, more)).unwrap();
        let run = plan(&world);
        succeeds(&run);
        says(&run, &["1 to add, 0 to change, 1 to destroy", says_so]);
    }
    let all = format!("{zone}\n    placement_group = \"rack\"\n    tenancy = \"dedicated\"");
    world.write("main.tf", &main(&weather, &all)).unwrap();
    succeeds(&apply(&world));
    let names = ["Placement.AvailabilityZone", "Placement.GroupName", "Placement.Tenancy"];
    assert_eq!(asked(&weather, &names), some(&["eu-west-1b", "rack", "dedicated"]));
    let second = world.resource("nixos_machine.db");
    assert_ne!(second["id"], first["id"]);
    assert_eq!(
        (&second["ec2"]["placement_group"], &second["ec2"]["tenancy"]),
        (&"rack".into(), &"dedicated".into())
    );
}

#[test]
fn an_instance_profile_that_is_not_known_yet_is_waited_for() {
    let (world, cloud, weather, main) = launching();
    let arn = cloud.instance_profile("web");
    set_up(&world, &main(&weather, &format!("instance_profile = \"{arn}\"")), "");
    // IAM tells EC2 of a new profile some seconds later.
    let message =
        "Value (web) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";
    weather.strike("RunInstances", Storm::Refused { status: 400, code: "InvalidParameterValue", message });
    let child = apply_until(&world, || weather.asked("RunInstances") > 1);
    weather.calm();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let there = instance(&world, &cloud);
    assert_eq!(there.iam_instance_profile().and_then(|profile| profile.arn()), Some(arn.as_str()));
    no_changes(&world);
}

#[test]
fn volumes_come_from_snapshots_and_are_encrypted_with_a_key() {
    let (world, cloud, weather, main) = launching();
    let snapshots = [7, 9].map(|size| {
        cloud.ask("eu-west-1", async |client| {
            let made =
                client.create_volume().availability_zone("eu-west-1a").size(size).send().await.unwrap();
            let id = made.volume_id().unwrap().to_owned();
            let snapshot = client.create_snapshot().volume_id(&id).send().await.unwrap();
            client.delete_volume().volume_id(id).send().await.unwrap();
            snapshot.snapshot_id().unwrap().to_owned()
        })
    });
    let key =
        |id: u8| format!("arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-00000000000{id}");
    let volumes = format!(
        "volumes = {{\n      old = {{ device = \"/dev/sdf\", snapshot_id = \"{}\" }}\n      vault = {{ \
         device = \"/dev/sdg\", size = 5, encrypted = true, kms_key_id = \"{}\" }}\n    }}",
        snapshots[0],
        key(1)
    );
    set_up(&world, &main(&weather, &volumes), "");
    succeeds(&apply(&world));
    no_changes(&world);
    let state = world.resource("nixos_machine.db")["ec2"]["volumes"].clone();
    // Its size is that of the snapshot.
    assert_eq!((&state["old"]["size"], &state["old"]["encrypted"]), (&7.into(), &false.into()));
    let there = cloud.ask("eu-west-1", async |client| {
        let found = client.describe_volumes().send().await.unwrap();
        let volume = |name: &str| {
            let id = state[name]["volume_id"].as_str().unwrap();
            found.volumes().iter().find(|volume| volume.volume_id() == Some(id)).unwrap().clone()
        };
        [volume("old"), volume("vault")]
    });
    assert_eq!((there[0].snapshot_id(), there[0].size()), (Some(snapshots[0].as_str()), Some(7)));
    assert_eq!((there[1].encrypted(), there[1].kms_key_id()), (Some(true), Some(key(1).as_str())));

    // None of it can be changed without losing what is on the volume.
    for (from, to, attribute) in [
        (snapshots[0].clone(), snapshots[1].clone(), "snapshot_id"),
        (key(1), key(2), "kms_key_id"),
        (
            format!("encrypted = true, kms_key_id = \"{}\"", key(1)),
            "encrypted = false".to_owned(),
            "encrypted",
        ),
    ] {
        world.write("main.tf", &main(&weather, &volumes.replace(&from, &to))).unwrap();
        fails_saying(&plan(&world), &[&format!("`{attribute}` of a volume cannot be changed")]);
    }
}

#[test]
fn what_was_made_a_moment_ago_is_waited_for() {
    for (code, message) in [
        ("InvalidKeyPair.NotFound", "The key pair 'admin' does not exist"),
        ("InvalidGroup.NotFound", "The security group 'sg-1' does not exist"),
        ("InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist"),
        ("InvalidParameterValue", "IAM Instance Profile \"p\" has no associated IAM Roles"),
    ] {
        let (world, _cloud, weather, main) = launching();
        set_up(&world, &main(&weather, ""), "");
        weather.strike("RunInstances", Storm::Refused { status: 400, code, message });
        let child = apply_until(&world, || weather.asked("RunInstances") > 2);
        weather.calm();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{code}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_root_volume_that_is_named_later_is_changed_at_once() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, ""), "");
    succeeds(&apply(&world));
    assert!(world.resource("nixos_machine.db")["ec2"]["root_volume"].is_null());
    let root = || {
        let there = instance(&world, &cloud);
        let ebs = there.block_device_mappings()[0].ebs().unwrap().clone();
        let id = ebs.volume_id().unwrap().to_owned();
        let size = cloud.ask("eu-west-1", async |client| {
            let found = client.describe_volumes().volume_ids(id).send().await.unwrap();
            found.volumes()[0].size().unwrap()
        });
        (size, ebs.delete_on_termination())
    };
    let (size, _) = root();
    let larger = format!("root_volume = {{ size = {}, delete_on_termination = false }}", size + 20);
    world.write("main.tf", &main(&weather, &larger)).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    assert_eq!(root(), (size + 20, Some(false)));
    no_changes(&world);
    // Whether it is encrypted was decided when it was made.
    world.write("main.tf", &main(&weather, &larger.replace("size =", "encrypted = true, size ="))).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["must be replaced", "root_volume = { # forces replacement"]);
    // Where the state does not have the volume, only the machine can be asked what it is like.
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    world.write("main.tf", &main(&weather, "")).unwrap();
    succeeds(&apply(&world));
    world.write("main.tf", &main(&weather, "root_volume = { encrypted = true }")).unwrap();
    fails_saying(&apply(&world), &["The root volume of machine \"db\" is encrypted otherwise", "-replace"]);
    world.write("main.tf", &main(&weather, "")).unwrap();
    no_changes(&world);
}

#[test]
fn an_instance_that_is_heard_of_late_is_not_forgotten() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, ""), "");
    weather.strike("RunInstances", Storm::AnswerLost);
    fails_saying(&apply(&world), &["AWS did not create machine \"db\"", "The next plan looks for it"]);
    weather.calm();
    let there = instances(&cloud, "eu-west-1");
    assert_eq!(there.len(), 1, "one call, whose answer was lost: {there:?}");
    // The next run asks a part of EC2 that has not heard of it: for a moment nothing says that there is such an
    // instance.
    weather.hide_everything("DescribeInstances", 3);
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert!(
        instances(&cloud, "eu-west-1").iter().all(|(_, state)| state == "terminated"),
        "an instance is left"
    );
}

#[test]
fn a_machine_whose_keys_come_late_is_not_made_twice() {
    let (world, cloud, weather, main) = launching();
    set_up(&world, &main(&weather, ""), "");
    let rack = world.lab.host("rack");
    rack.exec(&["mv", "/root/.ssh/authorized_keys", "/root/late"]).unwrap();
    let refused = || {
        let said =
            rack.exec(&["journalctl", "-o", "cat", "-t", "sshd-session", "-t", "sshd"]).unwrap().stdout;
        said.matches("closed by authenticating user root").count()
    };
    let child = apply_until(&world, || refused() >= 2);
    rack.exec(&["mv", "/root/late", "/root/.ssh/authorized_keys"]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    no_changes(&world);
    assert_eq!(instances(&cloud, "eu-west-1").len(), 1);
}
