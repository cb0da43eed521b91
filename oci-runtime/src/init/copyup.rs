//! `tmpcopyup`: what a tmpfs hides is copied into it first, relative to descriptors, following no link.
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use sys::fs::Node;

use crate::error::{Error, Result};

/// How deep directories may be nested: the copy is recursive.
const MAX_DEPTH: usize = 256;

/// Copies the content of the directory `from` into the empty directory `to`.
///
/// # Errors
/// A file that cannot be copied; the kind of file that a tmpfs cannot hold.
pub(super) fn copy(from: impl AsFd, to: impl AsFd) -> Result<()> {
    Copy::default().level(from, to, 0)
}

/// What the copy has to remember: where the first of several names of a file went.
#[derive(Default)]
struct Copy {
    linked: Vec<(Identity, OwnedFd, OsString)>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

fn open_dir(at: impl AsFd, name: &OsStr) -> sys::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    sys::path::openat2(
        at,
        Path::new(name),
        flags,
        Mode::empty(),
        ResolveFlag::RESOLVE_NO_SYMLINKS,
    )
}

impl Copy {
    fn level(&mut self, from: impl AsFd, to: impl AsFd, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::new(format!(
                "tmpcopyup: more than {MAX_DEPTH} directories deep"
            )));
        }
        let from = open_dir(from, OsStr::new("."))?;
        let to = open_dir(to, OsStr::new("."))?;
        for name in names(&from)? {
            self.entry(&from, &to, &name, depth)
                .map_err(|error| error.within(format!("tmpcopyup {name:?}")))?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| sys::Error::new(errno, "fstatat"))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 && kind != SFlag::S_IFDIR {
            let first = self.linked.iter().find(|(known, ..)| *known == identity);
            if let Some((_, dir, first)) = first {
                return Ok(sys::fs::link(dir, first, to, name)?);
            }
            let dir = to
                .try_clone()
                .map_err(|error| Error::new(error.to_string()))?;
            self.linked.push((identity, dir, name.to_owned()));
        }
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        match kind {
            SFlag::S_IFDIR => {
                sys::fs::mkdir(to, name, Mode::S_IRWXU)?;
                self.level(open_dir(from, name)?, open_dir(to, name)?, depth + 1)?;
            }
            SFlag::S_IFREG => copy_file(from, to, name)?,
            SFlag::S_IFLNK => sys::fs::symlink(&sys::fs::readlink(from, name)?, to, name)?,
            SFlag::S_IFIFO => sys::fs::mknod(to, name, Node::Fifo, mode)?,
            _ => return Err(Error::new("neither a file, a directory, a link nor a pipe")),
        }
        keep_attributes(from, to, name, &stat)
    }
}

/// Owner, permissions and extended attributes of the copy.
fn keep_attributes(from: &OwnedFd, to: &OwnedFd, name: &OsStr, stat: &FileStat) -> Result<()> {
    sys::fs::chown_at(to, name, stat.st_uid, stat.st_gid)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        // After the owner: changing that clears the set-user-id bit.
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        sys::fs::chmod_at(to, name, mode)?;
    }
    for key in sys::fs::list_xattr_at(from, name)? {
        if let Some(value) = sys::fs::get_xattr_at(from, name, &key)? {
            match sys::fs::set_xattr_at(to, name, &key, &value) {
                // What tmpfs does not keep, or not for the users of a user namespace.
                Err(error) if matches!(error.errno, Errno::EOPNOTSUPP | Errno::EPERM) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn names(dir: &OwnedFd) -> Result<Vec<OsString>> {
    let fail = |errno| Error::from(sys::Error::new(errno, "readdir"));
    let copy = dir
        .try_clone()
        .map_err(|error| Error::new(error.to_string()))?;
    let mut dir = Dir::from_fd(copy).map_err(fail)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::os::unix::ffi::OsStringExt::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

fn copy_file(from: &OwnedFd, to: &impl AsFd, name: &OsStr) -> Result<()> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let source = sys::path::openat2(from, Path::new(name), flags, Mode::empty(), resolve)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let target = sys::path::openat2(
        to,
        Path::new(name),
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
        resolve,
    )?;
    let mut target = std::fs::File::from(target);
    std::io::copy(&mut std::fs::File::from(source), &mut target)
        .and_then(|_| target.flush())
        .map_err(|error| sys::Error::from_io(&error, "copy").into())
}
