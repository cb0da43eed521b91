//! What a pod's task does for each command.

use std::ops::ControlFlow;
use std::sync::Arc;

use sys::failpoint;

use super::task::{Container, Task};
use super::{Command, resize, teardown};
use crate::container::{create, remove, status, update};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::ids;
use crate::images::blocking;
use crate::model::{ContainerConfig, NamespaceMode, Resources};
use crate::names::Operation;
use crate::record::{self, Change, ContainerRecord, Phase, PodPhase, PodRecord};

impl Task {
    /// Does one command; `Break` when the pod is no more.
    pub(super) async fn on_command(&mut self, command: Command) -> ControlFlow<()> {
        match command {
            Command::Create { operation, config } => self.create(operation, *config).await,
            Command::Start { id, reply } => answer(reply, self.start(&id).await),
            Command::Stop { id, grace, reply } => self.stop(&id, grace, reply).await,
            Command::Remove { id, reply } => {
                let result = self.remove(&id).await;
                answer(reply, result);
            }
            Command::Update { id, change, reply } => answer(reply, self.update(&id, *change).await),
            Command::UpdatePod {
                overhead,
                resources,
                reply,
            } => answer(reply, self.update_pod(overhead, resources).await),
            Command::StopPod { reply } => answer(reply, self.stop_pod().await),
            Command::RemovePod { reply } => {
                let result = self.remove_pod().await;
                let removed = result.is_ok();
                answer(reply, result);
                if removed {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The pod is gone: answers what came too late.
    pub(super) fn reject_the_rest(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            // The other commands' callers hear it from the reply that is dropped.
            if let Command::Create { operation, config } = command {
                if let Ok(pod) = &self.record {
                    let name = ContainerRecord::name(&config, &pod.config);
                    self.node.container_names.release(&name, &operation.id);
                }
                operation.finish(Err(Error::PodGone {
                    id: self.pod.id.clone(),
                }));
            }
        }
    }

    // --- containers

    async fn create(&mut self, operation: Operation, config: ContainerConfig) {
        let id = operation.id.clone();
        let name = self
            .record
            .as_ref()
            .map(|pod| ContainerRecord::name(&config, &pod.config))
            .unwrap_or_default();
        let result = self.try_create(&id, config).await;
        if let Err(error) = &result {
            self.node.container_names.release(&name, &id);
            if matches!(error, Error::Cleanup { .. })
                && self.node.bundle(&self.pod.id, &id).exists()
            {
                // What could not be undone stays visible, so that it can be removed.
                self.unknown.insert(id.clone(), error.report());
                self.node.add_container(&id, &self.pod.id);
                self.publish();
            }
        }
        operation.finish(result);
    }

    async fn try_create(&mut self, id: &str, config: ContainerConfig) -> Result<()> {
        let pod = self.ready()?;
        let target_pid = self.target(&config)?;
        let request = create::Request {
            id: id.to_owned(),
            config,
            target_pid,
        };
        let node = Arc::clone(&self.node);
        let made = blocking(move || create::create(&node, &pod, request)).await?;
        tracing::info!(container.id = id, pod.id = self.pod.id, "container created");
        let container = Container {
            record: Arc::new(made.record),
            lease: Some(made.lease),
            deleted: false,
            stopping: None,
        };
        self.containers.insert(id.to_owned(), container);
        self.node.add_container(id, &self.pod.id);
        self.publish();
        self.notify(id, EventKind::Created);
        Ok(())
    }

    /// The pod's record, if the pod can take containers.
    fn ready(&self) -> Result<Arc<PodRecord>> {
        match (&self.record, &self.not_ready) {
            (Ok(record), None) => Ok(Arc::clone(record)),
            (Err(why), _) | (_, Some(why)) => Err(Error::PodNotReady {
                id: self.pod.id.clone(),
                why: why.clone(),
            }),
        }
    }

    /// The process whose process namespace the container joins.
    fn target(&self, config: &ContainerConfig) -> Result<Option<u32>> {
        let options = &config.security.namespaces;
        if options.pid != NamespaceMode::Target {
            return Ok(None);
        }
        let field = "linux.security_context.namespace_options.target_id";
        let found = ids::find(self.containers.keys(), &options.target_id)?
            .and_then(|id| self.containers.get(&id));
        let Some(target) = found else {
            return Err(Error::invalid(
                field,
                format!("{:?} is no container of this pod", options.target_id),
            ));
        };
        match (&target.record.phase, target.record.pid) {
            (Phase::Running { .. }, Some(pid)) => Ok(Some(pid)),
            _ => Err(Error::invalid(
                field,
                format!("container {:?} does not run", options.target_id),
            )),
        }
    }

    async fn start(&mut self, id: &str) -> Result<()> {
        let record = Arc::clone(&self.container(id)?.record);
        if record.phase != Phase::Created {
            return Err(wrong_state(&record, "created"));
        }
        self.ready()?;
        // Before the runtime is asked: a very short program may have ended when it answers.
        let at = ids::now();
        let supervisor = self.supervisor.clone();
        let action = format!("start container {:?}", record.config.metadata.name);
        let asked = id.to_owned();
        let started =
            blocking(move || supervisor.ask(&action, |client| client.start(&asked))).await;
        match started {
            Ok(()) => {
                self.change(id, &Change::Started { at });
                tracing::info!(container.id = id, pod.id = self.pod.id, "container started");
                self.notify(id, EventKind::Started);
                Ok(())
            }
            Err(error) => {
                self.end(id, &status::start_error(ids::now(), error.report()))
                    .await;
                Err(error)
            }
        }
    }

    async fn update(&mut self, id: &str, change: Resources) -> Result<()> {
        let record = Arc::clone(&self.container(id)?.record);
        if !matches!(record.phase, Phase::Created | Phase::Running { .. }) {
            return Err(wrong_state(&record, "created or running"));
        }
        let node = Arc::clone(&self.node);
        let updated = blocking(move || update::update(&node, &record, &change)).await?;
        if let Some(container) = self.containers.get_mut(id) {
            container.record = Arc::new(updated);
        }
        self.publish();
        Ok(())
    }

    async fn remove(&mut self, id: &str) -> Result<()> {
        self.kill_and_wait(&[id.to_owned()]).await?;
        let (handler, cgroup, deleted) = match self.containers.get(id) {
            Some(container) => {
                let handler = self.record.as_ref().map(|pod| pod.handler.clone()).ok();
                (handler, container.record.cgroup.clone(), container.deleted)
            }
            None if self.unknown.contains_key(id) => (None, String::new(), false),
            None => return Ok(()),
        };
        failpoint::hit("remove_container.killed")?;
        let (node, pod, removed) = (Arc::clone(&self.node), self.pod.id.clone(), id.to_owned());
        blocking(move || match deleted {
            true => remove::remove_files(&node, &pod, &removed),
            false => remove::remove(&node, &pod, &removed, handler.as_deref(), &cgroup),
        })
        .await?;
        self.drop_container(id);
        Ok(())
    }

    /// Forgets a container whose files are gone.
    fn drop_container(&mut self, id: &str) {
        let last = match (self.containers.get(id), self.unknown.get(id)) {
            (Some(known), _) => Some(status::status(&known.record, false)),
            (None, why) => why.map(|why| status::unknown(id, &self.pod.id, why)),
        };
        if let (Some(container), Ok(pod)) = (self.containers.remove(id), &self.record) {
            let name = ContainerRecord::name(&container.record.config, &pod.config);
            self.node.container_names.release(&name, id);
            drop(container.lease);
        }
        self.unknown.remove(id);
        self.node.drop_container(id);
        self.pod.samples.forget(id);
        tracing::info!(container.id = id, pod.id = self.pod.id, "container removed");
        self.publish();
        self.notify_with(id, EventKind::Deleted, last);
    }

    // --- the pod

    async fn update_pod(
        &mut self,
        overhead: Option<Box<Resources>>,
        resources: Option<Box<Resources>>,
    ) -> Result<()> {
        let record = self.ready()?;
        let node = Arc::clone(&self.node);
        let (overhead, resources) = (overhead.map(|one| *one), resources.map(|one| *one));
        let changed = blocking(move || resize::resize(&node, &record, overhead, resources)).await?;
        self.record = Ok(changed);
        self.publish();
        Ok(())
    }

    async fn stop_pod(&mut self) -> Result<()> {
        if self.torn_down {
            return Ok(());
        }
        if let Ok(record) = &mut self.record
            && record.phase != PodPhase::Stopped
        {
            let mut stopped = PodRecord::clone(record);
            stopped.phase = PodPhase::Stopped;
            // A full tmpfs must not keep a pod from stopping: without the note the next daemon finds it
            // without its shim, which comes to the same.
            if let Err(error) =
                record::write(&PodRecord::path(&self.node.pod_dir(&self.pod.id)), &stopped)
            {
                tracing::warn!(pod.id = self.pod.id, "{}", error.report());
            }
            *record = Arc::new(stopped);
        }
        self.not_ready = Some("it was stopped".into());
        self.publish();
        failpoint::hit("stop_pod.intent")?;
        let all: Vec<String> = self.containers.keys().cloned().collect();
        self.kill_and_wait(&all).await?;
        for id in &all {
            // It is dead; what cannot be tidied up now is tried again by the removal, and must not keep the address.
            if let Err(error) = self.forget(id).await {
                tracing::warn!(container.id = id, "{}", error.report());
            }
        }
        failpoint::hit("stop_pod.killed")?;
        let (node, id, record) = (
            Arc::clone(&self.node),
            self.pod.id.clone(),
            self.record.clone(),
        );
        blocking(move || match record {
            Ok(record) => teardown::stop(&node, &record),
            Err(_) => teardown::stop_unknown(&node, &id),
        })
        .await?;
        failpoint::hit("stop_pod.torn_down")?;
        self.torn_down = true;
        self.shim_pid = None;
        self.publish();
        tracing::info!(pod.id = self.pod.id, "pod stopped");
        self.notify(&self.pod.id, EventKind::Stopped);
        Ok(())
    }

    async fn remove_pod(&mut self) -> Result<()> {
        self.stop_pod().await?;
        let all: Vec<String> = self
            .containers
            .keys()
            .chain(self.unknown.keys())
            .cloned()
            .collect();
        for id in all {
            self.remove(&id).await?;
        }
        failpoint::hit("remove_pod.containers")?;
        let (node, id) = (Arc::clone(&self.node), self.pod.id.clone());
        blocking(move || teardown::remove_pod_dirs(&node, &id)).await?;
        if let Ok(record) = &self.record {
            self.node
                .pod_names
                .release(&PodRecord::name(&record.config), &self.pod.id);
        }
        self.node.drop_pod(&self.pod.id);
        tracing::info!(pod.id = self.pod.id, "pod removed");
        self.notify(&self.pod.id, EventKind::Deleted);
        Ok(())
    }
}

/// The caller may have left: then the answer is not missed.
fn answer(reply: super::Reply, result: Result<()>) {
    reply.send(result).ok();
}

fn wrong_state(record: &ContainerRecord, wanted: &'static str) -> Error {
    let state = match record.phase {
        Phase::Creating => "being created",
        Phase::Created => "created",
        Phase::Running { .. } => "running",
        Phase::Exited(_) => "exited",
    };
    Error::ContainerState {
        id: record.id.clone(),
        state,
        wanted,
    }
}
