//! `kill -9` of the daemon at any moment loses no pod, no log line and no exit code, and leaves nothing behind.
#![forbid(unsafe_code)]

use std::time::Duration;

use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::leak::Snapshot;
use integration::node::Node;
use integration::registry::Registry;
use integration::{bin, wait};
use serde_json::json;

const IMAGE: &str = "davit.test/busybox:1";

#[test]
fn pods_run_log_and_exit_while_the_daemon_is_dead_and_nothing_is_lost() {
    if bin::skipped_for_want_of(&["crictl", "busybox"]) {
        return;
    }
    let mut node = Node::start();
    node.import(&TestImage::busybox(), IMAGE);
    let crictl = node.crictl();
    let config = pod("survivor", node.dir());
    let pod_id = crictl.run_pod(&config);
    let gate = node.path("gate");
    std::fs::create_dir_all(&gate).expect("the gate's directory");
    let with_gate = |mut container: serde_json::Value| {
        container["mounts"] = json!([{"host_path": gate, "container_path": "/gate"}]);
        container
    };
    // It writes half of its lines before the daemon dies and half while it is dead.
    let script =
        "seq 1 50000; while [ ! -e /gate/go ]; do sleep 0.02; done; seq 50001 100000; exit 5";
    let writer =
        crictl.create_and_start(&pod_id, &with_gate(shell("writer", IMAGE, script)), &config);
    let sleeper = crictl.create_and_start(&pod_id, &shell("sleeper", IMAGE, "sleep 1000"), &config);
    let script =
        "while [ ! -e /gate/go ]; do sleep 0.02; done; exec dd if=/dev/zero of=/dev/null bs=100M";
    let mut hungry = with_gate(shell("hungry", IMAGE, script));
    hungry["linux"] = json!({"resources": {"memory_limit_in_bytes": 15 << 20, "memory_swap_limit_in_bytes": 15 << 20}});
    let hungry = crictl.create_and_start(&pod_id, &hungry, &config);
    let before = crictl.pod_status(&pod_id);

    node.kill();
    std::fs::write(gate.join("go"), "").expect("the gate opens");
    let log = node.path("logs/survivor/writer.log");
    wait::until_true(
        "the last line is logged without a daemon",
        Duration::from_secs(60),
        || std::fs::read_to_string(&log).is_ok_and(|text| text.trim_end().ends_with(" 100000")),
    );
    node.restart();

    let after = crictl.pod_status(&pod_id);
    assert_eq!(after, before, "the pod is the same");
    let status = crictl.wait_for_exit(&writer);
    assert_eq!(
        (&status["exitCode"], &status["reason"]),
        (&json!(5), &json!("Error")),
        "{status}"
    );
    let status = crictl.wait_for_exit(&hungry);
    assert_eq!(
        (&status["exitCode"], &status["reason"]),
        (&json!(137), &json!("OOMKilled")),
        "{status}"
    );
    assert_eq!(crictl.status(&sleeper)["state"], "CONTAINER_RUNNING");
    assert_eq!(
        crictl.ok(&["exec", "-s", &sleeper, "echo", "alive"]),
        "alive"
    );

    let text = std::fs::read_to_string(&log).expect("the log");
    let mut expected = 1..=100_000;
    for line in text.lines() {
        let mut words = line.splitn(4, ' ').skip(1);
        assert_eq!(
            (words.next(), words.next()),
            (Some("stdout"), Some("F")),
            "{line}"
        );
        let number: u32 = words
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        assert_eq!(
            Some(number),
            expected.next(),
            "lines are whole and in order"
        );
    }
    assert_eq!(expected.next(), None, "every line is there");
    assert_eq!(crictl.ok(&["stop", "--timeout", "1", &sleeper]), sleeper);
    assert!(crictl.ok(&["rmp", "-f", &pod_id]).contains("Removed"));
}

/// The fail points of one operation, in its order.
struct Steps {
    operation: &'static str,
    points: &'static [&'static str],
}

const RUN_POD: Steps = Steps {
    operation: "RunPodSandbox",
    points: &[
        "run_pod.directory",
        "run_pod.intent",
        "run_pod.cgroup",
        "run_pod.shim",
        "run_pod.network",
        "run_pod.files",
        "run_pod.ready",
    ],
};
const CREATE: Steps = Steps {
    operation: "CreateContainer",
    points: &[
        "create_container.directory",
        "create_container.intent",
        "create_container.rootfs",
        "create_container.config",
        "create_container.runtime",
        "create_container.created",
    ],
};
const PULL: Steps = Steps {
    operation: "PullImage",
    points: &[
        "pull.resolved",
        "pull.manifest",
        "pull.layer.downloaded",
        "pull.layer.unpacked",
        "pull.synced",
        "pull.renamed",
        "pull.recorded",
    ],
};

#[test]
fn a_daemon_killed_in_the_middle_of_run_pod_sandbox_leaves_nothing_after_the_next_start() {
    each_fail_point(&RUN_POD, |node, _, _| {
        let file = node
            .crictl()
            .file("crash.pod.json", &pod("crash", node.dir()));
        let _killed = node.crictl().run(&["runp", &file]);
    });
}

#[test]
fn a_daemon_killed_in_the_middle_of_create_container_leaves_nothing_after_the_next_start() {
    each_fail_point(&CREATE, |node, _, _| {
        let config = pod("crash", node.dir());
        // The pod of the first try is still there: only its container was half-made.
        let id = match node.crictl().ok(&["pods", "-q", "--name", "crash"]) {
            none if none.is_empty() => node.crictl().run_pod(&config),
            id => id,
        };
        let _killed = node
            .crictl()
            .try_create(&id, &shell("main", IMAGE, "sleep 1000"), &config);
    });
}

#[test]
fn a_daemon_killed_in_the_middle_of_pull_image_leaves_nothing_after_the_next_start() {
    each_fail_point(&PULL, |node, registry, point| {
        let image = TestImage::busybox().with_files(&[("name", point.as_bytes())]);
        let reference = registry.push(&image, "davit/crash:1");
        let _killed = node.crictl().run(&["pull", &reference]);
    });
}

#[test]
fn a_step_that_fails_undoes_the_steps_before_it_and_the_daemon_lives() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "nft"]) {
        return;
    }
    for point in RUN_POD.points.iter().chain(CREATE.points) {
        eprintln!("--- {point} fails ---");
        let (mut node, before) = warm_node();
        node.kill();
        node.start_with_fail_points(&format!("{point}=error"));
        let crictl = node.crictl();
        let config = pod("crash", node.dir());
        let file = crictl.file("crash.pod.json", &config);
        let made = crictl.run(&["runp", &file]);
        let failed = if made.code == 0 {
            let id = made.ok();
            let failed = crictl
                .try_create(&id, &shell("main", IMAGE, "sleep 1000"), &config)
                .err();
            assert_eq!(crictl.ok(&["ps", "-a", "-q"]), "", "{point}");
            assert!(crictl.ok(&["rmp", "-f", &id]).contains("Removed"));
            failed
        } else {
            made.err()
        };
        assert!(
            failed.contains(point),
            "the error names what failed: {failed}"
        );
        assert!(node.daemon_is_alive(), "{point}");
        assert_eq!(crictl.ok(&["pods", "-q"]), "", "{point}");
        node.nothing_is_left_since(&before, point);
    }
}

/// A node whose first pod has come and gone: the bridge and the rules of the network stay for the next pod.
fn warm_node() -> (Node, Snapshot) {
    let mut node = Node::start();
    node.import(&TestImage::busybox(), IMAGE);
    let warm = node.crictl().run_pod(&pod("warm", node.dir()));
    let _removed = node.crictl().ok(&["rmp", "-f", &warm]);
    node.restart();
    let before = node.scope().snapshot();
    (node, before)
}

/// Kills a daemon at each fail point in turn, starts the next one, and looks for what the dead one left.
fn each_fail_point(steps: &Steps, act: impl Fn(&Node, &Registry, &str)) {
    if bin::skipped_for_want_of(&["crictl", "busybox", "docker-registry", "skopeo", "nft"]) {
        return;
    }
    let registry = Registry::start();
    for point in steps.points {
        eprintln!("--- {} killed at {point} ---", steps.operation);
        let (mut node, before) = warm_node();
        node.kill();
        node.start_with_fail_points(&format!("{point}=kill"));
        act(&node, &registry, point);
        node.wait_until_dead();
        node.restart();

        let crictl = node.crictl();
        let ready = crictl.ok(&["pods", "-q", "--state", "Ready"]);
        if steps.operation != "CreateContainer" && !point.ends_with(".ready") {
            assert_eq!(ready, "", "{point}: a half-made pod is not ready");
        }
        assert_eq!(crictl.ok(&["ps", "-a", "-q", "--state", "Running"]), "");
        // The client repeats the same request, as a kubelet does: it works now.
        act(&node, &registry, point);
        let _all = crictl.remove_all().ok();
        assert_eq!(crictl.ok(&["pods", "-q"]), "");
        node.nothing_is_left_since(&before, point);
    }
}
