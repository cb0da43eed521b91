//! A directory tree with a hostile content, used as a root.
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;

use super::{openat2, try_openat2};
use crate::error::{Context, Error, Result};
use crate::fd::FdName;

/// How many dangling symbolic links a path may lead through, as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// How everything inside a root is resolved.
const INSIDE: ResolveFlag = ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// An `O_PATH` descriptor of a directory that is taken as `/` for everything below it: absolute links and `..`
/// stay inside, links of procfs (`/proc/self/fd/…`) are refused.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory `path` of the host.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR` and the like.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        openat2(AT_FDCWD, path, flags, Mode::empty(), ResolveFlag::empty()).map(Self)
    }

    /// Uses a directory that is open already (or the root of a detached mount).
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens `path` inside with the given flags. An absolute `path` begins at the root.
    ///
    /// # Errors
    /// `ENOENT` where it is missing, `ELOOP` for a magic link.
    pub fn open_at(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
        openat2(&self.0, nonempty(path), flags, mode, INSIDE)
    }

    /// An `O_PATH` descriptor of what `path` is inside, links followed.
    ///
    /// # Errors
    /// As [`Root::open_at`].
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlag::O_PATH, Mode::empty())
    }

    /// An `O_PATH` descriptor of what `path` is inside; a link as last component is itself the result.
    ///
    /// # Errors
    /// As [`Root::open_at`].
    pub fn resolve_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())
    }

    /// Opens `path` inside with the given flags; `None` where it is missing.
    ///
    /// # Errors
    /// As [`Root::open_at`], but for `ENOENT`.
    pub fn find(&self, path: &Path, flags: OFlag) -> Result<Option<OwnedFd>> {
        let path = nonempty(path);
        match try_openat2(self.0.as_fd(), path, flags, Mode::empty(), INSIDE) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) => Ok(None),
            // Once more for the text of the error.
            Err(_) => self.open_at(path, flags, Mode::empty()).map(Some),
        }
    }

    /// The directory `path`, made with its parents where missing (with `mode` for each new one).
    ///
    /// A dangling link on the way is followed: its target is made, inside the root.
    ///
    /// # Errors
    /// `ENOTDIR` where something else is in the way, `EROFS`, `EACCES`.
    pub fn mkdir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        if let Some(found) = self.find(path, directory)? {
            return Ok(found);
        }
        // Nearly always only the last component is missing.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Some(parent) = self.find(parent, directory)?
            && nix::sys::stat::mkdirat(&parent, name, mode).is_ok()
        {
            return open_made(&parent, name);
        }
        let mut todo = parts(path);
        let mut done = PathBuf::from("/");
        let mut parent = self.open_at(&done, directory, Mode::empty())?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let here = done.join(&name);
            if let Some(found) = self.find(&here, directory)? {
                parent = found;
                done = here;
                continue;
            }
            match nix::sys::stat::mkdirat(&parent, name.as_os_str(), mode) {
                Ok(()) => {
                    parent = open_made(&parent, &name)?;
                    done = here;
                }
                Err(Errno::EEXIST) => {
                    links += 1;
                    let text = || format!("mkdirat({}, {name:?})", FdName::of(&parent));
                    if links > MAX_LINKS {
                        return Err(Error::new(Errno::ELOOP, text()));
                    }
                    let target = nix::fcntl::readlinkat(&parent, name.as_os_str()).call(text)?;
                    let target = PathBuf::from(target);
                    if target.is_absolute() {
                        done = PathBuf::from("/");
                        parent = self.open_at(&done, directory, Mode::empty())?;
                    }
                    todo.extend(parts(&target));
                }
                Err(errno) => {
                    return Err(Error::new(
                        errno,
                        format!(
                            "mkdirat({}, {name:?}, {:#o})",
                            FdName::of(&parent),
                            mode.bits()
                        ),
                    ));
                }
            }
        }
        Ok(parent)
    }

    /// An `O_PATH` descriptor of the file `path`, made empty (with its parents, mode 0755) where missing.
    ///
    /// A dangling link as last component is followed: its target is made, inside the root.
    ///
    /// # Errors
    /// As [`Root::mkdir_all`]; `EISDIR` for a path that has no last component.
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        for _ in 0..=MAX_LINKS {
            if let Some(found) = self.find(&path, OFlag::O_PATH)? {
                return Ok(found);
            }
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(self.not_created(Errno::EISDIR, &path));
            };
            let parent = self.mkdir_all(directory, Mode::from_bits_truncate(0o755))?;
            match make_file(&parent, name, mode) {
                Err(error) if error.errno == Errno::ELOOP => {
                    let target = nix::fcntl::readlinkat(&parent, name)
                        .call(|| format!("readlinkat({}, {name:?})", FdName::of(&parent)))?;
                    // From the link's directory, or from the root: an absolute target replaces all before it.
                    path = directory.join(target);
                }
                made => return made,
            }
        }
        Err(self.not_created(Errno::ELOOP, &path))
    }

    fn not_created(&self, errno: Errno, path: &Path) -> Error {
        let text = format!("openat2({}, {path:?}, O_CREAT)", FdName::of(&self.0));
        Error::new(errno, text)
    }
}

/// Makes the file `name` in `parent` itself; `ELOOP` where that is a link.
fn make_file(parent: &OwnedFd, name: &OsStr, mode: Mode) -> Result<OwnedFd> {
    let name = Path::new(name);
    let create = OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let path_only = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(parent, name, create, mode, beneath)?;
    openat2(parent, name, path_only, Mode::empty(), beneath)
}

/// The new directory itself, not what someone may have put in its place meanwhile.
fn open_made(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(parent, Path::new(name), flags, Mode::empty(), beneath)
}

/// The root itself where the path is empty, which the kernel would refuse.
fn nonempty(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new("/")
    } else {
        path
    }
}

/// The components of a path, the first one last; `..` is kept, the kernel resolves it in the root.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> Self {
        root.0
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
