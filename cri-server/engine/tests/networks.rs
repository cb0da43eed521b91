//! Networks of pods: host ports, and addresses of both families.

mod common;

use std::net::{TcpListener, TcpStream};

use common::Bench;
use engine::model::{PodConfig, PortMapping};

/// A port that nobody has now, below those that the kernel gives to clients.
fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() % 8000).expect("below 8000") + 20_000;
    (start..32_000)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free port")
}

fn with_port(mut pod: PodConfig, port: u16) -> PodConfig {
    pod.port_mappings = vec![PortMapping {
        container_port: 80,
        host_port: port.into(),
        ..PortMapping::default()
    }];
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_belongs_to_one_pod_until_it_is_stopped() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    let port = free_port();
    let first = engine
        .run_pod(with_port(bench.pod("first"), port), "")
        .await
        .expect("a pod");
    let second = with_port(bench.pod("second"), port);
    let error = engine
        .run_pod(second.clone(), "")
        .await
        .expect_err("the port is taken")
        .report();
    assert!(
        error.contains(&format!("host port {port}/tcp")) && error.contains(&first),
        "{error}"
    );
    engine.stop_pod(&first).await.expect("stopped");
    let second = engine.run_pod(second, "").await.expect("free again");
    engine.remove_pod(&second).await.expect("removed");

    let listening = TcpListener::bind(("127.0.0.1", port)).expect("listen");
    let error = engine
        .run_pod(with_port(bench.pod("third"), port), "")
        .await
        .expect_err("a program listens")
        .report();
    assert!(error.contains("in use by a program of the host"), "{error}");
    TcpStream::connect(("127.0.0.1", port)).expect("still the program's");
    drop(listening);
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_two_families_has_both_addresses_ipv4_first() {
    let mut bench = Bench::without_image("runc").await;
    // A group of an address has 16 bits.
    let subnet = format!("fd00:dead:{:x}::/64", bench.number & 0xffff);
    bench.config.network.subnet6 = Some(subnet.clone());
    bench.restart().await;
    let engine = bench.engine().clone();
    let id = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let status = engine.pod_status(&id).expect("its status");
    assert!(status.ip.starts_with("10."), "{}", status.ip);
    let start = subnet.trim_end_matches("/64");
    assert!(
        status.additional_ips.len() == 1 && status.additional_ips[0].starts_with(start),
        "{:?}",
        status.additional_ips
    );
    bench.expect_clean().await;
}
