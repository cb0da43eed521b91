//! A daemon of its own for each test: private directories, a socket, and an end that leaves nothing.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod image;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use proto::davit::v1::images_client::ImagesClient;
use proto::runtime::v1::image_service_client::ImageServiceClient;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::{
    ListPodSandboxRequest, RemovePodSandboxRequest, StatusRequest, VersionRequest,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
const LIMIT: usize = 64 << 20;

/// A running `davit-cri`. Dropping it stops it and takes its directories away.
pub(crate) struct Daemon {
    child: Child,
    dirs: Dirs,
}

/// The directories of one node, on tmpfs, so that the daemon mounts none.
pub(crate) struct Dirs(tempfile::TempDir);

impl Dirs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("davit-cri-test.")
            .tempdir_in("/dev/shm");
        Self(dir.expect("a directory in /dev/shm"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The name of all that is this test's outside its directory.
    fn name(&self) -> &OsStr {
        self.0
            .path()
            .file_name()
            .expect("a temporary directory has a name")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("cri.sock")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The command line of a daemon with these directories, and binaries that exist but do nothing.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.args(["--shim", "/bin/true", "--oci-runtime", "/bin/true"]);
        command
    }

    /// The same, with our own binaries, wherever the daemon finds them.
    pub(crate) fn bare_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_davit-cri"));
        for (flag, name) in [
            ("--run-dir", "run"),
            ("--state-dir", "state"),
            ("--socket", "cri.sock"),
            ("--cni-conf-dir", "net.d"),
            ("--cni-cache-dir", "cni"),
            ("--hosts-dir", "hosts.d"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command
            .arg("--cgroup-root")
            .arg(Path::new("/").join(self.name()));
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    /// Runs a daemon that is expected to end by itself.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        run_to_its_end(command)
    }
}

/// The output of a process that ends by itself; one that does not is killed, and the test fails.
pub(crate) fn run_to_its_end(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let end = Instant::now() + DEADLINE;
    while child.try_wait().expect("waitable").is_none() {
        if Instant::now() > end {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("waited for");
            panic!("{command:?} does not end:\n{}", text(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("waited for")
}

/// The daemon keeps the cgroup that its pods are under; with v1 there is one in each hierarchy.
impl Drop for Dirs {
    fn drop(&mut self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let left = hierarchy.path().join(self.name());
            if left.is_dir()
                && let Err(error) = fs::remove_dir(&left)
            {
                eprintln!("{} is left: {error}", left.display());
            }
        }
    }
}

impl Daemon {
    /// A daemon that is ready, with binaries that do nothing: for all but pods.
    pub(crate) async fn start() -> Self {
        let dirs = Dirs::new();
        let command = dirs.command();
        Self::start_with(dirs, command).await
    }

    /// A daemon that is ready.
    pub(crate) async fn start_with(dirs: Dirs, command: Command) -> Self {
        let mut daemon = Self::spawn(dirs, command);
        daemon.wait_until_ready().await;
        daemon
    }

    pub(crate) fn spawn(dirs: Dirs, command: Command) -> Self {
        let log = File::options()
            .append(true)
            .create(true)
            .open(dirs.path("log"));
        Self::spawn_logging_to(dirs, command, log.expect("a log file").into())
    }

    pub(crate) fn spawn_logging_to(dirs: Dirs, mut command: Command, log: Stdio) -> Self {
        let child = command.stderr(log).spawn().expect("davit-cri starts");
        Self { child, dirs }
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                panic!("davit-cri ended with {status}:\n{}", self.dirs.log());
            }
            if self.dirs.socket().exists() && self.answers().await {
                return;
            }
            assert!(
                Instant::now() < end,
                "davit-cri is not ready:\n{}",
                self.dirs.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(channel) = self.endpoint().connect().await else {
            return false;
        };
        let status = RuntimeServiceClient::new(channel)
            .status(StatusRequest::default())
            .await;
        match status {
            Ok(_) => true,
            Err(status) if status.code() == Code::Unavailable => false,
            Err(status) => panic!("Status: {status}"),
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("unix:{}", self.socket().display())).expect("a URI")
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.endpoint().connect().await.expect("connected")
    }

    pub(crate) async fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel().await)
            .max_decoding_message_size(LIMIT)
            .max_encoding_message_size(LIMIT)
    }

    pub(crate) async fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel().await)
            .max_decoding_message_size(LIMIT)
            .max_encoding_message_size(LIMIT)
    }

    pub(crate) async fn davit(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel().await)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dirs.socket()
    }

    pub(crate) fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                return status;
            }
            assert!(
                Instant::now() < end,
                "davit-cri does not end:\n{}",
                self.dirs.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it as a crash would, and gives back the directories.
    pub(crate) fn kill(mut self) -> Dirs {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
        std::mem::replace(&mut self.dirs, Dirs::new())
    }
}

impl Daemon {
    /// Removes what pods a test has left, also one that failed: shims and pinned namespaces outlive the daemon.
    fn remove_pods(&mut self) {
        let left =
            fs::read_dir(self.dirs.path("run/pods")).is_ok_and(|mut pods| pods.next().is_some());
        if !left {
            return;
        }
        let daemon: &Self = self;
        // In a thread of its own: this one may be inside the runtime of the test.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    if tokio::time::timeout(DEADLINE, daemon.remove_listed())
                        .await
                        .is_err()
                    {
                        eprintln!("pods are left in {}", daemon.dirs.path("run").display());
                    }
                });
            });
        });
    }

    async fn remove_listed(&self) {
        let Ok(channel) = self.endpoint().connect().await else {
            return;
        };
        let mut runtime = RuntimeServiceClient::new(channel);
        let pods = runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await;
        for pod in pods.map(|list| list.into_inner().items).unwrap_or_default() {
            let request = RemovePodSandboxRequest {
                pod_sandbox_id: pod.id,
            };
            if let Err(status) = runtime.remove_pod_sandbox(request).await {
                eprintln!("RemovePodSandbox: {status}");
            }
        }
    }
}

impl Drop for Daemon {
    #[allow(
        clippy::let_underscore_must_use,
        reason = "both fail only where it has ended already"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of davit-cri ---\n{}", self.dirs.log());
        }
        self.remove_pods();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our own binaries beside the daemon's. Where they were not built the test cannot run: it says so, and with MUST_WORK=1
/// it fails.
pub(crate) fn pods_can_run() -> bool {
    let beside = Path::new(env!("CARGO_BIN_EXE_davit-cri"))
        .parent()
        .expect("a directory");
    let missing: Vec<&str> = ["davit-shim", "davit-oci"]
        .into_iter()
        .filter(|name| !beside.join(name).is_file())
        .collect();
    if missing.is_empty() {
        return true;
    }
    let reason = format!(
        "{missing:?} not in {}: cargo build -p shim -p oci-runtime",
        beside.display()
    );
    assert!(std::env::var_os("MUST_WORK").is_none(), "{reason}");
    eprintln!("skipped: {reason}");
    false
}

/// Polls until `check` says what it was waiting for.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it exists").mode() & 0o7777
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn version() -> VersionRequest {
    VersionRequest::default()
}
