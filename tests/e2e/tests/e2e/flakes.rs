//! Flakes in repositories, modules and places that only some may read.

use e2e::World;

use crate::support::{HEAD, apply, fails_saying, one, plan, says, set_up, site, succeeds, survey, world};

/// Writes a flake with the machine `web` into a directory of control, and locks it.
fn write_flake(world: &World, directory: &str) {
    let flake = "{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = { self, nixpkgs }: {\n    \
        nixosConfigurations.web = nixpkgs.lib.nixosSystem { modules = [ ./web.nix ]; };\n  };\n}\n";
    let web = "{ nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; }\n";
    let control = world.lab.control();
    control.write_file(&format!("{directory}/flake.nix"), flake).unwrap();
    control.write_file(&format!("{directory}/web.nix"), web).unwrap();
    run(
        world,
        directory,
        "cp -r . /tmp/to-lock && nix --extra-experimental-features 'nix-command flakes' flake lock \
         path:/tmp/to-lock && cp /tmp/to-lock/flake.lock . && rm -r /tmp/to-lock",
    );
}

/// A script in a directory of control.
#[track_caller]
fn run(world: &World, directory: &str, script: &str) -> String {
    let script = format!("cd '{directory}' && {script}");
    let done = world.lab.control().exec(&["sh", "-ec", &script]).unwrap();
    assert!(done.success, "{script}: {}{}", done.stdout, done.stderr);
    done.stdout
}

const COMMIT: &str = "git init -q && git add . && git -c user.name=a -c user.email=a@b commit -qm first";

/// Plans something that looks at a flake.
fn planned(world: &World, flake: &str) -> e2e::Run {
    world.write("main.tf", &survey(&format!("flake = \"{flake}\""))).unwrap();
    plan(world)
}

#[test]
fn a_repository_may_be_in_a_directory_of_any_name() {
    let world = world(&[]);
    set_up(&world, HEAD, "");
    for name in ["C#", "a?b", "50%25", "my infra", "\u{fc}"] {
        let directory = format!("/root/{name}/infra");
        write_flake(&world, &directory);
        run(&world, &format!("/root/{name}"), COMMIT);
        for flake in [
            directory.clone(),
            format!("git+file:///root/{name}?dir=infra"),
            format!("../{name}/infra/#nixosConfigurations"),
        ] {
            let found = planned(&world, &flake);
            succeeds(&found);
            says(&found, &["web"]);
            assert!(!found.text.contains("Warning"), "{flake}: {}", found.text);
        }
        // Only git knows what is in it.
        run(
            &world,
            &directory,
            "echo '{ ... }: { imports = [ ./new.nix ]; }' > web.nix && echo '{ }' > new.nix",
        );
        fails_saying(&planned(&world, &directory), &["new.nix", "git add"]);
    }
}

#[test]
fn a_module_may_bring_its_own_flake() {
    let world = world(&[]);
    let module = survey("flake = path.module").replacen(
        HEAD,
        "terraform {\n  required_providers { nixos = { source = \"terraform-provider-nixos/nixos\" } }\n}\n",
        1,
    );
    // Below the root module, where the path has no `./`; and from an archive, in a directory that git is told to
    // ignore.
    for (directory, source) in
        [("/root/site/modules/near", "./modules/near"), ("/root/far", "/root/far.tar.gz")]
    {
        write_flake(&world, directory);
        world.lab.control().write_file(&format!("{directory}/main.tf"), &module).unwrap();
        run(&world, directory, "tar -czf ../$(basename $PWD).tar.gz .");
        let main = format!(
            "module \"site\" {{ source = \"{source}\" }}\noutput \"all\" {{ value = module.site.all.nodes \
             }}\n"
        );
        world.write("main.tf", &main).unwrap();
        run(&world, "/root/site", &format!("echo .terraform > .gitignore && {COMMIT}"));
        succeeds(&world.terraform(&["init"]));
        let found = plan(&world);
        succeeds(&found);
        says(&found, &["web"]);
    }
}

#[test]
fn a_repository_of_another_user_is_refused_with_the_way_out() {
    let world = world(&[]);
    write_flake(&world, "/root/repository");
    run(&world, "/root/repository", COMMIT);
    run(&world, "/root/repository", "chown -R 1000 .");
    set_up(&world, HEAD, "");
    fails_saying(&planned(&world, "/root/repository"), &["safe.directory", "belongs to another user"]);
    run(&world, "/root", "git config --global --add safe.directory /root/repository");
    succeeds(&planned(&world, "/root/repository"));
}

/// In a terminal, where git, ssh and others would ask.
#[test]
fn nothing_asks_in_the_terminal() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let in_terminal = |operation: &str| {
        let command = format!("terraform -chdir={} {operation} -input=false -no-color", e2e::DIRECTORY);
        // Whoever waits for an answer waits longer.
        let words = ["timeout", "-s", "KILL", "120", "script", "-qec", &command, "/dev/null"];
        let done = world
            .lab
            .control()
            .command(&[&["env", "NIX_PATH=nixpkgs=/root/mini-nixos"][..], &words].concat())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let flat = text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        (done.status.code(), flat, text)
    };
    let fails = |operation: &str, texts: &[&str]| {
        let (code, flat, text) = in_terminal(operation);
        assert_eq!(code, Some(1), "{text}");
        texts
            .iter()
            .for_each(|expected| assert!(flat.contains(expected), "it was to say {expected:?}:\n{text}"));
    };
    set_up(&world, HEAD, "");
    web.exec(&[
        "sh",
        "-ec",
        "mkdir -p /srv/infra.git && printf '/:user:secret\\n' >/srv/httpd.conf && \
        systemd-run --collect busybox httpd -f -p 80 -h /srv -c /srv/httpd.conf",
    ])
    .unwrap();
    for (scheme, texts) in [
        ("ssh", ["Host key verification failed", "does not know the host key"]),
        ("http", ["could not read Username", "user name and a password"]),
    ] {
        let user = if scheme == "ssh" { "root@" } else { "" };
        let flake = format!("git+{scheme}://{user}{}/infra.git", web.address());
        world.write("main.tf", &survey(&format!("flake = \"{flake}\""))).unwrap();
        fails("plan", &texts);
    }

    let secret =
        "secrets = { token = { command = [\"sh\", \"-c\", \"read -r word </dev/tty && echo $word\"] } }";
    set_up(&world, &site(&world, &["web"], secret), &one(""));
    fails("apply -auto-approve", &["secret \"token\" failed", "no terminal to ask on"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
}

#[test]
fn settings_that_a_flake_asks_for_are_applied_when_they_are_accepted() {
    let world = world(&["web"]);
    let control = world.lab.control();
    run(&world, "/root", "nix-store --generate-binary-cache-key test /root/secret /root/public");
    let flake = |settings: &str| {
        write_flake(&world, "/root/flake");
        // It can only be built while a file is there.
        let web = "{ pkgs, ... }: { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                   \"24.11\"; environment.etc.x.source = pkgs.runCommand \"rare\" { allowSubstitutes = \
                   true; } \"/bin/busybox test -e /var/may-build && echo built > $out\"; }";
        control.write_file("/root/flake/web.nix", web).unwrap();
        let text = control.read_file("/root/flake/flake.nix").unwrap();
        control
            .write_file("/root/flake/flake.nix", text.replacen('{', &format!("{{ {settings}"), 1))
            .unwrap();
    };
    let main = |options: &str| {
        let site = site(&world, &["web"], "")
            .replace("network = \"${path.module}/network.nix\"", "flake = \"/root/flake\"");
        format!(
            "{site}provider \"nixos\" {{\n  nix = {{\n    options = {{\n      {options}\n    }}\n  }}\n}}\n"
        )
    };
    flake("");
    set_up(&world, &main(""), "");
    run(&world, "/root", "touch /var/may-build");
    succeeds(&apply(&world));
    let system = world.current_system("web");
    run(
        &world,
        "/root",
        &format!(
            "rm /var/may-build; nix --extra-experimental-features nix-command copy --to \
             'file:///root/cache?secret-key=/root/secret' {system}"
        ),
    );
    run(&world, "/root", "rm -rf /root/.local/state/nixos-activator/roots; nix-store --gc");

    let key = control.read_file("/root/public").unwrap();
    flake(&format!(
        "nixConfig = {{ extra-substituters = [ \"file:///root/cache\" ]; extra-trusted-public-keys = \
         \"{}\"; }};",
        key.trim()
    ));
    let again =
        || world.terraform(&["apply", "-auto-approve", "-input=false", "-replace=nixos_deployment.site"]);
    let refused = again();
    fails_saying(
        &refused,
        &[
            "The build failed",
            "The flake's `nixConfig` is not applied",
            "`extra-substituters`",
            "accept-flake-config",
        ],
    );
    world.write("main.tf", &main("accept-flake-config = \"true\"")).unwrap();
    let fetched = again();
    succeeds(&fetched);
    assert!(!fetched.text.contains("nixConfig"), "{}", fetched.text);
    assert_eq!(world.current_system("web"), system);
}
