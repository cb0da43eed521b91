//! A container that joins the pid namespace of another one: its first process gets its id there last.
//!
//! A process of the other container that may trace (CAP_SYS_PTRACE) reaches everything of whatever has an id in its
//! namespace, and a first process on its way has the host's root and rights. So, as for `exec`, an intermediate that
//! nobody inside can name does the whole setup, and its last act is to make the first process as its sibling:
//!
//! ```text
//! parent                              intermediate                     the first process
//!   ── Go, hooks, … ───────────────▶  steps 1 to 19
//!   takes it for the first process ◀─ Pid ── clone3(CLONE_PARENT) ──▶  waits
//!   ── Go ────────────────────────────────────────────────────────▶  session, terminal
//!                                                             ◀ Ready  …
//! ```
//! A procfs for a pid namespace that its maker is not in needs Linux 6.18. Before that, and where a user namespace is
//! involved, the first process is born in the other container's pid namespace at once, as with other runtimes.
use std::os::fd::{AsRawFd, OwnedFd};

use sys::mount::FsContext;
use sys::namespace::NamespaceKind;
use sys::process::Child;

use super::protocol::{self, ToChild};
use super::{console, exec_child};
use crate::error::{Error, Result};
use crate::plan::{MountSource, Plan};
use crate::state::State;

/// The option of procfs that names its pid namespace.
const OPTION: &str = "pidns";

/// Whether the first process of this container may be born late.
pub fn is_possible(plan: &Plan, joined: &[(NamespaceKind, OwnedFd)]) -> bool {
    let namespaces = &plan.namespaces;
    let Some((_, pid)) = joined.iter().find(|(kind, _)| *kind == NamespaceKind::Pid) else {
        return false;
    };
    let inherited = plan
        .process
        .scheduler
        .is_none_or(|scheduler| scheduler.is_inherited());
    let takes_option =
        || FsContext::open("proc").is_ok_and(|context| context.set_fd(OPTION, pid).is_ok());
    inherited
        && !namespaces.has(NamespaceKind::User)
        && (!plan.mounts.iter().any(is_proc) || takes_option())
}

fn is_proc(mount: &crate::plan::MountPlan) -> bool {
    matches!(&mount.source, MountSource::New { fs_type, .. } if fs_type == "proc")
}

/// The plan with every procfs showing the namespace behind `pid`, not the one of its maker.
pub(super) fn adapt(plan: &Plan, pid: &OwnedFd) -> Plan {
    let mut plan = plan.clone();
    let option = format!("{OPTION}=/proc/self/fd/{}", pid.as_raw_fd());
    for mount in plan.mounts.iter_mut().filter(|mount| is_proc(mount)) {
        mount.options.data.push(option.clone());
    }
    plan
}

/// Continues as the first process, a child of the same parent.
///
/// # Errors
/// A limit of processes; the parent has ended.
pub(super) fn be_born(socket: &OwnedFd, state: &mut State, terminal: bool) -> Result<()> {
    exec_child::be_born(socket, "making the first process")?;
    let ToChild::Go(_) = protocol::hear_parent(socket)? else {
        return Err(Error::new("expected Go"));
    };
    // As the hooks in the container see it.
    state.pid = nix::unistd::getpid().as_raw();
    sys::process::setsid()?;
    if terminal {
        console::take_control()?;
    }
    Ok(())
}

/// The parent's side: what an intermediate has made is the first process from here on.
///
/// # Errors
/// It is gone.
pub fn adopt(pid: i32, intermediate: &Child, state: &mut State) -> Result<Child> {
    let pid = sys::Pid::from_raw(pid);
    // Ours to reap, so the number means no other process.
    let pidfd = sys::process::pidfd_open(pid)?;
    // It has nothing left to do but to end, and how it does means nothing.
    drop(sys::process::wait(&intermediate.pidfd));
    state.pid = pid.as_raw();
    state.start_time = sys::process::start_time(pid)?;
    Ok(Child { pid, pidfd })
}
