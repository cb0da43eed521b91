//! An engine of its own for each test: private directories, bridge, subnet and cgroup, on the real kernel.
//!
//! Nothing here sleeps for a fixed time: conditions are polled with a deadline. Whatever a failing test
//! leaves behind is taken away when its [`Bench`] drops.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part, and a test may panic"
)]

pub mod image;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use engine::model::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ImageSpec, NamespaceMode,
    PodConfig, PodMetadata,
};
use engine::{Config, Engine, Handler, NetworkConfig};

/// How long anything may take that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

pub const IMAGE: &str = "example.test/busybox:1";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Where cargo puts the binaries; built once per run.
fn binaries() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().expect("own path");
        let dir = exe
            .parent()
            .and_then(Path::parent)
            .expect("target/debug")
            .to_owned();
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "-p",
                "shim",
                "-p",
                "cni",
                "-p",
                "oci-runtime",
                "--bins",
            ])
            .current_dir(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .ancestors()
                    .nth(2)
                    .expect("the workspace"),
            )
            .status()
            .expect("cargo");
        assert!(built.success(), "the shim and the plugins build");
        dir
    })
}

/// An engine with everything it needs.
pub struct Bench {
    pub engine: Option<Engine>,
    pub config: Config,
    pub dir: tempfile::TempDir,
    pub bridge: String,
    /// Tells its bridge, subnet and cgroup from those of others.
    pub number: u32,
}

/// The configuration of the engine `number` in the directory `base`.
pub fn config(base: &Path, number: u32, handler: &str) -> Config {
    let binaries = binaries();
    let network = NetworkConfig {
        subnet6: None,
        conf_dir: base.join("net.d"),
        bin_dirs: vec![base.join("plugins")],
        plugins: Some(binaries.join("davit-cni")),
        cache_dir: base.join("cni"),
        timeout: Duration::from_secs(20),
        bridge: format!("dvt{number}"),
        subnet: Some(format!(
            "10.{}.{}.0/24",
            100 + number / 256 % 100,
            number % 256
        )),
        data_dir: Some(base.join("ipam")),
    };
    let handlers = BTreeMap::from([
        ("runc".to_owned(), Handler::new("/usr/sbin/runc")),
        ("crun".to_owned(), Handler::new("/usr/bin/crun")),
        (
            "davit-oci".to_owned(),
            Handler::new(binaries.join("davit-oci")),
        ),
    ]);
    Config {
        run_dir: base.join("run"),
        state_dir: base.join("state"),
        shim: binaries.join("davit-shim"),
        handlers,
        default_handler: handler.to_owned(),
        network,
        hosts_dirs: Vec::new(),
        cgroup_root: format!("/davit-engine-{number}"),
        ..Config::default()
    }
}

/// A pod as a kubelet asks for it, of the bench in `dir`.
pub fn pod(dir: &Path, name: &str) -> PodConfig {
    let mut config = PodConfig {
        metadata: PodMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: name.into(),
        log_directory: dir.join("logs").join(name).to_string_lossy().into_owned(),
        labels: BTreeMap::from([("app".into(), name.into())]),
        annotations: BTreeMap::from([("note".into(), "ä ✓ \u{1}".into())]),
        ..PodConfig::default()
    };
    config.security.namespaces.pid = NamespaceMode::Container;
    config
}

impl Bench {
    /// An engine with the test image and `handler` (`runc`, `crun`, `davit-oci`) as its default.
    pub async fn new(handler: &str) -> Self {
        let bench = Self::without_image(handler).await;
        let layout = bench.dir.path().join("layout");
        image::write_layout(&layout, |_| {});
        bench.import(&layout, IMAGE).await;
        bench
    }

    pub async fn without_image(handler: &str) -> Self {
        let number = std::process::id() % 10_000 * 16 + NUMBER.fetch_add(1, Ordering::Relaxed) % 16;
        let dir = tempfile::Builder::new()
            .prefix("davit-engine-")
            .tempdir()
            .expect("temp dir");
        let config = config(
            &dir.path().canonicalize().expect("real path"),
            number,
            handler,
        );
        engine::prepare_run_dir(&config.run_dir).expect("run directory");
        let engine = Engine::open(config.clone()).await.expect("an engine");
        Self {
            engine: Some(engine),
            bridge: config.network.bridge.clone(),
            config,
            dir,
            number,
        }
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Closes the engine and opens another one, as a restart of the daemon does.
    pub async fn restart(&mut self) {
        self.close().await;
        self.open().await;
    }

    pub async fn close(&mut self) {
        self.engine.take().expect("open").close().await;
    }

    pub async fn open(&mut self) {
        self.engine = Some(Engine::open(self.config.clone()).await.expect("an engine"));
    }

    pub async fn import(&self, layout: &Path, name: &str) {
        self.engine()
            .import_image(layout, Some(name), None)
            .await
            .expect("imported");
    }

    /// A pod without a network of its own: quick.
    pub fn host_pod(&self, name: &str) -> PodConfig {
        let mut config = self.pod(name);
        config.security.namespaces.network = NamespaceMode::Node;
        config
    }

    /// A pod as a kubelet asks for it.
    pub fn pod(&self, name: &str) -> PodConfig {
        pod(self.dir.path(), name)
    }

    /// Makes and starts a container that runs a shell script.
    pub async fn run(&self, pod: &str, name: &str, script: &str) -> String {
        let id = self.create(pod, shell(name, script)).await;
        self.engine().start_container(&id).await.expect("started");
        id
    }

    pub async fn create(&self, pod: &str, config: ContainerConfig) -> String {
        self.engine()
            .create_container(pod, config, PodConfig::default())
            .await
            .expect("created")
    }

    pub async fn sh(&self, container: &str, script: &str) -> String {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let output = self
            .engine()
            .exec_sync(container, command, SOON)
            .await
            .expect("executed");
        assert_eq!(
            output.exit_code,
            0,
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("text")
            .trim_end()
            .to_owned()
    }

    /// Waits until the container has ended.
    pub async fn ended(&self, container: &str) -> ContainerStatus {
        let status = || self.engine().container_status(container).expect("known");
        eventually("the container ends", || {
            status().state == ContainerState::Exited
        })
        .await;
        status()
    }

    /// The lines of a container's log, without their time.
    pub fn log(&self, container: &str) -> Vec<String> {
        let path = self
            .engine()
            .container_status(container)
            .expect("known")
            .log_path;
        let text = fs::read_to_string(path).expect("a log");
        text.lines()
            .map(|line| line.split_once(' ').expect("a time").1.to_owned())
            .collect()
    }

    /// Removes every pod and checks that nothing is left of them.
    pub async fn expect_clean(&mut self) {
        for pod in self.engine().list_pods(&Default::default()) {
            self.engine().remove_pod(&pod.id).await.expect("removed");
        }
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// What pods left on this machine.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let base = self.dir.path().canonicalize().expect("real path");
        for mount in mounts_below(&base)
            .into_iter()
            .filter(|mount| *mount != self.config.run_dir)
        {
            left.push(format!("mount {}", mount.display()));
        }
        for dir in [
            "run/pods",
            "run/oci/runc",
            "run/oci/crun",
            "run/oci/davit-oci",
            "state/pods",
            "cni/results",
        ] {
            for entry in fs::read_dir(base.join(dir)).into_iter().flatten().flatten() {
                left.push(format!("file {}", entry.path().display()));
            }
        }
        for entry in fs::read_dir(base.join("ipam").join(&self.bridge))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name.to_string_lossy().parse::<std::net::IpAddr>().is_ok() {
                left.push(format!("address {}", entry.path().display()));
            }
        }
        for cgroup in self.cgroups() {
            left.push(format!("cgroup {}", cgroup.display()));
        }
        for (pid, words) in processes_naming(&base) {
            left.push(format!("process {pid} {words}"));
        }
        left
    }

    /// Where the engine's own cgroup is, or would be, in every hierarchy.
    pub fn cgroup_roots(&self) -> Vec<PathBuf> {
        let mounted = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        let hierarchies = mounted
            .map(|one| one.path())
            .chain(["/sys/fs/cgroup".into()]);
        let own = self.config.cgroup_root.trim_start_matches('/');
        hierarchies.map(|root| root.join(own)).collect()
    }

    /// The pods' cgroups in every hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let roots = self.cgroup_roots().into_iter();
        let entries = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        entries
            .map(|one| one.path())
            .filter(|path| path.join("cgroup.procs").exists())
            .collect()
    }
}

/// Polls once: what a caller does that leaves at once.
pub async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    use std::task::Poll;
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

impl Drop for Bench {
    fn drop(&mut self) {
        let base = self.dir.path().canonicalize().expect("real path");
        for cgroup in self.cgroups() {
            for inner in fs::read_dir(&cgroup)
                .into_iter()
                .flatten()
                .flatten()
                .map(|one| one.path())
                .chain([cgroup])
            {
                for pid in fs::read_to_string(inner.join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    run("kill", &["-9", pid]);
                }
            }
        }
        for (pid, _) in processes_naming(&base) {
            run("kill", &["-9", &pid.to_string()]);
        }
        for mount in mounts_below(&base).into_iter().rev() {
            run("umount", &["-l", &mount.to_string_lossy()]);
        }
        for round in 0..2 {
            for cgroup in self.cgroups() {
                let below = fs::read_dir(&cgroup)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|one| one.path());
                for dir in below.filter(|path| path.is_dir()).chain([cgroup.clone()]) {
                    // What is busy for a moment goes in the second round.
                    if fs::remove_dir(&dir).is_err() && round == 0 {
                        std::thread::yield_now();
                    }
                }
            }
        }
        for root in self.cgroup_roots() {
            fs::remove_dir(root).ok();
        }
        let subnet = self
            .config
            .network
            .subnet
            .as_deref()
            .and_then(|text| text.parse().ok());
        let options = cni::BuiltinOptions {
            name: self.bridge.clone(),
            bridge_name: self.bridge.clone(),
            subnet: subnet.expect("a subnet"),
            ..cni::BuiltinOptions::default()
        };
        if let Err(error) = options.remove_from_host() {
            eprintln!("remove {}: {error:?}", self.bridge);
        }
    }
}

/// Another arrangement of the host's control groups, in a mount namespace of the test's own.
#[derive(Clone, Copy)]
pub enum Cgroups {
    /// The v1 hierarchies without the cgroup2 mount beside them: crun refuses a hybrid host. It makes
    /// directories where that mount was, so there is a tmpfs for them.
    V1,
    /// cgroup2 alone, without controllers.
    V2,
}

/// Runs the test `name` again where the control groups are arranged so; `true` there.
pub fn arranged(cgroups: Cgroups, name: &str) -> bool {
    const MARK: &str = "DAVIT_TEST_ARRANGED";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let arrange = match cgroups {
        Cgroups::V1 => {
            "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; mount -t tmpfs none /sys/fs/cgroup/unified"
        }
        Cgroups::V2 => "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup",
    };
    let exe = std::env::current_exe().expect("own path");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!(
            "{arrange}; exec {} --exact {name} --nocapture",
            exe.display()
        ))
        .env(MARK, "1")
        .output()
        .expect("unshare");
    let words = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}"
    );
    false
}

/// A container that runs a shell script and logs.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata {
            name: name.into(),
            attempt: 0,
        },
        image: ImageSpec {
            image: IMAGE.into(),
            ..ImageSpec::default()
        },
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}.log"),
        ..private_pid()
    }
}

fn private_pid() -> ContainerConfig {
    let mut config = ContainerConfig::default();
    config.security.namespaces.pid = NamespaceMode::Container;
    config
}

/// Waits until `condition` holds; a test that waits in vain fails.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Mount points below `base`, in the order in which they were mounted.
pub fn mounts_below(base: &Path) -> Vec<PathBuf> {
    let table = sys::mountinfo::own().expect("mountinfo");
    table
        .into_iter()
        .map(|mount| mount.mount_point)
        .filter(|point| point.starts_with(base))
        .collect()
}

/// Processes whose command line names something below `base`.
pub fn processes_naming(base: &Path) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let words = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != std::process::id() && words.contains(&*base.to_string_lossy()) {
            found.push((pid, words));
        }
    }
    found
}

fn run(program: &str, arguments: &[&str]) {
    if let Err(error) = Command::new(program).args(arguments).output() {
        eprintln!("{program} {arguments:?}: {error}");
    }
}
