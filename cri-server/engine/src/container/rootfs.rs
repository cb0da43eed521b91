//! The container's root file system: mounting it, and making what must be there before its program starts.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use snapshotter::{DiffId, IdMapped, IdRange};
use sys::path::Root;

use crate::error::{Error, Result};
use crate::images;
use crate::model::IdMapping;
use crate::node::Node;
use crate::record::PodRecord;
use crate::spec::{self, userns};

/// Mounts the layers at `rootfs`, with the ids of the pod's user namespace where it has one.
pub(super) fn mount(
    node: &Node,
    pod: &PodRecord,
    layers: &[DiffId],
    writable: &Path,
    rootfs: &Path,
) -> Result<()> {
    let failed = |error| images::failed("mount the root file system".into(), error);
    let Some((uids, gids)) = userns::ranges(&pod.config.security.namespaces) else {
        return snapshotter::mount_overlay(&node.store, layers, writable, rootfs).map_err(failed);
    };
    let path = node.pod_dir(&pod.id).join("ns/user");
    let namespace = File::open(&path).map_err(|source| Error::Io {
        action: "open the pod's user namespace",
        path,
        source,
    })?;
    let range = |from: &IdMapping| IdRange {
        inside: from.container_id,
        outside: from.host_id,
        length: from.length,
    };
    let mapping = IdMapped {
        userns: namespace.as_fd(),
        uids: range(uids),
        gids: range(gids),
    };
    snapshotter::mount_idmapped_overlay(&node.store, layers, writable, rootfs, &mapping)
        .map_err(failed)
}

/// Makes the working directory and the image's volumes where they are missing. A volume is a plain directory
/// of the writable layer, as in CRI-O.
pub(super) fn prepare(input: &spec::Input<'_>, volumes: &[String]) -> Result<()> {
    let sys = |action: String| move |source| Error::Sys { action, source };
    let root = Root::open(input.rootfs).map_err(sys("open the root file system".into()))?;
    let make = |path: &Path| {
        root.mkdir_all(path, Mode::from_bits_truncate(0o755))?;
        give_to_root(&root, path, userns::root(&input.pod.security.namespaces))
    };
    let cwd = spec::process::cwd(input);
    let covered = input
        .mounts
        .iter()
        .any(|mount| cwd.starts_with(&mount.target));
    if !covered {
        make(&cwd).map_err(sys(format!("make the working directory {}", cwd.display())))?;
    }
    for volume in volumes {
        make(Path::new(volume)).map_err(sys(format!("make the image's volume {volume:?}")))?;
    }
    Ok(())
}

/// Directories that belong to root of the host were made just now: in a user namespace nothing of an image does.
fn give_to_root(root: &Root, path: &Path, (uid, gid): (u32, u32)) -> sys::Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let mut so_far = PathBuf::from("/");
    for part in path.components() {
        so_far.push(part);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = root.open_at(&so_far, flags, Mode::empty())?;
        if sys::fs::stat(&directory)?.st_uid == 0 {
            sys::fs::chown(&directory, uid, gid)?;
        }
    }
    Ok(())
}
