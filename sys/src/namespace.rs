//! Namespaces: their kinds, entering, leaving and pinning them. See `namespaces(7)`.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::error::{Context, Error, Result, check, flag_names};
use crate::fd::FdName;
use crate::mount::{self, OpenTree};

/// `CLONE_NEWTIME`, which nix does not name.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// User and group ids, capabilities. First, because joining the others may need its capabilities.
    User,
    /// Process ids.
    Pid,
    /// Network.
    Net,
    /// Mounts.
    Mnt,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name and domain name.
    Uts,
    /// Cgroup root.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

impl NamespaceKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Pid,
        Self::Net,
        Self::Mnt,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Time,
    ];

    /// The flag for clone, unshare and setns.
    pub fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Mnt => CloneFlags::CLONE_NEWNS,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::Time => CLONE_NEWTIME,
        }
    }

    /// The name of its file in `/proc/<pid>/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Mnt => "mnt",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    fn from_flag(flag: libc::c_int) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.flag().bits() == flag)
    }
}

impl std::fmt::Display for NamespaceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.file_name())
    }
}

/// Opens the namespace file `path` and checks that it is a namespace of this kind.
///
/// # Errors
/// `ENOENT`; `EINVAL` for a file that is no namespace, or one of another kind (which is named).
pub fn open(path: &Path, kind: NamespaceKind) -> Result<OwnedFd> {
    let fd = crate::path::openat2(
        AT_FDCWD,
        path,
        OFlag::O_RDONLY,
        Mode::empty(),
        ResolveFlag::empty(),
    )?;
    let found = kind_of(&fd)?;
    if found != kind {
        return Err(Error::new(
            Errno::EINVAL,
            format!(
                "setns({}): a {found} namespace, not {kind}",
                FdName::of(&fd)
            ),
        ));
    }
    Ok(fd)
}

/// Opens the namespace of a process.
///
/// # Errors
/// `ENOENT` where the process is gone or the kernel lacks the kind, `EACCES` without ptrace rights.
pub fn of_process(pid: Pid, kind: NamespaceKind) -> Result<OwnedFd> {
    open(Path::new(&format!("/proc/{pid}/ns/{kind}")), kind)
}

/// Which kind of namespace `fd` is (`NS_GET_NSTYPE`).
///
/// # Errors
/// `EINVAL` where it is none.
pub fn kind_of(fd: impl AsFd) -> Result<NamespaceKind> {
    let fd = fd.as_fd();
    let text = || format!("ioctl({}, NS_GET_NSTYPE)", FdName::of(fd));
    let stat = nix::sys::statfs::fstatfs(fd).call(text)?;
    // Other files must not see the ioctl: its number may mean something there.
    if stat.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
        return Err(Error::new(
            Errno::EINVAL,
            format!("{}: not a namespace file", text()),
        ));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    check(libc::c_long::from(ret), text)?;
    NamespaceKind::from_flag(ret)
        .ok_or_else(|| Error::new(Errno::EINVAL, format!("{} = {ret:#x}", text())))
}

/// The identity of a namespace: equal for two descriptors exactly when they are the same namespace.
///
/// # Errors
/// The descriptor cannot be looked at.
pub fn identity(fd: impl AsFd) -> Result<(u64, u64)> {
    let fd = fd.as_fd();
    let stat = nix::sys::stat::fstat(fd).call(|| format!("fstat({})", FdName::of(fd)))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// `setns(2)` with a namespace file (one kind) or, since Linux 5.8, a pidfd (several kinds at once).
///
/// # Errors
/// `EPERM` without the capabilities, `EINVAL` where a thread or a shared filesystem context forbids it.
pub fn setns(fd: impl AsFd, kinds: CloneFlags) -> Result<()> {
    let fd = fd.as_fd();
    nix::sched::setns(fd, kinds)
        .call(|| format!("setns({}, {})", FdName::of(fd), flag_names(&kinds, "")))
}

/// `unshare(2)`.
///
/// # Errors
/// `EPERM` without the capabilities, `ENOSPC` at the limit of namespaces.
pub fn unshare(kinds: CloneFlags) -> Result<()> {
    nix::sched::unshare(kinds).call(|| format!("unshare({})", flag_names(&kinds, "")))
}

/// Keeps the namespace of a process alive at `target`: binds `/proc/<pid>/ns/<kind>` onto that file, which is made
/// where missing. [`unpin`] undoes it.
///
/// # Errors
/// The process is gone, or `target` is not on a mount where mounting is allowed.
pub fn pin(pid: Pid, kind: NamespaceKind, target: &Path) -> Result<()> {
    let source = format!("/proc/{pid}/ns/{kind}");
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(target)
        .call(|| format!("open({target:?}, O_CREAT|O_WRONLY|O_CLOEXEC)"))?;
    let tree = mount::open_tree(AT_FDCWD, Path::new(&source), OpenTree::OPEN_TREE_CLONE)?;
    mount::attach(&tree, target)
}

/// Undoes [`pin`]; success where nothing is pinned there.
///
/// # Errors
/// The mount or the file cannot be removed.
pub fn unpin(target: &Path) -> Result<()> {
    mount::unmount_detach(target)?;
    match std::fs::remove_file(target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.call(|| format!("unlink({target:?})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_each_own_namespace_is_recognised() {
        for kind in NamespaceKind::ALL {
            let path = format!("/proc/self/ns/{kind}");
            let fd = open(Path::new(&path), kind).unwrap();
            assert_eq!(
                identity(&fd).unwrap(),
                identity(of_process(Pid::this(), kind).unwrap()).unwrap()
            );
        }
    }

    #[test]
    fn a_namespace_of_another_kind_is_refused_and_named() {
        let error = open(Path::new("/proc/self/ns/net"), NamespaceKind::Uts).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL);
        assert!(error.call.contains("a net namespace, not uts"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let error = open(Path::new("/proc/self/status"), NamespaceKind::Net).unwrap_err();
        assert!(error.call.contains("not a namespace file"), "{error}");
    }
}
