//! Waiting for a program in the foreground: signals are passed on, orphans reaped, a terminal relayed.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use sys::process::Child;
use sys::signalfd::SignalFd;
use sys::tty::{self, RawMode};

use crate::error::{Error, Result};

/// Signals that are this program's own business.
const NOT_FORWARDED: [Signal; 3] = [Signal::SIGCHLD, Signal::SIGURG, Signal::SIGPIPE];

/// Catches every signal from here on, so that none gets lost between the birth of the program and the waiting.
///
/// # Errors
/// Too many open files.
pub(super) fn catch_signals() -> Result<SignalFd> {
    let all: Vec<Signal> = Signal::iterator()
        .filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
        // Faults of this program itself must stay deadly.
        .filter(|signal| {
            !matches!(
                signal,
                Signal::SIGSEGV
                    | Signal::SIGBUS
                    | Signal::SIGFPE
                    | Signal::SIGILL
                    | Signal::SIGTRAP
                    | Signal::SIGABRT
            )
        })
        .collect();
    Ok(SignalFd::block(&all)?)
}

/// The relay between our terminal and that of the program.
#[derive(Debug)]
pub(super) struct Relay {
    master: OwnedFd,
}

impl Relay {
    /// Receives the master of the program's terminal.
    ///
    /// # Errors
    /// Nothing came.
    pub(super) fn receive(socket: &OwnedFd) -> Result<Self> {
        let mut name = [0_u8; 128];
        let received = sys::socket::receive(socket, &mut name)?;
        let master = received
            .fds
            .into_iter()
            .next()
            .ok_or_else(|| Error::new("no terminal was sent"))?;
        let relay = Self { master };
        relay.copy_size();
        Ok(relay)
    }

    fn copy_size(&self) {
        let stdin = std::io::stdin();
        if tty::is_terminal(stdin.as_fd())
            && let Ok(size) = tty::window_size(stdin.as_fd())
        {
            // The program may have closed its terminal: then there is no size to set.
            drop(tty::set_window_size(&self.master, size));
        }
    }
}

/// Waits for the end of `child`. Returns its exit code.
///
/// # Errors
/// The waiting itself failed.
pub(super) fn wait(child: &Child, signals: &SignalFd, relay: Option<&Relay>) -> Result<u8> {
    let _raw = relay.and_then(|_| {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        tty::is_terminal(&stdin)
            .then(|| RawMode::enter(stdin).ok())
            .flatten()
    });
    let mut stdin_open = relay.is_some();
    let mut master_open = relay.is_some();
    loop {
        let stdin = std::io::stdin();
        let mut fds: Vec<BorrowedFd<'_>> = vec![child.pidfd.as_fd(), signals.as_fd()];
        let master = relay
            .filter(|_| master_open)
            .map(|relay| relay.master.as_fd());
        fds.extend(master);
        fds.extend(Some(stdin.as_fd()).filter(|_| stdin_open && master_open));
        let ready = sys::fd::wait_readable(&fds, -1)?;
        let is_ready = |index: usize| ready.get(index) == Some(&true);
        if is_ready(1) {
            forward(child, signals, relay)?;
        }
        if let Some(relay) = relay {
            if master_open && is_ready(2) {
                master_open = copy(&relay.master, std::io::stdout().as_fd());
            }
            if stdin_open && is_ready(3) {
                stdin_open = copy(stdin.as_fd(), relay.master.as_fd());
            }
        }
        if is_ready(0) {
            drain(relay.filter(|_| master_open));
            let exit = sys::process::wait(&child.pidfd)?;
            return Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX));
        }
    }
}

fn forward(child: &Child, signals: &SignalFd, relay: Option<&Relay>) -> Result<()> {
    while let Some(number) = signals.next()? {
        if number == Signal::SIGCHLD as i32 {
            reap_orphans(child)?;
        } else if number == Signal::SIGWINCH as i32 && relay.is_some() {
            relay.iter().for_each(|relay| relay.copy_size());
        } else if !NOT_FORWARDED.iter().any(|own| *own as i32 == number) {
            // It may have ended meanwhile; the next round sees that.
            drop(sys::process::pidfd_send_signal(&child.pidfd, number));
        }
    }
    Ok(())
}

/// Reaps whatever else became a child of ours, but not the one that we wait for: its exit code is read through its
/// descriptor.
fn reap_orphans(child: &Child) -> Result<()> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    loop {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::All, flags) {
            Ok(WaitStatus::StillAlive) | Err(_) => return Ok(()),
            Ok(status) => match status.pid() {
                Some(pid) if pid != child.pid => {
                    sys::process::wait_pid(pid)?;
                }
                _ => return Ok(()),
            },
        }
    }
}

/// Copies what is there; false at the end of the file.
fn copy(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0_u8; 32 * 1024];
    match sys::fd::read(from, &mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(count) => sys::fd::write_all(to, &buffer[..count]).is_ok(),
    }
}

/// The last words of a program that has ended already.
fn drain(relay: Option<&Relay>) {
    let Some(relay) = relay else { return };
    while sys::fd::wait_readable(&[relay.master.as_fd()], 0).is_ok_and(|ready| ready == [true]) {
        if !copy(&relay.master, std::io::stdout().as_fd()) {
            return;
        }
    }
}
