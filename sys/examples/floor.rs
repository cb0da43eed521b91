//! The floor that `davit-oci run` is measured against: a container made of nothing but the system calls.
//!
//! `floor ROOTFS` makes a cgroup, one child in five new namespaces and in that cgroup, seven mounts and six device
//! nodes, pivots into ROOTFS, runs `/bin/true` there, waits, and removes the cgroup. No configuration, no limits, no
//! capabilities, no masks, no state: whatever a runtime takes longer is the runtime's own.
//!
//! `cargo build --profile small --example floor -p sys`, with the flags of the small binaries, builds it static.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode as FileMode;
use sys::cgroup::{Cgroup, CgroupPath, Hierarchies, Joiner, Mode};
use sys::fs::Node;
use sys::mount::{mount, pivot_root, unmount};
use sys::process::{CloneArgs, Forked, clone3, execve, wait};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let Some(rootfs) = std::env::args_os().nth(1) else {
        eprintln!("usage: floor ROOTFS");
        return ExitCode::from(64);
    };
    match run(Path::new(&rootfs)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rootfs: &Path) -> Result<u8> {
    let hierarchies = Hierarchies::detect()?;
    let cgroup = Cgroup::new(
        &hierarchies,
        &CgroupPath::new(format!("/davit-floor-{}", std::process::id()))?,
    );
    let made = cgroup.create()?;
    let directory = cgroup.dir_fd_v2()?;
    let joiner = cgroup.joiner()?;
    let namespaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNS;
    let args = CloneArgs {
        namespaces,
        cgroup: directory.as_ref().map(AsFd::as_fd),
        ..CloneArgs::default()
    };
    match clone3(&args)? {
        Forked::Child => Err(contain(rootfs, &joiner, &hierarchies).into()),
        Forked::Parent(child) => {
            let exit = wait(&child.pidfd)?;
            made.undo()?;
            Ok(u8::try_from(exit.code())?)
        }
    }
}

/// The child's side; returns only to say what went wrong.
fn contain(rootfs: &Path, joiner: &Joiner, hierarchies: &Hierarchies) -> String {
    match prepare(rootfs, joiner, hierarchies) {
        Ok(()) => execve(c"/bin/true", &[CString::from(c"true")], &[]).to_string(),
        Err(error) => error.to_string(),
    }
}

fn prepare(rootfs: &Path, joiner: &Joiner, hierarchies: &Hierarchies) -> Result<()> {
    joiner.join_self()?;
    mount(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None,
    )?;
    mount(
        Some(rootfs),
        rootfs,
        None,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None,
    )?;
    mounts(rootfs, hierarchies)?;
    devices(&rootfs.join("dev"))?;
    nix::unistd::chdir(rootfs)?;
    pivot_root(Path::new("."), Path::new("."))?;
    unmount(Path::new("."), MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}

/// The mounts of runc's default bundle.
fn mounts(rootfs: &Path, hierarchies: &Hierarchies) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let new = |fs_type: &str, at: &str, flags, data| {
        mount(
            Some(Path::new(fs_type)),
            &rootfs.join(at),
            Some(fs_type),
            flags,
            data,
        )
    };
    new("proc", "proc", MsFlags::empty(), None)?;
    new(
        "tmpfs",
        "dev",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
        Some("mode=755,size=65536k"),
    )?;
    for dir in ["dev/pts", "dev/shm", "dev/mqueue"] {
        std::fs::create_dir(rootfs.join(dir))?;
    }
    let pts = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    new(
        "devpts",
        "dev/pts",
        pts,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    new("tmpfs", "dev/shm", safe, Some("mode=1777,size=65536k"))?;
    new("mqueue", "dev/mqueue", safe, None)?;
    new("sysfs", "sys", safe | MsFlags::MS_RDONLY, None)?;
    let cgroups = rootfs.join("sys/fs/cgroup");
    if hierarchies.mode() == Mode::V2 {
        // A new mount of cgroup2 from the first cgroup namespace waits 6 to 14 ms for RCU; binding the host's does not.
        return Ok(mount(
            Some(Path::new("/sys/fs/cgroup")),
            &cgroups,
            None,
            MsFlags::MS_BIND,
            None,
        )?);
    }
    // On v1 this one mount of the bundle is a directory with every hierarchy in it.
    new("tmpfs", "sys/fs/cgroup", safe, Some("mode=755"))?;
    for hierarchy in hierarchies.list() {
        let target: PathBuf = cgroups.join(hierarchy.mount().file_name().unwrap_or_default());
        std::fs::create_dir(&target)?;
        mount(
            Some(hierarchy.mount()),
            &target,
            None,
            MsFlags::MS_BIND,
            None,
        )?;
    }
    Ok(())
}

fn devices(dev: &Path) -> Result<()> {
    let dev = std::fs::File::open(dev)?;
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        sys::fs::mknod(
            &dev,
            OsStr::new(name),
            Node::Char(major, minor),
            FileMode::from_bits_truncate(0o666),
        )?;
    }
    Ok(())
}
