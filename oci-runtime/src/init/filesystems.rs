//! New filesystems, and new parameters for those that are there.
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::MsFlags;
use sys::mount::{self, FsContext, MountAttr, MountAttrs, OpenTree};
use sys::path::Root;

use super::copyup;
use super::mounts::{in_the_way, place, refuse_inside_proc, set_attributes};
use crate::error::{Error, Result};
use crate::plan::{MountOptions, MountPlan};

/// The longest value that `fsconfig(2)` takes.
const MAX_CONFIG: usize = 255;

/// The longest text that `mount(2)` takes: a page with its end.
const MAX_DATA: usize = 4095;

/// Makes a filesystem of this type and mounts it.
///
/// # Errors
/// What the kernel or the filesystem says.
pub(super) fn make(root: &Root, one: &MountPlan, fs_type: &str, source: &str) -> Result<OwnedFd> {
    let existing = if inherits_mode(one, fs_type) {
        root.find(&one.destination, OFlag::O_PATH)
            .map_err(|error| in_the_way(error, &one.destination))?
    } else {
        None
    };
    let target = place(root, &one.destination)?;
    refuse_inside_proc(&target, one)?;
    if needs_mount_call(&one.options) {
        return classic(root, one, fs_type, source, &target);
    }
    let context = FsContext::open(fs_type);
    let made = context
        .map_err(|error| {
            let unknown = error.errno == Errno::ENODEV;
            let error = Error::from(error);
            if unknown { error.hint("/proc/filesystems lists the filesystems that this kernel has; a bind mount needs the option bind or rbind") } else { error }
        })
        .and_then(|context| configure(context, one, fs_type, source, existing.as_ref()));
    let made = match made {
        // Not our network namespace: the kernel gives no new sysfs, only the host's.
        Err(error) if fs_type == "sysfs" && error.message.contains("EPERM") => {
            let flags = OpenTree::OPEN_TREE_CLONE | OpenTree::AT_RECURSIVE;
            let tree = mount::open_tree(AT_FDCWD, Path::new("/sys"), flags)?;
            set_attributes(&tree, one)?;
            // A new sysfs would have nothing below; the host's cgroups come with this one.
            let below = MountAttrs {
                set: one.options.set,
                recursive: true,
                ..MountAttrs::default()
            };
            mount::mount_setattr(&tree, below)?;
            tree
        }
        Err(error) if fs_type == "proc" && error.message.contains("EPERM") => {
            return Err(error.hint(
                "inside a user namespace a new procfs needs its own pid namespace and a /proc of the host without anything mounted over it; or bind-mount /proc",
            ));
        }
        other => other?,
    };
    if one.options.tmpcopyup {
        copyup::copy(&target, &made)?;
    }
    mount::attach_at(&made, &target)?;
    Ok(made)
}

/// Whether a tmpfs takes the permissions of the directory that it covers.
fn inherits_mode(one: &MountPlan, fs_type: &str) -> bool {
    let given = |option: &String| option.starts_with("mode=");
    fs_type == "tmpfs" && !one.options.data.iter().any(given)
}

fn configure(
    context: FsContext,
    one: &MountPlan,
    fs_type: &str,
    source: &str,
    existing: Option<&OwnedFd>,
) -> Result<OwnedFd> {
    let options = &one.options;
    if !source.is_empty() {
        context.set_string("source", source)?;
    }
    // Of these one superblock may serve many mounts, or it is ours alone: read-only is a matter of the mount.
    let virtual_fs = matches!(
        fs_type,
        "tmpfs" | "proc" | "sysfs" | "mqueue" | "devpts" | "overlay"
    );
    if options.set.contains(MountAttr::MOUNT_ATTR_RDONLY) && !virtual_fs {
        context.set_flag("ro")?;
    }
    set_options(&context, options)?;
    inherit_mode(&context, existing)?;
    let mut attrs = options.set;
    attrs.set(
        MountAttr::MOUNT_ATTR_RDONLY,
        attrs.contains(MountAttr::MOUNT_ATTR_RDONLY) && !one.readonly_is_late(),
    );
    let made = context.mount(attrs)?;
    let below = MountAttrs {
        set: options.set_recursive,
        clear: options.clear_recursive,
        recursive: true,
        ..MountAttrs::default()
    };
    if !below.set.is_empty() || !below.clear.is_empty() {
        mount::mount_setattr(&made, below)?;
    }
    Ok(made)
}

/// The flags of the superblock, and what only the filesystem knows.
fn set_options(context: &FsContext, options: &MountOptions) -> Result<()> {
    for flag in &options.superblock {
        match (*flag, context.set_flag(flag)) {
            // mount(2) takes these flags for every filesystem; those that do not know them go without.
            ("acl" | "iversion" | "silent", Err(error)) if error.errno == Errno::EINVAL => {}
            (_, set) => set?,
        }
    }
    for option in &options.data {
        match option.split_once('=') {
            Some((key, value)) => context.set_string(key, value)?,
            None => context.set_flag(option)?,
        }
    }
    Ok(())
}

/// A tmpfs over a directory of the image has that directory's permissions, unless the options say otherwise.
fn inherit_mode(context: &FsContext, existing: Option<&OwnedFd>) -> Result<()> {
    let Some(existing) = existing else {
        return Ok(());
    };
    let stat =
        nix::sys::stat::fstat(existing).map_err(|errno| sys::Error::new(errno, "fstat(target)"))?;
    Ok(context.set_string("mode", &format!("{:o}", stat.st_mode & 0o7777))?)
}

/// Whether an option is too long for the mount API, as the layers of an overlay may be.
fn needs_mount_call(options: &MountOptions) -> bool {
    let value = |option: &String| {
        option
            .split_once('=')
            .map_or(option.len(), |(_, value)| value.len())
    };
    options.data.iter().any(|option| value(option) > MAX_CONFIG)
}

/// By `mount(2)`, onto a descriptor: it takes a page of options, but knows no detached mounts.
fn classic(
    root: &Root,
    one: &MountPlan,
    fs_type: &str,
    source: &str,
    target: &OwnedFd,
) -> Result<OwnedFd> {
    let data = one.options.data.join(",");
    if data.len() > MAX_DATA {
        return Err(Error::new(format!(
            "the options are {} bytes long, and the kernel takes {MAX_DATA}",
            data.len()
        )));
    }
    let flag = |name: &&str| match *name {
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        "mand" => MsFlags::MS_MANDLOCK,
        "silent" => MsFlags::MS_SILENT,
        "acl" => MsFlags::MS_POSIXACL,
        "iversion" => MsFlags::MS_I_VERSION,
        "lazytime" => MsFlags::from_bits_retain(1 << 25),
        _ => MsFlags::empty(),
    };
    let mut flags: MsFlags = one.options.superblock.iter().map(flag).collect();
    flags.set(
        MsFlags::MS_RDONLY,
        one.options.set.contains(MountAttr::MOUNT_ATTR_RDONLY) && !one.readonly_is_late(),
    );
    // The one magic link that is followed: of this process' own table, in the host's /proc.
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    let source = Some(Path::new(source));
    mount::mount(source, Path::new(&place), Some(fs_type), flags, Some(&data))?;
    let made = root.resolve(&one.destination)?;
    if !sys::path::is_mount_root(&made, Path::new(""))? {
        return Err(Error::new("something else was put in its place"));
    }
    set_attributes(&made, one)?;
    Ok(made)
}

/// Changes what is mounted there: the filesystem where there are options for it, and the mount.
///
/// # Errors
/// Nothing is mounted there, or it refuses.
pub(super) fn remount(root: &Root, one: &MountPlan) -> Result<()> {
    let target = root.resolve(&one.destination)?;
    let mounted = mount::open_tree(&target, Path::new(""), OpenTree::AT_EMPTY_PATH)?;
    let options = &one.options;
    if !options.data.is_empty() || !options.superblock.is_empty() {
        let context = FsContext::pick(&mounted)?;
        set_options(&context, options)?;
        context.reconfigure()?;
    }
    set_attributes(&mounted, one)?;
    for (propagation, recursive) in &options.propagation {
        mount::set_propagation_fd(&mounted, *propagation, *recursive)?;
    }
    Ok(())
}
