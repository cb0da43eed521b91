//! The task that owns a pod: one command after the other, exits and deadlines in between.
//!
//! Stopping a container takes as long as its grace and blocks nothing: the task notes the deadline and who
//! waits, and goes on. Everything that blocks runs on the blocking pool.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shim::protocol::{Event, State, Status};
use snapshotter::Lease;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::stop::Stopping;
use super::supervisor::Supervisor;
use super::watch::{self, Signal};
use super::{Command, Entry, Pod, View, teardown};
use crate::container::{remove, status};
use crate::error::{Error, Result};
use crate::events::{self, Event as Notice, EventKind};
use crate::ids;
use crate::images::blocking;
use crate::model::ContainerStatus;
use crate::node::Node;
use crate::record::{self, Change, ContainerRecord, Phase, PodPhase, PodRecord};

/// A pod's state; nobody else has it.
pub(crate) struct Task {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Pod>,
    pub(super) supervisor: Supervisor,
    /// The record, or why it does not load.
    pub(super) record: Result<Arc<PodRecord>, String>,
    /// Why the pod is not READY.
    pub(super) not_ready: Option<String>,
    /// Whether everything but records and containers' files is gone.
    pub(super) torn_down: bool,
    pub(super) shim_pid: Option<u32>,
    /// Containers that the shim has not been heard about since this daemon started.
    pub(super) unheard: BTreeSet<String>,
    pub(super) containers: BTreeMap<String, Container>,
    /// Containers whose records do not load, and why.
    pub(super) unknown: BTreeMap<String, String>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) signals: mpsc::UnboundedReceiver<Signal>,
}

/// A container's state.
pub(crate) struct Container {
    pub(crate) record: Arc<ContainerRecord>,
    /// Keeps its layers; `None` where they are lost already.
    pub(crate) lease: Option<Lease>,
    /// Whether the runtime has forgotten it.
    pub(crate) deleted: bool,
    pub(crate) stopping: Option<Stopping>,
}

/// What a task begins with.
pub(crate) struct Start {
    pub(crate) id: String,
    pub(crate) record: Result<Arc<PodRecord>, String>,
    pub(crate) not_ready: Option<String>,
    pub(crate) shim_pid: Option<u32>,
    /// The shim lives and has not answered: what it says at last decides about these containers.
    pub(crate) unheard: BTreeSet<String>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) unknown: BTreeMap<String, String>,
}

impl Start {
    /// A pod without containers.
    pub(crate) fn new(record: PodRecord, not_ready: Option<String>, shim_pid: Option<u32>) -> Self {
        Self {
            id: record.id.clone(),
            record: Ok(Arc::new(record)),
            not_ready,
            shim_pid,
            unheard: BTreeSet::new(),
            containers: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }
}

impl Task {
    /// Makes the pod known and starts its task, and the one that listens to its shim.
    pub(crate) fn spawn(node: &Arc<Node>, start: Start) {
        Self::spawn_with(node, start, &[]);
    }

    /// As [`Task::spawn`] for a pod that was made just now: whoever listens is told.
    pub(crate) fn spawn_new(node: &Arc<Node>, start: Start) {
        Self::spawn_with(node, start, &[EventKind::Created, EventKind::Started]);
    }

    fn spawn_with(node: &Arc<Node>, start: Start, news: &[EventKind]) {
        let supervisor = Supervisor::new(node.pod_dir(&start.id));
        let view = View {
            record: start.record.clone(),
            not_ready: None,
            shim_pid: start.shim_pid,
            containers: BTreeMap::new(),
        };
        let (pod, commands) = Pod::new(&start.id, view);
        let (sender, signals) = mpsc::unbounded_channel();
        if start.not_ready.is_none() {
            tokio::spawn(watch::watch(Arc::clone(&pod), supervisor.clone(), sender));
        }
        for id in start.containers.keys().chain(start.unknown.keys()) {
            node.add_container(id, &start.id);
        }
        let task = Self {
            node: Arc::clone(node),
            pod: Arc::clone(&pod),
            supervisor,
            record: start.record,
            not_ready: start.not_ready,
            torn_down: false,
            shim_pid: start.shim_pid,
            unheard: start.unheard,
            containers: start.containers,
            unknown: start.unknown,
            commands,
            signals,
        };
        task.publish();
        node.add_pod(pod);
        for kind in news {
            task.notify(&task.pod.id, *kind);
        }
        tokio::spawn(task.run());
    }

    async fn run(mut self) {
        let mut closing = self.node.closing.subscribe();
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                () = closed(&mut closing) => return,
                Some(signal) = self.signals.recv() => self.on_signal(signal).await,
                () = sleep_until(deadline), if deadline.is_some() => self.on_deadline().await,
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    if self.on_command(command).await == ControlFlow::Break(()) {
                        return self.reject_the_rest();
                    }
                }
            }
        }
    }

    /// Lets everyone see the state as it is now.
    pub(super) fn publish(&self) {
        let known = self
            .containers
            .iter()
            .map(|(id, one)| (id.clone(), Entry::Known(Arc::clone(&one.record))));
        let unknown = self
            .unknown
            .iter()
            .map(|(id, why)| (id.clone(), Entry::Unknown(why.clone())));
        self.pod.publish(View {
            record: self.record.clone(),
            not_ready: self.not_ready.clone(),
            shim_pid: self.shim_pid,
            containers: known.chain(unknown).collect(),
        });
    }

    /// Tells whoever listens to the engine.
    pub(super) fn notify(&self, id: &str, kind: EventKind) {
        self.notify_with(id, kind, None);
    }

    /// As [`Task::notify`], with a container that is no more.
    pub(super) fn notify_with(&self, id: &str, kind: EventKind, gone: Option<ContainerStatus>) {
        if self.node.events.receiver_count() == 0 {
            return;
        }
        let view = self.pod.view();
        let known = view.containers.iter().map(|(id, entry)| match entry {
            Entry::Known(record) => status::status(record, false),
            Entry::Unknown(why) => status::unknown(id, &self.pod.id, why),
        });
        let notice = Notice {
            id: id.to_owned(),
            pod_id: self.pod.id.clone(),
            kind,
            at: ids::now(),
            state: Arc::new(events::State {
                pod: super::status::status(&self.node, &self.pod, false),
                containers: known.chain(gone).collect(),
            }),
        };
        // Whoever listened may have left: fine.
        self.node.events.send(notice).ok();
    }

    pub(super) async fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Event(Event::Exit { container_id, exit }) => {
                self.end(&container_id, &status::ended(&exit)).await
            }
            Signal::Event(Event::PodInitExit {}) => {
                self.lose_readiness("the init of its process namespace ended")
            }
            Signal::Event(Event::ExecExit { .. }) => {}
            Signal::State(state) => self.on_state(state).await,
            Signal::Gone => self.on_gone().await,
        }
    }

    /// What the shim says as a whole: exits that nobody heard of.
    async fn on_state(&mut self, state: Status) {
        if state.pod_init_alive == Some(false) {
            self.lose_readiness("the init of its process namespace ended");
        }
        self.end_forgotten(&state).await;
        for one in state.containers {
            if one.state == State::Running && one.started_at_ns > 0 {
                self.change(
                    &one.id,
                    &Change::Started {
                        at: one.started_at_ns,
                    },
                );
            }
            if let Some(exit) = &one.exit {
                self.end(&one.id, &status::ended(exit)).await;
            }
        }
    }

    /// A shim that was silent when this daemon started answers, and does not know a container of then any more.
    async fn end_forgotten(&mut self, state: &Status) {
        let known: BTreeSet<&str> = state.containers.iter().map(|one| &*one.id).collect();
        for id in std::mem::take(&mut self.unheard) {
            if !known.contains(&*id)
                && let Some(one) = self.containers.get(&id)
                && !is_exited(&one.record)
            {
                let record = Arc::clone(&one.record);
                self.end_without_shim(&record).await;
            }
        }
    }

    /// The shim died. Nobody collects exit codes any more: what still runs is killed, so that "exited" is true.
    pub(super) async fn on_gone(&mut self) {
        self.shim_pid = None;
        if self
            .record
            .as_ref()
            .is_ok_and(|record| record.phase == PodPhase::Stopped)
        {
            // A stop that is under way still waits for exits, which nobody else will tell now.
            self.publish();
        } else {
            tracing::error!(pod.id = self.pod.id, "the pod's shim is gone");
            self.node.shims_lost.fetch_add(1, Ordering::Relaxed);
            self.lose_readiness("its shim is gone");
        }
        let alive: Vec<Arc<ContainerRecord>> = self
            .containers
            .values()
            .map(|one| Arc::clone(&one.record))
            .filter(|one| !is_exited(one))
            .collect();
        for container in alive {
            self.end_without_shim(&container).await;
        }
    }

    async fn end_without_shim(&mut self, container: &Arc<ContainerRecord>) {
        let (node, record) = (Arc::clone(&self.node), Arc::clone(container));
        let change = blocking(move || Ok(last_words(&node, &record))).await;
        let change = change.unwrap_or_else(|error| status::lost(ids::now(), &error.report()));
        self.end(&container.id, &change).await;
    }

    fn lose_readiness(&mut self, why: &str) {
        if self.not_ready.is_none() {
            tracing::warn!(pod.id = self.pod.id, why, "the pod is no longer ready");
            self.not_ready = Some(why.to_owned());
            self.publish();
            self.notify(&self.pod.id, EventKind::Stopped);
        }
    }

    /// Applies a change to a container's record, if it can happen now, and shows it.
    pub(super) fn change(&mut self, id: &str, change: &Change) -> bool {
        let bundle = self.node.bundle(&self.pod.id, id);
        let Some(container) = self.containers.get_mut(id) else {
            return false;
        };
        let Some(phase) = container.record.phase.after(change) else {
            return false;
        };
        let record = Arc::make_mut(&mut container.record);
        record.phase = phase;
        // Memory and the shim's exit file have it, too: a full tmpfs must not keep a container from ending.
        if let Err(error) = record::write(&ContainerRecord::path(&bundle), record) {
            tracing::warn!(container.id = id, "{}", error.report());
        }
        self.publish();
        true
    }

    /// A container ended: shows it, answers those who wait, lets the runtime forget it.
    pub(super) async fn end(&mut self, id: &str, change: &Change) {
        if !self.change(id, change) {
            return;
        }
        tracing::info!(
            container.id = id,
            pod.id = self.pod.id,
            ?change,
            "container ended"
        );
        self.notify(id, EventKind::Stopped);
        if let Some(stopping) = self
            .containers
            .get_mut(id)
            .and_then(|one| one.stopping.take())
        {
            stopping.answer(|| Ok(()));
        }
        if let Err(error) = self.forget(id).await {
            // Removing the container tries again and tells its caller.
            tracing::warn!(container.id = id, "{}", error.report());
        }
    }

    /// Has the runtime delete an exited container: its cgroup goes with whatever is left in it.
    pub(super) async fn forget(&mut self, id: &str) -> Result<()> {
        let (Some(container), Ok(pod)) = (self.containers.get_mut(id), &self.record) else {
            return Ok(());
        };
        if container.deleted {
            return Ok(());
        }
        let (node, record, handler) = (
            Arc::clone(&self.node),
            Arc::clone(&container.record),
            pod.handler.clone(),
        );
        blocking(move || {
            remove::delete(&node, &record.pod_id, &record.id, &handler, &record.cgroup)
        })
        .await?;
        if let Some(container) = self.containers.get_mut(id) {
            container.deleted = true;
        }
        Ok(())
    }

    /// The container `id`, which may have been removed while the command was on its way.
    pub(super) fn container(&self, id: &str) -> Result<&Container> {
        self.containers
            .get(id)
            .ok_or_else(|| Error::ContainerNotFound { id: id.to_owned() })
    }
}

/// Whether a container has ended.
pub(super) fn is_exited(record: &ContainerRecord) -> bool {
    matches!(record.phase, Phase::Exited(_))
}

/// Without a shim: how a container ended, from its exit file, or that nobody knows. Kills what is left of it.
pub(crate) fn last_words(node: &Node, record: &ContainerRecord) -> Change {
    if let Err(error) = teardown::kill_orphans(node, record) {
        tracing::warn!(container.id = record.id, "{}", error.report());
    }
    let path = node.bundle(&record.pod_id, &record.id).join("exit");
    match std::fs::read(&path)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
    {
        Some(exit) => status::ended(&exit),
        None => status::lost(ids::now(), "its supervisor ended before it did"),
    }
}

/// Waits until the engine closes.
async fn closed(closing: &mut tokio::sync::watch::Receiver<bool>) {
    // An error says that the engine is no more, which comes to the same.
    closing.wait_for(|closing| *closing).await.map(drop).ok();
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
