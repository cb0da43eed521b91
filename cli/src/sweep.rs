//! What `down` removes by hand, after the daemon has ended: usually the network of the node and empty directories,
//! after a crash everything that the kernel still holds. Every step runs, whatever became of the one before.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sys::cgroup::{Cgroup, CgroupPath, Hierarchies};
use sys::mountinfo;

use crate::daemon::Settings;
use crate::node::{Node, RUN_ENTRIES, STATE_ENTRIES};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// The sweep of one node.
pub(crate) struct Sweep<'a> {
    node: &'a Node,
    settings: &'a Settings,
    purge: bool,
    /// The pods that the daemon could not take down, by the names of their directories.
    pods: Vec<String>,
    left: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// Before anything of the node is taken away: it is looked at for the pods that are left.
    pub(crate) fn new(node: &'a Node, settings: &'a Settings, purge: bool) -> Sweep<'a> {
        let dirs = [&node.run_dir, &node.state_dir].map(|dir| children(&dir.join("pods")));
        let pods = dirs.iter().flatten().map(|pod| file_name(pod)).collect();
        Sweep {
            node,
            settings,
            purge,
            pods,
            left: Vec::new(),
        }
    }

    /// Runs every step and returns what is left, one sentence each.
    pub(crate) async fn run(mut self) -> Vec<String> {
        self.shims().await;
        // The pods' directories say whose addresses they are; they go with the tmpfs.
        self.forget_addresses();
        self.cgroups();
        // Mounts hold namespaces and layers: after the processes, before the directories.
        self.mounts();
        self.network().await;
        self.directories();
        self.left
    }

    fn remember<T, E: std::fmt::Display>(
        &mut self,
        what: impl std::fmt::Display,
        outcome: Result<T, E>,
    ) {
        if let Err(error) = outcome {
            self.left.push(format!("{what}: {error}"));
        }
    }

    /// Shims of pods that the daemon could not remove, each known by the id and start time in its pod's directory.
    /// Their containers first: every process of a pod is a descendant of its shim, whatever cgroup it is in.
    async fn shims(&mut self) {
        for pod in children(&self.node.run_dir.join("pods")) {
            let text = fs::read_to_string(pod.join("shim.pid")).unwrap_or_default();
            let Some((shim, started)) = identity(&text) else {
                continue;
            };
            let is_alive = || {
                sys::process::stat(shim)
                    .is_ok_and(|stat| stat.start_time == started && !stat.is_dead())
            };
            if !is_alive() {
                continue;
            }
            let emptied = poll(|| {
                let below = descendants(shim);
                // A process that is gone by now is as good as killed; what stays is counted by the next round.
                below
                    .iter()
                    .for_each(|pid| drop(sys::process::kill(*pid, Signal::SIGKILL)));
                below.is_empty()
            });
            let emptied = emptied.await;
            let killed = sys::process::kill(shim, Signal::SIGKILL);
            self.remember(format!("shim process {shim} of {}", pod.display()), killed);
            if !emptied || !poll(|| !is_alive()).await {
                self.left.push(format!(
                    "processes of pod {} do not end by SIGKILL",
                    pod.display()
                ));
            }
        }
    }

    /// The cgroups of those pods, with what is in them; then the node's own, which by now is empty. The node's may be
    /// anybody's (`--cgroup-root` takes any path), so nothing in it is killed but what has a pod's name.
    fn cgroups(&mut self) {
        let root = self.settings.cgroup_root.trim_end_matches('/').to_owned();
        for pod in self.pods.clone() {
            let path = format!("{root}/{pod}");
            let outcome = cgroup(&path).and_then(|cgroup| {
                if cgroup.exists() {
                    cgroup.kill_all()?;
                    cgroup.remove()?;
                }
                Ok(())
            });
            self.remember(format!("cgroup {path}"), outcome);
        }
        if root.is_empty() {
            return;
        }
        match cgroup(&root) {
            Ok(cgroup) => {
                let dirs: BTreeSet<PathBuf> = cgroup.paths().into_values().collect();
                for dir in dirs {
                    let outcome = absent_is_fine(fs::remove_dir(&dir));
                    self.remember(
                        dir.display(),
                        outcome.map_err(|error| crate::error::reason(&error)),
                    );
                }
            }
            Err(error) => self.left.push(format!("cgroup {root}: {error}")),
        }
    }

    /// Unmounts what lies in the node's directories, the innermost first; and the tmpfs that the daemon mounted as its
    /// run directory.
    fn mounts(&mut self) {
        let table = match mountinfo::own() {
            Ok(table) => table,
            Err(error) => return self.left.push(format!("mounts: {error}")),
        };
        let own = |mount: &mountinfo::Mount| {
            let path = &mount.mount_point;
            let is_run_dir =
                *path == self.node.run_dir && mount.fs_type == "tmpfs" && mount.source == "davit";
            is_run_dir || self.node.owns(path)
        };
        let targets: Vec<PathBuf> = table
            .iter()
            .rev()
            .filter(|mount| own(mount))
            .map(|mount| mount.mount_point.clone())
            .collect();
        for target in targets {
            let outcome = sys::mount::unmount_detach(&target);
            self.remember(format!("mount at {}", target.display()), outcome);
        }
    }

    /// The built-in network once no link of a pod is left on it: bridge, masquerade, addresses.
    async fn network(&mut self) {
        let bridge = &self.settings.bridge;
        let ports_dir = Path::new("/sys/class/net").join(bridge).join("brif");
        // The kernel takes a link away some time after the namespace of its other end.
        if !poll(|| children(&ports_dir).is_empty()).await {
            let names: Vec<String> = children(&ports_dir)
                .iter()
                .map(|port| file_name(port))
                .collect();
            self.left.push(format!(
                "bridge {bridge}: somebody's links are on it: {}",
                names.join(", ")
            ));
            return;
        }
        let network = self.settings.builtin_network();
        self.remember(
            format!("network on bridge {}", self.settings.bridge),
            network.remove_from_host(),
        );
        let cni = &self.settings.cni_cache_dir;
        let addresses = cni.join("networks").join(&network.name);
        if !children(&addresses).iter().any(|file| is_reservation(file)) {
            self.remember(addresses.display(), remove_tree(&addresses));
        }
        for empty in [cni.join("networks"), cni.join("results"), cni.clone()] {
            // Not empty: another network's, and it stays.
            fs::remove_dir(empty).ok();
        }
    }

    /// Addresses and results of pods that only their directories still tell of: no DEL can be made without a node.
    fn forget_addresses(&mut self) {
        let pods = &self.pods;
        let cni = &self.settings.cni_cache_dir;
        let networks = children(&cni.join("networks"));
        let addresses = networks
            .iter()
            .flat_map(|network| children(network))
            .filter(|file| is_reservation(file));
        // host-local writes the container's id into the first line.
        let owned = |file: &PathBuf| {
            fs::read_to_string(file).is_ok_and(|text| {
                text.lines()
                    .next()
                    .is_some_and(|id| pods.iter().any(|pod| pod == id))
            })
        };
        let results = children(&cni.join("results"));
        let named = |file: &PathBuf| {
            pods.iter()
                .any(|pod| file_name(file).contains(pod.as_str()))
        };
        let stale: Vec<PathBuf> = addresses
            .filter(owned)
            .chain(results.into_iter().filter(named))
            .collect();
        for file in stale {
            self.remember(file.display(), absent_is_fine(fs::remove_file(&file)));
        }
    }

    /// What a node keeps in its run directory, and of the state what belongs to pods; all of it when purging. A directory
    /// itself goes only once it is empty.
    fn directories(&mut self) {
        let node = self.node;
        self.remove_entries(&node.run_dir, &RUN_ENTRIES);
        if self.purge {
            self.remove_entries(&node.state_dir, &STATE_ENTRIES);
            for log in [node.log.clone(), node.log.with_extension("log.1")] {
                self.remember(log.display(), absent_is_fine(fs::remove_file(&log)));
            }
            if let Some(dir) = node.log.parent().filter(|dir| dir.ends_with("davit")) {
                // Not empty: another program's log is there too.
                fs::remove_dir(dir).ok();
            }
        } else {
            for dir in ["pods", "ingest"].map(|name| node.state_dir.join(name)) {
                for child in children(&dir) {
                    self.remember(child.display(), remove_tree(&child));
                }
            }
        }
    }

    fn remove_entries(&mut self, dir: &Path, entries: &[&str]) {
        for entry in entries.iter().map(|entry| dir.join(entry)) {
            self.remember(entry.display(), remove_tree(&entry));
        }
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // Something was put there meanwhile, or lay below the tmpfs: it is not ours, and stays.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            outcome => self.remember(dir.display(), outcome),
        }
    }
}

/// `pid starttime`, as a shim writes it.
fn identity(text: &str) -> Option<(Pid, u64)> {
    let mut words = text.split_whitespace();
    Some((
        Pid::from_raw(words.next()?.parse().ok().filter(|pid| *pid > 1)?),
        words.next()?.parse().ok()?,
    ))
}

/// The living processes below `ancestor`, nearest first.
fn descendants(ancestor: Pid) -> Vec<Pid> {
    let pids = children(Path::new("/proc"))
        .into_iter()
        .filter_map(|dir| file_name(&dir).parse().ok());
    let stats = pids.filter_map(|pid| {
        Some((
            Pid::from_raw(pid),
            sys::process::stat(Pid::from_raw(pid)).ok()?,
        ))
    });
    let alive: Vec<(Pid, i32)> = stats
        .filter(|(_, stat)| !stat.is_dead())
        .map(|(pid, stat)| (pid, stat.parent))
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            alive
                .iter()
                .filter(|(_, of)| *of == parent.as_raw())
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// host-local keeps one file per address, and beside them its lock and its last address.
fn is_reservation(file: &Path) -> bool {
    file.file_name()
        .is_some_and(|name| name.to_string_lossy().parse::<std::net::IpAddr>().is_ok())
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn absent_is_fine(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a file, or a directory with what is in it, but never goes through a mount: what an unmount missed is
/// somebody's data.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !about.is_dir() {
        return absent_is_fine(fs::remove_file(path));
    }
    for child in children(path) {
        let inner = fs::symlink_metadata(&child)?;
        if inner.dev() != about.dev() || sys::mount::is_mount_point(&child).unwrap_or(false) {
            return Err(std::io::Error::other(format!(
                "{} is still a mount",
                child.display()
            )));
        }
        remove_tree(&child)?;
    }
    absent_is_fine(fs::remove_dir(path))
}

fn cgroup(path: &str) -> sys::cgroup::Result<Cgroup> {
    Ok(Cgroup::new(
        &Hierarchies::detect()?,
        &CgroupPath::new(path)?,
    ))
}

async fn poll(done: impl Fn() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_known_by_its_id_and_start_time_and_init_is_never_meant() {
        assert_eq!(identity("123 456\n"), Some((Pid::from_raw(123), 456)));
        for text in ["", "123", "x 1", "1 456", "-1 456", "0 456"] {
            assert_eq!(identity(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_descendants_of_a_process_are_found_over_generations() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sh -c 'echo $$; read _; true'; true"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(shell.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        let below_us = descendants(Pid::this());
        assert!(below_us.contains(&grandchild), "{below_us:?}");
        assert_eq!(
            descendants(Pid::from_raw(i32::try_from(shell.id()).unwrap())),
            [grandchild]
        );
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(descendants(grandchild), []);
    }

    #[test]
    fn addresses_in_use_are_told_from_the_plugins_own_files() {
        assert!(is_reservation(Path::new("/n/10.89.0.2")));
        assert!(!is_reservation(Path::new("/n/last_reserved_ip.0")));
        assert!(!is_reservation(Path::new("/n/lock")));
    }

    #[test]
    fn a_tree_goes_whole_and_a_link_in_it_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(&kept, "").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("a/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).unwrap();
    }
}
