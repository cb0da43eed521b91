//! Finding again what runs when the engine opens, and undoing what was half made.
//!
//! | found | becomes |
//! |---|---|
//! | a pod being created, or without a record | undone |
//! | a pod whose shim answers | READY, with its containers as the shim says |
//! | a pod whose shim lives and does not answer | READY, with its containers as recorded until it does |
//! | a pod whose shim died | NotReady; its containers' processes are killed; exited as their exit files say, else 255 `Unknown` |
//! | a pod that was being stopped | NotReady; stopped to the end |
//! | a record that does not load | NotReady or UNKNOWN, and removable |
//! | a container being created, or without a record | undone |
//! | a writable layer without its container | removed |
//! | an attachment to a network without its pod | disconnected |
//!
//! What cannot be undone now stays visible, so that stopping and removing it can be tried again.

mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shim::protocol::{State, Status};

use crate::container::{remove, status};
use crate::error::Result;
use crate::ids;
use crate::images;
use crate::node::{Node, remove_dir};
use crate::pod::supervisor::Supervisor;
use crate::pod::task::{Container, Start, Task, last_words};
use crate::pod::teardown;
use crate::record::{self, Change, ContainerRecord, Phase, PodPhase, PodRecord};

/// Recovers everything. Blocks, and needs a tokio runtime for the pods' tasks.
pub(crate) fn recover(node: &Arc<Node>) {
    let deadline = Instant::now() + ANSWER;
    for id in ids_in(&node.pods_dir()) {
        match pod(node, &id, deadline) {
            Some(start) => {
                hold_unknown(node, &id, start.unknown.keys());
                if let Ok(record) = &start.record {
                    node.pod_names
                        .restore(&PodRecord::name(&record.config), &id);
                    for container in start.containers.values() {
                        let name = ContainerRecord::name(&container.record.config, &record.config);
                        node.container_names.restore(&name, &container.record.id);
                    }
                }
                Task::spawn(node, start);
            }
            None => tracing::info!(pod.id = id, "undid a half-made pod"),
        }
    }
    sweep(node);
}

/// Keeps the layers of containers whose records do not load until they are removed: their images may be gone
/// already, or go later.
fn hold_unknown<'a>(node: &Node, pod: &str, ids: impl Iterator<Item = &'a String>) {
    let mut ids = ids.peekable();
    if ids.peek().is_none() {
        return;
    }
    let table = match sys::mountinfo::own() {
        Ok(table) => table,
        Err(error) => {
            tracing::error!(pod.id = pod, "the layers in use are not known: {error}");
            return;
        }
    };
    let layers_dir = node.config.state_dir.join("layers");
    for id in ids {
        let layers = mounted::layers(&table, &node.bundle(pod, id), &layers_dir);
        match node.store.lease(&layers) {
            Ok(lease) => node.hold_for(id, lease),
            Err(error) => tracing::error!(container.id = id, "hold its layers: {error}"),
        }
    }
}

/// What became of the pod `id`; `None` when it was undone.
fn pod(node: &Arc<Node>, id: &str, deadline: Instant) -> Option<Start> {
    let dir = node.pod_dir(id);
    let path = PodRecord::path(&dir);
    let record = match record::read::<PodRecord>(&path) {
        Ok(record) if record.phase != PodPhase::Creating => record,
        Ok(record) => return undo_pod(node, id, Some(record)),
        // The daemon died between making the directory and writing the record.
        Err(_) if !path.exists() => return undo_pod(node, id, None),
        Err(error) => {
            tracing::error!(pod.id = id, "{}", error.report());
            let containers = ids_in(&dir)
                .into_iter()
                .map(|one| (one, "its pod's record does not load".to_owned()));
            return Some(stopped(
                id,
                Err(error.report()),
                "its record does not load",
                containers.collect(),
            ));
        }
    };
    let supervisor = Supervisor::new(dir);
    let answer = if record.phase == PodPhase::Ready {
        ask(&supervisor, deadline)
    } else {
        Answer::Gone
    };
    let not_ready = match (&record.phase, &answer) {
        (PodPhase::Stopped, _) => Some("it was stopped"),
        (_, Answer::Gone) => Some("its shim is gone"),
        (_, Answer::State(state)) if state.pod_init_alive == Some(false) => {
            Some("the init of its process namespace ended")
        }
        _ => None,
    };
    let (containers, unknown) = containers(node, &record, &answer);
    if matches!(answer, Answer::Gone) {
        finish_stop(node, &record);
    }
    let unheard = match answer {
        Answer::Silent => containers.keys().cloned().collect(),
        _ => BTreeSet::new(),
    };
    Some(Start {
        id: id.to_owned(),
        record: Ok(Arc::new(record)),
        not_ready: not_ready.map(str::to_owned),
        shim_pid: supervisor.pid().filter(|_| not_ready.is_none()),
        unheard,
        containers,
        unknown,
    })
}

/// A pod without a shim: what it still holds on to is let go now.
fn finish_stop(node: &Node, record: &PodRecord) {
    if let Err(error) = teardown::stop(node, record) {
        tracing::warn!(
            pod.id = record.id,
            "{}; stopping the pod tries again",
            error.report()
        );
    }
}

fn stopped(
    id: &str,
    record: Result<Arc<PodRecord>, String>,
    why: &str,
    unknown: BTreeMap<String, String>,
) -> Start {
    Start {
        id: id.to_owned(),
        record,
        not_ready: Some(why.to_owned()),
        shim_pid: None,
        unheard: BTreeSet::new(),
        containers: BTreeMap::new(),
        unknown,
    }
}

/// Takes a half-made pod away.
fn undo_pod(node: &Arc<Node>, id: &str, record: Option<PodRecord>) -> Option<Start> {
    let torn_down = match &record {
        Some(record) => teardown::stop(node, record),
        None => teardown::stop_unknown(node, id),
    };
    match torn_down.and_then(|()| teardown::remove_pod_dirs(node, id)) {
        Ok(()) => None,
        Err(error) => {
            tracing::error!(pod.id = id, "undo a half-made pod: {}", error.report());
            let record = record.map(Arc::new).ok_or_else(|| error.report());
            Some(stopped(
                id,
                record,
                "it was left half made",
                BTreeMap::new(),
            ))
        }
    }
}

/// How long shims may take to answer, all together; and each of them when that is over. One that takes longer is waited
/// for by its pod's own listener.
const ANSWER: Duration = Duration::from_secs(10);
const SHORT_ANSWER: Duration = Duration::from_millis(100);

/// What became of a shim.
enum Answer {
    /// It says what runs.
    State(Status),
    /// Its process lives, and it says nothing: stopped, or waiting for a disk.
    Silent,
    /// Its process is no more.
    Gone,
}

fn ask(supervisor: &Supervisor, deadline: Instant) -> Answer {
    let limit = deadline
        .saturating_duration_since(Instant::now())
        .max(SHORT_ANSWER);
    match supervisor
        .connect_within(limit)
        .and_then(|mut client| client.status())
    {
        Ok(status) => Answer::State(status),
        Err(_) if supervisor.is_dead() => Answer::Gone,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a shim lives and does not answer; its pod is taken as recorded until it does"
            );
            Answer::Silent
        }
    }
}

type Found = (BTreeMap<String, Container>, BTreeMap<String, String>);

/// The containers of a pod, and those whose records do not load.
fn containers(node: &Arc<Node>, pod: &PodRecord, answer: &Answer) -> Found {
    let (mut found, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    let dir = node.pod_dir(&pod.id);
    for id in ids_in(&dir) {
        let path = ContainerRecord::path(&dir.join(&id));
        match record::read::<ContainerRecord>(&path) {
            // Nobody can tell what of it is there; removing it asks again.
            Ok(record) if record.phase == Phase::Creating && matches!(answer, Answer::Silent) => {
                unknown.insert(
                    id,
                    "it was left half made, and its shim does not answer".into(),
                );
            }
            Ok(record) if record.phase == Phase::Creating => {
                undo_container(node, pod, &id, &record.cgroup, &mut unknown);
            }
            Ok(record) => {
                found.insert(id, container(node, record, answer));
            }
            Err(_) if !path.exists() => undo_container(node, pod, &id, "", &mut unknown),
            Err(error) => {
                tracing::error!(container.id = id, "{}", error.report());
                unknown.insert(id, error.report());
            }
        }
    }
    (found, unknown)
}

fn undo_container(
    node: &Node,
    pod: &PodRecord,
    id: &str,
    cgroup: &str,
    unknown: &mut BTreeMap<String, String>,
) {
    match remove::remove(node, &pod.id, id, Some(&pod.handler), cgroup) {
        Ok(()) => tracing::info!(container.id = id, "undid a half-made container"),
        Err(error) => {
            tracing::error!(
                container.id = id,
                "undo a half-made container: {}",
                error.report()
            );
            unknown.insert(id.to_owned(), error.report());
        }
    }
}

/// A container with a record: brought up to date, its layers held again.
fn container(node: &Node, mut record: ContainerRecord, answer: &Answer) -> Container {
    let before = record.phase.clone();
    for change in missed(node, &record, answer) {
        if let Some(phase) = record.phase.after(&change) {
            record.phase = phase;
        }
    }
    if record.phase != before {
        let path = ContainerRecord::path(&node.bundle(&record.pod_id, &record.id));
        if let Err(error) = record::write(&path, &record) {
            tracing::warn!(container.id = record.id, "{}", error.report());
        }
    }
    let lease =
        images::diff_ids(record.layers.iter().chain(&record.volume_layers)).and_then(|layers| {
            node.store
                .lease(&layers)
                .map_err(|error| images::failed("hold the container's layers".into(), error))
        });
    let lease = lease
        .inspect_err(|error| tracing::error!(container.id = record.id, "{}", error.report()))
        .ok();
    Container {
        record: Arc::new(record),
        lease,
        deleted: false,
        stopping: None,
    }
}

/// What happened to a container while no daemon looked.
fn missed(node: &Node, record: &ContainerRecord, answer: &Answer) -> Vec<Change> {
    if matches!(record.phase, Phase::Exited(_)) {
        return Vec::new();
    }
    let state = match answer {
        Answer::State(state) => state,
        Answer::Silent => return Vec::new(),
        Answer::Gone => return vec![last_words(node, record)],
    };
    let Some(seen) = state.containers.iter().find(|one| one.id == record.id) else {
        // The shim lives and does not know it: its exit file is the last chance.
        return vec![last_words(node, record)];
    };
    let mut changes = Vec::new();
    if seen.started_at_ns > 0 && matches!(seen.state, State::Running | State::Exited) {
        changes.push(Change::Started {
            at: seen.started_at_ns,
        });
    }
    changes.extend(seen.exit.as_ref().map(status::ended));
    changes
}

/// Removes what belongs to no pod.
fn sweep(node: &Arc<Node>) {
    let warn = |result: Result<()>| {
        if let Err(error) = result {
            tracing::warn!("{}", error.report());
        }
    };
    let known = |id: &str| node.pod_dir(id).exists();
    for pod in names_in(&node.config.state_dir.join("pods")) {
        if !ids::is_id(&pod) || !known(&pod) {
            warn(remove_dir(&node.writable_pod(&pod)));
            continue;
        }
        for container in names_in(&node.writable_pod(&pod)) {
            if !node.bundle(&pod, &container).exists() {
                warn(remove_dir(&node.writable(&pod, &container)));
            }
        }
    }
    node.network.forget_all_but(&node.pods_dir(), known);
    node.network.collect(&node.pods_dir());
    match node.store.collect_garbage() {
        Ok(report) => tracing::debug!(
            layers = report.layers,
            bytes = report.bytes,
            "collected unused layers"
        ),
        Err(error) => warn(Err(images::failed("collect unused layers".into(), error))),
    }
}

/// The directories in `dir` whose names are ids.
fn ids_in(dir: &Path) -> Vec<String> {
    names_in(dir)
        .into_iter()
        .filter(|name| ids::is_id(name))
        .collect()
}

/// The directories in `dir`; one that cannot be read has none.
fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
