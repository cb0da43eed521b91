//! The session keyring, `keyctl(2)`.
#![allow(unsafe_code)]
use std::ffi::CStr;

use nix::errno::Errno;

use crate::error::{Error, Result, check};

/// The serial number of a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyring(libc::c_long);

/// Its owner may find keys in it.
pub const OWNER_SEARCH: u32 = 0x0008_0000;
/// Everybody may find keys in it.
pub const OTHER_SEARCH: u32 = 0x0000_0008;

/// Joins the session keyring called `name`, a new one where there is none, so that the keys of the caller's session
/// stay behind. `None` where the kernel has no keyrings or an outer filter forbids them.
///
/// # Errors
/// `EDQUOT` where the user has too many keys.
pub fn join_session_keyring(name: &CStr) -> Result<Option<Keyring>> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is NUL-terminated and lives through the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    match check(ret, || {
        format!("keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name:?})")
    }) {
        Err(Error {
            errno: Errno::ENOSYS | Errno::EPERM,
            ..
        }) => Ok(None),
        other => other.map(|serial| Some(Keyring(serial))),
    }
}

impl Keyring {
    /// Gives the permissions `more` besides those that it has.
    ///
    /// # Errors
    /// `EACCES` where the keyring is not the caller's.
    pub fn allow(self, more: u32) -> Result<()> {
        const KEYCTL_SETPERM: libc::c_int = 5;
        let permissions = self.permissions()? | more;
        // SAFETY: integers only.
        let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, self.0, permissions) };
        check(ret, || {
            format!("keyctl(KEYCTL_SETPERM, {}, {permissions:#x})", self.0)
        })
        .map(drop)
    }

    /// Its permissions, `KEY_POS_VIEW` and so on.
    ///
    /// # Errors
    /// `EACCES` where the caller may not look at it.
    pub fn permissions(self) -> Result<u32> {
        const KEYCTL_DESCRIBE: libc::c_int = 6;
        let text = || format!("keyctl(KEYCTL_DESCRIBE, {})", self.0);
        let mut description = [0_u8; 256];
        // SAFETY: pointer and length are of one live array; the kernel writes no more than that.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                KEYCTL_DESCRIBE,
                self.0,
                description.as_mut_ptr(),
                description.len(),
            )
        };
        check(ret, text)?;
        parse_permissions(&description).ok_or_else(|| Error::new(Errno::EPROTO, text()))
    }
}

/// From `type;uid;gid;permissions;name`, the permissions in hexadecimal.
fn parse_permissions(description: &[u8]) -> Option<u32> {
    let field = description.split(|byte| *byte == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_fourth_field() {
        assert_eq!(
            parse_permissions(b"keyring;0;0;3f1b0000;_ses.web\0"),
            Some(0x3f1b_0000)
        );
        assert_eq!(parse_permissions(b"keyring;0;0"), None);
        assert_eq!(parse_permissions(b"keyring;0;0;+1;x"), Some(1));
        assert_eq!(parse_permissions(b""), None);
    }
}
