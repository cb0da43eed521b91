//! Linux system calls with safe signatures: the only crate that contains unsafe code.
//!
//! Every wrapper takes borrowed descriptors, returns owned ones, forces close-on-exec, and keeps each
//! operand in its error, so that a message reads like a line of strace.

pub mod cgroup;
pub mod creds;
pub mod epoll;
pub mod error;
pub mod failpoint;
pub mod fd;
pub mod fs;
pub mod link;
pub mod lsm;
pub mod memory;
pub mod mount;
pub mod mount_namespace;
pub mod mountinfo;
pub mod namespace;
pub mod netns;
pub mod path;
pub mod process;
pub mod regex;
pub mod resctrl;
pub mod rtnetlink;
pub mod seccomp;
pub mod signalfd;
pub mod socket;
pub mod spawn;
pub mod tty;

pub use error::{Error, Result};

/// The vocabulary of these wrappers, so that their callers need not name the crate it comes from.
pub use nix::{
    errno::Errno,
    mount::MntFlags,
    sched::CloneFlags,
    sys::{signal::Signal, stat::Mode},
    unistd::Pid,
};
