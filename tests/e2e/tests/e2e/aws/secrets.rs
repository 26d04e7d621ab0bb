//! Keys of AWS and private keys of SSH are where they belong, and written down nowhere else.

use base64::Engine as _;
use e2e::Cloud;

use super::{head, instance};
use crate::support::{set_up, succeeds, world};

const SECRET_KEY: &str = "wJalrXUtnFEMI-canary-of-the-secret-key";
const TOKEN: &str = "IQoJb3JpZ2luX2Vj-canary-of-the-session-token";

#[test]
fn no_log_plan_or_state_has_a_key() {
    let world = world(&[]);
    let cloud = Cloud::start(&world, &["eu-west-1"]).unwrap();
    let control = world.lab.control();
    let keys =
        head(&cloud).replace("secret_key = \"test\"", "secret_key = var.secret_key, token = var.token");
    let (ami, subnet) =
        (cloud.image("eu-west-1", "nixos/24.11.1-x86_64-linux"), cloud.subnet("eu-west-1", 1));
    let main = format!(
        r#"{keys}
variable "secret_key" {{
  type      = string
  ephemeral = true
}}
variable "token" {{
  type      = string
  ephemeral = true
}}
resource "nixos_ec2_key_pair" "admin" {{
  key_name         = "admin"
  generate         = {{ type = "ed25519" }}
  private_key_file = "${{path.root}}/admin.key"
}}
resource "nixos_machine" "db" {{
  name = "db"
  ec2 = {{
    ami              = "{ami}"
    subnet_id        = "{subnet}"
    instance_type    = "t3.nano"
    key_name         = nixos_ec2_key_pair.admin.key_name
    private_key_file = nixos_ec2_key_pair.admin.private_key_file
  }}
}}
resource "nixos_s3_bucket" "assets" {{
  bucket = "assets"
}}
"#
    );
    set_up(&world, &main, "");
    let environment = [
        ("TF_VAR_secret_key", SECRET_KEY),
        ("TF_VAR_token", TOKEN),
        ("TF_LOG", "TRACE"),
        ("TF_LOG_PATH", "/root/log"),
    ];
    let terraform = |arguments: &[&str]| {
        let run = world.terraform_with(&environment, arguments);
        succeeds(&run);
        run.text
    };
    let mut printed = terraform(&["plan", "-out=first"]);
    printed += &terraform(&["apply", "first"]);
    printed += &terraform(&["plan", "-out=second"]);
    printed += &terraform(&["show", "-json", "second"]);

    // The first host key is handed over in user data, which is written down at AWS and nowhere here.
    let id = instance(&world, &cloud).instance_id().unwrap().to_owned();
    let user_data = cloud.ask("eu-west-1", async |client| {
        let user_data = aws_sdk_ec2::types::InstanceAttributeName::UserData;
        let call = client.describe_instance_attribute().instance_id(id).attribute(user_data);
        call.send().await.unwrap().user_data().and_then(|data| data.value()).unwrap_or_default().to_owned()
    });
    let decoded = base64::engine::general_purpose::STANDARD.decode(&user_data).unwrap();
    let decoded = String::from_utf8(decoded).unwrap();
    let host_key = decoded.split('|').nth(2).expect("a private key of several lines");
    let private = control.read_file("/root/site/admin.key").unwrap();
    let private = private.lines().nth(2).expect("a private key of several lines");

    let unpack = "cd /root && mkdir unpacked && for plan in first second; do python3 -m zipfile -e \
                  site/$plan unpacked/$plan 2>/dev/null || busybox unzip -q -d unpacked/$plan site/$plan; \
                  done; find unpacked -type f | wc -l";
    let unpacked = control.exec(&["sh", "-c", unpack]).unwrap().stdout;
    assert_ne!(unpacked.trim(), "0", "the plan files were looked into");
    let logged = control.exec(&["grep", "-c", "@module=provider", "/root/log"]).unwrap().stdout;
    assert_ne!(logged.trim(), "0", "the provider has logged something");
    let key_file = ["/root/site/admin.key"];
    for (what, needle, places) in [
        ("the secret access key", SECRET_KEY, &[][..]),
        ("the session token", TOKEN, &[]),
        ("the private key", private, &key_file),
        ("the first host key", host_key, &[]),
        ("the user data", &user_data[user_data.len() / 2..], &[]),
    ] {
        assert!(needle.len() > 20, "{what}: {needle:?}");
        assert!(!printed.contains(needle), "Terraform shows {what}");
        let search =
            "grep -rlaF -e \"$1\" / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev 2>/dev/null; true";
        let found = control.exec(&["sh", "-c", search, "sh", needle]).unwrap().stdout;
        assert_eq!(found.lines().collect::<Vec<_>>(), places, "where {what} is written down");
    }
}
