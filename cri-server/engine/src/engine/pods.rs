//! The engine's operations on pods.

use std::sync::Arc;

use super::{Engine, gone_is_fine, resolve};
use crate::error::Result;
use crate::ids;
use crate::images::blocking;
use crate::model::{PodConfig, PodFilter, PodStatus, Resources};
use crate::node::Node;
use crate::pod::task::{Start, Task};
use crate::pod::{self, Command};
use crate::record::PodRecord;

impl Engine {
    /// Makes and starts a pod; the answer is its id. `handler` names the runtime, empty the default.
    ///
    /// # Errors
    /// The request is wrong, its name taken, or a step failed and everything was undone.
    pub async fn run_pod(&self, config: PodConfig, handler: &str) -> Result<String> {
        pod::run::validate(&self.node, &config, handler)?;
        let name = PodRecord::name(&config);
        let request = (config.clone(), handler.to_owned());
        let claim = self.node.pod_names.claim(&name, request, ids::new_id()?)?;
        if let Some(operation) = claim.operation {
            let (node, handler) = (Arc::clone(&self.node), handler.to_owned());
            // It goes on when the caller leaves.
            tokio::spawn(async move {
                let result = run_pod(&node, &operation.id, config, &handler).await;
                operation.finish(result);
            });
        }
        self.node.pod_names.take(claim.waiter).await
    }

    /// Kills a pod's containers and takes its network away. Unknown id: success.
    ///
    /// # Errors
    /// A container lives on, or a step failed; trying again continues.
    pub async fn stop_pod(&self, id: &str) -> Result<()> {
        match self.node.find_pod(id)? {
            Some(pod) => gone_is_fine(
                &self.node,
                pod.ask(|reply| Command::StopPod { reply }).await,
            ),
            None => Ok(()),
        }
    }

    /// Stops a pod and removes all that is left of it. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        match self.node.find_pod(id)? {
            Some(pod) => gone_is_fine(
                &self.node,
                pod.ask(|reply| Command::RemovePod { reply }).await,
            ),
            None => Ok(()),
        }
    }

    /// A pod's status with everything for people, by id or the unique beginning of one.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub fn pod_status(&self, id: &str) -> Result<PodStatus> {
        Ok(pod::status::status(&self.node, &*self.pod(id)?, true))
    }

    /// The pods that match, newest first. Never waits.
    #[must_use]
    pub fn list_pods(&self, filter: &PodFilter) -> Vec<PodStatus> {
        let Ok(only) = resolve(filter.id.as_deref(), |id| {
            Ok(self.node.find_pod(id)?.map(|pod| pod.id.clone()))
        }) else {
            return Vec::new();
        };
        let mut all: Vec<PodStatus> = self
            .node
            .pods()
            .iter()
            .filter(|pod| only.as_ref().is_none_or(|only| *only == pod.id))
            .map(|pod| pod::status::status(&self.node, pod, false))
            .filter(|pod| filter.state.is_none_or(|state| state == pod.state))
            .filter(|pod| {
                filter
                    .labels
                    .iter()
                    .all(|(key, value)| pod.labels.get(key) == Some(value))
            })
            .collect();
        all.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        all
    }

    /// Changes a pod's overhead and resources: what is recorded, and the limits of its cgroup where the engine made it.
    ///
    /// # Errors
    /// Unknown id, or a limit that the kernel refuses; then nothing has changed.
    pub async fn update_pod(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        self.pod(id)?
            .ask(|reply| Command::UpdatePod {
                overhead: overhead.map(Box::new),
                resources: resources.map(Box::new),
                reply,
            })
            .await
    }
}

/// The operation behind [`Engine::run_pod`], in a task of its own.
async fn run_pod(node: &Arc<Node>, id: &str, config: PodConfig, handler: &str) -> Result<()> {
    let planned = pod::run::plan(node, id, config, handler);
    let name = PodRecord::name(&planned.config);
    let (runner, record) = (Arc::clone(node), planned.clone());
    match blocking(move || pod::run::run(&runner, record)).await {
        Ok(record) => {
            tracing::info!(pod.id = id, name, ips = ?record.ips, "pod ready");
            let shim_pid = pod::supervisor::Supervisor::new(node.pod_dir(id)).pid();
            Task::spawn_new(node, Start::new(record, None, shim_pid));
            Ok(())
        }
        Err(error) if node.pod_dir(id).exists() => {
            // What could not be undone stays visible and keeps its name, so that stopping can be tried again.
            Task::spawn(
                node,
                Start::new(planned, Some("it was left half made".into()), None),
            );
            Err(error)
        }
        Err(error) => {
            node.pod_names.release(&name, id);
            Err(error)
        }
    }
}
