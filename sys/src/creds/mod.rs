//! Credentials of the calling process: ids, capabilities, resource limits. See `credentials(7)`, `capabilities(7)`.
mod capabilities;
mod rlimit;

pub use capabilities::{
    CAPABILITY_NAMES, CapSet, capability_name, clear_ambient, drop_bounding, parse_capability,
    raise_ambient, read_capabilities, set_capabilities,
};
pub use rlimit::{
    RLIM_INFINITY, RLIMIT_NAMES, Rlimit, get_rlimit, parse_rlimit, rlimit_name, set_rlimit,
};

use nix::unistd::{Gid, Uid};

use crate::error::{Context, Result};

/// Sets the real, effective and saved user id.
///
/// # Errors
/// `EPERM`; `EINVAL` for an id that the user namespace does not map.
pub fn set_user(uid: u32) -> Result<()> {
    let id = Uid::from_raw(uid);
    nix::unistd::setresuid(id, id, id).call(|| format!("setresuid({uid}, {uid}, {uid})"))
}

/// Sets the real, effective and saved group id.
///
/// # Errors
/// `EPERM`; `EINVAL` for an id that the user namespace does not map.
pub fn set_group(gid: u32) -> Result<()> {
    let id = Gid::from_raw(gid);
    nix::unistd::setresgid(id, id, id).call(|| format!("setresgid({gid}, {gid}, {gid})"))
}

/// Sets the supplementary groups.
///
/// # Errors
/// `EPERM`, also where `/proc/self/setgroups` says `deny`.
pub fn set_groups(gids: &[u32]) -> Result<()> {
    let ids: Vec<Gid> = gids.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&ids).call(|| format!("setgroups({}, {gids:?})", gids.len()))
}
