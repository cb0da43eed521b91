//! The outputs of a container: pipes or a terminal, read here and nowhere else.
//!
//! A read happens only when epoll or poll says that there is something, and nobody else reads, so blocking descriptors
//! never block us. A pipe's writing end is the container's, which keeps its usual blocking behaviour.
use std::os::fd::{AsFd, OwnedFd};

use super::attach::Attached;
use super::containers::{Container, Phase};
use super::words::keep_tail;
use super::{Supervisor, Token};
use crate::log::{LineSplitter, Source};

/// Reads in one go after the init ended; a grandchild that writes without end must not hold up the others.
const DRAIN_READS: usize = 64;

/// One output.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) fd: Option<OwnedFd>,
    /// Who else is told.
    pub(super) attached: Vec<Attached>,
    splitter: LineSplitter,
}

impl Output {
    /// At its end, or never there.
    pub(super) fn is_closed(&self) -> bool {
        self.fd.is_none()
    }
}

impl Container {
    pub(super) fn output(&mut self, source: Source) -> &mut Output {
        match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        }
    }
}

impl Supervisor {
    /// Reads `fd` as this output of the container from now on.
    pub(super) fn watch_output(
        &mut self,
        serial: u64,
        source: Source,
        fd: OwnedFd,
    ) -> sys::Result<()> {
        let token = match source {
            Source::Stdout => Token::Stdout(serial),
            Source::Stderr => Token::Stderr(serial),
        };
        self.epoll.add(&fd, token.encode())?;
        if let Some(container) = self.by_serial(serial) {
            container.output(source).fd = Some(fd);
        }
        Ok(())
    }

    /// An output is ready.
    pub(super) fn read_output(&mut self, serial: u64, source: Source) {
        if self.read_once(serial, source) {
            self.put_off(serial);
        } else {
            self.settle(serial, std::time::Instant::now());
        }
    }

    /// Logs one read; false at the end of the output.
    fn read_once(&mut self, serial: u64, source: Source) -> bool {
        let Some(container) = self
            .containers
            .iter_mut()
            .find(|container| container.serial == serial)
        else {
            return false;
        };
        let creating = container.phase == Phase::Creating;
        let output = match source {
            Source::Stdout => &mut container.stdout,
            Source::Stderr => &mut container.stderr,
        };
        let Some(fd) = &output.fd else { return false };
        match sys::fd::read(fd, &mut self.buffer) {
            Ok(count) if count > 0 => {
                let data = &self.buffer[..count];
                self.batch
                    .log(&mut container.log, source, &mut output.splitter, data);
                output.copy(data);
                if creating {
                    keep_tail(&mut container.early, data);
                }
                true
            }
            // A client that writes to the same terminal has made it non-blocking.
            Err(error) if error.errno == sys::Errno::EAGAIN => true,
            // A terminal that nobody holds open any more says EIO instead of the end.
            _ => {
                drop(self.epoll.remove(fd));
                output.fd = None;
                output.attached.clear();
                self.batch
                    .finish(&mut container.log, source, &mut output.splitter);
                false
            }
        }
    }

    /// Reads what is there, without waiting for more.
    pub(super) fn drain(&mut self, serial: u64) {
        for source in [Source::Stdout, Source::Stderr] {
            for _ in 0..DRAIN_READS {
                let Some(container) = self.by_serial(serial) else {
                    return;
                };
                let Some(fd) = &container.output(source).fd else {
                    break;
                };
                let ready =
                    sys::fd::wait_readable(&[fd.as_fd()], 0).is_ok_and(|ready| ready == [true]);
                if !ready || !self.read_once(serial, source) {
                    break;
                }
            }
        }
    }

    /// Logs unterminated lines: the exit is about to be told.
    pub(super) fn flush_output(&mut self, serial: u64) {
        let Some(container) = self
            .containers
            .iter_mut()
            .find(|container| container.serial == serial)
        else {
            return;
        };
        self.batch.finish(
            &mut container.log,
            Source::Stdout,
            &mut container.stdout.splitter,
        );
        self.batch.finish(
            &mut container.log,
            Source::Stderr,
            &mut container.stderr.splitter,
        );
    }

    /// Stops reading.
    pub(super) fn close_output(&mut self, serial: u64) {
        self.flush_output(serial);
        let Some(container) = self
            .containers
            .iter_mut()
            .find(|container| container.serial == serial)
        else {
            return;
        };
        for output in [&mut container.stdout, &mut container.stderr] {
            output.attached.clear();
            if let Some(fd) = output.fd.take() {
                // It was added by `watch_output`.
                drop(self.epoll.remove(&fd));
            }
        }
    }
}
