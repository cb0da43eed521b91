//! Paths that someone else controls: resolved to descriptors by the kernel, never by joining strings.
//!
//! [`Root`] is a container's root directory; nothing resolves through it to the outside, whatever links lie inside.
//! [`Proc`] is a procfs that nobody could have mounted over. See `openat2(2)`.
#![allow(unsafe_code)]
mod proc;
mod root;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::Mode;

use crate::error::{Error, Result, check, flag_names};
use crate::fd::FdName;

pub use proc::Proc;
pub use root::Root;

/// How often a resolution that raced with a rename or mount is tried again (`EAGAIN`).
const RETRIES: usize = 128;

/// `openat2(2)` (Linux 5.6); close-on-exec is always added.
///
/// # Errors
/// As the manual page says; `EXDEV` where the path leaves what `resolve` allows, `ELOOP` for a refused link.
pub fn openat2(
    dirfd: impl AsFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> Result<OwnedFd> {
    let dirfd = dirfd.as_fd();
    try_openat2(dirfd, path, flags, mode, resolve).map_err(|errno| {
        let flags = flags | OFlag::O_CLOEXEC;
        let text = format!(
            "openat2({}, {path:?}, {}, {:#o}, {})",
            FdName::of(dirfd),
            flag_names(&flags, ""),
            mode.bits(),
            flag_names(&resolve, "")
        );
        Error::new(errno, text)
    })
}

/// The same without the text of an error, for a path that is often not there.
fn try_openat2(
    dirfd: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> std::result::Result<OwnedFd, Errno> {
    // SAFETY: all-zero is a valid `open_how`: three integers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | OFlag::O_CLOEXEC).bits().cast_unsigned());
    // openat2 refuses a mode where nothing can be created.
    how.mode = if flags.intersects(OFlag::O_CREAT) {
        u64::from(mode.bits())
    } else {
        0
    };
    how.resolve = resolve.bits();
    for _ in 0..RETRIES {
        let ret = path.with_nix_path(|path| {
            // SAFETY: `path` is NUL-terminated, `how` is initialised and its size passed; both live through the call.
            unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    dirfd.as_raw_fd(),
                    path.as_ptr(),
                    &raw const how,
                    size_of::<libc::open_how>(),
                )
            }
        })?;
        if ret >= 0 {
            let fd = RawFd::try_from(ret).map_err(|_| Errno::EBADF)?;
            // SAFETY: the kernel returned this new descriptor; nothing else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        match Errno::last() {
            Errno::EAGAIN | Errno::EINTR => {}
            errno => return Err(errno),
        }
    }
    Err(Errno::EAGAIN)
}

/// Whether `path` is the root of a mount, by `statx(2)` (Linux 5.8). A symbolic link is not followed.
///
/// # Errors
/// The path cannot be looked at.
pub fn is_mount_root(dirfd: impl AsFd, path: &Path) -> Result<bool> {
    // From linux/stat.h.
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let stat = statx(dirfd, path)?;
    Ok(stat.stx_attributes & STATX_ATTR_MOUNT_ROOT != 0)
}

fn statx(dirfd: impl AsFd, path: &Path) -> Result<libc::statx> {
    let dirfd = dirfd.as_fd();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    let text = || format!("statx({}, {path:?})", FdName::of(dirfd));
    // SAFETY: all-zero is a valid `statx`: integers only.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let ret = path
        .with_nix_path(|path| {
            // Not the C library's function: std refers to it weakly, which leaves it out of a static program.
            // SAFETY: `path` is NUL-terminated and `stat` writable through the call.
            unsafe {
                libc::syscall(
                    libc::SYS_statx,
                    dirfd.as_raw_fd(),
                    path.as_ptr(),
                    flags,
                    libc::STATX_BASIC_STATS,
                    &raw mut stat,
                )
            }
        })
        .map_err(|errno| Error::new(errno, text()))?;
    check(ret, text)?;
    Ok(stat)
}
