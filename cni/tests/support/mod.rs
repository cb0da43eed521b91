//! A world for one test: a network namespace that plays the host, others that play pods, directories for plugins,
//! cache and reservations. Nothing of it is in the machine's own namespace, and all of it goes with the world.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cni::{Attachment, Executor, NetworkList};
use netlink::Rtnl;
use serde_json::{Value, json};
use sys::netns::NetNs;
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The binary under test.
pub fn davit_cni() -> &'static str {
    env!("CARGO_BIN_EXE_davit-cni")
}

/// Where the reference plugins and `cnitool` are, if they are. With `MUST_WORK=1` they must be.
pub fn reference_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("CNI_REFERENCE_DIR")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cache/davit/tools/cni"))
        });
    match dir.filter(|dir| dir.join("cnitool").is_file()) {
        Some(dir) => Some(dir),
        None if std::env::var_os("MUST_WORK").is_some() => {
            panic!("the reference plugins are missing: build them into ~/.cache/davit/tools/cni")
        }
        None => {
            eprintln!(
                "skipped: no reference plugins in ~/.cache/davit/tools/cni (CNI_REFERENCE_DIR names another place)"
            );
            None
        }
    }
}

/// Whether namespaces can be made here. With `MUST_WORK=1` they must.
pub fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("MUST_WORK").is_none(),
        "these tests make network namespaces and need root"
    );
    eprintln!("skipped: making network namespaces needs root");
    false
}

/// A named network namespace, gone with its owner.
pub struct Namespace {
    name: String,
    pub path: PathBuf,
}

impl Namespace {
    pub fn new(role: &str) -> Namespace {
        let name = format!(
            "dvt-{}-{}-{role}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &name]);
        let namespace = Namespace {
            path: Path::new("/run/netns").join(&name),
            name,
        };
        namespace.run(|| ip(&["link", "set", "lo", "up"]));
        namespace
    }

    pub fn open(&self) -> NetNs {
        NetNs::open(&self.path).expect("open a namespace of the test")
    }

    /// Runs in the namespace; child processes are in it too.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.open().run(f).expect("enter a namespace of the test")
    }

    /// Destroys it now.
    pub fn destroy(&self) {
        ip(&["netns", "delete", &self.name]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.path.exists() {
            // A failing test must not fail again here.
            Command::new("ip")
                .args(["netns", "delete", &self.name])
                .status()
                .ok();
        }
    }
}

/// The namespace that plays the host, and the directories.
pub struct World {
    pub host: Namespace,
    pub dir: TempDir,
    pods: Mutex<Vec<Namespace>>,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().expect("make a directory");
        std::fs::create_dir(dir.path().join("bin")).expect("make a directory");
        for name in cni::plugin::NAMES {
            std::os::unix::fs::symlink(davit_cni(), dir.path().join("bin").join(name))
                .expect("link a plugin");
        }
        World {
            host: Namespace::new("host"),
            dir,
            pods: Mutex::new(Vec::new()),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An executor of our plugins.
    pub fn executor(&self) -> Executor {
        self.executor_of(vec![self.path("bin")])
    }

    pub fn executor_of(&self, bin_dirs: Vec<PathBuf>) -> Executor {
        Executor {
            cache_dir: self.path("cache"),
            timeout: Duration::from_secs(30),
            ..Executor::new(bin_dirs)
        }
    }

    /// A bridge network with a /24, and whatever else `extra` says.
    pub fn network(&self, name: &str, subnet: &str, extra: Value) -> NetworkList {
        let text = self.conflist(name, subnet, extra).to_string();
        NetworkList::parse(text.as_bytes()).expect("a valid network")
    }

    pub fn conflist(&self, name: &str, subnet: &str, extra: Value) -> Value {
        let mut bridge = json!({
            "type": "bridge", "bridge": format!("br-{name}"), "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipMasqBackend": "nftables",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": self.path("ipam")},
        });
        for (key, value) in extra.as_object().expect("an object") {
            bridge[key] = value.clone();
        }
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [bridge]})
    }

    /// A new pod's namespace.
    pub fn pod(&self) -> PathBuf {
        let pod = Namespace::new("pod");
        let path = pod.path.clone();
        self.pods.lock().unwrap().push(pod);
        path
    }

    /// An attachment of a new pod.
    pub fn attachment(&self, id: &str) -> Attachment {
        Attachment::new(id).in_netns(self.pod())
    }

    /// What the host has: links, nft tables, reservations, cache entries.
    pub fn inventory(&self) -> Vec<String> {
        let mut found = self.host.run(|| {
            let links = Rtnl::open()
                .unwrap()
                .links()
                .unwrap()
                .into_iter()
                .map(|l| format!("link {}", l.name));
            let tables = nft_ruleset();
            let tables = tables
                .lines()
                .filter(|l| l.starts_with("table"))
                .map(str::to_owned)
                .collect::<Vec<_>>();
            links.chain(tables).collect::<Vec<_>>()
        });
        for dir in ["cache/results", "ipam"] {
            found.extend(
                files_below(&self.path(dir))
                    .into_iter()
                    .filter(|f| !f.ends_with("/lock") && !f.contains("last_reserved_ip")),
            );
        }
        found.sort();
        found
    }
}

pub fn nft_ruleset() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .expect("run nft");
    String::from_utf8(output.stdout).expect("text")
}

fn files_below(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

pub fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("run ip");
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Answers each connection with the address that it came from, until dropped.
pub struct Echo {
    pub address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    /// Listens in the calling thread's namespace.
    pub fn listen(address: Ipv4Addr) -> Echo {
        Echo::listen_at(address.into())
    }

    /// As [`Echo::listen`], of either family; `::` takes both.
    pub fn listen_at(address: std::net::IpAddr) -> Echo {
        let listener = TcpListener::bind((address, 0)).expect("listen");
        let address = listener.local_addr().unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [nix::poll::PollFd::new(
                    std::os::fd::AsFd::as_fd(&listener),
                    nix::poll::PollFlags::POLLIN,
                )];
                nix::poll::poll(&mut fds, 50u8).ok();
                if let Ok((mut connection, from)) = listener.accept() {
                    connection
                        .write_all(from.ip().to_canonical().to_string().as_bytes())
                        .ok();
                }
            }
        });
        Echo {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Connects from the calling thread's namespace and gives the address that the other side saw.
pub fn seen_from(address: SocketAddr) -> String {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    connection
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("read");
    text
}

/// The only IPv4 address of a result.
pub fn address(result: &cni::AddResult) -> Ipv4Addr {
    assert_eq!(result.ips.len(), 1, "{result:?}");
    match result.ips[0].address.addr() {
        std::net::IpAddr::V4(v4) => v4,
        v6 => panic!("{v6} is not IPv4"),
    }
}

/// Runs in a pod's namespace.
pub fn inside<T: Send>(pod: &Attachment, f: impl FnOnce() -> T + Send) -> T {
    NetNs::open(pod.netns.as_deref().unwrap())
        .unwrap()
        .run(f)
        .unwrap()
}

/// The first IPv4 address of a link of the calling thread's namespace.
pub fn first_address(link: &str) -> std::net::Ipv4Addr {
    let mut rtnl = Rtnl::open().unwrap();
    let link = rtnl.link_by_name(link).unwrap().unwrap();
    let addresses = rtnl.addresses(&link).unwrap();
    addresses
        .iter()
        .find_map(|a| match a.net.addr() {
            std::net::IpAddr::V4(v4) => Some(v4),
            std::net::IpAddr::V6(_) => None,
        })
        .unwrap()
}
