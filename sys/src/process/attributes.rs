//! Attributes of the calling process: `prctl(2)`, session, priority, scheduling, names.
#![allow(unsafe_code)]
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result, check};

fn prctl(name: &str, option: libc::c_int, value: libc::c_ulong) -> Result<()> {
    // SAFETY: the options of this file take an integer and nothing else.
    let ret = unsafe { libc::prctl(option, value, 0, 0, 0) };
    check(libc::c_long::from(ret), || {
        format!("prctl({name}, {value})")
    })
    .map(drop)
}

/// Whether orphans below become children of the caller.
///
/// # Errors
/// Never on a sane kernel.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    prctl(
        "PR_SET_CHILD_SUBREAPER",
        libc::PR_SET_CHILD_SUBREAPER,
        on.into(),
    )
}

/// The signal that the caller gets when its parent thread ends; forgotten at `setuid` and by programs with more rights.
///
/// # Errors
/// Never on a sane kernel.
pub fn set_parent_death_signal(signal: Option<Signal>) -> Result<()> {
    let number = signal.map_or(0, |signal| signal as libc::c_int);
    prctl(
        "PR_SET_PDEATHSIG",
        libc::PR_SET_PDEATHSIG,
        libc::c_ulong::from(number.unsigned_abs()),
    )
}

/// Whether others of the same user may trace the caller and open its descriptors through procfs.
///
/// # Errors
/// Never on a sane kernel.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, on.into())
}

/// From now on no program gives more rights than its caller has. Cannot be undone.
///
/// # Errors
/// Never on a sane kernel.
pub fn set_no_new_privs() -> Result<()> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Whether permitted capabilities outlast the change from user id 0 to another.
///
/// # Errors
/// `EPERM` where securebits lock it.
pub fn set_keep_caps(on: bool) -> Result<()> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, on.into())
}

/// `setsid(2)`: a new session without terminal.
///
/// # Errors
/// `EPERM` where the caller leads a process group.
pub fn setsid() -> Result<Pid> {
    nix::unistd::setsid().call(|| "setsid()".to_owned())
}

/// `umask(2)`; returns the mask from before.
pub fn umask(mask: nix::sys::stat::Mode) -> nix::sys::stat::Mode {
    nix::sys::stat::umask(mask)
}

/// `sethostname(2)` in the caller's UTS namespace.
///
/// # Errors
/// `EPERM`, `EINVAL` for more than 64 bytes.
pub fn set_hostname(name: &str) -> Result<()> {
    nix::unistd::sethostname(name).call(|| format!("sethostname({name:?})"))
}

/// `setdomainname(2)` in the caller's UTS namespace.
///
/// # Errors
/// `EPERM`, `EINVAL` for more than 64 bytes.
pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length are of one live string; the kernel keeps nothing.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(libc::c_long::from(ret), || {
        format!("setdomainname({name:?})")
    })
    .map(drop)
}

/// `personality(2)`: the execution domain, such as `PER_LINUX32`.
///
/// # Errors
/// `EINVAL` for an unknown domain.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: one integer.
    let ret = unsafe { libc::personality(libc::c_ulong::from(domain)) };
    check(libc::c_long::from(ret), || {
        format!("personality({domain:#x})")
    })
    .map(drop)
}

/// The classes of `ioprio_set(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// First access, always.
    RealTime = 1,
    /// The usual.
    BestEffort = 2,
    /// Only when nobody else wants the disk.
    Idle = 3,
}

/// `ioprio_set(2)` for the calling process: `level` 0 (first) to 7 within the class.
///
/// # Errors
/// `EPERM` for the real-time class without capability, `EINVAL` for another level.
pub fn set_io_priority(class: IoClass, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = (class as libc::c_int) << 13 | libc::c_int::from(level);
    // SAFETY: three integers.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    check(ret, || {
        format!("ioprio_set(IOPRIO_WHO_PROCESS, 0, {class:?}, {level})")
    })
    .map(drop)
}

/// `struct sched_attr` of the kernel, see `sched_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Scheduler {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub period: u64,
}

impl Scheduler {
    /// Whether a child of a process with these attributes has them as well.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        const SCHED_DEADLINE: u32 = 6;
        const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
        self.policy != SCHED_DEADLINE && self.flags & SCHED_FLAG_RESET_ON_FORK == 0
    }
}

/// `sched_setattr(2)` for the calling process.
///
/// # Errors
/// `EPERM` for real-time policies without capability, `EINVAL` for values that do not fit the policy, `EBUSY` for a
/// deadline that cannot be promised.
pub fn set_scheduler(attributes: Scheduler) -> Result<()> {
    set_scheduler_of(Pid::from_raw(0), attributes)
}

/// [`set_scheduler`] for another process.
///
/// # Errors
/// As there, and `ESRCH`.
pub fn set_scheduler_of(pid: Pid, attributes: Scheduler) -> Result<()> {
    let size = u32::try_from(size_of::<Scheduler>())
        .map_err(|_| Error::new(Errno::E2BIG, "sched_setattr"))?;
    let raw = Scheduler { size, ..attributes };
    // SAFETY: `raw` is the kernel's struct in its first version, says its own size, and lives through the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const raw, 0) };
    check(ret, || format!("sched_setattr({pid}, {raw:?}, 0)")).map(drop)
}

/// `_exit(2)`: ends the process without running anything that its parent's memory has in store (destructors,
/// exit handlers, buffered output). For the child of a fork.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; nothing of this process is used afterwards.
    unsafe { libc::_exit(code) }
}
