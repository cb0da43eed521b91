//! The mount API of Linux 5.2 and later: every mount is a descriptor before it has a place.
#![allow(unsafe_code)]
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use bitflags::bitflags;
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use crate::error::{Error, Result, check, flag_names};
use crate::fd::FdName;

bitflags! {
    /// Flags of `open_tree(2)`; close-on-exec is always added.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct OpenTree: u32 {
        /// Make a detached copy of the mount instead of an `O_PATH` descriptor of it.
        const OPEN_TREE_CLONE = 1;
        /// With the clone, also copy the mounts below.
        const AT_RECURSIVE = 0x8000;
        /// The path may be empty: the descriptor itself is meant.
        const AT_EMPTY_PATH = 0x1000;
        /// Do not follow a symbolic link in the last component.
        const AT_SYMLINK_NOFOLLOW = 0x100;
    }

    /// Flags of `move_mount(2)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MoveMount: u32 {
        /// Follow symbolic links in the source path.
        const MOVE_MOUNT_F_SYMLINKS = 0x1;
        /// The source path is empty: the descriptor is the mount.
        const MOVE_MOUNT_F_EMPTY_PATH = 0x4;
        /// Follow symbolic links in the target path.
        const MOVE_MOUNT_T_SYMLINKS = 0x10;
        /// The target path is empty: the descriptor is the place.
        const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
        /// Mount below the top mount of the target (Linux 6.5).
        const MOVE_MOUNT_BENEATH = 0x200;
    }

    /// The attributes of a mount, `MOUNT_ATTR_*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct MountAttr: u64 {
        /// Read-only.
        const MOUNT_ATTR_RDONLY = 0x1;
        /// Set-user-id bits do not count.
        const MOUNT_ATTR_NOSUID = 0x2;
        /// Device files do not open.
        const MOUNT_ATTR_NODEV = 0x4;
        /// Programs do not start.
        const MOUNT_ATTR_NOEXEC = 0x8;
        /// Access times are not kept (one value of the field `MOUNT_ATTR__ATIME`).
        const MOUNT_ATTR_NOATIME = 0x10;
        /// Access times are always kept (one value of the field `MOUNT_ATTR__ATIME`).
        const MOUNT_ATTR_STRICTATIME = 0x20;
        /// Access times of directories are not kept.
        const MOUNT_ATTR_NODIRATIME = 0x80;
        /// The mount maps owners through a user namespace.
        const MOUNT_ATTR_IDMAP = 0x0010_0000;
        /// Symbolic links are not followed.
        const MOUNT_ATTR_NOSYMFOLLOW = 0x0020_0000;
    }
}

impl MountAttr {
    /// The whole access time field: clear it before another of its values is set. (`relatime` is value 0.)
    pub const ATIME_FIELD: MountAttr = MountAttr::from_bits_retain(0x70);
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A change for [`mount_setattr`].
#[derive(Debug, Clone, Copy)]
pub struct MountAttrs<'a> {
    /// Attributes to set.
    pub set: MountAttr,
    /// Attributes to clear first. Setting an access time mode clears the whole field by itself.
    pub clear: MountAttr,
    /// The new propagation type, if it changes.
    pub propagation: Option<super::Propagation>,
    /// The user namespace that maps the owners; sets `MOUNT_ATTR_IDMAP`.
    pub idmap: Option<BorrowedFd<'a>>,
    /// Also for every mount below.
    pub recursive: bool,
}

impl Default for MountAttrs<'_> {
    fn default() -> Self {
        Self {
            set: MountAttr::empty(),
            clear: MountAttr::empty(),
            propagation: None,
            idmap: None,
            recursive: false,
        }
    }
}

/// Calls `use_path` with `path` as C string; a NUL byte inside is `EINVAL`.
fn with_c_path(path: &Path, use_path: impl FnOnce(&CStr) -> libc::c_long) -> libc::c_long {
    match path.with_nix_path(use_path) {
        Ok(ret) => ret,
        Err(errno) => {
            errno.set();
            -1
        }
    }
}

/// Owns the descriptor that a system call just returned.
fn own(ret: libc::c_long, call: impl FnOnce() -> String) -> Result<OwnedFd> {
    let ret = check(ret, call)?;
    let raw = RawFd::try_from(ret)
        .map_err(|_| Error::new(Errno::EBADF, format!("descriptor {ret} out of range")))?;
    // SAFETY: the kernel returned this new descriptor to this call; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `open_tree(2)` (Linux 5.2): an `O_PATH` descriptor of a mount, or with `OPEN_TREE_CLONE` a detached copy of it.
///
/// # Errors
/// As the manual page says; `ENOENT` for a missing path, `EPERM` without `CAP_SYS_ADMIN`.
pub fn open_tree(dirfd: impl AsFd, path: &Path, flags: OpenTree) -> Result<OwnedFd> {
    let dirfd = dirfd.as_fd();
    let bits = flags.bits() | libc::OPEN_TREE_CLOEXEC;
    let ret = with_c_path(path, |path| {
        // SAFETY: `path` is NUL-terminated and lives through the call; the kernel keeps nothing.
        unsafe { libc::syscall(libc::SYS_open_tree, dirfd.as_raw_fd(), path.as_ptr(), bits) }
    });
    own(ret, || {
        format!(
            "open_tree({}, {path:?}, {}|OPEN_TREE_CLOEXEC)",
            FdName::of(dirfd),
            flag_names(&flags, "")
        )
    })
}

/// A detached copy of the mount that `fd` lies in, rooted at `fd` (a bind mount without a place yet).
///
/// # Errors
/// `EINVAL` where the mount is unbindable or, without `recursive`, holds mounts that a user namespace locked.
pub fn clone_tree(fd: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_EMPTY_PATH;
    flags.set(OpenTree::AT_RECURSIVE, recursive);
    open_tree(fd, Path::new(""), flags)
}

/// `move_mount(2)` (Linux 5.2): gives a detached mount its place, or moves an attached one.
///
/// # Errors
/// As the manual page says; `EINVAL` under a shared parent mount when moving, `ENOTDIR` for a file over a directory.
pub fn move_mount(
    from: impl AsFd,
    from_path: &Path,
    to: impl AsFd,
    to_path: &Path,
    flags: MoveMount,
) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let ret = with_c_path(from_path, |from_path| {
        with_c_path(to_path, |to_path| {
            // SAFETY: both strings are NUL-terminated and live through the call; the kernel keeps nothing.
            unsafe {
                libc::syscall(
                    libc::SYS_move_mount,
                    from.as_raw_fd(),
                    from_path.as_ptr(),
                    to.as_raw_fd(),
                    to_path.as_ptr(),
                    flags.bits(),
                )
            }
        })
    });
    check(ret, || {
        format!(
            "move_mount({}, {from_path:?}, {}, {to_path:?}, {})",
            FdName::of(from),
            FdName::of(to),
            flag_names(&flags, "")
        )
    })
    .map(drop)
}

/// Attaches the detached mount `mount` onto the path `target`; a symbolic link as last component is not followed.
///
/// # Errors
/// As [`move_mount`].
pub fn attach(mount: impl AsFd, target: &Path) -> Result<()> {
    move_mount(
        mount,
        Path::new(""),
        AT_FDCWD,
        target,
        MoveMount::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Attaches the detached mount `mount` onto the file or directory that `place` (an `O_PATH` descriptor) is.
///
/// # Errors
/// As [`move_mount`].
pub fn attach_at(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMount::MOVE_MOUNT_F_EMPTY_PATH | MoveMount::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, Path::new(""), place, Path::new(""), flags)
}

/// `mount_setattr(2)` (Linux 5.12) of the mount that `mount` is.
///
/// # Errors
/// `EPERM` for a flag that a user namespace locked, `EINVAL` for an id-mapping that the filesystem cannot do.
pub fn mount_setattr(mount: impl AsFd, change: MountAttrs<'_>) -> Result<()> {
    let mount = mount.as_fd();
    let mut raw = RawMountAttr {
        attr_set: change.set.bits(),
        attr_clr: change.clear.bits(),
        propagation: change
            .propagation
            .map_or(0, |propagation| propagation.ms_flags().bits()),
        ..RawMountAttr::default()
    };
    if change.set.intersects(MountAttr::ATIME_FIELD)
        || change.clear.intersects(MountAttr::ATIME_FIELD)
    {
        raw.attr_clr |= MountAttr::ATIME_FIELD.bits();
    }
    if let Some(userns) = change.idmap {
        raw.attr_set |= MountAttr::MOUNT_ATTR_IDMAP.bits();
        raw.userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or(u64::MAX);
    }
    let flags = libc::AT_EMPTY_PATH
        | if change.recursive {
            libc::AT_RECURSIVE
        } else {
            0
        };
    // SAFETY: the empty string and `raw` live through the call, and its size is passed with it.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    };
    check(ret, || {
        format!(
            "mount_setattr({}, \"\", AT_EMPTY_PATH{}, {{attr_set={}, attr_clr={}, propagation={}{}}})",
            FdName::of(mount),
            if change.recursive { "|AT_RECURSIVE" } else { "" },
            flag_names(&MountAttr::from_bits_retain(raw.attr_set), ""),
            flag_names(&MountAttr::from_bits_retain(raw.attr_clr), ""),
            change.propagation.map_or_else(|| "0".to_owned(), |propagation| format!("{propagation:?}").to_lowercase()),
            change.idmap.map_or_else(String::new, |fd| format!(", userns_fd={}", FdName::of(fd))),
        )
    })
    .map(drop)
}

/// A filesystem that is being configured: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)` (Linux 5.2).
///
/// What the kernel wrote into the context's log becomes part of the error.
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    fs_type: String,
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSOPEN_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSMOUNT_CLOEXEC: u32 = 1;

impl FsContext {
    /// Starts the configuration of a filesystem of the type `fs_type`.
    ///
    /// # Errors
    /// `ENODEV` for a type that the kernel does not know, `EPERM` without `CAP_SYS_ADMIN` in its user namespace.
    pub fn open(fs_type: &str) -> Result<Self> {
        let text = || format!("fsopen({fs_type:?}, FSOPEN_CLOEXEC)");
        let c_type = CString::new(fs_type).map_err(|_| Error::new(Errno::EINVAL, text()))?;
        // SAFETY: the string is NUL-terminated and lives through the call.
        let ret = unsafe { libc::syscall(libc::SYS_fsopen, c_type.as_ptr(), FSOPEN_CLOEXEC) };
        Ok(Self {
            fd: own(ret, text)?,
            fs_type: fs_type.to_owned(),
        })
    }

    /// Picks the filesystem that `mount` shows, to be configured anew: `fspick(2)` (Linux 5.2).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN` in its user namespace.
    pub fn pick(mount: impl AsFd) -> Result<Self> {
        let mount = mount.as_fd();
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the empty string is a constant; the kernel keeps nothing.
        let ret =
            unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) };
        let text = || {
            let name = FdName::of(mount);
            format!("fspick({name}, \"\", FSPICK_CLOEXEC|FSPICK_EMPTY_PATH)")
        };
        Ok(Self {
            fd: own(ret, text)?,
            fs_type: "reconfigured".to_owned(),
        })
    }

    /// Gives a picked filesystem its new parameters.
    ///
    /// # Errors
    /// What the filesystem refuses to change, with its own words.
    pub fn reconfigure(self) -> Result<()> {
        self.config(
            FSCONFIG_CMD_RECONFIGURE,
            "FSCONFIG_CMD_RECONFIGURE",
            None,
            None,
            0,
        )
    }

    /// Sets a parameter without value, such as `ro`.
    ///
    /// # Errors
    /// `EINVAL` for a parameter that the filesystem does not know.
    pub fn set_flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, "FSCONFIG_SET_FLAG", Some(key), None, 0)
    }

    /// Sets the parameter `key` to `value`, such as `size` to `64m`.
    ///
    /// # Errors
    /// `EINVAL` for a parameter or value that the filesystem does not know.
    pub fn set_string(&self, key: &str, value: &str) -> Result<()> {
        self.config(
            FSCONFIG_SET_STRING,
            "FSCONFIG_SET_STRING",
            Some(key),
            Some(value),
            0,
        )
    }

    /// Sets the parameter `key` to an open descriptor.
    ///
    /// # Errors
    /// `EINVAL` where the parameter takes no descriptor.
    pub fn set_fd(&self, key: &str, value: impl AsFd) -> Result<()> {
        self.config(
            FSCONFIG_SET_FD,
            "FSCONFIG_SET_FD",
            Some(key),
            None,
            value.as_fd().as_raw_fd(),
        )
    }

    /// Makes the superblock and mounts it detached, with the attributes `attrs`.
    ///
    /// # Errors
    /// What the filesystem refuses in the configuration as a whole, with its own words.
    pub fn mount(self, attrs: MountAttr) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE", None, None, 0)?;
        // SAFETY: three integers; the result is owned below.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.fd.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attrs.bits(),
            )
        };
        own(ret, || {
            let names = flag_names(&attrs, "");
            format!(
                "fsmount({}<{}>, FSMOUNT_CLOEXEC, {names}){}",
                self.fd.as_raw_fd(),
                self.fs_type,
                self.log()
            )
        })
    }

    fn config(
        &self,
        command: u32,
        name: &str,
        key: Option<&str>,
        value: Option<&str>,
        aux: i32,
    ) -> Result<()> {
        let text = || {
            let show = |text: Option<&str>| {
                text.map_or_else(|| "NULL".to_owned(), |text| format!("{text:?}"))
            };
            let fd = self.fd.as_raw_fd();
            format!(
                "fsconfig({fd}<{}>, {name}, {}, {}, {aux})",
                self.fs_type,
                show(key),
                show(value)
            )
        };
        let c_string = |text: Option<&str>| text.map(CString::new).transpose();
        let (Ok(c_key), Ok(c_value)) = (c_string(key), c_string(value)) else {
            return Err(Error::new(Errno::EINVAL, text()));
        };
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: each pointer is null or a NUL-terminated string that lives through the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                pointer(&c_key),
                pointer(&c_value),
                aux,
            )
        };
        check(ret, || text() + &self.log()).map(drop)
    }

    /// What the filesystem had to say, as ` [overlay: …]`, or nothing.
    fn log(&self) -> String {
        let errno = Errno::last();
        let mut lines = Vec::new();
        let mut line = [0_u8; 512];
        while let Ok(count) = nix::unistd::read(&self.fd, &mut line) {
            if count == 0 || lines.len() >= 8 {
                break;
            }
            let text = String::from_utf8_lossy(&line[..count]);
            lines.push(text.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        errno.set();
        if lines.is_empty() {
            String::new()
        } else {
            format!(" [{}]", lines.join("; "))
        }
    }
}

impl AsFd for FsContext {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
