//! Signalling and reaping.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus};
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

    fn of(status: WaitStatus) -> Option<(Pid, Self)> {
        match status {
            WaitStatus::Exited(pid, code) => Some((pid, Self::Code(code))),
            WaitStatus::Signaled(pid, signal, _) => Some((pid, Self::Signal(signal as i32))),
            _ => None,
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
    let text = || format!("waitid(P_PIDFD, {}, WEXITED)", FdName::of(pidfd));
    loop {
        match nix::sys::wait::waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            other => {
                if let Some((_, exit)) = Exit::of(other.call(text)?) {
                    return Ok(exit);
                }
            }
        }
    }
}

/// Waits for the end of the child `pid` and reaps it.
///
/// # Errors
/// `ECHILD` where it is not a child or was reaped already.
pub fn wait_pid(pid: Pid) -> Result<Exit> {
    loop {
        match nix::sys::wait::waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => {
                if let Some((_, exit)) = Exit::of(other.call(|| format!("waitpid({pid})"))?) {
                    return Ok(exit);
                }
            }
        }
    }
}

/// Reaps one child that has ended, if there is one, without waiting.
///
/// # Errors
/// Never for "no children at all": that is `None`, as "none has ended" is.
pub fn reap_any() -> Result<Option<(Pid, Exit)>> {
    loop {
        match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) | Ok(WaitStatus::StillAlive) => return Ok(None),
            other => {
                if let Some(ended) = Exit::of(other.call(|| "waitpid(-1, WNOHANG)".to_owned())?) {
                    return Ok(Some(ended));
                }
            }
        }
    }
}

/// A child that has ended and waits to be reaped, if there is one; it stays so, and /proc still tells of it.
///
/// # Errors
/// Never for "no children at all": that is `None`, as "none has ended" is.
pub fn peek_ended() -> Result<Option<Pid>> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match nix::sys::wait::waitid(Id::All, flags) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(None),
            other => {
                return Ok(other
                    .call(|| "waitid(P_ALL, WEXITED|WNOHANG|WNOWAIT)".to_owned())?
                    .pid());
            }
        }
    }
}

/// Waits until any child has ended and reaps it; `None` where there are no children.
///
/// # Errors
/// `EINTR` where a signal handler ran, so that the caller may look at its signals.
pub fn wait_any() -> Result<Option<(Pid, Exit)>> {
    loop {
        match nix::sys::wait::waitpid(None, None) {
            Err(Errno::ECHILD) => return Ok(None),
            other => {
                if let Some(ended) = Exit::of(other.call(|| "waitpid(-1)".to_owned())?) {
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
}
