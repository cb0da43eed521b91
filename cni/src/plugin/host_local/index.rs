//! Who holds what, without reading every reservation: `.owners/<address>=<hash of the owner>`, a second name of the
//! reservation's file.
//!
//! It is a help and not a truth. An entry counts only while it is the same file (inode) as the reservation it names, so
//! whatever the reference plugin does beside us, we see: what it reserved has no entry and is read; what it released
//! leaves an entry without a reservation, which goes at the next look. (The reference plugin even removes our
//! entries itself, because it looks for an owner's files in all directories.)
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt};
use std::path::{Path, PathBuf};

const DIR: &str = ".owners";

/// The second names of one network's reservations.
#[derive(Debug)]
pub(super) struct Index {
    dir: PathBuf,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: u64,
    pub(super) inode: u64,
}

impl Index {
    pub(super) fn of(store: &Path) -> Index {
        Index {
            dir: store.join(DIR),
        }
    }

    fn path(&self, address: IpAddr, owner: u64) -> PathBuf {
        self.dir.join(format!("{address}={owner:016x}"))
    }

    /// All entries; none if there is no index yet.
    pub(super) fn read(&self) -> HashMap<IpAddr, Entry> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let (address, owner) = name.to_str()?.split_once('=')?;
                let owner = u64::from_str_radix(owner, 16).ok()?;
                Some((
                    address.parse().ok()?,
                    Entry {
                        owner,
                        inode: entry.ino(),
                    },
                ))
            })
            .collect()
    }

    /// Adds a reservation. Without its entry it is only slower to find, so a failure is none.
    pub(super) fn add(&self, reservation: &Path, address: IpAddr, owner: u64) {
        let entry = self.path(address, owner);
        // Left from an earlier life of the address.
        fs::remove_file(&entry).ok();
        if fs::hard_link(reservation, &entry).is_err() {
            let made = DirBuilder::new().mode(0o755).create(&self.dir);
            made.and_then(|()| fs::hard_link(reservation, &entry)).ok();
        }
    }

    /// Removes an entry; one that stays is seen to be stale.
    pub(super) fn remove(&self, address: IpAddr, owner: u64) {
        fs::remove_file(self.path(address, owner)).ok();
    }
}
