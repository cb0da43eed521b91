//! The container's root with everything in it, on either way to a mount namespace of its own.
use std::path::Path;

use sys::namespace::{self, NamespaceKind};
use sys::path::Root;

use super::bare_namespace::{self, Bare};
use super::mounts::{self, Maker, Mounted};
use super::{devices, rootfs};
use crate::error::Result;

/// A root that only has to become the root.
pub(super) struct Furnished {
    /// The root.
    pub(super) root: Root,
    /// What was mounted in it.
    pub(super) mounted: Mounted,
    /// Where the host's devices are, until then.
    pub(super) host_dev: &'static Path,
}

/// Makes the root. Where this process was born without a mount namespace of its own, it makes that as well.
///
/// # Errors
/// Which mount was refused, and by which call.
pub(super) fn make(maker: Maker<'_>, bare: Option<&Bare>) -> Result<Furnished> {
    if let Some(bare) = bare {
        if let Ok((root, mounted)) = bare_namespace::furnish(bare, &maker) {
            return Ok(Furnished {
                root,
                mounted,
                host_dev: Path::new("/"),
            });
        }
        // Whatever the reason: the other way is the one that has the last word.
        namespace::unshare(NamespaceKind::Mnt.flag())?;
    }
    let maker = Maker {
        detached: false,
        ..maker
    };
    let plan = maker.plan;
    let mut root = rootfs::prepare(plan, maker.parent)?;
    let mounted = mounts::make(&mut root, &maker)?;
    if plan.fill_dev {
        let in_user_namespace = plan.namespaces.has(NamespaceKind::User);
        devices::fill(&root, plan, &mounted, in_user_namespace)?;
    }
    Ok(Furnished {
        root,
        mounted,
        host_dev: Path::new("/dev"),
    })
}
