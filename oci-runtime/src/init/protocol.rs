//! What the two sides tell each other, one message per packet of a SOCK_SEQPACKET pair.
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::error::{Error, Result};

/// The longest message; texts of errors are cut to fit, since a container's files can make them long.
pub(super) const MAX: usize = 32 * 1024;

/// What the child says where its parent is gone: nobody is left to care, since the parent has said why or was killed.
pub(super) const RUNTIME_ENDED: &str = "the runtime has ended";

/// From the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToChild {
    /// Begin. With the child's id as the parent sees it, for the state that hooks read.
    Go(i32),
    /// What the child asked for is done.
    Continue,
}

/// From the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromChild {
    /// The namespaces and mounts are there.
    RunHooks,
    /// The cgroup namespace is made: now for the cgroup below that is the container's own to manage.
    Delegate,
    /// The child may not set its own resource limits: the parent has to.
    SetLimits,
    /// The source of this mount (its place in `mounts`) can only be opened by the parent.
    OpenSource(usize),
    /// The root filesystem is closed to the container's users.
    OpenRoot,
    /// The time namespace of the child's children is there, and its clocks can still be set.
    SetClocks,
    /// Everything is done but the program itself.
    Ready,
    /// The filter is there, and this is the number of its listener's descriptor.
    Listening(i32),
    /// A step failed; the child ends.
    Failed(Error),
    /// For an intermediate process: the id of the real child.
    Pid(i32),
}

impl ToChild {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Go(pid) => format!("g{pid}").into_bytes(),
            Self::Continue => b"h".to_vec(),
        }
    }

    fn decode(data: &[u8]) -> Option<Self> {
        match data.split_first()? {
            (b'g', pid) => std::str::from_utf8(pid).ok()?.parse().ok().map(Self::Go),
            (b'h', []) => Some(Self::Continue),
            _ => None,
        }
    }
}

impl FromChild {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::RunHooks => b"r".to_vec(),
            Self::Delegate => b"d".to_vec(),
            Self::SetLimits => b"l".to_vec(),
            Self::OpenSource(index) => format!("o{index}").into_bytes(),
            Self::OpenRoot => b"q".to_vec(),
            Self::SetClocks => b"c".to_vec(),
            Self::Ready => b"k".to_vec(),
            Self::Listening(fd) => format!("n{fd}").into_bytes(),
            Self::Pid(pid) => format!("p{pid}").into_bytes(),
            Self::Failed(error) => {
                let hint = error.hint.as_deref().unwrap_or_default();
                let cut = |text: &str, most: usize| {
                    text.chars()
                        .take(most / 4)
                        .collect::<String>()
                        .replace('\0', " ")
                };
                format!("f{}\0{}", cut(&error.message, MAX / 2), cut(hint, MAX / 4)).into_bytes()
            }
        }
    }

    pub(super) fn decode(data: &[u8]) -> Option<Self> {
        match data.split_first()? {
            (b'r', []) => Some(Self::RunHooks),
            (b'd', []) => Some(Self::Delegate),
            (b'l', []) => Some(Self::SetLimits),
            (b'q', []) => Some(Self::OpenRoot),
            (b'o', index) => {
                let index = std::str::from_utf8(index).ok()?;
                index.parse().ok().map(Self::OpenSource)
            }
            (b'c', []) => Some(Self::SetClocks),
            (b'k', []) => Some(Self::Ready),
            (b'n', fd) => std::str::from_utf8(fd)
                .ok()?
                .parse()
                .ok()
                .map(Self::Listening),
            // From a doorkeeper, which knows no decimals: an id, or the negative errno of its clone(2).
            (b'P', raw) => {
                let raw = i32::from_le_bytes(raw.try_into().ok()?);
                if raw > 0 {
                    return Some(Self::Pid(raw));
                }
                let errno = Errno::from_raw(raw.wrapping_neg());
                let error = sys::Error::new(errno, "clone(CLONE_PARENT)");
                Some(Self::Failed(
                    Error::from(error).within("making the process in the container".to_owned()),
                ))
            }
            (b'p', pid) => std::str::from_utf8(pid).ok()?.parse().ok().map(Self::Pid),
            (b'f', text) => {
                let text = String::from_utf8_lossy(text);
                let (message, hint) = text.split_once('\0')?;
                let hint = (!hint.is_empty()).then(|| hint.to_owned());
                Some(Self::Failed(Error {
                    message: message.to_owned(),
                    hint,
                }))
            }
            _ => None,
        }
    }
}

fn send_packet(socket: impl AsFd, data: &[u8]) -> Result<()> {
    use std::os::fd::AsRawFd;
    loop {
        match send(socket.as_fd().as_raw_fd(), data, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(sys::Error::new(errno, format!("send({} bytes)", data.len())).into());
            }
            Ok(_) => return Ok(()),
        }
    }
}

/// The next packet, by read(2); `None` where the other side has ended.
fn receive_packet(socket: impl AsFd) -> Result<Option<Vec<u8>>> {
    let mut data = vec![0_u8; MAX];
    match sys::fd::read(socket, &mut data) {
        Ok(0) => Ok(None),
        Ok(count) => {
            data.truncate(count);
            Ok(Some(data))
        }
        Err(error) if error.errno == Errno::ECONNRESET => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tells the child.
///
/// # Errors
/// The child has ended.
pub fn tell_child(socket: impl AsFd, message: &ToChild) -> Result<()> {
    send_packet(socket, &message.encode())
}

/// Tells the parent.
///
/// # Errors
/// The parent has ended.
pub fn tell_parent(socket: impl AsFd, message: &FromChild) -> Result<()> {
    send_packet(socket, &message.encode())
}

/// Tells the parent with nothing but write(2), which every filter allows that an announcement can get through.
///
/// # Errors
/// The parent has ended.
pub(super) fn write_parent(socket: impl AsFd, message: &FromChild) -> Result<()> {
    Ok(sys::fd::write_all(socket, &message.encode())?)
}

/// What the parent says next.
///
/// # Errors
/// The parent has ended.
pub fn hear_parent(socket: impl AsFd) -> Result<ToChild> {
    let data = receive_packet(socket)?.ok_or_else(|| Error::new(RUNTIME_ENDED))?;
    ToChild::decode(&data).ok_or_else(|| Error::new("unknown message from the runtime"))
}

/// Waits until the parent has done what it was asked for.
///
/// # Errors
/// The parent has ended, or says something else.
pub fn hear_continue(socket: impl AsFd) -> Result<()> {
    match hear_parent(socket)? {
        ToChild::Continue => Ok(()),
        ToChild::Go(_) => Err(Error::new("unexpected message from the runtime")),
    }
}

/// What the child says next; `None` where it has ended without a word.
///
/// # Errors
/// A message that makes no sense.
pub fn hear_child(socket: impl AsFd) -> Result<Option<FromChild>> {
    let Some(data) = receive_packet(socket)? else {
        return Ok(None);
    };
    FromChild::decode(&data)
        .map(Some)
        .ok_or_else(|| Error::new("unknown message from the container's first process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_arrives_as_it_was_sent() {
        let (parent, child) = sys::fd::seqpacket_pair().unwrap();
        for message in [ToChild::Go(42), ToChild::Continue] {
            tell_child(&parent, &message).unwrap();
            assert_eq!(hear_parent(&child).unwrap(), message);
        }
        let failed = Error::new("mounts[0]: broken").hint("try again");
        for message in [
            FromChild::RunHooks,
            FromChild::Delegate,
            FromChild::SetLimits,
            FromChild::OpenSource(7),
            FromChild::OpenRoot,
            FromChild::SetClocks,
            FromChild::Ready,
            FromChild::Listening(7),
            FromChild::Pid(42),
            FromChild::Failed(failed),
        ] {
            tell_parent(&child, &message).unwrap();
            assert_eq!(hear_child(&parent).unwrap(), Some(message));
        }
        drop(child);
        assert_eq!(hear_child(&parent).unwrap(), None);
    }

    #[test]
    fn an_overlong_error_is_cut() {
        let (parent, child) = sys::fd::seqpacket_pair().unwrap();
        tell_parent(&child, &FromChild::Failed(Error::new("ä".repeat(100_000)))).unwrap();
        let Some(FromChild::Failed(error)) = hear_child(&parent).unwrap() else {
            panic!("no failure")
        };
        assert!(error.message.len() < MAX && error.message.starts_with('ä'));
    }
}
