//! What a refresh of many machines on AWS costs: requests, and time against a client that asks for one machine after
//! the other.

use std::time::{Duration, Instant};

use e2e::{Cloud, Weather, World};

use super::{median, millis};
use crate::build::build;
use crate::{TaskError, setup};

/// How many machines.
const MACHINES: usize = 50;
/// Terraform's own parallelism: so many ask at once.
const PARALLEL: usize = 10;
const RUNS: usize = 5;
const REGION: &str = "eu-west-1";

/// Makes the machines, all of them answered for by one real host, and measures plans without changes.
pub(crate) fn bench() -> Result<(), TaskError> {
    setup::check_lab()?;
    build(true)?;
    let world = World::boot(&["rack"], &|step| println!("{step}"))?;
    let cloud = Cloud::start(&world, &[])?;
    world.lab.host("rack").exec(&["ip", "route", "add", "local", "54.0.0.0/8", "dev", "lo"])?;
    let weather = Weather::over(&cloud, 1, 0);
    let (subnet, ami) = (cloud.subnet(REGION, 1), cloud.image(REGION, "nixos/25.11.1-x86_64-linux"));
    let url = weather.endpoint();
    world.write(
        "main.tf",
        &format!(
            r#"terraform {{
  required_providers {{ nixos = {{ source = "terraform-provider-nixos/nixos" }} }}
}}
provider "nixos" {{
  aws = {{ region = "{REGION}", access_key = "test", secret_key = "test", endpoints = {{ ec2 = "{url}" }} }}
}}
resource "nixos_machine" "all" {{
  count = {MACHINES}
  name  = "m${{count.index}}"
  ec2   = {{
    ami             = "{ami}"
    subnet_id       = "{subnet}"
    instance_type   = "t3.nano"
    host_key        = "none"
    host_key_policy = "accept_new"
    volumes         = {{ data = {{ device = "/dev/sdf", size = 1 }} }}
  }}
}}
"#
        ),
    )?;
    let run = |arguments: &[&str]| {
        let done = world.terraform(arguments);
        if done.code == 0 { Ok(done.took) } else { Err(TaskError::Failed(done.text)) }
    };
    run(&["init"])?;
    let made = run(&["apply", "-auto-approve"])?;
    let (asked, _) = weather.take_counts();
    println!(
        "{MACHINES} machines made                     {:>7.1} s   ({} requests)",
        made.as_secs_f64(),
        asked.values().sum::<usize>()
    );
    let (mut plans, mut one_by_one) = (vec![], vec![]);
    let mut requests = 0;
    for _ in 0..RUNS {
        plans.push(run(&["plan"])?);
        requests = weather.take_counts().0.values().sum();
        one_by_one.push(each_by_itself(&cloud));
    }
    println!(
        "plan without changes                 {:>7.0} ms  ({requests} requests; every machine is logged in \
         to as well)",
        millis(median(plans))
    );
    println!(
        "the same questions one by one        {:>7.0} ms  ({} requests, {PARALLEL} at a time, without any \
         login)",
        millis(median(one_by_one)),
        MACHINES * 2
    );
    run(&["destroy", "-auto-approve"])?;
    Ok(())
}

/// Two calls a machine, as without batches.
fn each_by_itself(cloud: &Cloud) -> Duration {
    cloud.ask(REGION, async |client| {
        let found = client.describe_instances().max_results(1000).send().await;
        let found = found.map(|found| found.reservations().to_vec()).unwrap_or_default();
        let ids: Vec<String> = found
            .iter()
            .flat_map(|reservation| reservation.instances())
            .filter_map(|instance| instance.instance_id().map(str::to_owned))
            .collect();
        let (client, start) = (&client, Instant::now());
        for some in ids.chunks(PARALLEL) {
            let asked = some.iter().map(|id| async move {
                let by_instance =
                    aws_sdk_ec2::types::Filter::builder().name("attachment.instance-id").values(id).build();
                let _ = client.describe_instances().instance_ids(id).send().await;
                let _ = client.describe_volumes().filters(by_instance).send().await;
            });
            futures::future::join_all(asked).await;
        }
        start.elapsed()
    })
}
