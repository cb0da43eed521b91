//! The old mount calls, for what the new ones cannot do or where a path is the right handle.
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use super::api::{MountAttrs, OpenTree, attach, mount_setattr, open_tree};
use crate::error::{Context, Error, Result, flag_names};

/// How mount events travel between a mount and its copies, `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// In both directions.
    Shared,
    /// From the original to the copy.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and the mount cannot be copied.
    Unbindable,
}

impl Propagation {
    /// The flag for `mount(2)` and `mount_setattr(2)`.
    pub(super) fn ms_flags(self) -> MsFlags {
        match self {
            Self::Shared => MsFlags::MS_SHARED,
            Self::Slave => MsFlags::MS_SLAVE,
            Self::Private => MsFlags::MS_PRIVATE,
            Self::Unbindable => MsFlags::MS_UNBINDABLE,
        }
    }
}

/// `mount(2)`.
///
/// # Errors
/// As the manual page says.
pub fn mount(
    source: Option<&Path>,
    target: &Path,
    fs_type: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    nix::mount::mount(source, target, fs_type, flags, data).call(|| {
        fn show(text: Option<impl std::fmt::Debug>) -> String {
            text.map_or_else(|| "NULL".to_owned(), |text| format!("{text:?}"))
        }
        let names = flag_names(&flags, "");
        format!(
            "mount({}, {target:?}, {}, {names}, {})",
            show(source),
            show(fs_type),
            show(data)
        )
    })
}

/// Binds `source` onto `target`, with the mounts below it where `recursive`.
///
/// # Errors
/// `ENOENT` where either is missing, `ENOTDIR` where one is a file and the other a directory.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<()> {
    let mut flags = OpenTree::OPEN_TREE_CLONE;
    flags.set(OpenTree::AT_RECURSIVE, recursive);
    let tree = open_tree(nix::fcntl::AT_FDCWD, source, flags)?;
    attach(&tree, target)
}

/// Sets the propagation of the mount at `target`, and of those below it where `recursive`.
///
/// # Errors
/// `EINVAL` where `target` is not a mount point.
pub fn set_propagation(target: &Path, propagation: Propagation, recursive: bool) -> Result<()> {
    let mut flags = propagation.ms_flags();
    flags.set(MsFlags::MS_REC, recursive);
    mount(None, target, None, flags, None)
}

/// Sets the propagation of the mount that `mount` is.
///
/// # Errors
/// `EINVAL` where `mount` is not the root of a mount.
pub fn set_propagation_fd(
    mount: impl AsFd,
    propagation: Propagation,
    recursive: bool,
) -> Result<()> {
    mount_setattr(
        mount,
        MountAttrs {
            propagation: Some(propagation),
            recursive,
            ..MountAttrs::default()
        },
    )
}

/// `umount2(2)` without following a symbolic link.
///
/// # Errors
/// `EINVAL` where `target` is not a mount point, `EBUSY` where it is in use.
pub fn unmount(target: &Path, flags: MntFlags) -> Result<()> {
    let flags = flags | MntFlags::UMOUNT_NOFOLLOW;
    nix::mount::umount2(target, flags)
        .call(|| format!("umount2({target:?}, {})", flag_names(&flags, "")))
}

/// Takes whatever is mounted on `target` out of the tree, lazily. Success where nothing is mounted there or
/// the path does not exist, so that undoing may be repeated.
///
/// # Errors
/// `EPERM` and the like; never "not mounted".
pub fn unmount_detach(target: &Path) -> Result<()> {
    loop {
        match unmount(target, MntFlags::MNT_DETACH) {
            // Several mounts may be stacked there.
            Ok(()) => {}
            Err(Error {
                errno: Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR,
                ..
            }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether `path` is the root of a mount (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8, by its mount id here).
///
/// # Errors
/// The path cannot be looked at.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    crate::path::is_mount_root(nix::fcntl::AT_FDCWD, path)
}

/// `pivot_root(2)`.
///
/// # Errors
/// `EINVAL` where the new root is no mount point or a parent mount is shared, `EBUSY` where they are the same.
pub fn pivot_root(new_root: &Path, put_old: &Path) -> Result<()> {
    nix::unistd::pivot_root(new_root, put_old)
        .call(|| format!("pivot_root({new_root:?}, {put_old:?})"))
}
