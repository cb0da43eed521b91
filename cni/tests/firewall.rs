//! A host that forwards nothing unless told so: containers reach the outside and nothing else reaches them.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use cni::{Attachment, BuiltinOptions, Executor, NetworkList};
use serde_json::json;
use support::*;

fn nft(text: &str) {
    let done = Command::new("nft").arg(text).status().unwrap();
    assert!(done.success(), "nft {text}");
}

/// A host that drops what it forwards, as an engine that was started once leaves it, and a machine beside it that
/// knows the way to the pods.
fn strict(world: &World, subnet: &str) -> Namespace {
    let outside = Namespace::new("out");
    world.host.run(|| {
        let path = outside.path.to_str().unwrap();
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", path]);
        ip(&["addr", "add", "192.0.2.1/24", "dev", "up0"]);
        ip(&["link", "set", "up0", "up"]);
        nft("add table ip filter");
        nft("add chain ip filter FORWARD { type filter hook forward priority filter ; policy drop ; }");
    });
    outside.run(|| {
        ip(&["addr", "add", "192.0.2.2/24", "dev", "up0"]);
        ip(&["link", "set", "up0", "up"]);
        ip(&["route", "add", subnet, "via", "192.0.2.1"]);
    });
    outside
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(700)).is_err()
}

/// What must hold on a strict host, whichever plugin sees to it.
fn holds(
    world: &World,
    outside: &Namespace,
    executor: &Executor,
    network: &NetworkList,
    pod: Attachment,
    address: &str,
) {
    let echo = inside(&pod, || Echo::listen("0.0.0.0".parse().unwrap()));
    let port = echo.address.port();
    let pod = pod.with_capability(
        "portMappings",
        json!([{"hostPort": 12000, "containerPort": port, "protocol": "tcp"}]),
    );
    world.host.run(|| executor.add(network, &pod)).unwrap();
    world.host.run(|| executor.check(network, &pod)).unwrap();
    let there = outside.run(|| Echo::listen("192.0.2.2".parse().unwrap()));
    assert_eq!(
        inside(&pod, || seen_from(there.address)),
        "192.0.2.1",
        "out"
    );
    assert_eq!(
        outside.run(|| seen_from(at("192.0.2.1", 12000))),
        "192.0.2.2",
        "in by a mapped port"
    );
    assert!(
        outside.run(|| refused(at(address, port))),
        "nothing else comes in, as the policy has it"
    );
}

#[test]
fn the_builtin_network_works_on_a_host_that_drops_what_it_forwards_and_leaves_it_as_it_was() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = strict(&world, "10.205.1.0/24");
    let before = world.host.run(nft_ruleset);
    let options = BuiltinOptions {
        name: "strict".to_owned(),
        bridge_name: "br-strict".to_owned(),
        subnet: "10.205.1.0/24".parse().unwrap(),
        data_dir: world.path("ipam"),
        ..BuiltinOptions::default()
    };
    let network = NetworkList::builtin(&options);
    let executor = world.executor_of(Vec::new()).with_builtin(davit_cni());
    holds(
        &world,
        &outside,
        &executor,
        &network,
        world.attachment("pod"),
        "10.205.1.2",
    );
    let with_one = world.host.run(nft_ruleset);
    world
        .host
        .run(|| executor.add(&network, &world.attachment("more")))
        .unwrap();
    assert_eq!(
        world.host.run(nft_ruleset).matches("davit network").count(),
        with_one.matches("davit network").count(),
        "rules are the network's: {with_one}"
    );
    // Other tools still read their table.
    if let Ok(listed) = world.host.run(|| {
        Command::new("iptables-nft")
            .args(["-S", "FORWARD"])
            .output()
    }) {
        let text = String::from_utf8_lossy(&listed.stdout).into_owned()
            + &String::from_utf8_lossy(&listed.stderr);
        assert!(
            listed.status.success()
                && text.contains("-d 10.205.1.0/24")
                && text.contains("-j ACCEPT"),
            "{text}"
        );
    }
    // The administrator's tool makes its table anew: the next pod has it right again, once.
    world.host.run(|| nft("flush chain ip filter FORWARD"));
    let there = outside.run(|| Echo::listen("192.0.2.2".parse().unwrap()));
    let late = world.attachment("late");
    world.host.run(|| executor.add(&network, &late)).unwrap();
    assert_eq!(inside(&late, || seen_from(there.address)), "192.0.2.1");
    let again = world.host.run(nft_ruleset);
    assert_eq!(again.matches("jump net-strict").count(), 1, "{again}");
    for pod in ["pod", "more", "late"] {
        world.host.run(|| executor.del_cached(pod, "eth0")).unwrap();
    }
    world.host.run(|| options.remove_from_host()).unwrap();
    assert_eq!(world.host.run(nft_ruleset), before);
}

#[test]
fn the_firewall_plugin_does_it_for_any_bridge_and_two_networks_do_not_mix() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = strict(&world, "10.205.2.0/24");
    let network = |name: &str, subnet: &str| {
        let mut conf = world.conflist(name, subnet, json!({}));
        let plugins = conf["plugins"].as_array_mut().unwrap();
        plugins.push(json!({"type": "firewall"}));
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        NetworkList::parse(conf.to_string().as_bytes()).unwrap()
    };
    let (one, two) = (
        network("one", "10.205.2.0/24"),
        network("two", "10.205.3.0/24"),
    );
    let executor = world.executor();
    holds(
        &world,
        &outside,
        &executor,
        &one,
        world.attachment("pod"),
        "10.205.2.2",
    );
    world
        .host
        .run(|| executor.add(&two, &world.attachment("other")))
        .unwrap();
    world
        .host
        .run(|| cni::plugin::remove_network("one", "br-one"))
        .unwrap();
    let left = world.host.run(nft_ruleset);
    assert!(
        !left.contains("network one")
            && left.contains("network two")
            && left.contains("jump net-two"),
        "{left}"
    );
    world
        .host
        .run(|| cni::plugin::remove_network("two", "br-two"))
        .unwrap();
    assert!(!world.host.run(nft_ruleset).contains("davit-firewall"));
}

#[test]
fn on_a_host_that_forwards_anyway_nothing_is_made_and_check_tells_the_difference() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mut conf = world.conflist("easy", "10.205.4.0/24", json!({}));
    conf["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "firewall", "ingressPolicy": "open"}));
    let network = NetworkList::parse(conf.to_string().as_bytes()).unwrap();
    let pod = world.attachment("pod");
    let executor = world.executor();
    world.host.run(|| executor.add(&network, &pod)).unwrap();
    let rules = world.host.run(nft_ruleset);
    assert!(!rules.contains("davit-firewall"), "{rules}");
    world.host.run(|| executor.check(&network, &pod)).unwrap();
    world.host.run(|| {
        nft("add table inet late");
        nft("add chain inet late forward { type filter hook forward priority filter ; policy drop ; }");
    });
    let error = world
        .host
        .run(|| executor.check(&network, &pod))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "chain \"forward\" of table \"late\" drops what it forwards, network \"easy\" included"
        ),
        "{error}"
    );

    for (key, value) in [
        ("backend", "iptables"),
        ("ingressPolicy", "same-bridge"),
        ("iptablesAdminChainName", "MY"),
    ] {
        let mut refused = conf.clone();
        refused["plugins"][1][key] = value.into();
        let network = NetworkList::parse(refused.to_string().as_bytes()).unwrap();
        let pod = world.attachment("refused");
        let error = world
            .host
            .run(|| executor.add(&network, &pod))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("unsupported field \"{key}\": {value}")),
            "{error}"
        );
        world.host.run(|| executor.del(&network, &pod)).unwrap();
    }
}
