//! What a layer says about the layers below it, and how overlayfs spells that.
//!
//! In an archive, `.wh.name` hides `name` of the layers below, and `.wh..wh..opq` hides everything in its directory.
//! On disk, a character device 0/0 is the one and the attribute `trusted.overlay.opaque=y` of the directory the other.
//! <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use sys::error::Error;
use sys::fs::{self, Mode, Node, SFlag};
use sys::{Errno, Result};

/// The attribute of a directory that hides the ones below it.
pub(super) const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// What the last component of an entry's path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// Nothing: it is an ordinary name.
    None,
    /// Hide this name.
    Hide(&'a OsStr),
    /// Hide everything in the entry's directory.
    Opaque,
    /// A note of the AUFS driver that no other one needs.
    Aufs,
    /// A mark for a name that no file can have.
    Bad,
}

/// Reads the mark in a name.
pub(super) fn mark(name: &OsStr) -> Mark<'_> {
    let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") else {
        return Mark::None;
    };
    match hidden {
        b".wh..opq" => Mark::Opaque,
        b"" | b"." | b".." => Mark::Bad,
        _ if hidden.starts_with(b".wh.") => Mark::Aufs,
        _ => Mark::Hide(OsStr::from_bytes(hidden)),
    }
}

/// Whether `name` is a whiteout.
pub(super) fn is_whiteout(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    let stat = fs::stat_at(dir, name)?;
    Ok(
        SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
            && stat.st_rdev == 0,
    )
}

/// Hides `name` of the layers below. What this very layer has of that name stays, whichever came first in the
/// archive: a whiteout speaks about other layers only. `true` where this made a file.
pub(super) fn hide(dir: &OwnedFd, name: &OsStr) -> Result<bool> {
    match fs::mknod(dir, name, Node::Char(0, 0), Mode::empty()) {
        Ok(()) => Ok(true),
        Err(Error {
            errno: Errno::EEXIST,
            ..
        }) => {
            let stat = fs::stat_at(dir, name)?;
            if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                set_opaque(dir, name)?;
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Hides everything that the layers below have in the directory `name`.
pub(super) fn set_opaque(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    fs::set_xattr_at(dir, name, OPAQUE, b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_names_and_never_name_a_directory_above() {
        for (name, expected) in [
            ("file", Mark::None),
            ("x.wh.file", Mark::None),
            (".wh", Mark::None),
            (".wh.file", Mark::Hide(OsStr::new("file"))),
            (".wh...", Mark::Bad),
            (".wh..", Mark::Bad),
            (".wh.", Mark::Bad),
            (".wh....", Mark::Hide(OsStr::new("..."))),
            (".wh..wh..opq", Mark::Opaque),
            (".wh..wh.plnk", Mark::Aufs),
            (".wh..wh.aufs", Mark::Aufs),
        ] {
            assert_eq!(mark(OsStr::new(name)), expected, "{name}");
        }
    }
}
