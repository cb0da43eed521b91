//! Both address families in bridge and host-local, and CHECK and GC of whole networks.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::net::{IpAddr, SocketAddr};

use cni::{BuiltinOptions, NetworkList};
use netlink::Rtnl;
use serde_json::json;
use support::*;

fn dual(world: &World, name: &str, n: u8) -> NetworkList {
    let ipam = json!({
        "type": "host-local", "dataDir": world.path("ipam"),
        "ranges": [[{"subnet": format!("10.204.{n}.0/24")}], [{"subnet": format!("fd00:204:{n}::/64")}]],
    });
    let mut conf = world.conflist(name, "10.0.0.0/24", json!({ "ipam": ipam }));
    conf["cniVersion"] = "1.1.0".into();
    NetworkList::parse(conf.to_string().as_bytes()).unwrap()
}

fn addresses(result: &cni::AddResult) -> Vec<String> {
    result.ips.iter().map(|ip| ip.address.to_string()).collect()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[test]
fn a_pod_has_an_address_of_each_family_and_is_reached_at_both_at_once() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = dual(&world, "dual", 1);
    let (a, b) = (world.attachment("a"), world.attachment("b"));
    let before = inside(&a, || Echo::listen_at("::".parse().unwrap()));
    let port = before.address.port();
    let result = world
        .host
        .run(|| world.executor().add(&network, &a))
        .unwrap();
    assert_eq!(addresses(&result), ["10.204.1.2/24", "fd00:204:1::2/64"]);
    assert_eq!(
        result.ips[1].gateway,
        Some("fd00:204:1::1".parse().unwrap())
    );
    let routes: Vec<String> = result.routes.iter().map(|r| r.dst.to_string()).collect();
    assert_eq!(routes, ["0.0.0.0/0", "::/0"]);
    // No second of waiting for the neighbours' objections.
    for (to, seen) in [
        ("10.204.1.2", "10.204.1.1"),
        ("fd00:204:1::2", "fd00:204:1::1"),
    ] {
        assert_eq!(world.host.run(|| seen_from(at(to, port))), seen);
    }
    world
        .host
        .run(|| world.executor().add(&network, &b))
        .unwrap();
    assert_eq!(
        inside(&b, || seen_from(at("fd00:204:1::2", port))),
        "fd00:204:1::3"
    );
    let accept_ra = inside(&b, || {
        std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap()
    });
    assert_eq!(
        accept_ra.trim(),
        "0",
        "a neighbour that plays the router gives it no routes"
    );
    for pod in [&a, &b] {
        world
            .host
            .run(|| world.executor().del(&network, pod))
            .unwrap();
    }
    world
        .host
        .run(|| cni::plugin::remove_network("dual", "br-dual"))
        .unwrap();
    assert_eq!(world.inventory(), ["link lo"]);
}

#[test]
fn ipv6_leaves_the_host_with_its_address_and_the_host_keeps_listening_to_its_router() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = Namespace::new("out");
    world.host.run(|| {
        let path = outside.path.to_str().unwrap();
        ip(&[
            "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", path,
        ]);
        ip(&["addr", "add", "2001:db8::1/64", "dev", "up0", "nodad"]);
        ip(&["link", "set", "up0", "up"]);
        std::fs::write("/proc/sys/net/ipv6/conf/up0/accept_ra", "1").unwrap();
    });
    outside.run(|| {
        ip(&["addr", "add", "2001:db8::2/64", "dev", "up0", "nodad"]);
        ip(&["link", "set", "up0", "up"]);
    });
    let network = dual(&world, "out6", 2);
    let pod = world.attachment("pod");
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let echo = outside.run(|| Echo::listen_at("2001:db8::2".parse().unwrap()));
    assert_eq!(inside(&pod, || seen_from(echo.address)), "2001:db8::1");
    let read = |key: &str| {
        world.host.run(|| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{key}"))
                .unwrap()
                .trim()
                .to_owned()
        })
    };
    assert_eq!(
        (
            read("all/forwarding").as_str(),
            read("up0/accept_ra").as_str()
        ),
        ("1", "2")
    );
    let rules = world.host.run(nft_ruleset);
    assert!(rules.contains("ip6 saddr vmap @subnets6"), "{rules}");
}

#[test]
fn ipv6_alone_is_a_network_too() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("only6", "fd00:204:3::/64", json!({}));
    let pod = world.attachment("pod");
    let echo = inside(&pod, || Echo::listen_at("::".parse().unwrap()));
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    assert_eq!(addresses(&result), ["fd00:204:3::2/64"]);
    assert_eq!(
        world
            .host
            .run(|| seen_from(at("fd00:204:3::2", echo.address.port()))),
        "fd00:204:3::1"
    );
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
}

#[test]
fn the_builtin_network_has_both_families_and_runs_portmap_only_for_ports() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let options = BuiltinOptions {
        name: "both".to_owned(),
        bridge_name: "br-both".to_owned(),
        subnet: "10.204.4.0/24".parse().unwrap(),
        subnet6: Some("fd00:204:4::/64".parse().unwrap()),
        data_dir: world.path("ipam"),
        ..BuiltinOptions::default()
    };
    let network = NetworkList::builtin(&options);
    let executor = world.executor_of(Vec::new()).with_builtin(davit_cni());
    let plain = world.attachment("plain");
    let mapped = world.attachment("mapped").with_capability(
        "portMappings",
        json!([{"hostPort": 12000, "containerPort": 80, "protocol": "tcp"}]),
    );
    let plugins = |pod| {
        let short = network.shortened_for(pod);
        short
            .plugins()
            .iter()
            .map(|p| p.plugin.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(plugins(&plain), ["bridge"]);
    assert_eq!(plugins(&mapped), ["bridge", "portmap"]);
    for pod in [&plain, &mapped] {
        let short = network.shortened_for(pod);
        let result = world.host.run(|| executor.add(&short, pod)).unwrap();
        assert_eq!(result.ips.len(), 2, "{result:?}");
        assert!(
            matches!(result.ips[0].address.addr(), IpAddr::V4(_)),
            "IPv4 is first"
        );
        world.host.run(|| executor.check(&short, pod)).unwrap();
    }
    for pod in ["plain", "mapped"] {
        world.host.run(|| executor.del_cached(pod, "eth0")).unwrap();
    }
    world.host.run(|| options.remove_from_host()).unwrap();
    assert_eq!(world.inventory(), ["link lo"]);
}

#[test]
fn check_notices_what_is_not_as_add_made_it() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = dual(&world, "checked", 5);
    let executor = world.executor();
    let pod = world.attachment("pod");
    let check = || world.host.run(|| executor.check(&network, &pod));
    let error = check().unwrap_err().to_string();
    assert!(
        error.contains("CHECK needs the result of an ADD"),
        "{error}"
    );
    world.host.run(|| executor.add(&network, &pod)).unwrap();
    check().unwrap();
    type Damage = (&'static str, Box<dyn Fn() + Send + Sync>, &'static str);
    let rtnl = || Rtnl::open().unwrap();
    let damages: [Damage; 3] = [
        (
            "route",
            Box::new(|| ip(&["-6", "route", "del", "default"])),
            "has no route to ::/0",
        ),
        (
            "address",
            Box::new(|| ip(&["addr", "del", "10.204.5.2/24", "dev", "eth0"])),
            "has not the address 10.204.5.2/24",
        ),
        (
            "link",
            Box::new(move || {
                let link = rtnl().link_by_name("eth0").unwrap().unwrap();
                rtnl().delete_link(&link).unwrap();
            }),
            "interface \"eth0\" of the container is gone or down",
        ),
    ];
    for (what, damage, expected) in damages {
        inside(&pod, &damage);
        let error = check().unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    std::fs::remove_file(world.path("ipam/checked/10.204.5.2")).unwrap();
    let error = check().unwrap_err().to_string();
    assert!(
        error.contains("no address of 10.204.5.1-10.204.5.254 is reserved for container pod"),
        "{error}"
    );
}

#[test]
fn gc_takes_away_what_nobody_knows_with_and_without_a_cache() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let mut conf = world.conflist("gc", "10.204.6.0/24", json!({}));
    conf["cniVersion"] = "1.1.0".into();
    conf["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    let network = NetworkList::parse(conf.to_string().as_bytes()).unwrap();
    let executor = world.executor();
    for (n, id) in ["kept", "cached", "lost"].into_iter().enumerate() {
        let pod = world.attachment(id).with_capability(
            "portMappings",
            json!([{"hostPort": 9000 + n, "containerPort": 80, "protocol": "udp"}]),
        );
        world.host.run(|| executor.add(&network, &pod)).unwrap();
    }
    std::fs::remove_file(world.path("cache/results/gc-lost-eth0")).unwrap();
    let valid = [("kept".to_owned(), "eth0".to_owned())];
    let gc = |conf: &serde_json::Value| {
        let network = NetworkList::parse(conf.to_string().as_bytes()).unwrap();
        world.host.run(|| executor.gc(&network, &valid)).unwrap();
        let rules = world.host.run(nft_ruleset);
        let mut left: Vec<&str> = ["kept", "cached", "lost"]
            .into_iter()
            .filter(|id| rules.contains(&format!(" {id} ")))
            .collect();
        left.extend(
            ["10.204.6.2", "10.204.6.3", "10.204.6.4"]
                .into_iter()
                .filter(|ip| world.path("ipam/gc").join(ip).exists()),
        );
        left.join(" ")
    };
    let mut disabled = conf.clone();
    disabled["disableGC"] = true.into();
    assert_eq!(
        gc(&disabled),
        "kept cached lost 10.204.6.2 10.204.6.3 10.204.6.4"
    );
    let mut old = conf.clone();
    old["cniVersion"] = "1.0.0".into();
    assert_eq!(
        gc(&old),
        "kept lost 10.204.6.2 10.204.6.4",
        "before 1.1.0 there is only DEL by the cache"
    );
    assert_eq!(gc(&conf), "kept 10.204.6.2");
    assert_eq!(gc(&conf), "kept 10.204.6.2");
}
