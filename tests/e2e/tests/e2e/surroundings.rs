//! What Terraform and a login find around them: no home, no or little room for temporary files, odd masks.

use crate::support::{cat, one, set_up, site, world};

/// What is set before Terraform runs, on control and on the machine.
const CASES: [(&str, &str); 9] = [
    ("export TMPDIR=/no/such", "true"),
    ("unset HOME", "true"),
    ("unset HOME USER LOGNAME PATH; PATH=/usr/local/bin:/usr/bin:/bin", "true"),
    ("mkdir -p '/root/my tmp'; export TMPDIR='/root/my tmp'", "true"),
    ("umask 000", "echo umask 000 >/root/.bashrc"),
    ("umask 077", "echo umask 077 >/root/.bashrc"),
    ("mount -t tmpfs -o size=1M tmpfs /tmp", "mount -t tmpfs -o size=1M tmpfs /tmp"),
    ("true", "printf 'export TMPDIR=/no/such\\nunset HOME\\n' >/root/.bashrc"),
    (
        "export \
         TMPDIR=/tmp/a-directory-with-a-name-that-is-much-too-long-for-a-socket/and-that-goes-on-and-on-and-on; \
         mkdir -p $TMPDIR",
        "true",
    ),
];

#[test]
fn surroundings_do_not_matter() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    let secret = "secrets = { token = { command = [\"echo\", \"word\"] } }";
    set_up(&world, &site(&world, &["web"], secret), "");
    for (n, (here, there)) in CASES.iter().enumerate() {
        world.write("network.nix", &one(&format!("environment.etc.number.text = \"{n}\";"))).unwrap();
        let done = web.exec(&["sh", "-ec", there]).unwrap();
        assert!(done.success, "{there}: {}", done.stderr);
        let script = format!(
            "{here}\nexport NIX_PATH=nixpkgs=/root/mini-nixos TF_CLI_CONFIG_FILE=/root/.terraformrc \
             TF_CLI_ARGS=-no-color\nterraform -chdir={} apply -auto-approve -input=false",
            e2e::DIRECTORY
        );
        let output = control.command(&["sh", "-c", &script]).output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{here}; there: {there}:\n{text}");
        assert!(!text.contains("Warning"), "{here}; there: {there}:\n{text}");
        assert_eq!(cat(&world, "web", "/etc/number"), n.to_string(), "{here}; {there}");
        // Everybody may read a system, nobody a secret.
        let modes = web
            .exec(&["stat", "-c", "%a", "/run/keys/token", "/nix/var/nix/gcroots/nixos-agent"])
            .unwrap()
            .stdout;
        assert_eq!(modes, "400\n755\n", "{here}; {there}");
        web.exec(&["rm", "-f", "/root/.bashrc"]).unwrap();
    }
}
