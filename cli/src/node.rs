//! Which node is meant: its socket, its directories, its log.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The defaults of `davit-cri`.
pub(crate) const RUN_DIR: &str = "/run/davit";
const STATE_DIR: &str = "/var/lib/davit";
const LOG: &str = "/var/log/davit/davit-cri.log";

/// The flags that name a node; without them it is the node of this machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NodeFlags {
    /// The node's socket [default: davit-cri.sock in the run directory]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Node")]
    pub socket: Option<PathBuf>,
    /// What is gone after a reboot [default: /run/davit]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Node")]
    pub run_dir: Option<PathBuf>,
    /// Images and writable layers [default: /var/lib/davit]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Node")]
    pub state_dir: Option<PathBuf>,
}

/// A node, by absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it answers.
    pub socket: PathBuf,
    /// What is gone after a reboot.
    pub run_dir: PathBuf,
    /// What lasts.
    pub state_dir: PathBuf,
    /// Where `up` lets the daemon log.
    pub log: PathBuf,
}

impl NodeFlags {
    /// Fills in the defaults and makes every path absolute: the daemon works in `/`.
    ///
    /// # Errors
    /// A relative path, and no current directory to take it from.
    pub fn resolve(&self) -> Result<Node> {
        let absolute = |path: &Path| {
            let what = || format!("make {} absolute", path.display());
            std::path::absolute(path).map_err(|source| Error::Io {
                what: what(),
                source,
            })
        };
        let given = |flag: &Option<PathBuf>, default: &str| {
            absolute(flag.as_deref().unwrap_or(Path::new(default)))
        };
        let run_dir = given(&self.run_dir, RUN_DIR)?;
        let state_dir = given(&self.state_dir, STATE_DIR)?;
        let socket = match &self.socket {
            Some(path) => absolute(path)?,
            None => run_dir.join("davit-cri.sock"),
        };
        // A private node keeps its log with its state: below the run directory a tmpfs would hide it.
        let log = if state_dir == Path::new(STATE_DIR) {
            LOG.into()
        } else {
            state_dir.join("davit-cri.log")
        };
        Ok(Node {
            socket,
            run_dir,
            state_dir,
            log,
        })
    }
}

impl Node {
    /// The flags that a person must type again to mean this node; empty for the node of this machine.
    #[must_use]
    pub fn flags_to_type(&self) -> String {
        let mut text = String::new();
        if self.run_dir != Path::new(RUN_DIR) {
            text.push_str(&format!(" --run-dir {}", self.run_dir.display()));
        }
        if self.state_dir != Path::new(STATE_DIR) {
            text.push_str(&format!(" --state-dir {}", self.state_dir.display()));
        }
        if self.socket != self.run_dir.join("davit-cri.sock") {
            text.push_str(&format!(" --socket {}", self.socket.display()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_flags_it_is_the_node_of_this_machine_and_nothing_needs_typing() {
        let node = NodeFlags::default().resolve().unwrap();
        assert_eq!(node.socket, Path::new("/run/davit/davit-cri.sock"));
        assert_eq!(node.log, Path::new("/var/log/davit/davit-cri.log"));
        assert_eq!(node.flags_to_type(), "");
    }

    #[test]
    fn a_private_node_has_everything_below_its_own_directories() {
        let flags = NodeFlags {
            run_dir: Some("/t/run".into()),
            state_dir: Some("/t/state".into()),
            socket: None,
        };
        let node = flags.resolve().unwrap();
        assert_eq!(node.socket, Path::new("/t/run/davit-cri.sock"));
        assert_eq!(node.log, Path::new("/t/state/davit-cri.log"));
        assert_eq!(
            node.flags_to_type(),
            " --run-dir /t/run --state-dir /t/state"
        );
    }

    #[test]
    fn a_relative_path_is_taken_from_the_current_directory() {
        let flags = NodeFlags {
            run_dir: Some("r".into()),
            ..NodeFlags::default()
        };
        assert_eq!(
            flags.resolve().unwrap().run_dir,
            std::env::current_dir().unwrap().join("r")
        );
    }
}
