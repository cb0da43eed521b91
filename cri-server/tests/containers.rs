//! Images and containers through CRI, from import to removal, with our own shim and runtime.

mod common;

use std::collections::BTreeMap;

use common::{Daemon, Dirs, image, pods_can_run};
use proto::davit::v1 as davit;
use proto::davit::v1::Phase;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Status};

type Client = RuntimeServiceClient<Channel>;

/// A daemon with one image and one pod on the host's network.
struct Node {
    daemon: Daemon,
    client: Client,
    image_id: String,
    pod_id: String,
}

const IMAGE: &str = "localhost/busybox:1";

fn can_run() -> bool {
    pods_can_run() && image::can_be_made()
}

fn pod() -> PodSandboxConfig {
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        ..Default::default()
    };
    let security_context = LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..Default::default()
    };
    let metadata = PodSandboxMetadata {
        name: "p".into(),
        uid: "u".into(),
        namespace: "n".into(),
        attempt: 0,
    };
    PodSandboxConfig {
        metadata: Some(metadata),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(security_context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(name: &str, command: &[&str]) -> ContainerConfig {
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    };
    let security_context = LinuxContainerSecurityContext {
        namespace_options: Some(options),
        ..Default::default()
    };
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
        linux: Some(LinuxContainerConfig {
            security_context: Some(security_context),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Node {
    async fn start() -> Self {
        let dirs = Dirs::new();
        let (layout, id) = image::layout(&dirs, "layout", "");
        let command = dirs.bare_command();
        let daemon = Daemon::start_with(dirs, command).await;
        let path = layout.to_str().expect("UTF-8").to_owned();
        let steps = import(&daemon, &path, IMAGE).await.expect("imported");
        let image_id = steps.last().expect("a message").image_id.clone();
        assert_eq!(image_id, id);
        let mut client = daemon.runtime().await;
        let request = RunPodSandboxRequest {
            config: Some(pod()),
            ..Default::default()
        };
        let pod_id = client
            .run_pod_sandbox(request)
            .await
            .expect("a pod")
            .into_inner()
            .pod_sandbox_id;
        Self {
            daemon,
            client,
            image_id,
            pod_id,
        }
    }

    async fn create(&mut self, config: ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod_id.clone(),
            config: Some(config),
            sandbox_config: Some(pod()),
        };
        self.client
            .create_container(request)
            .await
            .map(|answer| answer.into_inner().container_id)
    }

    async fn run(&mut self, config: ContainerConfig) -> String {
        let id = self.create(config).await.expect("created");
        let request = StartContainerRequest {
            container_id: id.clone(),
        };
        self.client.start_container(request).await.expect("started");
        id
    }

    async fn status(&mut self, id: &str) -> Result<ContainerStatusResponse, Status> {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: true,
        };
        self.client
            .container_status(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Waits for the end of a container, as the kubelet does: by asking.
    async fn exited(&mut self, id: &str) -> ContainerStatus {
        let end = std::time::Instant::now() + common::DEADLINE;
        loop {
            let status = self
                .status(id)
                .await
                .expect("known")
                .status
                .expect("a status");
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            assert!(std::time::Instant::now() < end, "{status:?}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn exec(
        &mut self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd,
            timeout,
        };
        self.client
            .exec_sync(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

async fn import(
    daemon: &Daemon,
    path: &str,
    reference: &str,
) -> Result<Vec<davit::Progress>, Status> {
    let request = davit::ImportRequest {
        path: path.into(),
        reference: reference.into(),
    };
    let mut stream = daemon.davit().await.import(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(step) = stream.message().await? {
        all.push(step);
    }
    Ok(all)
}

/// Image.id, Container.image_id and ContainerStatus.image_id are one string (CRI 1.36, PullImageResponse).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_image_has_the_same_id_everywhere() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let id = node
        .create(container("c", &["sleep", "1000"]))
        .await
        .expect("created");
    let mut images = node.daemon.images().await;
    let spec = |name: &str| {
        Some(ImageSpec {
            image: name.into(),
            ..Default::default()
        })
    };
    for name in [
        IMAGE,
        &node.image_id,
        &node.image_id["sha256:".len()..][..12],
    ] {
        let request = ImageStatusRequest {
            image: spec(name),
            verbose: true,
        };
        let answer = images
            .image_status(request)
            .await
            .expect("answered")
            .into_inner();
        let found = answer
            .image
            .unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(found.id, node.image_id);
        assert_eq!(found.repo_tags, [IMAGE]);
        assert!(found.size > 0);
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).expect("JSON");
        assert_eq!(info["imageSpec"]["config"]["Cmd"][0], "sh");
    }
    let filter = Some(ImageFilter { image: spec(IMAGE) });
    let list = images
        .list_images(ListImagesRequest { filter })
        .await
        .expect("answered")
        .into_inner()
        .images;
    assert_eq!(
        list.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(),
        [node.image_id.as_str()]
    );

    let status = node
        .status(&id)
        .await
        .expect("known")
        .status
        .expect("a status");
    assert_eq!(status.image_id, node.image_id);
    assert_eq!(status.image.expect("an image").image, IMAGE);
    let row = node
        .client
        .list_containers(ListContainersRequest::default())
        .await
        .expect("a list")
        .into_inner();
    assert_eq!(row.containers[0].image_id, node.image_id);
    assert_eq!(row.containers[0].pod_sandbox_id, node.pod_id);
}

/// CRI: uid for a number, username for a name, and only the part before the colon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_an_image_is_a_uid_or_a_name() {
    if !image::can_be_made() {
        return;
    }
    let dirs = Dirs::new();
    let users = [
        ("1002", Some(1002), ""),
        ("1003:1004", Some(1003), ""),
        ("web", None, "web"),
        ("web:1004", None, "web"),
        ("", None, ""),
    ];
    let layouts: Vec<String> = (0..users.len())
        .map(|n| {
            image::layout(&dirs, &format!("layout{n}"), users[n].0)
                .0
                .to_str()
                .expect("UTF-8")
                .to_owned()
        })
        .collect();
    let command = dirs.command();
    let daemon = Daemon::start_with(dirs, command).await;
    for (layout, (user, uid, username)) in layouts.iter().zip(users) {
        let name = "localhost/user:1";
        let steps = import(&daemon, layout, name).await.expect("imported");
        assert_eq!(
            steps.last().map(davit::Progress::phase),
            Some(Phase::Image),
            "{steps:?}"
        );
        let image = Some(ImageSpec {
            image: name.into(),
            ..Default::default()
        });
        let request = ImageStatusRequest {
            image,
            verbose: false,
        };
        let found = daemon
            .images()
            .await
            .image_status(request)
            .await
            .expect("answered")
            .into_inner();
        let found = found.image.expect("an image");
        assert_eq!(
            (found.uid.map(|v| v.value), found.username.as_str()),
            (uid, username),
            "USER {user:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_lives_from_created_over_running_to_exited() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let config = ContainerConfig {
        labels: labels.clone(),
        ..container(
            "life",
            &[
                "sh",
                "-c",
                "trap 'exit 7' TERM; while :; do sleep 0.01; done",
            ],
        )
    };
    let id = node.create(config).await.expect("created");
    let created = node
        .status(&id)
        .await
        .expect("known")
        .status
        .expect("a status");
    assert_eq!(
        (created.state(), created.started_at, created.exit_code),
        (ContainerState::ContainerCreated, 0, 0)
    );
    assert_eq!(created.labels, labels);

    node.client
        .start_container(StartContainerRequest {
            container_id: id.clone(),
        })
        .await
        .expect("started");
    let answer = node.status(&id).await.expect("known");
    let running = answer.status.expect("a status");
    assert_eq!(running.state(), ContainerState::ContainerRunning);
    assert!(running.started_at >= running.created_at, "{running:?}");
    let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).expect("JSON");
    let pid = info["pid"].as_u64().expect("a pid");
    // A signal before the trap is lost: process 1 of a namespace has no default action.
    common::eventually("SIGTERM is caught", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        caught
            .is_some_and(|signals| signals & (1 << 14) != 0)
            .then_some(())
    });
    assert!(info["runtimeSpec"]["process"]["args"].is_array(), "{info}");
    assert_eq!(info["sandboxID"].as_str(), Some(node.pod_id.as_str()));
    let again = node
        .client
        .start_container(StartContainerRequest {
            container_id: id.clone(),
        })
        .await;
    assert_eq!(again.expect_err("it runs").code(), Code::FailedPrecondition);

    let output = node
        .exec(
            &id[..16],
            &["sh", "-c", "echo out; echo err >&2; exit 3"],
            10,
        )
        .await
        .expect("ran");
    assert_eq!(
        (output.stdout, output.stderr, output.exit_code),
        (b"out\n".to_vec(), b"err\n".to_vec(), 3)
    );
    for _ in 0..2 {
        let stop = StopContainerRequest {
            container_id: id.clone(),
            timeout: 20,
        };
        node.client.stop_container(stop).await.expect("stopped");
    }
    let exited = node.exited(&id).await;
    assert_eq!((exited.exit_code, exited.reason.as_str()), (7, "Error"));
    assert!(exited.finished_at >= exited.started_at, "{exited:?}");
    let exec = node
        .exec(&id, &["true"], 1)
        .await
        .expect_err("it has ended");
    assert_eq!(exec.code(), Code::FailedPrecondition);
    for _ in 0..2 {
        node.client
            .remove_container(RemoveContainerRequest {
                container_id: id.clone(),
            })
            .await
            .expect("removed");
        assert_eq!(
            node.status(&id).await.expect_err("gone").code(),
            Code::NotFound
        );
    }
}

/// The kubelet tells a failed probe from a broken one by this code; what the command started must be dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_over_its_time_is_deadline_exceeded_and_dead() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let id = node.run(container("c", &["sleep", "1000"])).await;
    let over = node
        .exec(&id, &["sh", "-c", "sleep 777 & sleep 778"], 1)
        .await
        .expect_err("too long");
    assert_eq!(over.code(), Code::DeadlineExceeded, "{over}");
    let processes = node.exec(&id, &["ps"], 10).await.expect("ran");
    let text = common::text(&processes.stdout);
    assert!(
        text.contains("sleep 1000") && !text.contains("77"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_while_a_container_runs_and_show_in_its_status() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let id = node.run(container("c", &["sleep", "1000"])).await;
    let linux = Some(LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        cpu_shares: 300,
        ..Default::default()
    });
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux,
        ..Default::default()
    };
    node.client
        .update_container_resources(request)
        .await
        .expect("updated");
    let status = node
        .status(&id)
        .await
        .expect("known")
        .status
        .expect("a status");
    let linux = status.resources.and_then(|r| r.linux).expect("resources");
    assert_eq!(
        (linux.memory_limit_in_bytes, linux.cpu_shares),
        (32 << 20, 300)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_be_made_says_why_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let missing = Some(ImageSpec {
        image: "localhost/none:1".into(),
        ..Default::default()
    });
    let error = node
        .create(ContainerConfig {
            image: missing,
            ..container("a", &["true"])
        })
        .await
        .expect_err("no image");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("localhost/none:1"), "{error}");
    let id = node.create(container("b", &["/no/such/program"])).await;
    let error = match id {
        Err(error) => error,
        Ok(id) => {
            let start = StartContainerRequest {
                container_id: id.clone(),
            };
            let error = node
                .client
                .start_container(start)
                .await
                .expect_err("no such program");
            let status = node.exited(&id).await;
            assert_eq!(
                (status.exit_code, status.reason.as_str()),
                (128, "StartError")
            );
            node.client
                .remove_container(RemoveContainerRequest { container_id: id })
                .await
                .expect("removed");
            error
        }
    };
    assert!(error.message().contains("/no/such/program"), "{error}");
    let list = node
        .client
        .list_containers(ListContainersRequest::default())
        .await
        .expect("a list")
        .into_inner();
    assert_eq!(list.containers, []);
}
