//! The engine's operations on containers.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, gone_is_fine, resolve};
use crate::error::{Error, Result};
use crate::images::blocking;
use crate::model::{
    ContainerConfig, ContainerFilter, ContainerStatus, ExecOutput, PodConfig, Resources,
};
use crate::pod::{self, Command, Entry, Pod};
use crate::record::{self, ContainerRecord};
use crate::streams::Streams;
use crate::{attach, container, exec, forward, ids};

impl Engine {
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
            Some((id, pod)) => gone_is_fine(
                &self.node,
                pod.ask(|reply| Command::Stop { id, grace, reply }).await,
            ),
            None => Ok(()),
        }
    }

    /// Kills a container if it runs, and removes all that is left of it but its log. Unknown id: success.
    ///
    /// # Errors
    /// A step failed; trying again continues.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        match self.node.find_container(id)? {
            Some((id, pod)) => gone_is_fine(
                &self.node,
                pod.ask(|reply| Command::Remove { id, reply }).await,
            ),
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

    /// Whether a command can be run in this container now; the answer is its full id.
    ///
    /// # Errors
    /// Unknown id, or it does not run.
    pub fn check_exec(&self, id: &str) -> Result<String> {
        let (id, pod) = self.container(id)?;
        running(&pod, &id).map(|record| record.id.clone())
    }

    /// Runs a command in a running container with the caller's streams; the answer is its exit code. A caller who
    /// vanishes, or drops this, takes the command with him.
    ///
    /// # Errors
    /// Unknown id, wrong state, no such command, the shim ended.
    pub async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        terminal: bool,
        streams: Streams,
    ) -> Result<i32> {
        let (id, pod) = self.container(id)?;
        let record = running(&pod, &id)?;
        let node = Arc::clone(&self.node);
        exec::stream::exec(node, pod, record, command, terminal, streams).await
    }

    /// Whether this container can be attached to; the answer is its full id and whether it has a terminal.
    ///
    /// # Errors
    /// Unknown id, or its record is broken.
    pub fn check_attach(&self, id: &str) -> Result<(String, bool)> {
        let (id, pod) = self.container(id)?;
        let record = known(&pod, &id)?;
        Ok((id, record.config.tty))
    }

    /// Joins the caller's streams to a container's until it ends or the caller leaves, which ends nothing.
    ///
    /// # Errors
    /// Unknown id, an old shim, or a caller who reads too slowly.
    pub async fn attach(&self, id: &str, streams: Streams) -> Result<()> {
        let (id, pod) = self.container(id)?;
        let record = known(&pod, &id)?;
        attach::attach(Arc::clone(&self.node), record, streams).await
    }

    /// Whether ports of this pod can be reached; the answer is its full id.
    ///
    /// # Errors
    /// Unknown id, or it is not READY.
    pub fn check_forward(&self, pod_id: &str) -> Result<String> {
        let pod = self.pod(pod_id)?;
        match &pod.view().not_ready {
            None => Ok(pod.id.clone()),
            Some(why) => Err(Error::PodNotReady {
                id: pod.id.clone(),
                why: why.clone(),
            }),
        }
    }

    /// A connection to `localhost:port` inside a pod's network namespace.
    ///
    /// # Errors
    /// Unknown id, not READY, or nothing listens there.
    pub async fn connect(&self, pod_id: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let pod = self.pod(pod_id)?;
        let node = Arc::clone(&self.node);
        let stream = blocking(move || forward::dial(&node, &pod, port)).await?;
        tokio::net::TcpStream::from_std(stream).map_err(|source| Error::Io {
            action: "use the connection to",
            path: format!("port {port}").into(),
            source,
        })
    }
}

/// The record of a container in any state.
fn known(pod: &Pod, id: &str) -> Result<Arc<ContainerRecord>> {
    match pod.view().containers.get(id) {
        Some(Entry::Known(record)) => Ok(Arc::clone(record)),
        Some(Entry::Unknown(why)) => Err(Error::Internal(format!("container {id}: {why}"))),
        None => Err(Error::ContainerNotFound { id: id.to_owned() }),
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
