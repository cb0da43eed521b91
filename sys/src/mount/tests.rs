//! The mount wrappers against the real kernel; a test that needs privileges says so and passes without them.
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::MsFlags;

use super::*;

#[test]
fn opening_a_missing_tree_names_every_operand() {
    let error = open_tree(AT_FDCWD, Path::new("/no/such"), OpenTree::OPEN_TREE_CLONE).unwrap_err();
    if error.errno == Errno::ENOENT {
        assert_eq!(
            error.to_string(),
            r#"open_tree(AT_FDCWD, "/no/such", OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC): no such file or directory (ENOENT)"#
        );
    }
}

#[test]
fn an_unknown_filesystem_type_is_enodev() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    assert_eq!(
        FsContext::open("no-such-fs").unwrap_err().errno,
        Errno::ENODEV
    );
}

#[test]
fn an_unknown_parameter_names_the_key_and_the_words_of_the_kernel() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let context = FsContext::open("tmpfs").unwrap();
    let text = context.set_string("bogus", "1").unwrap_err().to_string();
    assert!(
        text.contains(r#"<tmpfs>, FSCONFIG_SET_STRING, "bogus", "1""#),
        "{text}"
    );
    assert!(text.contains("Unknown parameter"), "{text}");
}

#[test]
fn a_detached_mount_is_usable_and_gets_its_attributes_before_it_has_a_place() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let context = FsContext::open("tmpfs").unwrap();
    context.set_string("size", "64k").unwrap();
    let mount = context.mount(MountAttr::MOUNT_ATTR_NOSUID).unwrap();
    let attrs = MountAttrs {
        set: MountAttr::MOUNT_ATTR_RDONLY,
        ..MountAttrs::default()
    };
    mount_setattr(&mount, attrs).unwrap();
    let error = nix::sys::stat::mkdirat(&mount, "x", nix::sys::stat::Mode::S_IRWXU).unwrap_err();
    assert_eq!(error, Errno::EROFS);
}

#[test]
fn detaching_what_is_not_mounted_is_success() {
    unmount_detach(Path::new("/no/such/place")).unwrap();
    unmount_detach(Path::new("/proc/self/status")).unwrap();
}

#[test]
fn an_overlay_of_many_layers_needs_no_long_option_string() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let base = std::env::temp_dir().join(format!("davit-sys-overlay-{}", std::process::id()));
    let guard = RemoveDir(base.clone());
    let layers: Vec<_> = (0..60).map(|n| base.join(format!("{n:0>100}"))).collect();
    for layer in &layers {
        std::fs::create_dir_all(layer).unwrap();
    }
    std::fs::write(layers[59].join("lowest"), "x").unwrap();
    let lower: Vec<&Path> = layers.iter().map(AsRef::as_ref).collect();
    let mount = match overlay(&lower, None, &[]) {
        Err(error) if kernel_is_before(6, 5) => {
            eprintln!(
                "skipped: overlay takes one option for each layer from Linux 6.5 on: {error}"
            );
            return;
        }
        other => other.unwrap(),
    };
    nix::sys::stat::fstatat(&mount, "lowest", nix::fcntl::AtFlags::empty()).unwrap();
    drop(mount);
    drop(guard);
}

/// Linux before 6.5 refuses `lowerdir+` only when all is mounted.
#[test]
fn an_overlay_of_two_layers_is_mounted_by_every_kernel() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let base = std::env::temp_dir().join(format!("davit-sys-two-{}", std::process::id()));
    let guard = RemoveDir(base.clone());
    let layers = ["upper", "lower"].map(|name| base.join(name));
    for layer in &layers {
        std::fs::create_dir_all(layer).unwrap();
        std::fs::write(layer.join("both"), layer.to_str().unwrap()).unwrap();
    }
    std::fs::write(layers[1].join("lowest"), "x").unwrap();
    let mount = overlay(&[&layers[0], &layers[1]], None, &[]).unwrap();
    nix::sys::stat::fstatat(&mount, "lowest", nix::fcntl::AtFlags::empty()).unwrap();
    let through = format!("/proc/self/fd/{}/both", mount.as_raw_fd());
    let text = std::fs::read_to_string(through).unwrap();
    assert_eq!(text, layers[0].to_str().unwrap());
    drop(mount);
    drop(guard);
}

#[test]
fn a_failed_mount_prints_its_flags_by_name() {
    let error = mount(
        None,
        Path::new("/no/such"),
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("size=1k"),
    )
    .unwrap_err();
    assert!(
        error
            .call
            .starts_with(r#"mount(NULL, "/no/such", "tmpfs", MS_NOSUID, "size=1k")"#),
        "{}",
        error.call
    );
}

fn kernel_is_before(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) < (major, minor)
}

struct RemoveDir(std::path::PathBuf);

impl Drop for RemoveDir {
    fn drop(&mut self) {
        // A leftover directory in the temporary directory is not worth a second panic.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
