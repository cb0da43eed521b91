//! Mounts that come and go while the container runs (`mounts add`, `mounts remove`).
//!
//! One short-lived process does it: it opens the sources on the host, enters the container's namespaces, and attaches
//! them to places that it resolves below the container's root, by descriptors. For a container with users of its own the
//! sources are opened in a mount namespace that belongs to those users: that locks the flags of the host's mounts, which
//! the container could otherwise take back.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::mount::MntFlags;
use nix::sched::CloneFlags;
use sys::mount::{self, MountAttrs, Propagation};
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;

use super::{filesystems, identity, mounts, sources};
use crate::error::{Error, Result, Within};
use crate::plan::{MountPlan, MountSource};

/// What is to be done, everything opened that the process cannot open from inside.
#[derive(Debug)]
pub struct Change<'a> {
    /// The mounts, in order.
    pub mounts: &'a [MountPlan],
    /// Whether they go instead of coming.
    pub remove: bool,
    /// User namespaces of id-mapped mounts, by the index of the mount.
    pub idmaps: Vec<(usize, OwnedFd)>,
    /// The container's user namespace, where it is not the caller's.
    pub users: Option<OwnedFd>,
    /// The container's other namespaces, without that of its processes; its mount namespace last.
    pub namespaces: Vec<(NamespaceKind, OwnedFd)>,
}

/// Does it. The process must be one that ends afterwards: it does not come back out of the namespaces.
///
/// # Errors
/// Which mount was refused; those before it are taken back.
pub fn run(change: &Change<'_>) -> Result<()> {
    // Nobody in the container may look into this process.
    sys::process::set_dumpable(false)?;
    let trees = if change.remove {
        Vec::new()
    } else {
        open_sources(change)?
    };
    enter(change)?;
    sys::process::umask(nix::sys::stat::Mode::empty());
    let root = Root::open(Path::new("/"))?;
    if change.remove {
        for one in change.mounts.iter().rev() {
            remove(&root, one).within(|| name(one))?;
        }
        return Ok(());
    }
    let mut done: Vec<&MountPlan> = Vec::new();
    for (one, tree) in change.mounts.iter().zip(&trees) {
        if let Err(mut error) = add(&root, one, tree.as_ref()).within(|| name(one)) {
            for earlier in done.into_iter().rev() {
                if let Err(problem) = remove(&root, earlier) {
                    error.message =
                        format!("{} (undoing {}: {problem})", error.message, name(earlier));
                }
            }
            return Err(error);
        }
        done.push(one);
    }
    Ok(())
}

fn name(one: &MountPlan) -> String {
    format!("mounts[{}] at {:?}", one.index, one.destination)
}

/// The sources of bind mounts, detached, with their attributes.
fn open_sources(change: &Change<'_>) -> Result<Vec<Option<OwnedFd>>> {
    let binds = |one: &MountPlan| matches!(one.source, MountSource::Bind { .. });
    if let Some(users) = &change.users
        && change.mounts.iter().any(binds)
    {
        cover_mapped(change)?;
        namespace::setns(users, NamespaceKind::User.flag())?;
        namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    }
    let open = |one: &MountPlan| {
        let MountSource::Bind { path, recursive } = &one.source else {
            return Ok(None);
        };
        let tree = if change.users.is_none() && one.idmap.is_some() {
            open_mapped(change, one, path)?
        } else {
            mount::open_tree(AT_FDCWD, path, sources::flags(one, *recursive))?
        };
        mounts::set_attributes(&tree, one)?;
        set_propagation(&tree, one)?;
        Ok(Some(tree))
    };
    let open = |one: &MountPlan| open(one).map_err(|error: Error| error.within(name(one)));
    change.mounts.iter().map(open).collect()
}

/// As `create` has it, where the whole namespace is the host's receiver: only `shared` makes the mount its peer, whose
/// mounts would appear on the host as well.
fn set_propagation(tree: &OwnedFd, one: &MountPlan) -> Result<()> {
    let asked = &one.options.propagation;
    let shared = |(kind, _): &(Propagation, bool)| *kind == Propagation::Shared;
    if !asked.iter().any(shared) {
        mount::set_propagation_fd(tree, Propagation::Slave, true)?;
    }
    for (propagation, recursive) in asked {
        mount::set_propagation_fd(tree, *propagation, *recursive)?;
    }
    Ok(())
}

/// An id-mapping needs the host's rights: it is put over its own source, in a mount namespace that nobody sees.
fn cover_mapped(change: &Change<'_>) -> Result<()> {
    if change.idmaps.is_empty() {
        return Ok(());
    }
    namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
    for one in change.mounts.iter().filter(|one| one.idmap.is_some()) {
        if let MountSource::Bind { path, .. } = &one.source {
            let tree = open_mapped(change, one, path).within(|| name(one))?;
            mount::attach(&tree, path).within(|| name(one))?;
        }
    }
    Ok(())
}

fn open_mapped(change: &Change<'_>, one: &MountPlan, path: &Path) -> Result<OwnedFd> {
    let recursive = matches!(
        one.source,
        MountSource::Bind {
            recursive: true,
            ..
        }
    );
    let tree = mount::open_tree(AT_FDCWD, path, sources::flags(one, recursive))?;
    let map = change.idmaps.iter().find(|(index, _)| *index == one.index);
    if let Some((_, users)) = map {
        let recursive = one.options.idmap.as_ref().is_some_and(|map| map.recursive);
        let change = MountAttrs {
            idmap: Some(users.as_fd()),
            recursive,
            ..MountAttrs::default()
        };
        mount::mount_setattr(&tree, change).map_err(|error| sources::explain(error, path))?;
    }
    Ok(tree)
}

fn enter(change: &Change<'_>) -> Result<()> {
    let binds = |one: &MountPlan| matches!(one.source, MountSource::Bind { .. });
    let entered = !change.remove && change.mounts.iter().any(binds);
    if let Some(users) = &change.users {
        if !entered {
            namespace::setns(users, NamespaceKind::User.flag())?;
        }
        // What is made belongs to the container's root.
        identity::become_namespace_root(false)?;
        sys::process::set_dumpable(false)?;
    }
    for (kind, fd) in &change.namespaces {
        namespace::setns(fd, kind.flag()).within(|| format!("joining the {kind} namespace"))?;
    }
    Ok(())
}

fn add(root: &Root, one: &MountPlan, tree: Option<&OwnedFd>) -> Result<()> {
    match (&one.source, tree) {
        (MountSource::Remount, _) => filesystems::remount(root, one),
        (MountSource::Bind { .. }, Some(tree)) => mounts::bind(root, one, tree),
        (MountSource::New { fs_type, source }, _) => {
            let made = filesystems::make(root, one, fs_type, source)?;
            for (propagation, recursive) in &one.options.propagation {
                mount::set_propagation_fd(&made, *propagation, *recursive)?;
            }
            mounts::make_late_readonly(one, &made)
        }
        _ => Err(Error::new("cannot be added to a running container")),
    }
}

/// Takes away what is mounted there. A directory is unmounted as the working directory and a file by its name in its
/// directory, so that no path is walked a second time.
fn remove(root: &Root, one: &MountPlan) -> Result<()> {
    let found = root.resolve(&one.destination)?;
    if !sys::path::is_mount_root(&found, Path::new(""))? {
        return Err(Error::new("nothing is mounted there"));
    }
    let stat = sys::fs::stat(&found)?;
    let directory = stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    let (place, name) = match (one.destination.parent(), one.destination.file_name()) {
        (Some(parent), Some(name)) if !directory => (root.resolve(parent)?, Path::new(name)),
        _ => (found, Path::new(".")),
    };
    nix::unistd::fchdir(&place).map_err(|errno| sys::Error::new(errno, "fchdir"))?;
    Ok(mount::unmount(name, MntFlags::MNT_DETACH)?)
}
