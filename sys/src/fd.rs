//! File descriptors: their names for error messages, close-on-exec hygiene, pipes, whole reads and writes.
#![allow(unsafe_code)]
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl};

use crate::error::{Context, Error, Result, check};

/// A descriptor as strace prints it: `3</run/bundle>`, or `AT_FDCWD`.
pub struct FdName(RawFd);

impl FdName {
    /// The name of an open descriptor.
    pub fn of(fd: impl AsFd) -> Self {
        Self(fd.as_fd().as_raw_fd())
    }
}

impl fmt::Display for FdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == AT_FDCWD.as_raw_fd() {
            return f.write_str("AT_FDCWD");
        }
        match link_of(self.0) {
            Some(path) => write!(f, "{}<{}>", self.0, path.display()),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Where /proc says that a descriptor points. For messages only: never a way back to the file.
fn link_of(fd: RawFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

/// A pipe, both ends close-on-exec: `(read, write)`.
///
/// # Errors
/// Too many open files.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).call(|| "pipe2(O_CLOEXEC)".to_owned())
}

/// A connected pair of SOCK_SEQPACKET sockets, close-on-exec: messages keep their borders.
///
/// # Errors
/// Too many open files.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC)".to_owned())
}

/// Sets or clears close-on-exec.
///
/// # Errors
/// The descriptor is not open.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> Result<()> {
    let flags = if on {
        FdFlag::FD_CLOEXEC
    } else {
        FdFlag::empty()
    };
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags))
        .map(drop)
        .call(|| format!("fcntl({}, F_SETFD, {flags:?})", FdName::of(fd.as_fd())))
}

/// Takes ownership of a descriptor that this process inherited under a known number, such as the
/// `LISTEN_FDS` of a service manager. Nothing else in the process may own that number.
///
/// # Errors
/// `EBADF` where the number is not open.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_GETFD only reads the descriptor table, for any number.
    let ret = unsafe { libc::fcntl(number, libc::F_GETFD) };
    check(libc::c_long::from(ret), || {
        format!("fcntl({number}, F_GETFD)")
    })?;
    // SAFETY: the number is open (checked above), and the caller says that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes close-on-exec from the descriptor with this number, so that the next program gets it.
///
/// # Errors
/// `EBADF` where the number is not open.
pub fn keep_on_exec(number: RawFd) -> Result<()> {
    // SAFETY: F_SETFD changes one flag of a descriptor and no ownership.
    let ret = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    check(libc::c_long::from(ret), || {
        format!("fcntl({number}, F_SETFD, 0)")
    })
    .map(drop)
}

/// Whether a descriptor of this number is open.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD only reads the descriptor table, for any number.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Marks every descriptor from `first` up close-on-exec, in one call.
/// Descriptors that the caller of this process forgot to close reach no child this way.
///
/// # Errors
/// Only on kernels before 5.11.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` to `last` inclusive that no `OwnedFd` of this process still uses.
///
/// Meant for the moment right before `execve`, where no owner runs again.
///
/// # Errors
/// Only on kernels before 5.9.
pub fn close_range_now(first: RawFd, last: RawFd) -> Result<()> {
    close_range(first, last, 0)
}

/// [`close_range_now`] for every descriptor from `first` up but those of `keep`, in any order.
///
/// # Errors
/// Only on kernels before 5.9.
pub fn close_all_but(first: RawFd, keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut from = first;
    for kept in keep {
        close_range_now(from, kept - 1)?;
        from = kept + 1;
    }
    close_range_now(from, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<()> {
    if first > last {
        return Ok(());
    }
    let text = || format!("close_range({first}, {last}, {flags:#x})");
    let (Ok(low), Ok(high)) = (libc::c_uint::try_from(first), libc::c_uint::try_from(last)) else {
        return Err(Error::new(Errno::EBADF, text()));
    };
    // SAFETY: the kernel reads three integers; the callers above say what becomes of the owners.
    check(
        unsafe { libc::syscall(libc::SYS_close_range, low, high, flags) },
        text,
    )
    .map(drop)
}

/// Makes `target` a duplicate of `fd` without close-on-exec: what stdin, stdout and stderr need.
///
/// # Errors
/// `target` is out of range.
pub fn duplicate_onto(fd: impl AsFd, target: RawFd) -> Result<()> {
    let fd = fd.as_fd();
    if fd.as_raw_fd() == target {
        return set_cloexec(fd, false);
    }
    // SAFETY: dup2 only changes the descriptor table; callers replace numbers 0 to 2, which std never owns.
    let ret = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    check(libc::c_long::from(ret), || {
        format!("dup2({}, {target})", FdName::of(fd))
    })
    .map(drop)
}

/// A close-on-exec duplicate with a number of at least `least`.
///
/// # Errors
/// Too many open files.
pub fn duplicate_above(fd: impl AsFd, least: RawFd) -> Result<OwnedFd> {
    let fd = fd.as_fd();
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))
        .call(|| format!("fcntl({}, F_DUPFD_CLOEXEC, {least})", FdName::of(fd)))?;
    // SAFETY: the kernel just returned this new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Writes all of `data`, continuing after short counts and EINTR.
///
/// # Errors
/// The first failed write.
pub fn write_all(fd: impl AsFd, mut data: &[u8]) -> Result<()> {
    let fd = fd.as_fd();
    while !data.is_empty() {
        match nix::unistd::write(fd, data) {
            Ok(0) => {
                return Err(Error::new(
                    Errno::ENOSPC,
                    format!("write({}, {} bytes) = 0", FdName::of(fd), data.len()),
                ));
            }
            Ok(count) => data = &data[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::new(
                    errno,
                    format!("write({}, {} bytes)", FdName::of(fd), data.len()),
                ));
            }
        }
    }
    Ok(())
}

/// Reads once, continuing after EINTR; 0 is the end of the file.
///
/// # Errors
/// The failed read.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd();
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EINTR) => {}
            other => {
                return other.call(|| format!("read({}, {} bytes)", FdName::of(fd), buffer.len()));
            }
        }
    }
}

/// Fills `buffer`.
///
/// # Errors
/// The failed read, or `ENODATA` where the file ends before the buffer is full.
pub fn read_exact(fd: impl AsFd, mut buffer: &mut [u8]) -> Result<()> {
    let fd = fd.as_fd();
    while !buffer.is_empty() {
        match read(fd, buffer)? {
            0 => {
                return Err(Error::new(
                    Errno::ENODATA,
                    format!("read({}): {} bytes missing", FdName::of(fd), buffer.len()),
                ));
            }
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(())
}

/// Reads to the end, at most `limit` bytes.
///
/// # Errors
/// The failed read, or `EFBIG` where the file holds more than `limit`.
pub fn read_to_end(fd: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let fd = fd.as_fd();
    let mut data = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let count = read(fd, &mut chunk)?;
        if count == 0 {
            return Ok(data);
        }
        data.extend_from_slice(&chunk[..count]);
        if data.len() > limit {
            return Err(Error::new(
                Errno::EFBIG,
                format!("read({}): more than {limit} bytes", FdName::of(fd)),
            ));
        }
    }
}

/// Waits until one of `fds` is readable or hung up, at most `timeout_ms` (negative: for ever). Returns which are ready.
///
/// # Errors
/// The failed `poll(2)`; EINTR is taken as "nothing yet" and waits again for the full time.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> Result<Vec<bool>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(timeout_ms).unwrap_or(PollTimeout::NONE);
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    loop {
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::new(
                    errno,
                    format!("poll({} fds, {timeout_ms})", fds.len()),
                ));
            }
            Ok(_) => {
                return Ok(polled
                    .iter()
                    .map(|one| one.any().unwrap_or(false))
                    .collect());
            }
        }
    }
}

/// Waits until nobody has the other end of this pipe or FIFO, open for writing, open for reading any more.
///
/// # Errors
/// The failed `poll(2)`.
pub fn wait_unread(fd: impl AsFd) -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let fd = fd.as_fd();
    // The end of the last reader is always told, as POLLERR.
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => {
                return other
                    .call(|| format!("poll({}, 0)", FdName::of(fd)))
                    .map(drop);
            }
        }
    }
}

/// A file in memory that may be executed, still empty.
///
/// # Errors
/// `EACCES` where `vm.memfd_noexec` forbids it.
pub fn memfd(name: &std::ffi::CStr) -> Result<OwnedFd> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    /// Linux 6.3: says that the file is to be executed, which `vm.memfd_noexec` may otherwise forbid.
    const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = match memfd_create(name, flags | MFD_EXEC) {
        Err(nix::errno::Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    };
    fd.call(|| format!("memfd_create({name:?}, {flags:?})"))
}

/// Writes the content of a [`memfd`] and seals it: nobody can change it any more, through whatever descriptor.
///
/// # Errors
/// `EPERM` for one that is sealed already.
pub fn fill_and_seal(fd: &OwnedFd, content: &[u8]) -> Result<()> {
    use nix::fcntl::SealFlag;
    write_all(fd, content)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))
        .call(|| format!("fcntl({}, F_ADD_SEALS, {seals:?})", FdName::of(fd)))
        .map(drop)
}

/// What to wait for with a descriptor, and what of it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// There is something to read, or its end.
    pub read: bool,
    /// Something can be written, or the other side is gone.
    pub write: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Writing only.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };
}

/// Waits until something has come that is wanted of one of `fds`. A descriptor of which nothing is wanted is left out,
/// even where it is hung up.
///
/// # Errors
/// The failed `poll(2)`.
pub fn wait_for(fds: &[(BorrowedFd<'_>, Interest)]) -> Result<Vec<Interest>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let events = |wanted: Interest| {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, wanted.read);
        events.set(PollFlags::POLLOUT, wanted.write);
        events
    };
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .filter(|(_, wanted)| wanted.read || wanted.write)
        .map(|(fd, wanted)| PollFd::new(*fd, events(*wanted)))
        .collect();
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(Error::new(errno, format!("poll({} fds)", polled.len())));
            }
            Ok(_) => break,
        }
    }
    let mut results = polled.iter();
    let came = |wanted: Interest, result: Option<&PollFd<'_>>| {
        let events = result
            .and_then(PollFd::revents)
            .unwrap_or(PollFlags::empty());
        let over = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Interest {
            read: wanted.read && events.intersects(PollFlags::POLLIN | over),
            write: wanted.write && events.intersects(PollFlags::POLLOUT | over),
        }
    };
    Ok(fds
        .iter()
        .map(|(_, wanted)| {
            if wanted.read || wanted.write {
                came(*wanted, results.next())
            } else {
                Interest::default()
            }
        })
        .collect())
}

/// One of the three standard descriptors (0 to 2; anything above counts as 2), as it is: what is read or written here
/// passes std's buffers by.
pub fn standard(number: u8) -> BorrowedFd<'static> {
    // SAFETY: these three are open from the start of the program to its end: std opens /dev/null where its caller left
    // one closed, and nothing in this workspace closes them (`duplicate_onto` replaces them at once).
    unsafe { BorrowedFd::borrow_raw(RawFd::from(number.min(2))) }
}

/// Lets reads and writes fail with `EAGAIN` instead of waiting, for everybody who shares this open file.
///
/// # Errors
/// The descriptor is not open.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    let text = || format!("fcntl({}, F_SETFL, O_NONBLOCK)", FdName::of(fd));
    let old = fcntl(fd, FcntlArg::F_GETFL).call(text)?;
    let flags = OFlag::from_bits_retain(old) | OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop).call(text)
}

/// Writes once, continuing after EINTR; returns how much of `data` was written.
///
/// # Errors
/// The failed write; `EAGAIN` where a non-blocking descriptor takes nothing now.
pub fn write_some(fd: impl AsFd, data: &[u8]) -> Result<usize> {
    let fd = fd.as_fd();
    loop {
        match nix::unistd::write(fd, data) {
            Err(Errno::EINTR) => {}
            other => {
                return other.call(|| format!("write({}, {} bytes)", FdName::of(fd), data.len()));
            }
        }
    }
}

/// A sealed, read-only memory file with `content`: nothing can change it any more.
///
/// # Errors
/// Out of memory, or `vm.memfd_noexec` forbids it.
pub fn sealed_memfd(name: &std::ffi::CStr, content: &[u8]) -> Result<OwnedFd> {
    let fd = memfd(name)?;
    fill_and_seal(&fd, content)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_last_reader_is_waited_for() {
        let (reader, writer) = pipe().unwrap();
        let other = std::thread::spawn(move || {
            read(&reader, &mut [0]).unwrap();
            drop(reader);
        });
        write_all(&writer, b"x").unwrap();
        wait_unread(&writer).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn a_descriptor_is_named_with_its_path() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let name = FdName::of(&file).to_string();
        assert!(
            name.starts_with(&format!("{}</proc/", file.as_raw_fd())),
            "{name}"
        );
        assert_eq!(FdName::of(AT_FDCWD).to_string(), "AT_FDCWD");
    }

    #[test]
    fn a_pipe_is_close_on_exec_and_carries_whole_messages() {
        let (read_end, write_end) = pipe().unwrap();
        let flags = fcntl(&read_end, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        write_all(&write_end, b"twelve bytes").unwrap();
        let mut text = [0_u8; 12];
        read_exact(&read_end, &mut text).unwrap();
        assert_eq!(&text, b"twelve bytes");
        drop(write_end);
        assert_eq!(
            read_exact(&read_end, &mut text).unwrap_err().errno,
            Errno::ENODATA
        );
    }

    #[test]
    fn reading_to_the_end_stops_at_the_limit() {
        let (read_end, write_end) = pipe().unwrap();
        write_all(&write_end, &[0; 100]).unwrap();
        drop(write_end);
        assert_eq!(read_to_end(&read_end, 99).unwrap_err().errno, Errno::EFBIG);
    }

    #[test]
    fn only_what_is_wanted_is_waited_for() {
        let (read_end, write_end) = pipe().unwrap();
        let (closed, _) = pipe().unwrap();
        let wanted = [
            // Hung up, but nobody asks.
            (closed.as_fd(), Interest::default()),
            (read_end.as_fd(), Interest::READ),
            (write_end.as_fd(), Interest::WRITE),
        ];
        let nothing = Interest::default();
        assert_eq!(
            wait_for(&wanted).unwrap(),
            [nothing, nothing, Interest::WRITE]
        );
        write_all(&write_end, b"x").unwrap();
        assert_eq!(
            wait_for(&wanted).unwrap(),
            [nothing, Interest::READ, Interest::WRITE]
        );
    }

    #[test]
    fn a_full_pipe_takes_a_part_and_then_nothing() {
        let (_read_end, write_end) = pipe().unwrap();
        set_nonblocking(&write_end).unwrap();
        let many = vec![0; 1 << 20];
        let count = write_some(&write_end, &many).unwrap();
        assert!(count > 0 && count < many.len());
        assert_eq!(
            write_some(&write_end, &many).unwrap_err().errno,
            Errno::EAGAIN
        );
    }

    #[test]
    fn taking_a_number_that_is_not_open_is_refused() {
        assert_eq!(take_inherited(987_654).unwrap_err().errno, Errno::EBADF);
    }

    #[test]
    fn a_sealed_memory_file_cannot_be_written() {
        let fd = sealed_memfd(c"test", b"fixed").unwrap();
        assert_eq!(write_all(&fd, b"x").unwrap_err().errno, Errno::EPERM);
    }
}
