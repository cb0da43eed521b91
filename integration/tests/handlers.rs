//! The CRI server runs its pods with Debian's runc and crun as handlers as it does with davit-oci.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::leak::Snapshot;
use integration::node::{Cgroups, Node, Options};
use integration::{bin, wait};
use serde_json::{Value, json};

const IMAGE: &str = "davit.test/busybox:1";

/// A node with runc and crun as further handlers.
fn node_with_peers(cgroups: Cgroups) -> Node {
    let path = |name: &str| bin::genuine(name).unwrap_or_default().display().to_string();
    let (runc, crun) = (path("runc"), path("crun"));
    let config =
        format!("[runtimes.runc]\npath = \"{runc}\"\n\n[runtimes.crun]\npath = \"{crun}\"\n");
    let node = Node::start_with(Options {
        config,
        cgroups,
        ..Options::default()
    });
    node.import(&TestImage::busybox(), IMAGE);
    node
}

/// A pod with `handler` whose container logs, answers exec, and ends with its own code; then `more` in that pod.
fn walk(node: &Node, handler: &str, resources: &Value, more: impl Fn(&str, &Value)) {
    eprintln!("--- handler {handler:?} ---");
    let crictl = node.crictl();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("h{handler}{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let config = pod(&name, node.dir());
    let flags: &[&str] = if handler.is_empty() {
        &[]
    } else {
        &["--runtime", handler]
    };
    let id = crictl.run_pod_with(&config, flags);
    assert_eq!(
        crictl.pod_status(&id)["runtimeHandler"]
            .as_str()
            .unwrap_or_default(),
        handler
    );
    let script = "trap 'exit 9' TERM; echo from $HOSTNAME; while true; do sleep 0.05; done";
    let mut main = shell("main", IMAGE, script);
    main["linux"] = json!({"resources": resources});
    let container = crictl.create_and_start(&id, &main, &config);
    assert_eq!(
        crictl.ok(&["exec", "-s", &container, "echo", "inside"]),
        "inside"
    );
    // A signal before the trap is lost: process 1 of a namespace has no default action.
    let log = format!("from {name}");
    wait::until_true("the trap is set", Duration::from_secs(10), || {
        crictl.ok(&["logs", &container]) == log
    });
    assert_eq!(
        crictl.ok(&["stop", "--timeout", "10", &container]),
        container
    );
    let status = crictl.wait_for_exit(&container);
    assert_eq!(status["exitCode"], json!(9));
    assert_eq!(crictl.ok(&["logs", &container]), format!("from {name}"));
    more(&id, &config);
    assert!(crictl.ok(&["rmp", "-f", &id]).contains("Removed"));
}

/// What is left of mounts, processes and cgroups.
fn left(node: &Node, before: &Snapshot) -> Vec<String> {
    let kinds = ["mount", "process", "cgroup "];
    let since = node.scope().snapshot().since(before);
    since
        .into_iter()
        .filter(|line| kinds.iter().any(|kind| line.starts_with(kind)))
        .collect()
}

/// Walks each handler's pod with limits, one of which is broken.
fn with_limits(node: &Node, handlers: &[&str]) {
    walk(node, handlers[0], &json!({}), |_, _| ());
    let before = node.scope().snapshot();
    for handler in handlers {
        let limits = json!({"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512});
        walk(node, handler, &limits, |id, config| {
            let limits =
                json!({"memory_limit_in_bytes": 15 << 20, "memory_swap_limit_in_bytes": 15 << 20});
            let mut hungry = shell("hungry", IMAGE, "exec dd if=/dev/zero of=/dev/null bs=100M");
            hungry["linux"] = json!({"resources": limits});
            let crictl = node.crictl();
            let hungry = crictl.create_and_start(id, &hungry, config);
            let status = crictl.wait_for_exit(&hungry);
            assert_eq!(
                (&status["exitCode"], &status["reason"]),
                (&json!(137), &json!("OOMKilled")),
                "{status}"
            );
        });
    }
    assert_eq!(left(node, &before), Vec::<String>::new());
}

#[test]
fn pods_run_with_runc_as_handler_as_they_do_with_ours() {
    if !bin::skipped_for_want_of(&["crictl", "busybox", "runc"]) {
        with_limits(&node_with_peers(Cgroups::Machine), &["", "runc"]);
    }
}

#[test]
fn pods_run_with_crun_as_handler_as_they_do_with_ours() {
    if !bin::skipped_for_want_of(&["crictl", "busybox", "crun", "unshare"]) {
        with_limits(&node_with_peers(Cgroups::Legacy), &["", "crun"]);
    }
}

/// Without limits, where the hierarchy has no controllers. Debian's crun raises RLIMIT_MEMLOCK for its device
/// filter, which needs CAP_SYS_RESOURCE: it is not asked here.
#[test]
fn on_cgroup_v2_pods_run_with_ours_and_with_runc() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "runc", "unshare"]) {
        return;
    }
    let node = node_with_peers(Cgroups::Unified);
    walk(&node, "", &json!({}), |_, _| ());
    let before = node.scope().snapshot();
    for handler in ["", "runc"] {
        walk(&node, handler, &json!({}), |_, _| ());
    }
    assert_eq!(left(&node, &before), Vec::<String>::new());
}

#[test]
fn an_unknown_handler_is_refused_by_name_and_leaves_nothing() {
    if bin::skipped_for_want_of(&["crictl"]) {
        return;
    }
    let node = Node::start();
    let before = node.scope().snapshot();
    let crictl = node.crictl();
    let file = crictl.file("unknown.pod.json", &pod("unknown", node.dir()));
    let error = crictl.run(&["runp", "--runtime", "nosuch", &file]).err();
    assert!(error.contains("nosuch"), "{error}");
    assert_eq!(crictl.ok(&["pods", "-q"]), "");
    node.nothing_is_left_since(&before, "an unknown handler");
}
