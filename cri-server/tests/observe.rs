//! Statistics, metrics, events and streaming lists of a node with one pod and what runs in it.

mod common;

use std::time::{Duration, Instant};

use common::{Daemon, Dirs, image, pods_can_run};
use proto::davit::v1 as davit;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

type Client = RuntimeServiceClient<Channel>;

const IMAGE: &str = "localhost/busybox:1";

struct Node {
    daemon: Daemon,
    client: Client,
}

fn can_run() -> bool {
    pods_can_run() && image::can_be_made()
}

fn on_the_host() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn pod(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(on_the_host()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        labels: [("tier".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                ..Default::default()
            }),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(on_the_host()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

impl Node {
    async fn start() -> Self {
        let dirs = Dirs::new();
        let (layout, _) = image::layout(&dirs, "layout", "");
        let command = dirs.bare_command();
        let daemon = Daemon::start_with(dirs, command).await;
        let request = davit::ImportRequest {
            path: layout.to_str().expect("UTF-8").into(),
            reference: IMAGE.into(),
        };
        let import = daemon.davit().await.import(request).await;
        let mut steps = import.expect("imported").into_inner();
        while steps.message().await.expect("imported").is_some() {}
        let client = daemon.runtime().await;
        Self { daemon, client }
    }

    async fn run_pod(&mut self, name: &str) -> String {
        let request = RunPodSandboxRequest {
            config: Some(pod(name)),
            ..Default::default()
        };
        let answer = self.client.run_pod_sandbox(request).await.expect("a pod");
        answer.into_inner().pod_sandbox_id
    }

    async fn create(&mut self, pod_id: &str, config: ContainerConfig) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod_id.into(),
            config: Some(config),
            sandbox_config: Some(pod("p")),
        };
        let answer = self.client.create_container(request).await;
        answer.expect("created").into_inner().container_id
    }

    async fn run(&mut self, pod_id: &str, config: ContainerConfig) -> String {
        let container_id = self.create(pod_id, config).await;
        let request = StartContainerRequest {
            container_id: container_id.clone(),
        };
        self.client.start_container(request).await.expect("started");
        container_id
    }

    async fn stop(&mut self, id: &str) {
        let request = StopContainerRequest {
            container_id: id.into(),
            timeout: 0,
        };
        self.client.stop_container(request).await.expect("stopped");
    }

    async fn remove(&mut self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.into(),
        };
        self.client
            .remove_container(request)
            .await
            .expect("removed");
    }

    async fn stats(&mut self, id: &str) -> Result<ContainerStats, tonic::Status> {
        let request = ContainerStatsRequest {
            container_id: id.into(),
        };
        let answer = self.client.container_stats(request).await?.into_inner();
        Ok(answer.stats.expect("stats"))
    }

    async fn listed(&mut self, filter: ContainerStatsFilter) -> Vec<String> {
        let request = ListContainerStatsRequest {
            filter: Some(filter),
        };
        let answer = self.client.list_container_stats(request).await;
        let all = answer.expect("listed").into_inner().stats.into_iter();
        all.map(|one| one.attributes.expect("attributes").id)
            .collect()
    }
}

fn value(from: Option<UInt64Value>) -> u64 {
    from.expect("a value").value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_container_has_a_rate_from_the_first_answer_on_and_an_idle_one_memory() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let busy = node
        .run(
            &pod,
            container("busy", &["sh", "-c", "while :; do :; done"]),
        )
        .await;
    // It has used some time as soon as it runs; the counter of v1 is exact, so a moment is enough.
    let end = Instant::now() + common::DEADLINE;
    let first = loop {
        let stats = node.stats(&busy).await.expect("known");
        let cpu = stats.cpu.expect("CPU");
        if value(cpu.usage_core_nano_seconds) > 1_000_000 {
            break stats;
        }
        assert!(Instant::now() < end, "{cpu:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let cpu = first.cpu.expect("CPU");
    assert!(value(cpu.usage_nano_cores) > 1_000_000, "{cpu:?}");
    assert!(cpu.timestamp > 1_600_000_000_000_000_000, "{cpu:?}");
    let memory = first.memory.expect("memory");
    assert!(value(memory.usage_bytes) > 0 && value(memory.working_set_bytes) > 0);
    let available = value(memory.available_bytes);
    assert!(
        available < 64 << 20 && available > 32 << 20,
        "{available} of the limit are left"
    );
    let layer = first.writable_layer.expect("a layer");
    assert!(value(layer.inodes_used) > 0);
    assert!(layer.fs_id.expect("a place").mountpoint.ends_with("/upper"));
    let attributes = first.attributes.expect("attributes");
    assert_eq!(attributes.metadata.expect("metadata").name, "busy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_statistics_hold_what_runs_and_what_the_filter_says() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let runs = node.run(&pod, container("a", &["sleep", "1000"])).await;
    let other = node.run(&pod, container("b", &["sleep", "1000"])).await;
    let created = node.create(&pod, container("c", &["sleep", "1"])).await;
    let exited = node.run(&pod, container("d", &["true"])).await;
    node.stop(&exited).await;
    let mut all = node.listed(ContainerStatsFilter::default()).await;
    let mut want = vec![runs.clone(), other.clone()];
    all.sort();
    want.sort();
    assert_eq!(all, want);
    let by = |id: &str, pod_sandbox_id: &str, tier: &str| ContainerStatsFilter {
        id: id.into(),
        pod_sandbox_id: pod_sandbox_id.into(),
        label_selector: [("tier".to_owned(), tier.to_owned())]
            .into_iter()
            .filter(|_| !tier.is_empty())
            .collect(),
    };
    assert_eq!(node.listed(by(&runs[..12], "", "")).await, [&*runs]);
    assert_eq!(node.listed(by("", &pod, "b")).await, [&*other]);
    assert!(node.listed(by(&runs, "", "b")).await.is_empty());
    assert!(node.listed(by("", "ffff", "")).await.is_empty());
    // Asked for by itself, one that does not run has its layer, and no CPU time that would look like 0.
    let stats = node.stats(&exited).await.expect("known");
    assert!(stats.cpu.is_none() && stats.memory.is_none() && stats.writable_layer.is_some());
    assert!(node.stats(&created).await.expect("known").cpu.is_some());
    let unknown = node.stats("ffff").await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_s_statistics_hold_its_containers_and_no_network_of_the_host() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let id = node.run(&pod, container("a", &["sleep", "1000"])).await;
    let request = |id: &str| PodSandboxStatsRequest {
        pod_sandbox_id: id.into(),
    };
    let answer = node.client.pod_sandbox_stats(request(&pod)).await;
    let stats = answer
        .expect("known")
        .into_inner()
        .stats
        .expect("statistics");
    let linux = stats.linux.expect("linux");
    assert!(value(linux.memory.expect("memory").usage_bytes) > 0);
    assert!(value(linux.process.expect("processes").process_count) > 0);
    assert!(value(linux.cpu.expect("CPU").usage_core_nano_seconds) > 0);
    assert_eq!(linux.network, None);
    let containers: Vec<String> = linux
        .containers
        .into_iter()
        .map(|one| one.attributes.expect("attributes").id)
        .collect();
    assert_eq!(containers, [id]);
    let unknown = node
        .client
        .pod_sandbox_stats(request("ffff"))
        .await
        .expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
    let listed = |app: &str| ListPodSandboxStatsRequest {
        filter: Some(PodSandboxStatsFilter {
            label_selector: [("app".to_owned(), app.to_owned())].into(),
            ..Default::default()
        }),
    };
    for (app, count) in [("p", 1), ("q", 0)] {
        let answer = node.client.list_pod_sandbox_stats(listed(app)).await;
        assert_eq!(answer.expect("listed").into_inner().stats.len(), count);
    }
}

/// critest 1.37: label values stand in the order of the descriptor's keys, and every metric has a descriptor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_descriptors_with_their_labels_in_order() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let id = node.run(&pod, container("a", &["sleep", "1000"])).await;
    let answer = node
        .client
        .list_metric_descriptors(ListMetricDescriptorsRequest {})
        .await;
    let descriptors = answer.expect("listed").into_inner().descriptors;
    let answer = node
        .client
        .list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {})
        .await;
    let pods = answer.expect("listed").into_inner().pod_metrics;
    assert_eq!((pods.len(), &pods[0].pod_sandbox_id), (1, &pod));
    let of = &pods[0].container_metrics[0];
    assert_eq!(of.container_id, id);
    for metric in pods[0].metrics.iter().chain(&of.metrics) {
        let descriptor = descriptors.iter().find(|one| one.name == metric.name);
        let keys = &descriptor.expect("a descriptor").label_keys;
        assert_eq!(keys.len(), metric.label_values.len(), "{metric:?}");
        let at = |key| keys.iter().position(|one| one == key).expect("a key");
        assert_eq!(metric.label_values[at("pod")], "p");
        assert_eq!(metric.label_values[at("namespace")], "n");
    }
    let limit = |one: &&Metric| one.name == "container_spec_memory_limit_bytes";
    let limit = of.metrics.iter().find(limit).expect("a limit");
    assert_eq!(value(limit.value), 64 << 20);
    for name in [
        "container_memory_working_set_bytes",
        "container_cpu_usage_seconds_total",
        "container_processes",
        "container_start_time_seconds",
        "container_file_descriptors",
    ] {
        assert!(of.metrics.iter().any(|one| one.name == name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_hold_what_the_lists_hold() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let id = node.run(&pod, container("a", &["sleep", "1000"])).await;
    macro_rules! items {
        ($client:expr, $rpc:ident, $request:ident, $field:ident) => {{
            let answer = $client.$rpc($request::default()).await;
            let mut stream = answer.expect("a stream").into_inner();
            let mut all = Vec::new();
            while let Some(message) = stream.message().await.expect("no error") {
                assert!(!message.$field.is_empty(), "an empty message");
                all.extend(message.$field);
            }
            all
        }};
    }
    let client = &mut node.client;
    let pods = items!(
        client,
        stream_pod_sandboxes,
        StreamPodSandboxesRequest,
        pod_sandboxes
    );
    assert_eq!(pods.iter().map(|one| &one.id).collect::<Vec<_>>(), [&pod]);
    let containers = items!(
        client,
        stream_containers,
        StreamContainersRequest,
        containers
    );
    assert_eq!(
        containers.iter().map(|one| &one.id).collect::<Vec<_>>(),
        [&id]
    );
    let stats = items!(
        client,
        stream_container_stats,
        StreamContainerStatsRequest,
        container_stats
    );
    let pod_stats = items!(
        client,
        stream_pod_sandbox_stats,
        StreamPodSandboxStatsRequest,
        pod_sandbox_stats
    );
    let metrics = items!(
        client,
        stream_pod_sandbox_metrics,
        StreamPodSandboxMetricsRequest,
        pod_sandbox_metrics
    );
    assert_eq!((stats.len(), pod_stats.len(), metrics.len()), (1, 1, 1));
    let mut images = node.daemon.images().await;
    assert_eq!(
        items!(images, stream_images, StreamImagesRequest, images).len(),
        1
    );
}

async fn next(events: &mut Streaming<ContainerEventResponse>) -> ContainerEventResponse {
    let event = tokio::time::timeout(common::DEADLINE, events.message()).await;
    event
        .expect("in time")
        .expect("no error")
        .expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_hears_of_a_life_from_creation_to_deletion() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let mut subscribers = Vec::new();
    for _ in 0..2 {
        let answer = node.client.get_container_events(GetEventsRequest {}).await;
        subscribers.push(answer.expect("a stream").into_inner());
    }
    let pod = node.run_pod("p").await;
    let id = node.run(&pod, container("a", &["sleep", "1000"])).await;
    node.stop(&id).await;
    node.remove(&id).await;
    let request = RemovePodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    node.client
        .remove_pod_sandbox(request)
        .await
        .expect("removed");
    use ContainerEventType::*;
    let want = [
        (&pod, ContainerCreatedEvent),
        (&pod, ContainerStartedEvent),
        (&id, ContainerCreatedEvent),
        (&id, ContainerStartedEvent),
        (&id, ContainerStoppedEvent),
        (&id, ContainerDeletedEvent),
        (&pod, ContainerStoppedEvent),
        (&pod, ContainerDeletedEvent),
    ];
    for events in &mut subscribers {
        let mut last = 0;
        for (about, kind) in want {
            let event = next(events).await;
            assert_eq!(
                (&event.container_id, event.container_event_type()),
                (about, kind)
            );
            assert!(event.created_at >= last, "{event:?}");
            last = event.created_at;
            assert_eq!(event.pod_sandbox_status.expect("a pod").id, pod);
            // The last event of a container still says how it ended.
            if *about == id {
                let states: Vec<_> = event.containers_statuses.iter().map(|c| &c.id).collect();
                assert_eq!(states, [&id]);
            }
            if (about, kind) == (&id, ContainerDeletedEvent) {
                assert_eq!(event.containers_statuses[0].exit_code, 137);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_event_stream_does_not_delay_the_end() {
    let mut daemon = Daemon::start().await;
    let mut client = daemon.runtime().await;
    let answer = client.get_container_events(GetEventsRequest {}).await;
    let mut events = answer.expect("a stream").into_inner();
    let begin = Instant::now();
    daemon.signal("TERM");
    let end = events.message().await.expect_err("an end");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(daemon.wait().success());
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_s_resources_limit_its_own_cgroup_and_show_in_its_status() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let pod = node.run_pod("p").await;
    let update = |limit: i64| UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead: None,
        resources: Some(LinuxContainerResources {
            memory_limit_in_bytes: limit,
            ..Default::default()
        }),
    };
    node.client
        .update_pod_sandbox_resources(update(128 << 20))
        .await
        .expect("updated");
    let info = verbose(&mut node.client, &pod).await;
    let shown = &info["config"]["resources"]["memory_limit_in_bytes"];
    assert_eq!(shown, 128 << 20);
    let cgroup = info["cgroup"].as_str().expect("a cgroup");
    let file = |hierarchy: &str, name: &str| {
        std::fs::read_to_string(format!("/sys/fs/cgroup{hierarchy}{cgroup}/{name}"))
    };
    let limit = file("/memory", "memory.limit_in_bytes").or_else(|_| file("", "memory.max"));
    assert_eq!(limit.expect("a limit").trim(), (128 << 20).to_string());
    let unknown = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: "ffff".into(),
        ..Default::default()
    };
    let refused = node.client.update_pod_sandbox_resources(unknown).await;
    assert_eq!(refused.expect_err("unknown").code(), Code::NotFound);
}

async fn verbose(client: &mut Client, pod: &str) -> serde_json::Value {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.into(),
        verbose: true,
    };
    let answer = client.pod_sandbox_status(request).await.expect("known");
    serde_json::from_str(&answer.into_inner().info["info"]).expect("JSON")
}
