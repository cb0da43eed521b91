//! The directories of a layer being unpacked: finding an entry's parent, and making it where the archive does not.
//!
//! Entries are reached by descriptor only. The kernel resolves the path with the layer's directory as its root
//! (`openat2`, `RESOLVE_IN_ROOT`), so that a symbolic link in the layer leads somewhere in the layer, whatever it says.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sys::Errno;
use sys::Result;
use sys::error::{Context, Error};
use sys::fs::{self, Mode, OFlag, Stamp};
use sys::path::Root;

use super::whiteout;

/// How many symbolic links one path may lead through.
const MAX_LINKS: usize = 40;

/// The layer's directories.
pub(super) struct Dirs {
    root: Root,
    /// Where the layer's directory is, as the kernel names it.
    root_path: PathBuf,
    /// The parent that was used last: archives list a directory's files together.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories that no entry describes, by their path in the layer.
    pub(super) implicit: BTreeSet<PathBuf>,
    /// Times to be set once nothing changes any more.
    times: HashMap<Vec<u8>, Stamp>,
    /// Directories made.
    pub(super) made: u64,
}

impl Dirs {
    pub(super) fn new(root: OwnedFd) -> Result<Dirs> {
        let root_path = real_path(&root)?;
        let root = Root::from_fd(root);
        Ok(Dirs {
            root,
            root_path,
            last: None,
            implicit: BTreeSet::new(),
            times: HashMap::new(),
            made: 0,
        })
    }

    /// The layer's directory itself.
    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// The directory with this path, made where it is missing.
    pub(super) fn make(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let found = match self.open(path) {
            Err(Error {
                errno: Errno::ENOENT | Errno::ENOTDIR,
                ..
            }) => self.make_all(path)?,
            other => other?,
        };
        let fd = Rc::new(found);
        self.last = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// The directory with this path, if there is one.
    pub(super) fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.root
            .open_at(Path::new(OsStr::from_bytes(path)), flags, Mode::empty())
    }

    /// Walks down, following links as the kernel does, and makes what is missing.
    fn make_all(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let mut todo = parts(path);
        let mut way = vec![self.open(b"")?];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let Some(here) = way.last() else { break };
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            match fs::open_at(here, &name, flags, Mode::empty()) {
                Ok(fd) => way.push(fd),
                Err(Error {
                    errno: Errno::ENOENT,
                    ..
                }) => {
                    let fd = self.make_implicit(here, &name)?;
                    way.push(fd);
                }
                // With O_DIRECTORY|O_NOFOLLOW a link is ENOTDIR, as every other file is.
                Err(error) if matches!(error.errno, Errno::ENOTDIR | Errno::ELOOP) => {
                    if whiteout::is_whiteout(here, &name)? {
                        fs::unlink(here, &name)?;
                        let fd = self.make_implicit(here, &name)?;
                        whiteout::set_opaque(here, &name)?;
                        way.push(fd);
                        continue;
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::new(Errno::ELOOP, error.call));
                    }
                    let Ok(target) = fs::readlink(here, &name) else {
                        return Err(error);
                    };
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(parts(target.as_bytes()));
                }
                Err(error) => return Err(error),
            }
        }
        match way.pop() {
            Some(fd) => Ok(fd),
            None => self.open(b""),
        }
    }

    /// Makes a directory that the archive does not describe.
    fn make_implicit(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
        fs::mkdir(parent, name, Mode::S_IRWXU)?;
        self.made += 1;
        fs::chmod_at(parent, name, Mode::from_bits_truncate(0o755))?;
        let fd = fs::open_at(
            parent,
            name,
            OFlag::O_PATH | OFlag::O_DIRECTORY,
            Mode::empty(),
        )?;
        self.implicit.insert(self.path_of(&fd)?);
        Ok(fd)
    }

    /// The path in the layer of one of its directories.
    fn path_of(&self, fd: &OwnedFd) -> Result<PathBuf> {
        let path = real_path(fd)?;
        Ok(path
            .strip_prefix(&self.root_path)
            .map(Path::to_owned)
            .unwrap_or(path))
    }

    /// Notes that an entry describes the directory `name` in `parent` after all.
    pub(super) fn described(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        if !self.implicit.is_empty() {
            let path = self.path_of(parent)?.join(name);
            self.implicit.remove(&path);
        }
        Ok(())
    }

    /// Notes that something was removed: directories that were open may be gone.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.last = None;
        self.times.remove(path);
    }

    /// Notes a directory's time, to be set at the end.
    pub(super) fn stamp_later(&mut self, path: Vec<u8>, stamp: Stamp) {
        self.times.insert(path, stamp);
    }

    /// Sets the times of all directories, now that nothing is made in them any more.
    pub(super) fn stamp_all(&mut self) -> Result<()> {
        for (path, stamp) in std::mem::take(&mut self.times) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            match self
                .root
                .open_at(Path::new(OsStr::from_bytes(&path)), flags, Mode::empty())
            {
                Ok(fd) => fs::set_times(&fd, stamp)?,
                // A later entry of the archive replaced it.
                Err(Error {
                    errno: Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where the kernel says that a directory is.
fn real_path(fd: &OwnedFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).call(|| format!("readlink({link:?})"))
}

/// The components of a path, the first one last.
fn parts(path: &[u8]) -> Vec<OsString> {
    let parts = path.split(|byte| *byte == b'/').rev();
    let named = parts.filter(|part| !matches!(*part, b"" | b"."));
    named
        .map(|part| OsStr::from_bytes(part).to_owned())
        .collect()
}
