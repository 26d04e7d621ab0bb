//! Many calls, and large messages.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tfplugin::Value;
use tfplugin::testing::{Harness, object};

use crate::{applied, example, kitchen, number, pot, rogue, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once() {
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([])).await.unwrap();
    let lives = (0..1000).map(|n| {
        let terraform = &terraform;
        async move {
            let name = format!("pot {n}");
            if n % 250 == 249 {
                let errors =
                    terraform.plan("kitchen_rogue", None, &object([("how", "panic in plan".into())])).await;
                assert!(said(&errors.unwrap_err()).contains("panicked"));
                return;
            }
            let plan = terraform.plan("kitchen_pot", None, &pot(&name, 3, &["a"])).await.unwrap();
            let applied = terraform.apply(plan).await;
            assert_eq!(applied.state.unwrap().get("id"), &format!("pot:{name}").into());
        }
    });
    futures::future::join_all(lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn very_large_values_go_there_and_back() {
    let (terraform, _) = kitchen().await;
    let text: Value = "x".repeat(120 << 20).into();
    let heard = terraform.call("echo", std::slice::from_ref(&text)).await.unwrap();
    assert!(heard == text.into_dynamic(), "120 MiB come back as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_may_be_as_large_as_is_promised() {
    let (terraform, _) = kitchen().await;
    // Both a plan and an apply have it twice, in the configuration and in the proposed or planned state: 250 MiB.
    let large = "x".repeat((125 << 20) - 1024);
    let plan = terraform.plan("kitchen_rogue", None, &rogue("behave", &large)).await.unwrap();
    let applied = terraform.apply(plan).await;
    assert!(applied.diagnostics.is_empty(), "{}", said(&applied.diagnostics));
    assert!(applied.state.unwrap().get("text") == &large.into(), "it comes back as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_an_error_that_says_so() {
    let (terraform, _) = kitchen().await;
    let mebibytes = |n: usize| "x".repeat(n << 20);
    // What cannot even be read has no diagnostics.
    let too_large = rogue("behave", &mebibytes(129));
    let refused = AssertUnwindSafe(terraform.plan("kitchen_rogue", None, &too_large)).catch_unwind().await;
    let status = refused.unwrap_err().downcast_ref::<String>().cloned().unwrap();
    assert!(status.contains("message length too large: found 27"), "{status}");

    let numbers = [number(1), number(2), number(3), number(4), number(5)];
    let join = [&[mebibytes(65).into()], &numbers[..]].concat();
    let error = terraform.call("join", &join).await.unwrap_err();
    assert!(error.text.contains("CallFunction of join would have 260 MiB"), "{:.200}", error.text);

    let (made, said) =
        applied(&terraform, None, &rogue("return far more than there was", &mebibytes(40))).await;
    assert!(said.contains("ApplyResourceChange of kitchen_rogue would have 280 MiB"), "{said:.200}");
    assert!(made.tainted && made.get("out").is_null(), "what was made is there, as it was planned");
    terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
}
