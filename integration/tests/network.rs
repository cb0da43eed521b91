//! Pods have addresses, reach each other and the host, and answer on their port; DNS, hostname and host network.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use integration::crictl::{pod, shell};
use integration::image::TestImage;
use integration::node::{Node, Options};
use integration::peer::Server;
use integration::{bin, wait};
use serde_json::json;

const IMAGE: &str = "davit.test/busybox:1";
const TOOLS: &[&str] = &["crictl", "busybox", "nft"];
/// A web server in busybox: it answers each connection with the name of its pod.
const SERVE: &str = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www";

/// Runs `test` on containerd and on davit-cri, each with a busybox image.
fn on_each_server(test: impl Fn(&Server)) {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    for server in Server::all() {
        eprintln!("--- {} ---", server.name());
        server.import(&TestImage::busybox(), IMAGE);
        test(&server);
    }
}

/// What an HTTP server answers with.
fn fetch(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .split("\r\n\r\n")
        .nth(1)
        .map(|body| body.trim().to_owned())
}

#[test]
fn two_pods_reach_each_other_and_the_host_and_answer_it_on_their_port() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let (red, blue) = (pod("red", server.dir()), pod("blue", server.dir()));
        let (red_id, blue_id) = (crictl.run_pod(&red), crictl.run_pod(&blue));
        let (red_ip, blue_ip) = (crictl.pod_ip(&red_id), crictl.pod_ip(&blue_id));
        assert!(
            red_ip.starts_with(&server.subnet_prefix())
                && blue_ip.starts_with(&server.subnet_prefix())
        );
        assert_ne!(red_ip, blue_ip);
        let _server = crictl.create_and_start(&red_id, &shell("web", IMAGE, SERVE), &red);
        let client =
            crictl.create_and_start(&blue_id, &shell("client", IMAGE, "sleep 1000"), &blue);

        // From the host to a pod.
        let page = wait::until("the pod answers the host", Duration::from_secs(10), || {
            fetch(&format!("{red_ip}:8080"))
        });
        assert_eq!(page, "red");
        // From pod to pod.
        let url = format!("http://{red_ip}:8080/");
        assert_eq!(
            crictl.ok(&["exec", "-s", &client, "wget", "-q", "-O", "-", &url]),
            "red"
        );
        // From a pod to a server of the host, by the gateway's address.
        let listener = TcpListener::bind("0.0.0.0:0").expect("a server on the host");
        let port = listener.local_addr().expect("its address").port();
        let answer = std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().expect("a connection from the pod");
            let mut request = [0; 512];
            let _length = stream.read(&mut request).expect("a request");
            stream
                .write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nhost")
                .expect("an answer");
            peer.ip().to_string()
        });
        let url = format!("http://{}.1:{port}/", server.subnet_prefix());
        assert_eq!(
            crictl.ok(&["exec", "-s", &client, "wget", "-q", "-O", "-", &url]),
            "host"
        );
        assert_eq!(
            answer.join().expect("the host's server"),
            blue_ip,
            "the host sees the pod's own address"
        );
        // A pod reaches itself by its own address through the bridge (hairpin is for services; this is the simple case).
        let own = format!("http://{red_ip}:8080/");
        let web = crictl.ok(&["ps", "-q", "--name", "web"]);
        assert_eq!(
            crictl.ok(&["exec", "-s", &web, "wget", "-q", "-O", "-", &own]),
            "red"
        );
    });
}

#[test]
fn containers_of_a_pod_share_its_network_and_its_loopback_is_up() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let config = pod("shared", server.dir());
        let id = crictl.run_pod(&config);
        let _web = crictl.create_and_start(&id, &shell("web", IMAGE, SERVE), &config);
        let client = crictl.create_and_start(&id, &shell("client", IMAGE, "sleep 1000"), &config);
        let page = wait::until(
            "the neighbour answers on loopback",
            Duration::from_secs(10),
            || {
                let got = crictl.run(&[
                    "exec",
                    "-s",
                    &client,
                    "wget",
                    "-q",
                    "-O",
                    "-",
                    "http://127.0.0.1:8080/",
                ]);
                (got.code == 0).then(|| got.ok())
            },
        );
        assert_eq!(page, "shared");
    });
}

#[test]
fn dns_configuration_and_hostname_are_those_of_the_pod() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let mut config = pod("named", server.dir());
        config["dns_config"] = json!({"servers": ["10.9.8.7"], "searches": ["a.example", "b.example"], "options": ["ndots:5"]});
        let id = crictl.run_pod(&config);
        let container = crictl.create_and_start(&id, &shell("main", IMAGE, "sleep 1000"), &config);
        let read = |command: &str| crictl.ok(&["exec", "-s", &container, "sh", "-c", command]);
        let resolv = read("cat /etc/resolv.conf");
        let lines: Vec<&str> = resolv.lines().collect();
        assert!(lines.contains(&"nameserver 10.9.8.7"), "{resolv}");
        assert!(lines.contains(&"search a.example b.example"), "{resolv}");
        assert!(lines.contains(&"options ndots:5"), "{resolv}");
        assert_eq!(read("hostname"), "named");
        assert_eq!(read("cat /etc/hostname"), "named");
        assert_eq!(read("echo $HOSTNAME"), "named");

        // Without a DNS configuration the pod has the host's.
        let plain = pod("plain", server.dir());
        let id = crictl.run_pod(&plain);
        let container = crictl.create_and_start(&id, &shell("main", IMAGE, "sleep 1000"), &plain);
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(
            crictl
                .run(&["exec", "-s", &container, "cat", "/etc/resolv.conf"])
                .ok()
                .trim(),
            host.trim()
        );
    });
}

#[test]
fn a_pod_on_the_host_network_has_the_host_s_links_and_hostname_and_no_address_of_its_own() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let mut config = pod("hostnet", server.dir());
        config["linux"]["security_context"]["namespace_options"]["network"] = json!(2);
        config["hostname"] = json!("");
        let id = crictl.run_pod(&config);
        assert_eq!(crictl.pod_ip(&id), "");
        let container = crictl.create_and_start(
            &id,
            &json!({
                "metadata": {"name": "main"}, "image": {"image": IMAGE}, "command": ["/bin/sleep", "1000"],
                "linux": {"security_context": {"namespace_options": {"network": 2, "pid": 1}}},
            }),
            &config,
        );
        let inside = crictl.ok(&["exec", "-s", &container, "readlink", "/proc/self/ns/net"]);
        let outside = std::fs::read_link("/proc/self/ns/net").expect("the host's namespace");
        assert_eq!(inside, outside.to_string_lossy());
        let hostname =
            std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
        assert_eq!(
            crictl.ok(&["exec", "-s", &container, "hostname"]),
            hostname.trim()
        );
    });
}

#[test]
fn addresses_are_given_back_when_a_pod_stops() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let node = Node::start();
    node.import(&TestImage::busybox(), IMAGE);
    let crictl = node.crictl();
    // The first pod makes what stays for the next one: the bridge, its rules, the cgroup of all pods.
    let first = crictl.run_pod(&pod("first", node.dir()));
    let _removed = crictl.ok(&["rmp", "-f", &first]);
    let before = node.scope().snapshot();
    for round in 0..5 {
        let config = pod(&format!("round{round}"), node.dir());
        let id = crictl.run_pod(&config);
        let _stopped = crictl.ok(&["stopp", &id]);
        let held = node.scope().snapshot().since(&before);
        assert!(
            !held.iter().any(|line| line.contains("cni/networks")),
            "addresses after stop: {held:?}"
        );
        let _removed = crictl.ok(&["rmp", &id]);
    }
    node.nothing_is_left_since(&before, "five pods came and went");
}

#[test]
fn the_built_in_network_serves_when_no_cni_configuration_exists() {
    if bin::skipped_for_want_of(TOOLS) {
        return;
    }
    let node = Node::start_with(Options {
        builtin_network: true,
        ..Options::default()
    });
    node.import(&TestImage::busybox(), IMAGE);
    let crictl = node.crictl();
    let config = pod("builtin", node.dir());
    let id = crictl.run_pod(&config);
    let _web = crictl.create_and_start(&id, &shell("web", IMAGE, SERVE), &config);
    let ip = crictl.pod_ip(&id);
    let page = wait::until("the pod answers", Duration::from_secs(10), || {
        fetch(&format!("{ip}:8080"))
    });
    assert_eq!(page, "builtin");
}

#[test]
fn containers_that_share_the_pod_s_pid_namespace_see_each_other() {
    on_each_server(|server| {
        let crictl = server.crictl();
        let mut config = pod("pids", server.dir());
        config["linux"]["security_context"]["namespace_options"]["pid"] = json!(0);
        let mut one = shell("one", IMAGE, "sleep 1234");
        let mut two = shell("two", IMAGE, "sleep 1000");
        for container in [&mut one, &mut two] {
            container["linux"] = json!({"security_context": {"namespace_options": {"pid": 0}}});
        }
        let id = crictl.run_pod(&config);
        let _one = crictl.create_and_start(&id, &one, &config);
        let two = crictl.create_and_start(&id, &two, &config);
        let processes = crictl.ok(&["exec", "-s", &two, "ps"]);
        assert!(processes.contains("sleep 1234"), "{processes}");
    });
}
