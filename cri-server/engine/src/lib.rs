//! What runs on a node, with no API of its own: pods, containers, images, exec, logs, recovery.
//!
//! One task owns each pod and works through its operations; reads come from a snapshot that the task
//! publishes and never wait for it. An operation goes on when its caller leaves, and an identical retry
//! waits for the running operation instead of starting another. Containers are reached only through the
//! pod's shim and the OCI runtime's command line, so any OCI runtime can be a handler.
//!
//! **Invariant:** no protobuf, no gRPC. A second front-end needs nothing that is not in [`model`].
#![forbid(unsafe_code)]

pub mod config;
mod container;
pub mod error;
pub mod events;
mod exec;
mod handler;
mod ids;
mod images;
pub mod model;
mod names;
mod network;
mod node;
mod pod;
mod record;
mod recovery;
mod rundir;
mod spec;
mod undo;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Config, Handler, NetworkConfig};
pub use error::{Error, Kind, Result};
pub use rundir::prepare_run_dir;

use events::Event;
use images::blocking;
use model::{
    Condition, ContainerConfig, ContainerFilter, ContainerStatus, ExecOutput, FsUsage, HandlerInfo,
    Image, PodConfig, PodFilter, PodStatus, ProgressSink, RegistryAuth, Resources,
};
use node::Node;
use pod::task::{Start, Task};
use pod::{Command, Entry, Pod};
use record::{ContainerRecord, PodRecord};
use tokio::sync::broadcast;

/// How long closing waits for operations in progress.
const CLOSING: Duration = Duration::from_secs(10);

/// The engine of one node. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    node: Arc<Node>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("run_dir", &self.node.config.run_dir)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine: locks the run directory, finds again what runs, undoes what was half made.
    /// Needs a tokio runtime. Answer RPCs with "unavailable" until this returns.
    ///
    /// # Errors
    /// Another daemon has the lock, or a directory or the image store cannot be opened.
    pub async fn open(config: Config) -> Result<Self> {
        blocking(move || {
            let node = Arc::new(Node::open(config)?);
            recovery::recover(&node);
            Ok(Self { node })
        })
        .await
    }

    /// Ends every task of this engine and lets go of its locks, unless a clone of it is still around. Pods go
    /// on; the next engine finds them.
    pub async fn close(self) {
        let node = self.node;
        node.closing.send_replace(true);
        for pod in node.pods() {
            pod.ended().await;
        }
        let ended = Arc::downgrade(&node);
        node.tidy_cgroup();
        drop(node);
        // Operations of callers that left come to their end first.
        let deadline = tokio::time::Instant::now() + CLOSING;
        while ended.strong_count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What happens to pods and containers from now on. A slow listener loses the oldest events.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.node.events.subscribe()
    }

    // === pods

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
            Some(pod) => gone_is_fine(pod.ask(|reply| Command::StopPod { reply }).await),
            None => Ok(()),
        }
    }

    /// Stops a pod and removes all that is left of it. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        match self.node.find_pod(id)? {
            Some(pod) => gone_is_fine(pod.ask(|reply| Command::RemovePod { reply }).await),
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

    /// Changes what is recorded of a pod's overhead and resources. No cgroup is written.
    ///
    /// # Errors
    /// Unknown id.
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

    // === containers

    /// Makes a container in a READY pod from an image that is on the node; the answer is its id.
    /// What `pod` says has been said when the pod was made; it is not used again.
    ///
    /// # Errors
    /// The request is wrong, its name taken, or a step failed and everything was undone.
    pub async fn create_container(
        &self,
        pod_id: &str,
        config: ContainerConfig,
        _pod: PodConfig,
    ) -> Result<String> {
        let pod = self.pod(pod_id)?;
        let view = pod.view();
        let record = view.record.as_ref().map_err(|why| Error::PodNotReady {
            id: pod.id.clone(),
            why: why.clone(),
        })?;
        let name = ContainerRecord::name(&config, &record.config);
        let request = (config.clone(), pod.id.clone());
        let claim = self
            .node
            .container_names
            .claim(&name, request, ids::new_id()?)?;
        if let Some(operation) = claim.operation {
            let id = operation.id.clone();
            if let Err(error) = pod.tell(Command::Create {
                operation,
                config: Box::new(config),
            }) {
                self.node.container_names.release(&name, &id);
                return Err(error);
            }
        }
        self.node.container_names.take(claim.waiter).await
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// It is not in state created, or its program cannot run (then it is exited with `StartError`, 128).
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let (id, pod) = self.container(id)?;
        pod.ask(|reply| Command::Start { id, reply }).await
    }

    /// Asks a container to stop and kills it after `grace`. Answers when it is dead. Calling again with a
    /// shorter grace shortens the wait. Unknown or exited: success.
    ///
    /// # Errors
    /// It lives on after SIGKILL.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        match self.node.find_container(id)? {
            Some((id, pod)) => {
                gone_is_fine(pod.ask(|reply| Command::Stop { id, grace, reply }).await)
            }
            None => Ok(()),
        }
    }

    /// Kills a container if it runs, and removes all that is left of it but its log. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        match self.node.find_container(id)? {
            Some((id, pod)) => gone_is_fine(pod.ask(|reply| Command::Remove { id, reply }).await),
            None => Ok(()),
        }
    }

    /// A container's status with everything for people, by id or the unique beginning of one.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let (id, pod) = self.container(id)?;
        match pod.view().containers.get(&id) {
            Some(Entry::Known(record)) => {
                let mut status = container::status::status(record, true);
                container::status::add_runtime_spec(&mut status, &self.node.bundle(&pod.id, &id));
                Ok(status)
            }
            Some(Entry::Unknown(why)) => Ok(container::status::unknown(&id, &pod.id, why)),
            None => Err(Error::ContainerNotFound { id }),
        }
    }

    /// The containers that match, newest first. Never waits.
    #[must_use]
    pub fn list_containers(&self, filter: &ContainerFilter) -> Vec<ContainerStatus> {
        let find_container = |id: &str| Ok(self.node.find_container(id)?.map(|(id, _)| id));
        let find_pod = |id: &str| Ok(self.node.find_pod(id)?.map(|pod| pod.id.clone()));
        let (Ok(only), Ok(only_pod)) = (
            resolve(filter.id.as_deref(), find_container),
            resolve(filter.pod_id.as_deref(), find_pod),
        ) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for pod in self.node.pods() {
            if only_pod.as_ref().is_some_and(|only| *only != pod.id) {
                continue;
            }
            let view = pod.view();
            let wanted = view
                .containers
                .iter()
                .filter(|(id, _)| only.as_ref().is_none_or(|only| only == *id));
            all.extend(wanted.map(|(id, entry)| match entry {
                Entry::Known(record) => container::status::status(record, false),
                Entry::Unknown(why) => container::status::unknown(id, &pod.id, why),
            }));
        }
        all.retain(|one| filter.state.is_none_or(|state| state == one.state));
        all.retain(|one| {
            filter
                .labels
                .iter()
                .all(|(key, value)| one.labels.get(key) == Some(value))
        });
        all.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        all
    }

    /// Changes the limits of a created or running container: all of them or none.
    ///
    /// # Errors
    /// Unknown id, wrong state, a limit that the kernel refuses.
    pub async fn update_container(&self, id: &str, resources: Resources) -> Result<()> {
        let (id, pod) = self.container(id)?;
        pod.ask(|reply| Command::Update {
            id,
            change: Box::new(resources),
            reply,
        })
        .await
    }

    /// Opens a running container's log file anew, before it answers.
    ///
    /// # Errors
    /// Unknown id, or the container does not run.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let (id, pod) = self.container(id)?;
        let record = running(&pod, &id)?;
        let supervisor = pod::supervisor::Supervisor::new(self.node.pod_dir(&pod.id));
        blocking(move || {
            if record.log_path.is_empty() {
                return Ok(());
            }
            let action = format!("reopen {}", record.log_path);
            supervisor.ask(&action, |client| client.reopen_log(&record.id))
        })
        .await
    }

    /// Runs a command in a running container and waits for it; `timeout` zero means no limit.
    ///
    /// # Errors
    /// Unknown id, wrong state, no such command, or [`Error::ExecTimeout`]. A command that ends with
    /// another code than 0 is no error.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let (id, pod) = self.container(id)?;
        let record = running(&pod, &id)?;
        let node = Arc::clone(&self.node);
        // Its own task: a caller that leaves must not leave a command without its time limit.
        let task = tokio::spawn(exec::exec_sync(node, pod, record, command, timeout));
        task.await.unwrap_or_else(|error| {
            Err(Error::Internal(format!(
                "the command's task ended early: {error}"
            )))
        })
    }

    // === images

    /// Pulls an image.
    ///
    /// # Errors
    /// See [`Error::Images`] and its kind.
    pub async fn pull_image(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        progress: Option<ProgressSink>,
    ) -> Result<Image> {
        images::pull(&self.node.store, reference, auth, progress).await
    }

    /// Imports an OCI layout or docker-archive (directory or tar file), named `reference` when given.
    ///
    /// # Errors
    /// See [`Error::Images`] and its kind.
    pub async fn import_image(
        &self,
        path: &Path,
        reference: Option<&str>,
        progress: Option<ProgressSink>,
    ) -> Result<Vec<Image>> {
        images::import(&self.node.store, path, reference, progress).await
    }

    /// An image by id, beginning of an id, tag, digest or short name; `None` when it is not on the node.
    ///
    /// # Errors
    /// A reference that is none, or the store cannot be read.
    pub async fn image_status(&self, reference: &str) -> Result<Option<Image>> {
        images::status(&self.node.store, reference).await
    }

    /// All images, or those that `filter` names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_images(&self, filter: Option<&str>) -> Result<Vec<Image>> {
        images::list(&self.node.store, filter).await
    }

    /// Removes an image with all its tags and digests. Unknown: success. Layers that containers use stay
    /// until they are gone.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        images::remove(&self.node.store, reference).await
    }

    /// How much the images take.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn image_fs_info(&self) -> Result<FsUsage> {
        images::usage(&self.node.store).await
    }

    // === the node

    /// The node's conditions: `RuntimeReady` and `NetworkReady`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        vec![self.runtime_condition(), self.node.network.condition()]
    }

    fn runtime_condition(&self) -> Condition {
        let binaries = [
            Some(self.node.config.shim.as_path()),
            self.node.handlers.default_binary(),
        ];
        let missing = binaries.into_iter().flatten().find(|path| !path.is_file());
        let kind = "RuntimeReady".to_owned();
        match missing {
            None => Condition {
                kind,
                status: true,
                ..Condition::default()
            },
            Some(path) => Condition {
                kind,
                status: false,
                reason: "BinaryMissing".into(),
                message: format!("{} is not there", path.display()),
            },
        }
    }

    /// The runtime handlers; the first is the default under the empty name.
    #[must_use]
    pub fn handlers(&self) -> Vec<HandlerInfo> {
        self.node.handlers.info()
    }

    /// The engine's configuration and state for people, as JSON (`stateDir` among it).
    #[must_use]
    pub fn info(&self) -> serde_json::Value {
        let config = &self.node.config;
        serde_json::json!({
            "stateDir": config.run_dir,
            "rootDir": config.state_dir,
            "shim": config.shim,
            "defaultRuntime": config.default_handler,
            "runtimes": config.handlers.iter().map(|(name, one)| (name.clone(), serde_json::json!({
                "path": one.path, "root": one.root, "args": one.args,
            }))).collect::<serde_json::Map<_, _>>(),
            "cniConfDir": config.network.conf_dir,
            "cniBinDirs": config.network.bin_dirs,
            "network": self.node.network.name(),
            "cgroups": format!("{:?}", self.node.hierarchies.mode()).to_lowercase(),
            "cgroupRoot": config.cgroup_root,
            "pods": self.node.pods().len(),
        })
    }

    /// Takes note of the node's pod range. The network's own configuration decides; nothing is changed.
    ///
    /// # Errors
    /// None today.
    pub async fn update_pod_cidr(&self, cidr: &str) -> Result<()> {
        tracing::info!(
            cidr,
            "the pod range is the network configuration's; this one is only noted"
        );
        Ok(())
    }

    // === helpers

    fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        self.node
            .find_pod(id)?
            .ok_or_else(|| Error::PodNotFound { id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<(String, Arc<Pod>)> {
        self.node
            .find_container(id)?
            .ok_or_else(|| Error::ContainerNotFound { id: id.to_owned() })
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
            Task::spawn(node, Start::new(record, None, shim_pid));
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

/// Stopping or removing what somebody else just removed is success.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::PodGone { .. }) => Ok(()),
        other => other,
    }
}

/// The full id of a filter; `Err` when it names nothing.
fn resolve(
    asked: Option<&str>,
    find: impl Fn(&str) -> Result<Option<String>>,
) -> Result<Option<String>, ()> {
    match asked.filter(|id| !id.is_empty()) {
        None => Ok(None),
        Some(id) => match find(id) {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) | Err(_) => Err(()),
        },
    }
}

/// The record of a container that runs.
fn running(pod: &Pod, id: &str) -> Result<Arc<ContainerRecord>> {
    match pod.view().containers.get(id) {
        Some(Entry::Known(record)) if matches!(record.phase, record::Phase::Running { .. }) => {
            Ok(Arc::clone(record))
        }
        Some(_) => Err(Error::ContainerState {
            id: id.to_owned(),
            state: "not running",
            wanted: "running",
        }),
        None => Err(Error::ContainerNotFound { id: id.to_owned() }),
    }
}
