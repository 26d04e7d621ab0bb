//! What goes wrong says what to do about it.

use e2e::Cloud;

use super::{head, instances, machine};
use crate::support::{apply, fails_saying, plan, set_up, succeeds, world};

#[test]
fn what_aws_refuses_says_what_to_do() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &[]).unwrap();
    let machine = |ami: &str, more: &str| {
        format!(
            "{}resource \"nixos_machine\" \"db\" {{\n  name = \"db\"\n  ec2 = {{\n    ami = \"{ami}\"\n    \
             instance_type = \"t3.nano\"\n{more}  }}\n}}\n",
            head(&cloud)
        )
    };
    set_up(&world, &machine("ami-0123456789abcdef0", ""), "");
    fails_saying(&apply(&world), &["There is no image ami-0123456789abcdef0", "data.nixos_ami", "eu-west-1"]);
    let wrong = [
        ("    user_data = \"x\"\n", "Nobody would know the new machine's host key"),
        (
            "    volumes = { a = { device = \"/dev/sdf\", size = 1 }, b = { device = \"/dev/xvdf\", size = \
             1 } }\n",
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
    let nowhere = head(&cloud).replace(":5000", ":1").replace("region = ", "max_attempts = 1, region = ");
    world.write("main.tf", &format!("{nowhere}{bucket}")).unwrap();
    fails_saying(&apply(&world), &["There was no answer", "aws.endpoints"]);
}

#[test]
fn a_machine_that_lets_nobody_in_is_in_the_state_and_shows_its_console() {
    let world = world(&[]);
    // Nothing boots here what the cloud says is running.
    let cloud = Cloud::start(&world, &[]).unwrap();
    let ami = cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux");
    let main = format!("{}{}", head(&cloud), machine(&ami, "")).replace("60s", "8s");
    set_up(&world, &main, "");
    // moto's instances all print this.
    let console = "Enabling fast FPU save and restore... done.";
    fails_saying(
        &apply(&world),
        &["Machine \"db\" cannot be reached", "it is in the state", "The end of its console:", console],
    );
    let there = instances(&cloud, "eu-west-1");
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(world.resource("nixos_machine.db")["id"], there[0].0.as_str());
    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(instances(&cloud, "eu-west-1"), [(there[0].0.clone(), "terminated".to_owned())]);
}
