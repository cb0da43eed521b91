//! Pods through CRI, with our own shim: what the front-end promises about ids, filters, retries and restarts.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Daemon, Dirs, eventually, pods_can_run};
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::*;
use tonic::Code;
use tonic::transport::Channel;

type Client = RuntimeServiceClient<Channel>;

/// A daemon with our own binaries.
async fn node() -> Daemon {
    let dirs = Dirs::new();
    let command = dirs.bare_command();
    Daemon::start_with(dirs, command).await
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn pod(name: &str, network: NamespaceMode) -> PodSandboxConfig {
    let options = NamespaceOption {
        network: network.into(),
        ..Default::default()
    };
    let security_context = LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..Default::default()
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security_context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A pod with the host's network: nothing outside the daemon's directories changes.
async fn run(client: &mut Client, config: PodSandboxConfig) -> String {
    let request = RunPodSandboxRequest {
        config: Some(config),
        ..Default::default()
    };
    client
        .run_pod_sandbox(request)
        .await
        .expect("a pod")
        .into_inner()
        .pod_sandbox_id
}

async fn status(client: &mut Client, id: &str) -> Result<PodSandboxStatusResponse, tonic::Status> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: id.into(),
        verbose: true,
    };
    client
        .pod_sandbox_status(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn list(client: &mut Client, filter: PodSandboxFilter) -> Vec<String> {
    let request = ListPodSandboxRequest {
        filter: Some(filter),
    };
    let items = client
        .list_pod_sandbox(request)
        .await
        .expect("a list")
        .into_inner()
        .items;
    let mut names: Vec<String> = items
        .into_iter()
        .map(|p| p.metadata.expect("metadata").name)
        .collect();
    names.sort_unstable();
    names
}

async fn remove(client: &mut Client, id: &str) {
    client
        .remove_pod_sandbox(RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        })
        .await
        .expect("removed");
}

/// cri-client checks id, metadata and created_at of each status; critest the echo of labels and annotations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_from_ready_over_notready_to_not_found() {
    if !pods_can_run() {
        return;
    }
    let daemon = node().await;
    let mut client = daemon.runtime().await;
    let annotations = labels(&[("odd \n key", "\u{1F6A2} value\twith\u{0}everything")]);
    let config = PodSandboxConfig {
        labels: labels(&[("app", "web")]),
        annotations: annotations.clone(),
        ..pod("life", NamespaceMode::Node)
    };
    let id = run(&mut client, config.clone()).await;
    let found = status(&mut client, &id).await.expect("known");
    let one = found.status.expect("a status");
    assert_eq!(
        (one.id.as_str(), one.state()),
        (id.as_str(), PodSandboxState::SandboxReady)
    );
    assert_eq!(one.metadata, config.metadata);
    assert_eq!(
        (one.labels, one.annotations),
        (labels(&[("app", "web")]), annotations)
    );
    assert!(
        one.created_at > 1_700_000_000_000_000_000,
        "nanoseconds: {}",
        one.created_at
    );
    let options = one
        .linux
        .and_then(|l| l.namespaces)
        .and_then(|n| n.options)
        .expect("namespaces");
    assert_eq!(options.network(), NamespaceMode::Node);
    let info: serde_json::Value = serde_json::from_str(&found.info["info"]).expect("JSON");
    assert!(info["pid"].is_u64(), "{info}");

    for _ in 0..2 {
        client
            .stop_pod_sandbox(StopPodSandboxRequest {
                pod_sandbox_id: id.clone(),
            })
            .await
            .expect("stopped");
        let stopped = status(&mut client, &id)
            .await
            .expect("known")
            .status
            .expect("a status");
        assert_eq!(stopped.state(), PodSandboxState::SandboxNotready);
    }
    for _ in 0..2 {
        remove(&mut client, &id).await;
        assert_eq!(
            status(&mut client, &id).await.expect_err("gone").code(),
            Code::NotFound
        );
    }
}

/// crictl sends what a person typed; 17 ids share one of 16 first digits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unique_beginning_of_an_id_is_enough_and_an_ambiguous_one_is_refused() {
    if !pods_can_run() {
        return;
    }
    let daemon = node().await;
    let mut client = daemon.runtime().await;
    let mut ids = Vec::new();
    for n in 0..17 {
        ids.push(run(&mut client, pod(&n.to_string(), NamespaceMode::Node)).await);
    }
    let found = status(&mut client, &ids[3][..20])
        .await
        .expect("known")
        .status
        .expect("a status");
    assert_eq!(found.id, ids[3]);
    let by_id = PodSandboxFilter {
        id: ids[3][..20].to_owned(),
        ..Default::default()
    };
    assert_eq!(list(&mut client, by_id).await, ["3"]);
    let first_digits: Vec<char> = ids.iter().filter_map(|id| id.chars().next()).collect();
    let shared = first_digits
        .iter()
        .find(|d| first_digits.iter().filter(|e| e == d).count() > 1)
        .expect("17 into 16");
    let refused = status(&mut client, &shared.to_string())
        .await
        .expect_err("ambiguous");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("ambiguous"), "{refused}");
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: shared.to_string(),
    };
    assert_ne!(
        client.stop_pod_sandbox(stop).await.err().map(|s| s.code()),
        None,
        "which of them was stopped?"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_label_and_the_state_of_a_filter_must_match() {
    if !pods_can_run() {
        return;
    }
    let daemon = node().await;
    let mut client = daemon.runtime().await;
    let mut ids = Vec::new();
    for (name, set) in [
        ("a", &[("app", "web")][..]),
        ("b", &[("app", "web"), ("tier", "front")]),
        ("c", &[("tier", "front")]),
    ] {
        let config = PodSandboxConfig {
            labels: labels(set),
            ..pod(name, NamespaceMode::Node)
        };
        ids.push(run(&mut client, config).await);
    }
    client
        .stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: ids[0].clone(),
        })
        .await
        .expect("stopped");
    let by_labels = |set| PodSandboxFilter {
        label_selector: labels(set),
        ..Default::default()
    };
    assert_eq!(
        list(&mut client, by_labels(&[("app", "web")])).await,
        ["a", "b"]
    );
    assert_eq!(
        list(&mut client, by_labels(&[("app", "web"), ("tier", "front")])).await,
        ["b"]
    );
    assert_eq!(
        list(&mut client, by_labels(&[("app", "we")])).await,
        [""; 0]
    );
    let ready = Some(PodSandboxStateValue {
        state: PodSandboxState::SandboxReady.into(),
    });
    let filter = PodSandboxFilter {
        state: ready,
        ..by_labels(&[("app", "web")])
    };
    assert_eq!(list(&mut client, filter).await, ["b"]);
    assert_eq!(
        list(&mut client, PodSandboxFilter::default()).await,
        ["a", "b", "c"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_name_and_an_unknown_handler_are_refused_and_leave_nothing() {
    if !pods_can_run() {
        return;
    }
    let daemon = node().await;
    let mut client = daemon.runtime().await;
    let id = run(&mut client, pod("one", NamespaceMode::Node)).await;
    let request = RunPodSandboxRequest {
        config: Some(pod("one", NamespaceMode::Node)),
        ..Default::default()
    };
    let refused = client
        .run_pod_sandbox(request)
        .await
        .expect_err("the name is taken");
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains(&id), "{refused}");
    let config = Some(pod("two", NamespaceMode::Node));
    let request = RunPodSandboxRequest {
        config,
        runtime_handler: "kata".into(),
    };
    let refused = client
        .run_pod_sandbox(request)
        .await
        .expect_err("no such handler");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("\"kata\" is not configured"),
        "{refused}"
    );
    assert_eq!(
        list(&mut client, PodSandboxFilter::default()).await,
        ["one"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_their_records_outlive_a_killed_daemon() {
    if !pods_can_run() {
        return;
    }
    let daemon = node().await;
    let annotations = labels(&[("k", "\u{FEFF}v")]);
    let config = PodSandboxConfig {
        annotations,
        ..pod("survivor", NamespaceMode::Node)
    };
    let id = run(&mut daemon.runtime().await, config).await;
    let before = status(&mut daemon.runtime().await, &id)
        .await
        .expect("known");
    let dirs = daemon.kill();
    let command = dirs.bare_command();
    let daemon = Daemon::start_with(dirs, command).await;
    let mut client = daemon.runtime().await;
    let after = status(&mut client, &id).await.expect("known");
    assert_eq!(after.status, before.status);
    let taken = RunPodSandboxRequest {
        config: Some(pod("survivor", NamespaceMode::Node)),
        ..Default::default()
    };
    assert_eq!(
        client
            .run_pod_sandbox(taken)
            .await
            .expect_err("reserved")
            .code(),
        Code::AlreadyExists
    );
    remove(&mut client, &id).await;
}

/// A network plugin that waits in ADD until somebody writes to its gate, and notes each of its calls.
struct SlowNetwork<'a>(&'a Dirs);

impl<'a> SlowNetwork<'a> {
    fn new(dirs: &'a Dirs) -> Self {
        fs::create_dir_all(dirs.path("net.d")).expect("made");
        fs::create_dir_all(dirs.path("plugins")).expect("made");
        let network = r#"{"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]}"#;
        fs::write(dirs.path("net.d/10-slow.conflist"), network).expect("written");
        let made = Command::new("mkfifo")
            .arg(dirs.path("gate"))
            .status()
            .expect("mkfifo runs");
        assert!(made.success());
        let script = format!(
            r#"#!/bin/sh
echo "$CNI_COMMAND" >> {calls}
case "$CNI_COMMAND" in
VERSION) echo '{{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}}' ;;
ADD) cat {gate} && echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.98.7.6/24"}}],"dns":{{}}}}' ;;
esac
"#,
            calls = dirs.path("calls").display(),
            gate = dirs.path("gate").display(),
        );
        let plugin = dirs.path("plugins/slow");
        fs::write(&plugin, script).expect("written");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("executable");
        Self(dirs)
    }

    fn calls(&self, command: &str) -> usize {
        let all = fs::read_to_string(self.0.path("calls")).unwrap_or_default();
        all.lines().filter(|line| *line == command).count()
    }

    fn open_the_gate(&self) {
        fs::write(self.0.path("gate"), "").expect("somebody waits");
    }
}

/// The kubelet's call runs into its deadline while the network is slow; the operation goes on, and the kubelet's next
/// call, which is the same, gets its result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_goes_on_and_an_identical_retry_adopts_it() {
    if !pods_can_run() {
        return;
    }
    let dirs = Dirs::new();
    SlowNetwork::new(&dirs);
    let mut command = dirs.bare_command();
    command.arg("--cni-bin-dir").arg(dirs.path("plugins"));
    let daemon = Daemon::start_with(dirs, command).await;
    let network = SlowNetwork(daemon.dirs());
    let mut client = daemon.runtime().await;
    let request = || RunPodSandboxRequest {
        config: Some(pod("slow", NamespaceMode::Pod)),
        ..Default::default()
    };

    let mut impatient = daemon.runtime().await;
    let first = tokio::spawn(async move { impatient.run_pod_sandbox(request()).await });
    eventually("the plugin waits", || {
        (network.calls("ADD") == 1).then_some(())
    });
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    eventually("the daemon sees that the client left", || {
        daemon
            .dirs()
            .log()
            .contains("the client left")
            .then_some(())
    });

    let mut patient = daemon.runtime().await;
    let second = tokio::spawn(async move { patient.run_pod_sandbox(request()).await });
    network.open_the_gate();
    let id = second
        .await
        .expect("no panic")
        .expect("a pod")
        .into_inner()
        .pod_sandbox_id;
    let found = status(&mut client, &id)
        .await
        .expect("known")
        .status
        .expect("a status");
    assert_eq!(found.state(), PodSandboxState::SandboxReady);
    assert_eq!(found.network.expect("a network").ip, "10.98.7.6");
    assert_eq!(network.calls("ADD"), 1, "the retry started another pod");
    assert_eq!(
        list(&mut client, PodSandboxFilter::default()).await,
        ["slow"]
    );
    remove(&mut client, &id).await;
    assert_eq!(network.calls("DEL"), 1);
}

/// One pod's slow network holds up nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_pods_and_lists_answer_while_a_pod_is_being_made() {
    if !pods_can_run() {
        return;
    }
    let dirs = Dirs::new();
    SlowNetwork::new(&dirs);
    let mut command = dirs.bare_command();
    command.arg("--cni-bin-dir").arg(dirs.path("plugins"));
    let daemon = Daemon::start_with(dirs, command).await;
    let network = SlowNetwork(daemon.dirs());
    let mut client = daemon.runtime().await;
    let request = RunPodSandboxRequest {
        config: Some(pod("slow", NamespaceMode::Pod)),
        ..Default::default()
    };
    let mut other = daemon.runtime().await;
    let making = tokio::spawn(async move { other.run_pod_sandbox(request).await });
    eventually("the plugin waits", || {
        (network.calls("ADD") == 1).then_some(())
    });

    let quick = run(&mut client, pod("quick", NamespaceMode::Node)).await;
    assert!(
        list(&mut client, PodSandboxFilter::default())
            .await
            .contains(&"quick".to_owned())
    );
    remove(&mut client, &quick).await;
    network.open_the_gate();
    let id = making
        .await
        .expect("no panic")
        .expect("a pod")
        .into_inner()
        .pod_sandbox_id;
    remove(&mut client, &id).await;
    assert_eq!(
        list(&mut client, PodSandboxFilter::default()).await,
        [""; 0]
    );
}
