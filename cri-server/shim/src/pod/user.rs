//! The pod's user namespace. Its id maps are written by the shim, from outside: inside nobody may use the host's ids.
//!
//! ```text
//! maker                              shim
//!   unshare(CLONE_NEWUSER)
//!   ── "u" ────────────────────────▶   uid_map, gid_map
//!   ◀────────────────────────── "m" ──
//!   becomes root of the namespace
//! ```
//! The end of the pipe instead of a letter: the other side gave up.
use std::os::fd::OwnedFd;

use sys::{CloneFlags, Pid, creds, namespace};

use super::Error;
use crate::options::IdMaps;

/// One side's ends of the two pipes.
pub(super) struct Handshake {
    maps: IdMaps,
    from_other: OwnedFd,
    to_other: OwnedFd,
}

// === impl Handshake ===

impl Handshake {
    /// The shim's side and the maker's.
    pub(super) fn pair(maps: IdMaps) -> Result<(Self, Self), Error> {
        let pipe = || {
            sys::fd::pipe().map_err(|source| Error::Call {
                what: "user namespace of the pod",
                source,
            })
        };
        let (from_maker, to_shim) = pipe()?;
        let (from_shim, to_maker) = pipe()?;
        let shim = Self {
            maps,
            from_other: from_maker,
            to_other: to_maker,
        };
        let maker = Self {
            maps,
            from_other: from_shim,
            to_other: to_shim,
        };
        Ok((shim, maker))
    }

    /// The shim's part: the maps of `maker`. A maker that gave up says why in its report.
    pub(super) fn map_ids(self, maker: Pid) -> Result<(), Error> {
        let failed = |source| Error::Call {
            what: "id maps of the pod's user namespace",
            source,
        };
        if sys::fd::read(&self.from_other, &mut [0]).map_err(failed)? == 0 {
            return Ok(());
        }
        for (file, map) in [("uid_map", self.maps.uids), ("gid_map", self.maps.gids)] {
            let (path, line) = (format!("/proc/{maker}/{file}"), map.line());
            let call = || format!("write({path:?}, {:?})", line.trim_end());
            sys::error::Context::call(std::fs::write(&path, &line), call).map_err(failed)?;
        }
        sys::fd::write_all(&self.to_other, b"m").map_err(failed)
    }

    /// The maker's part.
    pub(super) fn enter(self) -> Result<(), String> {
        let steps = || -> sys::Result<bool> {
            namespace::unshare(CloneFlags::CLONE_NEWUSER)?;
            sys::fd::write_all(&self.to_other, b"u")?;
            if sys::fd::read(&self.from_other, &mut [0])? == 0 {
                return Ok(false);
            }
            // What it makes belongs to the pod's root, and /proc/sys asks who that is.
            creds::set_groups(&[])?;
            creds::set_group(0)?;
            creds::set_user(0)?;
            Ok(true)
        };
        match steps() {
            Ok(true) => Ok(()),
            Ok(false) => Err("the shim did not write its id maps".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
