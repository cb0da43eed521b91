//! Waiting for a program in the foreground: signals are passed on, orphans reaped, a terminal relayed.
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::Signal;
use sys::fd::Interest;
use sys::process::Child;
use sys::signalfd::SignalFd;

use super::notify::Proxy;
pub(super) use super::relay::Relay;
use crate::error::Result;

/// Signals that are this program's own business.
const NOT_FORWARDED: [Signal; 3] = [Signal::SIGCHLD, Signal::SIGURG, Signal::SIGPIPE];

/// Faults of this program itself, which must stay deadly.
const FAULTS: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
];

/// Catches every signal from here on, so that none gets lost between the birth of the program and the waiting.
///
/// # Errors
/// Too many open files.
pub(super) fn catch_signals() -> Result<SignalFd> {
    Ok(SignalFd::block_all_but(&FAULTS)?)
}

/// Waits for the end of `child`. Returns its exit code.
///
/// # Errors
/// The waiting itself failed.
pub(super) fn wait(
    child: &Child,
    signals: &SignalFd,
    mut relay: Option<Relay>,
    notify: Option<&Proxy>,
) -> Result<u8> {
    loop {
        let mut fds: Vec<(BorrowedFd<'_>, Interest)> = Vec::with_capacity(6);
        fds.push((child.pidfd.as_fd(), Interest::READ));
        fds.push((signals.as_fd(), Interest::READ));
        if let Some(relay) = &relay {
            fds.extend(relay.descriptors().into_iter().zip(relay.interests()));
        }
        let of_notify = fds.len();
        fds.extend(notify.map(|proxy| (proxy.as_fd(), Interest::READ)));
        let ready = sys::fd::wait_for(&fds)?;
        let is_ready = |index: usize| ready.get(index).is_some_and(|one| one.read);
        if is_ready(1) {
            forward(child, signals, relay.as_ref())?;
        }
        if let Some(relay) = &mut relay {
            relay.turn(&ready[2..of_notify]);
        }
        if let Some(proxy) = notify.filter(|_| is_ready(of_notify)) {
            proxy.pass_on();
        }
        if is_ready(0) {
            if let Some(relay) = relay {
                relay.drain(signals.as_fd())?;
            }
            let exit = sys::process::wait(&child.pidfd)?;
            return Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX));
        }
    }
}

fn forward(child: &Child, signals: &SignalFd, relay: Option<&Relay>) -> Result<()> {
    while let Some(number) = signals.next()? {
        if number == Signal::SIGCHLD as i32 {
            reap_orphans(child)?;
        } else if let Some(relay) = relay.filter(|_| number == Signal::SIGWINCH as i32) {
            relay.copy_size();
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
    while let Some(pid) = sys::process::peek_ended()? {
        if pid == child.pid {
            return Ok(());
        }
        sys::process::wait_pid(pid)?;
    }
    Ok(())
}
