//! Policies in JSON: when two texts mean the same. S3 gives a policy back in another order than it got it, with
//! one-element lists as single values and the other way round.
//!
//! Source: "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy language" of the IAM user guide.

use serde_json::{Map, Value};

/// Whether both are policies that say the same.
pub(super) fn same(a: &str, b: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok().map(|value| canonical(None, value));
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Whether this is a policy document at all.
pub(super) fn is_policy(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Value::Object(policy)) if policy.contains_key("Statement"))
}

/// One spelling of many. `name` is the element whose value it is.
fn canonical(name: Option<&str>, value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(|item| canonical(name, item)).collect();
            items.sort_by_key(ToString::to_string);
            items.dedup();
            match items.len() {
                1 => items.remove(0),
                _ => Value::Array(items),
            }
        }
        Value::Object(entries) => {
            let entries: Map<_, _> = entries
                .into_iter()
                .map(|(key, value)| {
                    let value = canonical(Some(&key), value);
                    (key, value)
                })
                .collect();
            // Anybody is `"*"` or `{"AWS": "*"}`.
            let principal = matches!(name, Some("Principal" | "NotPrincipal"));
            if principal && entries.len() == 1 && entries.get("AWS") == Some(&Value::from("*")) {
                return Value::from("*");
            }
            Value::Object(entries)
        }
        // An account is its number or the ARN of its root.
        Value::String(text)
            if name == Some("AWS") && text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit()) =>
        {
            Value::String(format!("arn:aws:iam::{text}:root"))
        }
        // Conditions compare texts: `true` and `"true"`, `1` and `"1"` are one.
        Value::Bool(flag) => Value::String(flag.to_string()),
        Value::Number(number) => Value::String(number.to_string()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_policy_in_other_words() {
        let a = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject","s3:PutObject"],
            "Resource":["arn:aws:s3:::b/*"],"Condition":{"Bool":{"aws:SecureTransport":true}}}]}"#;
        let b = r#"{"Statement":{"Action":["s3:PutObject","s3:GetObject"],"Effect":"Allow","Principal":{"AWS":["*"]},
            "Condition":{"Bool":{"aws:SecureTransport":"true"}},"Resource":"arn:aws:s3:::b/*"},"Version":"2012-10-17"}"#;
        assert!(same(a, b));
        assert!(!same(a, &b.replace("PutObject", "DeleteObject")));
        assert!(!same(a, &b.replace("Allow", "Deny")));
        assert!(!same(a, "not JSON"));
    }

    #[test]
    fn an_account_is_its_root() {
        let policy =
            |principal: &str| format!(r#"{{"Statement":[{{"Principal":{{"AWS":"{principal}"}}}}]}}"#);
        assert!(same(&policy("123456789012"), &policy("arn:aws:iam::123456789012:root")));
        assert!(!same(&policy("123456789012"), &policy("210987654321")));
    }

    #[test]
    fn a_policy_has_statements() {
        assert!(is_policy(r#"{"Statement":[]}"#));
        for bad in ["", "{}", "[]", "null", "{\"Statement\":"] {
            assert!(!is_policy(bad), "{bad}");
        }
    }
}
