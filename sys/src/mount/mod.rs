//! Mounts: the new mount API by descriptor, the few old calls that nothing replaces, and overlayfs.
//!
//! A mount is made detached ([`FsContext`], [`open_tree`]), gets its attributes while nobody can reach it
//! ([`mount_setattr`]) and is attached in one step ([`move_mount`]). See `open_tree(2)`, `fsopen(2)`, `mount_setattr(2)`.
mod api;
mod classic;
mod overlay;
#[cfg(test)]
mod tests;

pub use api::{
    FsContext, MountAttr, MountAttrs, MoveMount, OpenTree, attach, attach_at, clone_tree,
    mount_setattr, move_mount, open_tree,
};
pub use classic::{
    Propagation, bind, is_mount_point, mount, pivot_root, set_propagation, set_propagation_fd,
    unmount, unmount_detach,
};
pub use overlay::overlay;
