//! What the daemon runs with: flags over the configuration file over defaults, all checked before anything happens.
//!
//! Every mistake is reported, each with its place: `/etc/davit/config.toml:7: runtimes.runc.pth: unknown key; …`.

mod binaries;
mod file;
pub mod reference;
mod streaming;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf, absolute};

use engine::{Handler, NetworkConfig};

use crate::flags::{Flags, LogLevel};
use binaries::Finder;
use file::File;
pub use streaming::StreamingConfig;

/// The handler that stands for our own runtime.
const OWN_HANDLER: &str = "davit-oci";
const DEFAULT_FILE: &str = "/etc/davit/config.toml";

/// Everything the daemon needs to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The unix socket to serve on.
    pub socket: PathBuf,
    /// What the engine works with.
    pub engine: engine::Config,
    /// How much to log.
    pub log_level: LogLevel,
    /// Where `/metrics` is served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where exec, attach and port-forward are served.
    pub streaming: StreamingConfig,
}

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// A file or a flag.
    pub(crate) place: String,
    /// The line in the file, counted from 1; 0 with a flag, and where no line is to blame.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) text: String,
}

/// Every mistake of flags and configuration file at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{}:", problem.place)?;
            if problem.line > 0 {
                write!(f, "{}:", problem.line)?;
            }
            write!(f, " {}", problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

// === impl Settings ===

impl Settings {
    /// Reads the configuration file and puts the flags over it.
    ///
    /// # Errors
    /// [`Problems`]: everything that is wrong, not only the first.
    pub fn load(flags: &Flags) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let (path, file) = read(flags.config.as_deref(), &mut problems);
        let settings = Builder {
            flags,
            file,
            config: path,
            finder: Finder::of_this_process(),
            problems: &mut problems,
        }
        .build();
        if problems.is_empty() {
            Ok(settings)
        } else {
            problems.sort_by_key(|problem| problem.line);
            Err(Problems(problems))
        }
    }
}

/// The file's content; empty where there is none and none was asked for.
fn read(asked: Option<&Path>, problems: &mut Vec<Problem>) -> (PathBuf, File) {
    let path = asked.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => file::parse(&path, &text, problems),
        Err(e) if e.kind() == io::ErrorKind::NotFound && asked.is_none() => File::default(),
        Err(e) => {
            problems.push(Problem {
                place: path.display().to_string(),
                line: 0,
                text: format!("cannot be read: {e}"),
            });
            File::default()
        }
    };
    (path, file)
}

struct Builder<'a> {
    flags: &'a Flags,
    file: File,
    config: PathBuf,
    finder: Finder,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn build(mut self) -> Settings {
        let flags = self.flags;
        let defaults = engine::Config::default();
        let run_dir = self.path("--run-dir", flags.run_dir.as_deref(), &defaults.run_dir);
        let state_dir = self.path(
            "--state-dir",
            flags.state_dir.as_deref(),
            &defaults.state_dir,
        );
        let socket = self.path(
            "--socket",
            flags.socket.as_deref(),
            &run_dir.join("davit-cri.sock"),
        );
        let (handlers, default_handler) = self.handlers();
        let engine = engine::Config {
            shim: self
                .binary("--shim", flags.shim.as_deref(), "davit-shim")
                .unwrap_or_default(),
            handlers,
            default_handler,
            network: self.network(),
            hosts_dirs: self.paths("--hosts-dir", &flags.hosts_dir, defaults.hosts_dirs.clone()),
            cgroup_driver: self.file.cgroup_driver,
            images: std::mem::take(&mut self.file.images),
            cgroup_root: self.cgroup_root(&defaults.cgroup_root),
            run_dir,
            state_dir,
        };
        Settings {
            socket,
            engine,
            log_level: flags
                .log_level
                .or(self.file.log_level)
                .unwrap_or(LogLevel::Info),
            metrics: self.file.metrics,
            streaming: self.file.streaming,
        }
    }

    /// The configured handlers and our own, which a table of the same name replaces.
    fn handlers(&mut self) -> (BTreeMap<String, Handler>, String) {
        let mut handlers = std::mem::take(&mut self.file.runtimes);
        let default = self.file.default_runtime.take();
        let name = default
            .as_ref()
            .map_or(OWN_HANDLER.to_owned(), |d| d.name.clone());
        if let Some(own) = self.own_runtime(&name, handlers.contains_key(OWN_HANDLER)) {
            handlers
                .entry(OWN_HANDLER.to_owned())
                .or_insert_with(|| Handler::new(""))
                .path = own;
        }
        if let Some(default) = default.filter(|d| !handlers.contains_key(&d.name)) {
            let known: Vec<&str> = handlers.keys().map(String::as_str).collect();
            self.problems.push(Problem {
                place: self.config.display().to_string(),
                line: default.line,
                text: format!(
                    "default_runtime: no runtime is called {:?}; known are {}",
                    name,
                    known.join(", ")
                ),
            });
        }
        (handlers, name)
    }

    /// Where our own runtime is, when the file does not say. It may be missing where another one is the default.
    fn own_runtime(&mut self, default: &str, configured: bool) -> Option<PathBuf> {
        let flag = self.flags.oci_runtime.as_deref();
        if flag.is_none() && configured {
            return None;
        }
        if flag.is_none() && default != OWN_HANDLER {
            return self.finder.find(OWN_HANDLER);
        }
        self.binary("--oci-runtime", flag, OWN_HANDLER)
    }

    fn network(&mut self) -> NetworkConfig {
        let flags = self.flags;
        let defaults = NetworkConfig::default();
        let subnet = flags.subnet.clone().or(self.file.subnet.take());
        if let Some(Err(text)) = subnet.as_deref().map(file::check_subnet) {
            // The file's was checked with its line; this one can only come from the flag.
            self.problem("--subnet", text);
        }
        let bridge = flags
            .bridge
            .clone()
            .or(self.file.bridge.take())
            .unwrap_or(defaults.bridge.clone());
        if let Err(text) = file::check_link_name(&bridge) {
            self.problem("--bridge", text);
        }
        let cache = flags.cni_cache_dir.as_deref();
        let cache_dir = self.path("--cni-cache-dir", cache, &defaults.cache_dir);
        NetworkConfig {
            conf_dir: self.path(
                "--cni-conf-dir",
                flags.cni_conf_dir.as_deref(),
                &defaults.conf_dir,
            ),
            bin_dirs: self.paths(
                "--cni-bin-dir",
                &flags.cni_bin_dir,
                defaults.bin_dirs.clone(),
            ),
            plugins: self.finder.find("davit-cni"),
            data_dir: Some(cache_dir.join("networks")),
            cache_dir,
            bridge,
            subnet,
            subnet6: self.file.subnet6.take(),
            ..defaults
        }
    }

    fn cgroup_root(&mut self, default: &str) -> String {
        let flag = self.flags.cgroup_root.clone();
        if let Some(Err(text)) = flag.as_deref().map(file::check_cgroup) {
            self.problem("--cgroup-root", text);
        }
        flag.or(self.file.cgroup_root.take())
            .unwrap_or_else(|| default.to_owned())
    }

    /// A path of the command line, from the working directory; the daemon itself works with absolute ones.
    fn path(&mut self, flag: &str, given: Option<&Path>, default: &Path) -> PathBuf {
        let Some(given) = given else {
            return default.to_owned();
        };
        absolute(given).unwrap_or_else(|e| {
            self.problem(flag, format!("{given:?}: {e}"));
            default.to_owned()
        })
    }

    fn paths(&mut self, flag: &str, given: &[PathBuf], default: Vec<PathBuf>) -> Vec<PathBuf> {
        if given.is_empty() {
            return default;
        }
        given
            .iter()
            .map(|one| self.path(flag, Some(one), Path::new("/")))
            .collect()
    }

    /// A binary of ours: the one that the flag names, or the one that is found.
    fn binary(&mut self, flag: &str, given: Option<&Path>, name: &str) -> Option<PathBuf> {
        let found = match given {
            Some(path) => binaries::check(path).map(Some),
            None => Ok(self.finder.find(name)),
        };
        match found {
            Ok(Some(path)) => return Some(path),
            Ok(None) => self.problem(
                flag,
                format!("{name} is not in {}; say where it is", self.finder),
            ),
            Err(e) => self.problem(flag, e),
        }
        None
    }

    fn problem(&mut self, place: &str, text: String) {
        self.problems.push(Problem {
            place: place.to_owned(),
            line: 0,
            text,
        });
    }
}

#[cfg(test)]
mod tests;
