//! A pod with its shim for tests: everything is under a temporary directory and goes with it, also after a failure.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shim::client::{Client, EventStream};
use shim::files;
use shim::protocol::{Create, Event, Exec, Exit, Runtime};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An OCI runtime of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
}

/// Every runtime to test with; what is missing is said.
pub(crate) fn runtimes() -> Vec<Tool> {
    let own = std::env::var_os("DAVIT_BIN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| shim_binary().parent().unwrap().to_owned());
    let candidates = [
        ("davit-oci", vec![own.join("davit-oci")]),
        (
            "runc",
            vec!["/usr/sbin/runc".into(), "/usr/bin/runc".into()],
        ),
        ("crun", vec!["/usr/bin/crun".into()]),
    ];
    let mut found = Vec::new();
    for (name, paths) in candidates {
        match paths.iter().find(|path| path.is_file()) {
            Some(path) => found.push(Tool {
                name,
                path: path.clone(),
            }),
            None => println!("skipped with {name}: not found at {paths:?}"),
        }
    }
    assert!(
        !found.is_empty() || std::env::var_os("MUST_WORK").is_none(),
        "no OCI runtime to test with"
    );
    found
}

/// The runtime for tests where any will do: the first that is there.
pub(crate) fn any_runtime() -> Option<Tool> {
    let found = runtimes().into_iter().next();
    if found.is_none() {
        println!("skipped: no OCI runtime");
    }
    found
}

/// The shim under test: that of `DAVIT_BIN_DIR`, where binaries to be shipped are tested, or the one just built.
pub(crate) fn shim_binary() -> PathBuf {
    let shipped = std::env::var_os("DAVIT_BIN_DIR")
        .map(|directory| PathBuf::from(directory).join("davit-shim"));
    shipped
        .filter(|path| path.is_file())
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_davit-shim").into())
}

/// Asks until it is so.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A pod's directory, its shim, and a root file system with busybox.
pub(crate) struct Pod {
    dir: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) tool: Tool,
    /// The shim sees nothing but cgroup v2.
    unified: bool,
}

/// A mount namespace of cgroup v2 alone, without controllers on hosts where v1 has them.
const UNIFIED: &str =
    "umount -R -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
/// crun refuses hybrid hosts: a mount namespace of cgroup v1 alone.
const LEGACY: &str = "umount -l /sys/fs/cgroup/unified && exec \"$@\"";

impl Pod {
    /// Starts a shim with these options.
    pub(crate) fn start(tool: &Tool, options: &[&str]) -> Self {
        let pod = Self::prepare(tool);
        let line = pod.launch(options);
        assert_eq!(line.get("ready"), Some(&json!(true)), "{line}");
        pod
    }

    /// Everything but the shim.
    pub(crate) fn prepare(tool: &Tool) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("davit-shim-test-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&name).tempdir().unwrap();
        fs::create_dir(dir.path().join("pod")).unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        Self {
            dir,
            name,
            tool: tool.clone(),
            unified: false,
        }
    }

    /// A shim on a host that has only cgroup v2.
    pub(crate) fn start_unified(tool: &Tool, options: &[&str]) -> Self {
        let mut pod = Self::prepare(tool);
        pod.unified = true;
        let line = pod.launch(options);
        assert_eq!(line.get("ready"), Some(&json!(true)), "{line}");
        pod
    }

    /// Runs the shim's command line and returns its one line.
    pub(crate) fn launch(&self, options: &[&str]) -> Value {
        let mut command = self.launcher();
        command
            .args(["--pod-id", &self.name, "--pod-dir"])
            .arg(self.path())
            .args(options);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            text.lines().count(),
            1,
            "one line: {text:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            output.status.code(),
            Some(i32::from(line.get("ready").is_none())),
            "{line}"
        );
        line
    }

    fn launcher(&self) -> Command {
        let hybrid = Path::new("/sys/fs/cgroup/unified").is_dir();
        let script = match self.tool.name {
            _ if self.unified => UNIFIED,
            "crun" if hybrid => LEGACY,
            _ => return Command::new(shim_binary()),
        };
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(shim_binary());
        command
    }

    /// The pod's directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("pod")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect_within(&files::socket(&self.path()), PATIENCE).unwrap()
    }

    pub(crate) fn events(&self) -> EventStream {
        self.client().subscribe().unwrap()
    }

    /// The shim's process id.
    pub(crate) fn pid(&self) -> i32 {
        self.client().hello().pid
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.path().join(id)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    pub(crate) fn log(&self, id: &str) -> Vec<Entry> {
        parse_log(&fs::read(self.log_path(id)).unwrap())
    }

    pub(crate) fn runtime(&self) -> Runtime {
        Runtime {
            path: self.tool.path.clone(),
            root: Some(self.dir.path().join("state")),
            args: Vec::new(),
        }
    }

    /// A bundle that runs a shell line, and the request to create it.
    pub(crate) fn container(&self, id: &str, line: &str) -> Create {
        self.container_with(id, &["/bin/sh", "-c", line], |_| {})
    }

    /// As [`Pod::container`], after a change of its config.
    pub(crate) fn container_with(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Create {
        let bundle = self.bundle(id);
        fs::create_dir_all(&bundle).unwrap();
        let mut config = self.config(id, args);
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        Create {
            container_id: id.to_owned(),
            runtime: self.runtime(),
            bundle,
            log_path: Some(self.log_path(id)),
            terminal: false,
            stdin: false,
            create_args: Vec::new(),
        }
    }

    fn config(&self, id: &str, args: &[&str]) -> Value {
        let mut namespaces = vec![json!({"type": "mount"})];
        for (kind, name) in [
            ("pid", "pid"),
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("network", "net"),
        ] {
            let path = files::namespaces(&self.path()).join(name);
            // Pins of a shim in its own mount namespace look like plain files from here: they are there all the same.
            if path.exists() {
                namespaces.push(json!({"type": kind, "path": path}));
            } else if kind != "network" {
                namespaces.push(json!({"type": kind}));
            }
        }
        json!({
            "ociVersion": "1.0.2",
            "process": process(args),
            "root": {"path": self.dir.path().join("rootfs"), "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            ],
            "linux": {"cgroupsPath": format!("/{}/{id}", self.name), "namespaces": namespaces},
        })
    }

    /// Creates and starts.
    pub(crate) fn run(&self, id: &str, line: &str) -> i32 {
        let mut client = self.client();
        let pid = client.create(self.container(id, line)).unwrap().pid;
        client.start(id).unwrap();
        pid
    }

    /// A process file for `exec`.
    pub(crate) fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> Exec {
        let path = self.bundle(id).join(format!("{exec_id}.json"));
        fs::write(&path, process(args).to_string()).unwrap();
        Exec {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            process_json_path: path,
            terminal: false,
        }
    }

    /// The processes of a container's cgroup.
    pub(crate) fn processes(&self, id: &str) -> Vec<i32> {
        let hierarchy = if self.unified {
            "/sys/fs/cgroup/unified"
        } else {
            "/sys/fs/cgroup/pids"
        };
        let path = Path::new(hierarchy)
            .join(&self.name)
            .join(id)
            .join("cgroup.procs");
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    }

    fn stop(&self) {
        let Ok(mut client) =
            Client::connect_within(&files::socket(&self.path()), Duration::from_secs(30))
        else {
            return;
        };
        let pid = client.hello().pid;
        if client.shutdown(true).is_err() {
            println!("{}: the shim had to be killed", self.name);
            kill(pid, 9);
        }
    }

    /// What a killed shim leaves: processes in cgroups, cgroups, pins.
    fn sweep(&self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            sweep_cgroup(&hierarchy.path().join(&self.name));
        }
        for kind in ["net", "ipc", "uts", "pid"] {
            drop(sys::mount::unmount_detach(
                &files::namespaces(&self.path()).join(kind),
            ));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stop();
        self.sweep();
    }
}

fn sweep_cgroup(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            sweep_cgroup(&entry.path());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while directory.is_dir() && fs::remove_dir(directory).is_err() && Instant::now() < deadline {
        for line in fs::read_to_string(directory.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            kill(line.parse().unwrap(), 9);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    drop(sys::process::send_signal(sys::Pid::from_raw(pid), signal));
}

/// Whether a process runs; a zombie does not.
pub(crate) fn runs(pid: i32) -> bool {
    sys::process::stat(sys::Pid::from_raw(pid)).is_ok_and(|stat| !stat.is_dead())
}

fn process(args: &[&str]) -> Value {
    let capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
    })
}

fn make_rootfs(root: &Path) {
    for directory in ["bin", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "sleep", "echo", "cat", "seq", "kill", "true", "false", "tail", "head", "printf",
        "setsid", "yes", "tr", "test", "ps", "dd",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// One entry of a CRI log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stream: String,
    pub(crate) tag: String,
    pub(crate) text: String,
}

/// Parses a log strictly: every line must have its four parts and a proper time.
pub(crate) fn parse_log(log: &[u8]) -> Vec<Entry> {
    let text = std::str::from_utf8(log).unwrap();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the log ends inside an entry: {:?}",
        &text[text.len().saturating_sub(100)..]
    );
    text.split_terminator('\n')
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let time = parts.next().unwrap();
            assert!(
                time.len() == 30 && time.ends_with('Z') && time.as_bytes()[10] == b'T',
                "{line:?}"
            );
            let mut next = || {
                parts
                    .next()
                    .unwrap_or_else(|| panic!("{line:?}"))
                    .to_owned()
            };
            Entry {
                stream: next(),
                tag: next(),
                text: next(),
            }
        })
        .collect()
}

pub(crate) fn entry(stream: &str, tag: &str, text: &str) -> Entry {
    Entry {
        stream: stream.into(),
        tag: tag.into(),
        text: text.into(),
    }
}

/// Waits for the exit of this container.
pub(crate) fn exit_of(events: &mut EventStream, id: &str) -> Exit {
    let deadline = Instant::now() + PATIENCE;
    while let Some(event) = events
        .next(deadline.saturating_duration_since(Instant::now()))
        .unwrap()
    {
        if let Event::Exit { container_id, exit } = event
            && container_id == id
        {
            return exit;
        }
    }
    panic!("no exit of {id:?} within {PATIENCE:?}");
}

/// Waits for the end of this exec.
pub(crate) fn exec_exit_of(events: &mut EventStream, id: &str) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    while let Some(event) = events
        .next(deadline.saturating_duration_since(Instant::now()))
        .unwrap()
    {
        if let Event::ExecExit {
            exec_id, exit_code, ..
        } = event
            && exec_id == id
        {
            return exit_code;
        }
    }
    panic!("no end of exec {id:?} within {PATIENCE:?}");
}
