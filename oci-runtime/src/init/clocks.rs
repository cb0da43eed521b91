//! A time namespace with clocks of its own, `time_namespaces(7)`.
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::Pid;
use sys::namespace::{self, CLONE_NEWTIME, NamespaceKind};

use super::protocol::{self, FromChild};
use crate::error::{Error, Result, Within};

/// Makes the namespace and enters it. In between the parent sets the clocks: they are fixed as soon as somebody is in.
///
/// # Errors
/// `EPERM`, or what the parent says.
pub(super) fn enter_new(socket: &OwnedFd) -> Result<()> {
    let within = || "linux.namespaces[time]".to_owned();
    // Only for children, at first.
    namespace::unshare(CLONE_NEWTIME).within(within)?;
    protocol::tell_parent(socket, &FromChild::SetClocks)?;
    protocol::hear_continue(socket)?;
    // The host's procfs: nothing is mounted yet.
    let path = Path::new("/proc/self/ns/time_for_children");
    let made = namespace::open(path, NamespaceKind::Time).within(within)?;
    namespace::setns(made, CLONE_NEWTIME).within(within)
}

/// The parent's part of it.
///
/// # Errors
/// `ERANGE` for an offset that no clock can have, `EACCES`.
pub fn set(pid: Pid, offsets: &str) -> Result<()> {
    let path = format!("/proc/{pid}/timens_offsets");
    std::fs::write(&path, offsets).map_err(|error| {
        let call = format!("write({path:?}, {offsets:?})");
        Error::from(sys::Error::from_io(&error, call)).within("linux.timeOffsets")
    })
}
