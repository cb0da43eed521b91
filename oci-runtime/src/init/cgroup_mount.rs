//! A mount of the type `cgroup`: the container's own view of its cgroups, in the form that the host uses.
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::Mode;
use sys::cgroup::{Cgroup, Hierarchies, Hierarchy, Version};
use sys::mount::{self, FsContext, MountAttr, MountAttrs, OpenTree};
use sys::namespace::NamespaceKind;
use sys::path::Root;

use super::mounts::{Maker, place, set_attributes};
use super::rootfs::empty_directory;
use crate::error::{Error, Result, Within};
use crate::plan::{MountPlan, Plan};

/// What the parent found out about the host's cgroups.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The cgroup filesystems of the host.
    pub(super) hierarchies: &'a Hierarchies,
    /// The container's cgroup.
    pub(super) cgroup: &'a Cgroup,
}

/// Mounts it.
///
/// # Errors
/// The host has no cgroups mounted, or a mount is refused.
pub(super) fn make(root: &Root, one: &MountPlan, maker: &Maker<'_>) -> Result<OwnedFd> {
    let plan = maker.plan;
    let View {
        hierarchies,
        cgroup,
    } = maker.view;
    // Without a cgroup of its own the container lives in that of its maker.
    let shared;
    let cgroup = if cgroup.is_none() {
        shared = Cgroup::of_caller(hierarchies);
        &shared
    } else {
        cgroup
    };
    let private = plan.namespaces.has(NamespaceKind::Cgroup);
    let target = place(root, &one.destination)?;
    if let [only] = hierarchies.list()
        && only.version() == Version::V2
    {
        let made = match whole(one, plan, only)? {
            Some(made) => made,
            None => unified(one, plan, cgroup)?,
        };
        mount::attach_at(&made, &target)?;
        return Ok(made);
    }
    let context = FsContext::open("tmpfs")?;
    context.set_string("source", "tmpfs")?;
    context.set_string("mode", "755")?;
    if let Some(label) = &plan.mount_label {
        context.set_string(label.option, &label.label)?;
    }
    let quiet =
        MountAttr::MOUNT_ATTR_NOSUID | MountAttr::MOUNT_ATTR_NODEV | MountAttr::MOUNT_ATTR_NOEXEC;
    let made = context.mount(quiet)?;
    if !maker.detached {
        // Only since Linux 6.15 may mounts be made in what has no place yet.
        mount::attach_at(&made, &target)?;
    }
    let inside = Root::from_fd(
        made.try_clone()
            .map_err(|error| Error::new(error.to_string()))?,
    );
    for hierarchy in hierarchies
        .list()
        .iter()
        .filter(|one| one.version() == Version::V1)
    {
        v1(&inside, one, plan, hierarchy, cgroup, private)
            .within(|| format!("cgroup hierarchy {:?}", hierarchy.mount()))?;
    }
    // The directory of hierarchies as the options say; the places inside had to be made first.
    set_attributes(&made, one)?;
    if maker.detached {
        // And in a detached tree attributes are changed only before.
        mount::attach_at(&made, &target)?;
    }
    Ok(made)
}

/// One v2 hierarchy: a fresh mount shows what the container's cgroup namespace has as its root, without one of its own
/// all of the host, as with other runtimes: `/proc/self/cgroup` names paths in it. Where the kernel refuses that to the
/// container's users, its own directory is bound.
fn unified(one: &MountPlan, plan: &Plan, cgroup: &Cgroup) -> Result<OwnedFd> {
    let context = FsContext::open("cgroup2");
    match context.and_then(|context| context.mount(MountAttr::empty())) {
        Ok(made) => {
            set_attributes(&made, one)?;
            Ok(made)
        }
        Err(error) if matches!(error.errno, Errno::EPERM | Errno::EBUSY) => {
            bound(cgroup.paths().get(""), one, plan)
        }
        Err(error) => Err(error.into()),
    }
}

/// All of the host's hierarchy as a copy of its mount. A fresh one shows the same, but from the first cgroup namespace
/// the kernel makes it only after an RCU grace period, 6 to 14 ms on an idle machine. Not for a container with a view
/// or with users of its own.
fn whole(one: &MountPlan, plan: &Plan, hierarchy: &Hierarchy) -> Result<Option<OwnedFd>> {
    let own =
        plan.namespaces.has(NamespaceKind::Cgroup) || plan.namespaces.has(NamespaceKind::User);
    if own || !hierarchy.is_whole() {
        return Ok(None);
    }
    let made = mount::open_tree(AT_FDCWD, hierarchy.mount(), OpenTree::OPEN_TREE_CLONE)?;
    // As fresh: what the options do not name is not the host's.
    let flags = MountAttr::MOUNT_ATTR_RDONLY
        | MountAttr::MOUNT_ATTR_NOSUID
        | MountAttr::MOUNT_ATTR_NODEV
        | MountAttr::MOUNT_ATTR_NOEXEC;
    let change = MountAttrs {
        clear: flags.difference(one.options.set),
        ..MountAttrs::default()
    };
    match mount::mount_setattr(&made, change) {
        // Locked by an outer container.
        Err(error) if error.errno == Errno::EPERM => return Ok(None),
        other => other?,
    }
    set_attributes(&made, one)?;
    Ok(Some(made))
}

fn v1(
    inside: &Root,
    one: &MountPlan,
    plan: &Plan,
    hierarchy: &Hierarchy,
    cgroup: &Cgroup,
    private: bool,
) -> Result<()> {
    let Some(name) = hierarchy.mount().file_name() else {
        return Ok(());
    };
    let Some(controller) = hierarchy.controllers().first() else {
        return Ok(());
    };
    let target = inside.mkdir_all(Path::new(name), Mode::from_bits_truncate(0o755))?;
    let made = if private {
        fresh_v1(one, hierarchy)?
    } else {
        None
    };
    let made = match made {
        Some(made) => made,
        None => bound(cgroup.paths().get(controller), one, plan)?,
    };
    mount::attach_at(&made, &target)?;
    link_controllers(inside, name, hierarchy)
}

fn fresh_v1(one: &MountPlan, hierarchy: &Hierarchy) -> Result<Option<OwnedFd>> {
    let context = FsContext::open("cgroup")?;
    context.set_string("source", "cgroup")?;
    if hierarchy
        .controllers()
        .iter()
        .all(|name| name.starts_with("name="))
    {
        context.set_flag("none")?;
    }
    for controller in hierarchy.controllers() {
        match controller.split_once('=') {
            Some((key, value)) => context.set_string(key, value)?,
            None => context.set_flag(controller)?,
        }
    }
    match context.mount(one.options.set) {
        Ok(made) => Ok(Some(made)),
        Err(sys::Error {
            errno: Errno::EPERM | Errno::EBUSY,
            ..
        }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The container's directory of the host's hierarchy. Read-only for a container with users of its own, whose files
/// there are those of the host's user (CVE-2023-25809); an empty directory for one that could not be given a cgroup,
/// so that the host's cgroups that a bind mount of `/sys` may have brought are hidden.
fn bound(path: Option<&PathBuf>, one: &MountPlan, plan: &Plan) -> Result<OwnedFd> {
    let opened = path.map(|path| mount::open_tree(AT_FDCWD, path, OpenTree::OPEN_TREE_CLONE));
    let tree = match opened {
        None => return Ok(empty_directory(plan)?),
        Some(Err(error)) if error.errno == Errno::ENOENT => return Ok(empty_directory(plan)?),
        Some(tree) => tree?,
    };
    let mut set = one.options.set;
    set.set(
        MountAttr::MOUNT_ATTR_RDONLY,
        set.contains(MountAttr::MOUNT_ATTR_RDONLY) || plan.namespaces.has(NamespaceKind::User),
    );
    mount::mount_setattr(
        &tree,
        MountAttrs {
            set,
            ..MountAttrs::default()
        },
    )?;
    Ok(tree)
}

/// `cpu` -> `cpu,cpuacct`, as every v1 host has it.
fn link_controllers(inside: &Root, name: &OsStr, hierarchy: &Hierarchy) -> Result<()> {
    for controller in hierarchy
        .controllers()
        .iter()
        .filter(|one| !one.starts_with("name="))
    {
        if OsStr::new(controller) == name {
            continue;
        }
        match nix::unistd::symlinkat(name, inside, controller.as_str()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(
                    sys::Error::new(errno, format!("symlinkat({name:?}, {controller:?})")).into(),
                );
            }
        }
    }
    Ok(())
}
