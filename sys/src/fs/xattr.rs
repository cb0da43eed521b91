//! Extended attributes. See `xattr(7)`.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{at, component, self_fd};
use crate::error::{Result, check};
use crate::fd::FdName;

/// The longest value, and the longest list of names, that the kernel allows.
const MAX_XATTR: usize = 65536;

/// Sets an extended attribute of a file open for reading or writing.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has none of this kind, `EPERM`, `ENOSPC`, `E2BIG`.
pub fn set_xattr(fd: impl AsFd, key: &CStr, value: &[u8]) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: `key` is NUL-terminated, `value` is readable for its length, `fd` is open for the whole call.
    let ret = unsafe { libc::fsetxattr(raw, key.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(i64::from(ret), || {
        format!(
            "fsetxattr({}, {key:?}, {} bytes)",
            FdName::of(&fd),
            value.len()
        )
    })
    .map(drop)
}

/// Sets an extended attribute of `name` (a symbolic link itself).
///
/// # Errors
/// As [`set_xattr`].
pub fn set_xattr_at(dir: impl AsFd, name: &OsStr, key: &CStr, value: &[u8]) -> Result<()> {
    let text = || {
        format!(
            "lsetxattr({}, {key:?}, {} bytes)",
            at(&dir, name),
            value.len()
        )
    };
    let path = self_fd(&dir, Some(component("lsetxattr", &dir, name)?));
    // SAFETY: `path` and `key` are NUL-terminated, `value` is readable for its length; nothing is kept.
    let ret = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(i64::from(ret), text).map(drop)
}

/// An extended attribute of `name` (a symbolic link itself), or `None` where it has no such one.
///
/// # Errors
/// `EPERM`, `ENOENT`, ….
pub fn get_xattr_at(dir: impl AsFd, name: &OsStr, key: &CStr) -> Result<Option<Vec<u8>>> {
    let path = self_fd(&dir, Some(component("lgetxattr", &dir, name)?));
    let mut value = vec![0_u8; MAX_XATTR];
    // SAFETY: `path` and `key` are NUL-terminated, `value` is writable for its length; nothing is kept.
    let ret = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    filled(ret, value, || {
        format!("lgetxattr({}, {key:?})", at(&dir, name))
    })
}

/// The names of all extended attributes of `name` (a symbolic link itself).
///
/// # Errors
/// `ENOENT`, ….
pub fn list_xattr_at(dir: impl AsFd, name: &OsStr) -> Result<Vec<CString>> {
    let path = self_fd(&dir, Some(component("llistxattr", &dir, name)?));
    let mut names = vec![0_u8; MAX_XATTR];
    // SAFETY: `path` is NUL-terminated and `names` writable for its length; nothing is kept.
    let ret = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let names = filled(ret, names, || format!("llistxattr({})", at(&dir, name)))?;
    Ok(split_names(&names.unwrap_or_default()))
}

/// An extended attribute of an open file, or `None` where it has no such one.
///
/// # Errors
/// `EPERM`, ….
pub fn get_xattr(fd: impl AsFd, key: &CStr) -> Result<Option<Vec<u8>>> {
    let raw = fd.as_fd().as_raw_fd();
    let mut value = vec![0_u8; MAX_XATTR];
    // SAFETY: `key` is NUL-terminated, `value` is writable for its length, `fd` is open for the whole call.
    let ret = unsafe { libc::fgetxattr(raw, key.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    filled(ret, value, || {
        format!("fgetxattr({}, {key:?})", FdName::of(&fd))
    })
}

/// The names of all extended attributes of an open file.
///
/// # Errors
/// `E2BIG` where they do not fit into 64 KiB.
pub fn list_xattr(fd: impl AsFd) -> Result<Vec<CString>> {
    let raw = fd.as_fd().as_raw_fd();
    let mut names = vec![0_u8; MAX_XATTR];
    // SAFETY: `names` is writable for its length, `fd` is open for the whole call.
    let ret = unsafe { libc::flistxattr(raw, names.as_mut_ptr().cast(), names.len()) };
    let names = filled(ret, names, || format!("flistxattr({})", FdName::of(&fd)))?;
    Ok(split_names(&names.unwrap_or_default()))
}

/// What a call wrote into `buffer`, of which it returned the length; `None` for "no such attribute".
fn filled(
    ret: isize,
    mut buffer: Vec<u8>,
    call: impl FnOnce() -> String,
) -> Result<Option<Vec<u8>>> {
    if ret < 0 && matches!(Errno::last(), Errno::ENODATA | Errno::EOPNOTSUPP) {
        return Ok(None);
    }
    let size = check(i64::try_from(ret).unwrap_or(-1), call)?;
    buffer.truncate(usize::try_from(size).unwrap_or(0));
    Ok(Some(buffer))
}

/// The names in a list of NUL-terminated ones.
fn split_names(list: &[u8]) -> Vec<CString> {
    let names = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    // A split at every NUL leaves none behind.
    names.filter_map(|name| CString::new(name).ok()).collect()
}
