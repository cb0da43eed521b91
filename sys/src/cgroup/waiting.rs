//! Waiting without sleeping blindly: v2 tells by `cgroup.events` when a cgroup froze or emptied, and v1, which cannot
//! tell, is asked again after 1 to 10 ms, up to a deadline.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Error, Result, file};

/// Waits until `key` in `cgroup.events` is `value`; false at the deadline. A cgroup that is gone has no events left.
pub(super) fn wait_for_event(dir: &Path, key: &str, value: u64, deadline: Instant) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let Ok(events) = File::open(&path) else {
        return Ok(true);
    };
    loop {
        // Reading also re-arms the notification.
        match file::read_again(&events) {
            Ok(text) if file::find_key(&text, key) == Some(value) => return Ok(true),
            Ok(_) => {}
            Err(Errno::ENODEV | Errno::ENOENT) => return Ok(true),
            Err(errno) => return Err(Error::call("read", &path, errno)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            timeout,
        ) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::call("poll", &path, errno)),
        }
    }
}

/// Pauses that grow from 1 to 10 ms.
#[derive(Default)]
pub(super) struct Pause {
    taken: u64,
}

impl Pause {
    /// Pauses, unless the deadline has passed.
    pub(super) fn before(&mut self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        self.taken += 1;
        std::thread::sleep(Duration::from_millis(self.taken.min(10)));
        true
    }
}
