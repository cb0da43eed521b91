//! Clients: requests in, replies and events out. A client can neither block nor kill the shim.
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use sys::{Errno, socket};

use super::{Answer, Supervisor, Token, wire};
use crate::protocol::{self, ErrorKind, Event, MAX_PACKET, Malformed, Request, WireError};

/// The most clients at once; a daemon needs a few, plus one per operation that it runs at the moment.
const CONNECTIONS_MAX: usize = 256;

/// One client.
pub(super) struct Connection {
    serial: u64,
    fd: OwnedFd,
    subscribed: bool,
}

/// Where an answer goes. The client may be gone by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyTo {
    connection: u64,
    seq: u64,
}

impl Supervisor {
    pub(super) fn accept(&mut self) {
        loop {
            let fd = match socket::accept(&self.listener) {
                Ok(Some(fd)) => fd,
                Ok(None) => return,
                // No descriptor is left: the oldest client that does not listen for events makes room, else the
                // waiting connection would be reported for ever.
                Err(_) => {
                    match self
                        .connections
                        .iter()
                        .position(|connection| !connection.subscribed)
                    {
                        Some(oldest) => self.connections.remove(oldest),
                        None if self.connections.is_empty() => return,
                        None => self.connections.remove(0),
                    };
                    continue;
                }
            };
            let serial = self.serial();
            // The socket's mode keeps other users out; this holds also where someone changed it.
            let trusted =
                socket::peer(&fd).is_ok_and(|peer| peer.uid == 0 || Some(peer.uid) == own_uid());
            if !trusted || self.connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            if self
                .epoll
                .add(&fd, Token::Connection(serial).encode())
                .is_ok()
            {
                self.connections.push(Connection {
                    serial,
                    fd,
                    subscribed: false,
                });
            }
        }
    }

    /// One packet; what else waits is reported again.
    pub(super) fn read_connection(&mut self, serial: u64) {
        let Some(connection) = self
            .connections
            .iter()
            .find(|connection| connection.serial == serial)
        else {
            return;
        };
        let Some((packet, fds)) = receive(&connection.fd) else {
            self.disconnect(serial);
            return;
        };
        let Some(packet) = packet else { return };
        match protocol::decode_request(&packet) {
            Ok(Request { seq, op }) => self.operate(
                ReplyTo {
                    connection: serial,
                    seq,
                },
                op,
                fds,
            ),
            Err(Malformed::Operation { seq, message }) => {
                self.reply(
                    ReplyTo {
                        connection: serial,
                        seq,
                    },
                    Err(wire(ErrorKind::Invalid, message)),
                );
            }
            Err(Malformed::Garbage(_)) => self.disconnect(serial),
        }
    }

    pub(super) fn subscribe(&mut self, reply: ReplyTo) {
        if let Some(connection) = self
            .connections
            .iter_mut()
            .find(|connection| connection.serial == reply.connection)
        {
            connection.subscribed = true;
        }
    }

    pub(super) fn reply(&mut self, to: ReplyTo, answer: Answer) {
        self.reply_with(to, answer, &[]);
    }

    /// A reply that carries descriptors.
    pub(super) fn reply_with(&mut self, to: ReplyTo, answer: Answer, fds: &[BorrowedFd<'_>]) {
        #[derive(Serialize)]
        struct Ok {
            seq: u64,
            ok: serde_json::Value,
        }
        #[derive(Serialize)]
        struct Err {
            seq: u64,
            err: WireError,
        }
        let packet = match answer {
            Result::Ok(ok) => protocol::encode(&Ok { seq: to.seq, ok }),
            Result::Err(err) => protocol::encode(&Err { seq: to.seq, err }),
        };
        let packet = packet.or_else(|| {
            let err = wire(
                ErrorKind::Internal,
                format!("the answer is larger than {MAX_PACKET} bytes"),
            );
            protocol::encode(&Err { seq: to.seq, err })
        });
        let Some(packet) = packet else { return };
        let Some(connection) = self
            .connections
            .iter()
            .find(|connection| connection.serial == to.connection)
        else {
            return;
        };
        if socket::send(&connection.fd, &packet, fds).is_err() {
            // Gone, or it does not read its replies.
            self.disconnect(to.connection);
        }
    }

    /// Tells every subscriber. One whose buffer is full is dropped: it will reconnect and ask for the status.
    pub(super) fn announce(&mut self, event: &Event) {
        #[derive(Serialize)]
        struct Message<'a> {
            event: &'a Event,
        }
        let Some(packet) = protocol::encode(&Message { event }) else {
            return;
        };
        self.connections.retain(|connection| {
            !connection.subscribed || socket::send(&connection.fd, &packet, &[]).is_ok()
        });
    }

    /// Closing takes it out of the epoll set: no other process has this descriptor.
    fn disconnect(&mut self, serial: u64) {
        self.connections
            .retain(|connection| connection.serial != serial);
    }
}

/// The next packet and its descriptors; an inner `None` when there is none after all, an outer one at the connection's end.
#[allow(clippy::type_complexity, reason = "used once, right above")]
fn receive(fd: &OwnedFd) -> Option<(Option<Vec<u8>>, Vec<OwnedFd>)> {
    let size = match socket::next_size(fd) {
        Ok(Some(size)) if (1..=MAX_PACKET).contains(&size) => size,
        Ok(None) => return Some((None, Vec::new())),
        // The end (or an empty packet, which is no request), an oversized packet, a broken connection.
        Ok(Some(_)) | Err(_) => return None,
    };
    let mut packet = vec![0; size];
    match socket::receive(fd, &mut packet) {
        Ok(got) if got.truncated || got.len != size => None,
        Ok(got) => Some((Some(packet), got.fds)),
        Err(error) if error.errno == Errno::EAGAIN => Some((None, Vec::new())),
        Err(_) => None,
    }
}

fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|own| own.uid())
}
