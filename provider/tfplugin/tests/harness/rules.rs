//! What a configuration and a resource may not do, and what is left where one does.

use tfplugin::Value;
use tfplugin::testing::{Stored, object};

use crate::{applied, kitchen, pot, rogue, said, with};

#[tokio::test]
async fn bad_configurations_get_an_error_each() {
    let (terraform, _) = kitchen().await;
    let errors = |config: Value| {
        let terraform = &terraform;
        async move { said(&terraform.validate("kitchen_pot", &config).await.unwrap_err()) }
    };
    let wok = object([("name", "wok".into())]);
    assert!(
        errors(with(&wok, "size", 100i64)).await.contains("Found 100, expected a whole number from 1 to 99")
    );
    assert!(errors(with(&wok, "metal", "mud")).await.contains("one of \"iron\", \"copper\""));
    assert!(errors(with(&wok, "name", "lid")).await.contains("A lid is no pot"));
    assert!(errors(object([])).await.contains("Missing required argument"));
    // Terraform lets null pass where a value is required, and among elements.
    let null = || Value::Null;
    assert!(
        errors(object([("name", null())])).await.contains("`name` is missing: Found null, expected a string")
    );
    let part = |part: Value| with(&wok, "parts", object([("a", part)]));
    assert!(errors(part(null())).await.contains("`parts[\"a\"]` is null: Found null, expected an object"));
    let kindless = object([("kind", null())]);
    assert!(errors(part(kindless)).await.contains("`parts[\"a\"].kind` is missing"));
    let tags = with(&wok, "tags", Value::List(vec!["x".into(), null()]));
    assert!(errors(tags).await.contains("` is null: Found null, expected a string"));
    let warnings = terraform.validate("kitchen_pot", &with(&wok, "name", "old pot")).await.unwrap();
    assert_eq!(said(&warnings), "This pot is old: \n", "a warning is no error");
}

#[tokio::test]
async fn write_only_values_are_refused_where_they_would_be_stored() {
    let (terraform, _) = kitchen().await;
    let old = terraform.saying(|client| client.write_only_attributes_allowed = false);
    let errors = old.plan("kitchen_pot", None, &pot("wok", 3, &[])).await.unwrap_err();
    let text = said(&errors);
    assert!(
        text.contains("would store a secret") && text.contains("`secret`") && !text.contains("hush"),
        "{text}"
    );
    old.plan("kitchen_pot", None, &object([("name", "wok".into())])).await.unwrap();
}

#[tokio::test]
async fn a_write_only_value_never_gets_out_again() {
    let (terraform, _) = kitchen().await;
    for how in ["plan the secret", "return the secret"] {
        let rogue = object([("how", how.into()), ("secret", "hush".into())]);
        let stored = terraform.create("kitchen_rogue", &rogue).await;
        assert_eq!(stored.get("secret"), &Value::Null, "{how}");
    }
}

/// What a rogue is told, what is found, and what must not be shown.
const BREACHES: &[(&str, &str)] = &[
    ("plan another text", "kitchen_rogue planned \"another\" for `text` where \"good\" was due"),
    (
        "plan another token",
        "kitchen_rogue planned a sensitive value for `token` where a sensitive value was due",
    ),
    ("plan silently", "it failed without saying why"),
    ("panic in plan", "PlanResourceChange of kitchen_rogue panicked"),
    ("return another text", "kitchen_rogue returned \"another\" for `text` where \"good\" was due"),
    ("return another token", "kitchen_rogue returned a sensitive value for `token`"),
    ("return something unknown", "for `out` where a known value was due"),
    ("fail silently", "it failed without saying why"),
    ("fail half-way", "Half of it is done"),
    ("panic in apply", "ApplyResourceChange of kitchen_rogue panicked"),
];

#[tokio::test]
async fn who_breaks_a_rule_is_named_with_place_and_values() {
    let (terraform, _) = kitchen().await;
    for (how, expected) in BREACHES {
        let rogue = object([("how", (*how).into()), ("text", "good".into()), ("token", "t0ken".into())]);
        let errors = match terraform.plan("kitchen_rogue", None, &rogue).await {
            Err(errors) => errors,
            Ok(plan) => terraform.apply(plan).await.diagnostics,
        };
        let text = said(&errors);
        assert!(text.contains(expected), "{how}: {text}");
        assert!(!text.contains("t0ken"), "{how}: {text}");
        if how.starts_with("plan") {
            assert!(text.contains("This is a rogue"), "warnings of what fails are not lost: {text}");
        }
    }
    // The provider has lived through all of it.
    terraform.create("kitchen_pot", &object([("name", "wok".into())])).await;
}

#[tokio::test]
async fn a_failed_apply_leaves_what_there_is() {
    let (terraform, _) = kitchen().await;
    let rogue = |how: &str, text: &str| object([("how", how.into()), ("text", text.into())]);
    let apply = |prior: Option<Stored>, config: Value| {
        let terraform = &terraform;
        async move {
            let plan = terraform.plan("kitchen_rogue", prior.as_ref(), &config).await.unwrap();
            terraform.apply(plan).await
        }
    };
    let half = apply(None, rogue("fail half-way", "a")).await.state.unwrap();
    assert!(half.tainted, "a create that failed leaves something to be replaced");
    assert_eq!(half.get("out"), &Value::Null, "what is not known is not there");
    assert!(apply(None, rogue("panic in apply", "a")).await.state.is_none(), "nothing was made");
    let good = terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
    let kept = apply(Some(good.clone()), rogue("panic in apply", "b")).await.state.unwrap();
    assert_eq!(kept.value, good.value, "after a panic the state is the one there was");
    let lost = terraform.plan("kitchen_rogue", Some(&good), &rogue("plan what cannot be", "a")).await;
    let text = said(&lost.unwrap_err());
    assert!(text.contains("replaced for `nothing`, which is in neither state nor plan"), "{text}");
    let stuck = terraform.create("kitchen_rogue", &rogue("panic in delete", "a")).await;
    let plan = terraform.plan_destroy(&stuck).await.unwrap();
    let applied = terraform.apply(plan).await;
    assert!(applied.diagnostics.has_errors());
    assert_eq!(applied.state.unwrap().value, stuck.value);
    for how in ["panic in read", "read something unknown"] {
        let read = Stored { value: with(&good.value, "how", how), ..good.clone() };
        let errors = terraform.refresh(&read).await.unwrap_err();
        assert!(said(&errors).contains(if how == "panic in read" { "panicked" } else { "`out`" }), "{how}");
    }
}

#[tokio::test]
async fn what_was_made_is_kept_where_the_result_does_not_fit_or_cannot_be_told() {
    let (terraform, _) = kitchen().await;
    let good = terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
    for (how, expected) in [
        ("return a number for a text", "does not fit its own schema"),
        ("return what cannot be told", "NaN is not a number"),
    ] {
        let (made, said) = applied(&terraform, None, &rogue(how, "b")).await;
        assert!(said.contains(expected), "{how}: {said}");
        assert!(made.tainted, "{how}: what nobody knows is replaced");
        assert_eq!((made.get("text"), made.get("out")), (&"b".into(), &Value::Null), "{how}");
        let (changed, said) = applied(&terraform, Some(&good), &rogue(how, "b")).await;
        assert!(said.contains(expected), "{how}: {said}");
        assert_eq!((changed.get("text"), changed.get("out")), (&"b".into(), &Value::Null), "{how}");
    }
}

#[tokio::test]
async fn an_identity_may_become_complete_but_never_another() {
    let (terraform, _) = kitchen().await;
    let is = |who: Value| Some(object([("out", who)]));
    let config = rogue("become somebody", "a");
    let (nobody, _) = applied(&terraform, None, &config).await;
    assert_eq!(nobody.identity, is(Value::Null));
    let planned = terraform.plan("kitchen_rogue", Some(&nobody), &config).await.unwrap().planned;
    assert_eq!(planned.get("out"), Some(&"somebody".into()), "a plan may tell more");
    let read = terraform.refresh(&nobody).await.unwrap().unwrap();
    assert_eq!(read.identity, is("somebody".into()), "a refresh may tell more");

    let config = rogue("become another", "a");
    let (done, _) = applied(&terraform, None, &config).await;
    assert_eq!(done.identity, is("done".into()));
    let errors = terraform.plan("kitchen_rogue", Some(&done), &config).await.unwrap_err();
    assert!(said(&errors).contains("it plans another identity for the same object"), "{}", said(&errors));
    let errors = terraform.refresh(&done).await.unwrap_err();
    assert!(said(&errors).contains("it found another identity for the same object"), "{}", said(&errors));
}
