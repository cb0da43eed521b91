//! The portmap plugin behind bridge, in real network namespaces: who reaches a host's port, who has it, and what is left.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail like tests.

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use cni::{Attachment, NetworkList};
use serde_json::{Value, json};
use support::*;

fn network(world: &World, name: &str, subnet: &str, portmap: Value) -> NetworkList {
    NetworkList::parse(
        conflist(world, name, subnet, portmap)
            .to_string()
            .as_bytes(),
    )
    .unwrap()
}

fn conflist(world: &World, name: &str, subnet: &str, portmap: Value) -> Value {
    let mut conf = world.conflist(name, subnet, json!({}));
    let mut plugin = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    plugin
        .as_object_mut()
        .unwrap()
        .extend(portmap.as_object().unwrap().clone());
    conf["plugins"].as_array_mut().unwrap().push(plugin);
    conf
}

/// A new pod that wants these ports: host port, container port, protocol, address.
fn pod(world: &World, id: &str, ports: &[(u16, u16, &str, &str)]) -> Attachment {
    let mappings: Vec<Value> = ports
        .iter()
        .map(|(host, container, protocol, ip)| {
            json!({"hostPort": host, "containerPort": container, "protocol": protocol, "hostIP": ip})
        })
        .collect();
    world
        .attachment(id)
        .with_capability("portMappings", Value::Array(mappings))
}

fn with_ports(attachment: Attachment, ports: &[(u16, u16)]) -> Attachment {
    let mappings: Vec<Value> = ports
        .iter()
        .map(|(host, container)| json!({"hostPort": host, "containerPort": container, "protocol": "tcp"}))
        .collect();
    attachment.with_capability("portMappings", Value::Array(mappings))
}

fn add(
    world: &World,
    network: &NetworkList,
    pod: &Attachment,
) -> Result<cni::AddResult, cni::Error> {
    world.host.run(|| world.executor().add(network, pod))
}

fn del(world: &World, network: &NetworkList, pod: &Attachment) {
    world
        .host
        .run(|| world.executor().del(network, pod))
        .unwrap();
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn refused(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err()
}

/// A machine next to the host at 192.0.2.2; the host is 192.0.2.1, and 2001:db8::1.
fn neighbour(world: &World) -> Namespace {
    let outside = Namespace::new("out");
    world.host.run(|| {
        let path = outside.path.to_str().unwrap();
        ip(&[
            "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", path,
        ]);
        ip(&["addr", "add", "192.0.2.1/24", "dev", "up0"]);
        ip(&["addr", "add", "2001:db8::1/64", "dev", "up0", "nodad"]);
        ip(&["link", "set", "up0", "up"]);
    });
    outside.run(|| {
        ip(&["addr", "add", "192.0.2.2/24", "dev", "up0"]);
        ip(&["addr", "add", "2001:db8::2/64", "dev", "up0", "nodad"]);
        ip(&["link", "set", "up0", "up"]);
    });
    outside
}

#[test]
fn a_host_port_is_reached_from_everywhere_and_gone_after_del() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = neighbour(&world);
    let network = network(&world, "ports", "10.203.1.0/24", json!({}));
    let before = world.attachment("server");
    let echo = inside(&before, || Echo::listen("0.0.0.0".parse().unwrap()));
    let server = with_ports(before, &[(12000, echo.address.port())]);
    add(&world, &network, &server).unwrap();
    let other = world.attachment("other");
    add(&world, &network, &other).unwrap();

    // The pod sees who it is, but for those whose answers would go past the host.
    for (from, to, seen) in [
        ("the host's loopback", "127.0.0.1", "10.203.1.1"),
        ("the host by its address", "192.0.2.1", "192.0.2.1"),
        (
            "the host by the bridge's address",
            "10.203.1.1",
            "10.203.1.1",
        ),
    ] {
        assert_eq!(world.host.run(|| seen_from(at(to, 12000))), seen, "{from}");
    }
    assert_eq!(
        outside.run(|| seen_from(at("192.0.2.1", 12000))),
        "192.0.2.2"
    );
    for to in ["192.0.2.1", "10.203.1.1"] {
        assert_eq!(
            inside(&other, || seen_from(at(to, 12000))),
            "10.203.1.1",
            "another pod by {to}"
        );
        assert_eq!(
            inside(&server, || seen_from(at(to, 12000))),
            "10.203.1.1",
            "itself by {to}"
        );
    }
    // And directly as ever.
    assert_eq!(
        inside(&other, || seen_from(at("10.203.1.2", echo.address.port()))),
        "10.203.1.3"
    );
    assert!(
        world.host.run(|| refused(at("127.0.0.1", 12001))),
        "a port that is not mapped"
    );

    del(&world, &network, &server);
    assert!(world.host.run(|| refused(at("127.0.0.1", 12000))), "gone");
    let rules = world.host.run(nft_ruleset);
    assert!(!rules.contains("server"), "{rules}");
}

#[test]
fn rules_do_not_grow_with_ports() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = network(&world, "grow", "10.203.2.0/24", json!({}));
    let rules = |n: u16| {
        add(
            &world,
            &network,
            &pod(
                &world,
                &format!("pod-{n}"),
                &[
                    (13000 + n, 80, "tcp", ""),
                    (13000 + n, 80, "udp", "127.0.0.1"),
                    (13000 + n, 81, "sctp", ""),
                ],
            ),
        )
        .unwrap();
        let text = world.host.run(nft_ruleset);
        text.lines()
            .filter(|l| !l.contains(" . ") || l.contains("map @") || l.contains("type "))
            .count()
    };
    let with_one = rules(1);
    let with_three = {
        rules(2);
        rules(3)
    };
    assert_eq!(with_one, with_three, "{}", world.host.run(nft_ruleset));
    let text = world.host.run(nft_ruleset);
    for expected in [
        "dnat ip to meta l4proto . th dport map @ports4",
        "dnat ip to ip daddr . meta l4proto . th dport map @at4",
        "fib daddr type local jump translate",
        "vmap @back4",
        "sctp . 13001",
        "127.0.0.1 . udp . 13002",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_port_that_another_pod_has_is_refused_and_names_it() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = network(&world, "clash", "10.203.3.0/24", json!({}));
    add(
        &world,
        &network,
        &pod(&world, "first", &[(8080, 80, "tcp", "")]),
    )
    .unwrap();
    add(
        &world,
        &network,
        &pod(&world, "one-address", &[(8081, 80, "tcp", "127.0.0.1")]),
    )
    .unwrap();
    for (wanted, message) in [
        (
            (8080, 81, "tcp", ""),
            "host port 8080/tcp of 0.0.0.0 is mapped for container first of network \"clash\" already",
        ),
        (
            (8080, 81, "tcp", "127.0.0.1"),
            "host port 8080/tcp of 127.0.0.1 is mapped for container first",
        ),
        (
            (8081, 81, "tcp", ""),
            "host port 8081/tcp of 0.0.0.0 is mapped for container one-address",
        ),
    ] {
        let late = pod(&world, "late", &[wanted]);
        let error = add(&world, &network, &late).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        del(&world, &network, &late);
    }
    // Another protocol, another address: another port.
    add(
        &world,
        &network,
        &pod(
            &world,
            "udp",
            &[(8080, 80, "udp", ""), (8081, 80, "tcp", "127.0.0.2")],
        ),
    )
    .unwrap();
    let rules = world.host.run(nft_ruleset);
    assert!(!rules.contains(" late "), "{rules}");
}

#[test]
fn of_two_pods_that_want_one_port_at_once_one_gets_it() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = network(&world, "race", "10.203.4.0/24", json!({}));
    for (round, ips) in [["", ""], ["", "127.0.0.1"], ["127.0.0.1", "127.0.0.1"]]
        .into_iter()
        .enumerate()
    {
        let pods: Vec<Attachment> = (0..2)
            .map(|n| {
                pod(
                    &world,
                    &format!("r{round}-{n}"),
                    &[(9000, 80, "tcp", ips[n])],
                )
            })
            .collect();
        let results: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(|| add(&world, &network, pod).is_ok()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(
            results.iter().filter(|ok| **ok).count(),
            1,
            "round {round}: {results:?}"
        );
        pods.iter().for_each(|pod| del(&world, &network, pod));
    }
}

#[test]
fn a_port_at_which_a_program_of_the_host_listens_is_refused() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = network(&world, "busy", "10.203.5.0/24", json!({}));
    let (tcp, udp) = world.host.run(|| {
        (
            TcpListener::bind("127.0.0.1:7000").unwrap(),
            UdpSocket::bind("0.0.0.0:7001").unwrap(),
        )
    });
    for wanted in [(7000, 80, "tcp", ""), (7001, 80, "udp", "127.0.0.1")] {
        let late = pod(&world, "late", &[wanted]);
        let error = add(&world, &network, &late).unwrap_err().to_string();
        assert!(
            error.contains(&format!("host port {}/{}", wanted.0, wanted.2))
                && error.contains("in use by a program of the host"),
            "{error}"
        );
        del(&world, &network, &late);
    }
    drop((tcp, udp));
    add(
        &world,
        &network,
        &pod(
            &world,
            "now",
            &[(7000, 80, "tcp", ""), (7001, 80, "udp", "127.0.0.1")],
        ),
    )
    .unwrap();
}

#[test]
fn ports_go_without_namespace_configuration_or_result_and_a_dead_pods_make_way() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let conf = network(&world, "left", "10.203.6.0/24", json!({}));
    let mut dead = pod(
        &world,
        "dead",
        &[(6000, 80, "tcp", ""), (6001, 80, "tcp", "")],
    );
    add(&world, &conf, &dead).unwrap();
    // DEL of the same attachment by a configuration without ports and cache, after a reboot of everything but the rules.
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    dead.netns = None;
    dead.capability_args.clear();
    del(&world, &conf, &dead);
    del(&world, &conf, &dead);
    assert!(!world.host.run(nft_ruleset).contains("6000"));

    // Rules that nobody took away lead to an address that is somebody else's now.
    let forget = || std::fs::remove_dir_all(world.path("ipam")).unwrap();
    forget();
    let crashed = pod(&world, "crashed", &[(6002, 80, "tcp", "")]);
    let left = add(&world, &conf, &crashed).unwrap();
    forget();
    let next = add(
        &world,
        &conf,
        &pod(&world, "next", &[(6003, 80, "tcp", "")]),
    )
    .unwrap();
    assert_eq!(address(&left), address(&next));
    let rules = world.host.run(nft_ruleset);
    assert!(!rules.contains("6002") && rules.contains("6003"), "{rules}");
}

#[test]
fn udp_that_flows_to_a_dead_pod_flows_to_the_next_one() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = neighbour(&world);
    let network = network(&world, "udp", "10.203.7.0/24", json!({}));
    let serve = |pod: &Attachment, name: &'static str| {
        let socket = inside(pod, || UdpSocket::bind("0.0.0.0:5353").unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(name.as_bytes(), from).ok();
                }
            }
        });
        (stop, thread)
    };
    let client = outside.run(|| UdpSocket::bind("192.0.2.2:4000").unwrap());
    client.connect("192.0.2.1:5000").unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // One client socket the whole time: its flow must be led anew by each mapping.
    let ask = || {
        let mut buffer = [0; 64];
        for _ in 0..20 {
            client.send(b"who").ok();
            if let Ok(len) = client.recv(&mut buffer) {
                return String::from_utf8_lossy(&buffer[..len]).into_owned();
            }
        }
        "nobody".to_owned()
    };
    // Before any mapping: the host itself, which refuses.
    client.send(b"who").ok();
    for name in ["one", "two"] {
        let server = pod(&world, name, &[(5000, 5353, "udp", "")]);
        add(&world, &network, &server).unwrap();
        let (stop, thread) = serve(&server, name);
        assert_eq!(ask(), name);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        thread.join().unwrap();
        del(&world, &network, &server);
    }
}

#[test]
fn a_neighbour_on_the_bridge_does_not_reach_the_hosts_loopback() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let network = network(&world, "guard", "10.203.8.0/24", json!({}));
    add(
        &world,
        &network,
        &pod(&world, "mapped", &[(4000, 80, "tcp", "")]),
    )
    .unwrap();
    let attacker = pod(&world, "attacker", &[]);
    add(&world, &network, &attacker).unwrap();
    let secret = world
        .host
        .run(|| Echo::listen("127.0.0.1".parse().unwrap()));
    assert_eq!(
        world.host.run(|| seen_from(secret.address)),
        "127.0.0.1",
        "the host itself reaches it"
    );
    inside(&attacker, || {
        // To 127.0.0.1 by way of the host, as a pod with NET_ADMIN can arrange it.
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        ip(&["addr", "flush", "dev", "lo"]);
        ip(&["route", "flush", "table", "local"]);
        ip(&[
            "route",
            "add",
            "local",
            "10.203.8.3",
            "dev",
            "eth0",
            "table",
            "local",
        ]);
        ip(&[
            "route",
            "add",
            "127.0.0.1",
            "via",
            "10.203.8.1",
            "dev",
            "eth0",
            "src",
            "10.203.8.3",
        ]);
    });
    assert!(
        inside(&attacker, || refused(secret.address)),
        "the guard stands"
    );
    // And it is the guard: without it the pod gets there.
    world
        .host
        .run(|| nft(&["flush", "chain", "inet", "davit-ports", "guard"]));
    assert_eq!(
        inside(&attacker, || seen_from(secret.address)),
        "10.203.8.3"
    );
}

fn nft(args: &[&str]) {
    let done = std::process::Command::new("nft")
        .args(args)
        .status()
        .unwrap();
    assert!(done.success(), "nft {args:?}");
}

#[test]
fn without_snat_nothing_is_masqueraded_and_with_masq_all_everything_is() {
    if !is_root() {
        return;
    }
    for (option, seen_by_pod) in [
        (json!({"snat": false}), "192.0.2.2"),
        (json!({"masqAll": true}), "10.203.9.1"),
    ] {
        let world = World::new();
        let outside = neighbour(&world);
        let network = network(&world, "snat", "10.203.9.0/24", option.clone());
        let before = world.attachment("server");
        let echo = inside(&before, || Echo::listen("0.0.0.0".parse().unwrap()));
        let server = with_ports(before, &[(12000, echo.address.port())]);
        add(&world, &network, &server).unwrap();
        assert_eq!(
            outside.run(|| seen_from(at("192.0.2.1", 12000))),
            seen_by_pod,
            "{option}"
        );
        let rules = world.host.run(nft_ruleset);
        assert_eq!(
            rules.contains("back-"),
            option["masqAll"] == true,
            "{rules}"
        );
    }
}

#[test]
fn host_ports_lead_to_both_families() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let outside = neighbour(&world);
    let ipam = json!({
        "type": "host-local", "dataDir": world.path("ipam"),
        "ranges": [[{"subnet": "10.203.10.0/24"}], [{"subnet": "fd00:203:10::/64"}]],
    });
    let mut conf = conflist(&world, "both", "10.203.10.0/24", json!({}));
    conf["plugins"][0]["ipam"] = ipam;
    let network = NetworkList::parse(conf.to_string().as_bytes()).unwrap();
    let before = world.attachment("server");
    let echo = inside(&before, || Echo::listen_at("::".parse().unwrap()));
    let port = echo.address.port();
    let server = before.with_capability(
        "portMappings",
        json!([
            {"hostPort": 12000, "containerPort": port, "protocol": "tcp"},
            {"hostPort": 12001, "containerPort": port, "protocol": "tcp", "hostIP": "2001:db8::1"},
            {"hostPort": 12002, "containerPort": port, "protocol": "tcp", "hostIP": "::"},
        ]),
    );
    add(&world, &network, &server).unwrap();
    let other = world.attachment("other");
    add(&world, &network, &other).unwrap();

    assert_eq!(
        world.host.run(|| seen_from(at("127.0.0.1", 12000))),
        "10.203.10.1"
    );
    assert!(
        world.host.run(|| refused(at("::1", 12000))),
        "::1 leads nowhere, and says so at once"
    );
    for port in [12000, 12001, 12002] {
        let seen = |from: &str| (from.to_owned(), format!("port {port}"));
        assert_eq!(
            (
                outside.run(|| seen_from(at("2001:db8::1", port))),
                format!("port {port}")
            ),
            seen("2001:db8::2")
        );
        assert_eq!(
            (
                inside(&other, || seen_from(at("2001:db8::1", port))),
                format!("port {port}")
            ),
            seen("fd00:203:10::1")
        );
    }
    assert!(
        outside.run(|| refused(at("192.0.2.1", 12002))),
        "only IPv6 was asked for"
    );
    world
        .host
        .run(|| world.executor().check(&network, &server))
        .unwrap();
    world
        .host
        .run(|| nft(&["flush", "map", "inet", "davit-ports", "ports6"]));
    let error = world
        .host
        .run(|| world.executor().check(&network, &server))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("host port 12000/tcp of :: does not lead to [fd00:203:10::2]"),
        "{error}"
    );
    del(&world, &network, &server);
}
