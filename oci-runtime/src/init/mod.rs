//! The first process of a container, and processes that `exec` adds: everything before their program runs.
//!
//! ```text
//! parent (create, run, exec)                 child
//!   clone3 ────────────────────────────────▶ waits
//!   id maps, oom_score_adj, network devices
//!   ── Go ─────────────────────────────────▶ cgroups, namespaces, mounts, devices
//!   sources of mounts              ◀──────── OpenSource      (only id-mapped ones, and what its users may not reach)
//!   ── a descriptor ───────────────────────▶
//!   clocks                         ◀──────── SetClocks       (only for a time namespace with offsets)
//!   ── Continue ───────────────────────────▶
//!   prestart, createRuntime hooks  ◀──────── RunHooks        (only where there are such hooks)
//!   ── Continue ───────────────────────────▶ createContainer hooks, pivot_root
//!   rlimits                        ◀──────── SetLimits       (only where the child lacks the rights)
//!   ── Continue ───────────────────────────▶ ids, capabilities
//!   state, pid file                ◀──────── Ready           (or Failed, at any moment)
//!   returns                                  waits at the gate, then startContainer hooks, execve
//! ```
//! Either side sees the end of the other as the end of the socket.
pub mod bare_namespace;
mod cgroup_mount;
pub mod child;
pub mod clocks;
pub mod console;
mod copyup;
mod devices;
pub mod exec_child;
mod filesystems;
mod filter;
mod furnished;
mod identity;
pub mod idmaps;
pub mod late_birth;
pub mod late_mounts;
pub mod lsm;
mod mounts;
pub mod net_devices;
mod program;
pub mod protocol;
pub mod restored_root;
mod rootfs;
mod shared_mounts;
pub mod sources;
pub mod spawn;

use std::os::fd::{OwnedFd, RawFd};

pub use filter::{allows_doorkeeper, allows_doorkeeper_in_exec};
use sys::cgroup::Joiner;

use crate::plan::ProcessPlan;
use crate::seccomp::SeccompPlan;

/// Descriptors of the caller that the program gets: 3 and up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preserved {
    /// How many the service manager passed (`LISTEN_FDS`).
    pub listen: u16,
    /// How many `--preserve-fds` asks for, after those.
    pub extra: u16,
}

impl Preserved {
    /// The first number that the program does not get.
    pub fn end(self) -> i32 {
        3 + i32::from(self.listen) + i32::from(self.extra)
    }
}

/// What both kinds of processes get from their parent.
#[derive(Debug)]
pub struct Inherited<'a> {
    /// The process.
    pub process: &'a ProcessPlan,
    /// The connection to the parent.
    pub socket: OwnedFd,
    /// The number of the parent's own end, of which the child has a copy: until it is closed, neither side sees the end
    /// of the other.
    pub parent_end: RawFd,
    /// What takes it into the cgroups.
    pub joiner: Option<Joiner>,
    /// Where the terminal goes.
    pub console: Option<OwnedFd>,
    /// Descriptors of the caller that the program gets.
    pub preserved: Preserved,
    /// The filter of its system calls.
    pub seccomp: Option<&'a SeccompPlan>,
    /// The name of a new session keyring, if there is to be one.
    pub keyring: Option<std::ffi::CString>,
}
