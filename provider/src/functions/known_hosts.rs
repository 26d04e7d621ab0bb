//! `provider::nixos::known_hosts(targets)`: the host keys of machines, as `ssh` reads them.

use tfplugin::{Function, FunctionError, Parameter, Signature, Type, Value};

pub(crate) struct KnownHosts;

impl Function for KnownHosts {
    const NAME: &'static str = "known_hosts";
    type Arguments = (Value,);
    type Output = String;

    fn signature(&self) -> Signature {
        Signature::returns(Type::String)
            .summary("The host keys of machines as a known_hosts file")
            .description(
                "Writes the host keys of machines as `ssh` reads them in `known_hosts`: a line for each \
                 machine, with the port where it is not 22. Other programs, and people, then check the \
                 same keys as Terraform does.",
            )
            .parameter(
                "targets",
                Parameter::new(Type::Dynamic).description(
                    "Targets of machines, by name or as a list: `{ web = \
                                  nixos_machine.web.target }`.",
                ),
            )
    }

    fn call(&self, (targets,): (Value,)) -> Result<String, FunctionError> {
        let named: Vec<(String, &Value)> = match untyped(&targets) {
            Value::Map(entries) => {
                entries.iter().map(|(name, target)| (format!("\"{name}\""), target)).collect()
            }
            Value::List(items) => {
                items.iter().enumerate().map(|(n, item)| (format!("number {n}"), item)).collect()
            }
            _ => {
                let expected = "expected targets by name or as a list: { web = nixos_machine.web.target }";
                return Err(FunctionError::new(expected).argument(0));
            }
        };
        let lines = named.into_iter().map(|(name, target)| {
            line(target).map_err(|problem| FunctionError::new(format!("target {name} {problem}")).argument(0))
        });
        lines.collect()
    }
}

fn line(target: &Value) -> Result<String, &'static str> {
    let target = untyped(target);
    let text =
        |name: &str| target.get(name).map(untyped).and_then(Value::as_str).filter(|text| !text.is_empty());
    let host = text("host").ok_or("has no `host`: expected the `target` of a nixos_machine")?;
    let key = text("host_public_key").ok_or(
        "has no `host_public_key`: it is known once the machine has been logged in to, or where it is set",
    )?;
    let port = match target.get("port").map(untyped) {
        Some(Value::Number(port)) => port.as_u64().filter(|port| *port != 22),
        _ => None,
    };
    Ok(match port {
        Some(port) => format!("[{host}]:{port} {key}\n"),
        None => format!("{host} {key}\n"),
    })
}

fn untyped(value: &Value) -> &Value {
    match value {
        Value::Dynamic(typed) => &typed.1,
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(targets: serde_json::Value) -> Result<String, String> {
        KnownHosts.call((targets.into(),)).map_err(|error| error.text)
    }

    #[test]
    fn each_machine_has_a_line() {
        let targets = json!({
            "db": { "host": "10.0.0.1", "port": 22, "host_public_key": "ssh-ed25519 AAAA" },
            "web": { "host": "2001:db8::1", "port": 2222, "host_public_key": "ssh-ed25519 BBBB" },
            "x": { "host": "x.example", "host_public_key": "ssh-rsa CCCC" }
        });
        let lines =
            "10.0.0.1 ssh-ed25519 AAAA\n[2001:db8::1]:2222 ssh-ed25519 BBBB\nx.example ssh-rsa CCCC\n";
        assert_eq!(call(targets.clone()).unwrap(), lines);
        let list: Vec<_> = targets.as_object().unwrap().values().cloned().collect();
        assert_eq!(call(list.into()).unwrap(), lines);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(
            call(json!({ "db": { "host": "h" } }))
                .unwrap_err()
                .starts_with("target \"db\" has no `host_public_key`")
        );
        assert!(
            call(json!([{ "host_public_key": "k" }]))
                .unwrap_err()
                .starts_with("target number 0 has no `host`")
        );
        assert!(call(json!("db")).unwrap_err().contains("expected targets by name"));
    }
}
