//! An engine that opens finds what runs, and takes away what was left half made.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Bench, SOON, eventually, shell};
use engine::model::{ContainerState, NamespaceMode, PodConfig, PodFilter, PodState};
use engine::{Engine, Kind};

fn kill(pid: u32) {
    let killed = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .expect("kill");
    assert!(killed.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_on_while_the_daemon_is_away_and_no_exit_code_or_line_is_lost() {
    let mut bench = Bench::new("runc").await;
    let config = bench.pod("web");
    let pod = bench
        .engine()
        .run_pod(config.clone(), "")
        .await
        .expect("a pod");
    let flag = bench.path().join("flag");
    fs::create_dir(&flag).expect("flag");
    let mount = engine::model::Mount {
        container_path: "/flag".into(),
        host_path: flag.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let mut talker = shell(
        "talker",
        "i=0; while [ ! -e /flag/go ]; do echo $i; i=$((i+1)); done; echo $i > /flag/count; exit 5",
    );
    talker.mounts = vec![mount];
    let talker = bench.create(&pod, talker).await;
    bench
        .engine()
        .start_container(&talker)
        .await
        .expect("started");
    let stays = bench.run(&pod, "stays", "while :; do sleep 1; done").await;
    let waits = bench.create(&pod, shell("waits", "exit 6")).await;
    let before = (
        bench.engine().pod_status(&pod).expect("known"),
        bench.engine().container_status(&stays).expect("known"),
    );

    bench.close().await;
    fs::write(flag.join("go"), "").expect("go");
    let exit = bench
        .config
        .run_dir
        .join("pods")
        .join(&pod)
        .join(&talker)
        .join("exit");
    eventually("the container ended while nobody looked", || exit.exists()).await;
    bench.open().await;

    let engine = bench.engine();
    assert_eq!(engine.pod_status(&pod).expect("known"), before.0);
    assert_eq!(engine.container_status(&stays).expect("known"), before.1);
    let ended = bench.ended(&talker).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (5, "Error"));
    assert!(ended.started_at > 0 && ended.finished_at >= ended.started_at);
    let count: usize = fs::read_to_string(flag.join("count"))
        .expect("count")
        .trim()
        .parse()
        .expect("number");
    let expected: Vec<String> = (0..count)
        .map(|number| format!("stdout F {number}"))
        .collect();
    assert_eq!(bench.log(&talker), expected);

    assert_eq!(bench.sh(&stays, "echo alive").await, "alive");
    assert_eq!(
        engine.container_status(&waits).expect("known").state,
        ContainerState::Created
    );
    engine.start_container(&waits).await.expect("started");
    assert_eq!(bench.ended(&waits).await.exit_code, 6);
    assert_eq!(
        engine
            .run_pod(config, "")
            .await
            .expect_err("reserved")
            .kind(),
        Kind::AlreadyExists
    );
    bench.restart().await;
    assert_eq!(
        bench.engine().container_status(&talker).expect("known"),
        ended,
        "an end never changes"
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shim_dies_is_not_ready_and_its_containers_are_dead() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let pid = engine
        .container_status(&id)
        .expect("known")
        .pid
        .expect("a pid");
    kill(
        engine
            .pod_status(&pod)
            .expect("known")
            .shim_pid
            .expect("a shim"),
    );
    eventually("the pod is not ready", || {
        engine.pod_status(&pod).expect("known").state == PodState::NotReady
    })
    .await;
    let ended = bench.ended(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
    eventually("its process is dead", || {
        !fs::exists(format!("/proc/{pid}/ns/mnt")).unwrap_or(false)
    })
    .await;
    let error = engine
        .create_container(&pod, shell("late", "true"), PodConfig::default())
        .await
        .expect_err("not ready");
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    engine.stop_container(&id, SOON).await.expect("stopped");
    engine.stop_pod(&pod).await.expect("stopped");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_dies_while_the_daemon_is_away_is_found_out() {
    let mut bench = Bench::new("davit-oci").await;
    let pod = bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect("a pod");
    let runs = bench.run(&pod, "runs", "while :; do sleep 1; done").await;
    let done = bench.run(&pod, "done", "exit 4").await;
    let ended = bench.ended(&done).await;
    let shim = bench
        .engine()
        .pod_status(&pod)
        .expect("known")
        .shim_pid
        .expect("a shim");
    bench.close().await;
    kill(shim);
    bench.open().await;
    let engine = bench.engine();
    assert_eq!(
        engine.pod_status(&pod).expect("known").state,
        PodState::NotReady
    );
    assert_eq!(engine.container_status(&done).expect("known"), ended);
    let lost = engine.container_status(&runs).expect("known");
    assert_eq!(
        (lost.exit_code, lost.reason.as_str(), lost.state),
        (255, "Unknown", ContainerState::Exited)
    );
    bench.restart().await;
    assert_eq!(
        bench.engine().container_status(&runs).expect("known"),
        lost,
        "an end never changes"
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shared_init_dies_is_not_ready() {
    let mut bench = Bench::new("runc").await;
    let mut config = bench.host_pod("init");
    config.security.namespaces.pid = NamespaceMode::Pod;
    let pod = bench.engine().run_pod(config, "").await.expect("a pod");
    let mut main = shell("main", "while :; do sleep 1; done");
    main.security.namespaces.pid = NamespaceMode::Pod;
    let id = bench.create(&pod, main).await;
    bench.engine().start_container(&id).await.expect("started");
    let init = fs::read_link(bench.config.run_dir.join("pods").join(&pod).join("ns/pid")).err();
    assert!(
        init.is_some(),
        "the namespace is pinned by a mount, not a link"
    );
    let pid = bench
        .engine()
        .container_status(&id)
        .expect("known")
        .pid
        .expect("a pid");
    // The init is the process with number 1 in the container's process namespace.
    let own = fs::read_link(format!("/proc/{pid}/ns/pid")).expect("namespace");
    let init = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_string_lossy().parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let same = fs::read_link(entry.path().join("ns/pid")).ok()? == own;
            let first = status
                .lines()
                .find(|line| line.starts_with("NSpid:"))?
                .ends_with("\t1");
            (same && first).then_some(pid)
        });
    kill(init.expect("an init"));
    let engine = bench.engine();
    eventually("the pod is not ready", || {
        engine.pod_status(&pod).expect("known").state == PodState::NotReady
    })
    .await;
    assert_eq!(bench.ended(&id).await.exit_code, 137);
    bench.restart().await;
    assert_eq!(
        bench.engine().pod_status(&pod).expect("known").state,
        PodState::NotReady
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_load_stay_visible_and_can_be_removed() {
    let mut bench = Bench::new("runc").await;
    let broken_pod = bench
        .engine()
        .run_pod(bench.pod("broken"), "")
        .await
        .expect("a pod");
    let inside = bench
        .run(&broken_pod, "inside", "while :; do sleep 1; done")
        .await;
    let pod = bench
        .engine()
        .run_pod(bench.pod("fine"), "")
        .await
        .expect("a pod");
    let container = bench.run(&pod, "broken", "while :; do sleep 1; done").await;
    bench.close().await;
    let pods = bench.config.run_dir.join("pods");
    fs::write(pods.join(&broken_pod).join("pod.json"), "{\"version\":1,").expect("broken");
    fs::write(pods.join(&pod).join(&container).join("container.json"), "").expect("broken");
    bench.open().await;
    let engine = bench.engine().clone();
    let status = engine.pod_status(&broken_pod).expect("visible");
    assert_eq!((status.state, status.known), (PodState::NotReady, false));
    assert!(status.created_at > 0 && !status.metadata.name.is_empty());
    assert_eq!(
        engine.container_status(&container).expect("visible").state,
        ContainerState::Unknown
    );
    assert_eq!(
        engine.container_status(&inside).expect("visible").state,
        ContainerState::Unknown
    );
    engine
        .stop_container(&container, Duration::ZERO)
        .await
        .expect("stopped");
    engine.remove_container(&container).await.expect("removed");
    engine.stop_pod(&broken_pod).await.expect("stopped");
    engine.remove_pod(&broken_pod).await.expect("removed");
    assert_eq!(engine.list_pods(&PodFilter::default()).len(), 1);
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_pod_is_swept_up() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect("a pod");
    bench.close().await;
    let id = "f".repeat(64);
    let (pods, state) = (
        bench.config.run_dir.join("pods"),
        bench.config.state_dir.join("pods"),
    );
    // A pod and a container that died between their directory and their record, and layers of nobody.
    fs::create_dir_all(pods.join(&id)).expect("half a pod");
    fs::create_dir_all(pods.join(&pod).join(&id)).expect("half a container");
    fs::create_dir_all(state.join(&pod).join(&id).join("upper")).expect("a layer");
    fs::create_dir_all(state.join("e".repeat(64)).join(&id).join("upper")).expect("a layer");
    bench.open().await;
    assert!(!pods.join(&id).exists() && !pods.join(&pod).join(&id).exists());
    assert!(!state.join("e".repeat(64)).exists() && !state.join(&pod).join(&id).exists());
    assert_eq!(bench.engine().list_pods(&PodFilter::default()).len(), 1);
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_nothing_is_left_of_the_pods() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let status = bench.engine().container_status(&id).expect("known");
    let shim = bench
        .engine()
        .pod_status(&pod)
        .expect("known")
        .shim_pid
        .expect("a shim");
    bench.close().await;
    // What a reboot does: no process, no mount, no tmpfs, no cgroup; the disk stays.
    kill(status.pid.expect("a pid"));
    kill(shim);
    let run = bench.config.run_dir.clone();
    for mount in common::mounts_below(&run).into_iter().rev() {
        sys::mount::unmount_detach(&mount).expect("unmounted");
    }
    for cgroup in bench.cgroups() {
        let inner: Vec<_> = fs::read_dir(&cgroup)
            .expect("cgroup")
            .flatten()
            .map(|one| one.path())
            .collect();
        for dir in inner
            .into_iter()
            .filter(|path| path.is_dir())
            .chain([cgroup])
        {
            eventually("the cgroup is empty", || {
                fs::remove_dir(&dir).is_ok() || !dir.exists()
            })
            .await;
        }
    }
    engine::prepare_run_dir(&run).expect("run directory");
    bench.open().await;
    assert!(bench.engine().list_pods(&PodFilter::default()).is_empty());
    assert_eq!(
        bench.leftovers(),
        Vec::<String>::new(),
        "layers and addresses are free"
    );
    assert!(
        bench
            .engine()
            .image_status(common::IMAGE)
            .await
            .expect("asked")
            .is_some(),
        "images last"
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_cannot_have_one_run_directory() {
    let mut bench = Bench::without_image("runc").await;
    let error = Engine::open(bench.config.clone())
        .await
        .expect_err("locked");
    assert!(
        error.report().contains("another davit-cri"),
        "{}",
        error.report()
    );
    bench.restart().await;
    bench.expect_clean().await;
}
