//! The command line of `davit-cri`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// The container runtime daemon of a node: serves the Kubernetes Container Runtime Interface (CRI) on a unix socket.
///
/// Every default works: started with no flags and no configuration, it runs pods with davit-oci on a built-in bridge
/// network. Pods live on when it stops, and it finds them again when it starts.
#[derive(Debug, Clone, Parser)]
#[command(name = "davit-cri", version, args_override_self = true, max_term_width = 110, after_help = AFTER_HELP)]
pub struct Flags {
    /// What to do instead of running the daemon.
    #[command(subcommand)]
    pub action: Option<Action>,

    /// What is gone after a reboot: socket, records, pinned namespaces. A tmpfs is mounted here if there is none
    /// [default: /run/davit]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// What lasts: images and the writable layers of containers [default: /var/lib/davit]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Configuration file; only a file named here must exist [default: /etc/davit/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The socket to serve on, mode 0660 [default: davit-cri.sock in the run directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// CNI configuration; while it holds none, the built-in bridge network is used [default: /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,

    /// CNI plugins; may be given several times, the first directory that has a plugin wins [default: /opt/cni/bin,
    /// /usr/lib/cni and /usr/libexec/cni]
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Vec<PathBuf>,

    /// Results of CNI calls, where libcni keeps them [default: /var/lib/cni]
    #[arg(long, value_name = "DIR")]
    pub cni_cache_dir: Option<PathBuf>,

    /// The bridge of the built-in network [default: davit0]
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,

    /// The subnet of the built-in network [default: 10.89.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,

    /// The OCI runtime of the handler "davit-oci" [default: davit-oci beside davit-cri, in /usr/local/bin or in PATH]
    #[arg(long, value_name = "PATH")]
    pub oci_runtime: Option<PathBuf>,

    /// The per-pod supervisor [default: davit-shim, looked up like davit-oci]
    #[arg(long, value_name = "PATH")]
    pub shim: Option<PathBuf>,

    /// Registry settings in containerd's hosts.toml format; may be given several times
    /// [default: /etc/davit/hosts.d]
    #[arg(long, value_name = "DIR")]
    pub hosts_dir: Vec<PathBuf>,

    /// The cgroup under which pods without a parent of their own are put [default: /davit]
    #[arg(long, value_name = "PATH")]
    pub cgroup_root: Option<String>,

    /// How much to log [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// How to log, to standard error
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// What to do instead of running the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// The configuration file
    #[command(subcommand)]
    Config(ConfigAction),
}

/// What to do with the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ConfigAction {
    /// Prints a file to start from: every key with its default, in comments
    Default,
    /// Finds every mistake of a file, without starting anything
    Check {
        /// The file [default: the one of --config, or /etc/davit/config.toml]
        file: Option<PathBuf>,
    },
}

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What a person must act on.
    Error,
    /// And what is odd.
    Warn,
    /// And every change of state.
    Info,
    /// And every request and decision.
    Debug,
    /// And the protocol below.
    Trace,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

const AFTER_HELP: &str = "\
Configuration file (TOML; an unknown key is an error):
  default_runtime = \"davit-oci\"       # the handler for pods that name none
  cgroup_root = \"/davit\"              # as --cgroup-root
  cgroup_driver = \"cgroupfs\"          # or \"systemd\": the same as the kubelet's
  log_level = \"info\"                  # as --log-level

  [runtimes.runc]                     # a handler that pods select by its name
  path = \"/usr/sbin/runc\"
  root = \"/run/davit-runc\"            # its --root; default: <run-dir>/oci/<name>
  args = [\"--debug\"]                  # before the verb

  [network]                           # the built-in network
  bridge = \"davit0\"
  subnet = \"10.89.0.0/16\"
  subnet6 = \"auto\"                    # or \"fd00:89::/64\"; without it pods have no IPv6

  [images]
  pinned = [\"registry.k8s.io/pause:3.10\"]   # a kubelet does not collect these
  pull_progress_timeout_s = 300       # how long a download may stand still

  [metrics]                           # for Prometheus; without it nowhere
  address = \"127.0.0.1:9325\"

A flag wins over the file. SIGHUP reads the file again: handlers and log level change. SIGTERM and SIGINT stop the daemon
and leave the pods running.
Exit codes: 0 stopped by a signal, 1 could not start or serve, 64 wrong flags or configuration.

  crictl --runtime-endpoint unix:///run/davit/davit-cri.sock info";
