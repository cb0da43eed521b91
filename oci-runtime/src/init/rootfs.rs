//! The root filesystem: made ready in place, then made the root.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::SFlag;
use sys::mount::{self, FsContext, MountAttr, MountAttrs, OpenTree, Propagation};
use sys::path::Root;

use super::sources;
use crate::error::{Error, Result, Within};
use crate::plan::Plan;

/// Cuts the new mount namespace off from the host's, and puts a copy of the root filesystem's mount over itself:
/// `pivot_root` wants a mount point, and attributes set here must not reach the host's mount.
///
/// # Errors
/// The directory is missing, or mounting is not allowed.
pub(super) fn prepare(plan: &Plan, parent: BorrowedFd<'_>) -> Result<Root> {
    let (propagation, recursive) = match plan.rootfs_propagation {
        None => (Propagation::Slave, true),
        // Nothing below an unbindable mount can be copied: the root becomes one at the end, in `finish`.
        Some((Propagation::Unbindable, recursive)) => (Propagation::Private, recursive),
        Some(asked) => asked,
    };
    mount::set_propagation(Path::new("/"), propagation, recursive)?;
    if propagation == Propagation::Shared || !recursive {
        make_parent_private(&plan.rootfs)?;
    }
    let flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_RECURSIVE;
    let within = || "root.path".to_owned();
    let tree = match mount::open_tree(AT_FDCWD, &plan.rootfs, flags) {
        // A directory above it is closed to the container's users, but not to who runs it.
        Err(error) if error.errno == Errno::EACCES => {
            let place = sources::ask_root(parent).within(within)?;
            let tree = mount::clone_tree(&place, true).within(within)?;
            mount::attach_at(&tree, &place).within(within)?;
            return Ok(Root::from_fd(tree));
        }
        other => other.within(within)?,
    };
    mount::attach(&tree, &plan.rootfs).within(within)?;
    Ok(Root::from_fd(tree))
}

/// The root filesystem as a tree without a place, cut off from the host's before anything is mounted in it.
///
/// # Errors
/// The directory is missing or closed, or mounting is not allowed.
pub(super) fn detached(plan: &Plan) -> Result<Root> {
    let flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_RECURSIVE;
    let tree = mount::open_tree(AT_FDCWD, &plan.rootfs, flags)?;
    mount::set_propagation_fd(&tree, Propagation::Slave, true)?;
    Ok(Root::from_fd(tree))
}

/// The mount that the root filesystem lies on must not pass our changes on to the host.
fn make_parent_private(rootfs: &Path) -> Result<()> {
    let mounts = sys::mountinfo::own()?;
    let parent = mounts
        .iter()
        .filter(|mount| rootfs.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len());
    match parent {
        Some(mount) if mount.optional.iter().any(|one| one.starts_with("shared:")) => {
            mount::set_propagation(&mount.mount_point, Propagation::Private, false)
                .map_err(Error::from)
        }
        _ => Ok(()),
    }
}

/// Makes paths read as empty: a file becomes the host's `/dev/null`, a directory an empty read-only tmpfs.
///
/// `dev` is where the host's devices are.
///
/// # Errors
/// A mount that is refused; a missing path is none.
pub(super) fn mask(root: &Root, plan: &Plan, dev: &Path) -> Result<()> {
    if plan.masked.is_empty() {
        return Ok(());
    }
    let null = host_null(&dev.join("null"))?;
    let mut empty = None;
    for path in &plan.masked {
        let within = || format!("linux.maskedPaths {path:?}");
        let Some(target) = existing(root, path).within(within)? else {
            continue;
        };
        if is_directory(target.as_fd()).within(within)? {
            // One empty directory serves all: each mount is a copy of it.
            let mount = match &empty {
                Some(first) => mount::clone_tree(first, false).within(within)?,
                None => empty_directory(plan).within(within)?,
            };
            mount::attach_at(&mount, &target).within(within)?;
            empty.get_or_insert(mount);
        } else {
            let copy = mount::clone_tree(&null, false).within(within)?;
            mount::attach_at(&copy, &target).within(within)?;
        }
    }
    Ok(())
}

/// A read-only directory without anything in it.
pub(super) fn empty_directory(plan: &Plan) -> sys::Result<OwnedFd> {
    let context = FsContext::open("tmpfs")?;
    context.set_string("source", "tmpfs")?;
    context.set_string("nr_blocks", "1")?;
    context.set_string("nr_inodes", "1")?;
    if let Some(label) = &plan.mount_label {
        context.set_string(label.option, &label.label)?;
    }
    context.mount(MountAttr::MOUNT_ATTR_RDONLY)
}

/// The host's `/dev/null`, verified: a mask must never be a file of the container's choice (CVE-2025-31133).
fn host_null(path: &Path) -> Result<OwnedFd> {
    let null = mount::open_tree(AT_FDCWD, path, OpenTree::AT_SYMLINK_NOFOLLOW)?;
    let stat = nix::sys::stat::fstat(&null)
        .map_err(|errno| sys::Error::new(errno, format!("fstat({path:?})")))?;
    let is_device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    if is_device && stat.st_rdev == nix::sys::stat::makedev(1, 3) {
        Ok(null)
    } else {
        Err(Error::new("/dev/null of the host is not the device 1:3"))
    }
}

/// Makes paths read-only, with everything mounted below them.
///
/// # Errors
/// A mount that is refused; a missing path is none.
pub(super) fn make_readonly(root: &Root, plan: &Plan) -> Result<()> {
    for path in &plan.readonly {
        let within = || format!("linux.readonlyPaths {path:?}");
        let Some(target) = existing(root, path).within(within)? else {
            continue;
        };
        let copy = mount::clone_tree(&target, true).within(within)?;
        let set = MountAttr::MOUNT_ATTR_RDONLY;
        mount::mount_setattr(
            &copy,
            MountAttrs {
                set,
                recursive: true,
                ..MountAttrs::default()
            },
        )
        .within(within)?;
        mount::attach_at(&copy, &target).within(within)?;
    }
    Ok(())
}

fn existing(root: &Root, path: &Path) -> sys::Result<Option<OwnedFd>> {
    match root.find(path, OFlag::O_PATH) {
        Err(sys::Error {
            errno: Errno::ENOTDIR | Errno::EACCES,
            ..
        }) => Ok(None),
        other => other,
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> sys::Result<bool> {
    let stat = nix::sys::stat::fstat(fd).map_err(|errno| sys::Error::new(errno, "fstat"))?;
    Ok(stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// Makes `root` the root of this process and takes the host's tree away.
///
/// # Errors
/// `EINVAL` on a ramdisk root, which needs `--no-pivot`.
pub(super) fn pivot(root: &Root) -> Result<()> {
    let old = Root::open(Path::new("/"))?;
    nix::unistd::fchdir(root).map_err(|errno| sys::Error::new(errno, "fchdir(rootfs)"))?;
    // The old root is put over the new one, so no directory is needed for it: pivot_root(2), NOTES.
    mount::pivot_root(Path::new("."), Path::new(".")).map_err(|error| {
        let ramdisk = error.errno == Errno::EINVAL;
        let error = Error::from(error);
        if ramdisk {
            error.hint("the host's root may be a ramdisk; try --no-pivot")
        } else {
            error
        }
    })?;
    nix::unistd::fchdir(&old).map_err(|errno| sys::Error::new(errno, "fchdir(old root)"))?;
    // Taking the old root away must not take it away from the host.
    mount::set_propagation(Path::new("."), Propagation::Slave, true)?;
    mount::unmount(Path::new("."), MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/").map_err(|errno| sys::Error::new(errno, "chdir(\"/\")").into())
}

/// `--no-pivot`: moves the root filesystem over `/` and changes the root. Other copies of procfs and sysfs go first,
/// since the old root stays reachable for a process that breaks out of the chroot.
///
/// # Errors
/// A mount that cannot be moved.
pub(super) fn move_over_root(root: &Root, rootfs: &Path) -> Result<()> {
    for found in sys::mountinfo::own()?.iter().rev() {
        let kernel = matches!(found.fs_type.as_str(), "proc" | "sysfs");
        if kernel && !found.mount_point.starts_with(rootfs) {
            match mount::unmount(&found.mount_point, MntFlags::MNT_DETACH) {
                // Locked by a user namespace: covered instead.
                Err(error) if matches!(error.errno, Errno::EINVAL | Errno::EPERM) => {
                    mount::mount(
                        Some(Path::new("tmpfs")),
                        &found.mount_point,
                        Some("tmpfs"),
                        MsFlags::empty(),
                        None,
                    )?;
                }
                other => other?,
            }
        }
    }
    nix::unistd::fchdir(root).map_err(|errno| sys::Error::new(errno, "fchdir(rootfs)"))?;
    mount::mount(Some(rootfs), Path::new("/"), None, MsFlags::MS_MOVE, None)?;
    nix::unistd::chroot(".").map_err(|errno| sys::Error::new(errno, "chroot(\".\")"))?;
    nix::unistd::chdir("/").map_err(|errno| sys::Error::new(errno, "chdir(\"/\")").into())
}

/// What can only be said of the root once it is one: shared propagation (`pivot_root` refuses it before), and
/// read-only last, since everything above wrote into it.
///
/// The propagation is that of the root's own mount, also for `rshared`: what is mounted below has the one of its
/// options, and a private mount there must not become shared again.
///
/// # Errors
/// The mount refuses.
pub(super) fn finish(root: &Root, plan: &Plan) -> Result<()> {
    if let Some((propagation @ (Propagation::Shared | Propagation::Unbindable), _)) =
        plan.rootfs_propagation
    {
        mount::set_propagation(Path::new("/"), propagation, false)
            .within(|| "linux.rootfsPropagation".to_owned())?;
    }
    if plan.readonly_rootfs {
        let set = MountAttr::MOUNT_ATTR_RDONLY;
        mount::mount_setattr(
            root,
            MountAttrs {
                set,
                ..MountAttrs::default()
            },
        )
        .within(|| "root.readonly".to_owned())?;
    }
    Ok(())
}
