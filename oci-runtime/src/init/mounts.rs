//! `mounts`: each made detached, given its attributes, and attached to a place that was resolved inside the root.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag};
use sys::mount::{self, MountAttr, MountAttrs, Propagation};
use sys::path::Root;

use super::cgroup_mount::{self, View};
use super::{filesystems, lsm, sources};
use crate::error::{Error, Result, Within};
use crate::plan::{MountPlan, MountSource, Plan, mounts::allowed_over_proc};

/// New directories on the way to a mount.
const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);

/// What making mounts needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker<'a> {
    /// The container.
    pub(super) plan: &'a Plan,
    /// The host's cgroups.
    pub(super) view: View<'a>,
    /// The parent, who opens what this process may not.
    pub(super) parent: BorrowedFd<'a>,
    /// Whether the root is a detached tree, and this process in the host's own mount namespace.
    pub(super) detached: bool,
}

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// The mount at `/dev`.
    pub(super) dev: Option<OwnedFd>,
    /// Mounts that become read-only when everything is in place.
    pub(super) readonly_late: Vec<(usize, PathBuf, OwnedFd)>,
    /// Mounts in a detached tree, whose propagation the kernel changes only once the tree has its place.
    propagation_late: Vec<(usize, OwnedFd)>,
}

/// Makes all mounts, in order. One over the root of the container becomes the root.
///
/// # Errors
/// Which mount was refused, and by which call.
pub(super) fn make(root: &mut Root, maker: &Maker<'_>) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for one in &maker.plan.mounts {
        let within = || format!("mounts[{}] at {:?}", one.index, one.destination);
        let over_root = one.destination == Path::new("/");
        if over_root {
            // pivot_root wants the mount below the new root not to be shared.
            mount::set_propagation_fd(&*root, Propagation::Private, false).within(within)?;
        }
        let Some(made) = make_one(root, one, maker).within(within)? else {
            continue;
        };
        if over_root {
            *root = Root::from_fd(copy(&made).within(within)?);
        }
        if one.readonly_is_late() {
            mounted.readonly_late.push((
                one.index,
                one.destination.clone(),
                copy(&made).within(within)?,
            ));
        }
        if maker.detached && !one.options.propagation.is_empty() {
            mounted
                .propagation_late
                .push((one.index, copy(&made).within(within)?));
        }
        if one.destination == Path::new("/dev") {
            mounted.dev = Some(made);
        }
    }
    Ok(mounted)
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|error| Error::new(error.to_string()))
}

fn make_one(root: &Root, one: &MountPlan, maker: &Maker<'_>) -> Result<Option<OwnedFd>> {
    let made = match &one.source {
        MountSource::Remount => return filesystems::remount(root, one).map(|()| None),
        MountSource::Cgroup => cgroup_mount::make(root, one, maker)?,
        MountSource::Bind { path, .. }
            if one.options.copy_symlink && copy_link(root, one, path)? =>
        {
            return Ok(None);
        }
        MountSource::Bind { path, recursive } => {
            let tree = open_source(one, path, *recursive, maker)?;
            if maker.detached {
                // It is a peer of the host's mount, which must not get what is mounted on it.
                mount::set_propagation_fd(&tree, Propagation::Slave, true)?;
            }
            set_attributes(&tree, one)?;
            bind(root, one, &tree)?;
            tree
        }
        MountSource::New { fs_type, source } => {
            let made = filesystems::make(root, one, fs_type, source)?;
            if let Some(label) = &maker.plan.mount_label
                && fs_type == "mqueue"
            {
                lsm::label_file(&made, label)?;
            }
            made
        }
    };
    if !maker.detached {
        set_propagation(&made, one)?;
    }
    Ok(Some(made))
}

fn set_propagation(made: &OwnedFd, one: &MountPlan) -> Result<()> {
    for (propagation, recursive) in &one.options.propagation {
        mount::set_propagation_fd(made, *propagation, *recursive)?;
    }
    Ok(())
}

/// Gives mounts of what was a detached tree their propagation.
///
/// # Errors
/// Which mount refuses.
pub(super) fn finish_propagation(mounted: &Mounted, plan: &Plan) -> Result<()> {
    for (index, made) in &mounted.propagation_late {
        let one = plan.mounts.iter().find(|one| one.index == *index);
        one.map_or(Ok(()), |one| set_propagation(made, one))
            .within(|| format!("mounts[{index}]"))?;
    }
    Ok(())
}

/// Attributes on the mount alone first, then those for everything below as well.
pub(super) fn set_attributes(mounted: impl AsFd, one: &MountPlan) -> Result<()> {
    let options = &one.options;
    let plain = MountAttrs {
        set: options.set,
        clear: options.clear,
        ..MountAttrs::default()
    };
    let below = MountAttrs {
        set: options.set_recursive,
        clear: options.clear_recursive,
        recursive: true,
        ..MountAttrs::default()
    };
    for change in [plain, below] {
        if !change.set.is_empty() || !change.clear.is_empty() {
            mount::mount_setattr(mounted.as_fd(), change).map_err(|error| {
                let locked = error.errno == Errno::EPERM;
                let error = Error::from(error);
                if locked { error.hint("a user namespace locks the flags of the host's mounts: they can be added to, not removed") } else { error }
            })?;
        }
    }
    Ok(())
}

/// A detached copy of the source.
fn open_source(
    one: &MountPlan,
    path: &Path,
    recursive: bool,
    maker: &Maker<'_>,
) -> Result<OwnedFd> {
    if one.idmap.is_some() {
        return sources::ask(maker.parent, one.index);
    }
    match mount::open_tree(AT_FDCWD, path, sources::flags(one, recursive)) {
        // Closed to the container's users, but not to who runs it.
        Err(error) if error.errno == Errno::EACCES => sources::ask(maker.parent, one.index),
        Err(error) if error.errno == Errno::ENOENT => {
            Err(Error::from(error).hint("the source of a bind mount must be there on the host"))
        }
        other => Ok(other?),
    }
}

/// Attaches the source of a bind mount, whose attributes are set.
pub(super) fn bind(root: &Root, one: &MountPlan, tree: &OwnedFd) -> Result<()> {
    let target = bind_target(root, one, tree)?;
    refuse_inside_proc(&target, one)?;
    mount::attach_at(tree, &target).map_err(|error| {
        // mount(2) says ENOTDIR here, and callers look for that.
        if error.errno == Errno::EINVAL && is_dir(&target) && !is_dir(tree) {
            Error::new(
                "not a directory (ENOTDIR): the source is a file, the destination a directory",
            )
        } else {
            error.into()
        }
    })
}

fn is_dir(fd: &OwnedFd) -> bool {
    nix::sys::stat::fstat(fd)
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// The place for a bind mount: a directory for a directory, else a file.
fn bind_target(root: &Root, one: &MountPlan, tree: &OwnedFd) -> Result<OwnedFd> {
    if one.options.dest_nofollow {
        match root.resolve_nofollow(&one.destination) {
            Err(error) if error.errno == Errno::ENOENT => {}
            other => return Ok(other?),
        }
    }
    let stat =
        nix::sys::stat::fstat(tree).map_err(|errno| sys::Error::new(errno, "fstat(source)"))?;
    if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        place(root, &one.destination)
    } else {
        Ok(root.create_file(&one.destination, DIR_MODE)?)
    }
}

/// `copy-symlink`: makes a link like the source; false where that is no link.
fn copy_link(root: &Root, one: &MountPlan, source: &Path) -> Result<bool> {
    let target = match nix::fcntl::readlink(source) {
        Ok(target) => target,
        Err(Errno::EINVAL) => return Ok(false),
        Err(errno) => return Err(sys::Error::new(errno, format!("readlink({source:?})")).into()),
    };
    let (Some(parent), Some(name)) = (one.destination.parent(), one.destination.file_name()) else {
        return Err(Error::new("copy-symlink over the root of the container"));
    };
    let parent = root.mkdir_all(parent, DIR_MODE)?;
    match sys::fs::symlink(&target, &parent, name) {
        Err(error) if error.errno == Errno::EEXIST => {
            let found = sys::fs::readlink(&parent, name).ok();
            if found.as_ref() == Some(&target) {
                Ok(true)
            } else {
                Err(Error::new(format!(
                    "copy-symlink: something other than a link to {target:?} is there already"
                )))
            }
        }
        other => Ok(other.map(|()| true)?),
    }
}

/// The directory to mount on. `/proc` and `/sys` must be real directories: a link there would lead the runtime's
/// own procfs accesses astray (CVE-2019-19921, CVE-2023-28642).
pub(super) fn place(root: &Root, destination: &Path) -> Result<OwnedFd> {
    if matches!(destination.to_str(), Some("/proc" | "/sys")) {
        match root.resolve_nofollow(destination) {
            Ok(fd) => {
                let stat =
                    nix::sys::stat::fstat(&fd).map_err(|errno| sys::Error::new(errno, "fstat"))?;
                if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
                    return Err(Error::new(format!(
                        "filesystem {destination:?} must be mounted on ordinary directory"
                    )));
                }
                return Ok(fd);
            }
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) => return Err(error.into()),
        }
    }
    root.mkdir_all(destination, DIR_MODE)
        .map_err(|error| in_the_way(error, destination))
}

/// What is wrong with a destination that is no directory.
pub(super) fn in_the_way(error: sys::Error, destination: &Path) -> Error {
    if error.errno == Errno::ENOTDIR {
        Error::from(error).hint(format!(
            "{destination:?}, or a name on the way to it, is a file in the container, and this needs a directory"
        ))
    } else {
        error.into()
    }
}

/// The destination by its letters was checked by the plan; links in the image may still lead below `/proc`.
pub(super) fn refuse_inside_proc(target: &OwnedFd, one: &MountPlan) -> Result<()> {
    let stat = nix::sys::statfs::fstatfs(target)
        .map_err(|errno| sys::Error::new(errno, "fstatfs(target)"))?;
    let below = one.destination.strip_prefix("/proc").ok();
    let allowed =
        below.is_some_and(|below| below.as_os_str().is_empty() || allowed_over_proc(below));
    if stat.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC && !allowed {
        return Err(Error::new("cannot be mounted because it is inside /proc"));
    }
    Ok(())
}

/// Makes read-only what had to stay writable until now.
///
/// # Errors
/// The mount refuses.
pub(super) fn finish(mounted: &Mounted) -> Result<()> {
    for (index, destination, mount) in &mounted.readonly_late {
        set_readonly(mount).within(|| format!("mounts[{index}] at {destination:?}"))?;
    }
    Ok(())
}

/// The same for one mount whose time has come.
pub(super) fn make_late_readonly(one: &MountPlan, made: &OwnedFd) -> Result<()> {
    if one.readonly_is_late() {
        set_readonly(made)?;
    }
    Ok(())
}

fn set_readonly(mount: &OwnedFd) -> Result<()> {
    let change = MountAttrs {
        set: MountAttr::MOUNT_ATTR_RDONLY,
        ..MountAttrs::default()
    };
    Ok(mount::mount_setattr(mount, change)?)
}
