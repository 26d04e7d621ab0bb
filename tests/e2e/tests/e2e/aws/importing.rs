//! Import of what AWS has already: where the configuration says what is there, nothing is left to do.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{BlockDeviceMapping, EbsBlockDevice};
use e2e::{Cloud, World};

use super::{head, one_host_for_all};
use crate::support::{apply, no_changes, plan, says, set_up, succeeds};

/// The beginning of a configuration that trusts the first host key it sees, and machine `db`.
fn main(cloud: &Cloud, name: &str, ami: &str, more: &str) -> String {
    format!(
        "{}resource \"nixos_machine\" \"db\" {{\n  name = \"{name}\"\n  ec2 = {{\n    ami = \"{ami}\"\n    \
         instance_type = \"t3.nano\"\n{more}  }}\n}}\n",
        trusting(cloud)
    )
}

fn trusting(cloud: &Cloud) -> String {
    head(cloud).replace(
        "provider \"nixos\" {\n",
        "provider \"nixos\" {\n  ssh = { host_key_policy = \"accept_new\" }\n",
    )
}

/// Ids and states of all volumes.
fn volumes(cloud: &Cloud) -> BTreeSet<(String, String)> {
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_volumes().send().await.unwrap();
        let volume = |volume: &aws_sdk_ec2::types::Volume| {
            let state = volume.state().map(|state| state.as_str().to_owned());
            (volume.volume_id().unwrap_or_default().to_owned(), state.unwrap_or_default())
        };
        found.volumes().iter().map(volume).collect()
    })
}

/// Forgets the machine and imports it.
#[track_caller]
fn import_again(world: &World) {
    let id = world.resource("nixos_machine.db")["id"].as_str().unwrap().to_owned();
    succeeds(&world.terraform(&["state", "rm", "nixos_machine.db"]));
    succeeds(&world.terraform(&["import", "nixos_machine.db", &id]));
}

#[test]
fn a_machine_with_everything_in_its_block_is_imported_without_a_change() {
    let (world, cloud) = one_host_for_all();
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    cloud.instance_profile("web");
    let subnet = cloud.subnet("eu-west-1", 1);
    let (elastic, kept) = cloud.ask("eu-west-1", async |client| {
        let made = client.allocate_address().domain("vpc".into()).address("54.1.2.3").send().await.unwrap();
        let found = client.describe_subnets().subnet_ids(&subnet).send().await.unwrap();
        let zone = found.subnets()[0].availability_zone().unwrap();
        let kept = client.create_volume().availability_zone(zone).size(3).send().await.unwrap();
        (made.allocation_id().unwrap().to_owned(), kept.volume_id().unwrap().to_owned())
    });
    let options = "    metadata_options = { http_put_response_hop_limit = 2, instance_metadata_tags = \
                   \"enabled\" }\n    disable_api_termination = true\n    user_data = \"#!/bin/sh\\n\"\n    \
                   root_volume = { size = 20, type = \"gp3\", delete_on_termination = false }\n";
    let attached = format!(
        "    volumes = {{\n      data = {{ device = \"/dev/sdf\", size = 50, type = \"gp2\" }}\n      logs \
         = {{ device = \"/dev/xvdg\", size = 5, delete_on_termination = false }}\n      sdh = {{ device = \
         \"/dev/sdh\", existing_volume_id = \"{kept}\" }}\n    }}\n"
    );
    let bare = format!(
        "    subnet_id = \"{subnet}\"\n    private_ip = \"10.88.1.77\"\n    associate_public_ip_address = \
         true\n    instance_profile = \"web\"\n    tenancy = \"default\"\n    ebs_optimized = false\n    \
         source_dest_check = false\n    host_key = \"none\"\n    tags = {{ role = \"db\" }}\n"
    );
    let full = main(&cloud, "db", &ami, &format!("{bare}{options}{attached}"));
    set_up(&world, &full, "");
    succeeds(&apply(&world));
    no_changes(&world);
    let before = world.resource("nixos_machine.db");
    let there = volumes(&cloud);
    import_again(&world);
    no_changes(&world);
    let after = world.resource("nixos_machine.db");
    for attribute in ["ec2", "id", "host", "public_ipv4", "private_ipv4", "machine_id", "power_state"] {
        assert_eq!(after[attribute], before[attribute], "{attribute}");
    }

    // With an elastic address EC2 does not show whether there was one of its own before.
    let elastic = format!("    elastic_ip = \"{elastic}\"\n");
    world
        .write("main.tf", &main(&cloud, "db", &ami, &format!("{bare}{elastic}{options}{attached}")))
        .unwrap();
    succeeds(&apply(&world));
    import_again(&world);
    let bare = bare.replace("    associate_public_ip_address = true\n", &elastic);
    world.write("main.tf", &main(&cloud, "db", &ami, &format!("{bare}{options}{attached}"))).unwrap();
    no_changes(&world);

    // What a configuration does not name stays as it was found.
    let less = main(&cloud, "db", &ami, &bare);
    world.write("main.tf", &less).unwrap();
    no_changes(&world);
    world.write("main.tf", &less.replace("role = \"db\"", "role = \"store\"")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    assert_eq!(volumes(&cloud), there, "nothing is detached or deleted");
    let found = world.resource("nixos_machine.db");
    assert_eq!(found["ec2"]["volumes"], before["ec2"]["volumes"]);

    // Nor is a volume touched that it does not name beside others.
    let data = attached
        .lines()
        .filter(|line| !line.contains("logs =") && !line.contains("sdh ="))
        .collect::<Vec<_>>();
    world.write("main.tf", &main(&cloud, "db", &ami, &format!("{bare}{}\n", data.join("\n")))).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(
        &run,
        &[
            "Volume \"logs\" of machine \"db\" stays attached",
            "Volume \"sdh\" of machine \"db\" stays attached",
        ],
    );
    assert_eq!(volumes(&cloud), there, "nothing is detached or deleted");
    no_changes(&world);

    // What was named once is the configuration's: without it the volume goes.
    world.write("main.tf", &less).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    let gone = before["ec2"]["volumes"]["data"]["volume_id"].as_str().unwrap();
    let mut left = there.clone();
    left.retain(|(id, _)| id != gone);
    assert_eq!(volumes(&cloud), left);
}

#[test]
fn terraform_writes_the_configuration_of_an_imported_machine() {
    let (world, cloud) = one_host_for_all();
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    let full = "    host_key = \"none\"\n    root_volume = { size = 20 }\n    volumes = { data = { device = \
                \"/dev/sdf\", size = 50 } }\n";
    set_up(&world, &main(&cloud, "db", &ami, full), "");
    succeeds(&apply(&world));
    let id = world.resource("nixos_machine.db")["id"].as_str().unwrap().to_owned();
    succeeds(&world.terraform(&["state", "rm", "nixos_machine.db"]));
    let import = format!("{}import {{\n  to = nixos_machine.db\n  id = \"{id}\"\n}}\n", trusting(&cloud));
    world.write("main.tf", &import).unwrap();
    let run = world.terraform(&["plan", "-generate-config-out=generated.tf"]);
    succeeds(&run);
    says(&run, &["1 to import, 0 to add, 0 to change, 0 to destroy"]);
    succeeds(&apply(&world));
    no_changes(&world);
}

/// An instance that nobody here has made, with a volume that goes with it and one that does not.
fn foreign(cloud: &Cloud, ami: &str, subnet: &str) -> String {
    cloud.ask("eu-west-1", async |client| {
        let at = |device: &str, size: i32| {
            let ebs = EbsBlockDevice::builder().volume_size(size).delete_on_termination(true).build();
            BlockDeviceMapping::builder().device_name(device).ebs(ebs).build()
        };
        let (root, data) = (at("/dev/xvda", 8), at("/dev/sdf", 7));
        let made = client.run_instances().image_id(ami).instance_type("t3.nano".into()).subnet_id(subnet);
        let made = made
            .min_count(1)
            .max_count(1)
            .block_device_mappings(root)
            .block_device_mappings(data)
            .send()
            .await
            .unwrap();
        let id = made.instances()[0].instance_id().unwrap().to_owned();
        let zone = made.instances()[0].placement().unwrap().availability_zone().unwrap().to_owned();
        let lent = client.create_volume().availability_zone(zone).size(3).send().await.unwrap();
        let lent = lent.volume_id().unwrap();
        client.attach_volume().instance_id(&id).volume_id(lent).device("/dev/sdg").send().await.unwrap();
        id
    })
}

#[test]
fn a_machine_of_somebody_elses_making_is_imported_and_gets_no_second_volume() {
    let (world, cloud) = one_host_for_all();
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    let id = foreign(&cloud, &ami, &cloud.subnet("eu-west-1", 1));
    let there = volumes(&cloud);
    let body = |more: &str| main(&cloud, &id, &ami, more);
    set_up(&world, &body(""), "");
    succeeds(&world.terraform(&["import", "nixos_machine.db", &id]));
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    assert_eq!(volumes(&cloud), there);
    no_changes(&world);
    let state = world.resource("nixos_machine.db")["ec2"]["volumes"].clone();
    assert_eq!(
        (&state["sdf"]["existing_volume_id"], &state["sdg"]["existing_volume_id"]),
        (&serde_json::Value::Null, &state["sdg"]["volume_id"]),
        "what goes with the machine is its own: {state}"
    );

    // The configuration has names of its own for them, and wants one of them for the machine.
    let named = "    volumes = {\n      data = { device = \"/dev/xvdf\", size = 7 }\n      lent = { device = \
                 \"/dev/sdg\", size = 4, delete_on_termination = false }\n    }\n";
    world.write("main.tf", &body(named)).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy"]);
    succeeds(&apply(&world));
    no_changes(&world);
    assert_eq!(volumes(&cloud), there, "no volume came or went");
    let now = world.resource("nixos_machine.db")["ec2"]["volumes"].clone();
    assert_eq!(now["data"]["volume_id"], state["sdf"]["volume_id"]);
    assert_eq!((&now["lent"]["volume_id"], &now["lent"]["size"]), (&state["sdg"]["volume_id"], &4.into()));
}
