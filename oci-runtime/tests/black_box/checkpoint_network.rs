//! `checkpoint` and `restore` of a container's own network, and of the connections in it.
use std::path::Path;

use crate::checkpoint::{bundle, counter, restore, runtimes};
use crate::harness::{Container, eventually};

/// criu locks the network while it saves connections.
fn can_lock_networks() -> bool {
    let found = ["/usr/sbin/ip6tables-restore", "/sbin/ip6tables-restore"]
        .iter()
        .any(|path| Path::new(path).exists());
    if !found {
        assert!(
            std::env::var_os("MUST_WORK").is_none(),
            "needs iptables, by which criu locks networks"
        );
        eprintln!("skipped: needs iptables, by which criu locks networks");
    }
    found
}

/// One process sends numbers to another over TCP, and that one writes the last into a file.
const CONNECTED: &str = "nc -l -p 5000 127.0.0.1 > /got & sleep 1; \
    n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done | nc 127.0.0.1 5000";

fn received(container: &Container) -> u64 {
    std::fs::metadata(container.inside("/got")).map_or(0, |got| got.len())
}

fn more_is_received(container: &Container, last: u64) {
    eventually("the connection carries more", || received(container) > last);
}

#[test]
fn connections_are_refused_without_the_flag_and_go_on_with_it() {
    for runtime in runtimes() {
        if !can_lock_networks() {
            return;
        }
        let container = bundle(runtime, CONNECTED);
        container.start();
        more_is_received(&container, 0);
        let (code, _, error) =
            container.call(&["checkpoint", "--image-path", "refused", &container.id]);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("tcp-established"), "{error}");
        assert_eq!(container.status(), "running");
        more_is_received(&container, received(&container));
        container.must(&[
            "checkpoint",
            "--tcp-established",
            "--image-path",
            "images",
            &container.id,
        ]);
        let last = received(&container);
        container.must(&[
            "restore",
            "--detach",
            "--tcp-established",
            "--image-path",
            "images",
            &container.id,
        ]);
        more_is_received(&container, last);
    }
}

#[test]
fn a_network_of_its_own_comes_back_with_its_loopback() {
    for runtime in runtimes() {
        if !can_lock_networks() {
            return;
        }
        let container = counter(runtime);
        let show = "cat /sys/class/net/lo/operstate; ip -4 -o addr show lo | grep -c 127.0.0.1/8";
        let before = container.must(&["exec", &container.id, "sh", "-c", show]);
        container.must(&["checkpoint", "--image-path", "images", &container.id]);
        restore(&container, "images");
        let after = container.must(&["exec", &container.id, "sh", "-c", show]);
        assert_eq!(before, after);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = std::fs::read_link(format!("/proc/{}/ns/net", container.pid())).unwrap();
        assert_ne!(own, theirs);
    }
}
