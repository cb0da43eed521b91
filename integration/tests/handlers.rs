//! The CRI server runs its pods with Debian's runc and crun as handlers as it does with davit-oci.
#![forbid(unsafe_code)]

use integration::bin;
use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::node::{Node, Options};
use serde_json::json;

const IMAGE: &str = "davit.test/busybox:1";

#[test]
fn pods_run_with_runc_and_crun_as_handlers_as_they_do_with_ours() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "runc", "crun"]) {
        return;
    }
    let path = |name: &str| bin::genuine(name).unwrap_or_default().display().to_string();
    let config = format!(
        "[runtimes.runc]\npath = \"{}\"\n\n[runtimes.crun]\npath = \"{}\"\n",
        path("runc"),
        path("crun")
    );
    let node = Node::start_with(Options {
        config,
        ..Options::default()
    });
    node.import(&TestImage::busybox(), IMAGE);
    let crictl = node.crictl();
    let before = node.scope().snapshot();
    for handler in ["", "runc", "crun"] {
        eprintln!("--- handler {handler:?} ---");
        let config = pod(&format!("h{handler}"), node.dir());
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
        let mut main = shell(
            "main",
            IMAGE,
            "echo from $HOSTNAME; trap 'exit 9' TERM; while true; do sleep 0.05; done",
        );
        main["linux"] =
            json!({"resources": {"memory_limit_in_bytes": 64 << 20, "cpu_shares": 512}});
        let container = crictl.create_and_start(&id, &main, &config);
        assert_eq!(
            crictl.ok(&["exec", "-s", &container, "echo", "inside"]),
            "inside"
        );
        assert_eq!(
            crictl.ok(&["stop", "--timeout", "10", &container]),
            container
        );
        let status = crictl.wait_for_exit(&container);
        assert_eq!(status["exitCode"], json!(9));
        assert_eq!(crictl.ok(&["logs", &container]), format!("from h{handler}"));

        let limits =
            json!({"memory_limit_in_bytes": 15 << 20, "memory_swap_limit_in_bytes": 15 << 20});
        let mut hungry = shell("hungry", IMAGE, "exec dd if=/dev/zero of=/dev/null bs=100M");
        hungry["linux"] = json!({"resources": limits});
        let hungry = crictl.create_and_start(&id, &hungry, &config);
        let status = crictl.wait_for_exit(&hungry);
        assert_eq!(
            (&status["exitCode"], &status["reason"]),
            (&json!(137), &json!("OOMKilled")),
            "{status}"
        );
        assert!(crictl.ok(&["rmp", "-f", &id]).contains("Removed"));
    }
    let left: Vec<String> = node
        .scope()
        .snapshot()
        .since(&before)
        .into_iter()
        .filter(|line| {
            line.starts_with("mount") || line.starts_with("process") || line.starts_with("cgroup ")
        })
        .collect();
    assert_eq!(left, Vec::<String>::new());
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
    let left: Vec<String> = node
        .scope()
        .snapshot()
        .since(&before)
        .into_iter()
        .filter(|line| !line.starts_with("descriptors"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}
