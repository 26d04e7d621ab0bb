//! The addresses of a machine on EC2: from the first login on, and changed later. One real host answers at those that
//! a test lets it have, and at no others.

use aws_sdk_ec2::types::{NetworkInterface, Tag};
use e2e::{Cloud, Weather, World};

use super::{head, instance, machine, once, one_host_for_all};
use crate::support::{apply, fails_saying, no_changes, plan, says, set_up, succeeds};

/// Runs a command on the host that stands for all machines, or on the one where Terraform runs.
fn on(host: &lab::Host, words: &[&str]) {
    let done = host.exec(words).unwrap();
    assert!(done.success, "{words:?}: {}", done.stderr);
}

/// A network in which one host answers at these addresses and at no others.
fn answering_at(addresses: &[&str]) -> (World, Cloud) {
    let (world, cloud) = one_host_for_all();
    let rack = world.lab.host("rack");
    on(rack, &["ip", "route", "del", "local", "54.0.0.0/8", "dev", "lo"]);
    for address in addresses {
        on(rack, &["ip", "route", "add", "local", address, "dev", "lo"]);
    }
    (world, cloud)
}

fn image(cloud: &Cloud) -> String {
    cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux")
}

fn elastic(cloud: &Cloud, address: &str) -> String {
    cloud.ask("eu-west-1", async |client| {
        let made = client.allocate_address().domain("vpc".into()).address(address).send().await.unwrap();
        made.allocation_id().unwrap().to_owned()
    })
}

#[test]
fn an_elastic_address_is_used_from_the_first_login_on() {
    // The address that the subnet gives, and that EC2 takes away again, leads nowhere.
    let (world, cloud) = answering_at(&["54.1.2.3"]);
    let (ami, elastic) = (image(&cloud), elastic(&cloud, "54.1.2.3"));
    let main = |more: &str| format!("{}{}", head(&cloud), machine(&ami, more));
    set_up(&world, &main(&format!("elastic_ip = \"{elastic}\"")), "");
    succeeds(&apply(&world));
    let db = world.resource("nixos_machine.db");
    assert_eq!((&db["host"], &db["public_ipv4"]), (&"54.1.2.3".into(), &"54.1.2.3".into()));
    assert_eq!(db["target"]["host"], "54.1.2.3");
    no_changes(&world);
}

#[test]
fn addresses_in_the_subnet_are_chosen_at_creation() {
    let (world, cloud) = answering_at(&["10.88.1.7"]);
    let (ami, subnet) = (image(&cloud), cloud.subnet("eu-west-1", 1));
    let more = format!(
        "subnet_id = \"{subnet}\"\n    private_ip = \"10.88.1.7\"\n    associate_public_ip_address = \
         false\n    use_private_address = true"
    );
    let main = |more: &str| format!("{}{}", head(&cloud), machine(&ami, more));
    set_up(&world, &main(&more), "");
    succeeds(&apply(&world));
    let db = world.resource("nixos_machine.db");
    assert_eq!((&db["host"], &db["private_ipv4"]), (&"10.88.1.7".into(), &"10.88.1.7".into()));
    assert_eq!((&db["public_ipv4"], &db["ec2"]["private_ip"]), (&().into(), &"10.88.1.7".into()));
    no_changes(&world);
    // Another address in the subnet is another machine.
    world.write("main.tf", &main(&more.replace("10.88.1.7", "10.88.1.8"))).unwrap();
    says(&plan(&world), &["\"10.88.1.7\" -> \"10.88.1.8\" # forces replacement"]);
}

/// A subnet with IPv6 addresses, and with others or none; its id. The host that stands for all machines has all of
/// them.
fn ipv6_subnet(world: &World, cloud: &Cloud, number: u8, alone: bool) -> String {
    let (control, rack) = (world.lab.control(), world.lab.host("rack"));
    // As large as moto's answer can count.
    let block = format!("2001:db8:88:{number}::/112");
    for (host, own) in [(control, "fd00:88::1/64"), (rack, "fd00:88::2/64")] {
        on(host, &["ip", "-6", "addr", "replace", own, "dev", "eth0", "nodad"]);
    }
    on(control, &["ip", "-6", "route", "add", &block, "via", "fd00:88::2"]);
    on(rack, &["ip", "-6", "route", "add", "local", &block, "dev", "lo"]);
    cloud.ask("eu-west-1", async move |client| {
        let vpc = client.create_vpc().cidr_block("10.88.0.0/16").send().await.unwrap();
        let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).unwrap().to_owned();
        let call = client.create_subnet().vpc_id(vpc).ipv6_cidr_block(block);
        let call =
            if alone { call.ipv6_native(true) } else { call.cidr_block(format!("10.88.{number}.0/24")) };
        call.send().await.unwrap().subnet().and_then(|subnet| subnet.subnet_id()).unwrap().to_owned()
    })
}

#[test]
fn a_machine_with_ipv6_addresses_alone_is_a_machine() {
    let (world, cloud) = answering_at(&[]);
    let (ami, subnet) = (image(&cloud), ipv6_subnet(&world, &cloud, 1, true));
    let main = |count: u8| {
        let more = format!(
            "subnet_id = \"{subnet}\"\n    ipv6_address_count = {count}\n    use_ipv6_address = true"
        );
        format!(
            "{}{}resource \"nixos_deployment\" \"site\" {{\n  network = \"${{path.module}}/network.nix\"\n  \
             machines = {{ db = nixos_machine.db.target }}\n}}\n",
            head(&cloud),
            machine(&ami, &more)
        )
    };
    let network = "{ db = { config, ... }: { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                   \"24.11\"; deployment.targetEnv = \"none\"; environment.etc.me.text = \
                   config.networking.publicIPv6; }; }";
    set_up(&world, &main(1), network);
    succeeds(&apply(&world));
    let db = world.resource("nixos_machine.db");
    let address = db["public_ipv6"].as_str().unwrap().to_owned();
    assert!(address.starts_with("2001:db8:88:1:"), "{db}");
    assert_eq!((&db["host"], &db["public_ipv4"]), (&address.clone().into(), &().into()));
    assert_eq!(crate::support::cat(&world, "rack", "/etc/me"), address);
    no_changes(&world);

    // One more, without another machine, and the one it is known by stays; then only the first again.
    for count in [2, 1] {
        world.write("main.tf", &main(count)).unwrap();
        let run = apply(&world);
        succeeds(&run);
        says(&run, &["0 destroyed"]);
        let interface = interface(&world, &cloud);
        let all: Vec<_> = interface.ipv6_addresses().iter().filter_map(|one| one.ipv6_address()).collect();
        assert_eq!(all.len(), usize::from(count), "{all:?}");
        no_changes(&world);
    }
    assert_eq!(world.resource("nixos_machine.db")["ec2"]["ipv6_address_count"], 1);
}

#[test]
fn ipv6_addresses_are_chosen_beside_others() {
    let (world, cloud) = answering_at(&["10.88.2.0/24"]);
    let (ami, subnet) = (image(&cloud), ipv6_subnet(&world, &cloud, 2, false));
    let main = |addresses: &str, more: &str| {
        let more = format!(
            "subnet_id = \"{subnet}\"\n    associate_public_ip_address = false\n    ipv6_addresses = \
             [{addresses}]\n    {more}"
        );
        format!("{}{}", head(&cloud), machine(&ami, &more))
    };
    let (one, two) = ("\"2001:db8:88:2::a\"", "\"2001:db8:88:2::a\", \"2001:db8:88:2::b\"");
    set_up(&world, &main(one, "ipv6_address_count = 2"), "");
    fails_saying(&plan(&world), &["IPv6 addresses are chosen or counted"]);
    world.write("main.tf", &main(one, "use_ipv6_address = true\n    use_private_address = true")).unwrap();
    fails_saying(&plan(&world), &["SSH connects to one address"]);
    // moto takes chosen addresses for an interface that is there and not for a machine that is to be made.
    world.write("main.tf", &main("", "")).unwrap();
    succeeds(&apply(&world));
    let db = world.resource("nixos_machine.db");
    let private = db["private_ipv4"].clone();
    assert_eq!((&db["public_ipv6"], &db["host"]), (&().into(), &private));
    no_changes(&world);
    for (addresses, more, host) in
        [(one, "", private), (two, "use_ipv6_address = true", "2001:db8:88:2::a".into())]
    {
        world.write("main.tf", &main(addresses, more)).unwrap();
        let run = apply(&world);
        succeeds(&run);
        says(&run, &["0 added, 1 changed, 0 destroyed"]);
        let db = world.resource("nixos_machine.db");
        // A machine that has an IPv4 address is reached there, unless its configuration says otherwise.
        assert_eq!((&db["public_ipv6"], &db["host"]), (&"2001:db8:88:2::a".into(), &host));
        no_changes(&world);
    }
}

/// The first network interface of the machine.
fn interface(world: &World, cloud: &Cloud) -> NetworkInterface {
    let there = instance(world, cloud);
    // They come in any order.
    let is_first = |attached: &&aws_sdk_ec2::types::InstanceNetworkInterface| {
        attached.attachment().and_then(|attachment| attachment.device_index()) == Some(0)
    };
    let first = there.network_interfaces().iter().find(is_first).expect("the instance has an interface");
    let id = first.network_interface_id().unwrap().to_owned();
    cloud.ask("eu-west-1", async |client| {
        let found = client.describe_network_interfaces().network_interface_ids(id).send().await.unwrap();
        found.network_interfaces()[0].clone()
    })
}

#[test]
fn a_machine_with_two_network_interfaces_is_changed_in_place() {
    let (world, cloud) = one_host_for_all();
    let weather = Weather::over(&cloud, 1, 0);
    let ami = image(&cloud);
    let group = |name: &'static str| {
        cloud.ask("eu-west-1", async |client| {
            let call = client.create_security_group().group_name(name).description(name);
            call.send().await.unwrap().group_id().unwrap().to_owned()
        })
    };
    let (first, second) = (group("first"), group("second"));
    let main = |group: &str| once(&weather, &machine(&ami, &format!("security_group_ids = [\"{group}\"]")));
    set_up(&world, &main(&first), "");
    succeeds(&apply(&world));
    let there = instance(&world, &cloud);
    let subnet = there.subnet_id().unwrap().to_owned();
    cloud.ask("eu-west-1", async |client| {
        let made = client.create_network_interface().subnet_id(subnet).send().await.unwrap();
        let id = made.network_interface().and_then(|made| made.network_interface_id()).unwrap().to_owned();
        let call = client.attach_network_interface().network_interface_id(id).device_index(1);
        call.instance_id(there.instance_id().unwrap()).send().await.unwrap();
    });
    no_changes(&world);
    weather.take_counts();
    world.write("main.tf", &main(&second)).unwrap();
    succeeds(&apply(&world));
    let groups = interface(&world, &cloud).groups().to_vec();
    // moto goes on showing the groups of the launch beside those of the interface, in any order.
    assert!(groups.iter().any(|group| group.group_id() == Some(second.as_str())), "{groups:?}");
    assert_eq!(weather.asked("ModifyNetworkInterfaceAttribute"), 1);
    // EC2 refuses the call that changes an instance with one interface.
    assert_eq!(weather.asked("ModifyInstanceAttribute"), 0);
    world.write("main.tf", &main(&second).replace(&format!("[\"{second}\"]"), "[]")).unwrap();
    fails_saying(&plan(&world), &["A machine on EC2 has at least one security group"]);
}

#[test]
fn tags_of_other_tools_are_left_alone() {
    let (world, cloud) = one_host_for_all();
    let ami = image(&cloud);
    let main = |tags: &str| {
        let head = head(&cloud).replace(
            "default_tags =",
            "ignore_tags = { keys = [\"cost\"], key_prefixes = [\"backup/\"] }\n    default_tags =",
        );
        let bucket =
            format!("resource \"nixos_s3_bucket\" \"b\" {{\n  bucket = \"tagged\"\n  tags = {tags}\n}}\n");
        format!("{head}{}{bucket}", machine(&ami, &format!("tags = {tags}")))
    };
    set_up(&world, &main("{ role = \"db\" }"), "");
    succeeds(&apply(&world));
    let id = instance(&world, &cloud).instance_id().unwrap().to_owned();
    let all_volumes = || {
        cloud.ask("eu-west-1", async |client| {
            client.describe_volumes().send().await.unwrap().volumes().to_vec()
        })
    };
    let root = all_volumes()[0].volume_id().unwrap().to_owned();
    cloud.ask("eu-west-1", async |client| {
        let tags = [("cost", "1"), ("backup/last", "today")];
        let tags = tags.map(|(key, value)| Tag::builder().key(key).value(value).build());
        client
            .create_tags()
            .resources(&id)
            .resources(&root)
            .set_tags(Some(tags.into()))
            .send()
            .await
            .unwrap();
    });
    let bucket_tags = || {
        cloud.ask_s3("eu-west-1", async |client| {
            let found = client.get_bucket_tagging().bucket("tagged").send().await.unwrap();
            let mut tags: Vec<_> =
                found.tag_set().iter().map(|tag| format!("{}={}", tag.key(), tag.value())).collect();
            tags.sort();
            tags
        })
    };
    cloud.ask_s3("eu-west-1", async |client| {
        use aws_sdk_s3::types::{Tag, Tagging};
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
        let tags = [tag("cost", "1"), tag("role", "db"), tag("team", "infra")];
        let tagging = Tagging::builder().set_tag_set(Some(tags.into())).build().unwrap();
        client.put_bucket_tagging().bucket("tagged").tagging(tagging).send().await.unwrap();
    });
    no_changes(&world);
    world.write("main.tf", &main("{ role = \"web\" }")).unwrap();
    succeeds(&apply(&world));
    let of = |tags: &[Tag]| {
        let mut tags: Vec<_> = tags
            .iter()
            .map(|tag| format!("{}={}", tag.key().unwrap_or_default(), tag.value().unwrap_or_default()))
            .collect();
        tags.sort();
        tags
    };
    let expected = ["Name=db", "backup/last=today", "cost=1", "nixos:machine=db", "role=web", "team=infra"];
    assert_eq!(of(instance(&world, &cloud).tags()), expected);
    // The volume that was made with the machine has its tags as well.
    let root = all_volumes().into_iter().find(|volume| volume.volume_id() == Some(&root)).unwrap();
    assert_eq!(of(root.tags()), expected);
    assert_eq!(bucket_tags(), ["cost=1", "role=web", "team=infra"]);
    world.write("main.tf", &main("{}").replace("default_tags = { team = \"infra\" }", "")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(bucket_tags(), ["cost=1"], "the set is not deleted with the last tag of ours");
    no_changes(&world);
}
