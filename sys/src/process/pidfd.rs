//! Signalling and reaping.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result, check};
use crate::fd::FdName;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It left with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code as shells give it: 128 + the number of the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// What `waitid(2)` tells of an ended child; `None` where it found none. Not through an enum of signals: a
    /// real-time signal has no name, and the child is reaped by now.
    fn of(info: &libc::siginfo_t) -> Option<(Pid, Self)> {
        // SAFETY: waitid fills these two fields, or leaves the zeroes that they were given.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let exit = match info.si_code {
            libc::CLD_EXITED => Self::Code(status),
            libc::CLD_KILLED | libc::CLD_DUMPED => Self::Signal(status),
            _ => return None,
        };
        Some((Pid::from_raw(pid), exit))
    }
}

/// `waitid(2)` for children that have ended; `None` where `flags` say not to wait and none has.
fn waitid(
    kind: libc::idtype_t,
    id: libc::id_t,
    flags: libc::c_int,
) -> std::result::Result<Option<(Pid, Exit)>, Errno> {
    // SAFETY: plain data, for which all zeroes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid and lives through the call.
    let ret = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) };
    Errno::result(ret).map(|_| Exit::of(&info))
}

/// `pidfd_getfd(2)` (Linux 5.6): a copy of the descriptor `number` of another process, close-on-exec.
///
/// # Errors
/// `EBADF` where that process has none with this number, `EPERM` where it may not be traced.
pub fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> Result<OwnedFd> {
    let pidfd = pidfd.as_fd();
    // SAFETY: three integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let text = || format!("pidfd_getfd({}, {number}, 0)", FdName::of(pidfd));
    let fd = RawFd::try_from(check(ret, text)?).map_err(|_| Error::new(Errno::EBADF, text()))?;
    // SAFETY: the kernel returned a new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits for one certain child, whatever signals come.
fn wait_for(kind: libc::idtype_t, id: i32, text: impl Fn() -> String) -> Result<Exit> {
    let id = libc::id_t::try_from(id).map_err(|_| Error::new(Errno::EINVAL, text()))?;
    loop {
        match waitid(kind, id, 0) {
            Err(Errno::EINTR) => {}
            other => {
                if let Some((_, exit)) = other.call(&text)? {
                    return Ok(exit);
                }
            }
        }
    }
}

/// A child that has ended already, if there is one.
fn any_ended(flags: libc::c_int, text: &str) -> Result<Option<(Pid, Exit)>> {
    loop {
        match waitid(libc::P_ALL, 0, libc::WNOHANG | flags) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            other => return other.call(|| text.to_owned()),
        }
    }
}

/// `pidfd_open(2)` (Linux 5.3).
///
/// # Errors
/// `ESRCH` where there is no such process.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    let text = || format!("pidfd_open({pid}, 0)");
    // SAFETY: two integers; the result is owned below.
    let ret = check(
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) },
        text,
    )?;
    let fd = RawFd::try_from(ret).map_err(|_| Error::new(Errno::EBADF, text()))?;
    // SAFETY: the kernel returned this new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `pidfd_send_signal(2)` with any signal number, real-time ones too; 0 only asks whether it would work.
///
/// # Errors
/// `ESRCH` where the process has ended.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let pidfd = pidfd.as_fd();
    // SAFETY: integers and a null pointer, which means "as kill(2) would".
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(ret, || {
        format!(
            "pidfd_send_signal({}, {}, NULL, 0)",
            FdName::of(pidfd),
            signal_name(signal)
        )
    })
    .map(drop)
}

/// `kill(2)` with a named signal.
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn kill(pid: Pid, signal: Signal) -> Result<()> {
    nix::sys::signal::kill(pid, signal).call(|| format!("kill({pid}, {signal})"))
}

/// `kill(2)` with any signal number, real-time ones too.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EINVAL` for a number that is no signal.
pub fn send_signal(pid: Pid, signal: i32) -> Result<()> {
    // SAFETY: two integers.
    let ret = unsafe { libc::kill(pid.as_raw(), signal) };
    check(libc::c_long::from(ret), || {
        format!("kill({pid}, {})", signal_name(signal))
    })
    .map(drop)
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal)
        .map_or_else(|_| signal.to_string(), |signal| signal.as_str().to_owned())
}

/// Waits for the end of the child behind `pidfd` and reaps it.
///
/// # Errors
/// `ECHILD` where it is not a child or was reaped already.
pub fn wait(pidfd: impl AsFd) -> Result<Exit> {
    let pidfd = pidfd.as_fd();
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), || {
        format!("waitid(P_PIDFD, {}, WEXITED)", FdName::of(pidfd))
    })
}

/// Waits for the end of the child `pid` and reaps it.
///
/// # Errors
/// `ECHILD` where it is not a child or was reaped already.
pub fn wait_pid(pid: Pid) -> Result<Exit> {
    wait_for(libc::P_PID, pid.as_raw(), || {
        format!("waitid(P_PID, {pid}, WEXITED)")
    })
}

/// Reaps one child that has ended, if there is one, without waiting.
///
/// # Errors
/// Never for "no children at all": that is `None`, as "none has ended" is.
pub fn reap_any() -> Result<Option<(Pid, Exit)>> {
    any_ended(0, "waitid(P_ALL, WEXITED|WNOHANG)")
}

/// A child that has ended and waits to be reaped, if there is one; it stays so, and /proc still tells of it.
///
/// # Errors
/// Never for "no children at all": that is `None`, as "none has ended" is.
pub fn peek_ended() -> Result<Option<Pid>> {
    let ended = any_ended(libc::WNOWAIT, "waitid(P_ALL, WEXITED|WNOHANG|WNOWAIT)")?;
    Ok(ended.map(|(pid, _)| pid))
}

/// Waits until any child has ended and reaps it; `None` where there are no children.
///
/// # Errors
/// `EINTR` where a signal handler ran, so that the caller may look at its signals.
pub fn wait_any() -> Result<Option<(Pid, Exit)>> {
    loop {
        match waitid(libc::P_ALL, 0, 0) {
            Err(Errno::ECHILD) => return Ok(None),
            other => {
                if let Some(ended) = other.call(|| "waitid(P_ALL, WEXITED)".to_owned())? {
                    return Ok(Some(ended));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_zero_asks_whether_the_process_lives() {
        let pidfd = pidfd_open(Pid::this()).unwrap();
        pidfd_send_signal(&pidfd, 0).unwrap();
    }

    #[test]
    fn a_missing_process_is_esrch_with_its_id() {
        let error = pidfd_open(Pid::from_raw(4_194_303)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pidfd_open(4194303, 0): no such process (ESRCH)"
        );
    }

    #[test]
    fn a_killed_child_counts_as_128_plus_signal() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let pidfd = pidfd_open(pid).unwrap();
        pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
        let exit = wait(&pidfd).unwrap();
        assert_eq!((exit, exit.code()), (Exit::Signal(libc::SIGKILL), 137));
        assert_eq!(
            pidfd_send_signal(&pidfd, 0).unwrap_err().errno,
            Errno::ESRCH
        );
        // Reaped above: std learns that there is nothing to wait for.
        drop(child.try_wait());
    }

    // No test waits for *any* child: the tests beside it have children of their own.
    #[test]
    fn a_child_killed_by_a_real_time_signal_counts_as_128_plus_signal() {
        for by_pidfd in [true, false] {
            let mut child = std::process::Command::new("sleep")
                .arg("1000")
                .spawn()
                .unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let pidfd = pidfd_open(pid).unwrap();
            let signal = libc::SIGRTMIN() + 3;
            send_signal(pid, signal).unwrap();
            let exit = if by_pidfd {
                wait(&pidfd)
            } else {
                wait_pid(pid)
            };
            let exit = exit.unwrap();
            assert_eq!((exit, exit.code()), (Exit::Signal(signal), 128 + 37));
            assert_eq!(wait_pid(pid).unwrap_err().errno, Errno::ECHILD);
            // Reaped above: std learns that there is nothing to wait for.
            drop(child.try_wait());
        }
    }

    #[test]
    fn a_child_that_leaves_gives_its_code() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert_eq!(wait_pid(pid).unwrap(), Exit::Code(7));
        drop(child.try_wait());
    }
}
