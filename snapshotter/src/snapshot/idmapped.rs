//! Root file systems of user namespaces: the layers are shown with the ids of the namespace's users.
//!
//! overlayfs itself cannot be id-mapped, its layers can (Linux 5.19): each one is mounted with the mapping for the
//! moment in which the overlay is made, which keeps what it needs. What the container writes has the right ids anyway.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use sys::mount::{MountAttrs, OpenTree};

use super::make;
use crate::error::Error;

/// Below the writable directory: where the layers are mounted meanwhile.
const LOWER: &str = "lower";

/// The owner of files whose own id the namespace has not: the kernel's overflow id.
const NOBODY: u32 = 65_534;

/// A user namespace and its ids.
#[derive(Debug, Clone, Copy)]
pub struct IdMapped<'a> {
    /// The namespace.
    pub userns: BorrowedFd<'a>,
    /// Its user ids.
    pub uids: IdRange,
    /// Its group ids.
    pub gids: IdRange,
}

/// A range of ids in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first one inside.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many.
    pub length: u32,
}

// === impl IdRange ===

impl IdRange {
    /// What `id` of the namespace is outside.
    #[must_use]
    pub fn outside(self, id: u32) -> u32 {
        let offset = id.checked_sub(self.inside);
        offset
            .filter(|offset| *offset < self.length)
            .map_or(NOBODY, |offset| self.outside.saturating_add(offset))
    }
}

/// Layers that are mounted with a mapping; they go when this goes.
pub(super) struct Mapped {
    directory: PathBuf,
    pub(super) paths: Vec<PathBuf>,
}

impl Mapped {
    /// Mounts the directories `layers` with the mapping, below `writable`.
    pub(super) fn mount(
        layers: &[PathBuf],
        writable: &Path,
        mapping: &IdMapped<'_>,
    ) -> Result<Self, Error> {
        let mut all = Self {
            directory: make(writable, LOWER, 0o700)?,
            paths: Vec::new(),
        };
        for (index, layer) in layers.iter().enumerate() {
            let here = std::fs::File::open("/")
                .map_err(|error| Error::from(sys::Error::from_io(&error, "open(\"/\")")))?;
            let tree = sys::mount::open_tree(&here, layer, OpenTree::OPEN_TREE_CLONE)?;
            let change = MountAttrs {
                idmap: Some(mapping.userns),
                ..MountAttrs::default()
            };
            sys::mount::mount_setattr(&tree, change)?;
            let target = make(&all.directory, &index.to_string(), 0o700)?;
            all.paths.push(target.clone());
            sys::mount::attach(&tree, &target)?;
        }
        Ok(all)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // What stays is taken away with the container.
        release(&self.directory).ok();
    }
}

/// Takes away what a process that died left in `writable`.
pub(super) fn sweep(writable: &Path) -> sys::Result<()> {
    release(&writable.join(LOWER))
}

fn release(directory: &Path) -> sys::Result<()> {
    let failed =
        |error: &std::io::Error| sys::Error::from_io(error, format!("rmdir({directory:?})"));
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| failed(&error))?,
    };
    for entry in entries.flatten() {
        sys::mount::unmount_detach(&entry.path())?;
        std::fs::remove_dir(entry.path()).map_err(|error| failed(&error))?;
    }
    std::fs::remove_dir(directory).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_outside_the_range_is_nobody() {
        let range = IdRange {
            inside: 0,
            outside: 1000,
            length: 10,
        };
        assert_eq!(range.outside(0), 1000);
        assert_eq!(range.outside(9), 1009);
        assert_eq!(range.outside(10), NOBODY);
    }
}
