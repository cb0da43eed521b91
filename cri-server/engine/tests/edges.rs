//! Edges: terminals, foreign process namespaces, log rotation, propagation, full disks, many cycles.

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Bench, SOON, eventually, poll_once, shell};
use engine::Kind;
use engine::model::{ContainerState, Mount, MountPropagation, NamespaceMode, PodConfig, PodState};

const FOREVER: &str = "while :; do sleep 1; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_logs_and_has_one() {
    for handler in ["runc", "davit-oci"] {
        let mut bench = Bench::new(handler).await;
        let pod = bench
            .engine()
            .run_pod(bench.host_pod("tty"), "")
            .await
            .expect("a pod");
        let mut config = shell(
            "tty",
            &format!("test -t 0 && test -t 1 && echo on $TERM; {FOREVER}"),
        );
        config.tty = true;
        let id = bench.create(&pod, config).await;
        bench.engine().start_container(&id).await.expect("started");
        eventually("it says so", || !bench.log(&id).is_empty()).await;
        assert_eq!(
            bench.log(&id)[0].trim_end(),
            "stdout F on xterm",
            "{handler}"
        );
        bench.expect_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debugging_container_sees_the_processes_of_its_target() {
    for handler in ["runc", "davit-oci"] {
        let mut bench = Bench::new(handler).await;
        let pod = bench
            .engine()
            .run_pod(bench.host_pod("target"), "")
            .await
            .expect("a pod");
        let target = bench
            .run(
                &pod,
                "target",
                "N=4711; sleep $N & while :; do sleep 1; done",
            )
            .await;
        let mut config = shell("debug", FOREVER);
        config.security.namespaces.pid = NamespaceMode::Target;
        config.security.namespaces.target_id = target.clone();
        let id = bench.create(&pod, config.clone()).await;
        bench.engine().start_container(&id).await.expect("started");
        assert_eq!(
            bench.sh(&id, "ps | grep -c '[s]leep 4711'").await,
            "1",
            "{handler}"
        );
        // Its end must not depend on the target's: it is killed with what it started, the target lives.
        bench
            .engine()
            .stop_container(&id, Duration::ZERO)
            .await
            .expect("stopped");
        assert_eq!(
            bench.sh(&target, "ps | grep -c '[s]leep 4711'").await,
            "1",
            "{handler}"
        );
        config.metadata.attempt = 1;
        config.security.namespaces.target_id = id;
        let error = bench
            .engine()
            .create_container(&pod, config, PodConfig::default())
            .await
            .expect_err("exited");
        assert!(error.report().contains("target_id"), "{}", error.report());
        bench.expect_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_log_goes_on_in_the_new_file_and_no_line_is_lost() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("log"), "")
        .await
        .expect("a pod");
    let id = bench
        .run(
            &pod,
            "log",
            "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done",
        )
        .await;
    let path = engine.container_status(&id).expect("known").log_path;
    let mut old = Vec::new();
    for turn in 0..5 {
        let rotated = format!("{path}.{turn}");
        if engine.container_status(&id).expect("known").state != ContainerState::Running {
            break;
        }
        fs::rename(&path, &rotated).expect("rotated");
        if engine.reopen_log(&id).await.is_err() {
            // It ended in between: then nobody made the new file.
            fs::rename(&rotated, &path).expect("back");
            break;
        }
        assert!(
            fs::exists(&path).expect("asked"),
            "the new file is there when the call returns"
        );
        old.push(rotated);
    }
    bench.ended(&id).await;
    let text: String = old
        .iter()
        .chain([&path])
        .map(|file| fs::read_to_string(file).expect("a log"))
        .collect();
    let numbers: Vec<usize> = text
        .lines()
        .map(|line| {
            line.rsplit(' ')
                .next()
                .expect("a word")
                .parse()
                .expect("a number")
        })
        .collect();
    assert_eq!(numbers, (0..20_000).collect::<Vec<_>>());
    assert_eq!(
        engine.reopen_log(&id).await.expect_err("exited").kind(),
        Kind::FailedPrecondition
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_travel_as_asked_and_only_where_the_host_lets_them() {
    for handler in ["runc", "davit-oci"] {
        let mut bench = Bench::new(handler).await;
        let shared = bench.path().join("shared");
        fs::create_dir(&shared).expect("directory");
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount")
                .args(arguments)
                .arg(&shared)
                .status()
                .expect("mount");
            assert!(done.success());
        };
        mount(&["-t", "tmpfs", "none"]);
        mount(&["--make-private"]);
        let mut config = bench.host_pod("mounts");
        config.security.privileged = true;
        let pod = bench.engine().run_pod(config, "").await.expect("a pod");
        let mut config = shell("mounts", FOREVER);
        config.security.privileged = true;
        config.mounts = vec![Mount {
            container_path: "/data".into(),
            host_path: shared.to_string_lossy().into_owned(),
            propagation: MountPropagation::Bidirectional,
            ..Mount::default()
        }];
        let error = bench
            .engine()
            .create_container(&pod, config.clone(), PodConfig::default())
            .await
            .expect_err("private");
        assert!(
            error.report().contains("mounts[0].propagation"),
            "{}",
            error.report()
        );

        mount(&["--make-shared"]);
        let id = bench.create(&pod, config).await;
        bench.engine().start_container(&id).await.expect("started");
        bench.sh(&id, "cd /data && touch mark && busybox mkdir in && mount -t tmpfs none in && touch in/inside").await;
        assert!(shared.join("mark").exists(), "{handler}");
        assert!(shared.join("in/inside").exists(), "{handler}");
        assert!(bench.sh(&id, "ls /dev").await.contains("null"));
        bench.sh(&id, "busybox umount /data/in").await;
        bench.engine().remove_pod(&pod).await.expect("removed");
        assert!(
            shared.join("mark").exists(),
            "what was mounted is not ours to delete"
        );
        sys::mount::unmount_detach(&shared).expect("unmounted");
        bench.expect_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_run_directory_keeps_nothing_from_stopping_and_going() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine.run_pod(bench.pod("full"), "").await.expect("a pod");
    let id = bench.run(&pod, "main", FOREVER).await;
    let run = bench.config.run_dir.clone();
    let done = Command::new("mount")
        .args(["-o", "remount,size=1m"])
        .arg(&run)
        .status()
        .expect("mount");
    assert!(done.success());
    let filled = Command::new("dd")
        .args([
            "if=/dev/zero",
            "bs=4k",
            &format!("of={}", run.join("fill").display()),
        ])
        .output()
        .expect("dd");
    assert!(!filled.status.success(), "the file system is full");
    let error = engine
        .run_pod(bench.pod("more"), "")
        .await
        .expect_err("full");
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{}", error.report());
    assert!(
        engine
            .create_container(&pod, shell("more", "true"), PodConfig::default())
            .await
            .is_err()
    );
    engine
        .stop_container(&id, Duration::from_millis(50))
        .await
        .expect("stopped");
    assert_eq!(engine.container_status(&id).expect("known").exit_code, 137);
    engine.stop_pod(&pod).await.expect("stopped");
    assert_eq!(
        engine.pod_status(&pod).expect("known").state,
        PodState::NotReady
    );
    engine.remove_pod(&pod).await.expect("removed");
    fs::remove_file(run.join("fill")).expect("removed");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cycles_leak_no_descriptor_mount_or_cgroup() {
    let mut bench = Bench::new("davit-oci").await;
    let engine = bench.engine().clone();
    let descriptors = || fs::read_dir("/proc/self/fd").expect("fds").count();
    let mut before = 0;
    for cycle in 0..20 {
        let pod = engine.run_pod(bench.pod("cycle"), "").await.expect("a pod");
        let id = bench.run(&pod, "main", FOREVER).await;
        assert_eq!(bench.sh(&id, "echo here").await, "here");
        engine
            .stop_container(&id, Duration::ZERO)
            .await
            .expect("stopped");
        engine.remove_pod(&pod).await.expect("removed");
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "cycle {cycle}");
        if cycle == 0 {
            before = descriptors();
        }
    }
    // Other tests run in this process, too: theirs come and go, a leak only grows.
    eventually("no descriptor is left", || descriptors() <= before + 8).await;
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_removed_keeps_its_layers_while_a_container_has_them() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("image"), "")
        .await
        .expect("a pod");
    let id = bench.run(&pod, "main", FOREVER).await;
    bench
        .engine()
        .remove_image(common::IMAGE)
        .await
        .expect("removed");
    assert!(
        bench
            .engine()
            .image_status(common::IMAGE)
            .await
            .expect("asked")
            .is_none()
    );
    assert_eq!(
        bench.sh(&id, "cat /etc/group | head -n1").await,
        "root:x:0:"
    );
    bench.restart().await;
    assert_eq!(bench.sh(&id, "id -u").await, "0", "over a restart, too");
    bench
        .engine()
        .remove_image(common::IMAGE)
        .await
        .expect("removed again");
    bench.expect_clean().await;
    bench
        .engine()
        .exec_sync(&id, vec!["x".into()], SOON)
        .await
        .expect_err("gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_too_late_for_its_pod_is_answered_and_frees_its_name() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("late"), "")
        .await
        .expect("a pod");
    let mut removal = Box::pin(engine.remove_pod(&pod));
    assert!(
        poll_once(removal.as_mut()).await.is_none(),
        "the pod's task has the command"
    );
    let late = engine.create_container(&pod, shell("main", FOREVER), PodConfig::default());
    let error = tokio::time::timeout(SOON, late)
        .await
        .expect("an answer")
        .expect_err("too late");
    assert!(
        matches!(error.kind(), Kind::NotFound | Kind::FailedPrecondition),
        "{}",
        error.report()
    );
    removal.await.expect("removed");
    let pod = engine
        .run_pod(bench.host_pod("late"), "")
        .await
        .expect("a pod");
    bench.create(&pod, shell("main", FOREVER)).await;
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_started_is_not_given_time_to_stop() {
    for handler in ["runc", "davit-oci"] {
        let mut bench = Bench::new(handler).await;
        let engine = bench.engine().clone();
        let pod = engine
            .run_pod(bench.host_pod("created"), "")
            .await
            .expect("a pod");
        let id = bench.create(&pod, shell("main", FOREVER)).await;
        let stop = engine.stop_container(&id, Duration::from_secs(600));
        tokio::time::timeout(SOON, stop)
            .await
            .expect("soon")
            .expect("stopped");
        let ended = engine.container_status(&id).expect("known");
        assert_eq!(
            (ended.state, ended.exit_code, ended.started_at),
            (ContainerState::Exited, 137, 0),
            "{handler}"
        );
        bench.expect_clean().await;
    }
}
