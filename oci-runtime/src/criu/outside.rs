//! What of a container belongs to the host: criu neither saves nor makes it, but puts something in its place, found by
//! a key that both sides know. The keys are runc's.
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use sys::cgroup::{Cgroup, Hierarchies, Mode};
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;

use super::rpc::opt;
use super::wire::Message;
use crate::error::{Error, Result, Within};
use crate::plan::{MountSource, Plan};

/// What masks files.
const NULL: &str = "/dev/null";

/// Where a container that has a service manager sees its socket.
const NOTIFY: &str = "/run/notify";

/// The kinds that criu can leave alone, with the oldest version that can, and their keys.
const LEFT_ALONE: [(NamespaceKind, i32, &str); 2] = [
    (NamespaceKind::Net, 31_100, "extRootNetNS"),
    (NamespaceKind::Pid, 31_500, "extRootPidNS"),
];

// === mounts ===

fn add(options: &mut Message, key: &Path, value: &Path) {
    let mut pair = Message::default();
    pair.bytes(1, key.as_os_str().as_bytes())
        .bytes(2, value.as_os_str().as_bytes());
    options.message(opt::EXT_MNT, &pair);
}

/// The path that `path` leads to below `root`; itself where it leads nowhere.
fn resolved(root: &Root, base: &Path, path: &Path) -> PathBuf {
    let found = root
        .resolve(path)
        .ok()
        .and_then(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
    let inside = found.and_then(|found| {
        let below = found.strip_prefix(base).ok()?;
        Some(Path::new("/").join(below))
    });
    inside.unwrap_or_else(|| path.to_owned())
}

/// Names the mounts that are the host's, of the running container `pid`.
///
/// # Errors
/// Its root cannot be opened.
pub fn mounts_of_dump(options: &mut Message, plan: &Plan, pid: Pid) -> Result<()> {
    let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
    for one in &plan.mounts {
        if let MountSource::Bind { .. } = one.source {
            // Paths of another mount namespace begin at its root.
            let key = resolved(&root, Path::new("/"), &one.destination);
            add(options, &key, &key);
        }
    }
    add(options, Path::new(NOTIFY), Path::new(NOTIFY));
    for path in &plan.masked {
        let Ok(Some(fd)) = root.find(path, OFlag::O_PATH) else {
            continue;
        };
        let is_dir = nix::sys::stat::fstat(&fd)
            .is_ok_and(|stat| stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR);
        if !is_dir {
            add(options, path, Path::new(NULL));
        }
    }
    for device in &plan.devices {
        let key = resolved(&root, Path::new("/"), &device.path);
        add(options, &key, &key);
    }
    for (inside, _) in cgroup_views(plan, &Cgroup::none())? {
        add(options, &inside, &inside);
    }
    Ok(())
}

/// Says what takes the place of each of them. `notify` is the directory for the socket of a service manager.
///
/// # Errors
/// The root filesystem cannot be opened.
pub fn mounts_of_restore(
    options: &mut Message,
    plan: &Plan,
    cgroup: &Cgroup,
    notify: &Path,
) -> Result<()> {
    let root = Root::open(&plan.rootfs).within(|| "root.path".to_owned())?;
    let base = std::fs::canonicalize(&plan.rootfs).unwrap_or_else(|_| plan.rootfs.clone());
    for one in &plan.mounts {
        if let MountSource::Bind { path, .. } = &one.source {
            let key = resolved(&root, &base, &one.destination);
            add(options, &key, path);
        }
    }
    let planned = plan
        .mounts
        .iter()
        .any(|one| one.destination == Path::new(NOTIFY));
    if !planned {
        add(options, Path::new(NOTIFY), notify);
    }
    let null = plan
        .devices
        .iter()
        .any(|device| device.path == Path::new(NULL));
    if !null {
        add(options, Path::new(NULL), Path::new(NULL));
    }
    for device in &plan.devices {
        add(options, &device.path, &device.path);
    }
    for (inside, outside) in cgroup_views(plan, cgroup)? {
        add(options, &inside, &outside);
    }
    Ok(())
}

/// The cgroups that a container without a cgroup namespace sees are the host's on v1: where, and which directories.
fn cgroup_views(plan: &Plan, cgroup: &Cgroup) -> Result<Vec<(PathBuf, PathBuf)>> {
    let views = plan
        .mounts
        .iter()
        .find(|one| one.source == MountSource::Cgroup);
    let Some(view) = views.filter(|_| !plan.namespaces.has(NamespaceKind::Cgroup)) else {
        return Ok(Vec::new());
    };
    let hierarchies = Hierarchies::detect()?;
    if hierarchies.mode() == Mode::V2 {
        return Ok(Vec::new());
    }
    let paths = cgroup.paths();
    let one = |mount: &Path| {
        let name = mount.file_name()?;
        let own = paths.values().find(|path| path.starts_with(mount));
        Some((
            view.destination.join(name),
            own.map_or(mount, PathBuf::as_path).to_owned(),
        ))
    };
    Ok(hierarchies
        .list()
        .iter()
        .filter_map(|hierarchy| one(hierarchy.mount()))
        .collect())
}

// === namespaces ===

/// Names the namespaces that were joined, of the running container `pid`.
///
/// # Errors
/// A criu that is too old for it.
pub fn dumped(options: &mut Message, plan: &Plan, pid: Pid, version: i32) -> Result<()> {
    for (kind, oldest, key) in LEFT_ALONE {
        if plan.namespaces.path(kind).is_none() {
            continue;
        }
        need(version, oldest, kind)?;
        let (_, inode) = namespace::identity(namespace::of_process(pid, kind)?)?;
        options.bytes(
            opt::EXTERNAL,
            format!("{}[{inode}]:{key}", kind.file_name()),
        );
    }
    Ok(())
}

/// Says which namespaces take the place of those. Returns the descriptors that criu needs for it.
///
/// # Errors
/// A namespace that is not there, or that criu cannot join.
pub fn joined(options: &mut Message, plan: &Plan, version: i32) -> Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for (kind, path) in &plan.namespaces.join {
        if let Some((_, oldest, key)) = LEFT_ALONE.iter().find(|(known, ..)| known == kind) {
            need(version, *oldest, *kind)?;
            let fd = namespace::open(path, *kind).within(|| "linux.namespaces".to_owned())?;
            inherit(options, key, fd.as_raw_fd());
            fds.push(fd);
        } else if *kind == NamespaceKind::Cgroup {
            return Err(Error::new(
                "linux.namespaces: criu cannot restore a container into an existing cgroup namespace",
            ));
        } else {
            let mut pair = Message::default();
            pair.bytes(1, kind.file_name())
                .bytes(2, path.as_os_str().as_bytes());
            options.message(opt::JOIN_NS, &pair);
        }
    }
    Ok(fds)
}

/// Has criu use its descriptor `number` where the images have `key`.
pub fn inherit(options: &mut Message, key: &str, number: i32) {
    let mut pair = Message::default();
    pair.bytes(1, key).int(2, number);
    options.message(opt::INHERIT_FD, &pair);
}

fn need(version: i32, oldest: i32, kind: NamespaceKind) -> Result<()> {
    if version >= oldest {
        return Ok(());
    }
    Err(Error::new(format!(
        "criu lacks support for external {} namespace (old criu version?): {version} must be {oldest} or higher",
        kind.file_name()
    )))
}
