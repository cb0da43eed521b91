//! A container in a mount namespace that is not its own: that of the caller, or one that it joins by path.
//!
//! Mounting there, let alone `pivot_root`, would change what all other members of the namespace see, and leave mounts
//! behind. So everything is made in a copy of that namespace which nobody else sees. At the end the container's root is
//! copied out as a detached tree, the process goes (back) to the shared namespace, and the tree becomes its root. The
//! tree lives as long as somebody has it as root; there is nothing to undo.
//!
//! As with other runtimes, paths of the configuration mean what they do in the namespace that is joined.
use std::os::fd::OwnedFd;
use std::path::Path;

use sys::mount;
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;

use crate::error::{Error, Result, Within};
use crate::plan::Plan;

/// The mount namespace that the container shares.
#[derive(Debug)]
pub(super) struct Shared(OwnedFd);

impl Shared {
    /// Goes into a copy of the namespace that the plan says; `None` where the container has a new one.
    ///
    /// `join` has the one to join, which is taken out.
    ///
    /// # Errors
    /// A missing right.
    pub(super) fn visit(
        plan: &Plan,
        join: &mut Vec<(NamespaceKind, OwnedFd)>,
    ) -> Result<Option<Self>> {
        if plan.namespaces.is_new(NamespaceKind::Mnt) {
            return Ok(None);
        }
        let within = || "linux.namespaces[mnt]".to_owned();
        let joined = join
            .iter()
            .position(|(kind, _)| *kind == NamespaceKind::Mnt);
        let shared = match joined {
            Some(index) => {
                let (_, fd) = join.swap_remove(index);
                namespace::setns(&fd, NamespaceKind::Mnt.flag())
                    .within(|| "joining the mnt namespace".to_owned())?;
                fd
            }
            None => namespace::open(Path::new("/proc/self/ns/mnt"), NamespaceKind::Mnt)
                .within(within)?,
        };
        namespace::unshare(NamespaceKind::Mnt.flag()).within(within)?;
        Ok(Some(Self(shared)))
    }

    /// Leaves the copy with a detached tree of the container's root, which becomes the root of this process.
    ///
    /// # Errors
    /// A missing right.
    pub(super) fn enter(&self, root: &Root) -> Result<Root> {
        let within = || "root.path".to_owned();
        let tree = mount::clone_tree(root, true).within(within)?;
        namespace::setns(&self.0, NamespaceKind::Mnt.flag()).within(within)?;
        change_root(&tree).within(within)?;
        Ok(Root::from_fd(tree))
    }
}

/// Makes a directory that is open the root and the working directory.
///
/// # Errors
/// `EPERM` without `CAP_SYS_CHROOT`.
pub(super) fn change_root(root: &OwnedFd) -> Result<()> {
    nix::unistd::fchdir(root).map_err(|errno| sys::Error::new(errno, "fchdir(root)"))?;
    nix::unistd::chroot(".").map_err(|errno| Error::from(sys::Error::new(errno, "chroot(\".\")")))
}
