//! The bridge and host-local plugins under our own executor, in real network namespaces.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::process::Command;

use cni::{Attachment, BuiltinOptions, Error, NetworkList};
use netlink::Rtnl;
use serde_json::json;
use support::*;

fn ping(address: std::net::Ipv4Addr) -> bool {
    Command::new("ping")
        .args(["-c", "1", "-W", "5", "-q", &address.to_string()])
        .output()
        .expect("run ping")
        .status
        .success()
}

#[test]
fn a_pod_gets_an_address_that_the_host_reaches_by_tcp() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("one", "10.201.1.0/24", json!({}));
    let pod = world.attachment("pod-1");
    let before = world.inventory();
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.201.1.2/24");
    let echo = inside(&pod, || Echo::listen(address(&result)));
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.201.1.1");
    drop(echo);
    world
        .host
        .run(|| world.executor().del(&network, &pod))
        .unwrap();
    world
        .host
        .run(|| cni::plugin::remove_network("one", "br-one"))
        .unwrap();
    assert_eq!(world.inventory(), before);
}

#[test]
fn two_pods_reach_each_other_without_translation() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("two", "10.201.2.0/24", json!({}));
    let (a, b) = (world.attachment("a"), world.attachment("b"));
    let from_a = world
        .host
        .run(|| world.executor().add(&network, &a))
        .unwrap();
    let from_b = world
        .host
        .run(|| world.executor().add(&network, &b))
        .unwrap();
    let echo = inside(&b, || Echo::listen(address(&from_b)));
    assert_eq!(
        inside(&a, || seen_from(echo.address)),
        address(&from_a).to_string()
    );
    if Command::new("ping").arg("-V").output().is_ok() {
        assert!(inside(&a, || ping(address(&from_b))), "a pings b");
        assert!(
            inside(&b, || ping("10.201.2.1".parse().unwrap())),
            "b pings the gateway"
        );
    }
}

#[test]
fn what_leaves_the_host_has_the_host_s_address() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("out", "10.201.3.0/24", json!({}));
    // A machine next to the host, which knows nothing of the pods' subnet.
    let outside = Namespace::new("out");
    world.host.run(|| {
        ip(&[
            "link",
            "add",
            "up0",
            "type",
            "veth",
            "peer",
            "name",
            "up0",
            "netns",
            outside.path.to_str().unwrap(),
        ]);
        ip(&["addr", "add", "192.0.2.1/24", "dev", "up0"]);
        ip(&["link", "set", "up0", "up"]);
    });
    outside.run(|| {
        ip(&["addr", "add", "192.0.2.2/24", "dev", "up0"]);
        ip(&["link", "set", "up0", "up"]);
    });
    let pod = world.attachment("pod");
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let echo = outside.run(|| Echo::listen("192.0.2.2".parse().unwrap()));
    assert_eq!(inside(&pod, || seen_from(echo.address)), "192.0.2.1");
    let rules = world.host.run(nft_ruleset);
    assert!(
        rules.contains("elements = { 10.201.3.0/24 : goto masq-out-10.201.3.0/24 }"),
        "{rules}"
    );
    assert!(rules.contains("ip saddr vmap @subnets"), "{rules}");
    assert!(rules.contains("ip daddr 10.201.3.0/24 return"), "{rules}");
}

#[test]
fn rules_grow_with_networks_and_not_with_pods() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let first = world.network("grow-a", "10.201.4.0/25", json!({}));
    let second = world.network("grow-b", "10.201.4.128/25", json!({}));
    let add = |network: &NetworkList, id: &str| {
        world
            .host
            .run(|| world.executor().add(network, &world.attachment(id)))
            .unwrap()
    };
    add(&first, "a");
    let with_one = world.host.run(nft_ruleset);
    for n in 0..5 {
        add(&first, &format!("a{n}"));
    }
    assert_eq!(world.host.run(nft_ruleset), with_one);
    add(&second, "b");
    let with_two = world.host.run(nft_ruleset);
    assert_eq!(
        with_two.matches("ip saddr vmap @subnets").count(),
        1,
        "{with_two}"
    );
    assert!(
        with_two.contains("10.201.4.0/25 : goto") && with_two.contains("10.201.4.128/25 : goto"),
        "{with_two}"
    );
    world
        .host
        .run(|| cni::plugin::remove_network("grow-a", "br-grow-a"))
        .unwrap();
    let rules = world.host.run(nft_ruleset);
    assert!(
        !rules.contains("grow-a") && rules.contains("grow-b"),
        "{rules}"
    );
}

#[test]
fn a_network_that_changed_its_subnet_takes_its_masquerade_along() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let extra = json!({"forceAddress": true});
    for subnet in ["10.201.5.0/24", "10.201.0.0/16"] {
        let network = world.network("moved", subnet, extra.clone());
        world
            .host
            .run(|| {
                world
                    .executor()
                    .add(&network, &world.attachment(&subnet[..9].replace('.', "-")))
            })
            .unwrap();
    }
    let rules = world.host.run(nft_ruleset);
    assert!(
        !rules.contains("10.201.5.0/24") && rules.contains("10.201.0.0/16 : goto"),
        "{rules}"
    );
}

#[test]
fn hairpin_mtu_hardware_address_and_requested_ip_are_as_asked() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network(
        "asked",
        "10.201.7.0/24",
        json!({"mtu": 1400, "capabilities": {"mac": true, "ips": true}}),
    );
    let pod = world
        .attachment("pod")
        .with_capability("mac", json!("02:00:00:00:07:07"))
        .with_capability("ips", json!(["10.201.7.77/24"]));
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.201.7.77/24");
    let eth0 = inside(&pod, || {
        Rtnl::open().unwrap().link_by_name("eth0").unwrap().unwrap()
    });
    assert_eq!(
        (eth0.mtu, eth0.mac.unwrap().to_string().as_str()),
        (1400, "02:00:00:00:07:07")
    );
    let host_end = &result.interfaces[1].name;
    let details = world.host.run(|| {
        Command::new("bridge")
            .args(["-d", "link", "show", "dev", host_end])
            .output()
            .unwrap()
    });
    let details = String::from_utf8(details.stdout).unwrap();
    assert!(
        details.contains("hairpin on") && details.contains("mtu 1400"),
        "{details}"
    );

    let taken = world
        .attachment("other")
        .with_capability("ips", json!(["10.201.7.77"]));
    let error = world
        .host
        .run(|| world.executor().add(&network, &taken))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "plugin \"bridge\" ADD: requested address 10.201.7.77 is taken (code 101)"
    );
}

#[test]
fn the_default_address_and_routes_are_the_reference_s() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let ipam = json!({"type": "host-local", "dataDir": world.path("ipam"), "subnet": "10.201.8.0/24",
        "routes": [{"dst": "203.0.113.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.201.8.9"}]});
    let network = world.network("routes", "10.201.8.0/24", json!({ "ipam": ipam }));
    let pod = world.attachment("pod");
    world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let routes = inside(&pod, || Rtnl::open().unwrap().routes().unwrap());
    let main: Vec<String> = routes
        .iter()
        .filter(|r| r.table == 254)
        .map(|r| format!("{} via {:?}", r.dst, r.gateway))
        .collect();
    for expected in [
        "0.0.0.0/0 via Some(10.201.8.1)",
        "203.0.113.0/24 via Some(10.201.8.1)",
        "198.51.100.0/24 via Some(10.201.8.9)",
        "10.201.8.0/24 via None",
    ] {
        assert!(main.iter().any(|r| r == expected), "{expected}: {main:?}");
    }
}

#[test]
fn twenty_adds_at_once_give_twenty_addresses() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("many", "10.201.9.0/24", json!({}));
    let pods: Vec<Attachment> = (0..20)
        .map(|n| world.attachment(&format!("pod-{n}")))
        .collect();
    let each = |f: &(dyn Fn(&Attachment) -> Result<String, Error> + Sync)| {
        std::thread::scope(|scope| {
            let started: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(|| world.host.run(|| f(pod))))
                .collect();
            started
                .into_iter()
                .map(|t| t.join().unwrap().unwrap())
                .collect::<Vec<String>>()
        })
    };
    let mut addresses = each(&|pod| {
        world
            .executor()
            .add(&network, pod)
            .map(|r| address(&r).to_string())
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    let rules = world.host.run(nft_ruleset);
    assert_eq!(rules.matches("counter packets").count(), 1, "{rules}");
    let reachable = each(&|pod| {
        let echo = inside(pod, || Echo::listen(inside(pod, || first_address("eth0"))));
        Ok(seen_from(echo.address))
    });
    assert!(reachable.iter().all(|from| from == "10.201.9.1"));
    each(&|pod| world.executor().del(&network, pod).map(|()| String::new()));
    assert_eq!(
        world
            .inventory()
            .iter()
            .filter(|l| !l.starts_with("table") && !l.starts_with("link"))
            .count(),
        0
    );
    assert_eq!(
        world
            .inventory()
            .iter()
            .filter(|l| l.starts_with("link veth"))
            .count(),
        0
    );
}

/// The runtime says that it destroys the namespace: DEL frees the address and waits for nothing.
#[test]
fn a_dying_namespace_loses_its_address_at_once_and_its_link_with_its_end() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = NetworkList::builtin(&BuiltinOptions {
        name: "dying".to_owned(),
        bridge_name: "br-dying".to_owned(),
        subnet: "10.201.14.0/30".parse().unwrap(),
        data_dir: world.path("ipam"),
        ..BuiltinOptions::default()
    });
    let executor = world.executor_of(Vec::new()).with_builtin(davit_cni());
    let old = Namespace::new("old");
    let attachment = |id: &str, ns: &std::path::Path| {
        Attachment::new(id)
            .in_netns(ns)
            .with_capability("netnsDies", json!(true))
    };
    let first = attachment("old", &old.path);
    let result = world.host.run(|| executor.add(&network, &first)).unwrap();
    assert_eq!(address(&result).to_string(), "10.201.14.2");
    let echo = inside(&first, || Echo::listen(address(&result)));
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.201.14.1");
    drop(echo);
    world.host.run(|| executor.del(&network, &first)).unwrap();
    // The old namespace still stands; the only address of the range is already the next pod's, and answers.
    let next = attachment("next", &world.pod());
    let result = world.host.run(|| executor.add(&network, &next)).unwrap();
    assert_eq!(address(&result).to_string(), "10.201.14.2");
    let echo = inside(&next, || Echo::listen(address(&result)));
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.201.14.1");
    drop(echo);
    let ports = || {
        world
            .inventory()
            .iter()
            .filter(|l| l.starts_with("link veth"))
            .count()
    };
    assert_eq!(ports(), 2);
    old.destroy();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ports() > 1 {
        assert!(
            std::time::Instant::now() < deadline,
            "the kernel cleans up after the namespace"
        );
        std::thread::yield_now();
    }
}

#[test]
fn the_builtin_network_needs_no_configuration_and_is_found_again_for_del() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let options = BuiltinOptions {
        data_dir: world.path("ipam"),
        mtu: Some(1450),
        ..BuiltinOptions::default()
    };
    let network = NetworkList::builtin(&options);
    let executor = world
        .executor_of(vec!["/nonexistent".into()])
        .with_builtin(davit_cni());
    world.host.run(|| executor.check_ready(&network)).unwrap();
    let before = world.inventory();
    let pod = world.attachment("pod");
    let result = world.host.run(|| executor.add(&network, &pod)).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.89.0.2/16");
    assert_eq!(result.interfaces[0].name, "davit0");
    let echo = inside(&pod, || Echo::listen(address(&result)));
    assert_eq!(world.host.run(|| seen_from(echo.address)), "10.89.0.1");
    drop(echo);
    world
        .host
        .run(|| executor.del_cached("pod", "eth0"))
        .unwrap();
    world.host.run(|| options.remove_from_host()).unwrap();
    world.host.run(|| options.remove_from_host()).unwrap();
    assert_eq!(world.inventory(), before);
    let misnamed = BuiltinOptions {
        name: "../x".to_owned(),
        ..options
    };
    let error = world
        .host
        .run(|| executor.add(&NetworkList::builtin(&misnamed), &pod))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("network configuration \"../x\": its name must start with a letter"),
        "{error}"
    );
    let without = world.executor_of(vec![world.path("bin")]);
    let error = world
        .host
        .run(|| without.add(&network, &pod))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("network \"davit\": plugin \"bridge\" not found in this installation"),
        "{error}"
    );
}

/// A pod that calls a service and is itself what stands behind it: the frame goes back out of the port it came from.
#[test]
fn a_pod_reaches_itself_through_a_translated_address() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = world.network("pin", "10.201.20.0/24", json!({}));
    let pod = world.attachment("pod");
    let result = world
        .host
        .run(|| world.executor().add(&network, &pod))
        .unwrap();
    let echo = inside(&pod, || Echo::listen(address(&result)));
    let rules = format!(
        "table ip svc {{\n\
         chain pre {{ type nat hook prerouting priority dstnat; ip daddr 198.51.100.1 tcp dport 80 dnat to {}; }}\n\
         chain post {{ type nat hook postrouting priority 90; ct status dnat ip saddr 10.201.20.0/24 masquerade; }}\n}}",
        echo.address
    );
    let file = world.path("svc.nft");
    std::fs::write(&file, rules).unwrap();
    world.host.run(|| {
        let status = Command::new("nft").arg("-f").arg(&file).status().unwrap();
        assert!(status.success());
    });
    let service = "198.51.100.1:80".parse().unwrap();
    assert_eq!(inside(&pod, || seen_from(service)), "10.201.20.1");
}
