//! Between our terminal and that of the program, both ways, without ever waiting for either.
//!
//! Whoever does not read (a program under a big paste, a stopped pager on our side) must stop only its own direction:
//! signals still pass, the other direction flows, and what waits is bounded.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;
use sys::Errno;
use sys::fd::Interest;
use sys::tty::{self, RawMode};

use crate::error::{Error, Result};

/// How much waits in one direction.
const MAX_WAITING: usize = 32 * 1024;

/// The most that a terminal still holds when its program has ended.
const MAX_LAST_WORDS: usize = 256 * 1024;

/// How much is written at once where writing cannot be told not to wait: a pipe that is writable takes so much.
const CHUNK: usize = 4096;

/// The relay between our terminal and that of the program.
pub(super) struct Relay {
    master: OwnedFd,
    /// Our stdout, for writing that does not wait, where it is a terminal.
    screen: Option<OwnedFd>,
    typed: Flow,
    shown: Flow,
    /// Our terminal; has its old mode back when the relay ends, however it does.
    _raw: Option<RawMode>,
}

/// One direction: bytes that were read and not written yet.
struct Flow {
    waiting: Vec<u8>,
    /// Whether more may come.
    open: bool,
    /// Whether nobody takes it any more: then it is read and thrown away, so that its writer goes on.
    deaf: bool,
}

impl Flow {
    fn new() -> Self {
        Self {
            waiting: Vec::new(),
            open: true,
            deaf: false,
        }
    }

    fn has_room(&self) -> bool {
        self.open && self.waiting.len() < MAX_WAITING
    }

    /// Reads once.
    fn fill(&mut self, from: impl AsFd) {
        let room = MAX_WAITING.saturating_sub(self.waiting.len());
        let old = self.waiting.len();
        self.waiting.resize(old + room, 0);
        let count = match sys::fd::read(from, &mut self.waiting[old..]) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if error.errno == Errno::EAGAIN => Some(0),
            // EIO: nobody has the terminal open any more.
            Err(_) => None,
        };
        let kept = if self.deaf { 0 } else { count.unwrap_or(0) };
        self.waiting.truncate(old + kept);
        self.open = count.is_some();
    }

    /// Writes once, at most `most` bytes.
    fn empty(&mut self, to: impl AsFd, most: usize) {
        let some = self.waiting.len().min(most);
        match sys::fd::write_some(to, &self.waiting[..some]) {
            Ok(count) => drop(self.waiting.drain(..count)),
            Err(error) if error.errno == Errno::EAGAIN => {}
            Err(_) => {
                self.waiting.clear();
                self.deaf = true;
            }
        }
    }
}

/// Which of the relay's descriptors is what in [`Relay::interests`].
const STDIN: usize = 0;
const MASTER: usize = 1;
const STDOUT: usize = 2;

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
        sys::fd::set_nonblocking(&master)?;
        let relay = Self {
            master,
            screen: own_screen(),
            typed: Flow::new(),
            shown: Flow::new(),
            _raw: raw_mode(),
        };
        relay.copy_size();
        Ok(relay)
    }

    /// Gives the program's terminal the size of ours.
    pub(super) fn copy_size(&self) {
        let ours = [
            std::io::stdin().as_fd(),
            std::io::stdout().as_fd(),
            std::io::stderr().as_fd(),
        ]
        .into_iter()
        .find_map(|fd| tty::window_size(fd).ok());
        if let Some(size) = ours.filter(|size| size.rows > 0 && size.columns > 0) {
            // The program may have closed its terminal: then there is no size to set.
            drop(tty::set_window_size(&self.master, size));
        }
    }

    /// What the relay waits for: stdin, the program's terminal, stdout.
    pub(super) fn interests(&self) -> [Interest; 3] {
        let master = self.shown.open;
        [
            Interest {
                read: master && self.typed.has_room(),
                write: false,
            },
            Interest {
                read: self.shown.has_room(),
                write: master && !self.typed.waiting.is_empty(),
            },
            Interest {
                read: false,
                write: !self.shown.waiting.is_empty(),
            },
        ]
    }

    /// The descriptors of [`Relay::interests`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let stdin = sys::fd::standard(0);
        [stdin, self.master.as_fd(), self.stdout()]
    }

    fn stdout(&self) -> BorrowedFd<'_> {
        self.screen
            .as_ref()
            .map_or(sys::fd::standard(1), AsFd::as_fd)
    }

    /// Moves what can be moved now.
    pub(super) fn turn(&mut self, ready: &[Interest]) {
        let is = |index: usize| ready.get(index).copied().unwrap_or_default();
        if is(STDIN).read {
            self.typed.fill(sys::fd::standard(0));
        }
        if is(MASTER).write {
            self.typed.empty(&self.master, MAX_WAITING);
        }
        if is(MASTER).read {
            self.shown.fill(&self.master);
        }
        if is(STDOUT).write {
            self.show();
        }
    }

    fn show(&mut self) {
        let most = if self.screen.is_some() {
            MAX_WAITING
        } else {
            CHUNK
        };
        let to = match &self.screen {
            Some(screen) => screen.as_fd(),
            None => sys::fd::standard(1),
        };
        self.shown.empty(to, most);
    }

    /// The last words of a program that has ended: what is in its terminal now, shown as fast as our side takes it,
    /// unless `interrupt` becomes readable. What others still write there afterwards does not count.
    ///
    /// # Errors
    /// The waiting failed.
    pub(super) fn drain(mut self, interrupt: BorrowedFd<'_>) -> Result<()> {
        let mut left = MAX_LAST_WORDS;
        loop {
            while left > 0 && self.shown.has_room() {
                let before = self.shown.waiting.len();
                self.shown.fill(&self.master);
                match self.shown.waiting.len() - before {
                    0 => left = 0,
                    count => left = left.saturating_sub(count),
                }
            }
            if self.shown.waiting.is_empty() {
                return Ok(());
            }
            let ready = sys::fd::wait_for(&[
                (self.stdout(), Interest::WRITE),
                (interrupt, Interest::READ),
            ])?;
            if !ready.first().is_some_and(|one| one.write) {
                return Ok(());
            }
            self.show();
        }
    }
}

/// Puts our terminal into raw mode, if it is one: the program's does all that a terminal does.
fn raw_mode() -> Option<RawMode> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    tty::is_terminal(&stdin)
        .then(|| RawMode::enter(stdin).ok())
        .flatten()
}

/// A terminal on stdout opened anew: O_NONBLOCK on what we were given would change it for everybody who shares it.
fn own_screen() -> Option<OwnedFd> {
    if !tty::is_terminal(std::io::stdout()) {
        return None;
    }
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    sys::path::openat2(
        AT_FDCWD,
        Path::new("/proc/self/fd/1"),
        flags,
        Mode::empty(),
        ResolveFlag::empty(),
    )
    .ok()
}
