//! Sources of mounts that the container's first process cannot open by itself: an id-mapping needs rights over the
//! filesystem's user namespace, and a directory may be closed to the container's users.
//!
//! The parent starts a short-lived process that enters the container's mount namespace with the parent's rights, opens
//! the source there and passes the descriptor on. In that namespace, so that the flags of the host's mounts stay
//! locked: a tree of the parent's own namespace could be made writable again by the container.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use sys::mount::{self, MountAttrs, OpenTree};
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;
use sys::process::{Child, CloneArgs, Forked, clone3};

use super::idmaps;
use super::protocol::{self, FromChild, MAX};
use crate::error::{Error, Result, Within};
use crate::plan::{IdMapPlan, MountPlan, MountSource, Plan};

/// What comes with a descriptor.
const OPENED: &[u8] = b"s";

/// The child's side: the source of the mount `index`, detached and id-mapped where the plan says so.
///
/// # Errors
/// Why it cannot be opened.
pub(super) fn ask(socket: impl AsFd, index: usize) -> Result<OwnedFd> {
    request(socket, &FromChild::OpenSource(index))
}

/// The child's side: the directory of the root filesystem.
///
/// # Errors
/// Why it cannot be opened.
pub(super) fn ask_root(socket: impl AsFd) -> Result<OwnedFd> {
    request(socket, &FromChild::OpenRoot)
}

fn request(socket: impl AsFd, what: &FromChild) -> Result<OwnedFd> {
    protocol::tell_parent(&socket, what)?;
    let mut buffer = vec![0_u8; MAX];
    let mut answer = sys::socket::receive(&socket, &mut buffer)?;
    let message = buffer.get(..answer.len).unwrap_or_default();
    match (message, answer.fds.pop()) {
        (OPENED, Some(tree)) => Ok(tree),
        (failed, _) => match FromChild::decode(failed) {
            Some(FromChild::Failed(error)) => Err(error),
            _ => Err(Error::new("the runtime has ended")),
        },
    }
}

/// The parent's side: answers `ask`.
///
/// # Errors
/// The child has ended, or no process can be made.
pub fn answer(socket: impl AsFd, child: &Child, plan: &Plan, index: usize) -> Result<()> {
    let mount = plan.mounts.iter().find(|mount| mount.index == index);
    let Some(mount) = mount else {
        return Err(Error::new("the first process asks for an unknown mount"));
    };
    let users = match &mount.idmap {
        None => None,
        Some(IdMapPlan::Maps { uids, gids }) => Some(
            idmaps::user_namespace(uids, gids).within(|| format!("mounts[{index}].uidMappings"))?,
        ),
        Some(IdMapPlan::Namespace(path)) => Some(namespace::open(path, NamespaceKind::User)?),
    };
    let opened = || open(child, mount, users.as_ref());
    serve(socket, opened).within(|| format!("mounts[{index}]"))
}

/// The parent's side: answers `ask_root`.
///
/// # Errors
/// The child has ended, or no process can be made.
pub fn answer_root(socket: impl AsFd, child: &Child, plan: &Plan) -> Result<()> {
    let open = || {
        namespace::setns(&child.pidfd, NamespaceKind::Mnt.flag())?;
        Ok(Root::open(&plan.rootfs)?.into())
    };
    serve(socket, open).within(|| "root.path".to_owned())
}

/// Sends what `open` opens in a process that ends afterwards.
fn serve(socket: impl AsFd, open: impl FnOnce() -> Result<OwnedFd>) -> Result<()> {
    match clone3(&CloneArgs::default())? {
        Forked::Child => {
            let sent = match open() {
                Ok(opened) => sys::socket::send(&socket, OPENED, &[opened.as_fd()]),
                Err(error) => sys::socket::send(&socket, &FromChild::Failed(error).encode(), &[]),
            };
            sys::process::exit_now(i32::from(sent.is_err()))
        }
        Forked::Parent(helper) => match sys::process::wait(&helper.pidfd)? {
            sys::process::Exit::Code(0) => Ok(()),
            _ => Err(Error::new("the process that opens it has failed")),
        },
    }
}

fn open(child: &Child, mount: &MountPlan, users: Option<&OwnedFd>) -> Result<OwnedFd> {
    let MountSource::Bind { path, recursive } = &mount.source else {
        return Err(Error::new("no bind mount"));
    };
    namespace::setns(&child.pidfd, NamespaceKind::Mnt.flag())?;
    let tree = mount::open_tree(AT_FDCWD, path, flags(mount, *recursive))?;
    if let Some(users) = users {
        let recursive = mount
            .options
            .idmap
            .as_ref()
            .is_some_and(|option| option.recursive);
        let change = MountAttrs {
            idmap: Some(users.as_fd()),
            recursive,
            ..MountAttrs::default()
        };
        mount::mount_setattr(&tree, change).map_err(|error| explain(error, path))?;
    }
    Ok(tree)
}

/// Why owners cannot be mapped.
pub(super) fn explain(error: sys::Error, path: &Path) -> Error {
    let hint = match error.errno {
        Errno::EINVAL => "the filesystem of the source does not support id-mapped mounts",
        Errno::EPERM => {
            "the source is id-mapped already, or its filesystem belongs to another user namespace"
        }
        _ => return error.into(),
    };
    Error::from(error).hint(format!("{path:?}: {hint}"))
}

/// How the source of a bind mount is opened.
pub(super) fn flags(mount: &MountPlan, recursive: bool) -> OpenTree {
    let mut flags = OpenTree::OPEN_TREE_CLONE;
    flags.set(OpenTree::AT_RECURSIVE, recursive);
    flags.set(OpenTree::AT_SYMLINK_NOFOLLOW, mount.options.src_nofollow);
    flags
}
