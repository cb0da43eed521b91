//! What each RPC answers on a node without pods: the codes that the kubelet and crictl depend on.

mod common;

use std::collections::BTreeMap;

use common::{Daemon, Dirs};
use proto::davit::v1 as davit;
use proto::runtime::v1::*;
use tonic::{Code, Status};

/// What a client sees: OK, or a code and a message.
fn outcome<T>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

fn image(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: name.into(),
        ..Default::default()
    })
}

/// cri-client refuses a runtime with an empty field here.
#[tokio::test]
async fn version_fills_all_four_fields() {
    let daemon = Daemon::start().await;
    let version = daemon
        .runtime()
        .await
        .version(common::version())
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(
        (
            version.version.as_str(),
            version.runtime_api_version.as_str()
        ),
        ("0.1.0", "v1")
    );
    assert_eq!(version.runtime_name, "davit");
    assert!(!version.runtime_version.is_empty());
}

#[tokio::test]
async fn status_has_both_conditions_and_the_default_handler() {
    let daemon = Daemon::start().await;
    let request = StatusRequest { verbose: true };
    let status = daemon
        .runtime()
        .await
        .status(request)
        .await
        .expect("answered")
        .into_inner();
    let conditions = status.status.expect("a status").conditions;
    let mut types: Vec<&str> = conditions.iter().map(|c| c.r#type.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["NetworkReady", "RuntimeReady"]);

    let mut names: Vec<String> = status
        .runtime_handlers
        .iter()
        .map(|h| h.name.clone())
        .collect();
    assert!(
        names.contains(&String::new()) && names.contains(&"davit-oci".to_owned()),
        "{names:?}"
    );
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "names are unique: {names:?}");

    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).expect("JSON");
    assert_eq!(
        config["stateDir"].as_str(),
        daemon.dirs().path("run").to_str(),
        "critest reads it"
    );
}

#[tokio::test]
async fn status_without_verbose_says_no_more_than_asked() {
    let daemon = Daemon::start().await;
    let status = daemon
        .runtime()
        .await
        .status(StatusRequest::default())
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(status.info, BTreeMap::new());
}

#[tokio::test]
async fn the_cgroup_driver_is_the_configured_one() {
    expect_driver(Daemon::start().await, CgroupDriver::Cgroupfs).await;
    let dirs = Dirs::new();
    let file = dirs.path("config.toml");
    std::fs::write(&file, "cgroup_driver = \"systemd\"\n").expect("written");
    let mut command = dirs.command();
    command.arg("--config").arg(file);
    let daemon = Daemon::start_with(dirs, command).await;
    expect_driver(daemon, CgroupDriver::Systemd).await;
}

async fn expect_driver(daemon: Daemon, driver: CgroupDriver) {
    let answer = daemon
        .runtime()
        .await
        .runtime_config(RuntimeConfigRequest {})
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(answer.linux.expect("linux").cgroup_driver(), driver);
}

#[tokio::test]
async fn a_pod_range_is_taken_note_of() {
    let daemon = Daemon::start().await;
    let mut runtime = daemon.runtime().await;
    let request = |cidr: &str| {
        let network_config = Some(NetworkConfig {
            pod_cidr: cidr.into(),
        });
        UpdateRuntimeConfigRequest {
            runtime_config: Some(RuntimeConfig { network_config }),
        }
    };
    assert_eq!(
        outcome(runtime.update_runtime_config(request("10.7.0.0/24")).await).0,
        Code::Ok
    );
    assert_eq!(
        outcome(runtime.update_runtime_config(request("")).await).0,
        Code::Ok
    );
}

/// CRI: Stop and Remove of what is unknown succeed; everything else is NOT_FOUND, by which the kubelet knows that it
/// is gone. Empty ids name nothing, and must not be taken for the beginning of every id.
#[tokio::test]
async fn unknown_and_empty_ids_get_the_codes_of_cri() {
    let daemon = Daemon::start().await;
    let mut rt = daemon.runtime().await;
    for (id, gone, missing) in [
        ("0123456789abcdef", Code::Ok, Code::NotFound),
        ("no-hex-digits", Code::Ok, Code::NotFound),
        ("../../etc", Code::Ok, Code::NotFound),
        ("", Code::InvalidArgument, Code::InvalidArgument),
    ] {
        let pod_sandbox_id = id.to_owned();
        let container_id = id.to_owned();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        assert_eq!(
            outcome(rt.stop_pod_sandbox(stop).await).0,
            gone,
            "StopPodSandbox {id:?}"
        );
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        assert_eq!(
            outcome(rt.remove_pod_sandbox(remove).await).0,
            gone,
            "RemovePodSandbox {id:?}"
        );
        let stop = StopContainerRequest {
            container_id: id.into(),
            timeout: -1,
        };
        assert_eq!(
            outcome(rt.stop_container(stop).await).0,
            gone,
            "StopContainer {id:?}"
        );
        let remove = RemoveContainerRequest {
            container_id: id.into(),
        };
        assert_eq!(
            outcome(rt.remove_container(remove).await).0,
            gone,
            "RemoveContainer {id:?}"
        );

        let status = PodSandboxStatusRequest {
            pod_sandbox_id,
            verbose: true,
        };
        assert_eq!(
            outcome(rt.pod_sandbox_status(status).await).0,
            missing,
            "PodSandboxStatus {id:?}"
        );
        let status = ContainerStatusRequest {
            container_id,
            verbose: true,
        };
        assert_eq!(
            outcome(rt.container_status(status).await).0,
            missing,
            "ContainerStatus {id:?}"
        );
        let start = StartContainerRequest {
            container_id: id.into(),
        };
        assert_eq!(
            outcome(rt.start_container(start).await).0,
            missing,
            "StartContainer {id:?}"
        );
        let exec = ExecSyncRequest {
            container_id: id.into(),
            cmd: vec!["true".into()],
            timeout: 1,
        };
        assert_eq!(
            outcome(rt.exec_sync(exec).await).0,
            missing,
            "ExecSync {id:?}"
        );
        let reopen = ReopenContainerLogRequest {
            container_id: id.into(),
        };
        assert_eq!(
            outcome(rt.reopen_container_log(reopen).await).0,
            missing,
            "ReopenContainerLog {id:?}"
        );
        let linux = Some(LinuxContainerResources {
            cpu_shares: 2,
            ..Default::default()
        });
        let update = UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux,
            ..Default::default()
        };
        assert_eq!(
            outcome(rt.update_container_resources(update).await).0,
            missing,
            "UpdateContainerResources {id:?}"
        );
        let create = CreateContainerRequest {
            pod_sandbox_id: id.into(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "c".into(),
                    attempt: 0,
                }),
                image: image("busybox"),
                ..Default::default()
            }),
            sandbox_config: Some(PodSandboxConfig {
                metadata: Some(Default::default()),
                ..Default::default()
            }),
        };
        assert_eq!(
            outcome(rt.create_container(create).await).0,
            missing,
            "CreateContainer {id:?}"
        );
    }
}

#[tokio::test]
async fn lists_of_an_empty_node_are_empty_whatever_the_filter() {
    let daemon = Daemon::start().await;
    let mut rt = daemon.runtime().await;
    let state = |state| Some(PodSandboxStateValue { state });
    for filter in [
        None,
        Some(PodSandboxFilter::default()),
        Some(PodSandboxFilter {
            id: "abc".into(),
            state: state(0),
            ..Default::default()
        }),
    ] {
        let pods = rt
            .list_pod_sandbox(ListPodSandboxRequest { filter })
            .await
            .expect("answered")
            .into_inner();
        assert_eq!(pods.items, []);
    }
    let containers = rt
        .list_containers(ListContainersRequest::default())
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(containers.containers, []);
    let filter = Some(PodSandboxFilter {
        state: state(9),
        ..Default::default()
    });
    let (code, message) = outcome(rt.list_pod_sandbox(ListPodSandboxRequest { filter }).await);
    assert_eq!(
        (code, message.as_str()),
        (Code::InvalidArgument, "filter.state.state: unknown value 9")
    );
}

#[tokio::test]
async fn requests_without_their_parts_are_refused_by_field() {
    let daemon = Daemon::start().await;
    let mut rt = daemon.runtime().await;
    let pod = outcome(rt.run_pod_sandbox(RunPodSandboxRequest::default()).await);
    assert_eq!(pod, (Code::InvalidArgument, "config: is missing".into()));
    let request = RunPodSandboxRequest {
        config: Some(PodSandboxConfig::default()),
        ..Default::default()
    };
    let pod = outcome(rt.run_pod_sandbox(request).await);
    assert_eq!(
        pod,
        (Code::InvalidArgument, "config.metadata: is missing".into())
    );
    let request = CreateContainerRequest {
        pod_sandbox_id: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        outcome(rt.create_container(request).await),
        (Code::InvalidArgument, "config: is missing".into())
    );
    let request = ExecSyncRequest {
        container_id: "x".into(),
        ..Default::default()
    };
    assert_eq!(
        outcome(rt.exec_sync(request).await),
        (Code::InvalidArgument, "cmd: is empty".into())
    );
    let cmd = vec!["true".into()];
    let request = ExecSyncRequest {
        container_id: "x".into(),
        cmd,
        timeout: -3,
    };
    assert_eq!(
        outcome(rt.exec_sync(request).await),
        (Code::InvalidArgument, "timeout: -3 is negative".into())
    );
    let pull = outcome(
        daemon
            .images()
            .await
            .pull_image(PullImageRequest::default())
            .await,
    );
    assert_eq!(pull, (Code::InvalidArgument, "image: is missing".into()));
    let spec = ImageSpec {
        runtime_handler: "kata".into(),
        ..image("x").expect("a spec")
    };
    let request = PullImageRequest {
        image: Some(spec),
        ..Default::default()
    };
    let pull = outcome(daemon.images().await.pull_image(request).await);
    assert_eq!(
        pull,
        (
            Code::InvalidArgument,
            "image.runtime_handler: \"kata\" is not configured".into()
        )
    );
}

/// CRI: ImageStatus of an unknown image is OK without an image, RemoveImage of one succeeds.
#[tokio::test]
async fn an_unknown_image_is_no_error() {
    let daemon = Daemon::start().await;
    let mut images = daemon.images().await;
    for name in [
        "busybox",
        "registry.example/a/b:c",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ] {
        let request = ImageStatusRequest {
            image: image(name),
            verbose: true,
        };
        let status = images
            .image_status(request)
            .await
            .expect("answered")
            .into_inner();
        assert_eq!(status, ImageStatusResponse::default(), "{name}");
        images
            .remove_image(RemoveImageRequest { image: image(name) })
            .await
            .expect("removed");
        let filter = Some(ImageFilter { image: image(name) });
        let list = images
            .list_images(ListImagesRequest { filter })
            .await
            .expect("answered")
            .into_inner();
        assert_eq!(list.images, []);
    }
}

#[tokio::test]
async fn the_image_file_system_is_reported() {
    let daemon = Daemon::start().await;
    let answer = daemon
        .images()
        .await
        .image_fs_info(ImageFsInfoRequest {})
        .await
        .expect("answered")
        .into_inner();
    let usage = &answer.image_filesystems[0];
    assert!(usage.timestamp > 0);
    let mountpoint = &usage.fs_id.as_ref().expect("a file system").mountpoint;
    assert!(
        mountpoint.starts_with(daemon.dirs().path("state").to_str().expect("UTF-8")),
        "{mountpoint}"
    );
    assert!(usage.used_bytes.is_some() && usage.inodes_used.is_some());
    assert_eq!(answer.container_filesystems, answer.image_filesystems);
}

/// Nothing answers on port 1 of the loopback: the kubelet knows that error by its prefix.
#[tokio::test]
async fn a_registry_that_is_away_gets_the_kubelets_prefix() {
    let daemon = Daemon::start().await;
    let request = PullImageRequest {
        image: image("127.0.0.1:1/nobody/home:1"),
        ..Default::default()
    };
    let (code, message) = outcome(daemon.images().await.pull_image(request).await);
    assert_eq!(code, Code::Unknown, "{message}");
    assert!(message.starts_with("RegistryUnavailable: "), "{message}");
    assert!(message.contains("127.0.0.1:1"), "{message}");
}

#[tokio::test]
async fn secrets_of_a_pull_are_in_no_log_and_no_error() {
    let dirs = common::Dirs::new();
    let mut command = dirs.command();
    command.args(["--log-level", "trace"]);
    let daemon = Daemon::start_with(dirs, command).await;
    let auth = AuthConfig {
        username: "sesame-user".into(),
        password: "sesame-password".into(),
        auth: "c2VzYW1lLXVzZXI6c2VzYW1lLXBhc3N3b3Jk".into(),
        server_address: "127.0.0.1:1".into(),
        identity_token: "sesame-identity".into(),
        registry_token: "sesame-registry".into(),
    };
    let request = PullImageRequest {
        image: image("127.0.0.1:1/a:1"),
        auth: Some(auth),
        sandbox_config: None,
    };
    let (_, message) = outcome(daemon.images().await.pull_image(request).await);
    let credentials = davit::Credentials {
        username: "sesame-user".into(),
        password: "sesame-password".into(),
        identity_token: "sesame-identity".into(),
        registry_token: "sesame-registry".into(),
    };
    let request = davit::PullRequest {
        reference: "127.0.0.1:1/a:1".into(),
        credentials: Some(credentials),
        ..Default::default()
    };
    let mut stream = daemon
        .davit()
        .await
        .pull(request)
        .await
        .expect("a stream")
        .into_inner();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a pull from nowhere succeeded"),
            Err(status) => break status,
        }
    };
    let log = daemon.dirs().log();
    assert!(log.contains("PullImage"), "the log has the request:\n{log}");
    for text in [message.as_str(), status.message(), &log] {
        assert!(
            !text.contains("sesame") && !text.contains("c2VzYW1l"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_import_of_what_is_not_there_fails_with_the_path() {
    let daemon = Daemon::start().await;
    let mut davit = daemon.davit().await;
    let request = |path: &str| davit::ImportRequest {
        path: path.into(),
        reference: String::new(),
    };
    let relative = outcome(davit.import(request("image.tar")).await);
    assert_eq!(relative.0, Code::InvalidArgument);
    let mut stream = davit
        .import(request("/nonexistent/image.tar"))
        .await
        .expect("a stream")
        .into_inner();
    let status = stream.message().await.expect_err("no such file");
    assert!(
        status.message().contains("/nonexistent/image.tar"),
        "{status}"
    );
}

/// One row per RPC that is not there yet. Clients of the streaming lists fall back to the plain ones by this code.
#[tokio::test]
async fn every_other_rpc_is_unimplemented_by_name() {
    let daemon = Daemon::start().await;
    let rt = daemon.runtime().await;
    macro_rules! answers {
        ($client:expr, $( $rpc:ident($request:ident) $name:literal; )*) => {
            vec![$( ($name, outcome($client.clone().$rpc($request::default()).await)) ),*]
        };
    }
    let all = answers! { rt,
        checkpoint_container(CheckpointContainerRequest) "CheckpointContainer";
        checkpoint_pod(CheckpointPodRequest) "CheckpointPod";
        restore_pod(RestorePodRequest) "RestorePod";
    };
    for (name, answer) in &all {
        assert_eq!(
            *answer,
            (Code::Unimplemented, format!("{name} is not supported yet"))
        );
    }
    // 34 that are real here, 6 of the images: together every RPC of the two services.
    let api = include_str!("../../proto/cri/runtime/v1/api.proto");
    let rpcs = api
        .lines()
        .filter(|line| line.trim_start().starts_with("rpc "))
        .count();
    assert_eq!(all.len() + 34 + 6, rpcs);
}

/// crictl pods of a big node are megabytes; the default limits of gRPC libraries are 4 MiB.
#[tokio::test]
async fn requests_of_many_megabytes_are_read() {
    let daemon = Daemon::start().await;
    let mut rt = daemon.runtime().await;
    let annotations: BTreeMap<String, String> = (0..20)
        .map(|n| (n.to_string(), "x".repeat(1 << 20)))
        .collect();
    let config = PodSandboxConfig {
        annotations,
        ..Default::default()
    };
    let request = RunPodSandboxRequest {
        config: Some(config),
        ..Default::default()
    };
    let answer = outcome(rt.run_pod_sandbox(request).await);
    assert_eq!(
        answer,
        (Code::InvalidArgument, "config.metadata: is missing".into())
    );
    let cmd = vec!["x".repeat(70 << 20)];
    let request = ExecSyncRequest {
        container_id: "x".into(),
        cmd,
        timeout: 0,
    };
    let mut unlimited = daemon.runtime().await.max_encoding_message_size(usize::MAX);
    let (code, message) = outcome(unlimited.exec_sync(request).await);
    assert_eq!(code, Code::OutOfRange, "{message}");
    rt.version(common::version())
        .await
        .expect("the connection and the daemon live on");
}

/// Whoever writes garbage to the socket loses the connection, nobody else does.
#[tokio::test]
async fn garbage_on_the_socket_harms_nobody() {
    use std::io::{Read, Write};
    let daemon = Daemon::start().await;
    let mut healthy = daemon.runtime().await;
    let mut rude = std::os::unix::net::UnixStream::connect(daemon.socket()).expect("connected");
    rude.set_read_timeout(Some(common::DEADLINE)).expect("set");
    rude.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("written");
    let mut answer = Vec::new();
    match rude.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "it is closed"
        ),
    }
    healthy.version(common::version()).await.expect("answered");
}
