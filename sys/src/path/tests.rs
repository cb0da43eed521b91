//! Hostile trees on the real kernel.
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::*;

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("davit-sys-path-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("root")).unwrap();
        Self(path)
    }

    fn root(&self) -> Root {
        Root::open(&self.0.join("root")).unwrap()
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.join("root").join(inside)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A leftover directory in the temporary directory is not worth a second panic.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

#[test]
fn a_link_to_the_outside_stays_inside() {
    let tree = Tree::new("inside");
    symlink("/etc", tree.path("escape")).unwrap();
    symlink("../../../..", tree.path("up")).unwrap();
    let root = tree.root();
    root.mkdir_all(Path::new("/escape/sub"), mode(0o755))
        .unwrap();
    assert!(
        tree.path("etc/sub").is_dir(),
        "the link's target is made inside the root"
    );
    root.mkdir_all(Path::new("up/here"), mode(0o755)).unwrap();
    assert!(tree.path("here").is_dir());
    assert!(!tree.0.join("here").exists());
}

#[test]
fn a_dangling_link_is_followed_inside_and_a_loop_of_links_ends() {
    let tree = Tree::new("dangling");
    symlink("missing/place", tree.path("link")).unwrap();
    symlink("loop", tree.path("loop")).unwrap();
    let root = tree.root();
    root.mkdir_all(Path::new("link/deeper"), mode(0o755))
        .unwrap();
    assert!(tree.path("missing/place/deeper").is_dir());
    assert_eq!(
        root.mkdir_all(Path::new("loop/x"), mode(0o755))
            .unwrap_err()
            .errno,
        Errno::ELOOP
    );
}

#[test]
fn a_file_is_made_with_its_parents_and_kept_when_it_is_there() {
    let tree = Tree::new("file");
    let root = tree.root();
    root.create_file(Path::new("/a/b/file"), mode(0o600))
        .unwrap();
    std::fs::write(tree.path("a/b/file"), "kept").unwrap();
    root.create_file(Path::new("/a/b/file"), mode(0o600))
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(tree.path("a/b/file")).unwrap(),
        "kept"
    );
    assert_eq!(
        root.mkdir_all(Path::new("a/b/file/c"), mode(0o755))
            .unwrap_err()
            .errno,
        Errno::ENOTDIR
    );
}

#[test]
fn a_file_at_the_end_of_dangling_links_is_made_inside() {
    let tree = Tree::new("file-link");
    std::fs::create_dir(tree.path("etc")).unwrap();
    symlink("../run/resolve/stub", tree.path("etc/relative")).unwrap();
    // Over another link, which is absolute and tries to leave.
    symlink("second", tree.path("etc/first")).unwrap();
    symlink("/../../run/second", tree.path("etc/second")).unwrap();
    symlink("loop", tree.path("etc/loop")).unwrap();
    // The directory of the link is reached over a link itself.
    std::fs::create_dir_all(tree.path("deep/er")).unwrap();
    symlink("/deep/er", tree.path("short")).unwrap();
    symlink("../beside", tree.path("deep/er/link")).unwrap();
    let root = tree.root();
    for (path, made) in [
        ("/etc/relative", "run/resolve/stub"),
        ("etc/first", "run/second"),
        ("short/link", "deep/beside"),
    ] {
        let fd = root.create_file(Path::new(path), mode(0o600)).unwrap();
        let stat = nix::sys::stat::fstat(&fd).unwrap();
        let there = nix::sys::stat::lstat(&tree.path(made)).unwrap();
        assert_eq!(
            (stat.st_ino, stat.st_mode),
            (there.st_ino, 0o100_600),
            "{path}"
        );
    }
    assert!(!tree.0.join("run").exists());
    assert_eq!(
        root.create_file(Path::new("etc/loop"), mode(0o600))
            .unwrap_err()
            .errno,
        Errno::ELOOP
    );
}

#[test]
fn a_magic_link_is_refused() {
    let root = Root::open(Path::new("/")).unwrap();
    assert_eq!(
        root.resolve(Path::new("/proc/self/fd/0"))
            .unwrap_err()
            .errno,
        Errno::ELOOP
    );
}

#[test]
fn the_root_itself_resolves() {
    let tree = Tree::new("self");
    let root = tree.root();
    for path in ["", "/", ".", "/..", "../.."] {
        let fd = root.resolve(Path::new(path)).unwrap();
        let inode = nix::sys::stat::fstat(&fd).unwrap().st_ino;
        assert_eq!(
            inode,
            nix::sys::stat::fstat(&root).unwrap().st_ino,
            "{path:?}"
        );
    }
}

#[test]
fn procfs_opens_own_files_and_refuses_links() {
    let proc = Proc::open().unwrap();
    proc.open_self("status", OFlag::O_RDONLY).unwrap();
    let error = proc
        .open_at(Path::new("self/status"), OFlag::O_RDONLY)
        .unwrap_err();
    assert_eq!(error.errno, Errno::ELOOP);
    assert_eq!(
        proc.open_at(Path::new("../etc/passwd"), OFlag::O_RDONLY)
            .unwrap_err()
            .errno,
        Errno::EXDEV
    );
}

/// Nested containers: their LSM knows no path of a detached mount, and refuses it. Here that is a tmpfs on which the
/// files are devices that may not be opened.
#[test]
fn what_a_private_procfs_refuses_is_opened_in_the_verified_one() {
    use crate::fs::{Node, mkdir, mknod, symlink};
    let Ok(context) = crate::mount::FsContext::open("tmpfs") else {
        assert!(std::env::var_os("MUST_WORK").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return;
    };
    let refusing = context
        .mount(crate::mount::MountAttr::MOUNT_ATTR_NODEV)
        .unwrap();
    let directory = |at: &OwnedFd, name: &str| {
        mkdir(at, OsStr::new(name), mode(0o755)).unwrap();
        openat2(
            at,
            Path::new(name),
            OFlag::O_PATH,
            mode(0),
            nix::fcntl::ResolveFlag::empty(),
        )
        .unwrap()
    };
    let device = |at: &OwnedFd, name: &str| {
        mknod(at, OsStr::new(name), Node::Char(1, 3), mode(0o666)).unwrap();
    };
    let kernel = directory(&directory(&refusing, "sys"), "kernel");
    device(&kernel, "hostname");
    device(&directory(&refusing, "1"), "status");
    symlink(OsStr::new("1"), &refusing, OsStr::new("self")).unwrap();
    let proc = Proc::with_private(refusing);

    let file = proc
        .open_at(Path::new("sys/kernel/hostname"), OFlag::O_RDONLY)
        .unwrap();
    assert!(!crate::fd::read_to_end(file, 4096).unwrap().is_empty());
    let own = proc.open_self("status", OFlag::O_RDONLY).unwrap();
    let own = crate::fd::read_to_end(own, 1 << 16).unwrap();
    let line = format!("\nPid:\t{}\n", std::process::id());
    assert!(String::from_utf8_lossy(&own).contains(&line));
    // Never a process by a number, which may be another one there.
    let error = proc.open_at(Path::new("1/status"), OFlag::O_RDONLY);
    assert_eq!(error.unwrap_err().errno, Errno::EACCES);
}

#[test]
fn a_path_descriptor_is_reopened_for_reading() {
    let proc = Proc::host().unwrap();
    let path_only = Root::open(Path::new("/"))
        .unwrap()
        .resolve(Path::new("/etc/passwd"))
        .unwrap();
    let file = proc.reopen(&path_only, OFlag::O_RDONLY).unwrap();
    assert!(!crate::fd::read_to_end(file, 1 << 20).unwrap().is_empty());
}

#[test]
fn the_root_of_a_mount_is_recognised() {
    assert!(is_mount_root(nix::fcntl::AT_FDCWD, Path::new("/proc")).unwrap());
    assert!(!is_mount_root(nix::fcntl::AT_FDCWD, Path::new("/proc/self/fdinfo")).unwrap());
}
