//! Unix sockets with message borders (`SOCK_SEQPACKET`) and descriptors in messages (`SCM_RIGHTS`).
//!
//! Paths longer than `sun_path` (107 bytes) work: the parent directory is opened and named through
//! `/proc/self/fd`. Man pages: unix(7), cmsg(3).
#![allow(unsafe_code)]
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag,
    SockType, UnixAddr,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Context, Error, Result};
use crate::fd::FdName;

/// The most descriptors that one message may carry here; the kernel drops what does not fit.
pub const MAX_FDS: usize = 4;

/// The longest path that fits in `sockaddr_un` with its final NUL.
const SUN_PATH_MAX: usize = 107;

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages with borders, in order: `SOCK_SEQPACKET`.
    SeqPacket,
    /// A byte stream: `SOCK_STREAM`, what OCI runtimes connect to for `--console-socket`.
    Stream,
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes put into the buffer; 0 is the end of the connection (or an empty message).
    pub len: usize,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The message or its descriptors were larger than the space for them.
    pub truncated: bool,
}

/// The other end of a connected unix socket, as the kernel saw it connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id, in the pid namespace of the caller.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
}

// === listen, connect, accept ===

/// Makes a listening socket at `path` that only its owner may use (mode 0600 from the first moment on),
/// close-on-exec and non-blocking.
///
/// # Errors
/// `EADDRINUSE` where `path` exists, or what `bind(2)` says of the path.
pub fn listen(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let call = || format!("bind(AF_UNIX, {kind:?}, {path:?})");
    let fd = unix_socket(kind, SockFlag::SOCK_NONBLOCK)?;
    let address = Address::of(path)?;
    // The mode of a socket file comes from the umask alone; a chmod afterwards would leave a gap.
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = socket::bind(fd.as_raw_fd(), &address.unix);
    nix::sys::stat::umask(umask);
    bound.call(call)?;
    socket::listen(&fd, Backlog::MAXCONN).call(|| format!("listen({})", FdName::of(&fd)))?;
    Ok(fd)
}

/// Connects to the socket at `path`; the connection is blocking and close-on-exec.
///
/// # Errors
/// `ENOENT` without the file, `ECONNREFUSED` where no process listens any more.
pub fn connect(path: &Path, kind: Kind) -> Result<OwnedFd> {
    connect_within(path, kind, None)
}

/// As [`connect`], where neither connecting nor any later send takes longer than `limit`: a process that does not accept
/// makes both wait once its queues are full.
///
/// # Errors
/// As [`connect`], and `EAGAIN` when the time is over.
pub fn connect_within(
    path: &Path,
    kind: Kind,
    limit: Option<std::time::Duration>,
) -> Result<OwnedFd> {
    let fd = unix_socket(kind, SockFlag::empty())?;
    if let Some(limit) = limit {
        let millis = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let time = TimeVal::milliseconds(millis.max(1));
        socket::setsockopt(&fd, socket::sockopt::SendTimeout, &time)
            .call(|| format!("setsockopt(SO_SNDTIMEO, {limit:?})"))?;
    }
    let address = Address::of(path)?;
    loop {
        match socket::connect(fd.as_raw_fd(), &address.unix) {
            Err(Errno::EINTR) => {}
            other => break other.call(|| format!("connect(AF_UNIX, {kind:?}, {path:?})"))?,
        }
    }
    Ok(fd)
}

/// Makes a datagram socket at `path` with this mode from the first moment on, close-on-exec: what `NOTIFY_SOCKET` names.
///
/// # Errors
/// `EADDRINUSE` where `path` exists, or what `bind(2)` says of the path.
pub fn bind_datagram(path: &Path, mode: u32) -> Result<OwnedFd> {
    let fd = datagram()?;
    let address = Address::of(path)?;
    // The mode of a socket file comes from the umask alone; a chmod afterwards would leave a gap.
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(!mode & 0o777));
    let bound = socket::bind(fd.as_raw_fd(), &address.unix);
    nix::sys::stat::umask(umask);
    bound.call(|| format!("bind(AF_UNIX, SOCK_DGRAM, {path:?})"))?;
    Ok(fd)
}

/// A datagram socket connected to the one at `path`, close-on-exec. A path that begins with `@` is an abstract name.
///
/// # Errors
/// `ENOENT` without the file, `ECONNREFUSED` where no process has it open any more.
pub fn connect_datagram(path: &Path) -> Result<OwnedFd> {
    let fd = datagram()?;
    let call = || format!("connect(AF_UNIX, SOCK_DGRAM, {path:?})");
    let connected = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)
            .and_then(|address| socket::connect(fd.as_raw_fd(), &address)),
        None => socket::connect(fd.as_raw_fd(), &Address::of(path)?.unix),
    };
    connected.call(call)?;
    Ok(fd)
}

fn datagram() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)
        .call(|| format!("socket(AF_UNIX, SOCK_DGRAM, {flags:?})"))
}

/// Takes one waiting connection, close-on-exec and non-blocking; `None` when nothing waits.
///
/// # Errors
/// `EMFILE` and `ENFILE` where no descriptor is left.
pub fn accept(listener: impl AsFd) -> Result<Option<OwnedFd>> {
    let listener = listener.as_fd();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    loop {
        match socket::accept4(listener.as_raw_fd(), flags) {
            // SAFETY: the kernel just returned this new descriptor; nothing else owns it.
            Ok(raw) => return Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) })),
            Err(Errno::EAGAIN) => return Ok(None),
            // A connection that died in the queue is not the listener's error.
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => {
                return Err(Error::new(
                    errno,
                    format!("accept4({}, {flags:?})", FdName::of(listener)),
                ));
            }
        }
    }
}

/// Who is at the other end.
///
/// # Errors
/// The descriptor is no connected unix socket.
pub fn peer(fd: impl AsFd) -> Result<Peer> {
    let fd = fd.as_fd();
    let credentials = socket::getsockopt(&fd, socket::sockopt::PeerCredentials)
        .call(|| format!("getsockopt({}, SO_PEERCRED)", FdName::of(fd)))?;
    Ok(Peer {
        pid: credentials.pid(),
        uid: credentials.uid(),
    })
}

// === messages ===

/// Sends one message with descriptors. Never raises SIGPIPE. On a non-blocking socket a full buffer is `EAGAIN`,
/// and nothing of the message was sent.
///
/// # Errors
/// `EPIPE` when the other end is gone, `EMSGSIZE` when the message exceeds the send buffer.
pub fn send(fd: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let fd = fd.as_fd();
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match socket::sendmsg::<()>(
            fd.as_raw_fd(),
            &[IoSlice::new(message)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                let text = format!(
                    "sendmsg({}, {} bytes, {} fds)",
                    FdName::of(fd),
                    message.len(),
                    raw.len()
                );
                return Err(Error::new(errno, text));
            }
        }
    }
}

/// The size of the next message, without taking it; `None` when none is there on a non-blocking socket.
///
/// # Errors
/// `ECONNRESET` when the other end died with unread messages.
pub fn next_size(fd: impl AsFd) -> Result<Option<usize>> {
    let fd = fd.as_fd();
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    loop {
        // MSG_TRUNC returns the true length even though the buffer is empty.
        match socket::recv(fd.as_raw_fd(), &mut [], flags) {
            Ok(size) => return Ok(Some(size)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::new(
                    errno,
                    format!("recv({}, {flags:?})", FdName::of(fd)),
                ));
            }
        }
    }
}

/// Receives one message into `buffer`, with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// `EAGAIN` when nothing is there on a non-blocking socket, `ECONNRESET` when the other end died.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    let fd = fd.as_fd();
    let size = buffer.len();
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match socket::recvmsg::<()>(fd.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Ok(message) => break message,
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::new(
                    errno,
                    format!("recvmsg({}, {size} bytes)", FdName::of(fd)),
                ));
            }
        }
    };
    let mut fds = Vec::new();
    // A control buffer that was too small leaves the first descriptors in place: they are owned before any return.
    if let Ok(entries) = message.cmsgs() {
        for entry in entries {
            if let ControlMessageOwned::ScmRights(raw) = entry {
                // SAFETY: the kernel installed these descriptors for this message; nothing else owns them.
                fds.extend(
                    raw.into_iter()
                        .map(|one| unsafe { OwnedFd::from_raw_fd(one) }),
                );
            }
        }
    }
    let truncated = message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    Ok(Received {
        len: message.bytes,
        fds,
        truncated,
    })
}

// === addresses ===

/// A socket address; it keeps the parent directory open while the kernel resolves a long path through it.
struct Address {
    unix: UnixAddr,
    _parent: Option<std::fs::File>,
}

impl Address {
    fn of(path: &Path) -> Result<Self> {
        if path.as_os_str().len() <= SUN_PATH_MAX {
            return Ok(Self {
                unix: address(path)?,
                _parent: None,
            });
        }
        let (short, parent) = short_name(path)?;
        Ok(Self {
            unix: address(&short)?,
            _parent: Some(parent),
        })
    }
}

/// `/proc/self/fd/<parent>/<name>` for a path that is too long, with the open parent that it stands on.
fn short_name(path: &Path) -> Result<(PathBuf, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Errno::EINVAL, format!("sockaddr_un({path:?})")));
    };
    let directory = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(parent)
        .call(|| format!("open({parent:?}, O_PATH|O_DIRECTORY|O_CLOEXEC)"))?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((short, directory))
}

fn address(path: &Path) -> Result<UnixAddr> {
    if path.as_os_str().as_bytes().is_empty() {
        return Err(Error::new(Errno::EINVAL, "sockaddr_un(\"\")"));
    }
    UnixAddr::new(path).call(|| format!("sockaddr_un({path:?}): {} bytes", path.as_os_str().len()))
}

fn unix_socket(kind: Kind, extra: SockFlag) -> Result<OwnedFd> {
    let ty = match kind {
        Kind::SeqPacket => SockType::SeqPacket,
        Kind::Stream => SockType::Stream,
    };
    let flags = SockFlag::SOCK_CLOEXEC | extra;
    socket::socket(AddressFamily::Unix, ty, flags, None)
        .call(|| format!("socket(AF_UNIX, {ty:?}, {flags:?})"))
}

#[cfg(test)]
#[path = "socket/tests.rs"]
mod tests;
