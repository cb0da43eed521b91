//! critest on davit-cri, with each runtime handler.
//!
//! `DAVIT_TEST_FOCUS` runs only the specs that match, `DAVIT_TEST_AT_ONCE` is how many run at a time (1: one after the
//! other), `DAVIT_TEST_FLAGS` are further flags of critest, such as `-websocket-exec`.

use integration::bin;
use integration::host::Cgroups;
use integration::node::{Node, Options};
use integration::registry::Registry;

use super::known::Known;
use super::suite::{Suite, count};
use super::{focus, images};

/// Most of the time a spec waits for a state.
const AT_ONCE: u32 = 4;

/// A node with runc and crun as further handlers, which takes all images from `registry`.
fn node(registry: &Registry) -> Node {
    let mut config = String::new();
    for name in ["runc", "crun"] {
        let path = bin::genuine(name).unwrap();
        config += &format!("[runtimes.{name}]\npath = {:?}\n", path.display());
    }
    let mut node = Node::prepare(Options {
        config,
        ..Options::default()
    });
    let file = node.path("net.d/10-test.conflist");
    let mut network: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let host_ports = serde_json::json!({"type": "portmap", "capabilities": {"portMappings": true}});
    network["plugins"].as_array_mut().unwrap().push(host_ports);
    std::fs::write(&file, network.to_string()).unwrap();
    for host in images::HOSTS {
        let dir = node.path("hosts").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        let url = format!("http://{}", registry.host());
        let hosts = format!(
            "server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    }
    map_host_ports(&node);
    node.spawn_daemon();
    node.wait_until_ready();
    node
}

/// Adds the plugin for ports of the host to the node's network.
fn map_host_ports(node: &Node) {
    let path = node.path("net.d/10-test.conflist");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut network: serde_json::Value = serde_json::from_str(&text).unwrap();
    let portmap = serde_json::json!({"type": "portmap", "capabilities": {"portMappings": true}});
    network["plugins"].as_array_mut().unwrap().push(portmap);
    std::fs::write(path, network.to_string()).unwrap();
}

/// Runs critest and compares with the list of known failures.
fn critest(handler: &str, cgroups: Cgroups) {
    if bin::skipped_for_want_of(&[
        "critest",
        "ginkgo",
        "crictl",
        "runc",
        "crun",
        "nginx",
        "busybox-dynamic",
        "docker-registry",
        "skopeo",
    ]) {
        return;
    }
    let flags = std::env::var("DAVIT_TEST_FLAGS").unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let at_once = std::env::var("DAVIT_TEST_AT_ONCE").map_or(AT_ONCE, |text| text.parse().unwrap());
    let suite = Suite {
        handler,
        focus: &focus(),
        at_once: (at_once > 1).then_some(at_once),
        flags: &flags,
        ..Suite::default()
    };
    let registry = Registry::start();
    images::push(&registry);
    // critest and the server see the same mounts: specs mount something and want it in their containers.
    let specs = cgroups.run(|| {
        let node = node(&registry);
        suite.run(&node.socket(), || node.log())
    });
    println!(
        "davit-cri with handler {handler:?}: {} passed, {} skipped of {}",
        count(&specs, "passed"),
        count(&specs, "skipped"),
        specs.len()
    );
    let name = if handler.is_empty() {
        "davit-oci"
    } else {
        handler
    };
    let wrong = Known::read(include_str!("known.txt")).compare(name, &specs);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn critest_passes_on_davit_cri_with_davit_oci() {
    critest("", Cgroups::AsIs);
}

#[test]
fn critest_passes_on_davit_cri_with_runc() {
    critest("runc", Cgroups::AsIs);
}

/// Debian's crun refuses hybrid hosts: it sees the v1 hierarchies alone.
#[test]
fn critest_passes_on_davit_cri_with_crun() {
    critest("crun", Cgroups::V1);
}
