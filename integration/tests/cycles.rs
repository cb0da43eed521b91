//! Two hundred cycles of run, exec, stop and remove leave nothing: no mount, namespace, link, rule, cgroup,
//! process, file or descriptor.
#![forbid(unsafe_code)]

use std::time::Duration;

use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::leak::Snapshot;
use integration::node::Node;
use integration::{bin, wait};

const IMAGE: &str = "davit.test/busybox:1";
const CYCLES: usize = 200;
const AT_ONCE: usize = 4;

#[test]
fn two_hundred_cycles_of_run_exec_stop_and_remove_leave_nothing() {
    if bin::skipped_for_want_of(&["crictl", "busybox", "nft"]) {
        return;
    }
    let node = Node::start();
    node.import(&TestImage::busybox(), IMAGE);
    // The first pods make what stays by design: the bridge, its rules, the daemon's idle connections.
    run_cycles(&node, AT_ONCE, "warm");
    let before = settled(&node);
    run_cycles(&node, CYCLES, "cycle");
    wait::until(
        "the leak check finds nothing",
        Duration::from_secs(30),
        || {
            let left = node.scope().snapshot().since(&before);
            if left.is_empty() {
                return Some(());
            }
            eprintln!("still there: {left:#?}");
            None
        },
    );
}

/// Runs `count` cycles, a few at a time as a busy node does.
fn run_cycles(node: &Node, count: usize, name: &str) {
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            scope.spawn(move || {
                for round in (worker..count).step_by(AT_ONCE) {
                    cycle(node, &format!("{name}{round}"));
                }
            });
        }
    });
}

fn cycle(node: &Node, name: &str) {
    let crictl = node.crictl();
    let config = pod(name, node.dir());
    let id = crictl.run_pod(&config);
    let container = crictl.create_and_start(&id, &shell("main", IMAGE, "sleep 1000"), &config);
    assert_eq!(crictl.ok(&["exec", "-s", &container, "echo", name]), name);
    assert_eq!(
        crictl.ok(&["stop", "--timeout", "0", &container]),
        container
    );
    assert_eq!(crictl.ok(&["rm", &container]), container);
    assert!(crictl.ok(&["stopp", &id]).contains("Stopped"));
    assert!(crictl.ok(&["rmp", &id]).contains("Removed"));
}

/// The snapshot once two readings agree: the kernel removes links a moment after their namespace.
fn settled(node: &Node) -> Snapshot {
    let mut last = node.scope().snapshot();
    wait::until("the node is quiet", Duration::from_secs(30), || {
        let now = node.scope().snapshot();
        let same = (now == last).then(|| now.clone());
        last = now;
        same
    })
}
