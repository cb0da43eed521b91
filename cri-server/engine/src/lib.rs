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
pub mod error;
pub mod model;

use std::path::Path;
use std::time::Duration;

pub use config::{Config, Handler, NetworkConfig};
pub use error::{Error, Kind, Result};

use model::{
    Condition, ContainerConfig, ContainerFilter, ContainerStatus, ExecOutput, FsUsage, HandlerInfo,
    Image, PodConfig, PodFilter, PodStatus, ProgressSink, RegistryAuth, Resources,
};

/// Makes `run_dir` (mode 0700) and mounts a tmpfs on it when it is on a file system that would survive a
/// reboot. Answers whether it mounted one.
///
/// # Errors
/// The directory cannot be made, or the tmpfs not mounted.
pub fn prepare_run_dir(_run_dir: &Path) -> Result<bool> {
    Err(unwritten("prepare_run_dir"))
}

/// The engine of one node. Clones are handles to the same engine.
#[derive(Debug, Clone)]
pub struct Engine {}

fn unwritten(what: &str) -> Error {
    Error::unsupported(what, "being written")
}

impl Engine {
    /// Opens the engine: locks the run directory, finds again what runs, undoes what was half made.
    /// Needs a tokio runtime. Answer RPCs with "unavailable" until this returns.
    ///
    /// # Errors
    /// Another daemon has the lock, or a directory or the image store cannot be opened.
    pub async fn open(_config: Config) -> Result<Self> {
        Err(unwritten("open"))
    }

    /// Makes and starts a pod; the answer is its id. `handler` names the runtime, empty the default.
    ///
    /// # Errors
    /// The request is wrong, its name taken, or a step failed and everything was undone.
    pub async fn run_pod(&self, _config: PodConfig, _handler: &str) -> Result<String> {
        Err(unwritten("run_pod"))
    }

    /// Kills a pod's containers and takes its network away. Unknown id: success.
    ///
    /// # Errors
    /// A container lives on, or a step failed; trying again continues.
    pub async fn stop_pod(&self, _id: &str) -> Result<()> {
        Err(unwritten("stop_pod"))
    }

    /// Stops a pod and removes all that is left of it. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_pod(&self, _id: &str) -> Result<()> {
        Err(unwritten("remove_pod"))
    }

    /// A pod's status, by id or the unique beginning of one.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub fn pod_status(&self, _id: &str) -> Result<PodStatus> {
        Err(unwritten("pod_status"))
    }

    /// The pods that match, oldest first. Never waits.
    #[must_use]
    pub fn list_pods(&self, _filter: &PodFilter) -> Vec<PodStatus> {
        Vec::new()
    }

    /// Makes a container in a READY pod from an image that is on the node; the answer is its id.
    ///
    /// # Errors
    /// The request is wrong, its name taken, or a step failed and everything was undone.
    pub async fn create_container(
        &self,
        _pod_id: &str,
        _config: ContainerConfig,
        _pod: PodConfig,
    ) -> Result<String> {
        Err(unwritten("create_container"))
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// It is not in state created, or its program cannot run (then it is exited with `StartError`, 128).
    pub async fn start_container(&self, _id: &str) -> Result<()> {
        Err(unwritten("start_container"))
    }

    /// Asks a container to stop and kills it after `grace`. Answers when it is dead. Calling again with a
    /// shorter grace shortens the wait. Unknown or exited: success.
    ///
    /// # Errors
    /// It lives on after SIGKILL.
    pub async fn stop_container(&self, _id: &str, _grace: Duration) -> Result<()> {
        Err(unwritten("stop_container"))
    }

    /// Kills a container if it runs, and removes all that is left of it but its log. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_container(&self, _id: &str) -> Result<()> {
        Err(unwritten("remove_container"))
    }

    /// A container's status, by id or the unique beginning of one.
    ///
    /// # Errors
    /// Unknown or ambiguous id.
    pub fn container_status(&self, _id: &str) -> Result<ContainerStatus> {
        Err(unwritten("container_status"))
    }

    /// The containers that match, oldest first. Never waits.
    #[must_use]
    pub fn list_containers(&self, _filter: &ContainerFilter) -> Vec<ContainerStatus> {
        Vec::new()
    }

    /// Changes the limits of a created or running container: all of them or none.
    ///
    /// # Errors
    /// Unknown id, wrong state, a limit that the kernel refuses.
    pub async fn update_container(&self, _id: &str, _resources: Resources) -> Result<()> {
        Err(unwritten("update_container"))
    }

    /// Changes what is recorded of a pod's overhead and resources. No cgroup is written.
    ///
    /// # Errors
    /// Unknown id.
    pub async fn update_pod(
        &self,
        _id: &str,
        _overhead: Option<Resources>,
        _resources: Option<Resources>,
    ) -> Result<()> {
        Err(unwritten("update_pod"))
    }

    /// Opens a running container's log file anew, before it answers.
    ///
    /// # Errors
    /// Unknown id, or the container does not run.
    pub async fn reopen_log(&self, _id: &str) -> Result<()> {
        Err(unwritten("reopen_log"))
    }

    /// Runs a command in a running container and waits for it; `timeout` zero means no limit.
    ///
    /// # Errors
    /// Unknown id, wrong state, no such command, or [`Error::ExecTimeout`]. A command that ends with
    /// another code than 0 is no error.
    pub async fn exec_sync(
        &self,
        _id: &str,
        _command: Vec<String>,
        _timeout: Duration,
    ) -> Result<ExecOutput> {
        Err(unwritten("exec_sync"))
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// See [`Error::Images`] and its kind.
    pub async fn pull_image(
        &self,
        _reference: &str,
        _auth: Option<RegistryAuth>,
        _progress: Option<ProgressSink>,
    ) -> Result<Image> {
        Err(unwritten("pull_image"))
    }

    /// Imports an OCI layout or docker-archive (directory or tar file), named `reference` when given.
    ///
    /// # Errors
    /// See [`Error::Images`] and its kind.
    pub async fn import_image(
        &self,
        _path: &Path,
        _reference: Option<&str>,
        _progress: Option<ProgressSink>,
    ) -> Result<Vec<Image>> {
        Err(unwritten("import_image"))
    }

    /// An image by id, beginning of an id, tag, digest or short name; `None` when it is not on the node.
    ///
    /// # Errors
    /// A reference that is none, or the store cannot be read.
    pub async fn image_status(&self, _reference: &str) -> Result<Option<Image>> {
        Err(unwritten("image_status"))
    }

    /// All images, or those that `filter` names.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list_images(&self, _filter: Option<&str>) -> Result<Vec<Image>> {
        Err(unwritten("list_images"))
    }

    /// Removes an image with all its tags and digests. Unknown: success. Layers that containers use stay
    /// until they are gone.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn remove_image(&self, _reference: &str) -> Result<()> {
        Err(unwritten("remove_image"))
    }

    /// How much the images take.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn image_fs_info(&self) -> Result<FsUsage> {
        Err(unwritten("image_fs_info"))
    }

    /// The node's conditions: `RuntimeReady` and `NetworkReady`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        Vec::new()
    }

    /// The runtime handlers; the first is the default under the empty name.
    #[must_use]
    pub fn handlers(&self) -> Vec<HandlerInfo> {
        Vec::new()
    }

    /// The engine's configuration and state for people, as JSON (`stateDir` among it).
    #[must_use]
    pub fn info(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes note of the node's pod range.
    ///
    /// # Errors
    /// Not a CIDR.
    pub async fn update_pod_cidr(&self, _cidr: &str) -> Result<()> {
        Err(unwritten("update_pod_cidr"))
    }
}
