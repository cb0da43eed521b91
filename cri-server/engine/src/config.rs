//! Where the engine works and which runtimes it has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How an engine is set up. Paths must be absolute.
#[derive(Debug, Clone)]
pub struct Config {
    /// What must not outlive a reboot: records, sockets, mounts. On tmpfs; see [`crate::prepare_run_dir`].
    pub run_dir: PathBuf,
    /// What lasts: images and writable layers.
    pub state_dir: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Runtime handlers by name.
    pub handlers: BTreeMap<String, Handler>,
    /// The handler that the empty name stands for; a key of `handlers`.
    pub default_handler: String,
    /// Networks.
    pub network: NetworkConfig,
    /// `hosts.toml` directories of registries.
    pub hosts_dirs: Vec<PathBuf>,
    /// Images.
    pub images: ImagesConfig,
    /// The cgroup below which pods without a `cgroup_parent` get theirs: `/davit`.
    pub cgroup_root: String,
    /// Who makes the containers' cgroups.
    pub cgroup_driver: CgroupDriver,
}

/// Who makes the containers' cgroups. A kubelet asks for it, and names parents in its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The runtime, in the cgroup file systems.
    #[default]
    Cgroupfs,
    /// systemd: slices and scopes.
    Systemd,
}

/// What can change while an engine runs.
#[derive(Debug, Clone)]
pub struct Reload {
    /// As [`Config::handlers`].
    pub handlers: BTreeMap<String, Handler>,
    /// As [`Config::default_handler`].
    pub default_handler: String,
}

/// An OCI runtime with its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// The binary.
    pub path: PathBuf,
    /// Its `--root`; `None` means `<run_dir>/oci/<name>`.
    pub root: Option<PathBuf>,
    /// Arguments before the verb.
    pub args: Vec<String>,
}

impl Handler {
    /// A handler that is only a binary.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            root: None,
            args: Vec::new(),
        }
    }
}

/// How images are pulled and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesConfig {
    /// Names of images that a kubelet must not collect: reported as pinned.
    pub pinned: Vec<String>,
    /// How long a download may stand still before it is given up.
    pub progress_timeout: Duration,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            pinned: Vec::new(),
            progress_timeout: Duration::from_secs(300),
        }
    }
}

/// How pods get their network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// CNI configuration; the built-in bridge is used while it holds none.
    pub conf_dir: PathBuf,
    /// CNI plugins; the first directory that has one wins.
    pub bin_dirs: Vec<PathBuf>,
    /// The multi-call binary of our own plugins: runs the built-in network, and stands in for a plugin of
    /// its own that no directory has.
    pub plugins: Option<PathBuf>,
    /// Results of ADD, where libcni keeps them.
    pub cache_dir: PathBuf,
    /// How long one plugin may run.
    pub timeout: Duration,
    /// The built-in network's bridge.
    pub bridge: String,
    /// The built-in network's subnet; `None` means the plugin's default.
    pub subnet: Option<String>,
    /// The IPv6 subnet of the built-in network: `auto` for a unique local one if the host has IPv6; `None` for no IPv6.
    pub subnet6: Option<String>,
    /// Where the built-in network's addresses are recorded; `None` means the plugin's default.
    pub data_dir: Option<PathBuf>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            // Where Kubernetes, Debian and Fedora put them.
            bin_dirs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]
                .map(Into::into)
                .into(),
            plugins: None,
            cache_dir: "/var/lib/cni".into(),
            timeout: Duration::from_secs(60),
            bridge: "davit0".into(),
            subnet: None,
            subnet6: None,
            data_dir: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_dir: "/run/davit".into(),
            state_dir: "/var/lib/davit".into(),
            shim: "/usr/local/bin/davit-shim".into(),
            handlers: BTreeMap::from([(
                "davit-oci".to_owned(),
                Handler::new("/usr/local/bin/davit-oci"),
            )]),
            default_handler: "davit-oci".into(),
            network: NetworkConfig::default(),
            hosts_dirs: vec!["/etc/davit/hosts.d".into()],
            images: ImagesConfig::default(),
            cgroup_root: "/davit".into(),
            cgroup_driver: CgroupDriver::default(),
        }
    }
}
