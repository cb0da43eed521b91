//! Debian's containerd as the peer: a test of CRI behaviour must pass there before it judges us.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::crictl::Crictl;
use crate::image::TestImage;
use crate::node::Node;
use crate::{bin, command, wait};

/// A CRI server under test: ours or the genuine one.
pub enum Server {
    /// `davit-cri`.
    Davit(Box<Node>),
    /// containerd.
    Containerd(Containerd),
}

// === impl Server ===

impl Server {
    /// Both servers, the genuine one first, where it is installed. `DAVIT_TEST_SERVERS=containerd` (or
    /// `davit-cri`) takes only one of them.
    pub fn all() -> impl Iterator<Item = Server> {
        let only = std::env::var("DAVIT_TEST_SERVERS").ok();
        let wanted = move |name: &str| only.as_deref().is_none_or(|only| only == name);
        let containerd = wanted("containerd")
            && !bin::skipped_for_want_of(&["containerd", "containerd-shim-runc-v2", "runc", "ctr"])
            && Path::new("/usr/lib/cni/bridge").exists();
        let davit = wanted("davit-cri");
        // One at a time: a server is gone, with all that is its own, before the next one starts.
        [containerd, davit]
            .into_iter()
            .enumerate()
            .filter(|(_, run)| *run)
            .map(|(which, _)| match which {
                0 => Server::Containerd(Containerd::start()),
                _ => Server::Davit(Box::new(Node::start())),
            })
    }

    /// The server's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Server::Davit(_) => "davit-cri",
            Server::Containerd(_) => "containerd",
        }
    }

    /// crictl for this server.
    #[must_use]
    pub fn crictl(&self) -> Crictl {
        match self {
            Server::Davit(node) => node.crictl(),
            Server::Containerd(containerd) => containerd.crictl(),
        }
    }

    /// Makes `image` known under `reference`.
    #[track_caller]
    pub fn import(&self, image: &TestImage, reference: &str) {
        match self {
            Server::Davit(node) => node.import(image, reference),
            Server::Containerd(containerd) => containerd.import(&image.clone().named(reference)),
        }
    }

    /// The first three bytes of the server's pod network.
    #[must_use]
    pub fn subnet_prefix(&self) -> String {
        match self {
            Server::Davit(node) => node.subnet_prefix(),
            Server::Containerd(_) => "10.63.7".to_owned(),
        }
    }

    /// True for our own server, where a test asks for more than the peer's version gives.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Server::Davit(_))
    }

    /// The server's CRI socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        match self {
            Server::Davit(node) => node.socket(),
            Server::Containerd(containerd) => containerd.socket(),
        }
    }

    /// A directory for the test's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        match self {
            Server::Davit(node) => node.dir(),
            Server::Containerd(containerd) => containerd.dir.path(),
        }
    }
}

/// What a containerd is started with.
#[derive(Debug, Clone, Default)]
pub struct ContainerdOptions {
    /// The OCI runtime in place of runc.
    pub runtime: Option<PathBuf>,
    /// Adds the reference plugin for ports of the host, and takes all plugins from the built reference ones.
    pub host_ports: bool,
}

/// A private containerd with its own root, state, network and socket.
pub struct Containerd {
    dir: tempfile::TempDir,
    child: Child,
    options: ContainerdOptions,
}

// === impl Containerd ===

impl Containerd {
    /// Starts containerd and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Containerd {
        Containerd::start_with(ContainerdOptions::default())
    }

    /// The same with options.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(options: ContainerdOptions) -> Containerd {
        let dir = tempfile::Builder::new()
            .prefix("peer-containerd-")
            .tempdir()
            .expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        for sub in ["net.d", "crictl"] {
            std::fs::create_dir_all(path(sub)).expect("containerd's directories");
        }
        std::fs::write(path("config.toml"), config(dir.path(), &options))
            .expect("containerd's configuration");
        std::fs::write(
            path("net.d/10-peer.conflist"),
            network(dir.path(), &options),
        )
        .expect("containerd's network");
        let log = std::fs::File::create(path("log")).expect("containerd's log");
        let child = Command::new(bin::genuine("containerd").expect("containerd"))
            .arg("--config")
            .arg(path("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let containerd = Containerd {
            dir,
            child,
            options,
        };
        let crictl = containerd.crictl();
        wait::until_true("containerd answers", Duration::from_secs(30), || {
            crictl.run(&["pods"]).code == 0
        });
        containerd.import(
            &TestImage::busybox()
                .with_config("Cmd", json!(["/bin/sleep", "1000000"]))
                .named("davit.test/pause:1"),
        );
        containerd
    }

    /// crictl for containerd.
    #[must_use]
    pub fn crictl(&self) -> Crictl {
        Crictl::new(&self.socket(), &self.dir.path().join("crictl"))
    }

    /// Its CRI socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Makes an image known under its own name.
    #[track_caller]
    pub fn import(&self, image: &TestImage) {
        let archive = self.dir.path().join("pause.tar");
        image.write_archive(&archive);
        let archive = archive.to_string_lossy().into_owned();
        let socket = self.socket().to_string_lossy().into_owned();
        let ctr = bin::genuine("ctr").expect("ctr");
        let args = [
            "--address",
            &socket,
            "--namespace",
            "k8s.io",
            "images",
            "import",
            &archive,
        ];
        let _imported: String = command::run(ctr, args).ok();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.crictl().remove_all());
        drop(self.child.kill());
        drop(self.child.wait());
        let scope = crate::leak::Scope {
            dir: self.dir.path().to_owned(),
            state_dir: self.dir.path().to_owned(),
            bridge: bridge(self.dir.path()),
            network: bridge(self.dir.path()),
            cgroup: "/peer-containerd".to_owned(),
            daemon: nix::unistd::Pid::from_raw(0),
        };
        scope.sweep();
        if self.options.host_ports {
            forget_host_ports();
        }
    }
}

/// Removes what the plugin for ports of the host leaves: its tables, empty but for the jumps to its chains.
fn forget_host_ports() {
    let Some(nft) = bin::genuine("nft") else {
        return;
    };
    for family in ["ip", "ip6"] {
        command::run(&nft, ["delete", "table", family, "cni_hostport"]);
    }
}

/// A bridge name from the directory's random suffix.
fn bridge(dir: &Path) -> String {
    let name = dir.to_string_lossy();
    format!("ctd{}", &name[name.len() - 6..])
}

fn config(dir: &Path, options: &ContainerdOptions) -> String {
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let runtime = options.runtime.as_ref().map_or_else(String::new, |path| {
        format!(
            r#"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{}""#,
            path.display()
        )
    });
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "davit.test/pause:1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"{runtime}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{net}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"#,
        root = at("root"),
        state = at("state"),
        socket = at("c.sock"),
        net = at("net.d"),
        plugins = if options.host_ports {
            bin::reference_plugins().display().to_string()
        } else {
            "/usr/lib/cni".to_owned()
        },
        opt = at("opt"),
    )
}

fn network(dir: &Path, options: &ContainerdOptions) -> String {
    let mut network = json!({
        "cniVersion": "0.4.0", "name": bridge(dir),
        "plugins": [{
            "type": "bridge", "bridge": bridge(dir), "isGateway": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.63.7.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": dir.join("networks"),
            },
        }],
    });
    if options.host_ports
        && let Some(plugins) = network["plugins"].as_array_mut()
    {
        // With nftables, because what iptables makes cannot be told from somebody else's.
        let capabilities = json!({"portMappings": true});
        plugins
            .push(json!({"type": "portmap", "backend": "nftables", "capabilities": capabilities}));
    }
    network.to_string()
}
