//! AWS on bad days: throttling, errors, lost requests and answers, and things that are not known everywhere at once.
//! Whatever happens, nothing is made twice, nothing is left behind that no state knows of, and no state is lost.

use std::collections::BTreeSet;

use e2e::{Cloud, Run, Storm, Weather, World};

use super::buckets::buckets;
use super::{PUBLIC_KEY, head_at, key_names, one_host_for_all};
use crate::support::{apply, fails_saying, no_changes, says, set_up, succeeds};

/// How many resources live and die in each round.
const MACHINES: usize = 8;
const KEYS: usize = 16;
const BUCKETS: usize = 16;

/// How many lives the test looks at, unless `AWS_FAULT_LIVES` says otherwise.
const LIVES: usize = 120;

/// Of a hundred requests, how many meet something.
const RATE: u8 = 12;

/// Machines, key pairs and buckets in a generation of theirs.
fn main_tf(weather: &Weather, subnet: &str, ami: &str, counts: [usize; 3], generation: usize) -> String {
    let [machines, keys, buckets] = counts;
    let kind = ["t3.nano", "t3.micro"][generation % 2];
    let days = 10 + generation;
    let head = head_at(&weather.endpoint()).replace("region = ", "max_attempts = 3, region = ");
    format!(
        r#"{head}
resource "nixos_machine" "all" {{
  count = {machines}
  name  = "m${{count.index}}"
  timeouts = {{ create = "90s", update = "90s", delete = "60s" }}
  ec2 = {{
    ami = "{ami}"
    subnet_id = "{subnet}"
    instance_type = "{kind}"
    allow_stopping_for_update = true
    host_key = "none"
    host_key_policy = "accept_new"
    volumes = {{ data = {{ device = "/dev/sdf", size = {days} }} }}
    tags = {{ generation = "{generation}" }}
  }}
}}
resource "nixos_ec2_key_pair" "all" {{
  count      = {keys}
  key_name   = "k${{count.index}}"
  public_key = "{PUBLIC_KEY}"
  tags       = {{ generation = "{generation}" }}
}}
resource "nixos_s3_bucket" "all" {{
  count         = {buckets}
  bucket        = "bucket-${{count.index}}"
  force_destroy = true
  versioning    = "Enabled"
  lifecycle_rules = [{{ id = "old", expiration = {{ days = {days} }} }}]
  tags          = {{ generation = "{generation}" }}
}}
"#
    )
}

/// Runs Terraform until it gets through.
fn insist(world: &World, arguments: &[&str]) -> usize {
    for tries in 1..=12 {
        let run = world.terraform(arguments);
        if run.code == 0 {
            return tries;
        }
        excusable(&run);
    }
    panic!("terraform {arguments:?} did not get through in 12 runs");
}

/// What AWS may answer in this weather, and nothing that we made of it.
fn excusable(run: &Run) {
    let errors = run.text.find("Error: ").map_or("", |start| &run.text[start..]);
    for line in errors.lines().filter(|line| line.starts_with("Error: ")) {
        assert!(line.contains("AWS did not"), "this is not AWS' fault: {line}\n{errors}");
    }
    for bad in ["already", "inconsistent", "panicked", "Invalid"] {
        assert!(!errors.contains(bad), "\"{bad}\" in\n{errors}");
    }
}

/// What is there, by the state and by the cloud itself.
fn of_state(
    world: &World,
    kind: &str,
    attribute: impl Fn(&serde_json::Value) -> Option<String>,
) -> BTreeSet<String> {
    let state = world.state();
    let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
    let of_kind = resources.iter().filter(|resource| resource["type"] == kind);
    of_kind.filter_map(|resource| attribute(&resource["values"])).collect()
}

fn text(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Instances, volumes beside the root, key pairs and buckets.
fn of_cloud(cloud: &Cloud) -> [BTreeSet<String>; 4] {
    let (instances, volumes) = cloud.ask("eu-west-1", async |client| {
        // Those that are gone stay in the list, and only the first hundred are shown.
        let alive = aws_sdk_ec2::types::Filter::builder().name("instance-state-name");
        let alive = ["pending", "running", "stopping", "stopped"]
            .into_iter()
            .fold(alive, |alive, state| alive.values(state));
        let found = client.describe_instances().filters(alive.build()).send().await.unwrap();
        let instances = found.reservations().iter().flat_map(|reservation| reservation.instances());
        let instances = instances.filter_map(|instance| instance.instance_id().map(str::to_owned)).collect();
        let found = client.describe_volumes().send().await.unwrap();
        let named = found
            .volumes()
            .iter()
            .filter(|volume| volume.tags().iter().any(|tag| tag.key() == Some("nixos:token")));
        let volumes = named.filter_map(|volume| volume.volume_id().map(str::to_owned)).collect();
        (instances, volumes)
    });
    [instances, volumes, key_names(cloud).into_iter().collect(), buckets(cloud)]
}

fn compare(world: &World, cloud: &Cloud, when: &str) {
    let known = [
        of_state(world, "nixos_machine", |values| text(&values["id"])),
        of_state(world, "nixos_machine", |values| text(&values["ec2"]["volumes"]["data"]["volume_id"])),
        of_state(world, "nixos_ec2_key_pair", |values| text(&values["key_name"])),
        of_state(world, "nixos_s3_bucket", |values| text(&values["bucket"])),
    ];
    let there = of_cloud(cloud);
    for ((what, known), there) in
        ["instances", "volumes", "key pairs", "buckets"].iter().zip(known).zip(there)
    {
        assert_eq!(known, there, "{when}: {what} of the state, and those there are");
    }
}

#[test]
fn nothing_is_made_twice_or_left_behind_in_any_weather() {
    let (world, cloud) = one_host_for_all();
    let lives = std::env::var("AWS_FAULT_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(LIVES);
    let seed = std::env::var("AWS_FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let weather = Weather::over(&cloud, seed, RATE);
    let subnet = cloud.subnet("eu-west-1", 1);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    let counts = [MACHINES, KEYS, BUCKETS];
    set_up(&world, &main_tf(&weather, &subnet, &ami, counts, 0), "");
    let each: usize = counts.iter().sum();
    let rounds = lives.div_ceil(each);
    let apply = ["apply", "-auto-approve", "-parallelism=20"];
    let mut runs = 0;
    for round in 0..rounds {
        let generation = round * 2;
        world.write("main.tf", &main_tf(&weather, &subnet, &ami, counts, generation)).unwrap();
        runs += insist(&world, &apply);
        compare(&world, &cloud, "created");
        // Everything is changed, and some of it goes.
        let fewer = [MACHINES - 1, KEYS - 3, BUCKETS - 2];
        world.write("main.tf", &main_tf(&weather, &subnet, &ami, fewer, generation + 1)).unwrap();
        runs += insist(&world, &apply);
        compare(&world, &cloud, "changed");
        runs += insist(&world, &["destroy", "-auto-approve", "-parallelism=20"]);
        compare(&world, &cloud, "destroyed");
    }
    let (asked, met) = weather.take_counts();
    println!(
        "{} lives in {runs} runs of Terraform (seed {seed}), {} requests, of which {} met something: {met:?}",
        rounds * each,
        asked.values().sum::<usize>(),
        met.values().sum::<usize>()
    );
    assert!(met.len() >= 5, "the weather was too good: {met:?}");
}

#[test]
fn a_refresh_asks_once_for_all_machines() {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let subnet = cloud.subnet("eu-west-1", 1);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    set_up(&world, &main_tf(&weather, &subnet, &ami, [12, 0, 0], 0), "");
    succeeds(&world.terraform(&["apply", "-auto-approve", "-parallelism=20"]));
    let (made, _) = weather.take_counts();
    let run = world.terraform(&["plan", "-parallelism=20"]);
    succeeds(&run);
    says(&run, &["No changes"]);
    let (asked, _) = weather.take_counts();
    println!("requests: apply {made:?}, plan {asked:?}");
    assert_eq!(asked.values().sum::<usize>(), 2, "{asked:?}");
}

#[test]
fn a_volume_whose_making_ended_open_does_not_outlive_its_machine() {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let subnet = cloud.subnet("eu-west-1", 1);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    set_up(&world, &main_tf(&weather, &subnet, &ami, [1, 0, 0], 0), "");
    // The machine is tainted, and made anew with all that belongs to it.
    for refresh in ["-refresh=true", "-refresh=false"] {
        weather.strike("CreateVolume", Storm::AnswerLost);
        fails_saying(&apply(&world), &["AWS did not create volume \"data\""]);
        weather.calm();
        let run = world.terraform(&["apply", "-auto-approve", refresh]);
        succeeds(&run);
        says(&run, &["1 added, 0 changed, 1 destroyed"]);
        compare(&world, &cloud, "made anew");
        no_changes(&world);
        succeeds(&world.terraform(&["destroy", "-auto-approve"]));
        compare(&world, &cloud, "destroyed");
    }

    // Of a machine that stays, the volume is found and attached, or deleted where it is not wanted any more.
    let main = main_tf(&weather, &subnet, &ami, [1, 0, 0], 0);
    let bare: String =
        main.lines().filter(|line| !line.contains("volumes =")).map(|line| format!("{line}\n")).collect();
    for refresh in ["-refresh=true", "-refresh=false"] {
        for (then, made) in [(&main, 1), (&bare, 0)] {
            world.write("main.tf", &bare).unwrap();
            succeeds(&apply(&world));
            compare(&world, &cloud, "taken away");
            world.write("main.tf", &main).unwrap();
            weather.strike("CreateVolume", Storm::AnswerLost);
            fails_saying(&apply(&world), &["AWS did not create volume \"data\""]);
            weather.calm();
            world.write("main.tf", then).unwrap();
            succeeds(&world.terraform(&["apply", "-auto-approve", refresh]));
            compare(&world, &cloud, "after the answer was lost");
            let [_, volumes, ..] = of_cloud(&cloud);
            assert_eq!(volumes.len(), made, "{refresh}: {volumes:?}");
            no_changes(&world);
        }
    }
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    compare(&world, &cloud, "destroyed");
}

#[test]
fn a_machine_whose_making_ended_open_is_no_orphan_where_nobody_looks_first() {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let subnet = cloud.subnet("eu-west-1", 1);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    set_up(&world, &main_tf(&weather, &subnet, &ami, [1, 0, 0], 0), "");
    let ends_open = || {
        weather.strike("RunInstances", Storm::AnswerLost);
        fails_saying(&apply(&world), &["AWS did not create machine \"m0\"", "Whether there is an instance"]);
        weather.calm();
        let [instances, ..] = of_cloud(&cloud);
        assert_eq!(instances.len(), 1, "{instances:?}");
    };
    // What replaces it is planned without a look at the cloud, and without private data.
    ends_open();
    let run = world.terraform(&["apply", "-auto-approve", "-refresh=false"]);
    succeeds(&run);
    says(&run, &["1 added, 0 changed, 1 destroyed"]);
    compare(&world, &cloud, "made anew");
    no_changes(&world);
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));

    ends_open();
    succeeds(&world.terraform(&["destroy", "-auto-approve", "-refresh=false"]));
    compare(&world, &cloud, "destroyed");

    // A refresh finds it, and what there is is kept in the state to be replaced.
    ends_open();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["1 added, 0 changed, 1 destroyed"]);
    compare(&world, &cloud, "found");
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    compare(&world, &cloud, "destroyed");
}

#[test]
fn a_machine_whose_making_broke_off_leaves_no_volume_behind() {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let subnet = cloud.subnet("eu-west-1", 1);
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    set_up(&world, &main_tf(&weather, &subnet, &ami, [1, 0, 0], 0), "");
    // The volume is attached, and EC2 does not know yet that it goes with the machine.
    let storms = [("AttachVolume", Storm::AnswerLost), ("ModifyInstanceAttribute", Storm::FailedBefore)];
    for (action, storm) in storms {
        weather.strike(action, storm);
        fails_saying(&apply(&world), &["AWS did not"]);
        weather.calm();
        let run = apply(&world);
        succeeds(&run);
        says(&run, &["1 added, 0 changed, 1 destroyed"]);
        compare(&world, &cloud, action);
        no_changes(&world);
        succeeds(&world.terraform(&["destroy", "-auto-approve"]));
        compare(&world, &cloud, "destroyed");
    }
}
