//! The blocking client of a shim: std only, one outstanding request per [`Client`].
//!
//! A client may be opened for each operation: connecting costs two system calls. Long operations should have a
//! connection of their own, since a `Client` waits for each reply.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sys::{Errno, socket};

use crate::protocol::{
    Attach, Attached, Create, Created, Empty, ErrorKind, Event, Exec, ExecStarted, Hello,
    MAX_PACKET, Message, Op, Request, Signalled, Status, VERSION, WireError, encode,
};

/// How long a reply may take by default: longer than the shim gives an OCI runtime, so that its message arrives.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(240);

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No shim listens there. `ENOENT`: none was started or it shut down. `ECONNREFUSED`: it died.
    #[error("shim {}: not reachable", path.display())]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// What the kernel says.
        source: sys::Error,
    },
    /// The connection failed in the middle of an operation: whether the shim did it is unknown, `status` tells.
    #[error("shim {}: {op}", path.display())]
    Transport {
        /// Its socket.
        path: PathBuf,
        /// The operation's name.
        op: &'static str,
        /// What the kernel says.
        source: sys::Error,
    },
    /// The shim closed the connection: it ended, or dropped a subscriber that did not read.
    #[error("shim {}: {op}: the connection was closed", path.display())]
    Closed {
        /// Its socket.
        path: PathBuf,
        /// The operation's name.
        op: &'static str,
    },
    /// No reply in time.
    #[error("shim {}: {op}: no reply within {timeout:?}", path.display())]
    NoReply {
        /// Its socket.
        path: PathBuf,
        /// The operation's name.
        op: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// What came is not the protocol.
    #[error("shim {}: {op}: unintelligible reply", path.display())]
    Decode {
        /// Its socket.
        path: PathBuf,
        /// The operation's name.
        op: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The request does not fit in a packet.
    #[error("{op}: the request is larger than {MAX_PACKET} bytes")]
    TooLarge {
        /// The operation's name.
        op: &'static str,
    },
    /// The shim is older than the oldest version that this client knows.
    #[error("shim {}: it speaks version {theirs}, this client version {VERSION}", path.display())]
    Version {
        /// Its socket.
        path: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// The shim refused; the message says why.
    #[error("{}", .0.message)]
    Refused(WireError),
}

impl Error {
    /// The kind that the shim gave; `None` for errors on the way.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(error) => Some(error.kind),
            _ => None,
        }
    }

    /// Whether there is no shim at this path any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Closed { .. })
    }
}

/// A connection to one shim.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    path: PathBuf,
    seq: u64,
    timeout: Duration,
    hello: Hello,
}

// === impl Client ===

impl Client {
    /// Connects to the shim at `path` and learns its version.
    ///
    /// # Errors
    /// [`Error::Connect`] where none listens, [`Error::Version`] where it is too old.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        Self::connect_within(path, DEFAULT_TIMEOUT)
    }

    /// As [`Client::connect`], with a time limit for this and every later reply.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`Error::NoReply`].
    pub fn connect_within(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let connected = socket::connect_within(path, socket::Kind::SeqPacket, Some(timeout));
        let fd = connected.map_err(|source| match source.errno {
            Errno::EAGAIN => Error::NoReply {
                path: path.to_owned(),
                op: "connect",
                timeout,
            },
            _ => Error::Connect {
                path: path.to_owned(),
                source,
            },
        })?;
        let hello = Hello {
            version: 0,
            pid: 0,
            pod_id: String::new(),
        };
        let mut client = Self {
            fd,
            path: path.to_owned(),
            seq: 0,
            timeout,
            hello,
        };
        client.hello = client.call("hello", Op::Hello { version: VERSION }, &[])?;
        if client.hello.version == 0 {
            return Err(Error::Version {
                path: client.path,
                theirs: client.hello.version,
            });
        }
        Ok(client)
    }

    /// What the shim said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The time limit for later replies.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Creates a container.
    ///
    /// # Errors
    /// `runtime` with the OCI runtime's message, `already_exists`, `timeout`, `invalid`.
    pub fn create(&mut self, create: Create) -> Result<Created, Error> {
        self.call("create", Op::Create(create), &[])
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// `runtime` with the OCI runtime's message, `not_found`, `timeout`.
    pub fn start(&mut self, container_id: &str) -> Result<(), Error> {
        self.done(
            "start",
            Op::Start {
                container_id: container_id.to_owned(),
            },
        )
    }

    /// Signals the init of a container, or all its processes. Returns whether a process was there.
    ///
    /// # Errors
    /// `not_found`, `invalid` for an unknown signal number.
    pub fn signal(&mut self, container_id: &str, signal: i32, all: bool) -> Result<bool, Error> {
        let op = Op::Signal {
            container_id: container_id.to_owned(),
            signal,
            all,
        };
        self.call::<Signalled>("signal", op, &[])
            .map(|answer| answer.delivered)
    }

    /// Deletes a container; an unknown one is no error.
    ///
    /// # Errors
    /// `runtime`: it still runs and `force` is false, or the runtime could not clean up.
    pub fn delete(&mut self, container_id: &str, force: bool) -> Result<(), Error> {
        self.done(
            "delete",
            Op::Delete {
                container_id: container_id.to_owned(),
                force,
            },
        )
    }

    /// Runs a program in a container. `stdio` is stdin, stdout, stderr, or only the last two.
    ///
    /// # Errors
    /// `runtime` with the OCI runtime's message, `not_found`, `invalid` when the container does not run.
    pub fn exec(&mut self, exec: Exec, stdio: &[BorrowedFd<'_>]) -> Result<ExecStarted, Error> {
        self.call("exec", Op::Exec(exec), stdio)
    }

    /// Runs a program in a container with a terminal, whose master is the answer.
    ///
    /// # Errors
    /// As [`Client::exec`]; an old shim refuses with `invalid`.
    pub fn exec_with_terminal(&mut self, exec: Exec) -> Result<(ExecStarted, OwnedFd), Error> {
        let (started, fds) = self.call_for_fds("exec", Op::Exec(exec), &[])?;
        match fds.into_iter().next() {
            Some(master) => Ok((started, master)),
            None => Err(Error::Refused(WireError {
                kind: ErrorKind::Internal,
                message: "exec: the shim sent no terminal".into(),
            })),
        }
    }

    /// Attaches to a container; `pipes` are the writing ends for what is asked for: stdout, then stderr. The answer
    /// is its stdin, or its terminal.
    ///
    /// # Errors
    /// `not_found`; an old shim refuses with `invalid`.
    pub fn attach(
        &mut self,
        attach: Attach,
        pipes: &[BorrowedFd<'_>],
    ) -> Result<(Attached, Option<OwnedFd>), Error> {
        let (attached, fds) = self.call_for_fds("attach", Op::Attach(attach), pipes)?;
        Ok((attached, fds.into_iter().next()))
    }

    /// Kills an exec with everything that it started.
    ///
    /// # Errors
    /// `not_found` for an exec that was never started or ended long ago.
    pub fn kill_exec(&mut self, container_id: &str, exec_id: &str) -> Result<(), Error> {
        self.done(
            "kill_exec",
            Op::KillExec {
                container_id: container_id.to_owned(),
                exec_id: exec_id.to_owned(),
            },
        )
    }

    /// Changes resources; `resources_path` holds an OCI `linux.resources` object.
    ///
    /// # Errors
    /// `runtime` with the OCI runtime's message, `not_found`.
    pub fn update(&mut self, container_id: &str, resources_path: &Path) -> Result<(), Error> {
        let op = Op::Update {
            container_id: container_id.to_owned(),
            resources_path: resources_path.to_owned(),
        };
        self.done("update", op)
    }

    /// Opens the log file again; returns when the new one is open.
    ///
    /// # Errors
    /// `not_found`, `invalid` for an exited container.
    pub fn reopen_log(&mut self, container_id: &str) -> Result<(), Error> {
        self.done(
            "reopen_log",
            Op::ReopenLog {
                container_id: container_id.to_owned(),
            },
        )
    }

    /// Tells what runs.
    ///
    /// # Errors
    /// Only those of the connection.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.call("status", Op::Status {}, &[])
    }

    /// Ends the shim. When this returns its files and pinned namespaces are gone.
    ///
    /// # Errors
    /// `invalid` while containers run and `force` is false.
    pub fn shutdown(&mut self, force: bool) -> Result<(), Error> {
        self.done("shutdown", Op::Shutdown { force })
    }

    /// Turns this connection into a stream of events.
    ///
    /// # Errors
    /// Only those of the connection.
    pub fn subscribe(mut self) -> Result<EventStream, Error> {
        self.done("subscribe", Op::Subscribe {})?;
        Ok(EventStream { client: self })
    }

    fn done(&mut self, name: &'static str, op: Op) -> Result<(), Error> {
        self.call::<Empty>(name, op, &[]).map(drop)
    }

    /// One request and its reply.
    fn call<T: DeserializeOwned>(
        &mut self,
        op_name: &'static str,
        op: Op,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, Error> {
        self.call_for_fds(op_name, op, fds)
            .map(|(answer, _)| answer)
    }

    /// The same, with the descriptors that the reply carries.
    fn call_for_fds<T: DeserializeOwned>(
        &mut self,
        op_name: &'static str,
        op: Op,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(T, Vec<OwnedFd>), Error> {
        self.seq += 1;
        let packet =
            encode(&Request { seq: self.seq, op }).ok_or(Error::TooLarge { op: op_name })?;
        socket::send(&self.fd, &packet, fds).map_err(|source| match source.errno {
            Errno::EPIPE => Error::Closed {
                path: self.path.clone(),
                op: op_name,
            },
            _ => self.transport(op_name, source),
        })?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let Some((message, fds)) = self.receive(op_name, deadline)? else {
                return Err(Error::NoReply {
                    path: self.path.clone(),
                    op: op_name,
                    timeout: self.timeout,
                });
            };
            match message {
                Message::Ok { seq, ok } if seq == self.seq => {
                    let answer = serde_json::from_value(ok).map_err(|source| Error::Decode {
                        path: self.path.clone(),
                        op: op_name,
                        source,
                    })?;
                    return Ok((answer, fds));
                }
                Message::Err { seq, err } if seq == self.seq => return Err(Error::Refused(err)),
                // The late reply of a request that timed out here before.
                Message::Ok { .. } | Message::Err { .. } | Message::Event { .. } => {}
            }
        }
    }

    /// The next message; `None` after the deadline.
    fn receive(
        &self,
        op: &'static str,
        deadline: Instant,
    ) -> Result<Option<(Message, Vec<OwnedFd>)>, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let ready = sys::fd::wait_readable(&[self.fd.as_fd()], millis)
            .map_err(|source| self.transport(op, source))?;
        if ready != [true] {
            return Ok(None);
        }
        let size = socket::next_size(&self.fd)
            .map_err(|source| self.broken(op, source))?
            .unwrap_or(0);
        let mut buffer = vec![0_u8; size.min(MAX_PACKET)];
        let got =
            socket::receive(&self.fd, &mut buffer).map_err(|source| self.broken(op, source))?;
        if got.len == 0 {
            return Err(Error::Closed {
                path: self.path.clone(),
                op,
            });
        }
        serde_json::from_slice(&buffer[..got.len])
            .map(|message| Some((message, got.fds)))
            .map_err(|source| Error::Decode {
                path: self.path.clone(),
                op,
                source,
            })
    }

    fn transport(&self, op: &'static str, source: sys::Error) -> Error {
        Error::Transport {
            path: self.path.clone(),
            op,
            source,
        }
    }

    /// A shim that ends with unread requests resets the connection: the same as closing it.
    fn broken(&self, op: &'static str, source: sys::Error) -> Error {
        match source.errno {
            Errno::ECONNRESET => Error::Closed {
                path: self.path.clone(),
                op,
            },
            _ => self.transport(op, source),
        }
    }
}

/// A subscribed connection. Its descriptor is readable when an event or the end is there.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
}

// === impl EventStream ===

impl EventStream {
    /// The next event, waiting at most `timeout`; `None` when none came.
    ///
    /// # Errors
    /// [`Error::Closed`] when the shim ended or dropped us.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.client.receive("subscribe", deadline)? {
                None => return Ok(None),
                Some((Message::Event { event }, _)) => return Ok(Some(event)),
                Some((Message::Ok { .. } | Message::Err { .. }, _)) => {}
            }
        }
    }

    /// An event that is there already, without waiting: for callers that poll the descriptor.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub fn try_next(&mut self) -> Result<Option<Event>, Error> {
        self.next(Duration::ZERO)
    }
}

impl AsFd for EventStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.fd.as_fd()
    }
}

impl AsRawFd for EventStream {
    fn as_raw_fd(&self) -> RawFd {
        self.client.fd.as_raw_fd()
    }
}
