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

/// A private containerd with its own root, state, network and socket.
pub struct Containerd {
    dir: tempfile::TempDir,
    child: Child,
}

// === impl Containerd ===

impl Containerd {
    /// Starts containerd and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Containerd {
        let dir = tempfile::Builder::new()
            .prefix("peer-containerd-")
            .tempdir()
            .expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        for sub in ["net.d", "crictl"] {
            std::fs::create_dir_all(path(sub)).expect("containerd's directories");
        }
        std::fs::write(path("config.toml"), config(dir.path()))
            .expect("containerd's configuration");
        std::fs::write(path("net.d/10-peer.conflist"), network(dir.path()))
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
        let containerd = Containerd { dir, child };
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

    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    fn import(&self, image: &TestImage) {
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
    }
}

/// A bridge name from the directory's random suffix.
fn bridge(dir: &Path) -> String {
    let name = dir.to_string_lossy();
    format!("ctd{}", &name[name.len() - 6..])
}

fn config(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
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
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{net}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"#,
        root = at("root"),
        state = at("state"),
        socket = at("c.sock"),
        net = at("net.d"),
        opt = at("opt"),
    )
}

fn network(dir: &Path) -> String {
    json!({
        "cniVersion": "0.4.0", "name": bridge(dir),
        "plugins": [{
            "type": "bridge", "bridge": bridge(dir), "isGateway": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.63.7.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": dir.join("networks"),
            },
        }],
    })
    .to_string()
}
