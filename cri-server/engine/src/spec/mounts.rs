//! What a container sees where: the kernel's file systems, the pod's files, the request's bind mounts.

use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::{Input, userns};
use crate::error::{Error, Result};
use crate::model::{IdMapping, Mount, MountPropagation, NamespaceMode};

/// A bind mount of the request whose source was found on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedMount {
    /// The source, without symbolic links.
    pub(crate) source: PathBuf,
    /// Where it appears; absolute and without `..`.
    pub(crate) target: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: MountPropagation,
    /// Whether it is an image: nothing in it is changed, run or opened as a device.
    pub(crate) image: bool,
    /// The ids that the mount's own are turned into; empty: none.
    pub(crate) uids: Vec<IdMapping>,
    pub(crate) gids: Vec<IdMapping>,
}

/// Finds the sources of the request's mounts, and makes directories for those that are missing.
pub(crate) fn resolve(mounts: &[Mount]) -> Result<Vec<ResolvedMount>> {
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| resolve_one(mount, &format!("mounts[{index}]")))
        .collect()
}

fn resolve_one(mount: &Mount, field: &str) -> Result<ResolvedMount> {
    let Some(target) = absolute(&mount.container_path) else {
        return Err(Error::invalid(
            format!("{field}.container_path"),
            format!("{:?} names no place below /", mount.container_path),
        ));
    };
    let source = PathBuf::from(&mount.host_path);
    if !source.is_absolute() {
        return Err(Error::invalid(
            format!("{field}.host_path"),
            format!("{source:?} is not absolute"),
        ));
    }
    if mount.recursive_read_only
        && (!mount.readonly || mount.propagation != MountPropagation::Private)
    {
        return Err(Error::invalid(
            format!("{field}.recursive_read_only"),
            "needs readonly and private propagation",
        ));
    }
    let failed = |action| {
        move |source| Error::Io {
            action,
            path: PathBuf::from(&mount.host_path),
            source,
        }
    };
    if fs::symlink_metadata(&source)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    {
        fs::create_dir_all(&source).map_err(failed("make the missing mount source"))?;
    }
    let source = fs::canonicalize(&source).map_err(failed("find the mount source"))?;
    check_propagation(&source, mount.propagation, field)?;
    Ok(ResolvedMount {
        source,
        target,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation: mount.propagation,
        image: !mount.image.is_empty(),
        uids: mount.uid_mappings.clone(),
        gids: mount.gid_mappings.clone(),
    })
}

/// Mounts travel only where the host's mount lets them.
fn check_propagation(source: &Path, propagation: MountPropagation, field: &str) -> Result<()> {
    if propagation == MountPropagation::Private {
        return Ok(());
    }
    let table = sys::mountinfo::own().map_err(|source| Error::Sys {
        action: "look at the host's mounts".into(),
        source,
    })?;
    let Some(mount) = mount_of(&table, source) else {
        return Ok(());
    };
    let shared = mount.optional.iter().any(|tag| tag.starts_with("shared:"));
    let follows = mount.optional.iter().any(|tag| tag.starts_with("master:"));
    let wrong = match propagation {
        MountPropagation::Bidirectional if !shared => {
            "PROPAGATION_BIDIRECTIONAL needs a shared mount"
        }
        MountPropagation::HostToContainer if !shared && !follows => {
            "PROPAGATION_HOST_TO_CONTAINER needs a shared or slave mount"
        }
        _ => return Ok(()),
    };
    let point = mount.mount_point.display();
    Err(Error::invalid(
        format!("{field}.propagation"),
        format!(
            "{wrong}, but {point} (where {} is) is private; mount --make-rshared {point} changes that",
            source.display()
        ),
    ))
}

/// The mount that `path` is on: the last of the deepest, which lies on top.
fn mount_of<'a>(
    table: &'a [sys::mountinfo::Mount],
    path: &Path,
) -> Option<&'a sys::mountinfo::Mount> {
    let depth = |mount: &&sys::mountinfo::Mount| mount.mount_point.components().count();
    table
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(depth)
}

/// `path` below `/`, without `.` and `..`; `None` for `/` itself.
fn absolute(path: &str) -> Option<PathBuf> {
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (out != Path::new("/")).then_some(out)
}

/// All mounts in the order in which they must be made: a shallow one before what lies in it.
pub(crate) fn mounts(input: &Input<'_>) -> Result<Vec<OciMount>> {
    let mut all = defaults(input);
    // The request's mount takes the place of a default.
    all.retain(|one| {
        !input
            .mounts
            .iter()
            .any(|mount| mount.target == *one.destination())
    });
    for one in &input.mounts {
        all.push(bind(one)?);
    }
    all.sort_by_key(|one| one.destination().components().count());
    Ok(all)
}

/// The kernel's file systems and the pod's files.
fn defaults(input: &Input<'_>) -> Vec<OciMount> {
    let privileged = input.container.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let pod = &input.pod.security.namespaces;
    let shm = match pod.ipc {
        NamespaceMode::Node => PathBuf::from("/dev/shm"),
        _ => input.pod_dir.join("shm"),
    };
    // As containerd and CRI-O have it: a read-only root file system makes the pod's files read-only, too.
    let file = if input.container.security.readonly_rootfs {
        "ro"
    } else {
        "rw"
    };
    let mut all = vec![
        kernel("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        kernel(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        kernel(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        match userns::ranges(pod) {
            // A user namespace may mount the sysfs of its own network namespaces alone.
            Some(_) if pod.network == NamespaceMode::Node => kernel_bind(
                "/sys",
                Path::new("/sys"),
                &["rbind", "rprivate", "nosuid", "noexec", "nodev", access],
            ),
            _ => kernel(
                "/sys",
                "sysfs",
                "sysfs",
                &["nosuid", "noexec", "nodev", access],
            ),
        },
        kernel(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
        kernel_bind(
            "/dev/shm",
            &shm,
            &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
        ),
    ];
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        all.push(kernel_bind(
            &target,
            &input.pod_dir.join(name),
            &["rbind", "rprivate", file],
        ));
    }
    all
}

fn kernel(target: &str, kind: &str, source: &str, options: &[&str]) -> OciMount {
    mount(
        target.as_ref(),
        kind,
        source.as_ref(),
        options.iter().map(|one| (*one).to_owned()).collect(),
    )
}

fn kernel_bind(target: &str, source: &Path, options: &[&str]) -> OciMount {
    mount(
        target.as_ref(),
        "bind",
        source,
        options.iter().map(|one| (*one).to_owned()).collect(),
    )
}

fn bind(one: &ResolvedMount) -> Result<OciMount> {
    let propagation = match one.propagation {
        MountPropagation::Private => "rprivate",
        MountPropagation::HostToContainer => "rslave",
        MountPropagation::Bidirectional => "rshared",
    };
    let access = match (one.readonly || one.image, one.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind", propagation, access];
    if one.image {
        options.extend(["nosuid", "nodev", "noexec"]);
    }
    let options = options.into_iter().map(str::to_owned).collect();
    let mut out = mount(&one.target, "bind", &one.source, options);
    // An image is an overlay, which cannot be mapped: everyone may read what everyone may read.
    if !one.uids.is_empty() && !one.image {
        out.set_uid_mappings(Some(userns::oci(&one.uids)?));
        out.set_gid_mappings(Some(userns::oci(&one.gids)?));
    }
    Ok(out)
}

fn mount(target: &Path, kind: &str, source: &Path, options: Vec<String>) -> OciMount {
    let mut out = OciMount::default();
    out.set_destination(target.to_owned());
    out.set_typ(Some(kind.to_owned()));
    out.set_source(Some(source.to_owned()));
    out.set_options(Some(options));
    out
}

/// The root's own propagation must let through what a mount below it wants.
pub(crate) fn rootfs_propagation(mounts: &[ResolvedMount]) -> Option<&'static str> {
    let wants = |kind| mounts.iter().any(|one| one.propagation == kind);
    if wants(MountPropagation::Bidirectional) {
        Some("rshared")
    } else if wants(MountPropagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_below_the_root() {
        assert_eq!(absolute("/a/../../b/./c/"), Some("/b/c".into()));
        assert_eq!(absolute("data"), Some("/data".into()));
        assert_eq!(absolute("/"), None);
        assert_eq!(absolute(""), None);
    }

    #[test]
    fn the_mount_of_a_path_is_the_deepest_and_last_one() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                     2 1 8:2 / /data rw shared:7 - ext4 /dev/sdb rw\n\
                     3 2 8:3 / /data/a\\040b rw master:7 - ext4 /dev/sdc rw\n";
        let table = sys::mountinfo::parse(table.as_bytes());
        let tags =
            |path: &str| mount_of(&table, Path::new(path)).map(|mount| mount.optional.join(" "));
        assert_eq!(tags("/data/x").as_deref(), Some("shared:7"));
        assert_eq!(tags("/data/a b/x").as_deref(), Some("master:7"));
        assert_eq!(tags("/database").as_deref(), Some(""));
    }

    #[test]
    fn a_missing_source_becomes_a_directory_and_a_link_its_target() {
        let dir = tempfile::tempdir().expect("temp dir");
        let base = dir.path().canonicalize().expect("a real path");
        std::os::unix::fs::symlink("real", base.join("link")).expect("link");
        fs::create_dir(base.join("real")).expect("real");
        let mount = |host: PathBuf| Mount {
            container_path: "/data".into(),
            host_path: host.to_string_lossy().into_owned(),
            ..Mount::default()
        };
        let found =
            resolve(&[mount(base.join("link")), mount(base.join("new/deep"))]).expect("resolved");
        assert_eq!(found[0].source, base.join("real"));
        assert!(base.join("new/deep").is_dir());
    }

    #[test]
    fn recursive_read_only_needs_a_private_read_only_mount() {
        let mount = Mount {
            container_path: "/d".into(),
            host_path: "/tmp".into(),
            recursive_read_only: true,
            ..Mount::default()
        };
        let error = resolve(&[mount]).expect_err("not readonly");
        assert!(
            error.report().starts_with("mounts[0].recursive_read_only:"),
            "{error}"
        );
    }
}
