//! RunPodSandbox: from a request to a pod that is READY, or to nothing.

use std::sync::Arc;

use sys::failpoint;

use super::supervisor::Supervisor;
use super::{files, teardown};
use crate::error::{Error, Result};
use crate::ids;
use crate::model::{NamespaceMode, PodConfig};
use crate::node::{Node, make_dir};
use crate::placement::{self, Place};
use crate::record::{self, PodPhase, PodRecord};
use crate::spec::{check, seccomp, userns};
use crate::undo::{self, Undo};

/// The longest hostname: `HOST_NAME_MAX`.
const HOSTNAME_MAX: usize = 64;

/// Everything that can be wrong with a request, before its name is reserved.
pub(crate) fn validate(node: &Node, config: &PodConfig, handler: &str) -> Result<()> {
    check::pod(config, &node.host)?;
    place(node, config, "")?;
    node.handlers.get(handler)?;
    // Nothing of the user's runs in the pod's own process: its profile only has to be one.
    seccomp::filter(config.security.seccomp.as_ref(), None)?;
    if userns::ranges(&config.security.namespaces).is_some()
        && !node.handlers.features(handler).user_namespaces
    {
        return Err(Error::unsupported(
            "linux.security_context.namespace_options.userns_options",
            format!(
                "the runtime of handler {handler:?} does not say that it knows id-mapped mounts"
            ),
        ));
    }
    Ok(())
}

/// The record of a new pod.
pub(crate) fn plan(node: &Node, id: &str, config: PodConfig, handler: &str) -> PodRecord {
    // It was validated; a parent that makes no sense is left alone.
    let place = place(node, &config, id).unwrap_or_else(|_| {
        let (driver, root) = (node.config.cgroup_driver, &node.config.cgroup_root);
        let own = placement::own(driver, root, id);
        Place {
            parent: own.clone(),
            pod: own,
        }
    });
    PodRecord {
        version: record::VERSION,
        id: id.to_owned(),
        phase: PodPhase::Creating,
        created_at: ids::now(),
        handler: handler.to_owned(),
        hostname: hostname(&config),
        cgroup_parent: place.parent,
        pod_cgroup: place.pod,
        ips: Vec::new(),
        config,
    }
}

/// Where its cgroups are.
fn place(node: &Node, config: &PodConfig, id: &str) -> Result<Place> {
    let (driver, root) = (node.config.cgroup_driver, &node.config.cgroup_root);
    placement::of_pod(driver, root, &config.cgroup_parent, id)
}

/// What the pod calls itself.
fn hostname(config: &PodConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    if config.security.namespaces.network == NamespaceMode::Node {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        return host.trim().to_owned();
    }
    let name = config.metadata.name.chars().map(|c| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    });
    name.take(HOSTNAME_MAX).collect()
}

/// Makes the pod. Blocks. On failure everything is undone; where that failed as well, the directory with the
/// record stays, so that stopping and removing can be tried again.
pub(crate) fn run(node: &Arc<Node>, mut pod: PodRecord) -> Result<PodRecord> {
    let dir = node.pod_dir(&pod.id);
    let supervisor = Supervisor::new(dir.clone());
    undo::on_error(|undo| {
        intend(node, &pod, undo)?;
        cgroup(node, &pod, undo)?;
        launch(node, &pod, &supervisor, undo)?;

        // The network is the slow part: everything that does not need it happens beside it.
        undo.push("disconnect the network", detach(node, &pod.id));
        let (attached, prepared) = std::thread::scope(|scope| {
            let prepared = scope.spawn(|| prepare(&pod, &dir));
            let attached = attach(node, &pod, &supervisor);
            let prepared = prepared.join().unwrap_or_else(|_| {
                Err(Error::Internal("preparing the pod's files panicked".into()))
            });
            (attached, prepared)
        });
        undo.push("unmount /dev/shm", {
            let dir = dir.clone();
            move || files::unmount_shm(&dir)
        });
        pod.ips = attached?;
        prepared?;
        failpoint::hit("run_pod.network")?;

        files::write_hosts(&dir, &pod.hostname, &pod.config, &pod.ips)?;
        files::give_to_root(&dir, &pod.config)?;
        failpoint::hit("run_pod.files")?;

        pod.phase = PodPhase::Ready;
        record::write(&PodRecord::path(&dir), &pod)?;
        failpoint::hit("run_pod.ready")?;
        Ok(())
    })?;
    Ok(pod)
}

/// Writes what is about to be made, so that a daemon that dies finds it.
fn intend(node: &Arc<Node>, pod: &PodRecord, undo: &mut Undo) -> Result<()> {
    let dir = node.pod_dir(&pod.id);
    undo.push("remove the pod's directory", {
        let (node, id) = (Arc::clone(node), pod.id.clone());
        move || teardown::remove_pod_dirs(&node, &id)
    });
    make_dir(&dir)?;
    failpoint::hit("run_pod.directory")?;
    record::write(&PodRecord::path(&dir), pod)?;
    failpoint::hit("run_pod.intent")?;
    Ok(())
}

/// Makes the pod's own cgroup, where something goes into it.
fn cgroup(node: &Arc<Node>, pod: &PodRecord, undo: &mut Undo) -> Result<()> {
    undo.push("remove the cgroup", {
        let (node, path) = (Arc::clone(node), pod.pod_cgroup.clone());
        move || teardown::remove_cgroup(&node, &path)
    });
    let cgroup = node.cgroup(&pod.pod_cgroup)?;
    if pod.config.security.namespaces.pid == NamespaceMode::Pod
        || pod.pod_cgroup == pod.cgroup_parent
    {
        // What it made is known: teardown removes the pod's cgroup, and a parent of the caller's stays.
        cgroup.create().map(drop).map_err(|source| Error::Cgroup {
            action: format!("make cgroup {}", pod.pod_cgroup),
            source,
        })?;
    }
    failpoint::hit("run_pod.cgroup")?;
    Ok(())
}

fn launch(
    node: &Arc<Node>,
    pod: &PodRecord,
    supervisor: &Supervisor,
    undo: &mut Undo,
) -> Result<()> {
    undo.push("end the shim", {
        let supervisor = supervisor.clone();
        move || supervisor.end()
    });
    supervisor.launch(node, pod)?;
    failpoint::hit("run_pod.shim")?;
    Ok(())
}

fn attach(node: &Node, pod: &PodRecord, supervisor: &Supervisor) -> Result<Vec<String>> {
    match pod.config.security.namespaces.network {
        NamespaceMode::Node => Ok(Vec::new()),
        _ => node.network.attach(pod, &supervisor.netns()),
    }
}

/// The undo of [`attach`].
fn detach(node: &Arc<Node>, id: &str) -> impl FnOnce() -> Result<()> + Send + use<> {
    let (node, id) = (Arc::clone(node), id.to_owned());
    move || node.network.detach(&id)
}

/// The pod's files and its `/dev/shm`.
fn prepare(pod: &PodRecord, dir: &std::path::Path) -> Result<()> {
    files::write_early(dir, &pod.hostname, &pod.config)?;
    if pod.config.security.namespaces.ipc != NamespaceMode::Node {
        files::mount_shm(dir)?;
    }
    Ok(())
}
