//! A private node: one `davit-cri` with directories, network and cgroup of its own.
//!
//! Several nodes live beside each other on one machine. Dropping a node removes its pods, ends the daemon and
//! undoes what a failing test left, so that the next test meets a clean machine.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::command::outcome;
use crate::crictl::Crictl;
use crate::image::TestImage;
use crate::leak::{Scope, Snapshot};
use crate::{bin, wait};

/// What a node is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `DAVIT_FAILPOINTS` of the first daemon; a restart clears it.
    pub fail_points: Option<String>,
    /// The text of `config.toml`.
    pub config: String,
    /// Leaves the CNI configuration directory empty, so that the built-in network serves.
    pub builtin_network: bool,
    /// Further flags of `davit-cri`.
    pub flags: Vec<String>,
    /// Which control groups the daemon finds.
    pub cgroups: Cgroups,
    /// Where to keep the state instead of the node's own directory, for example a small file system.
    pub state_dir: Option<PathBuf>,
}

/// The control groups that a node's daemon finds, in a mount namespace of its own where they are not the machine's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// As this machine has them.
    #[default]
    Machine,
    /// cgroup v2 alone. On a hybrid machine that hierarchy has no controllers: pods run there without limits.
    Unified,
    /// The v1 hierarchies without the cgroup2 mount beside them, because Debian's crun refuses hybrid hosts.
    Legacy,
}

/// A running `davit-cri`.
pub struct Node {
    dir: tempfile::TempDir,
    options: Options,
    number: u32,
    daemon: Option<Child>,
}

// === impl Node ===

impl Node {
    /// Starts a node with the defaults and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start() -> Node {
        Node::start_with(Options::default())
    }

    /// Starts a node and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start_with(options: Options) -> Node {
        let mut node = Node::prepare(options);
        node.spawn_daemon();
        node.wait_until_ready();
        node
    }

    /// Lays out a node's directories without starting its daemon.
    #[must_use]
    pub fn prepare(options: Options) -> Node {
        let dir = tempfile::Builder::new()
            .prefix("davit-node-")
            .tempdir()
            .expect("a temporary directory");
        let node = Node {
            dir,
            options,
            number: next_number(),
            daemon: None,
        };
        for sub in ["run", "state", "net.d", "cni", "hosts", "crictl"] {
            std::fs::create_dir_all(node.path(sub)).expect("the node's directories");
        }
        if !node.options.builtin_network {
            node.write_network("bridge");
        }
        std::fs::write(node.path("config.toml"), &node.options.config).expect("config.toml");
        node
    }

    /// Starts the daemon (again) with the fail points of the options.
    pub fn spawn_daemon(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log");
        let mut command = self.daemon_command();
        command
            .args(self.daemon_args())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log);
        match &self.options.fail_points {
            Some(points) => command.env("DAVIT_FAILPOINTS", points),
            None => command.env_remove("DAVIT_FAILPOINTS"),
        };
        self.daemon = Some(command.spawn().expect("davit-cri starts"));
    }

    fn daemon_command(&self) -> Command {
        let daemon = bin::ours("davit-cri");
        let arrange = match self.options.cgroups {
            Cgroups::Machine => return Command::new(daemon),
            Cgroups::Unified => {
                "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup"
            }
            // crun makes directories where the mount was: it gets a tmpfs for them.
            Cgroups::Legacy => {
                "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; fi"
            }
        };
        let script = format!("{arrange}; exec \"$@\"");
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                &script,
                "sh",
            ])
            .arg(daemon);
        command
    }

    /// The flags of this node's daemon.
    #[must_use]
    pub fn daemon_args(&self) -> Vec<String> {
        let state = self.state_dir();
        let mut args: Vec<String> = [
            ("--run-dir", self.path("run")),
            ("--state-dir", state),
            ("--config", self.path("config.toml")),
            ("--socket", self.socket()),
            ("--cni-conf-dir", self.path("net.d")),
            ("--cni-cache-dir", self.path("cni")),
            ("--hosts-dir", self.path("hosts")),
            ("--cgroup-root", PathBuf::from(self.cgroup_root())),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_string_lossy().into_owned()])
        .collect();
        // `DAVIT_TEST_OCI_RUNTIME=/usr/bin/runc` runs every suite with a genuine runtime: is it us or our runtime?
        if let Ok(runtime) = std::env::var("DAVIT_TEST_OCI_RUNTIME") {
            args.extend(["--oci-runtime".to_owned(), runtime]);
        }
        args.extend(self.options.flags.iter().cloned());
        args
    }

    /// Waits until the daemon answers and says that it is ready.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let crictl = self.crictl();
        wait::until_true(
            "davit-cri answers and is ready",
            Duration::from_secs(30),
            || {
                if let Some(daemon) = &mut self.daemon {
                    let ended = daemon.try_wait().expect("the daemon's state");
                    assert!(
                        ended.is_none(),
                        "davit-cri ended with {ended:?}:\n{}",
                        std::fs::read_to_string(self.dir.path().join("davit-cri.log"))
                            .unwrap_or_default()
                    );
                }
                self.dir.path().join("cri.sock").exists() && crictl.run(&["pods"]).code == 0
            },
        );
    }

    /// `kill -9` of the daemon.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }

    /// Waits until the daemon has died by itself, as it does at a fail point.
    #[track_caller]
    pub fn wait_until_dead(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        wait::until(
            "davit-cri dies at its fail point",
            Duration::from_secs(60),
            || daemon.try_wait().expect("the daemon's state"),
        );
    }

    /// Starts the daemon again, without fail points, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        self.options.fail_points = None;
        self.spawn_daemon();
        self.wait_until_ready();
    }

    /// Starts the daemon with armed fail points and waits until it answers.
    #[track_caller]
    pub fn start_with_fail_points(&mut self, points: &str) {
        self.options.fail_points = Some(points.to_owned());
        self.spawn_daemon();
        self.wait_until_ready();
    }

    /// Ends the daemon as an init system would; pods go on.
    #[track_caller]
    pub fn stop_daemon(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        kill(self.pid_of(&daemon), Signal::SIGTERM).expect("SIGTERM");
        wait::until(
            "davit-cri ends after SIGTERM",
            Duration::from_secs(20),
            || daemon.try_wait().expect("its state"),
        );
    }

    /// The daemon's process id.
    #[must_use]
    pub fn daemon_pid(&self) -> Pid {
        self.daemon
            .as_ref()
            .map_or(Pid::from_raw(0), |daemon| self.pid_of(daemon))
    }

    /// True while the daemon runs.
    #[must_use]
    pub fn daemon_is_alive(&mut self) -> bool {
        self.daemon
            .as_mut()
            .is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
    }

    /// crictl for this node.
    #[must_use]
    pub fn crictl(&self) -> Crictl {
        Crictl::new(&self.socket(), &self.path("crictl"))
    }

    /// Imports `image` from an OCI layout under `reference`.
    #[track_caller]
    pub fn import(&self, image: &TestImage, reference: &str) {
        let layout = self
            .dir
            .path()
            .join(format!("layout-{}", reference.replace(['/', ':'], "-")));
        image.write_layout(&layout);
        let layout = layout.to_string_lossy().into_owned();
        let socket = self.socket().to_string_lossy().into_owned();
        let mut command = Command::new(bin::ours("davit"));
        command.args(["--socket", &socket, "image", "import", &layout, reference]);
        let _imported: String = outcome(&mut command).ok();
    }

    /// A path inside the node's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The node's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The CRI socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("cri.sock")
    }

    /// Where images and writable layers are.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.options
            .state_dir
            .clone()
            .unwrap_or_else(|| self.path("state"))
    }

    /// The bridge of this node's network.
    #[must_use]
    pub fn bridge(&self) -> String {
        if self.options.builtin_network {
            return "davit0".to_owned();
        }
        format!("dvt{}", self.number)
    }

    /// The first three bytes of this node's /24, for example `10.77.3`.
    #[must_use]
    pub fn subnet_prefix(&self) -> String {
        format!("10.{}.{}", 96 + (self.number >> 8) % 32, self.number & 0xff)
    }

    /// The cgroup below which this node's pods are.
    #[must_use]
    pub fn cgroup_root(&self) -> String {
        format!("/davit-test-{}", self.number)
    }

    /// What the daemon has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.log_path()) {
            drop(file.read_to_string(&mut text));
        }
        text
    }

    /// What belongs to this node on the machine, for the leak check.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope {
            dir: self.dir.path().to_owned(),
            state_dir: self.state_dir(),
            bridge: self.bridge(),
            network: if self.options.builtin_network {
                "masq-davit".to_owned()
            } else {
                self.bridge()
            },
            cgroup: self.cgroup_root(),
            daemon: self.daemon_pid(),
        }
    }

    /// Waits until nothing of the node is there that was not there `before`. The daemon's descriptors are left out:
    /// idle connections come and go.
    ///
    /// # Panics
    /// With what is left, after twenty seconds: the kernel removes links a moment after their namespace.
    #[track_caller]
    pub fn nothing_is_left_since(&self, before: &Snapshot, what: &str) {
        let left = || -> Vec<String> {
            let since = self.scope().snapshot().since(before);
            since
                .into_iter()
                .filter(|line| !line.starts_with("descriptors"))
                .collect()
        };
        let limit = Duration::from_secs(20);
        let start = std::time::Instant::now();
        wait::until_true(what, limit * 2, || {
            let left = left();
            assert!(
                left.is_empty() || start.elapsed() < limit,
                "{what}: still there: {left:#?}"
            );
            left.is_empty()
        });
    }

    /// Writes the node's CNI configuration with `plugin` as the main plugin's type.
    pub fn write_network(&self, plugin: &str) {
        let subnet = format!("{}.0/24", self.subnet_prefix());
        let network = json!({
            "cniVersion": "1.0.0", "name": self.bridge(),
            "plugins": [{
                "type": plugin, "bridge": self.bridge(), "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": self.path("cni/networks"),
                },
            }],
        });
        std::fs::write(self.path("net.d/10-test.conflist"), network.to_string())
            .expect("the CNI configuration");
    }

    fn log_path(&self) -> PathBuf {
        self.path("davit-cri.log")
    }

    fn pid_of(&self, daemon: &Child) -> Pid {
        Pid::from_raw(i32::try_from(daemon.id()).expect("a process id"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.daemon_is_alive() {
            drop(self.crictl().remove_all());
        }
        if std::thread::panicking() {
            eprintln!("--- davit-cri of the failing test ---\n{}", self.log());
        }
        self.kill();
        self.scope().sweep();
    }
}

/// A number that no other node of this machine uses at the moment: it names the bridge, the subnet and the cgroup.
fn next_number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Test binaries may run beside each other: 64 nodes for each process id, 8192 in all.
    (std::process::id() * 64 + count) % 8192
}
