//! Taking a container away. Every step is idempotent and runs whatever the others answer. Blocks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shim::protocol::Runtime;

use crate::command;
use crate::error::{Error, Kind, Result};
use crate::images;
use crate::node::{Node, remove_dir};
use crate::pod::supervisor::Supervisor;
use crate::pod::teardown;
use crate::undo;

/// Removes a container and all that is left of it. Empty `handler` and `cgroup` of a record that does not
/// load: every runtime is asked, and the cgroup is left to the pod's removal.
pub(crate) fn remove(
    node: &Node,
    pod: &str,
    id: &str,
    handler: Option<&str>,
    cgroup: &str,
) -> Result<()> {
    let rootfs = node.bundle(pod, id).join("rootfs");
    let writable = node.writable(pod, id);
    undo::every(&mut [
        ("delete the container", &mut || match handler {
            Some(handler) => delete(node, pod, id, handler, cgroup),
            None => delete_anywhere(node, pod, id),
        }),
        ("unmount the root file system", &mut || {
            unmount(&rootfs, &writable)
        }),
    ])?;
    remove_dirs(node, pod, id)
}

/// As [`remove`] when the runtime has forgotten it already.
pub(crate) fn remove_files(node: &Node, pod: &str, id: &str) -> Result<()> {
    unmount(
        &node.bundle(pod, id).join("rootfs"),
        &node.writable(pod, id),
    )?;
    remove_dirs(node, pod, id)
}

/// Has the runtime forget the container and kill what is left of it: through the shim, or directly when
/// that is gone.
pub(crate) fn delete(node: &Node, pod: &str, id: &str, handler: &str, cgroup: &str) -> Result<()> {
    let supervisor = Supervisor::new(node.pod_dir(pod));
    let asked = supervisor.ask("delete the container", |client| client.delete(id, true));
    let deleted = match asked {
        Err(error) if error.kind() == Kind::Unavailable => {
            // A handler may have left the configuration; its containers must still go.
            node.handlers
                .get(handler)
                .map_or(Ok(()), |runtime| run_delete(&runtime, id))
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    };
    let swept = if cgroup.is_empty() {
        Ok(())
    } else {
        teardown::remove_cgroup(node, cgroup)
    };
    deleted.and(swept)
}

/// As [`delete`] when nobody knows the handler.
fn delete_anywhere(node: &Node, pod: &str, id: &str) -> Result<()> {
    let supervisor = Supervisor::new(node.pod_dir(pod));
    match supervisor.ask("delete the container", |client| client.delete(id, true)) {
        Err(error) if error.kind() == Kind::Unavailable => {
            let mut result = Ok(());
            for runtime in node.handlers.all() {
                // Each one is asked, whatever the others answer.
                let deleted = run_delete(&runtime, id);
                result = result.and(deleted);
            }
            result
        }
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// How long a runtime may take to delete a container when no shim does it; as long as a shim gives it.
const DELETE: Duration = Duration::from_secs(100);

/// `<runtime> delete --force ID`, where the runtime knows the container.
fn run_delete(runtime: &Runtime, id: &str) -> Result<()> {
    let Some(root) = &runtime.root else {
        return Ok(());
    };
    if !root.join(id).exists() {
        return Ok(());
    }
    let failed = |source| Error::Io {
        action: "run",
        path: runtime.path.clone(),
        source,
    };
    let mut delete = Command::new(&runtime.path);
    delete
        .arg("--root")
        .arg(root)
        .args(&runtime.args)
        .args(["delete", "--force", id]);
    let output = command::output(&mut delete, DELETE).map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Internal(format!(
        "{} delete --force {id}: {}: {words}",
        runtime.path.display(),
        output.status
    )))
}

/// Unmounts the root file system and drops the writable layer.
pub(crate) fn unmount(rootfs: &Path, writable: &Path) -> Result<()> {
    snapshotter::unmount_overlay(rootfs, writable)
        .map_err(|error| images::failed("unmount the root file system".into(), error))
}

/// Removes the container's directories: the one with the record last, so that a failure can be tried again.
pub(crate) fn remove_dirs(node: &Node, pod: &str, id: &str) -> Result<()> {
    remove_dir(&node.writable(pod, id))?;
    // The pod's own directory goes with the last writable layer; others in it keep it.
    std::fs::remove_dir(node.writable_pod(pod)).ok();
    remove_dir(&node.bundle(pod, id))
}
