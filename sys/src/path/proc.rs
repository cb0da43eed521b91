//! A procfs that no mount namespace can redirect.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;
use nix::sys::statfs::PROC_SUPER_MAGIC;

use super::{openat2, statx};
use crate::error::{Context, Error, Result};
use crate::fd::{self, FdName};
use crate::mount::{FsContext, MountAttr};

/// The inode number of the root of every procfs.
const PROC_ROOT_INO: u64 = 1;

/// An open procfs: a private, detached instance where the kernel allows one, else the verified `/proc`.
///
/// Everything below is opened without following links and without crossing into another mount, so a mount
/// over `/proc/self/attr` or a link in its place is refused (CVE-2019-16884, CVE-2025-52881).
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
    private: bool,
    /// For what an outer container's LSM allows below `/proc` only: to it a detached mount has no path at all.
    attached: Option<OwnedFd>,
}

impl Proc {
    /// Opens one for the pid namespace that the caller is in.
    ///
    /// # Errors
    /// Neither a private instance may be made nor is `/proc` a procfs.
    pub fn open() -> Result<Self> {
        let attrs = MountAttr::MOUNT_ATTR_NOSUID
            | MountAttr::MOUNT_ATTR_NODEV
            | MountAttr::MOUNT_ATTR_NOEXEC;
        match FsContext::open("proc").and_then(|context| context.mount(attrs)) {
            Ok(root) => Ok(Self {
                root,
                private: true,
                // The caller's mount namespace may change later, so it is opened now; none is no harm.
                attached: Self::host().ok().map(|host| host.root),
            }),
            // Not privileged, an old kernel, or a user namespace whose /proc has parts hidden.
            Err(Error {
                errno: Errno::EPERM | Errno::ENOSYS | Errno::EACCES | Errno::EBUSY,
                ..
            }) => Self::host(),
            Err(error) => Err(error),
        }
    }

    /// Opens `/proc` and verifies that it is the root of a procfs.
    ///
    /// # Errors
    /// `EXDEV` where something else is mounted on `/proc`.
    pub fn host() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let root = openat2(
            AT_FDCWD,
            Path::new("/proc"),
            flags,
            Mode::empty(),
            ResolveFlag::RESOLVE_NO_SYMLINKS,
        )?;
        let stat =
            nix::sys::statfs::fstatfs(&root).call(|| format!("fstatfs({})", FdName::of(&root)))?;
        if stat.filesystem_type() != PROC_SUPER_MAGIC
            || statx(&root, Path::new(""))?.stx_ino != PROC_ROOT_INO
        {
            return Err(Error::new(
                Errno::EXDEV,
                "fstatfs(\"/proc\"): not a procfs root",
            ));
        }
        Ok(Self {
            root,
            private: false,
            attached: None,
        })
    }

    /// One whose private instance is `root`, whatever that is.
    #[cfg(test)]
    pub(super) fn with_private(root: OwnedFd) -> Self {
        Self {
            root,
            private: true,
            attached: Self::host().ok().map(|host| host.root),
        }
    }

    /// Whether this instance is one that nobody else can reach.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Opens `path`, relative to the procfs root, without following any link or crossing any mount.
    ///
    /// # Errors
    /// `ELOOP` for a link, `EXDEV` for a mount in the way.
    pub fn open_at(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let found = open_in(&self.root, path, flags);
        // A process has another number in the other instance.
        let process = path.as_os_str().as_encoded_bytes().first();
        if process.is_some_and(u8::is_ascii_digit) {
            return found;
        }
        self.or_attached(found, |attached| open_in(attached, path, flags))
    }

    /// Opens `path` below the caller's own directory (`/proc/self`).
    ///
    /// # Errors
    /// As [`Proc::open_at`]; `ESRCH` where this procfs does not show the caller.
    pub fn open_self(&self, path: &str, flags: OFlag) -> Result<OwnedFd> {
        let open = |root: &OwnedFd| open_in(root, &own_path(root, path)?, flags);
        self.or_attached(open(&self.root), open)
    }

    /// What the private instance refuses may be allowed in the attached one, which is verified in the same way.
    fn or_attached(
        &self,
        found: Result<OwnedFd>,
        open: impl FnOnce(&OwnedFd) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        match (found, &self.attached) {
            (Err(error), Some(attached)) if matches!(error.errno, Errno::EACCES | Errno::EPERM) => {
                open(attached).map_err(|_| error)
            }
            (found, _) => found,
        }
    }

    /// Writes `value` into the file `path` in one write, as procfs and sysctl files want it.
    ///
    /// # Errors
    /// As [`Proc::open_at`], and what the file says to the value.
    pub fn write(&self, path: &Path, value: &[u8]) -> Result<()> {
        fd::write_all(self.open_at(path, OFlag::O_WRONLY)?, value)
    }

    /// Opens what `fd` refers to anew with other flags, for example a file behind an `O_PATH` descriptor.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn reopen(&self, fd: impl AsFd, flags: OFlag) -> Result<OwnedFd> {
        let fd = fd.as_fd();
        let table = self.open_self("fd", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let number = fd.as_raw_fd().to_string();
        // The one magic link that is followed: of our own table, in a directory just verified.
        nix::fcntl::openat(
            &table,
            number.as_str(),
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .call(|| format!("openat({}, {number:?}, {flags:?})", FdName::of(&table)))
    }
}

fn open_in(root: &OwnedFd, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV
        | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

/// `path` below the caller's directory in this procfs. Its link "self" cannot be replaced by anyone; it names the
/// caller as this instance sees it.
fn own_path(root: &OwnedFd, path: &str) -> Result<PathBuf> {
    let text = || format!("readlinkat({}, \"self\")", FdName::of(root));
    let own = nix::fcntl::readlinkat(root, "self").call(text)?;
    let own = own
        .to_str()
        .filter(|own| !own.is_empty() && own.bytes().all(|byte| byte.is_ascii_digit()));
    let own = own.ok_or_else(|| Error::new(Errno::ESRCH, text()))?;
    Ok(Path::new(own).join(path))
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
