//! Containers: from created to removed, with their output and their exit codes.

mod common;

use std::time::{Duration, Instant};

use common::{Bench, Cgroups, IMAGE, SOON, arranged, eventually, shell};
use engine::Kind;
use engine::model::{ContainerFilter, ContainerState, EnvVar, Mount, PodConfig, Resources};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_execs_stops_and_goes_without_a_trace() {
    whole_life("runc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_life_with_crun() {
    if arranged(Cgroups::V1, "the_same_life_with_crun") {
        whole_life("crun").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_life_on_cgroup_v2() {
    if arranged(Cgroups::V2, "the_same_life_on_cgroup_v2") {
        for handler in ["runc", "davit-oci"] {
            whole_life(handler).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_life_with_davit_oci() {
    whole_life("davit-oci").await;
}

async fn whole_life(handler: &str) {
    let mut bench = Bench::new(handler).await;
    let engine = bench.engine().clone();
    let pod = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let script =
        "trap 'echo bye; exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.02; done";
    let id = bench.create(&pod, shell("main", script)).await;
    let created = engine.container_status(&id).expect("known");
    assert_eq!(created.state, ContainerState::Created);
    assert!(created.image_id.starts_with("sha256:"));
    assert_eq!(created.started_at, 0);
    let error = engine
        .exec_sync(&id, vec!["/bin/true".into()], SOON)
        .await
        .expect_err("not running yet");
    assert_eq!(error.kind(), Kind::FailedPrecondition);

    engine.start_container(&id).await.expect("started");
    let running = engine
        .container_status(&id[..16])
        .expect("by the beginning of its id");
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.started_at >= running.created_at);
    assert_eq!(
        bench.sh(&id, "hostname; echo $HOSTNAME; pwd").await,
        "web\nweb\n/"
    );
    assert_eq!(
        engine.start_container(&id).await.expect_err("runs").kind(),
        Kind::FailedPrecondition
    );
    eventually("both lines are logged", || bench.log(&id).len() == 2).await;
    assert!(bench.log(&id).contains(&"stdout F out".to_owned()));
    assert!(bench.log(&id).contains(&"stderr F err".to_owned()));

    engine.stop_container(&id, SOON).await.expect("stopped");
    let ended = engine.container_status(&id).expect("known");
    assert_eq!(
        (ended.state, ended.exit_code, ended.reason.as_str()),
        (ContainerState::Exited, 7, "Error")
    );
    assert!(ended.finished_at >= ended.started_at);
    assert_eq!(
        bench.log(&id).last().map(String::as_str),
        Some("stdout F bye")
    );
    engine
        .stop_container(&id, SOON)
        .await
        .expect("stopped again");

    let image = engine
        .image_status(IMAGE)
        .await
        .expect("asked")
        .expect("there");
    assert_eq!(image.id, ended.image_id);
    engine.remove_container(&id).await.expect("removed");
    engine.remove_container(&id).await.expect("removed again");
    assert_eq!(
        engine.container_status(&id).expect_err("gone").kind(),
        Kind::NotFound
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn very_short_containers_end_with_their_codes() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("short"), "")
        .await
        .expect("a pod");
    for (code, reason) in [(0, "Completed"), (3, "Error"), (255, "Error")] {
        let id = bench
            .run(&pod, &format!("exit{code}"), &format!("exit {code}"))
            .await;
        let ended = bench.ended(&id).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (code, reason));
        assert!(
            ended.started_at > 0 && ended.finished_at >= ended.started_at,
            "{ended:?}"
        );
    }
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("none"), "")
        .await
        .expect("a pod");
    let mut config = shell("none", "");
    config.command = vec!["/bin/there-is-none".into()];
    // runc looks for the program at create, other runtimes at start.
    let outcome = match bench
        .engine()
        .create_container(&pod, config, PodConfig::default())
        .await
    {
        Err(error) => error,
        Ok(id) => {
            let error = bench
                .engine()
                .start_container(&id)
                .await
                .expect_err("no program");
            let status = bench.engine().container_status(&id).expect("known");
            assert_eq!(
                (status.state, status.exit_code, status.reason.as_str()),
                (ContainerState::Exited, 128, "StartError")
            );
            error
        }
    };
    assert!(
        outcome.report().contains("/bin/there-is-none"),
        "{}",
        outcome.report()
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_ignored_ends_in_a_kill_and_a_shorter_one_shortens_it() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("deaf"), "")
        .await
        .expect("a pod");
    let id = bench
        .run(
            &pod,
            "deaf",
            "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done",
        )
        .await;
    // A signal before the trap is lost: process 1 of a namespace has no default action.
    eventually("the trap is set", || {
        bench.log(&id).iter().any(|line| line.ends_with("ready"))
    })
    .await;
    let first = tokio::spawn({
        let (engine, id) = (engine.clone(), id.clone());
        async move { engine.stop_container(&id, Duration::from_secs(600)).await }
    });
    eventually("it was asked", || {
        bench.log(&id).iter().any(|line| line.ends_with("asked"))
    })
    .await;
    let begun = Instant::now();
    engine
        .stop_container(&id, Duration::from_millis(100))
        .await
        .expect("stopped");
    first
        .await
        .expect("task")
        .expect("the first caller hears of it, too");
    assert!(begun.elapsed() < SOON);
    let ended = engine.container_status(&id).expect("known");
    assert_eq!(
        (ended.exit_code, ended.state),
        (137, ContainerState::Exited)
    );
    let asked = bench
        .log(&id)
        .iter()
        .filter(|line| line.ends_with("asked"))
        .count();
    assert_eq!(asked, 1, "the signal is sent once");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_gives_output_code_and_a_time_limit_that_kills_the_tree() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("exec"), "")
        .await
        .expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let run = |script: &str, timeout| {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let (engine, id) = (engine.clone(), id.clone());
        async move { engine.exec_sync(&id, command, timeout).await }
    };
    let output = run("echo out; echo err >&2; exit 9", SOON)
        .await
        .expect("ran");
    assert_eq!(
        (
            output.stdout.as_slice(),
            output.stderr.as_slice(),
            output.exit_code
        ),
        (&b"out\n"[..], &b"err\n"[..], 9)
    );

    let begun = Instant::now();
    let error = run("sleep 4321 & sleep 4321", Duration::from_millis(300))
        .await
        .expect_err("too long");
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(begun.elapsed() < SOON);
    assert_eq!(
        bench.sh(&id, "ps | grep -c '[s]leep 4321' || true").await,
        "0",
        "the whole tree is dead"
    );

    let begun = Instant::now();
    let output = run("echo first; sleep 4322 & exit 0", Duration::from_secs(60))
        .await
        .expect("a child holds the pipe");
    assert_eq!(output.stdout, b"first\n");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "nobody waits for what was left behind"
    );

    let output = run("head -c 20000000 /dev/zero", SOON)
        .await
        .expect("much output");
    assert_eq!((output.stdout.len(), output.exit_code), (16 << 20, 0));

    let error = engine
        .exec_sync(&id, vec!["/bin/there-is-none".into()], SOON)
        .await
        .expect_err("no program");
    assert!(
        error.report().contains("there-is-none"),
        "{}",
        error.report()
    );
    assert_eq!(
        engine
            .exec_sync("nothing", vec!["x".into()], SOON)
            .await
            .expect_err("unknown")
            .kind(),
        Kind::NotFound
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_read_only_mount_is_read_only_below_its_top_where_the_handler_says_so() {
    for handler in ["runc", "davit-oci"] {
        let mut bench = Bench::new(handler).await;
        let handlers = bench.engine().handlers();
        assert_eq!(handlers[0].name, "", "the default comes first");
        let known = handlers
            .iter()
            .find(|one| one.name == handler)
            .expect("listed");
        assert_eq!(handlers[0].features, known.features);
        assert!(known.features.recursive_read_only_mounts, "{handler}");

        let top = bench.path().join("top");
        std::fs::create_dir_all(top.join("below")).expect("directories");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(top.join("below"))
            .status();
        assert!(mounted.expect("mount").success());
        let pod = bench
            .engine()
            .run_pod(bench.host_pod("rro"), "")
            .await
            .expect("a pod");
        let mut config = shell("rro", "while :; do sleep 1; done");
        let mount = |path: &str, recursive_read_only| Mount {
            container_path: path.into(),
            host_path: top.to_string_lossy().into_owned(),
            readonly: true,
            recursive_read_only,
            ..Mount::default()
        };
        config.mounts = vec![mount("/rro", true), mount("/ro", false)];
        let id = bench.create(&pod, config).await;
        bench.engine().start_container(&id).await.expect("started");
        let script = "for path in /ro /rro; do touch $path/x 2>/dev/null || echo -n no; touch $path/below/x 2>/dev/null && echo -n yes; done";
        assert_eq!(
            bench.sh(&id, &format!("{script}; true")).await,
            "noyesno",
            "{handler}"
        );
        bench.engine().remove_pod(&pod).await.expect("removed");
        sys::mount::unmount_detach(&top.join("below")).expect("unmounted");
        bench.expect_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_all_end() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("storm"), "")
        .await
        .expect("a pod");
    let id = bench.run(&pod, "main", "while :; do sleep 1; done").await;
    let storm: Vec<_> = (0..16)
        .map(|number| {
            let (engine, id) = (engine.clone(), id.clone());
            let command = ["/bin/sh", "-c", &format!("echo {number}; exit {number}")]
                .map(str::to_owned)
                .to_vec();
            tokio::spawn(async move { engine.exec_sync(&id, command, SOON).await })
        })
        .collect();
    for (number, one) in storm.into_iter().enumerate() {
        let output = one.await.expect("task").expect("ran");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{number}\n")
        );
        assert_eq!(output.exit_code, i32::try_from(number).expect("small"));
    }
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_user_directory_and_mounts_are_what_was_asked_for() {
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.pod("spec"), "")
        .await
        .expect("a pod");
    let data = bench.path().join("data");
    let mut config = shell("main", "while :; do sleep 1; done");
    let env = |key: &str, value: &str| EnvVar {
        key: key.into(),
        value: value.as_bytes().to_vec(),
    };
    config.envs = vec![env("A", "1"), env("FROM_IMAGE", "no"), env("A", "2")];
    config.security.run_as_username = "web".into();
    config.security.supplemental_groups = vec![777];
    config.security.no_new_privs = true;
    config.working_dir = "/srv/made/here".into();
    config.mounts = vec![
        Mount {
            container_path: "/data".into(),
            host_path: data.to_string_lossy().into_owned(),
            ..Mount::default()
        },
        Mount {
            container_path: "/etc/passwd".into(),
            host_path: "/dev/null".into(),
            readonly: true,
            ..Mount::default()
        },
    ];
    let id = bench.create(&pod, config).await;
    bench.engine().start_container(&id).await.expect("started");
    assert!(data.is_dir(), "a missing host path is made");
    assert_eq!(
        bench.sh(&id, "echo $A $FROM_IMAGE $HOME $PATH").await,
        "2 no /srv /bin"
    );
    assert_eq!(
        bench.sh(&id, "id -u; id -g; id -G; pwd").await,
        "1000\n1001\n1001 50 777\n/srv/made/here"
    );
    assert_eq!(
        bench
            .sh(
                &id,
                "head -n1 /etc/resolv.conf >/dev/null; cat /etc/hostname"
            )
            .await,
        "spec"
    );
    assert_eq!(
        bench.sh(&id, "cat /etc/hosts | head -n1").await,
        "127.0.0.1\tlocalhost"
    );
    assert!(
        bench
            .sh(&id, "cat /proc/self/status")
            .await
            .contains("NoNewPrivs:\t1")
    );
    assert!(
        bench
            .sh(&id, "mount | head -n 99")
            .await
            .contains("/dev/shm type tmpfs")
    );
    let status = bench.engine().container_status(&id).expect("known");
    let user = status.user.expect("a user");
    assert_eq!(
        (user.uid, user.gid, user.supplemental_groups),
        (1000, 1001, vec![1001, 50, 777])
    );
    assert_eq!(
        status.info["runtimeSpec"]["process"]["cwd"],
        "/srv/made/here"
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_what_the_pod_shares() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let mut config = bench.pod("shared");
    config.security.namespaces.pid = engine::model::NamespaceMode::Pod;
    config
        .sysctls
        .insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
    let pod = engine.run_pod(config, "").await.expect("a pod");
    let shared = |name: &str, script: &str| {
        let mut config = shell(name, script);
        config.security.namespaces.pid = engine::model::NamespaceMode::Pod;
        config
    };
    let one = bench
        .create(
            &pod,
            shared(
                "one",
                "echo hi > /dev/shm/note; N=4567; sleep $N & while :; do sleep 1; done",
            ),
        )
        .await;
    engine.start_container(&one).await.expect("started");
    let two = bench
        .create(&pod, shared("two", "while :; do sleep 1; done"))
        .await;
    engine.start_container(&two).await.expect("started");
    assert_eq!(bench.sh(&two, "cat /dev/shm/note").await, "hi");
    assert_eq!(
        bench
            .sh(&two, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
            .await,
        "77"
    );
    assert_eq!(bench.sh(&two, "ps | grep -c '[s]leep 4567'").await, "1");
    let ip = engine.pod_status(&pod).expect("known").ip;
    assert!(bench.sh(&two, "ip addr show eth0").await.contains(&ip));

    // Its first process is not init of that namespace: what it left behind must go with it.
    engine
        .stop_container(&one, Duration::ZERO)
        .await
        .expect("stopped");
    let (reader, id) = (engine.clone(), two.clone());
    let gone = async {
        loop {
            let command = ["/bin/sh", "-c", "ps | grep -c '[s]leep 4567' || true"]
                .map(str::to_owned)
                .to_vec();
            if reader
                .exec_sync(&id, command, SOON)
                .await
                .expect("ran")
                .stdout
                == b"0\n"
            {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, gone)
        .await
        .expect("nothing of the first container runs");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_change_and_too_much_memory_is_an_oom_kill() {
    let mut bench = Bench::new("runc").await;
    let engine = bench.engine().clone();
    let pod = engine
        .run_pod(bench.host_pod("limits"), "")
        .await
        .expect("a pod");
    let mut config = shell("main", "while :; do sleep 1; done");
    config.resources = Some(Resources {
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        oom_score_adj: -998,
        ..Resources::default()
    });
    let id = bench.create(&pod, config).await;
    engine.start_container(&id).await.expect("started");
    let change = Resources {
        memory_limit_in_bytes: 48 << 20,
        cpu_quota: 20_000,
        ..Resources::default()
    };
    engine.update_container(&id, change).await.expect("changed");
    let now = engine
        .container_status(&id)
        .expect("known")
        .resources
        .expect("limits");
    assert_eq!(
        (now.memory_limit_in_bytes, now.cpu_quota, now.cpu_shares),
        (48 << 20, 20_000, 512)
    );
    let too_small = Resources {
        memory_limit_in_bytes: 4096,
        ..Resources::default()
    };
    let error = engine
        .update_container(&id, too_small)
        .await
        .expect_err("below its usage");
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.report().contains("4096"), "{}", error.report());
    let kept = engine
        .container_status(&id)
        .expect("known")
        .resources
        .expect("limits");
    assert_eq!(kept.memory_limit_in_bytes, 48 << 20);

    let mut hungry = shell("hungry", "dd if=/dev/zero of=/dev/null bs=60M count=2");
    hungry.resources = Some(Resources {
        memory_limit_in_bytes: 15 << 20,
        memory_swap_limit_in_bytes: 15 << 20,
        ..Resources::default()
    });
    hungry.command = [
        "/bin/dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=60M",
        "count=2",
    ]
    .map(str::to_owned)
    .to_vec();
    let id = bench.create(&pod, hungry).await;
    engine.start_container(&id).await.expect("started");
    let ended = bench.ended(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_yet_names_its_field_and_leaves_nothing() {
    use engine::model::{ContainerConfig, NamespaceOptions, ProfileKind, SecurityProfile};
    let mut bench = Bench::new("runc").await;
    let pod = bench
        .engine()
        .run_pod(bench.host_pod("bad"), "")
        .await
        .expect("a pod");
    let before = bench.leftovers();
    type Change = Box<dyn Fn(&mut ContainerConfig)>;
    let table: [(&str, Kind, Change); 9] = [
        (
            "there-is-none:1",
            Kind::NotFound,
            Box::new(|c| c.image.image = "there-is-none:1".into()),
        ),
        (
            "linux.security_context.seccomp",
            Kind::InvalidArgument,
            Box::new(|c| {
                c.security.seccomp = Some(SecurityProfile {
                    kind: ProfileKind::Localhost,
                    localhost_ref: "/no/such/profile.json".into(),
                });
            }),
        ),
        (
            "AppArmor is not enabled",
            Kind::InvalidArgument,
            Box::new(|c| {
                c.security.apparmor = Some(SecurityProfile {
                    kind: ProfileKind::Localhost,
                    localhost_ref: "x".into(),
                });
            }),
        ),
        (
            "userns_options",
            Kind::InvalidArgument,
            Box::new(|c| {
                c.security.namespaces = NamespaceOptions {
                    userns: Some(Default::default()),
                    ..Default::default()
                };
            }),
        ),
        (
            "linux.security_context.privileged",
            Kind::InvalidArgument,
            Box::new(|c| c.security.privileged = true),
        ),
        (
            "run_as_group",
            Kind::InvalidArgument,
            Box::new(|c| c.security.run_as_group = Some(5)),
        ),
        (
            "nobody-here",
            Kind::InvalidArgument,
            Box::new(|c| c.security.run_as_username = "nobody-here".into()),
        ),
        (
            "stop_signal",
            Kind::InvalidArgument,
            Box::new(|c| c.stop_signal = Some("SIGNONE".into())),
        ),
        (
            "add_capabilities",
            Kind::InvalidArgument,
            Box::new(|c| {
                c.security.capabilities = Some(engine::model::Capabilities {
                    add: vec!["FLY".into()],
                    ..Default::default()
                });
            }),
        ),
    ];
    for (words, kind, change) in table {
        let mut config = shell("bad", "true");
        change(&mut config);
        let error = bench
            .engine()
            .create_container(&pod, config, PodConfig::default())
            .await
            .expect_err(words);
        assert_eq!(error.kind(), kind, "{words}: {}", error.report());
        assert!(
            error.report().contains(words),
            "{words}: {}",
            error.report()
        );
        assert_eq!(bench.leftovers(), before, "{words}");
    }
    assert!(
        bench
            .engine()
            .list_containers(&ContainerFilter::default())
            .is_empty()
    );
    bench.expect_clean().await;
}
