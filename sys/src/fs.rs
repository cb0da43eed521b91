//! Files by directory descriptor and name: make, link, own, stamp, label, delete, sync.
//!
//! Every name here is one component below `dir`, never a path: whoever resolves paths does it with [`crate::path`]
//! first, and no call follows a symbolic link in its last component. An empty name or one with a slash is `EINVAL`.
#![allow(unsafe_code)]
mod tree;
mod usage;
mod xattr;

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags};
use nix::sys::stat::UtimensatFlags;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use crate::error::{Context, Error, Result, check};
use crate::fd::FdName;

pub use nix::fcntl::OFlag;
pub use nix::sys::stat::{FileStat, Mode, SFlag};
pub use tree::remove_tree;
pub use usage::{TreeUsage, tree_usage};
pub use xattr::{get_xattr, get_xattr_at, list_xattr, list_xattr_at, set_xattr, set_xattr_at};

/// What a node made by [`mknod`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A character device with its major and minor number. 0/0 is overlay's whiteout.
    Char(u64, u64),
    /// A block device with its major and minor number.
    Block(u64, u64),
}

/// A time of last modification: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below a thousand million.
    pub nanoseconds: u32,
}

/// Space and inodes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes that this process may still use.
    pub bytes_free: u64,
    /// Its inodes; 0 where it has no fixed number.
    pub inodes: u64,
    /// Inodes still free.
    pub inodes_free: u64,
}

/// How a call prints `dir` and `name`.
fn at(dir: impl AsFd, name: &OsStr) -> String {
    format!("{}, {name:?}", FdName::of(dir))
}

/// Refuses whatever is not one component.
fn component<'a>(call: &str, dir: impl AsFd, name: &'a OsStr) -> Result<&'a OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&b'/') || matches!(bytes, b"." | b"..") {
        return Err(Error::new(
            Errno::EINVAL,
            format!("{call}({})", at(dir, name)),
        ));
    }
    Ok(name)
}

/// Opens `name` in `dir`; never through a symbolic link. `O_NOFOLLOW|O_CLOEXEC` are always added.
///
/// # Errors
/// `ELOOP` where it is a symbolic link, `ENOENT`, `EEXIST` with `O_EXCL`, ….
pub fn open_at(dir: impl AsFd, name: &OsStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let name = component("openat", &dir, name)?;
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(&dir, name, flags, mode)
        .call(|| format!("openat({}, {flags:?})", at(&dir, name)))
}

/// Makes a file in `dir` that has no name and goes when it is closed, open for reading and writing.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no such files, `ENOSPC`.
pub fn unnamed_file(dir: impl AsFd) -> Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    nix::fcntl::openat(&dir, c".", flags, Mode::S_IRUSR | Mode::S_IWUSR).call(|| {
        format!(
            "openat({}, \".\", O_TMPFILE|O_RDWR|O_EXCL)",
            FdName::of(&dir)
        )
    })
}

/// Makes a directory.
///
/// # Errors
/// `EEXIST`, `ENOSPC`, ….
pub fn mkdir(dir: impl AsFd, name: &OsStr, mode: Mode) -> Result<()> {
    let name = component("mkdirat", &dir, name)?;
    nix::sys::stat::mkdirat(&dir, name, mode)
        .call(|| format!("mkdirat({}, {:#o})", at(&dir, name), mode.bits()))
}

/// Makes a named pipe or a device, with no permissions beyond `mode` less the umask.
///
/// # Errors
/// `EPERM` for devices without CAP_MKNOD or in a user namespace; `EEXIST`.
pub fn mknod(dir: impl AsFd, name: &OsStr, node: Node, mode: Mode) -> Result<()> {
    let name = component("mknodat", &dir, name)?;
    let (kind, device) = match node {
        Node::Fifo => (SFlag::S_IFIFO, 0),
        Node::Char(major, minor) => (SFlag::S_IFCHR, nix::sys::stat::makedev(major, minor)),
        Node::Block(major, minor) => (SFlag::S_IFBLK, nix::sys::stat::makedev(major, minor)),
    };
    nix::sys::stat::mknodat(&dir, name, kind, mode, device)
        .call(|| format!("mknodat({}, {node:?})", at(&dir, name)))
}

/// Makes a symbolic link that says `target`.
///
/// # Errors
/// `EEXIST`, `ENAMETOOLONG`, ….
pub fn symlink(target: &OsStr, dir: impl AsFd, name: &OsStr) -> Result<()> {
    let name = component("symlinkat", &dir, name)?;
    nix::unistd::symlinkat(target, &dir, name)
        .call(|| format!("symlinkat({target:?}, {})", at(&dir, name)))
}

/// What a symbolic link says.
///
/// # Errors
/// `EINVAL` where it is none.
pub fn readlink(dir: impl AsFd, name: &OsStr) -> Result<OsString> {
    let name = component("readlinkat", &dir, name)?;
    nix::fcntl::readlinkat(&dir, name).call(|| format!("readlinkat({})", at(&dir, name)))
}

/// Gives the file `from_name` a second name. A symbolic link is linked itself, not what it points to.
///
/// # Errors
/// `EEXIST`, `EXDEV`, `EMLINK`, `EPERM` for directories.
pub fn link(
    from_dir: impl AsFd,
    from_name: &OsStr,
    to_dir: impl AsFd,
    to_name: &OsStr,
) -> Result<()> {
    let from_name = component("linkat", &from_dir, from_name)?;
    let to_name = component("linkat", &to_dir, to_name)?;
    nix::unistd::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty()).call(|| {
        format!(
            "linkat({}, {})",
            at(&from_dir, from_name),
            at(&to_dir, to_name)
        )
    })
}

/// Renames, replacing nothing: an existing target is `EEXIST`.
///
/// # Errors
/// `EEXIST`, `ENOENT`, `EXDEV`, ….
pub fn rename_new(
    from_dir: impl AsFd,
    from_name: &OsStr,
    to_dir: impl AsFd,
    to_name: &OsStr,
) -> Result<()> {
    let text = || {
        format!(
            "renameat2({}, {}, RENAME_NOREPLACE)",
            at(&from_dir, from_name),
            at(&to_dir, to_name)
        )
    };
    let c_string =
        |name: &OsStr| CString::new(name.as_bytes()).map_err(|_| Error::new(Errno::EINVAL, text()));
    let (from, to) = (c_string(from_name)?, c_string(to_name)?);
    // SAFETY: both names are C strings that live through the call, and the kernel only reads them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from_dir.as_fd().as_raw_fd(),
            from.as_ptr(),
            to_dir.as_fd().as_raw_fd(),
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    check(ret, text).map(drop)
}

/// Deletes a file that is no directory.
///
/// # Errors
/// `EISDIR`, `ENOENT`, ….
pub fn unlink(dir: impl AsFd, name: &OsStr) -> Result<()> {
    let name = component("unlinkat", &dir, name)?;
    nix::unistd::unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)
        .call(|| format!("unlinkat({}, 0)", at(&dir, name)))
}

/// Deletes an empty directory.
///
/// # Errors
/// `ENOTEMPTY`, `ENOTDIR`, ….
pub fn rmdir(dir: impl AsFd, name: &OsStr) -> Result<()> {
    let name = component("unlinkat", &dir, name)?;
    nix::unistd::unlinkat(&dir, name, UnlinkatFlags::RemoveDir)
        .call(|| format!("unlinkat({}, AT_REMOVEDIR)", at(&dir, name)))
}

/// A second, independent handle of an open directory, at its beginning.
fn open_dir_again(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, c".", flags, Mode::empty())
        .call(|| format!("openat({}, \".\", {flags:?})", FdName::of(dir)))
}

/// Opens a directory for reading.
fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    open_at(
        dir,
        name,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
}

/// What `name` is; a symbolic link itself, not what it points to.
///
/// # Errors
/// `ENOENT`, ….
pub fn stat_at(dir: impl AsFd, name: &OsStr) -> Result<FileStat> {
    let name = component("newfstatat", &dir, name)?;
    nix::sys::stat::fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .call(|| format!("newfstatat({}, AT_SYMLINK_NOFOLLOW)", at(&dir, name)))
}

/// What an open file is.
///
/// # Errors
/// The descriptor's file system is gone.
pub fn stat(fd: impl AsFd) -> Result<FileStat> {
    nix::sys::stat::fstat(&fd).call(|| format!("fstat({})", FdName::of(&fd)))
}

/// Gives `name` (a symbolic link itself) to an owner and a group.
///
/// # Errors
/// `EPERM` without CAP_CHOWN; `EINVAL` where an id does not exist in the user namespace.
pub fn chown_at(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    let name = component("fchownat", &dir, name)?;
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    nix::unistd::fchownat(&dir, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW).call(|| {
        format!(
            "fchownat({}, {uid}, {gid}, AT_SYMLINK_NOFOLLOW)",
            at(&dir, name)
        )
    })
}

/// Gives an open file to an owner and a group. This clears setuid, setgid and file capabilities.
///
/// # Errors
/// As [`chown_at`].
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    nix::unistd::fchown(&fd, owner, group)
        .call(|| format!("fchown({}, {uid}, {gid})", FdName::of(&fd)))
}

/// Sets the permissions of an open file, special bits included.
///
/// # Errors
/// `EPERM` where it belongs to someone else.
pub fn chmod(fd: impl AsFd, mode: Mode) -> Result<()> {
    nix::sys::stat::fchmod(&fd, mode)
        .call(|| format!("fchmod({}, {:#o})", FdName::of(&fd), mode.bits()))
}

/// Sets the permissions of `name`, which must not be a symbolic link.
///
/// The file is opened as a mere location first, so that a device or a named pipe is not really opened.
///
/// # Errors
/// `EOPNOTSUPP` for a symbolic link.
pub fn chmod_at(dir: impl AsFd, name: &OsStr, mode: Mode) -> Result<()> {
    let fd = open_at(&dir, name, OFlag::O_PATH, Mode::empty())?;
    let text = || format!("fchmodat({}, {:#o})", at(&dir, name), mode.bits());
    if SFlag::from_bits_truncate(stat(&fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
        return Err(Error::new(Errno::EOPNOTSUPP, text()));
    }
    let path = self_fd(&fd, None);
    // SAFETY: `path` is NUL-terminated and lives through the call; the kernel keeps no pointer.
    check(
        i64::from(unsafe { libc::chmod(path.as_ptr(), mode.bits()) }),
        text,
    )
    .map(drop)
}

/// Sets the times of last access and modification of an open file.
///
/// # Errors
/// `EPERM` where it belongs to someone else.
pub fn set_times(fd: impl AsFd, stamp: Stamp) -> Result<()> {
    let time = TimeSpec::new(stamp.seconds, i64::from(stamp.nanoseconds));
    nix::sys::stat::futimens(&fd, &time, &time)
        .call(|| format!("futimens({}, {})", FdName::of(&fd), stamp.seconds))
}

/// Sets the times of last access and modification of `name` (a symbolic link itself).
///
/// # Errors
/// As [`set_times`].
pub fn set_times_at(dir: impl AsFd, name: &OsStr, stamp: Stamp) -> Result<()> {
    let name = component("utimensat", &dir, name)?;
    let time = TimeSpec::new(stamp.seconds, i64::from(stamp.nanoseconds));
    nix::sys::stat::utimensat(&dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).call(
        || {
            format!(
                "utimensat({}, {}, AT_SYMLINK_NOFOLLOW)",
                at(&dir, name),
                stamp.seconds
            )
        },
    )
}

/// The names in a directory, in no order.
///
/// # Errors
/// `ENOTDIR`, `EIO`.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let handle = open_dir_again(dir)?;
    let mut listing =
        nix::dir::Dir::from_fd(handle).call(|| format!("fdopendir({})", FdName::of(dir)))?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry.call(|| format!("getdents64({})", FdName::of(dir)))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The path of an open file, or of `name` in an open directory, for the calls that take no descriptor.
/// The kernel resolves it to that very file: it is a magic link, and `name` is a single component.
fn self_fd(fd: impl AsFd, name: Option<&OsStr>) -> CString {
    let mut path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    path.retain(|byte| *byte != 0);
    // No NUL is left in it.
    CString::new(path).unwrap_or_default()
}

/// Writes everything that is still only in memory of the file system that `fd` is on to its disk.
///
/// # Errors
/// `EIO`, `ENOSPC` where delayed allocation found the disk full.
pub fn syncfs(fd: impl AsFd) -> Result<()> {
    nix::unistd::syncfs(&fd).call(|| format!("syncfs({})", FdName::of(&fd)))
}

/// Writes an open file or directory to its disk.
///
/// # Errors
/// `EIO`, `ENOSPC`.
pub fn fsync(fd: impl AsFd) -> Result<()> {
    nix::unistd::fsync(&fd).call(|| format!("fsync({})", FdName::of(&fd)))
}

/// Reserves the blocks of a file up to `length` bytes and makes it at least that long, so that writing there cannot
/// meet a full disk.
///
/// # Errors
/// `ENOSPC`; `EOPNOTSUPP` where the file system cannot reserve.
pub fn reserve(fd: impl AsFd, length: u64) -> Result<()> {
    let text = || format!("fallocate({}, 0, 0, {length})", FdName::of(&fd));
    let Ok(signed) = i64::try_from(length) else {
        return Err(Error::new(Errno::EFBIG, text()));
    };
    nix::fcntl::fallocate(&fd, FallocateFlags::empty(), 0, signed).call(text)
}

/// Space and inodes of the file system that `fd` is on.
///
/// # Errors
/// `EIO`, ….
pub fn space(fd: impl AsFd) -> Result<Space> {
    let found =
        nix::sys::statvfs::fstatvfs(&fd).call(|| format!("fstatfs({})", FdName::of(&fd)))?;
    let block = found.fragment_size();
    Ok(Space {
        bytes: found.blocks().saturating_mul(block),
        bytes_free: found.blocks_available().saturating_mul(block),
        inodes: found.files(),
        inodes_free: found.files_available(),
    })
}

#[cfg(test)]
mod tests;
