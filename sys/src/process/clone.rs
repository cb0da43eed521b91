//! `clone3(2)`: a child with its namespaces, its pidfd and its cgroup in one call.
#![allow(unsafe_code)]
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::error::{Error, Result, flag_names};
use crate::fd::FdName;
use crate::namespace::CLONE_NEWTIME;

/// What the child gets that a plain fork would not give it.
#[derive(Debug, Clone, Copy)]
pub struct CloneArgs<'a> {
    /// New namespaces.
    pub namespaces: CloneFlags,
    /// A cgroup v2 directory to be born in (`CLONE_INTO_CGROUP`, Linux 5.7): free of the wait that a later
    /// write into `cgroup.procs` costs.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a sibling: its parent is the caller's parent (`CLONE_PARENT`).
    pub sibling: bool,
}

impl Default for CloneArgs<'_> {
    fn default() -> Self {
        Self {
            namespaces: CloneFlags::empty(),
            cgroup: None,
            sibling: false,
        }
    }
}

/// A new process, as its parent has it.
#[derive(Debug)]
pub struct Child {
    /// Its id in the parent's pid namespace.
    pub pid: Pid,
    /// A descriptor that means this process and no later one with the same id.
    pub pidfd: OwnedFd,
}

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The parent.
    Parent(Child),
    /// The child.
    Child,
}

/// Makes a child process with copied memory.
///
/// For programs with one thread. In a program with several, the child holds copies of locks whose owners are gone:
/// there it may only make system calls and leave.
///
/// # Errors
/// `EPERM` for namespaces without the capability, `EBUSY`/`EINVAL` for a cgroup that takes no processes, `EAGAIN` at a limit.
pub fn clone3(args: &CloneArgs<'_>) -> Result<Forked> {
    let mut pidfd: RawFd = -1;
    let ret = match raw_clone3(args, &mut pidfd) {
        // An outer seccomp filter or an old kernel: the old call does all but the cgroup, and time namespaces, whose flag
        // is part of the exit signal there.
        Err(Errno::ENOSYS) if args.cgroup.is_none() && !args.namespaces.contains(CLONE_NEWTIME) => {
            raw_clone(args, &mut pidfd)
        }
        other => other,
    };
    match ret {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => {
            // SAFETY: CLONE_PIDFD made the kernel store a new descriptor here; nothing else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent(Child {
                pid: Pid::from_raw(pid),
                pidfd,
            }))
        }
        Err(errno) => {
            let cgroup = args.cgroup.map_or_else(String::new, |fd| {
                format!("|CLONE_INTO_CGROUP, cgroup={}", FdName::of(fd))
            });
            let flags = flag_names(&args.namespaces, "");
            Err(Error::new(
                errno,
                format!("clone3({{flags=CLONE_PIDFD|{flags}{cgroup}, exit_signal=SIGCHLD}})"),
            ))
        }
    }
}

/// A plain fork with a pidfd; as [`clone3`] for one thread.
///
/// # Errors
/// `EAGAIN` at a limit of processes.
pub fn fork() -> Result<Forked> {
    clone3(&CloneArgs::default())
}

fn flag_bits(args: &CloneArgs<'_>) -> u64 {
    let bits = u64::from(args.namespaces.bits().cast_unsigned())
        | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    if args.sibling {
        bits | u64::from(libc::CLONE_PARENT.cast_unsigned())
    } else {
        bits
    }
}

fn raw_clone3(args: &CloneArgs<'_>, pidfd: &mut RawFd) -> std::result::Result<libc::pid_t, Errno> {
    // From linux/sched.h; libc has it with a sign on some targets.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all-zero is a valid `clone_args`: integers only.
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = flag_bits(args);
    raw.pidfd = std::ptr::from_mut(pidfd).expose_provenance() as u64;
    // With CLONE_PARENT the exit signal is the caller's own.
    raw.exit_signal = if args.sibling {
        0
    } else {
        u64::from(libc::SIGCHLD.cast_unsigned())
    };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // SAFETY: no stack is given, so the child continues on a copy of this one as after fork; `raw` and the place for
    // the pidfd live through the call, and no memory is shared (no CLONE_VM).
    let ret = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const raw,
            size_of::<libc::clone_args>(),
        )
    };
    if ret < 0 {
        Err(Errno::last())
    } else {
        libc::pid_t::try_from(ret).map_err(|_| Errno::ERANGE)
    }
}

fn raw_clone(args: &CloneArgs<'_>, pidfd: &mut RawFd) -> std::result::Result<libc::pid_t, Errno> {
    let flags = flag_bits(args) | u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: as above; the pidfd goes where the parent's tid would. The last two arguments, whose order depends on the
    // architecture, are null for both.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            0_u64,
            std::ptr::from_mut(pidfd),
            0_u64,
            0_u64,
        )
    };
    if ret < 0 {
        Err(Errno::last())
    } else {
        libc::pid_t::try_from(ret).map_err(|_| Errno::ERANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait;

    #[test]
    fn a_child_is_born_with_a_pidfd_and_its_exit_code_is_read_through_it() {
        match fork().unwrap() {
            // SAFETY: the test harness has threads, so the child only leaves.
            Forked::Child => unsafe { libc::_exit(23) },
            Forked::Parent(child) => assert_eq!(wait(&child.pidfd).unwrap().code(), 23),
        }
    }

    #[test]
    fn a_refused_clone_names_its_flags() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let args = CloneArgs {
            cgroup: Some(std::os::fd::AsFd::as_fd(&file)),
            ..CloneArgs::default()
        };
        let error = clone3(&args).unwrap_err();
        assert!(error.call.contains("CLONE_INTO_CGROUP, cgroup="), "{error}");
    }
}
