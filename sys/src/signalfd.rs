//! Signals as something to read: signalfd(2).
//!
//! Signals that are read this way must be blocked, and a blocked mask is inherited over `execve`: children are
//! started through [`crate::spawn`], which empties it.
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd as NixSignalFd};

use crate::error::{Context, Result};
use crate::fd::FdName;

/// A non-blocking, close-on-exec descriptor that becomes readable when one of its signals arrived.
#[derive(Debug)]
pub struct SignalFd(NixSignalFd);

impl SignalFd {
    /// Blocks `signals` for this thread and makes them readable. Threads started later inherit the mask; those
    /// that run already do not.
    ///
    /// # Errors
    /// Too many open files.
    pub fn block(signals: &[Signal]) -> Result<Self> {
        Self::of(signals.iter().copied().collect())
    }

    /// [`SignalFd::block`] for every signal but these, real-time ones included.
    ///
    /// # Errors
    /// Too many open files.
    pub fn block_all_but(signals: &[Signal]) -> Result<Self> {
        let mut mask = SigSet::all();
        signals.iter().for_each(|signal| mask.remove(*signal));
        Self::of(mask)
    }

    fn of(mask: SigSet) -> Result<Self> {
        mask.thread_block()
            .call(|| format!("sigprocmask(SIG_BLOCK, {mask:?})"))?;
        NixSignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .call(|| format!("signalfd4({mask:?}, SFD_CLOEXEC|SFD_NONBLOCK)"))
    }

    /// Takes the next signal's number; `None` when none is waiting. Equal signals that arrived close together
    /// may come as one.
    ///
    /// # Errors
    /// None in practice.
    pub fn next(&self) -> Result<Option<i32>> {
        let info = self
            .0
            .read_signal()
            .call(|| format!("read({})", FdName::of(&self.0)))?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_instead_of_delivered() {
        // The mask belongs to this thread alone, and so does a signal sent to it.
        let signals = SignalFd::block(&[Signal::SIGUSR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        assert_eq!(signals.next().unwrap(), Some(Signal::SIGUSR2 as i32));
        assert_eq!(signals.next().unwrap(), None);
    }
}
