//! `davit status` and `davit version`.

use std::collections::BTreeMap;

use proto::runtime::v1::{
    Container, ContainerState, ListContainersRequest, ListPodSandboxRequest, PodSandbox,
    PodSandboxState, PodSandboxStatusRequest, RuntimeCondition, StatusRequest,
};
use serde_json::{Value, json};

use crate::args::StatusOptions;
use crate::client::Client;
use crate::format::{age, print, short_id, table};
use crate::node::Node;
use crate::{Error, Result};

/// Everything that is shown, read in one go.
struct Status {
    version: String,
    pid: i32,
    conditions: Vec<RuntimeCondition>,
    pods: Vec<(PodSandbox, String)>,
    containers: BTreeMap<String, Vec<Container>>,
}

/// Prints what the node is and what it runs.
///
/// # Errors
/// No node, or its refusal.
pub async fn run(node: &Node, options: &StatusOptions) -> Result<u8> {
    let mut client = Client::connect(node).await?;
    let status = read(&mut client).await?;
    if options.json {
        print(&format!("{:#}\n", status.json(node)))?;
    } else {
        print(&status.text(node))?;
    }
    Ok(0)
}

/// Prints the version of this command, and of the node if one runs.
///
/// # Errors
/// Standard output is closed.
pub async fn version(node: &Node) -> Result<u8> {
    print(&format!("davit {}\n", env!("CARGO_PKG_VERSION")))?;
    match Client::connect(node).await {
        Ok(client) => {
            let v = client.version;
            print(&format!(
                "{} {} (CRI {}) at {}\n",
                v.runtime_name,
                v.runtime_version,
                v.runtime_api_version,
                node.socket.display()
            ))?;
        }
        Err(error) => print(&format!("{error}\n"))?,
    }
    Ok(0)
}

async fn read(client: &mut Client) -> Result<Status> {
    let conditions = client
        .runtime
        .status(StatusRequest { verbose: false })
        .await
        .map_err(Error::refused("ask for the status"))?;
    let pods = client
        .runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .map_err(Error::refused("list pods"))?
        .into_inner()
        .items;
    let list = client
        .runtime
        .list_containers(ListContainersRequest::default())
        .await
        .map_err(Error::refused("list containers"))?
        .into_inner();
    let mut containers = BTreeMap::<String, Vec<Container>>::new();
    for container in list.containers {
        containers
            .entry(container.pod_sandbox_id.clone())
            .or_default()
            .push(container);
    }
    let mut with_addresses = Vec::new();
    for pod in pods {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: pod.id.clone(),
            verbose: false,
        };
        // A pod may go between the list and this question: then it has no address, and nobody minds.
        let answer = client.runtime.pod_sandbox_status(request).await.ok();
        let ip = answer
            .and_then(|a| a.into_inner().status)
            .and_then(|s| s.network)
            .map(|n| n.ip)
            .unwrap_or_default();
        with_addresses.push((pod, ip));
    }
    let version = format!(
        "{} {}",
        client.version.runtime_name, client.version.runtime_version
    );
    let conditions = conditions
        .into_inner()
        .status
        .unwrap_or_default()
        .conditions;
    Ok(Status {
        version,
        pid: client.pid,
        conditions,
        pods: with_addresses,
        containers,
    })
}

impl Status {
    fn text(&self, node: &Node) -> String {
        let mut text = format!(
            "node     {} (process {}) at {}\n",
            self.version,
            self.pid,
            node.socket.display()
        );
        for condition in &self.conditions {
            let state = if condition.status {
                "ready".to_owned()
            } else {
                format!("NOT READY: {}: {}", condition.reason, condition.message)
            };
            text.push_str(&format!(
                "{:<8} {state}\n",
                condition.r#type.trim_end_matches("Ready").to_lowercase()
            ));
        }
        if self.pods.is_empty() {
            return text + "pods     none\n";
        }
        let rows: Vec<Vec<String>> = self
            .pods
            .iter()
            .flat_map(|(pod, ip)| self.rows(pod, ip))
            .collect();
        text + "\n"
            + &table(
                &["POD", "ID", "STATE", "ADDRESS", "SINCE", "CONTAINER"],
                &rows,
            )
    }

    /// One row per container, or one for a pod without any.
    fn rows(&self, pod: &PodSandbox, ip: &str) -> Vec<Vec<String>> {
        let metadata = pod.metadata.clone().unwrap_or_default();
        let row = |container: String| {
            let state = if pod.state() == PodSandboxState::SandboxReady {
                "ready"
            } else {
                "not ready"
            };
            let name = format!("{}/{}", metadata.namespace, metadata.name);
            vec![
                name,
                short_id(&pod.id).to_owned(),
                state.to_owned(),
                ip.to_owned(),
                age(pod.created_at),
                container,
            ]
        };
        match self.containers.get(&pod.id) {
            Some(list) => list
                .iter()
                .map(|c| row(format!("{} {}", container_name(c), state_word(c.state()))))
                .collect(),
            None => vec![row("-".to_owned())],
        }
    }

    fn json(&self, node: &Node) -> Value {
        let pods = self.pods.iter().map(|(pod, ip)| {
            let metadata = pod.metadata.clone().unwrap_or_default();
            let containers = self.containers.get(&pod.id).into_iter().flatten();
            json!({
                "id": pod.id, "name": metadata.name, "namespace": metadata.namespace, "address": ip,
                "ready": pod.state() == PodSandboxState::SandboxReady, "created_at_ns": pod.created_at,
                "containers": containers.map(|c| json!({"id": c.id, "name": container_name(c), "state": state_word(c.state())})).collect::<Vec<_>>(),
            })
        });
        let conditions = self.conditions.iter().map(|c| json!({"type": c.r#type, "status": c.status, "reason": c.reason, "message": c.message}));
        json!({
            "version": self.version, "pid": self.pid, "socket": node.socket,
            "conditions": conditions.collect::<Vec<_>>(), "pods": pods.collect::<Vec<_>>(),
        })
    }
}

fn container_name(container: &Container) -> &str {
    container.metadata.as_ref().map_or("?", |m| m.name.as_str())
}

fn state_word(state: ContainerState) -> &'static str {
    match state {
        ContainerState::ContainerCreated => "created",
        ContainerState::ContainerRunning => "running",
        ContainerState::ContainerExited => "exited",
        ContainerState::ContainerUnknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeFlags;
    use proto::runtime::v1::{ContainerMetadata, PodSandboxMetadata};

    fn status() -> Status {
        let metadata = Some(PodSandboxMetadata {
            name: "sample".into(),
            namespace: "default".into(),
            ..PodSandboxMetadata::default()
        });
        let pod = PodSandbox {
            id: "0123456789abcdef".into(),
            metadata,
            state: PodSandboxState::SandboxReady.into(),
            ..PodSandbox::default()
        };
        let container = Container {
            id: "c1".into(),
            metadata: Some(ContainerMetadata {
                name: "web".into(),
                attempt: 0,
            }),
            state: ContainerState::ContainerRunning.into(),
            ..Container::default()
        };
        let network = RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: false,
            reason: "NoPlugin".into(),
            message: "no bridge".into(),
        };
        Status {
            version: "davit 0.1.0".into(),
            pid: 7,
            conditions: vec![
                RuntimeCondition {
                    r#type: "RuntimeReady".into(),
                    status: true,
                    ..RuntimeCondition::default()
                },
                network,
            ],
            pods: vec![(pod, "10.89.0.2".into())],
            containers: [("0123456789abcdef".to_owned(), vec![container])].into(),
        }
    }

    #[test]
    fn a_condition_that_is_not_met_says_why() {
        let text = status().text(&NodeFlags::default().resolve().unwrap());
        assert!(
            text.contains("runtime  ready\nnetwork  NOT READY: NoPlugin: no bridge\n"),
            "{text}"
        );
        assert!(
            text.contains("default/sample  0123456789ab  ready  10.89.0.2  "),
            "{text}"
        );
        assert!(text.trim_end().ends_with("web running"), "{text}");
    }

    #[test]
    fn json_has_whole_ids_and_the_containers_of_each_pod() {
        let json = status().json(&NodeFlags::default().resolve().unwrap());
        assert_eq!(json["pods"][0]["id"], "0123456789abcdef");
        assert_eq!(
            json["pods"][0]["containers"][0],
            json!({"id": "c1", "name": "web", "state": "running"})
        );
        assert_eq!(json["conditions"][1]["status"], false);
    }
}
