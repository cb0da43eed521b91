//! Reservations on disk: `<dataDir>/<network>/<address>`, holding `<container id>\r\n<interface>`; the address given
//! last in `last_reserved_ip.<range set>`; and `lock`, held with flock while anything is read or changed.
//!
//! A reservation is written under another name and linked to its own, so a crash leaves a whole one or none. A third
//! name is its entry in the index ([`super::index`]).
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::super::Failure;
use super::super::gc::Valid;
use super::super::hash::fnv;
use super::index::Index;

/// Whose reservation it is: container id and interface.
type Owner<'a> = (&'a str, &'a str);

const LINE_BREAK: &str = "\r\n";
/// The name of a reservation before it has its own.
const FRESH: &str = ".reservation";

/// One address that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    pub(super) address: IpAddr,
    holder: Holder,
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// By the index: the hash of the owner.
    Indexed(u64),
    /// By the file's own words.
    Text(String),
}

/// The reservations of one network.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

/// The same while nobody else reads or changes them.
#[derive(Debug)]
pub(super) struct Locked {
    dir: PathBuf,
    index: Index,
    /// Unlocked when dropped.
    _lock: Flock<File>,
}

impl Store {
    /// The store of a network, made if it is not there.
    pub(super) fn open(data_dir: &Path, network: &str) -> Result<Store, Failure> {
        let dir = data_dir.join(network);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&dir)
            .map_err(|e| Failure::io("make directory", &dir, &e))?;
        Ok(Store { dir })
    }

    /// The store of a network, if anything was ever reserved in it.
    pub(super) fn find(data_dir: &Path, network: &str) -> Result<Option<Store>, Failure> {
        let dir = data_dir.join(network);
        match fs::metadata(&dir) {
            Ok(_) => Ok(Some(Store { dir })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io("stat", &dir, &e)),
        }
    }

    /// Waits until nobody else is at it.
    pub(super) fn lock(self) -> Result<Locked, Failure> {
        let path = self.dir.join("lock");
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let mut file = open.map_err(|e| Failure::io("open", &path, &e))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => {
                    return Ok(Locked {
                        index: Index::of(&self.dir),
                        dir: self.dir,
                        _lock: lock,
                    });
                }
                Err((again, nix::errno::Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(Failure::io("flock", &path, &errno.into())),
            }
        }
    }
}

impl Locked {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reserves an address; false if it is taken.
    pub(super) fn reserve(
        &self,
        address: IpAddr,
        owner: Owner<'_>,
        range_set: usize,
    ) -> Result<bool, Failure> {
        let path = self.dir.join(address.to_string());
        if self.is_leftover(&path) {
            fs::remove_file(&path).map_err(|e| Failure::io("remove", &path, &e))?;
        }
        let fresh = self.dir.join(FRESH);
        // One left by a crash may be the other name of a reservation: writing to it would change whose that is.
        fs::remove_file(&fresh).ok();
        let linked = write_file(&fresh, &key(owner)).and_then(|()| fs::hard_link(&fresh, &path));
        // Whether or not it was linked, the other name has done its work.
        fs::remove_file(&fresh).ok();
        match linked {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(Failure::io("write", &path, &e)),
        }
        self.index.add(&path, address, hash(owner));
        let last = self.dir.join(format!("last_reserved_ip.{range_set}"));
        if let Err(e) = write_file(&last, &address.to_string()) {
            // An address that we do not report must not stay taken.
            self.index.remove(address, hash(owner));
            fs::remove_file(&path).ok();
            return Err(Failure::io("write", &last, &e));
        }
        Ok(true)
    }

    /// The address given last from a range set.
    pub(super) fn last_reserved(&self, range_set: usize) -> Option<IpAddr> {
        let text =
            fs::read_to_string(self.dir.join(format!("last_reserved_ip.{range_set}"))).ok()?;
        text.trim().parse().ok()
    }

    /// All reservations. Empty files are left by a crash of the reference plugin, which makes a file before it
    /// fills it, and count as free.
    pub(super) fn reservations(&self) -> Result<Vec<Reservation>, Failure> {
        let failed = |e: std::io::Error| Failure::io("read directory", &self.dir, &e);
        let mut index = self.index.read();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let holder = match index.remove(&address) {
                Some(known) if known.inode == entry.ino() => Holder::Indexed(known.owner),
                stale => {
                    stale
                        .into_iter()
                        .for_each(|stale| self.index.remove(address, stale.owner));
                    match fs::read_to_string(entry.path()) {
                        Ok(text) if text.is_empty() => continue,
                        Ok(text) => Holder::Text(text),
                        Err(e) if e.kind() == ErrorKind::NotFound => continue,
                        // Unreadable, and so not ours: taken.
                        Err(_) => Holder::Text(String::new()),
                    }
                }
            };
            found.push(Reservation { address, holder });
        }
        for (address, stale) in index {
            self.index.remove(address, stale.owner);
        }
        found.sort_unstable_by_key(|r| r.address);
        Ok(found)
    }

    /// Releases everything that an owner holds.
    pub(super) fn release(&self, owner: Owner<'_>) -> Result<(), Failure> {
        // What a killed ADD was about to reserve. Under the lock nobody is in the middle of it.
        fs::remove_file(self.dir.join(FRESH)).ok();
        for reservation in self.reservations()?.iter().filter(|r| r.is_of(owner)) {
            self.release_address(reservation.address, owner)?;
        }
        Ok(())
    }

    /// Releases everything that none of these holds.
    pub(super) fn release_all_but(&self, valid: &[Valid]) -> Result<(), Failure> {
        let owners: Vec<Owner<'_>> = valid
            .iter()
            .map(|one| (one.container_id.as_str(), one.ifname.as_str()))
            .collect();
        for reservation in self.reservations()? {
            if owners.iter().any(|owner| reservation.is_of(*owner)) {
                continue;
            }
            let path = self.dir.join(reservation.address.to_string());
            if let Holder::Indexed(owner) = reservation.holder {
                self.index.remove(reservation.address, owner);
            }
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Failure::io("remove", &path, &e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Releases one address, if that owner holds it.
    pub(super) fn release_address(&self, address: IpAddr, owner: Owner<'_>) -> Result<(), Failure> {
        let path = self.dir.join(address.to_string());
        let held = match fs::read_to_string(&path) {
            // What a power cut leaves of a reservation in the index.
            Ok(text) => text.is_empty() || says(&text, owner),
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => return Err(Failure::io("read", &path, &e)),
        };
        self.index.remove(address, hash(owner));
        if !held {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::io("remove", &path, &e)),
            _ => Ok(()),
        }
    }

    /// Under the lock nobody is in the middle of writing.
    fn is_leftover(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == 0)
    }
}

fn key((container_id, ifname): Owner<'_>) -> String {
    format!("{}{LINE_BREAK}{ifname}", container_id.trim())
}

fn hash((container_id, ifname): Owner<'_>) -> u64 {
    fnv(&[container_id.trim(), ifname])
}

/// Whether a reservation's text names the owner. Old versions of the reference plugin wrote the container id alone.
fn says(text: &str, owner: Owner<'_>) -> bool {
    let text = text.trim();
    text == key(owner) || text == owner.0.trim()
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

impl Reservation {
    /// Whether it is the owner's.
    pub(super) fn is_of(&self, owner: Owner<'_>) -> bool {
        match &self.holder {
            Holder::Indexed(hashed) => *hashed == hash(owner),
            Holder::Text(text) => says(text, owner),
        }
    }
}
