//! Bundles, runtimes, and the certainty that nothing is left behind.
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A program with runc's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Davit,
    Runc,
}

impl Runtime {
    /// This runtime, and runc where it is installed, unless `WITHOUT_RUNC` is set. Empty where the tests cannot run at all.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Self::ours();
        let wanted = std::env::var_os("WITHOUT_RUNC").is_none();
        if wanted && !all.is_empty() && Path::new("/usr/sbin/runc").exists() {
            all.push(Self::Runc);
        }
        all
    }

    /// This runtime alone, for what runc does otherwise or not at all.
    pub(crate) fn ours() -> Vec<Self> {
        let ready = nix::unistd::geteuid().is_root() && Path::new("/bin/busybox").exists();
        if !ready {
            assert!(
                std::env::var_os("MUST_WORK").is_none(),
                "needs root and /bin/busybox (package busybox-static)"
            );
            eprintln!("skipped: needs root and /bin/busybox (package busybox-static)");
            return Vec::new();
        }
        vec![Self::Davit]
    }

    /// `DAVIT_OCI` names another build of ours than the one that cargo made for the tests.
    pub(crate) fn program(self) -> &'static str {
        static OURS: LazyLock<String> = LazyLock::new(|| {
            std::env::var("DAVIT_OCI")
                .unwrap_or_else(|_| env!("CARGO_BIN_EXE_davit-oci").to_owned())
        });
        match self {
            Self::Davit => &OURS,
            Self::Runc => "/usr/sbin/runc",
        }
    }
}

/// The programs of busybox that the tests use.
const APPLETS: [&str; 36] = [
    "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "stat", "mount", "grep", "touch",
    "mkdir", "tty", "stty", "pwd", "hostname", "ps", "kill", "test", "readlink", "env", "dd", "wc",
    "head", "chmod", "ln", "rm", "cut", "sort", "nice", "yes", "tail", "printf", "umount", "mknod",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bundle and the container that is made from it. Dropping it deletes both, also after a failure.
pub(crate) struct Container {
    pub(crate) runtime: Runtime,
    pub(crate) id: String,
    pub(crate) config: Value,
    dir: tempfile::TempDir,
}

impl Container {
    /// A bundle whose program is `sh -c script`.
    pub(crate) fn new(runtime: Runtime, script: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("davit-oci-test-")
            .tempdir()
            .unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp", "root"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        // By a process of its own: what another thread forks meanwhile would keep the file open for writing (ETXTBSY).
        let copied = Command::new("cp")
            .arg("/bin/busybox")
            .arg(rootfs.join("bin"))
            .status();
        assert!(copied.unwrap().success());
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n",
        )
        .unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("davit-test-{}-{number}", std::process::id());
        Self {
            runtime,
            id,
            config: config(script),
            dir,
        }
    }

    /// Changes the configuration.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn bundle(&self) -> &Path {
        self.dir.path()
    }

    /// A path of the root filesystem, seen from the host.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("rootfs")
            .join(path.trim_start_matches('/'))
    }

    pub(crate) fn state_root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The runtime with these arguments; killed after a while, so that no test hangs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args([
                "--foreground",
                "-k",
                "1",
                &patient(30).to_string(),
                self.runtime.program(),
                "--root",
            ])
            .arg(self.state_root());
        command
            .args(args)
            .stdin(Stdio::null())
            .current_dir(self.bundle());
        command
    }

    pub(crate) fn write_config(&self) {
        std::fs::write(self.bundle().join("config.json"), self.config.to_string()).unwrap();
    }

    /// `run ID`
    pub(crate) fn run(&self) -> Output {
        self.write_config();
        self.command(&["run", &self.id]).output().unwrap()
    }

    /// `run ID`, which must succeed; what the program wrote.
    pub(crate) fn output(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{:?}: {output:?}", self.runtime);
        text(&output.stdout)
    }

    /// `create ID` and `start ID`, the program's output going nowhere.
    pub(crate) fn start(&self) {
        self.write_config();
        self.must(&["create", &self.id]);
        self.must(&["start", &self.id]);
    }

    /// A command that must succeed. A container's first process keeps its caller's stdout, so that is a file.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.call(args);
        assert_eq!(
            code,
            Some(0),
            "{:?} {args:?}: {stdout} {stderr}",
            self.runtime
        );
        stdout
    }

    /// Any command: its exit code, stdout and stderr.
    pub(crate) fn call(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = tempfile::tempfile().unwrap();
        let err = tempfile::tempfile().unwrap();
        let mut command = self.command(args);
        command
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap());
        let code = command.status().unwrap().code();
        (code, read_back(out), read_back(err))
    }

    pub(crate) fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.must(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        let state: Value = serde_json::from_str(&self.must(&["state", &self.id])).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Nothing of the container is left: no state, no cgroup, no mount, no process.
    pub(crate) fn assert_nothing_left(&self) {
        let entries = std::fs::read_dir(self.state_root())
            .map(|dir| dir.flatten().count())
            .unwrap_or(0);
        assert_eq!(entries, 0, "state directories are left");
        assert_eq!(
            cgroups_named(&self.id),
            Vec::<PathBuf>::new(),
            "cgroups are left"
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let bundle = self.bundle().to_str().unwrap();
        assert!(!mounts.contains(bundle), "mounts are left");
        assert_eq!(
            processes_with(bundle),
            Vec::<i32>::new(),
            "processes are left"
        );
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The test has said already what was wrong; this only cleans up.
        drop(
            self.command(&["delete", "--force", &self.id])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        );
    }
}

/// Cgroup directories with this name, in every hierarchy.
pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mounts = sys::mountinfo::own().unwrap();
    let cgroups = mounts
        .iter()
        .filter(|mount| mount.fs_type.starts_with("cgroup"));
    cgroups
        .flat_map(|mount| find(&mount.mount_point, name))
        .collect()
}

fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return found;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        if entry.file_name().to_str() == Some(name) {
            found.push(entry.path());
        }
        found.extend(find(&entry.path(), name));
    }
    found
}

/// Processes whose root, working directory or command line is below `path`, other than this one.
fn processes_with(path: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let link = |name: &str| std::fs::read_link(entry.path().join(name)).unwrap_or_default();
        let args = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let inside = ["root", "cwd"]
            .iter()
            .any(|name| link(name).starts_with(path));
        if inside || text(&args).contains(path) {
            found.push(pid);
        }
    }
    found
}

/// So many seconds, and more in the test host: it has no KVM, and on a busy machine it is many times slower.
fn patient(seconds: u64) -> u64 {
    if std::env::var_os("DAVIT_VM").is_some() {
        seconds * 4
    } else {
        seconds
    }
}

/// Waits until the condition holds; the test fails where it does not within some seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(patient(20));
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        // Those that are waited for need the processors.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_back(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    file.rewind().unwrap();
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    text(&all)
}

/// A configuration that both runtimes take, with nothing that this machine might refuse.
fn config(script: &str) -> Value {
    let capabilities = json!([
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]}
        }
    })
}
