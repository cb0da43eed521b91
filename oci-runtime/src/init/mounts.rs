//! `mounts`: each made detached, given its attributes, and attached to a place that was resolved inside the root.
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag};
use sys::mount::{self, FsContext, MountAttr, MountAttrs, OpenTree};
use sys::path::Root;

use super::cgroup_mount::{self, View};
use super::copyup;
use crate::error::{Error, Result, Within};
use crate::plan::{MountPlan, MountSource, Plan, mounts::allowed_over_proc};

/// New directories on the way to a mount.
const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);

/// The longest value that `fsconfig(2)` takes.
const MAX_CONFIG: usize = 255;

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// The mount at `/dev`.
    pub(super) dev: Option<OwnedFd>,
    /// Mounts that become read-only when everything is in place.
    pub(super) readonly_late: Vec<(usize, PathBuf, OwnedFd)>,
}

/// Makes all mounts, in order.
///
/// # Errors
/// Which mount was refused, and by which call.
pub(super) fn make(
    root: &Root,
    plan: &Plan,
    view: &View<'_>,
    idmaps: &[(usize, OwnedFd)],
) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for one in &plan.mounts {
        let within = || format!("mounts[{}] at {:?}", one.index, one.destination);
        let userns = idmaps
            .iter()
            .find(|(index, _)| *index == one.index)
            .map(|(_, fd)| fd);
        let made = make_one(root, one, plan, view, userns).within(within)?;
        let Some(made) = made else { continue };
        if one.readonly_is_late() {
            let copy = made
                .try_clone()
                .map_err(|error| Error::new(error.to_string()))
                .within(within)?;
            mounted
                .readonly_late
                .push((one.index, one.destination.clone(), copy));
        }
        if one.destination == Path::new("/dev") {
            mounted.dev = Some(made);
        }
    }
    Ok(mounted)
}

fn make_one(
    root: &Root,
    one: &MountPlan,
    plan: &Plan,
    view: &View<'_>,
    userns: Option<&OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let made = match &one.source {
        MountSource::Remount => return remount(root, one).map(|()| None),
        MountSource::Cgroup => return cgroup_mount::make(root, one, plan, view).map(Some),
        MountSource::Bind { path, recursive } => bind(root, one, path, *recursive, userns)?,
        MountSource::New { fs_type, source } => new(root, one, fs_type, source)?,
    };
    for (propagation, recursive) in &one.options.propagation {
        mount::set_propagation_fd(&made, *propagation, *recursive)?;
    }
    Ok(Some(made))
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

fn bind(
    root: &Root,
    one: &MountPlan,
    source: &Path,
    recursive: bool,
    userns: Option<&OwnedFd>,
) -> Result<OwnedFd> {
    let mut flags = OpenTree::OPEN_TREE_CLONE;
    flags.set(OpenTree::AT_RECURSIVE, recursive);
    let tree = mount::open_tree(AT_FDCWD, source, flags)?;
    set_attributes(&tree, one)?;
    if let Some(userns) = userns {
        let recursive = one.options.idmap == Some(true);
        mount::mount_setattr(
            &tree,
            MountAttrs {
                idmap: Some(userns.as_fd()),
                recursive,
                ..MountAttrs::default()
            },
        )
        .map_err(|error| {
            Error::from(error).hint("the filesystem of the source may not support id-mapped mounts")
        })?;
    }
    let stat =
        nix::sys::stat::fstat(&tree).map_err(|errno| sys::Error::new(errno, "fstat(source)"))?;
    let is_directory = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let target = if is_directory {
        place(root, &one.destination)?
    } else {
        root.create_file(&one.destination, DIR_MODE)?
    };
    refuse_inside_proc(&target, one)?;
    mount::attach_at(&tree, &target)?;
    Ok(tree)
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
    root.mkdir_all(destination, DIR_MODE).map_err(Error::from)
}

/// The destination by its letters was checked by the plan; links in the image may still lead below `/proc`.
fn refuse_inside_proc(target: &OwnedFd, one: &MountPlan) -> Result<()> {
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

fn new(root: &Root, one: &MountPlan, fs_type: &str, source: &str) -> Result<OwnedFd> {
    let inherits = fs_type == "tmpfs"
        && !one
            .options
            .data
            .iter()
            .any(|option| option.starts_with("mode="));
    let existing = if inherits {
        root.find(&one.destination, OFlag::O_PATH)?
    } else {
        None
    };
    let target = place(root, &one.destination)?;
    refuse_inside_proc(&target, one)?;
    let context = FsContext::open(fs_type);
    let made = context
        .map_err(Error::from)
        .and_then(|context| configure(context, one, fs_type, source, existing.as_ref()));
    let made = match made {
        // Not our network namespace: the kernel gives no new sysfs, only the host's.
        Err(_) if fs_type == "sysfs" => {
            let flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_RECURSIVE;
            let tree = mount::open_tree(AT_FDCWD, Path::new("/sys"), flags)?;
            set_attributes(&tree, one)?;
            tree
        }
        other => other?,
    };
    if one.options.tmpcopyup {
        copyup::copy(&target, &made)?;
    }
    mount::attach_at(&made, &target)?;
    Ok(made)
}

fn configure(
    context: FsContext,
    one: &MountPlan,
    fs_type: &str,
    source: &str,
    existing: Option<&OwnedFd>,
) -> Result<OwnedFd> {
    let options = &one.options;
    if !source.is_empty() {
        context.set_string("source", source)?;
    }
    for flag in &options.superblock {
        context.set_flag(flag)?;
    }
    // Of these one superblock may serve many mounts, or it is ours alone: read-only is a matter of the mount.
    let virtual_fs = matches!(
        fs_type,
        "tmpfs" | "proc" | "sysfs" | "mqueue" | "devpts" | "overlay"
    );
    if options.set.contains(MountAttr::MOUNT_ATTR_RDONLY) && !virtual_fs {
        context.set_flag("ro")?;
    }
    for option in &options.data {
        match option.split_once('=') {
            Some((key, value)) if value.len() > MAX_CONFIG => {
                return Err(Error::new(format!(
                    "the value of option {key:?} is longer than {MAX_CONFIG} bytes"
                )));
            }
            Some((key, value)) => context.set_string(key, value)?,
            None => context.set_flag(option)?,
        }
    }
    inherit_mode(&context, existing)?;
    let mut attrs = options.set;
    attrs.set(
        MountAttr::MOUNT_ATTR_RDONLY,
        attrs.contains(MountAttr::MOUNT_ATTR_RDONLY) && !one.readonly_is_late(),
    );
    let made = context.mount(attrs)?;
    let below = MountAttrs {
        set: options.set_recursive,
        clear: options.clear_recursive,
        recursive: true,
        ..MountAttrs::default()
    };
    if !below.set.is_empty() || !below.clear.is_empty() {
        mount::mount_setattr(&made, below)?;
    }
    Ok(made)
}

/// A tmpfs over a directory of the image has that directory's permissions, unless the options say otherwise.
fn inherit_mode(context: &FsContext, existing: Option<&OwnedFd>) -> Result<()> {
    let Some(existing) = existing else {
        return Ok(());
    };
    let stat =
        nix::sys::stat::fstat(existing).map_err(|errno| sys::Error::new(errno, "fstat(target)"))?;
    Ok(context.set_string("mode", &format!("{:o}", stat.st_mode & 0o7777))?)
}

fn remount(root: &Root, one: &MountPlan) -> Result<()> {
    let target = root.resolve(&one.destination)?;
    let mounted = mount::open_tree(&target, Path::new(""), OpenTree::AT_EMPTY_PATH)?;
    set_attributes(&mounted, one)?;
    for (propagation, recursive) in &one.options.propagation {
        mount::set_propagation_fd(&mounted, *propagation, *recursive)?;
    }
    Ok(())
}

/// Makes read-only what had to stay writable until now.
///
/// # Errors
/// The mount refuses.
pub(super) fn finish(mounted: &Mounted) -> Result<()> {
    for (index, destination, mount) in &mounted.readonly_late {
        let set = MountAttr::MOUNT_ATTR_RDONLY;
        mount::mount_setattr(
            mount,
            MountAttrs {
                set,
                ..MountAttrs::default()
            },
        )
        .within(|| format!("mounts[{index}] at {destination:?}"))?;
    }
    Ok(())
}
