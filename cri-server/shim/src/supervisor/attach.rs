//! `attach`: copies of a container's output for whoever asks, and its stdin.
//!
//! The log comes first. A client's pipe is written to without waiting; one that is full is closed, and so is one whose
//! reader left. Descriptors are handed over, so that input never passes through here.
use std::os::fd::{AsFd, OwnedFd};

use super::connections::ReplyTo;
use super::containers::Phase;
use super::output::Output;
use super::{Supervisor, Token, wire};
use crate::log::Source;
use crate::protocol::{Attach, Attached as Answer, ErrorKind, WireError};

/// The most clients of one container at once.
const ATTACHED_MAX: usize = 64;

/// A client's pipe.
#[derive(Debug)]
pub(super) struct Attached {
    serial: u64,
    pipe: OwnedFd,
}

impl Output {
    /// Gives `data` to every client; one that has no room for it is left behind for good, which beats a hole.
    pub(super) fn copy(&mut self, data: &[u8]) {
        self.attached.retain(|client| {
            sys::fd::write_some(&client.pipe, data).is_ok_and(|written| written == data.len())
        });
    }
}

impl Supervisor {
    pub(super) fn attach(
        &mut self,
        reply: ReplyTo,
        request: &Attach,
        fds: Vec<OwnedFd>,
    ) -> Result<(), WireError> {
        let id = &request.container_id;
        let invalid = |why: &str| wire(ErrorKind::Invalid, format!("attach \"{id}\": {why}"));
        let container = self.existing(id)?;
        let (serial, terminal) = (container.serial, container.terminal);
        let clients = container.stdout.attached.len() + container.stderr.attached.len();
        if container.phase == Phase::Creating {
            return Err(invalid("it is being created"));
        }
        if fds.len() != usize::from(request.stdout) + usize::from(request.stderr) {
            return Err(invalid(
                "not one descriptor for each output that is asked for",
            ));
        }
        if clients + fds.len() > ATTACHED_MAX {
            return Err(invalid("too many clients are attached already"));
        }
        // After its end there is nothing to hear: the pipes close at once.
        let ended = matches!(container.phase, Phase::Exited(_));
        let mut fds = fds.into_iter();
        for (asked, source) in [
            (request.stdout, Source::Stdout),
            (request.stderr, Source::Stderr),
        ] {
            if asked
                && let Some(pipe) = fds.next()
                && !ended
            {
                self.add_client(serial, source, pipe)
                    .map_err(|error| invalid(&error.to_string()))?;
            }
        }
        self.hand_out_stdin(reply, serial, request, terminal);
        Ok(())
    }

    fn add_client(&mut self, serial: u64, source: Source, pipe: OwnedFd) -> sys::Result<()> {
        let client = self.serial();
        let Some(container) = self.by_serial(serial) else {
            return Ok(());
        };
        if container.output(source).is_closed() {
            return Ok(());
        }
        sys::fd::set_nonblocking(&pipe)?;
        // Reported when the reader is gone.
        self.epoll.add(&pipe, Token::Attached(client).encode())?;
        if let Some(container) = self.by_serial(serial) {
            let serial = client;
            let attached = Attached { serial, pipe };
            container.output(source).attached.push(attached);
        }
        Ok(())
    }

    fn hand_out_stdin(&mut self, reply: ReplyTo, serial: u64, request: &Attach, terminal: bool) {
        let answer = serde_json::to_value(Answer { terminal })
            .map_err(|error| wire(ErrorKind::Internal, error.to_string()));
        let Some(container) = self.by_serial(serial) else {
            return;
        };
        let handed = if terminal {
            // Everybody gets it: whoever only looks may still resize.
            container
                .stdout
                .fd
                .as_ref()
                .and_then(|fd| fd.try_clone().ok())
        } else if request.stdin && request.stdin_once {
            container.stdin.take()
        } else if request.stdin {
            container.stdin.as_ref().and_then(|fd| fd.try_clone().ok())
        } else {
            None
        };
        let fds: Vec<_> = handed.iter().map(AsFd::as_fd).collect();
        self.reply_with(reply, answer, &fds);
    }

    /// A client's pipe has no reader any more.
    pub(super) fn detach(&mut self, serial: u64) {
        for container in &mut self.containers {
            for output in [&mut container.stdout, &mut container.stderr] {
                output.attached.retain(|client| client.serial != serial);
            }
        }
    }

    /// The container ended.
    pub(super) fn detach_all(&mut self, serial: u64) {
        if let Some(container) = self.by_serial(serial) {
            container.stdout.attached.clear();
            container.stderr.attached.clear();
        }
    }
}
