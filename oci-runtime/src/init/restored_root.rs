//! The root filesystem for criu, which makes the mounts of a restored container itself but wants places for them, and
//! a root that is a mount point of its own.
//!
//! Done in criu's process, in a mount namespace of its own: the host sees nothing of it, and whatever happens nothing
//! of it is left.
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::mount::MntFlags;
use nix::sched::CloneFlags;
use sys::mount::{self, OpenTree, Propagation};
use sys::path::Root;

use super::mounts;
use crate::error::{Result, Within};
use crate::plan::{MountPlan, MountSource, Plan};

/// Puts the root filesystem at `place`, an empty directory.
///
/// # Errors
/// Which mount has no place, or mounting is not allowed.
pub fn prepare(plan: &Plan, place: &Path) -> Result<()> {
    sys::namespace::unshare(CloneFlags::CLONE_NEWNS)?;
    mount::set_propagation(Path::new("/"), Propagation::Slave, true)?;
    sys::process::umask(nix::sys::stat::Mode::empty());
    let root = attach(plan, place)?;
    for one in plan.mounts.iter().filter(|one| !is_in_new(plan, one)) {
        make_place(&root, one)
            .within(|| format!("mounts[{}] at {:?}", one.index, one.destination))?;
    }
    // The places stay, what was mounted to reach them goes.
    drop(root);
    mount::unmount(place, MntFlags::MNT_DETACH)?;
    attach(plan, place).map(drop)
}

fn attach(plan: &Plan, place: &Path) -> Result<Root> {
    let within = || "root.path".to_owned();
    let flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_RECURSIVE;
    let tree = mount::open_tree(AT_FDCWD, &plan.rootfs, flags).within(within)?;
    // It keeps the propagation of what it is a copy of: criu gives it to the container's root, which had it before.
    mount::attach(&tree, place).within(within)?;
    Ok(Root::from_fd(tree))
}

/// Whether the place is in a filesystem that criu makes, with everything in it.
fn is_in_new(plan: &Plan, one: &MountPlan) -> bool {
    let is_above = |other: &&MountPlan| {
        other.index < one.index
            && other.destination != one.destination
            && one.destination.starts_with(&other.destination)
    };
    let above = plan.mounts.iter().rfind(is_above);
    above.is_some_and(|above| {
        !matches!(
            above.source,
            MountSource::Bind { .. } | MountSource::Remount
        )
    })
}

fn make_place(root: &Root, one: &MountPlan) -> Result<()> {
    match &one.source {
        MountSource::Remount => Ok(()),
        MountSource::Bind { path, recursive } => {
            let mut flags = OpenTree::OPEN_TREE_CLONE;
            flags.set(OpenTree::AT_RECURSIVE, *recursive);
            let tree = mount::open_tree(AT_FDCWD, path, flags)?;
            // Places of later mounts may be in it.
            mounts::bind(root, one, &tree)
        }
        MountSource::Cgroup | MountSource::New { .. } => {
            mounts::place(root, &one.destination).map(drop)
        }
    }
}
