//! `/dev`: nodes and links, made relative to the descriptor of the mount (or directory) that `/dev` is, so that a
//! link in the image cannot lead them elsewhere (CVE-2026-41579).
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mknodat};
use sys::mount::{self, OpenTree};
use sys::path::Root;

use super::mounts::Mounted;
use crate::error::{Error, Result, Within};
use crate::plan::{DevicePlan, Plan};

/// Links that every container has, <https://github.com/opencontainers/runtime-spec/blob/main/runtime-linux.md#dev-symbolic-links>.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills `/dev`.
///
/// # Errors
/// The node and what the kernel says.
pub(super) fn fill(
    root: &Root,
    plan: &Plan,
    mounted: &Mounted,
    in_user_namespace: bool,
) -> Result<()> {
    let dev = open_dev(root, mounted)?;
    for device in &plan.devices {
        let within = || format!("linux.devices {:?}", device.path);
        make(root, &dev, device, in_user_namespace).within(within)?;
    }
    for (name, target) in LINKS {
        link(&dev, name, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(&dev, "core", "/proc/kcore")?;
    }
    Ok(())
}

/// The directory `/dev`: the mount there, or what the image has.
///
/// # Errors
/// It cannot be made.
pub(super) fn open_dev(root: &Root, mounted: &Mounted) -> Result<Root> {
    let fd: OwnedFd = match &mounted.dev {
        Some(mount) => mount
            .try_clone()
            .map_err(|error| Error::new(error.to_string()))?,
        None => root.mkdir_all(Path::new("/dev"), Mode::from_bits_truncate(0o755))?,
    };
    Ok(Root::from_fd(fd))
}

fn make(root: &Root, dev: &Root, device: &DevicePlan, in_user_namespace: bool) -> Result<()> {
    // A device elsewhere than below /dev is allowed, too.
    let (base, path) = match device.path.strip_prefix("/dev") {
        Ok(below) => (dev, below),
        Err(_) => (root, device.path.as_path()),
    };
    let Some(name) = path.file_name() else {
        return Err(Error::new("is a directory"));
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = base.mkdir_all(parent, Mode::from_bits_truncate(0o755))?;
    if !in_user_namespace {
        let mode = Mode::from_bits_truncate(device.mode);
        match mknodat(
            &parent,
            name,
            device.kind,
            mode,
            makedev(device.major, device.minor),
        ) {
            Ok(()) => return own(&parent, name, device),
            Err(Errno::EEXIST) => return check_existing(&parent, name, device),
            // No CAP_MKNOD, or a device cgroup of an outer container: the host's node serves.
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(sys::Error::new(errno, format!("mknodat({name:?})")).into()),
        }
    }
    bind_from_host(&parent, name, device)
}

fn own(parent: &OwnedFd, name: &std::ffi::OsStr, device: &DevicePlan) -> Result<()> {
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    nix::unistd::fchownat(
        parent,
        name,
        Some(device.uid.into()),
        Some(device.gid.into()),
        flags,
    )
    .map_err(|errno| {
        sys::Error::new(
            errno,
            format!("fchownat({name:?}, {}, {})", device.uid, device.gid),
        )
        .into()
    })
}

/// A node of the image that is the same device is as good as ours.
fn check_existing(parent: &OwnedFd, name: &std::ffi::OsStr, device: &DevicePlan) -> Result<()> {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|errno| sys::Error::new(errno, format!("fstatat({name:?})")))?;
    let same_kind = stat.st_mode & SFlag::S_IFMT.bits() == device.kind.bits();
    let same_number =
        device.kind == SFlag::S_IFIFO || stat.st_rdev == makedev(device.major, device.minor);
    if same_kind && same_number {
        Ok(())
    } else {
        Err(Error::new("something else is there already"))
    }
}

fn bind_from_host(parent: &OwnedFd, name: &std::ffi::OsStr, device: &DevicePlan) -> Result<()> {
    let source =
        mount::open_tree(AT_FDCWD, &device.path, OpenTree::OPEN_TREE_CLONE).map_err(|error| {
            Error::from(error)
                .hint("in a user namespace a device is bound from the host's node of the same path")
        })?;
    let place = Root::from_fd(
        parent
            .try_clone()
            .map_err(|error| Error::new(error.to_string()))?,
    );
    let target = file_nofollow(&place, name)?;
    Ok(mount::attach_at(&source, &target)?)
}

/// An `O_PATH` descriptor of a file in this directory, made where missing; a link in its place is an error.
///
/// # Errors
/// `ELOOP` for a link.
pub(super) fn file_nofollow(dir: &Root, name: &std::ffi::OsStr) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, ResolveFlag};
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let path = Path::new(name);
    let mode = Mode::from_bits_truncate(0o666);
    match sys::path::openat2(
        dir.as_fd(),
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        Mode::empty(),
        beneath,
    ) {
        Err(error) if error.errno == Errno::ENOENT => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_RDONLY;
            sys::path::openat2(dir.as_fd(), path, flags, mode, beneath)?;
            Ok(sys::path::openat2(
                dir.as_fd(),
                path,
                OFlag::O_PATH | OFlag::O_NOFOLLOW,
                Mode::empty(),
                beneath,
            )?)
        }
        Ok(fd) => {
            let stat = nix::sys::stat::fstat(&fd)
                .map_err(|errno| sys::Error::new(errno, format!("fstat({name:?})")))?;
            if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits() {
                return Err(Error::new(format!("{name:?} is a symbolic link")));
            }
            Ok(fd)
        }
        Err(error) => Err(error.into()),
    }
}

fn link(dev: &Root, name: &str, target: &str) -> Result<()> {
    let make = || nix::unistd::symlinkat(target, dev, name);
    let made = match make() {
        // The kernel's own ptmx node would open the host's terminals.
        Err(Errno::EEXIST) if name == "ptmx" => {
            let flag = nix::unistd::UnlinkatFlags::NoRemoveDir;
            nix::unistd::unlinkat(dev, name, flag).and_then(|()| make())
        }
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    };
    made.map_err(|errno| {
        sys::Error::new(errno, format!("symlinkat({target:?}, \"/dev/{name}\")")).into()
    })
}
