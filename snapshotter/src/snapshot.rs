//! Overlay mounts of a stack of layers, by the new mount API.
//!
//! <https://docs.kernel.org/filesystems/overlayfs.html>

mod idmapped;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sys::mount::{MountAttr, MountAttrs};

use crate::digest::DiffId;
use crate::error::{Error, IoContext};
use crate::store::Store;
use idmapped::Mapped;
pub use idmapped::{IdMapped, IdRange};

/// overlayfs's own limit, `OVL_MAX_STACK`.
const MAX_STACK: usize = 500;

/// A mounted root file system: layers below, a writable directory on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The directory with its `upper` and `work`.
    pub writable: PathBuf,
}

impl Snapshot {
    /// Mounts it; see [`mount_overlay`].
    ///
    /// # Errors
    /// As [`mount_overlay`].
    pub fn mount(&self, store: &Store, layers: &[DiffId]) -> Result<(), Error> {
        mount_overlay(store, layers, &self.writable, &self.target)
    }

    /// Unmounts it and deletes what was written; see [`unmount_overlay`].
    ///
    /// # Errors
    /// As [`unmount_overlay`].
    pub fn remove(&self) -> Result<(), Error> {
        unmount_overlay(&self.target, &self.writable)
    }
}

/// Mounts `layers` (bottom first) at `target`, with changes going to `writable`, a directory that gets `upper/` and
/// `work/`. `target` must be an existing directory.
///
/// The caller holds a [`crate::Lease`] on the layers as long as the mount lives.
///
/// # Errors
/// [`Error::MissingLayer`], [`Error::Overlay`] for a stack that the kernel cannot mount, or the refused system call.
pub fn mount_overlay(
    store: &Store,
    layers: &[DiffId],
    writable: &Path,
    target: &Path,
) -> Result<(), Error> {
    mount_stack(store, layers, writable, target, None)
}

/// The same for a container in a user namespace: it sees the layers' files with its own ids.
///
/// # Errors
/// As [`mount_overlay`]; `EINVAL` where the layers' file system knows no id-mapped mounts.
pub fn mount_idmapped_overlay(
    store: &Store,
    layers: &[DiffId],
    writable: &Path,
    target: &Path,
    mapping: &IdMapped<'_>,
) -> Result<(), Error> {
    mount_stack(store, layers, writable, target, Some(mapping))
}

fn mount_stack(
    store: &Store,
    layers: &[DiffId],
    writable: &Path,
    target: &Path,
    mapping: Option<&IdMapped<'_>>,
) -> Result<(), Error> {
    let lower = lower_directories(store, layers, target)?;
    let mapped = mapping.map(|mapping| Mapped::mount(&lower, writable, mapping));
    let mapped = mapped.transpose()?;
    let lower = mapped.as_ref().map_or(&lower, |mapped| &mapped.paths);
    let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    let upper = make(writable, "upper", 0o755)?;
    describe_root(store, layers, &upper, mapping)?;
    let work = make(writable, "work", 0o700)?;
    // Should the host crash, the container is gone with its pod: nothing written here needs to reach the disk.
    let mount = sys::mount::overlay(&lower, Some((&upper, &work)), &["volatile"])?;
    Ok(sys::mount::attach(&mount, target)?)
}

/// Mounts `layers` (bottom first) at `target`, an existing directory, to be looked at only: read-only, without
/// programs, set-user-id bits and devices.
///
/// The caller holds a [`crate::Lease`] on the layers as long as the mount lives, and unmounts it.
///
/// # Errors
/// As [`mount_overlay`].
pub fn mount_read_only(store: &Store, layers: &[DiffId], target: &Path) -> Result<(), Error> {
    let mut lower = lower_directories(store, layers, target)?;
    let empty = make(&store.inner.options.root, "empty", 0o755)?;
    if lower.len() == 1 && lower[0] != empty {
        // overlayfs wants two where none is writable.
        lower.push(empty);
    } else if lower.len() == 1 {
        lower.insert(0, make(&store.inner.options.root, "empty/top", 0o755)?);
    }
    let lower: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    let mount = sys::mount::overlay(&lower, None, &[])?;
    let set = MountAttr::MOUNT_ATTR_RDONLY
        | MountAttr::MOUNT_ATTR_NOSUID
        | MountAttr::MOUNT_ATTR_NODEV
        | MountAttr::MOUNT_ATTR_NOEXEC;
    sys::mount::mount_setattr(
        &mount,
        MountAttrs {
            set,
            ..MountAttrs::default()
        },
    )?;
    Ok(sys::mount::attach(&mount, target)?)
}

/// The root directory that shows is the writable one: it takes over what the image says about its root.
fn describe_root(
    store: &Store,
    layers: &[DiffId],
    upper: &Path,
    mapping: Option<&IdMapped<'_>>,
) -> Result<(), Error> {
    let owner = |uid: u32, gid: u32| match mapping {
        Some(mapping) => (mapping.uids.outside(uid), mapping.gids.outside(gid)),
        None => (uid, gid),
    };
    let described = layers
        .iter()
        .rev()
        .find(|layer| store.inner.describes_root(layer));
    let to = File::open(upper).on("open", upper)?;
    let Some(path) = described.map(|layer| store.layer_path(layer)) else {
        let (uid, gid) = owner(0, 0);
        return Ok(sys::fs::chown(&to, uid, gid)?);
    };
    let from = File::open(&path).on("open", &path)?;
    let stat = sys::fs::stat(&from)?;
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    sys::fs::chown(&to, uid, gid)?;
    sys::fs::chmod(
        &to,
        sys::fs::Mode::from_bits_truncate(stat.st_mode & 0o7777),
    )?;
    Ok(())
}

/// The layers' directories, topmost first as overlayfs wants them.
fn lower_directories(
    store: &Store,
    layers: &[DiffId],
    target: &Path,
) -> Result<Vec<PathBuf>, Error> {
    // overlayfs refuses a directory twice. Of equal layers only the topmost shows: it hides all that the others have.
    let mut seen = HashSet::new();
    let mut lower = vec![];
    for layer in layers.iter().rev().filter(|layer| seen.insert(**layer)) {
        if !store.inner.has_layer(layer) {
            return Err(Error::MissingLayer(*layer));
        }
        lower.push(store.layer_path(layer));
    }
    if lower.len() > MAX_STACK {
        let reason = format!("overlayfs takes at most {MAX_STACK}");
        return Err(Error::Overlay {
            count: lower.len(),
            target: target.to_owned(),
            reason,
        });
    }
    if lower.is_empty() {
        // An image may have no layers at all, and overlayfs wants one.
        lower.push(make(&store.inner.options.root, "empty", 0o755)?);
    }
    Ok(lower)
}

fn make(parent: &Path, name: &str, mode: u32) -> Result<PathBuf, Error> {
    let path = parent.join(name);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(&path)
        .on("create", &path)?;
    Ok(path)
}

/// Unmounts `target` and deletes `upper/` and `work/` in `writable`. Succeeds where that was done before.
///
/// # Errors
/// The refused system call.
pub fn unmount_overlay(target: &Path, writable: &Path) -> Result<(), Error> {
    sys::mount::unmount_detach(target)?;
    idmapped::sweep(writable)?;
    let handle = match File::open(writable) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.on("open", writable)?,
    };
    sys::fs::remove_tree(&handle, OsStr::new("upper"))?;
    sys::fs::remove_tree(&handle, OsStr::new("work"))?;
    Ok(())
}
