//! What somebody changes about a machine behind Terraform's back shows in the plan, and is put right.

use aws_sdk_ec2::types::{HttpTokensState, IamInstanceProfileSpecification};
use e2e::{Cloud, World};

use super::{head, instance, machine, one_host_for_all};
use crate::support::{apply, no_changes, plan, says, set_up, succeeds};

/// Makes a machine with `more` in its block, and says which image it is from.
fn set_up_machine(world: &World, cloud: &Cloud, more: &str) -> String {
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    set_up(world, &format!("{}{}", head(cloud), machine(&ami, more)), "");
    succeeds(&apply(world));
    no_changes(world);
    ami
}

/// The plan is one change in place, and says this.
#[track_caller]
fn plans_to_put_right(world: &World, texts: &[&str]) {
    let run = plan(world);
    succeeds(&run);
    says(&run, &["0 to add, 1 to change, 0 to destroy"]);
    says(&run, texts);
}

fn id(world: &World) -> String {
    world.resource("nixos_machine.db")["id"].as_str().unwrap().to_owned()
}

#[test]
fn other_security_groups_are_put_back() {
    let (world, cloud) = one_host_for_all();
    let [ours, theirs] = ["ssh", "open"].map(|name| {
        cloud.ask("eu-west-1", async |client| {
            let made =
                client.create_security_group().group_name(name).description(name).send().await.unwrap();
            made.group_id().unwrap().to_owned()
        })
    });
    let groups = || -> Vec<String> {
        let there = instance(&world, &cloud);
        there.security_groups().iter().filter_map(|group| group.group_id().map(str::to_owned)).collect()
    };
    set_up_machine(&world, &cloud, &format!("security_group_ids = [\"{ours}\"]"));
    assert_eq!(groups(), [ours.as_str()]);
    let id = id(&world);
    cloud.ask("eu-west-1", async |client| {
        client.modify_instance_attribute().instance_id(id).groups(&theirs).send().await.unwrap();
    });
    plans_to_put_right(&world, &[&format!("- \"{theirs}\""), &format!("+ \"{ours}\"")]);
    succeeds(&apply(&world));
    assert_eq!(groups(), [ours]);
    no_changes(&world);
}

#[test]
fn another_instance_profile_is_put_back() {
    let (world, cloud) = one_host_for_all();
    let [ours, theirs] = ["web", "admin"].map(|name| cloud.instance_profile(name));
    set_up_machine(&world, &cloud, "instance_profile = \"web\"");
    let id = id(&world);
    // What moto says with the instance is what it was associated with first, so the associations are asked.
    let associations = || -> Vec<(String, String)> {
        cloud.ask("eu-west-1", async |client| {
            let found = client.describe_iam_instance_profile_associations().send().await.unwrap();
            let found = found.iam_instance_profile_associations().iter();
            let pair = |one: &aws_sdk_ec2::types::IamInstanceProfileAssociation| {
                let arn = one.iam_instance_profile().and_then(|profile| profile.arn());
                (one.association_id().unwrap_or_default().to_owned(), arn.unwrap_or_default().to_owned())
            };
            found.map(pair).collect()
        })
    };
    let disassociate = || {
        let association = associations()[0].0.clone();
        cloud.ask("eu-west-1", async |client| {
            client.disassociate_iam_instance_profile().association_id(association).send().await.unwrap();
        });
    };
    let arns = || associations().into_iter().map(|(_, arn)| arn).collect::<Vec<_>>();
    assert_eq!(arns(), [ours.as_str()]);

    disassociate();
    plans_to_put_right(&world, &["+ instance_profile", "\"web\""]);
    succeeds(&apply(&world));
    assert_eq!(arns(), [ours.as_str()]);
    no_changes(&world);

    disassociate();
    cloud.ask("eu-west-1", async |client| {
        let profile = IamInstanceProfileSpecification::builder().name("admin").build();
        let call = client.associate_iam_instance_profile().instance_id(id).iam_instance_profile(profile);
        call.send().await.unwrap();
    });
    plans_to_put_right(&world, &[&format!("\"{theirs}\" -> \"web\"")]);
    succeeds(&apply(&world));
    assert_eq!(arns(), [ours]);
}

#[test]
fn the_metadata_service_wants_tokens_again() {
    let (world, cloud) = one_host_for_all();
    let options = || {
        let options = instance(&world, &cloud).metadata_options().cloned().unwrap();
        (options.http_tokens().cloned().unwrap(), options.http_put_response_hop_limit().unwrap())
    };
    // Also without the block; moto's own default is \"optional\".
    let ami = set_up_machine(&world, &cloud, "");
    assert_eq!(options(), (HttpTokensState::Required, 1));

    let block = "metadata_options = { http_put_response_hop_limit = 2 }";
    world.write("main.tf", &format!("{}{}", head(&cloud), machine(&ami, block))).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added, 1 changed, 0 destroyed"]);
    assert_eq!(options(), (HttpTokensState::Required, 2));
    no_changes(&world);

    let id = id(&world);
    cloud.ask("eu-west-1", async |client| {
        let call = client.modify_instance_metadata_options().instance_id(id);
        call.http_tokens(HttpTokensState::Optional).http_put_response_hop_limit(64).send().await.unwrap();
    });
    plans_to_put_right(&world, &["\"optional\" -> \"required\"", "64 -> 2"]);
    succeeds(&apply(&world));
    assert_eq!(options(), (HttpTokensState::Required, 2));
    no_changes(&world);

    // Without the block it is again as machines are created.
    world.write("main.tf", &format!("{}{}", head(&cloud), machine(&ami, ""))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(options(), (HttpTokensState::Required, 1));
    no_changes(&world);
}
