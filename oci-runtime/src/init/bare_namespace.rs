//! A mount namespace of the container's own on a host with many mounts.
//!
//! A new mount namespace is a copy of its maker's: the kernel copies every mount of the host, for `pivot_root` to take
//! them away again, and both cost by the mount. Here the container's root is put together as a detached tree instead,
//! in the host's namespace but out of everybody's sight, and then goes into a copy of the barest namespace there is:
//! that of the kernel's own thread `kdevtmpfs`, which holds the filesystem that the kernel started with, a devtmpfs
//! over it, and nothing else. It is there from before the first process to the end, on every host alike, and nobody
//! but the host's root could change it, so there is nothing to make, to guard or to clean up.
//!
//! What the container gets is the same (`docs/decisions/0005-a-bare-mount-namespace.md` says why, mount by mount).
//! Plans of which that cannot be said for sure have a copy of the host's namespace, as everywhere else. So has whatever
//! is refused on this way: it is tried again on the other one, which has the last word and the better-known message.
//!
//! Mounting onto detached trees needs Linux 6.15.
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{dev_t, stat};
use sys::mount::{self, Propagation};
use sys::mount_namespace;
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;

use super::mounts::{self, Maker, Mounted};
use super::{devices, identity, rootfs, shared_mounts};
use crate::error::{Error, Result};
use crate::plan::{MountPlan, MountSource, Plan};

/// From how many mounts on. Going the other way costs as much as copying some forty.
const MANY: u32 = 100;

/// How many mounts the bare namespace may have.
const FEW: u32 = 2;

/// Where the search for its thread ends: reading so many names takes as long as copying some hundred mounts.
const LAST_PID: u32 = 400;

/// The namespaces of a birth on this way.
#[derive(Debug)]
pub struct Bare {
    /// That of the caller.
    host: OwnedFd,
    /// The one that is copied.
    template: OwnedFd,
}

/// Finds the namespaces where this way is worth its while and open to this plan.
pub fn find(plan: &Plan, no_pivot: bool) -> Option<Bare> {
    if no_pivot || !suits(plan) {
        return None;
    }
    let host = open("/proc/self/ns/mnt")?;
    let crowded = mount_namespace::mounts(&host).is_ok_and(|count| count >= MANY);
    let template = crowded.then(template).flatten()?;
    Some(Bare { host, template })
}

fn open(path: &str) -> Option<OwnedFd> {
    namespace::open(Path::new(path), NamespaceKind::Mnt).ok()
}

/// The namespace of `kdevtmpfs`: nearly always the one with the lowest id after that of the kernel's other threads, else
/// it is looked for among the first processes. Inside of an outer container process 2 is anybody, and nothing is found.
fn template() -> Option<OwnedFd> {
    let first = open("/proc/2/ns/mnt")?;
    match mount_namespace::previous(&first) {
        Err(error) if error.errno == Errno::ENOENT => {}
        _ => return None,
    }
    let users = namespace::open(Path::new("/proc/self/ns/user"), NamespaceKind::User).ok()?;
    let second = mount_namespace::next(&first).ok();
    second
        .filter(|second| is_bare(second, &users))
        .or_else(|| of_thread().filter(|found| is_bare(found, &users)))
}

/// Only who owns the host could have changed such a one.
fn is_bare(found: &OwnedFd, users: &OwnedFd) -> bool {
    let owned = || {
        let owner = mount_namespace::owner(found).and_then(namespace::identity);
        owner.is_ok_and(|owner| namespace::identity(users).is_ok_and(|users| users == owner))
    };
    mount_namespace::mounts(found).is_ok_and(|count| count <= FEW) && owned()
}

/// A handful of threads of each processor are born before it.
fn of_thread() -> Option<OwnedFd> {
    let is_it = |pid: &u32| {
        let name = std::fs::read(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == b"kdevtmpfs\n")
    };
    let pid = (3..LAST_PID).find(is_it)?;
    open(&format!("/proc/{pid}/ns/mnt"))
}

/// Whether the container is the same on both ways.
fn suits(plan: &Plan) -> bool {
    let namespaces = &plan.namespaces;
    // A user namespace locks the mounts that come from the host, which takes a copy of the host's namespace.
    namespaces.is_new(NamespaceKind::Mnt)
        && !namespaces.has(NamespaceKind::User)
        // Others name processes there, and must not find one in the host's own namespace.
        && namespaces.path(NamespaceKind::Pid).is_none()
        && matches!(plan.rootfs_propagation, None | Some((Propagation::Slave, true)))
        // They see the container's mounts in the place of its root filesystem, among those of the host.
        && [&plan.hooks.prestart, &plan.hooks.create_runtime, &plan.hooks.create_container, &plan.hooks.start_container]
            .iter()
            .all(|hooks| hooks.is_empty())
        && plan.mounts.iter().all(|one| mount_suits(plan, one))
}

fn mount_suits(plan: &Plan, one: &MountPlan) -> bool {
    let fits = match &one.source {
        MountSource::Remount => false,
        // In a copy of the host's namespace the container's mounts are there, too.
        MountSource::Bind { path, recursive } => {
            let around = *recursive && plan.rootfs.starts_with(path);
            !around && !path.starts_with(&plan.rootfs)
        }
        MountSource::Cgroup | MountSource::New { .. } => true,
    };
    let over_cgroups = plan.mounts.iter().any(|other| {
        other.source == MountSource::Cgroup
            && other.index != one.index
            && one.destination.starts_with(&other.destination)
    });
    let shared = one
        .options
        .propagation
        .iter()
        .any(|(propagation, _)| *propagation == Propagation::Shared);
    fits && one.destination != Path::new("/") && !over_cgroups && !shared
}

/// Puts the container's root together and goes into the namespace where it will be the root.
///
/// # Errors
/// What the kernel refuses. The caller is in its old namespace then.
pub(super) fn furnish(bare: &Bare, maker: &Maker<'_>) -> Result<(Root, Mounted)> {
    let before = Root::open(Path::new("/"))?;
    let made = build(maker).and_then(|(root, mounted)| {
        enter(bare, &root)?;
        mounts::finish_propagation(&mounted, maker.plan)?;
        Ok((root, mounted))
    });
    made.or_else(|error| {
        namespace::setns(&bare.host, NamespaceKind::Mnt.flag())?;
        // Which is not that of the namespace, if the caller has changed it.
        shared_mounts::change_root(&before.into())?;
        Err(error)
    })
}

fn build(maker: &Maker<'_>) -> Result<(Root, Mounted)> {
    let mut root = rootfs::detached(maker.plan)?;
    let mounted = mounts::make(&mut root, maker)?;
    if maker.plan.fill_dev {
        devices::fill(&root, maker.plan, &mounted, false)?;
    }
    // Also made later, for those who may change it; here its failure still leads to the other way.
    identity::make_cwd(&root, &maker.plan.process)?;
    // What was copied from the host above all has been cut off already, before anything was mounted on it.
    mount::set_propagation_fd(&root, Propagation::Slave, true)?;
    Ok((root, mounted))
}

/// From here on paths from the root lead into the devtmpfs, until `pivot_root`.
fn enter(bare: &Bare, root: &Root) -> Result<()> {
    let devices = device_of("/dev")?;
    namespace::setns(&bare.template, NamespaceKind::Mnt.flag())?;
    namespace::unshare(NamespaceKind::Mnt.flag())?;
    if device_of("/")? != devices {
        return Err(Error::new("that is not the mount namespace of kdevtmpfs"));
    }
    mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
    Ok(mount::attach(root, Path::new("/"))?)
}

fn device_of(path: &str) -> Result<dev_t> {
    let stat = stat(path).map_err(|errno| sys::Error::new(errno, format!("stat({path:?})")))?;
    Ok(stat.st_dev)
}
