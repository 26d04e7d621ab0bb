//! How calls are stopped, and how a program ends.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tfplugin::testing::{Harness, object};

use crate::provider::Shelf;
use crate::{example, kitchen, rogue, said};

#[tokio::test]
async fn a_stopped_apply_ends_at_once_and_tells_what_there_is() {
    let (terraform, kitchen) = kitchen().await;
    let wait = object([("how", "wait".into())]);
    let plan = terraform.plan("kitchen_rogue", None, &wait).await.unwrap();
    let applying = terraform.apply(plan);
    let stopping = async {
        while !kitchen.shelf().done.contains(&"waiting".to_owned()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        terraform.stop().await;
        Instant::now()
    };
    let (applied, stopped) = tokio::join!(applying, stopping);
    assert!(stopped.elapsed() < Duration::from_secs(2));
    assert_eq!(applied.state.unwrap().get("out"), &"stopped".into());
    assert!(said(&applied.diagnostics).contains("Stopped at a safe point"));
    // A server that is attached to lives on: the next run is not stopped.
    let plan = terraform.plan("kitchen_rogue", None, &wait).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), terraform.apply(plan)).await;
    assert!(waits.is_err(), "the next apply was stopped by the last one's stop");
    terraform.stop().await;
}

#[tokio::test]
async fn after_a_stop_what_is_open_can_still_be_closed() {
    let (terraform, kitchen) = kitchen().await;
    let open = terraform.open("kitchen_fire", &object([("fuel", "wood".into())])).await.unwrap();
    terraform.stop().await;
    terraform.close(open).await.unwrap();
    assert_eq!(kitchen.shelf().done, ["open wood", "close wood"], "closing is not stopped");
}

/// Applies what this rogue does in a program, which is told to end meanwhile. Gives how long that took, and what was
/// done.
async fn ended_while_applying(how: &str) -> (Option<Duration>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let shelf = directory.path().join("shelf.json");
    let done = || -> Vec<String> {
        let shelf = std::fs::read(&shelf).ok().and_then(|text| serde_json::from_slice::<Shelf>(&text).ok());
        shelf.unwrap_or_default().done
    };
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([("shelf", shelf.to_str().unwrap().into())])).await.unwrap();
    let plan = terraform.plan("kitchen_rogue", None, &rogue(how, "a")).await.unwrap();
    // Whether there still is an answer is of no interest: Terraform does not wait for it.
    let applying = AssertUnwindSafe(terraform.apply(plan)).catch_unwind();
    let start = Instant::now();
    let ending = async {
        while !done().contains(&"waiting".to_owned()) {
            assert!(start.elapsed() < Duration::from_secs(20), "the apply did not begin");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        terraform.end().await
    };
    let (_, took) = tokio::join!(applying, ending);
    (took, done())
}

#[tokio::test]
async fn what_is_running_at_the_end_comes_to_a_safe_point() {
    let (took, done) = ended_while_applying("need half a second to stop").await;
    assert_eq!(done, ["waiting", "told to stop", "at a safe point"], "it took {took:?}");
    assert!(took.is_some_and(|took| took < Duration::from_millis(1300)), "nobody waits any longer: {took:?}");
}

#[tokio::test]
async fn what_never_stops_does_not_hold_up_the_end() {
    let (took, done) = ended_while_applying("never stop").await;
    assert_eq!(done, ["waiting"]);
    assert!(took.is_some(), "it had to be killed, and nothing was put away");
}

#[tokio::test]
async fn what_has_nothing_to_do_ends_at_once() {
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([])).await.unwrap();
    let took = terraform.end().await;
    assert!(took.is_some_and(|took| took < Duration::from_millis(500)), "{took:?}");
}
