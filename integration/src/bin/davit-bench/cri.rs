//! Part 2: pods through the CRI socket, ours and (where it is installed) containerd's, and what many of them hold in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proto::runtime::v1 as cri;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::contest::Times;
use crate::oci::field_kb;
use crate::options::Options;
use integration::image::TestImage;
use integration::peer::Server;

const IMAGE: &str = "davit.test/bench:1";

/// Measures every server that is installed, one after the other, each alone on the machine.
pub(crate) fn measure(options: &Options) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut servers = Vec::new();
    for server in Server::all() {
        server.import(&TestImage::busybox(), IMAGE);
        let measured = runtime.block_on(on_server(&server, options));
        servers.push(measured.with_context(|| server.name().to_owned())?);
    }
    if !options.json {
        compare(&servers);
    }
    Ok(json!({"servers": servers}))
}

async fn on_server(server: &Server, options: &Options) -> Result<Value> {
    let socket = server.socket();
    let mut client = RuntimeServiceClient::connect(format!("unix://{}", socket.display())).await?;
    let mut paced = Operations::default();
    for number in 0..options.runs.min(options.pods) {
        tokio::time::sleep(options.pause).await;
        let pod = Pod::start(&mut client, number, server.dir(), &mut paced).await?;
        tokio::time::sleep(options.pause).await;
        pod.remove(&mut client, &mut paced).await?;
    }
    let mut tight = Operations::default();
    let mut pods = Vec::new();
    for number in 0..options.pods {
        pods.push(Pod::start(&mut client, number, server.dir(), &mut tight).await?);
    }
    let memory = memory(server)?;
    for pod in pods {
        pod.remove(&mut client, &mut tight).await?;
    }
    let (tight, paced) = (tight.into_times(), paced.into_times());
    if !options.json {
        print(server, options, &tight, &paced, &memory);
    }
    let as_json = |times: &[Times]| times.iter().map(Times::as_json).collect::<Vec<_>>();
    let settings = json!([
        {"pause_ms": 0, "times": as_json(&tight)},
        {"pause_ms": options.pause.as_millis(), "times": as_json(&paced)},
    ]);
    Ok(
        json!({"server": server.name(), "pods": options.pods, "settings": settings, "memory": memory}),
    )
}

fn print(server: &Server, options: &Options, tight: &[Times], paced: &[Times], memory: &Value) {
    println!(
        "\n{}, {} pods\n{:<28} {:>9} {:>9} {:>9}  {:>12}",
        server.name(),
        options.pods,
        "",
        "median ms",
        "p90 ms",
        "max ms",
        "paced median"
    );
    for (one, paced) in tight.iter().zip(paced) {
        let ms = |times: &Times, percent| times.at(percent).as_secs_f64() * 1e3;
        println!(
            "{:<28} {:>9.2} {:>9.2} {:>9.2}  {:>12.2}",
            one.name,
            ms(one, 50),
            ms(one, 90),
            ms(one, 100),
            ms(paced, 50)
        );
    }
    println!("memory: {memory}");
}

/// How much of the first server's times each later one needs: containerd comes first.
fn compare(servers: &[Value]) {
    let [theirs, ours] = servers else { return };
    println!("\n{} as a part of {}", ours["server"], theirs["server"]);
    let medians = |server: &Value, setting: usize| -> Vec<(String, f64)> {
        let times = server["settings"][setting]["times"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        times
            .iter()
            .map(|t| {
                (
                    t["name"].as_str().unwrap_or_default().to_owned(),
                    t["median_ms"].as_f64().unwrap_or_default(),
                )
            })
            .collect()
    };
    println!("{:<28} {:>12} {:>8}", "", "back to back", "paced");
    let paced = medians(ours, 1).into_iter().zip(medians(theirs, 1));
    for (((name, one), (_, other)), ((_, paced), (_, other_paced))) in medians(ours, 0)
        .into_iter()
        .zip(medians(theirs, 0))
        .zip(paced)
    {
        println!(
            "{name:<28} {:>12.2} {:>8.2}",
            one / other,
            paced / other_paced
        );
    }
}

// === one pod ===

/// The times of each operation.
#[derive(Default)]
struct Operations(Vec<(&'static str, Vec<Duration>)>);

impl Operations {
    fn add(&mut self, name: &'static str, taken: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(taken),
            None => self.0.push((name, vec![taken])),
        }
    }

    fn into_times(self) -> Vec<Times> {
        self.0
            .into_iter()
            .map(|(name, times)| Times::new(name, times))
            .collect()
    }

    /// Times one call.
    async fn time<T>(
        &mut self,
        name: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T> {
        let start = Instant::now();
        let answer = call.await.with_context(|| name)?;
        self.add(name, start.elapsed());
        Ok(answer.into_inner())
    }
}

/// A running pod with one sleeping container.
struct Pod {
    id: String,
    container: String,
}

type Client = RuntimeServiceClient<Channel>;

impl Pod {
    async fn start(
        client: &mut Client,
        number: usize,
        dir: &Path,
        operations: &mut Operations,
    ) -> Result<Pod> {
        let config = pod_config(number, dir);
        let start = Instant::now();
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let id = operations
            .time("RunPodSandbox", client.run_pod_sandbox(request))
            .await?
            .pod_sandbox_id;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(container_config()),
            sandbox_config: Some(config),
        };
        let container = operations
            .time("CreateContainer", client.create_container(request))
            .await?
            .container_id;
        let request = cri::StartContainerRequest {
            container_id: container.clone(),
        };
        operations
            .time("StartContainer", client.start_container(request))
            .await?;
        operations.add("all three", start.elapsed());
        Ok(Pod { id, container })
    }

    async fn remove(self, client: &mut Client, operations: &mut Operations) -> Result<()> {
        // sleep does not act on SIGTERM as the first process of its namespace, so it is killed at once.
        let request = cri::StopContainerRequest {
            container_id: self.container.clone(),
            timeout: 0,
        };
        operations
            .time("StopContainer", client.stop_container(request))
            .await?;
        let request = cri::RemoveContainerRequest {
            container_id: self.container,
        };
        operations
            .time("RemoveContainer", client.remove_container(request))
            .await?;
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        operations
            .time("StopPodSandbox", client.stop_pod_sandbox(request))
            .await?;
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: self.id,
        };
        operations
            .time("RemovePodSandbox", client.remove_pod_sandbox(request))
            .await?;
        Ok(())
    }
}

fn pod_config(number: usize, dir: &Path) -> cri::PodSandboxConfig {
    let name = format!("bench-{number}");
    let metadata = cri::PodSandboxMetadata {
        uid: name.clone(),
        name: name.clone(),
        namespace: "bench".to_owned(),
        attempt: 0,
    };
    cri::PodSandboxConfig {
        metadata: Some(metadata),
        log_directory: dir.join("logs").join(&name).to_string_lossy().into_owned(),
        hostname: name,
        linux: Some(cri::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

fn container_config() -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "sleep".to_owned(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: IMAGE.to_owned(),
            ..Default::default()
        }),
        command: vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
        log_path: "sleep.log".to_owned(),
        linux: Some(cri::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

// === memory ===

/// What the server's processes hold: proportional set size of each shim, resident set of the daemon.
fn memory(server: &Server) -> Result<Value> {
    let dir = server.dir().to_string_lossy().into_owned();
    let (mut shims, mut daemon) = (Vec::new(), 0);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let proc = entry.path();
        let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
        let command = read("cmdline").replace('\0', " ");
        let program = command
            .split(' ')
            .next()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        if !command.contains(&dir) {
            continue;
        }
        match program.as_str() {
            "davit-shim" | "containerd-shim-runc-v2" => {
                shims.extend(field_kb(&read("smaps_rollup"), "Pss:"))
            }
            "davit-cri" | "containerd" => daemon = field_kb(&read("status"), "VmRSS:").unwrap_or(0),
            _ => {}
        }
    }
    shims.sort_unstable();
    let median = shims.get(shims.len() / 2).copied().unwrap_or(0);
    Ok(
        json!({"shims": shims.len(), "shim_pss_kb_median": median, "shim_pss_kb_max": shims.last(), "daemon_rss_kb": daemon}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_one_operation_are_kept_together_in_the_order_of_their_first() {
        let mut operations = Operations::default();
        operations.add("b", Duration::from_millis(3));
        operations.add("a", Duration::from_millis(1));
        operations.add("b", Duration::from_millis(5));
        let times = operations.into_times();
        let names: Vec<_> = times.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(times[0].at(100), Duration::from_millis(5));
    }
}
