//! Probes of the kernel: each makes the call that Davit makes, on something that goes away with its descriptor.

use std::fs;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::getpid;
use sys::mount::{FsContext, MountAttr, MountAttrs};
use sys::path::Root;

use super::Finding;
use crate::node::Node;

pub(super) fn mount_api(_: &Node) -> Finding {
    Finding::of(FsContext::open("tmpfs").and_then(|context| context.mount(MountAttr::empty())))
}

pub(super) fn mount_setattr(_: &Node) -> Finding {
    let read_only = MountAttrs {
        set: MountAttr::MOUNT_ATTR_RDONLY,
        ..MountAttrs::default()
    };
    let mount = FsContext::open("tmpfs").and_then(|context| context.mount(MountAttr::empty()));
    Finding::of(mount.and_then(|mount| sys::mount::mount_setattr(&mount, read_only)))
}

pub(super) fn openat2(_: &Node) -> Finding {
    let open = Root::open(Path::new("/"))
        .and_then(|root| root.open_at(Path::new("proc"), OFlag::O_PATH, Mode::empty()));
    Finding::of(open)
}

pub(super) fn pidfd(_: &Node) -> Finding {
    Finding::of(
        sys::process::pidfd_open(getpid()).and_then(|fd| sys::process::pidfd_send_signal(&fd, 0)),
    )
}

/// A child for a probe is too much: the version says it, and that no filter took it away shows with the first container.
pub(super) fn clone3(_: &Node) -> Finding {
    at_least((5, 7))
}

pub(super) fn namespaces(_: &Node) -> Finding {
    all_exist(&["mnt", "pid", "net", "ipc", "uts", "cgroup"])
}

/// A kernel that has them may still allow none.
pub(super) fn user_namespace(_: &Node) -> Finding {
    let allowed = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match all_exist(&["user"]) {
        Finding::Present(_) if allowed.trim() == "0" => {
            Finding::Absent("sysctl user.max_user_namespaces is 0".to_owned())
        }
        finding => finding,
    }
}

pub(super) fn time_namespace(_: &Node) -> Finding {
    all_exist(&["time"])
}

pub(super) fn detached_trees(_: &Node) -> Finding {
    at_least((6, 15))
}

fn all_exist(names: &[&str]) -> Finding {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if missing.is_empty() {
        Finding::Present(String::new())
    } else {
        Finding::Absent(format!("this kernel has no {}", missing.join(", ")))
    }
}

pub(super) fn filesystems(_: &Node) -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &&str| {
        known
            .lines()
            .any(|line| line.split_whitespace().last() == Some(*name))
    };
    let missing: Vec<&str> = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    if missing.is_empty() {
        Finding::Present(String::new())
    } else {
        Finding::Absent(format!("this kernel has no {}", missing.join(", ")))
    }
}

pub(super) fn seccomp(_: &Node) -> Finding {
    Finding::of_io(
        fs::read("/proc/sys/kernel/seccomp/actions_avail"),
        "read /proc/sys/kernel/seccomp/actions_avail",
    )
}

pub(super) fn overlay_lowerdir_plus(_: &Node) -> Finding {
    match FsContext::open("overlay") {
        Ok(context) => Finding::of(context.set_string("lowerdir+", "/")),
        Err(error) => Finding::Absent(error.to_string()),
    }
}

fn at_least(wanted: (u32, u32)) -> Finding {
    let release = release();
    match version(&release) {
        Some(found) if found >= wanted => {
            Finding::Present(format!("by the kernel's version, {release}"))
        }
        Some(_) => Finding::Absent(format!(
            "Linux {release} is older than {}.{}",
            wanted.0, wanted.1
        )),
        None => Finding::Unknown(format!("kernel release {release:?} has no version")),
    }
}

/// The release of the running kernel, such as `6.18.5-amd64`.
pub(super) fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases_of_every_distribution() {
        for (release, found) in [
            ("6.18.5", (6, 18)),
            ("5.15.0-92-generic", (5, 15)),
            ("6.1.0+rpt", (6, 1)),
            ("4.18.0-477.el8.x86_64", (4, 18)),
        ] {
            assert_eq!(version(release), Some(found));
        }
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_kernel_from_the_future_does_not_pass_for_old() {
        assert!(matches!(at_least((2, 6)), Finding::Present(_)));
        assert!(matches!(at_least((99, 0)), Finding::Absent(_)));
    }
}
