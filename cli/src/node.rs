//! Which node is meant: its socket, its directories, its log.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The defaults of `davit-cri`.
pub(crate) const RUN_DIR: &str = "/run/davit";
const STATE_DIR: &str = "/var/lib/davit";
const LOG: &str = "/var/log/davit/davit-cri.log";

/// All that a node has in its run directory.
pub(crate) const RUN_ENTRIES: [&str; 6] = [
    "davit-cri.sock",
    "lock",
    "logs",
    "oci",
    "pods",
    "up.cmdline",
];
/// All that a node has in its state directory.
pub(crate) const STATE_ENTRIES: [&str; 7] = [
    "davit-cri.log",
    "davit-cri.log.1",
    "images.redb",
    "ingest",
    "layers",
    "lock",
    "pods",
];

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
    /// Whether a path lies inside what a node has in its directories.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        let below = |dir: &Path, entries: &[&str]| {
            let first = path
                .strip_prefix(dir)
                .ok()
                .and_then(|rest| rest.components().next());
            first.is_some_and(|first| entries.iter().any(|entry| first.as_os_str() == *entry))
        };
        below(&self.run_dir, &RUN_ENTRIES) || below(&self.state_dir, &STATE_ENTRIES)
    }

    /// Refuses directories that hold what no node puts there. `--run-dir /run` is quickly typed: a node started there
    /// would cover it with its tmpfs, and one taken down would clear it.
    ///
    /// # Errors
    /// The directory with what is in it.
    pub fn refuse_foreign_directories(&self) -> Result<()> {
        for (dir, entries) in [
            (&self.run_dir, &RUN_ENTRIES[..]),
            (&self.state_dir, &STATE_ENTRIES[..]),
        ] {
            let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut foreign: Vec<String> = names
                .filter(|name| !entries.contains(&name.as_str()))
                .collect();
            if !foreign.is_empty() {
                foreign.sort();
                return Err(Error::ForeignDirectory {
                    dir: dir.clone(),
                    entries: foreign,
                });
            }
        }
        Ok(())
    }

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
    fn a_directory_that_holds_anything_else_is_nobodys_node() {
        let dir = tempfile::tempdir().unwrap();
        let (run, state) = (dir.path().join("run"), dir.path().join("state"));
        let node = NodeFlags {
            run_dir: Some(run.clone()),
            state_dir: Some(state.clone()),
            socket: None,
        }
        .resolve()
        .unwrap();
        node.refuse_foreign_directories().unwrap();
        std::fs::create_dir_all(run.join("pods")).unwrap();
        std::fs::create_dir_all(state.join("layers")).unwrap();
        node.refuse_foreign_directories().unwrap();
        for foreign in [run.join("sshd.pid"), state.join("dpkg")] {
            std::fs::write(&foreign, "").unwrap();
            let error = node.refuse_foreign_directories().unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains(foreign.file_name().unwrap().to_str().unwrap()),
                "{error}"
            );
            std::fs::remove_file(&foreign).unwrap();
        }
    }

    #[test]
    fn a_node_owns_what_is_in_its_entries_and_nothing_beside_them() {
        let node = NodeFlags {
            run_dir: Some("/run".into()),
            ..NodeFlags::default()
        }
        .resolve()
        .unwrap();
        assert!(node.owns(Path::new("/run/pods/1/ns/net")));
        assert!(node.owns(Path::new("/var/lib/davit/layers")));
        for other in [
            "/run",
            "/run/netns/x",
            "/run/podsx",
            "/var/lib/davit",
            "/var/lib/davit/volumes/1",
            "/",
        ] {
            assert!(!node.owns(Path::new(other)), "{other}");
        }
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
