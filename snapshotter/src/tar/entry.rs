//! One entry of a layer archive, with every extension resolved and every field checked.

use std::ffi::CString;

use sys::fs::Stamp;
use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use super::error::ApplyError;

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Char(u64, u64),
    Block(u64, u64),
    Fifo,
    /// A label or another remark that makes no file.
    Nothing,
}

/// An entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: Stamp,
    /// Bytes of content that follow in the archive.
    pub(super) stored: u64,
    pub(super) xattrs: Vec<(CString, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// Where the content of a file with holes belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// `(offset, length)` of each piece of content, in the order in which they are stored.
    pub(super) pieces: Vec<(u64, u64)>,
    /// The file's length, holes included.
    pub(super) length: u64,
}

/// The path as messages show it.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Entry {
    /// Takes over a parsed entry; `sparse` is its map and full length where it has holes.
    pub(super) fn from_parsed(
        parsed: &ParsedEntry<'_>,
        sparse: Option<(Vec<SparseEntry>, u64)>,
    ) -> Result<Entry, ApplyError> {
        let refused = |reason: String| ApplyError::Refused {
            entry: shown(&parsed.path),
            reason,
        };
        let kind = kind(parsed)?;
        let id = |what: &str, id: u64| match u32::try_from(id) {
            // The last one means "leave as it is" to chown.
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(refused(format!("{what} {id} is not one that Linux has"))),
        };
        let (uid, gid) = (id("uid", parsed.uid)?, id("gid", parsed.gid)?);
        // Only files have content: Go and GNU tar ignore the size of everything else as well.
        let stored = if matches!(kind, Kind::File) {
            parsed.size
        } else {
            0
        };
        let sparse = sparse
            .map(|(pieces, length)| Sparse::checked(&pieces, length, stored))
            .transpose()
            .map_err(refused)?;
        let mut xattrs = Vec::with_capacity(parsed.xattrs.len());
        for (key, value) in &parsed.xattrs {
            let key = CString::new(key.as_ref())
                .map_err(|_| refused("an extended attribute's name contains a NUL".into()))?;
            xattrs.push((key, value.to_vec()));
        }
        Ok(Entry {
            path: parsed.path.to_vec(),
            kind,
            mode: parsed.mode & 0o7777,
            uid,
            gid,
            modified: modified(parsed),
            stored,
            xattrs,
            sparse,
        })
    }
}

impl Sparse {
    /// Checks that the pieces lie within the file and add up to what is stored.
    fn checked(pieces: &[SparseEntry], length: u64, stored: u64) -> Result<Sparse, String> {
        let mut total = 0_u64;
        let mut end = 0_u64;
        for piece in pieces {
            let piece_end = piece
                .offset
                .checked_add(piece.length)
                .filter(|piece_end| *piece_end <= length);
            match piece_end {
                Some(piece_end) if piece.offset >= end => end = piece_end,
                _ => return Err("its map of holes overlaps or goes beyond its end".into()),
            }
            total = total.saturating_add(piece.length);
        }
        if total != stored {
            return Err(format!(
                "its map of holes names {total} bytes and {stored} are stored"
            ));
        }
        Ok(Sparse {
            pieces: pieces
                .iter()
                .map(|piece| (piece.offset, piece.length))
                .collect(),
            length,
        })
    }
}

fn kind(parsed: &ParsedEntry<'_>) -> Result<Kind, ApplyError> {
    let refused = |reason: &str| ApplyError::Refused {
        entry: shown(&parsed.path),
        reason: reason.into(),
    };
    let target = || match &parsed.link_target {
        Some(target) if target.contains(&0) => Err(refused("its link target contains a NUL")),
        Some(target) => Ok(target.to_vec()),
        None => Err(refused("it is a link without a target")),
    };
    let device = || match (parsed.dev_major, parsed.dev_minor) {
        // 12 and 20 bits: what the kernel stores. More would wrap around to another device.
        (Some(major), Some(minor)) if major < 1 << 12 && minor < 1 << 20 => {
            Ok((u64::from(major), u64::from(minor)))
        }
        (None, None) => Ok((0, 0)),
        _ => Err(refused("its device number is out of range")),
    };
    Ok(match parsed.entry_type {
        // Before POSIX a directory was a file whose name ends in a slash.
        EntryType::Regular if parsed.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Link => Kind::HardLink(target()?),
        EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Other(b'V') => Kind::Nothing,
        other => {
            let reason = format!(
                "entries of type {:?} are not supported",
                char::from(other.to_byte())
            );
            return Err(ApplyError::Unsupported {
                entry: shown(&parsed.path),
                reason,
            });
        }
    })
}

/// The time of modification: PAX has it with a fraction and before 1970, which the header does not.
fn modified(parsed: &ParsedEntry<'_>) -> Stamp {
    let seconds = i64::try_from(parsed.mtime).unwrap_or(i64::MAX);
    let plain = Stamp {
        seconds,
        nanoseconds: 0,
    };
    let Some(pax) = parsed.pax else { return plain };
    let records = PaxExtensions::new(pax).filter_map(Result::ok);
    let stamps = records.filter(|record| record.key() == Ok("mtime"));
    stamps
        .last()
        .and_then(|record| decimal(record.value().ok()?))
        .unwrap_or(plain)
}

/// `-1234.5` as seconds, rounded down, and nanoseconds.
fn decimal(text: &str) -> Option<Stamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some(Stamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        }),
        _ => Some(Stamp {
            seconds,
            nanoseconds,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.123456789123", Some((12, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1e3", None),
            ("1.x", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(
                decimal(text).map(|s| (s.seconds, s.nanoseconds)),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn maps_of_holes_that_overlap_or_overflow_are_refused() {
        let map = |pieces: &[(u64, u64)]| {
            pieces
                .iter()
                .map(|&(offset, length)| SparseEntry { offset, length })
                .collect::<Vec<_>>()
        };
        assert!(Sparse::checked(&map(&[(0, 10), (20, 10), (100, 0)]), 100, 20).is_ok());
        for (pieces, length, stored) in [
            (vec![(0, 10), (5, 10)], 100, 20),
            (vec![(20, 10), (0, 10)], 100, 20),
            (vec![(95, 10)], 100, 10),
            (vec![(u64::MAX, 10)], u64::MAX, 10),
            (vec![(0, 10)], 100, 11),
        ] {
            assert!(
                Sparse::checked(&map(&pieces), length, stored).is_err(),
                "{pieces:?}"
            );
        }
    }
}
