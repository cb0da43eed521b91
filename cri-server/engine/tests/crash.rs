//! A daemon that is killed at any step, or whose step fails, leaves nothing behind.
//!
//! Each case runs the operation in another process with one fail point armed; then an engine opens here.
#![cfg(feature = "failpoints")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use common::{Bench, SOON, shell};
use engine::Engine;
use engine::model::{ContainerState, NamespaceMode, PodConfig, PodFilter, PodState, Resources};

const SIGKILL: i32 = 9;

/// The steps of making a pod.
const RUN_POD: [&str; 7] = [
    "run_pod.directory",
    "run_pod.intent",
    "run_pod.cgroup",
    "run_pod.shim",
    "run_pod.network",
    "run_pod.files",
    "run_pod.ready",
];

/// The steps of making a container.
const CREATE: [&str; 7] = [
    "create_container.directory",
    "create_container.intent",
    "create_container.rootfs",
    "create_container.volume",
    "create_container.config",
    "create_container.runtime",
    "create_container.created",
];

/// The steps of taking a pod away.
const REMOVE: [&str; 5] = [
    "stop_pod.intent",
    "remove_container.killed",
    "stop_pod.killed",
    "stop_pod.torn_down",
    "remove_pod.containers",
];

/// Runs [`another_process`] on the bench's directory; the bench's engine must be closed.
fn elsewhere(bench: &Bench, operation: &str, failpoint: &str, action: &str) -> ExitStatus {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "another_process", "--nocapture"])
        .env("DAVIT_TEST_DIR", bench.path())
        .env("DAVIT_TEST_NUMBER", bench.number.to_string())
        .env("DAVIT_TEST_OPERATION", operation)
        .env("DAVIT_FAILPOINTS", format!("{failpoint}={action}"))
        .status()
        .expect("another process")
}

/// Not a test of its own: the other process of those below.
#[tokio::test(flavor = "multi_thread")]
async fn another_process() {
    let Ok(operation) = std::env::var("DAVIT_TEST_OPERATION") else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os("DAVIT_TEST_DIR").expect("a directory"));
    let number = std::env::var("DAVIT_TEST_NUMBER")
        .expect("a number")
        .parse()
        .expect("a number");
    let engine = Engine::open(common::config(&dir, number, "runc"))
        .await
        .expect("an engine");
    let mut config = common::pod(&dir, "web");
    config.security.namespaces.pid = NamespaceMode::Pod;
    let known = engine.list_pods(&PodFilter::default());
    let result = match operation.as_str() {
        "run_pod" => engine.run_pod(config, "").await.map(drop),
        "create" => {
            let pod = &known.first().expect("a pod").id;
            let mut config = shell("new", "sleep 60");
            config.mounts = vec![engine::model::Mount {
                container_path: "/image".into(),
                image: common::IMAGE.into(),
                ..Default::default()
            }];
            engine
                .create_container(pod, config, PodConfig::default())
                .await
                .map(drop)
        }
        "remove_pod" => engine.remove_pod(&known.first().expect("a pod").id).await,
        "update" => {
            let containers = engine.list_containers(&Default::default());
            let id = &containers.first().expect("a container").id;
            let change = Resources {
                cpu_shares: 777,
                ..Resources::default()
            };
            engine.update_container(id, change).await
        }
        other => panic!("no operation {other}"),
    };
    let error = result.expect_err("the fail point is armed");
    assert!(error.report().contains("was armed"), "{}", error.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_made_whole_or_not_at_all() {
    let mut bench = Bench::without_image("runc").await;
    for step in RUN_POD {
        bench.close().await;
        let status = elsewhere(&bench, "run_pod", step, "kill");
        assert_eq!(status.signal(), Some(SIGKILL), "{step} is on the way");
        bench.open().await;
        let pods = bench.engine().list_pods(&PodFilter::default());
        if step == "run_pod.ready" {
            // Everything was there but the answer.
            assert_eq!(
                pods.iter().map(|pod| pod.state).collect::<Vec<_>>(),
                [PodState::Ready]
            );
            bench
                .engine()
                .remove_pod(&pods[0].id)
                .await
                .expect("removed");
        } else {
            assert!(pods.is_empty(), "{step}");
        }
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "killed at {step}");

        bench.close().await;
        assert!(
            elsewhere(&bench, "run_pod", step, "error").success(),
            "{step}"
        );
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "failed at {step}");
        bench.open().await;
    }
    // The name is free.
    bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect("a pod");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_whole_or_not_at_all() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("web"), "")
        .await
        .expect("a pod");
    let other = bench.run(&pod, "other", "while :; do sleep 1; done").await;
    let before = bench.leftovers();
    for step in CREATE {
        bench.close().await;
        let status = elsewhere(&bench, "create", step, "kill");
        assert_eq!(status.signal(), Some(SIGKILL), "{step} is on the way");
        bench.open().await;
        if step == "create_container.created" {
            let all = bench.engine().list_containers(&Default::default());
            let new = all
                .iter()
                .find(|one| one.metadata.name == "new")
                .expect("whole");
            assert_eq!(new.state, ContainerState::Created);
            bench
                .engine()
                .remove_container(&new.id)
                .await
                .expect("removed");
        }
        assert_eq!(
            bench.engine().list_containers(&Default::default()).len(),
            1,
            "{step}"
        );
        assert_eq!(bench.leftovers(), before, "killed at {step}");

        bench.close().await;
        assert!(
            elsewhere(&bench, "create", step, "error").success(),
            "{step}"
        );
        assert_eq!(bench.leftovers(), before, "failed at {step}");
        bench.open().await;
    }
    assert_eq!(bench.sh(&other, "echo untouched").await, "untouched");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_pod_away_can_be_tried_again_after_each_step() {
    let mut bench = Bench::new("runc").await;
    for step in REMOVE {
        for action in ["kill", "error"] {
            let pod = bench
                .engine()
                .run_pod(bench.pod("web"), "")
                .await
                .expect("a pod");
            bench.run(&pod, "main", "while :; do sleep 1; done").await;
            bench.close().await;
            let status = elsewhere(&bench, "remove_pod", step, action);
            assert!(
                status.success() != (status.signal() == Some(SIGKILL)),
                "{step}={action}: {status}"
            );
            bench.open().await;
            assert_eq!(
                bench.engine().pod_status(&pod).expect("still known").state,
                PodState::NotReady,
                "{step}={action}"
            );
            for container in bench.engine().list_containers(&Default::default()) {
                bench
                    .engine()
                    .stop_container(&container.id, Duration::ZERO)
                    .await
                    .expect("stopped");
            }
            bench.engine().stop_pod(&pod).await.expect("stopped");
            bench.engine().remove_pod(&pod).await.expect("removed");
            assert_eq!(bench.leftovers(), Vec::<String>::new(), "{step}={action}");
        }
    }
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_after_an_update_shows_limits_and_can_set_them_again() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("web"), "")
        .await
        .expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    bench.close().await;
    let status = elsewhere(&bench, "update", "update_container.applied", "kill");
    assert_eq!(status.signal(), Some(SIGKILL));
    bench.open().await;
    let change = Resources {
        cpu_shares: 777,
        ..Resources::default()
    };
    bench
        .engine()
        .update_container(&id, change)
        .await
        .expect("set again");
    let limits = bench
        .engine()
        .container_status(&id)
        .expect("known")
        .resources
        .expect("limits");
    assert_eq!(limits.cpu_shares, 777);
    bench
        .engine()
        .stop_container(&id, SOON)
        .await
        .expect("stopped");
    bench.expect_clean().await;
}
