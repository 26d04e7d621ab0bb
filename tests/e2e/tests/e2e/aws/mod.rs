//! AWS, as far as the moto server has it: key pairs, buckets, and machines with real hosts behind their instances.
//! Here is what the tests share: how a configuration begins, and what the cloud itself says there is.

mod addresses;
mod buckets;
mod drift;
mod errors;
mod faults;
mod importing;
mod keys;
mod launch;
mod machines;
mod secrets;

use aws_sdk_ec2::types::Instance;
use e2e::{Cloud, Weather, World};

use crate::support::world;

/// Somebody's public key.
const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMfkVUHQAsJcVRU7pLtAuI6AHfOU3wDbqvkxYJ0oHnB";

/// What a configuration for the cloud begins with.
fn head(cloud: &Cloud) -> String {
    head_at(&cloud.endpoint())
}

/// The same for the API at an address.
fn head_at(url: &str) -> String {
    format!(
        "{}provider \"nixos\" {{\n  aws = {{\n    region = \"eu-west-1\", access_key = \"test\", \
         secret_key = \"test\"\n    endpoints = {{ ec2 = \"{url}\", s3 = \"{url}\", sts = \"{url}\" }}\n    \
         s3_use_path_style = true\n    default_tags = {{ team = \"infra\" }}\n  }}\n}}\n",
        crate::support::HEAD
    )
}

/// A configuration whose calls are tried once.
fn once(weather: &Weather, body: &str) -> String {
    format!("{}{body}", head_at(&weather.endpoint()).replace("region = ", "max_attempts = 1, region = "))
}

/// A network in which one real host answers at every address that instances get.
fn one_host_for_all() -> (World, Cloud) {
    let world = world(&["rack"]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let everywhere = ["ip", "route", "add", "local", "54.0.0.0/8", "dev", "lo"];
    let done = world.lab.host("rack").exec(&everywhere).unwrap();
    assert!(done.success, "{}", done.stderr);
    show_volumes(world.lab.host("rack"), &[("/dev/xvdf", 4), ("/dev/xvdg", 5)]);
    (world, cloud)
}

/// Shows block devices on a host under the names that volumes have on a Xen machine. They are loop devices without a
/// file: nothing uses them, and nothing is on them.
fn show_volumes(host: &lab::Host, devices: &[(&str, u8)]) {
    for (device, minor) in devices {
        let done = host.exec(&["mknod", device, "b", "7", &minor.to_string()]).unwrap();
        assert!(done.success, "{}", done.stderr);
    }
}

/// A machine there, with `more` in its `ec2` block.
fn machine(ami: &str, more: &str) -> String {
    format!(
        "resource \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  timeouts = {{ create = \"60s\", update = \
         \"60s\" }}\n  ec2 = {{\n    ami = \"{ami}\"\n    instance_type = \"t3.nano\"\n    host_key = \
         \"none\"\n    host_key_policy = \"accept_new\"\n    {more}\n  }}\n}}\n"
    )
}

/// The instance of the machine in state, as the cloud describes it.
fn instance(world: &World, cloud: &Cloud) -> Instance {
    let id = world.resource("nixos_machine.db")["id"].as_str().expect("the state has an instance").to_owned();
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_instances().instance_ids(id).send().await.unwrap();
        found.reservations()[0].instances()[0].clone()
    })
}

/// The state of every instance of a region.
fn instances(cloud: &Cloud, region: &str) -> Vec<(String, String)> {
    cloud.ask(region, async |client| {
        let found = client.describe_instances().send().await.unwrap();
        let instances = found.reservations().iter().flat_map(|reservation| reservation.instances());
        let state = |instance: &Instance| {
            let state =
                instance.state().and_then(|state| state.name()).map(|state| state.as_str().to_owned());
            (instance.instance_id().unwrap_or_default().to_owned(), state.unwrap_or_default())
        };
        instances.map(state).collect()
    })
}

/// The names of all key pairs.
fn key_names(cloud: &Cloud) -> Vec<String> {
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_key_pairs().send().await.unwrap();
        found.key_pairs().iter().filter_map(|pair| pair.key_name().map(str::to_owned)).collect()
    })
}
