//! Pods: made whole or not at all, stopped and removed without a trace.

mod common;

use common::{Bench, poll_once};
use engine::Kind;
use engine::model::{NamespaceMode, PodFilter, PodState, PortMapping};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_ready_with_an_address_and_goes_without_a_trace() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    let id = engine.run_pod(bench.pod("web"), "").await.expect("a pod");
    let status = engine
        .pod_status(&id[..12])
        .expect("by the beginning of its id");
    assert_eq!(status.state, PodState::Ready);
    assert!(status.ip.starts_with("10."), "{}", status.ip);
    assert_eq!(status.annotations["note"], "ä ✓ \u{1}");
    assert!(status.created_at > 1_600_000_000_000_000_000, "nanoseconds");
    assert!(status.shim_pid.is_some());

    engine.stop_pod(&id).await.expect("stopped");
    engine.stop_pod(&id).await.expect("stopped again");
    assert_eq!(
        engine.pod_status(&id).expect("still known").state,
        PodState::NotReady
    );
    engine.remove_pod(&id).await.expect("removed");
    engine.remove_pod(&id).await.expect("removed again");
    assert_eq!(
        engine.pod_status(&id).expect_err("gone").kind(),
        Kind::NotFound
    );
    bench.expect_clean().await;
    drop(engine);
    bench.close().await;
    assert!(
        bench.cgroup_roots().iter().all(|root| !root.exists()),
        "an engine that closes without pods leaves no cgroup of its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mix_of_host_namespaces_gives_a_pod() {
    let mut bench = Bench::without_image("runc").await;
    let modes = [NamespaceMode::Pod, NamespaceMode::Node];
    for network in modes {
        for ipc in modes {
            for pid in [
                NamespaceMode::Pod,
                NamespaceMode::Container,
                NamespaceMode::Node,
            ] {
                let mut config = bench.pod("mix");
                config.security.namespaces.network = network;
                config.security.namespaces.ipc = ipc;
                config.security.namespaces.pid = pid;
                let case = format!("network {network:?} ipc {ipc:?} pid {pid:?}");
                let id = bench.engine().run_pod(config, "").await.expect(&case);
                let dir = bench.config.run_dir.join("pods").join(&id);
                assert_eq!(
                    dir.join("ns/net").exists(),
                    network == NamespaceMode::Pod,
                    "{case}"
                );
                assert_eq!(
                    dir.join("ns/ipc").exists(),
                    ipc == NamespaceMode::Pod,
                    "{case}"
                );
                assert_eq!(
                    dir.join("ns/pid").exists(),
                    pid == NamespaceMode::Pod,
                    "{case}"
                );
                bench.engine().remove_pod(&id).await.expect(&case);
            }
        }
    }
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_reserved_until_its_pod_is_removed() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    let config = bench.host_pod("web");
    let id = engine.run_pod(config.clone(), "").await.expect("a pod");
    let error = engine.run_pod(config.clone(), "").await.expect_err("taken");
    assert_eq!(error.kind(), Kind::AlreadyExists);
    assert_eq!(
        error.report(),
        format!("name \"web_default_uid-web_0\" is reserved for {id:?}")
    );
    engine.remove_pod(&id).await.expect("removed");
    engine.run_pod(config, "").await.expect("free again");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_finds_its_pod_with_the_same_request() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    let config = bench.pod("web");
    // The first poll starts the operation; dropping the future is what a cancelled RPC does.
    let mut first = Box::pin(engine.run_pod(config.clone(), ""));
    assert!(poll_once(first.as_mut()).await.is_none());
    drop(first);
    let id = engine
        .run_pod(config, "")
        .await
        .expect("the running operation's pod");
    assert_eq!(engine.list_pods(&PodFilter::default()).len(), 1);
    assert_eq!(
        engine.pod_status(&id).expect("known").state,
        PodState::Ready
    );
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_their_field_and_leave_nothing() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    type Change = Box<dyn Fn(&mut engine::model::PodConfig)>;
    let table: [(&str, Kind, &str, Change); 7] = [
        (
            "no uid",
            Kind::InvalidArgument,
            "metadata.uid",
            Box::new(|pod| pod.metadata.uid.clear()),
        ),
        (
            "hostname",
            Kind::InvalidArgument,
            "hostname",
            Box::new(|pod| pod.hostname = "x".repeat(65)),
        ),
        (
            "host port",
            Kind::InvalidArgument,
            "port_mappings[0].host_port",
            Box::new(|pod| {
                pod.port_mappings = vec![PortMapping {
                    container_port: 80,
                    host_port: 65536,
                    ..Default::default()
                }];
            }),
        ),
        (
            "sysctl",
            Kind::InvalidArgument,
            "kernel.panic is not namespaced",
            Box::new(|pod| {
                pod.sysctls.insert("kernel.panic".into(), "1".into());
            }),
        ),
        (
            "host sysctl",
            Kind::InvalidArgument,
            "net.core.somaxconn belongs to the network namespace",
            Box::new(|pod| {
                pod.security.namespaces.network = NamespaceMode::Node;
                pod.sysctls.insert("net.core.somaxconn".into(), "1".into());
            }),
        ),
        (
            "userns",
            Kind::InvalidArgument,
            "userns_options",
            Box::new(|pod| {
                pod.security.namespaces.userns = Some(Default::default());
            }),
        ),
        (
            "dns",
            Kind::InvalidArgument,
            "dns_config",
            Box::new(|pod| {
                pod.dns = Some(engine::model::DnsConfig {
                    servers: vec!["a\nb".into()],
                    ..Default::default()
                });
            }),
        ),
    ];
    for (case, kind, words, change) in table {
        let mut config = bench.pod("bad");
        change(&mut config);
        let error = engine.run_pod(config, "").await.expect_err(case);
        assert_eq!(error.kind(), kind, "{case}: {}", error.report());
        assert!(error.report().contains(words), "{case}: {}", error.report());
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "{case}");
    }
    let error = engine
        .run_pod(bench.pod("bad"), "gvisor")
        .await
        .expect_err("no such handler");
    assert!(
        error
            .report()
            .starts_with("runtime handler \"gvisor\" is not configured"),
        "{}",
        error.report()
    );
    assert!(engine.list_pods(&PodFilter::default()).is_empty());
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_fails_leaves_nothing_and_frees_the_name() {
    let mut bench = Bench::without_image("runc").await;
    std::fs::create_dir_all(&bench.config.network.conf_dir).expect("net.d");
    let conf = bench.config.network.conf_dir.join("10-bad.conflist");
    std::fs::write(
        &conf,
        r#"{"cniVersion":"1.0.0","name":"bad","plugins":[{"type":"there-is-none"}]}"#,
    )
    .expect("conf");
    let error = bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect_err("no plugin");
    assert!(
        error.report().contains("there-is-none"),
        "{}",
        error.report()
    );
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    std::fs::remove_file(conf).expect("removed");
    bench
        .engine()
        .run_pod(bench.pod("web"), "")
        .await
        .expect("with the built-in network");
    bench.expect_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_by_id_state_and_every_label() {
    let mut bench = Bench::without_image("runc").await;
    let engine = bench.engine().clone();
    let one = engine
        .run_pod(bench.host_pod("one"), "")
        .await
        .expect("a pod");
    let two = engine
        .run_pod(bench.host_pod("two"), "runc")
        .await
        .expect("a pod");
    engine.stop_pod(&two).await.expect("stopped");
    let ids = |filter: PodFilter| {
        engine
            .list_pods(&filter)
            .into_iter()
            .map(|pod| pod.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(PodFilter::default()).len(), 2);
    assert_eq!(
        ids(PodFilter {
            state: Some(PodState::Ready),
            ..Default::default()
        }),
        std::slice::from_ref(&one)
    );
    assert_eq!(
        ids(PodFilter {
            id: Some(two[..10].into()),
            ..Default::default()
        }),
        std::slice::from_ref(&two)
    );
    assert!(
        ids(PodFilter {
            id: Some("no".into()),
            ..Default::default()
        })
        .is_empty()
    );
    let mut labels = PodFilter::default();
    labels.labels.insert("app".into(), "one".into());
    assert_eq!(ids(labels.clone()), [one]);
    labels.labels.insert("tier".into(), "front".into());
    assert!(ids(labels).is_empty());
    bench.expect_clean().await;
}
