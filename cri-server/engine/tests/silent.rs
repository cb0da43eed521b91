//! A shim that lives and does not answer is not dead.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Bench, SOON, eventually};
use engine::model::{ContainerState, PodState};

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(sent.expect("kill").success());
}

/// Continues a stopped process also when the test fails.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if std::fs::exists(format!("/proc/{}", self.0)).unwrap_or(false) {
            signal("CONT", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_does_not_answer_at_the_start_keeps_its_pod_and_is_heard_later() {
    let mut bench = Bench::new("davit-oci").await;
    let engine = bench.engine().clone();
    let pod = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let pid = engine.container_status(&id).expect("known").pid;
    let shim = engine.pod_status(&pod).expect("known").shim_pid;
    drop(engine);
    bench.close().await;
    let stopped = Stopped::new(shim.expect("a shim"));
    bench.open().await;
    let engine = bench.engine().clone();
    let status = engine.pod_status(&pod).expect("known");
    assert_eq!((status.state, status.shim_pid), (PodState::Ready, shim));
    let container = engine.container_status(&id).expect("known");
    assert_eq!(
        (container.state, container.pid),
        (ContainerState::Running, pid)
    );
    drop(stopped);
    // What happens from now on is heard, although nobody could subscribe at the start.
    signal("KILL", pid.expect("a pid"));
    let ended = bench.ended(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"));
    assert_eq!(
        engine.pod_status(&pod).expect("known").state,
        PodState::Ready
    );
    drop(engine);
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shim_does_not_answer_can_be_stopped_and_the_engine_closes_in_time() {
    let mut bench = Bench::new("davit-oci").await;
    let engine = bench.engine().clone();
    let pod = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let pid = engine.container_status(&id).expect("known").pid;
    let shim = engine.pod_status(&pod).expect("known").shim_pid;
    let _stopped = Stopped::new(shim.expect("a shim"));
    tokio::time::timeout(2 * SOON, engine.stop_pod(&pod))
        .await
        .expect("in time")
        .expect("stopped");
    eventually("its process is dead", || {
        !std::fs::exists(format!("/proc/{}/ns/mnt", pid.expect("a pid"))).unwrap_or(false)
    })
    .await;
    let begin = Instant::now();
    drop(engine);
    bench.close().await;
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    bench.open().await;
    bench.expect_clean().await;
}

/// An OCI runtime that hangs holds up neither the list of handlers nor the removal of a container.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_hangs_is_not_waited_for_when_it_is_asked_what_it_can_do() {
    let mut bench = Bench::new("davit-oci").await;
    let path = bench.path().join("hangs");
    std::fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("executable");
    let mut handlers = bench.config.handlers.clone();
    handlers.insert("hangs".into(), engine::Handler::new(&path));
    let reload = engine::Reload {
        handlers,
        default_handler: "davit-oci".into(),
    };
    let engine = bench.engine().clone();
    engine.reload(reload).await.expect("reloaded");
    let begin = Instant::now();
    let asked = engine.clone();
    let all = tokio::task::spawn_blocking(move || asked.handlers())
        .await
        .expect("answered");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["", "crun", "davit-oci", "hangs", "runc"]);
    let bad = engine::Reload {
        handlers: Default::default(),
        default_handler: "none".into(),
    };
    let refused = engine.reload(bad).await.expect_err("refused").report();
    assert!(refused.contains("\"none\" is not among"), "{refused}");
    drop((engine, all));
    bench.expect_clean().await;
}
