//! A netlink socket that asks and waits for the answer.
//!
//! Each request carries a sequence number of its own and answers with another are passed over. Dumps that the
//! kernel marks as interrupted (`NLM_F_DUMP_INTR`: the table changed meanwhile) are asked for again.
use std::os::fd::AsFd;

use netlink_sys::SocketAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::attr;
use crate::error::{Error, Result};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;
pub(crate) const HEADER: usize = 16;

/// A table that changes during this many dumps in a row is reported instead of waited for.
const MAX_DUMPS: usize = 64;
/// The kernel answers in the caller's own context; silence this long (in milliseconds) means that it never will.
const SILENCE_MS: u16 = 30_000;

/// One message of the kernel.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: Vec<u8>,
}

/// What a request is about, for its error.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) object: String,
    pub(crate) call: String,
}

impl About {
    pub(crate) fn new(object: impl Into<String>, call: impl Into<String>) -> About {
        About {
            object: object.into(),
            call: call.into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    next_seq: u32,
}

impl Socket {
    pub(crate) fn open(protocol: isize, name: &str) -> Result<Socket> {
        let call = format!("socket(AF_NETLINK, SOCK_DGRAM|SOCK_CLOEXEC, {name})");
        let fail = |e: std::io::Error| Error::from_io("netlink", &call, &e);
        let mut inner = netlink_sys::Socket::new(protocol).map_err(fail)?;
        inner.bind_auto().map_err(fail)?;
        inner.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
        // Errors in words, and without a copy of the request. Both are comforts that old kernels lack.
        inner
            .set_ext_ack(true)
            .and_then(|()| inner.set_cap_ack(true))
            .ok();
        // Dumps filtered by the kernel (4.20): without it we filter ourselves.
        inner.set_netlink_get_strict_chk(true).ok();
        Ok(Socket { inner, next_seq: 1 })
    }

    /// A sequence number that no earlier request had.
    pub(crate) fn take_seq(&mut self) -> u32 {
        let seq = self.next_seq;
        self.next_seq = self.next_seq.wrapping_add(1).max(1);
        seq
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        about: &About,
    ) -> Result<()> {
        self.exchange(kind, flags | NLM_F_ACK, payload, about)
            .map(drop)
    }

    /// Sends a request for one object and gives its message.
    pub(crate) fn get(&mut self, kind: u16, payload: &[u8], about: &About) -> Result<Message> {
        self.exchange(kind, NLM_F_ACK, payload, about)?
            .into_iter()
            .next()
            .ok_or_else(|| {
                Error::unusable(
                    &about.object,
                    &about.call,
                    "the kernel acknowledged and sent nothing",
                )
            })
    }

    /// Asks for a whole table.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        about: &About,
    ) -> Result<Vec<Message>> {
        for _ in 0..MAX_DUMPS {
            match self.exchange(kind, NLM_F_DUMP, payload, about) {
                Ok(messages) if messages.iter().any(|m| m.flags & NLM_F_DUMP_INTR != 0) => {}
                Err(e) if e.errno == Errno::EINTR => {}
                other => return other,
            }
        }
        Err(Error {
            message: Some(format!(
                "the table changed during {MAX_DUMPS} dumps in a row"
            )),
            ..Error::new(&about.object, &about.call, Errno::EINTR)
        })
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        about: &About,
    ) -> Result<Vec<Message>> {
        let seq = self.take_seq();
        self.send(&frame(kind, flags | NLM_F_REQUEST, seq, payload), about)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive(about)? {
                if message.seq != seq {
                    continue;
                }
                match message.kind {
                    NLMSG_ERROR => return outcome(&message, about).map(|()| found),
                    NLMSG_DONE => return done(message, found, about),
                    NLMSG_OVERRUN => {
                        return Err(Error::new(&about.object, &about.call, Errno::ENOBUFS));
                    }
                    _ => found.push(message),
                }
            }
        }
    }

    pub(crate) fn send(&self, bytes: &[u8], about: &About) -> Result<()> {
        loop {
            match self.inner.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(Error::from_io(
                        &about.object,
                        &format!("send {}", about.call),
                        &e,
                    ));
                }
            }
        }
    }

    /// The messages of one datagram.
    pub(crate) fn receive(&self, about: &About) -> Result<Vec<Message>> {
        let call = || format!("receive the answer to {}", about.call);
        let mut wait = [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut wait, PollTimeout::from(SILENCE_MS)) {
                Ok(0) => return Err(Error::new(&about.object, call(), Errno::ETIMEDOUT)),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new(&about.object, call(), errno)),
            }
        }
        loop {
            // The length is asked for first, so that an answer is never cut.
            match self.inner.recv_from_full() {
                Ok((bytes, _)) => return Ok(split(&bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::from_io(&about.object, &call(), &e)),
            }
        }
    }
}

/// A message with its header, padded to the next one's start.
pub(crate) fn frame(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let len = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    // A netlink message is far below 4 GiB.
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// Splits a datagram; a malformed rest is dropped.
fn split(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let len = usize::try_from(word(0)).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(HEADER..len) else {
            break;
        };
        messages.push(Message {
            kind: half(4),
            flags: half(6),
            seq: word(8),
            payload: payload.to_vec(),
        });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// What an NLMSG_ERROR says: zero is an acknowledgement.
pub(crate) fn outcome(message: &Message, about: &About) -> Result<()> {
    let code = message
        .payload
        .get(..4)
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map(i32::from_ne_bytes);
    match code {
        None => Err(Error::unusable(
            &about.object,
            &about.call,
            "an error message without a code",
        )),
        Some(0) => Ok(()),
        Some(code) => Err(Error {
            message: extended(message),
            ..Error::new(
                &about.object,
                &about.call,
                Errno::from_raw(code.saturating_neg()),
            )
        }),
    }
}

/// The kernel's words after the copy of the request, which is only its header when capped.
fn extended(message: &Message) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = message.payload.get(4..)?;
    let copied = if message.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        usize::try_from(attr::as_u32(request.get(..4)?)?)
            .ok()?
            .next_multiple_of(4)
    };
    attr::find(request.get(copied..)?, NLMSGERR_ATTR_MSG).map(|text| attr::as_text(&text))
}

/// The end of a dump, which may carry an error of its own, and the mark of an interrupted dump.
fn done(end: Message, found: Vec<Message>, about: &About) -> Result<Vec<Message>> {
    if end.flags & NLM_F_DUMP_INTR != 0 {
        return Err(Error::new(&about.object, &about.call, Errno::EINTR));
    }
    if end.payload.len() >= 4 {
        outcome(
            &Message {
                flags: end.flags & !NLM_F_ACK_TLVS,
                ..end
            },
            about,
        )?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About::new("link \"x\"", "RTM_GETLINK")
    }

    #[test]
    fn a_datagram_is_split_into_its_messages_and_a_cut_one_is_dropped() {
        let mut bytes = frame(16, 0, 7, b"abcde");
        bytes.extend(frame(17, 2, 8, b""));
        let messages = split(&bytes);
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].seq, messages[0].payload.as_slice()),
            (7, b"abcde".as_slice())
        );
        for cut in 0..bytes.len() {
            assert!(split(&bytes[..cut]).len() < 2);
        }
        assert!(
            split(&[0; 16]).is_empty(),
            "a length shorter than the header ends the list"
        );
    }

    #[test]
    fn the_kernels_words_become_part_of_the_error() {
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend(
            attr::Writer::default()
                .text(NLMSGERR_ATTR_MSG, "File exists already")
                .into_bytes(),
        );
        let message = Message {
            kind: NLMSG_ERROR,
            flags: NLM_F_CAPPED | NLM_F_ACK_TLVS,
            seq: 1,
            payload,
        };
        let error = outcome(&message, &about()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "link \"x\": RTM_GETLINK: file exists (EEXIST): File exists already"
        );
    }

    #[test]
    fn an_interrupted_dump_is_told_from_a_whole_one() {
        let end = |flags| Message {
            kind: NLMSG_DONE,
            flags,
            seq: 1,
            payload: 0i32.to_ne_bytes().to_vec(),
        };
        assert_eq!(
            done(end(NLM_F_DUMP_INTR), Vec::new(), &about())
                .unwrap_err()
                .errno,
            Errno::EINTR
        );
        assert!(done(end(2), Vec::new(), &about()).unwrap().is_empty());
    }
}
