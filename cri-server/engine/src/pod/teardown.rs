//! Taking a pod away. Every step is idempotent, works from the record alone, and runs whatever the others
//! answer: the same code undoes a half-made pod, stops a living one and sweeps up after a crash. Blocks.

use crate::error::{Error, Result};
use crate::node::{Node, detach_below, remove_dir};
use crate::placement;
use crate::record::{ContainerRecord, PodRecord};
use crate::undo;

use super::files;
use super::supervisor::Supervisor;

/// Takes away what a stopped pod does not need: network, shim, `/dev/shm`, cgroup. Its containers are dead.
pub(crate) fn stop(node: &Node, pod: &PodRecord) -> Result<()> {
    let supervisor = Supervisor::new(node.pod_dir(&pod.id));
    undo::every(&mut [
        // First, while the namespace is there: a plugin may want to look into it.
        ("disconnect the network", &mut || {
            node.network.detach(&pod.id)
        }),
        ("end the shim", &mut || supervisor.end()),
        ("unmount /dev/shm", &mut || {
            files::unmount_shm(&node.pod_dir(&pod.id))
        }),
        ("remove the cgroup", &mut || {
            remove_cgroup(node, &pod.pod_cgroup)
        }),
    ])
}

/// As [`stop`] for a pod whose record does not load: what can be known from its id.
pub(crate) fn stop_unknown(node: &Node, id: &str) -> Result<()> {
    let supervisor = Supervisor::new(node.pod_dir(id));
    let cgroup = placement::own(node.config.cgroup_driver, &node.config.cgroup_root, id);
    undo::every(&mut [
        ("disconnect the network", &mut || node.network.detach(id)),
        ("end the shim", &mut || supervisor.end()),
        ("unmount /dev/shm", &mut || {
            files::unmount_shm(&node.pod_dir(id))
        }),
        ("remove the cgroup", &mut || remove_cgroup(node, &cgroup)),
    ])
}

/// Kills what is left in a container's cgroup when nobody supervises it any more.
pub(crate) fn kill_orphans(node: &Node, container: &ContainerRecord) -> Result<()> {
    if container.cgroup.is_empty() {
        return Ok(());
    }
    node.cgroup(&container.cgroup)?
        .kill_all()
        .map_err(|source| Error::Cgroup {
            action: format!("kill what is left in {}", container.cgroup),
            source,
        })
}

/// Kills what is in a cgroup and removes it; one that is gone is fine.
pub(crate) fn remove_cgroup(node: &Node, path: &str) -> Result<()> {
    let cgroup = node.cgroup(path)?;
    cgroup
        .kill_all()
        .and_then(|()| cgroup.remove())
        .map_err(|source| Error::Cgroup {
            action: format!("remove cgroup {path}"),
            source,
        })
}

/// Removes a pod's directories: the record last, so that a failure can be tried again.
pub(crate) fn remove_pod_dirs(node: &Node, id: &str) -> Result<()> {
    remove_dir(&node.writable_pod(id))?;
    let dir = node.pod_dir(id);
    detach_below(&dir)?;
    match std::fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries
                .flatten()
                .filter(|entry| entry.file_name() != "pod.json")
            {
                let path = entry.path();
                let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                };
                removed.map_err(|source| Error::Io {
                    action: "remove",
                    path,
                    source,
                })?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io {
                action: "read directory",
                path: dir,
                source,
            });
        }
    }
    remove_dir(&dir)
}
