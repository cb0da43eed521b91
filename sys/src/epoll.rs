//! Waiting for many descriptors at once: epoll(7), level-triggered.
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll as NixEpoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::{Context, Error, Result};
use crate::fd::FdName;

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number given to [`Epoll::add`].
    pub token: u64,
    /// There is something to read, the end of the stream included.
    pub readable: bool,
    /// The other end is gone, or the descriptor failed.
    pub hangup: bool,
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub struct Epoll {
    inner: NixEpoll,
    events: Vec<EpollEvent>,
}

impl Epoll {
    /// An empty set, close-on-exec, that reports at most `batch` descriptors per wait.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new(batch: usize) -> Result<Self> {
        let inner = NixEpoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .call(|| "epoll_create1(EPOLL_CLOEXEC)".to_owned())?;
        Ok(Self {
            inner,
            events: vec![EpollEvent::empty(); batch.max(1)],
        })
    }

    /// Waits for `fd` to become readable from now on; `token` comes back with it.
    ///
    /// # Errors
    /// `EPERM` for a file that cannot be waited for (a regular file), `EEXIST` for one that is in the set.
    pub fn add(&self, fd: impl AsFd, token: u64) -> Result<()> {
        let fd = fd.as_fd();
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token);
        self.inner
            .add(fd, event)
            .call(|| format!("epoll_ctl(EPOLL_CTL_ADD, {})", FdName::of(fd)))
    }

    /// Takes `fd` out of the set. Closing does the same only when no other process holds the same open file,
    /// which is not so for an end that a child inherited.
    ///
    /// # Errors
    /// `ENOENT` where it is not in the set.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        let fd = fd.as_fd();
        self.inner
            .delete(fd)
            .call(|| format!("epoll_ctl(EPOLL_CTL_DEL, {})", FdName::of(fd)))
    }

    /// Waits until something is ready or `timeout` is over (`None`: for ever). A signal ends the wait with nothing ready.
    ///
    /// # Errors
    /// None in practice.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = Ready> + use<'_>> {
        let count = match self.inner.wait(&mut self.events, round_up(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::new(errno, format!("epoll_wait({timeout:?})"))),
        };
        Ok(self.events[..count].iter().map(|event| {
            let flags = event.events();
            Ready {
                token: event.data(),
                readable: flags.contains(EpollFlags::EPOLLIN),
                hangup: flags.intersects(
                    EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP,
                ),
            }
        }))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.inner.0.as_fd()
    }
}

impl From<Epoll> for OwnedFd {
    fn from(epoll: Epoll) -> Self {
        epoll.inner.0
    }
}

/// Milliseconds, rounded up: rounding down would make a loop spin until its deadline is reached.
fn round_up(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::{pipe, write_all};

    #[test]
    fn a_written_pipe_is_reported_under_its_token_and_its_end_as_hangup() {
        let mut epoll = Epoll::new(4).unwrap();
        let (read_end, write_end) = pipe().unwrap();
        epoll.add(&read_end, 7).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        write_all(&write_end, b"x").unwrap();
        let ready: Vec<Ready> = epoll.wait(None).unwrap().collect();
        assert_eq!(
            ready,
            [Ready {
                token: 7,
                readable: true,
                hangup: false
            }]
        );
        drop(write_end);
        let ready: Vec<Ready> = epoll.wait(None).unwrap().collect();
        assert_eq!(
            ready,
            [Ready {
                token: 7,
                readable: true,
                hangup: true
            }]
        );
        epoll.remove(&read_end).unwrap();
        assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap().count(), 0);
    }

    #[test]
    fn a_timeout_below_a_millisecond_still_waits() {
        assert_eq!(i32::from(round_up(Some(Duration::from_nanos(1)))), 1);
        assert_eq!(i32::from(round_up(Some(Duration::ZERO))), 0);
        assert_eq!(i32::from(round_up(None)), -1);
    }

    #[test]
    fn a_regular_file_cannot_be_waited_for_and_the_error_names_it() {
        let file = std::fs::File::open("/etc/passwd").unwrap();
        let error = Epoll::new(1).unwrap().add(&file, 1).unwrap_err();
        assert_eq!(error.errno, Errno::EPERM);
        assert!(error.call.contains("/etc/passwd"), "{error}");
    }
}
