//! OCI bundles for any runtime: runc's default configuration, changed by one closure, over a busybox root.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A bundle in a temporary directory.
pub struct Bundle {
    dir: tempfile::TempDir,
}

// === impl Bundle ===

impl Bundle {
    /// A bundle that runs `args` with runc's default configuration, without a terminal.
    ///
    /// # Panics
    /// When busybox-static is not installed, or the disk is full.
    #[must_use]
    #[track_caller]
    pub fn new(args: &[&str]) -> Bundle {
        Bundle::changed(args, |_| {})
    }

    /// The same after `change`.
    ///
    /// # Panics
    /// As [`Bundle::new`].
    #[must_use]
    #[track_caller]
    pub fn changed(args: &[&str], change: impl FnOnce(&mut Value)) -> Bundle {
        let dir = tempfile::Builder::new()
            .prefix("davit-bundle-")
            .tempdir()
            .expect("a temporary directory");
        make_rootfs(&dir.path().join("rootfs"));
        let mut config = default_config(args);
        change(&mut config);
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("config.json");
        Bundle { dir }
    }

    /// The bundle's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its root file system.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }
}

/// A root file system of busybox with its links, users and the usual directories.
///
/// # Panics
/// When busybox-static is not installed, or the disk is full.
pub fn make_rootfs(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for sub in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "data"] {
        std::fs::create_dir_all(root.join(sub)).expect("the root's directories");
    }
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))
        .expect("/tmp's mode");
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("busybox's links");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/data:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).expect("/etc/passwd");
    std::fs::write(root.join("etc/group"), "root:x:0:\nwww:x:33:\n").expect("/etc/group");
}

const APPLETS: [&str; 31] = [
    "cat", "chmod", "cut", "dd", "echo", "env", "false", "find", "grep", "head", "hostname", "id",
    "kill", "ls", "mkdir", "mknod", "mount", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep",
    "sort", "stat", "tail", "touch", "true", "umount", "yes",
];

/// What `runc spec` writes, for `args` without a terminal.
#[must_use]
pub fn default_config(args: &[&str]) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "bundle",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// One entry of `mounts` whose source is named as its type.
#[must_use]
pub fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}
