//! The sample pod: an image of ours, run and asked for its page. It shows that the whole path works on this host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::runtime::v1::{
    Capability, ContainerConfig, ContainerFilter, ContainerMetadata, ContainerState,
    CreateContainerRequest, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::Client;
use crate::node::Node;
use crate::{Error, Result, daemon, image};

/// The name that the image gets.
pub const IMAGE: &str = "localhost/davit-sample:latest";
const ARCHIVE: &str = "davit-sample.tar";
const NAME: &str = "sample";
const NAMESPACE: &str = "default";
const UID: &str = "davit-sample";
const CONTAINER: &str = "web";
const PORT: u16 = 8080;
/// Finds the pod again; a person may have made others.
const LABEL: (&str, &str) = ("davit.dev/sample", "true");
const MEMORY_BYTES: i64 = 64 * 1024 * 1024;
/// How often a starting web server is asked.
const POLL: Duration = Duration::from_millis(20);

/// The sample pod as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The pod's id.
    pub pod: String,
    /// Where it serves.
    pub url: String,
    /// Whether it ran before.
    pub was_there: bool,
}

/// Imports the image and runs the pod, unless it runs already.
///
/// # Errors
/// The image file is missing, or the node refuses a step; a half-made pod is removed again.
pub async fn ensure(client: &mut Client, node: &Node, archive: Option<&Path>) -> Result<Sample> {
    if let Some(pod) = running(client).await? {
        let url = url(client, &pod).await?;
        return Ok(Sample {
            pod,
            url,
            was_there: true,
        });
    }
    let archive: PathBuf = match archive {
        Some(path) => path.to_owned(),
        None => daemon::find(ARCHIVE)?,
    };
    image::import(client, &archive, None).await?;
    remove_leftovers(client).await?;
    let config = pod_config(node);
    let request = RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: String::new(),
    };
    let pod = client
        .runtime
        .run_pod_sandbox(request)
        .await
        .map_err(Error::refused("run the sample pod"))?
        .into_inner()
        .pod_sandbox_id;
    match fill(client, &pod, config).await {
        Ok(url) => Ok(Sample {
            pod,
            url,
            was_there: false,
        }),
        Err(error) => {
            // The first error is the one to tell; a pod that cannot be removed is seen by `davit status`.
            remove(client, &pod).await.ok();
            Err(error)
        }
    }
}

/// The pod if it is ready and its container runs.
async fn running(client: &mut Client) -> Result<Option<String>> {
    for pod in pods(client).await? {
        if pod.1 != PodSandboxState::SandboxReady {
            continue;
        }
        let filter = ContainerFilter {
            pod_sandbox_id: pod.0.clone(),
            ..ContainerFilter::default()
        };
        let request = ListContainersRequest {
            filter: Some(filter),
        };
        let list = client
            .runtime
            .list_containers(request)
            .await
            .map_err(Error::refused("list the sample's containers"))?
            .into_inner();
        if list
            .containers
            .iter()
            .any(|c| c.state() == ContainerState::ContainerRunning)
        {
            return Ok(Some(pod.0));
        }
    }
    Ok(None)
}

async fn pods(client: &mut Client) -> Result<Vec<(String, PodSandboxState)>> {
    let filter = PodSandboxFilter {
        label_selector: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
        ..PodSandboxFilter::default()
    };
    let request = ListPodSandboxRequest {
        filter: Some(filter),
    };
    let list = client
        .runtime
        .list_pod_sandbox(request)
        .await
        .map_err(Error::refused("list the sample pods"))?
        .into_inner();
    Ok(list
        .items
        .into_iter()
        .map(|pod| (pod.id.clone(), pod.state()))
        .collect())
}

/// A sample whose program ended, or one from before the node's network was changed.
async fn remove_leftovers(client: &mut Client) -> Result<()> {
    for (pod, _) in pods(client).await? {
        remove(client, &pod).await?;
    }
    Ok(())
}

/// Stops and removes a pod with all its containers.
///
/// # Errors
/// The node refuses; the pod is then still there.
pub(crate) async fn remove(client: &mut Client, pod: &str) -> Result<()> {
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: pod.to_owned(),
    };
    client
        .runtime
        .stop_pod_sandbox(stop)
        .await
        .map_err(Error::refused(format!("stop pod {pod}")))?;
    let remove = RemovePodSandboxRequest {
        pod_sandbox_id: pod.to_owned(),
    };
    client
        .runtime
        .remove_pod_sandbox(remove)
        .await
        .map_err(Error::refused(format!("remove pod {pod}")))?;
    Ok(())
}

/// Creates and starts the container.
async fn fill(client: &mut Client, pod: &str, sandbox: PodSandboxConfig) -> Result<String> {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(container_config()),
        sandbox_config: Some(sandbox),
    };
    let answer = client
        .runtime
        .create_container(request)
        .await
        .map_err(Error::refused("create the sample's container"))?;
    let container_id = answer.into_inner().container_id;
    client
        .runtime
        .start_container(StartContainerRequest { container_id })
        .await
        .map_err(Error::refused("start the sample's container"))?;
    url(client, pod).await
}

async fn url(client: &mut Client, pod: &str) -> Result<String> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: false,
    };
    let answer = client
        .runtime
        .pod_sandbox_status(request)
        .await
        .map_err(Error::refused(format!("ask for pod {pod}")))?;
    let network = answer
        .into_inner()
        .status
        .and_then(|status| status.network)
        .unwrap_or_default();
    if network.ip.is_empty() {
        let what = format!("the sample pod {pod} has no address");
        return Err(Error::Unfinished {
            what,
            hint: "`davit status` shows whether the node's network is ready, and why not"
                .to_owned(),
        });
    }
    let host = if network.ip.contains(':') {
        format!("[{}]", network.ip)
    } else {
        network.ip
    };
    Ok(format!("http://{host}:{PORT}/"))
}

/// What a kubelet would set too: crictl shows a pod's name by them.
fn labels(container: Option<&str>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = [
        LABEL,
        ("io.kubernetes.pod.name", NAME),
        ("io.kubernetes.pod.namespace", NAMESPACE),
        ("io.kubernetes.pod.uid", UID),
    ]
    .into();
    labels.extend(container.map(|name| ("io.kubernetes.container.name", name)));
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn pod_config(node: &Node) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: NAME.into(),
            uid: UID.into(),
            namespace: NAMESPACE.into(),
            attempt: 0,
        }),
        hostname: NAME.into(),
        // With the pods, on tmpfs: it goes with them.
        log_directory: node.run_dir.join("logs").join(NAME).display().to_string(),
        labels: labels(None),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    }
}

/// As little as a web server needs: an ordinary user (the image says which), no capability, nothing to write, 64 MiB.
fn container_config() -> ContainerConfig {
    let security = LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            drop_capabilities: vec!["ALL".into()],
            ..Capability::default()
        }),
        readonly_rootfs: true,
        no_new_privs: true,
        ..LinuxContainerSecurityContext::default()
    };
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: MEMORY_BYTES,
        ..LinuxContainerResources::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: CONTAINER.into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: IMAGE.into(),
            ..ImageSpec::default()
        }),
        log_path: "web.log".into(),
        labels: labels(Some(CONTAINER)),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security),
        }),
        ..ContainerConfig::default()
    }
}

/// Fetches the page as anybody on this host would; asks again until the server listens.
///
/// # Errors
/// No good answer within `patience`; the last reason is told.
pub async fn fetch(url: &str, patience: Duration) -> Result<String> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let deadline = Instant::now() + patience;
    loop {
        let why = match tokio::time::timeout_at(deadline, get(address)).await {
            Ok(Ok(page)) => return Ok(page),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer for {} s", patience.as_secs()),
        };
        if Instant::now() + POLL >= deadline {
            return Err(Error::Sample {
                url: url.to_owned(),
                why,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn get(address: &str) -> Result<String, String> {
    let told = |error: std::io::Error| crate::error::reason(&error);
    let mut stream = TcpStream::connect(address).await.map_err(told)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(told)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("the answer is not HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!(
            "it answers \"{}\"",
            head.lines().next().unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn the_page_is_the_body_of_a_good_answer() {
        let url = server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n").await;
        assert_eq!(fetch(&url, Duration::from_secs(5)).await.unwrap(), "hi\n");
    }

    #[tokio::test]
    async fn a_bad_answer_is_told_with_its_status_line() {
        let url = server("HTTP/1.1 404 Not Found\r\n\r\n").await;
        let error = fetch(&url, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the sample pod does not serve its page at {url}: it answers \"HTTP/1.1 404 Not Found\""
            )
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told_by_errno() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = fetch(&url, Duration::from_millis(50)).await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("connection refused (ECONNREFUSED)"),
            "{error}"
        );
    }
}
