//! The leak check: what belongs to a node on this machine, read from the kernel and not from the node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{bin, command};

/// What identifies a node's things: every mount, link, rule, cgroup, process and file of it names one of these.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The node's directory.
    pub dir: PathBuf,
    /// Its state directory, where that is elsewhere.
    pub state_dir: PathBuf,
    /// Its bridge.
    pub bridge: String,
    /// The name of its network, which names its rules.
    pub network: String,
    /// Its cgroup.
    pub cgroup: String,
    /// Its daemon, 0 when none runs.
    pub daemon: Pid,
}

/// Everything that a node holds at one moment, one line for each thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(pub BTreeSet<String>);

// === impl Snapshot ===

impl Snapshot {
    /// What is here and was not in `before`.
    #[must_use]
    pub fn since(&self, before: &Snapshot) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

// === impl Scope ===

impl Scope {
    /// Reads everything that belongs to the node.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut lines = BTreeSet::new();
        lines.extend(
            self.mounts()
                .into_iter()
                .map(|at| format!("mount {}", at.display())),
        );
        lines.extend(self.links());
        lines.extend(self.rules());
        // The cgroup of all pods stays for the next pod, as the bridge does.
        let of_pods = self
            .cgroups()
            .into_iter()
            .filter(|dir| !dir.ends_with(self.cgroup.trim_start_matches('/')));
        lines.extend(of_pods.map(|dir| format!("cgroup {}", dir.display())));
        lines.extend(
            self.processes()
                .into_iter()
                .map(|(pid, line)| format!("process {pid} {line}")),
        );
        lines.extend(self.files());
        lines.extend(self.daemon_descriptors());
        Snapshot(lines)
    }

    /// Ends and removes whatever a failed test left.
    pub fn sweep(&self) {
        for (pid, _) in self.processes() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        for dir in self.cgroups().iter().rev() {
            kill_cgroup(dir);
        }
        for at in self.mounts().iter().rev() {
            nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).ok();
        }
        for dir in self.cgroups().iter().rev() {
            crate::wait::until_true(
                "a swept cgroup goes",
                std::time::Duration::from_secs(5),
                || {
                    kill_cgroup(dir);
                    std::fs::remove_dir(dir).is_ok() || !dir.exists()
                },
            );
        }
        self.sweep_rules();
        if self.links().iter().any(|line| line.contains(&self.bridge))
            && let Some(ip) = bin::genuine("ip")
        {
            drop(command::run(ip, ["link", "del", &self.bridge]));
        }
    }

    /// Mount points below the node's directories, in the order of mounting.
    #[must_use]
    pub fn mounts(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from)
            .filter(|at| {
                at.starts_with(&self.dir)
                    || (at.starts_with(&self.state_dir) && *at != self.state_dir)
            })
            .collect()
    }

    /// The bridge and the host ends of its pods.
    fn links(&self) -> Vec<String> {
        let Ok(dir) = std::fs::read_dir("/sys/class/net") else {
            return Vec::new();
        };
        dir.flatten()
            .filter(|link| {
                let master = std::fs::read_link(link.path().join("master")).ok();
                let on_bridge =
                    master.and_then(|to| to.file_name().map(|name| name == self.bridge.as_str()));
                link.file_name() == self.bridge.as_str() || on_bridge == Some(true)
            })
            .map(|link| format!("link {}", link.file_name().to_string_lossy()))
            .collect()
    }

    /// Elements, chains and rules of nftables that name the node's network.
    fn rules(&self) -> Vec<String> {
        ruleset()
            .lines()
            .flat_map(|line| {
                line.trim_start()
                    .trim_start_matches("elements = {")
                    .split(", ")
            })
            .filter(|part| self.names_network(part))
            .map(|part| format!("nftables {}", part.trim_matches([' ', '\t', ',', '{', '}'])))
            .collect()
    }

    /// Takes the node's masquerade out of the shared table, and the table with the last one.
    fn sweep_rules(&self) {
        let Some(nft) = bin::genuine("nft") else {
            return;
        };
        for rule in self.rules() {
            let words: Vec<&str> = rule.split_whitespace().collect();
            if let Some(at) = words.iter().position(|word| *word == "goto") {
                let subnet = words[at - 2];
                command::run(
                    &nft,
                    [
                        "delete", "element", "inet", "davit", "subnets", "{", subnet, "}",
                    ],
                );
                command::run(&nft, ["delete", "chain", "inet", "davit", words[at + 1]]);
            }
        }
        let rules = ruleset();
        if rules.contains("table inet davit {") && !rules.contains("goto masq-") {
            command::run(&nft, ["delete", "table", "inet", "davit"]);
        }
        let ports = command::run(&nft, ["list", "table", "inet", "davit-ports"]);
        if ports.code == 0 && !ports.stdout.contains(" comment ") {
            command::run(&nft, ["delete", "table", "inet", "davit-ports"]);
        }
    }

    /// `dvt12` but not `dvt123`.
    fn names_network(&self, text: &str) -> bool {
        text.match_indices(&self.network).any(|(at, found)| {
            !text[at + found.len()..].starts_with(|next: char| next.is_ascii_alphanumeric())
        })
    }

    /// The node's cgroups in every hierarchy, parents first.
    fn cgroups(&self) -> Vec<PathBuf> {
        let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else {
            return Vec::new();
        };
        let roots = hierarchies
            .flatten()
            .map(|one| one.path())
            .chain([PathBuf::from("/sys/fs/cgroup")]);
        let mut found = Vec::new();
        for root in roots {
            let top = root.join(self.cgroup.trim_start_matches('/'));
            // A controller may be reachable by a symbolic link too (cpu -> cpu,cpuacct): count it once.
            if is_cgroup(&root) && top.is_dir() && !root.is_symlink() {
                add_dirs(&top, &mut found);
            }
        }
        found
    }

    /// Processes that name the node's directory, and those in its cgroups.
    fn processes(&self) -> Vec<(i32, String)> {
        let dir = self.dir.to_string_lossy().into_owned();
        let own = std::process::id();
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|&pid| u32::try_from(pid) != Ok(own) && pid != self.daemon.as_raw())
            .filter_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                let groups =
                    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                let in_group = groups.lines().any(|group| {
                    group
                        .split(':')
                        .nth(2)
                        .is_some_and(|path| Path::new(path).starts_with(&self.cgroup))
                });
                (in_group || (line.contains(&dir) && line.contains("davit")))
                    .then(|| (pid, line.trim().to_owned()))
            })
            .collect()
    }

    /// Files of pods: records, writable layers, addresses and CNI results. Images are no leak.
    fn files(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for dir in ["run/pods", "run/oci", "cni/results", "cni/networks"] {
            list(&self.dir.join(dir), &mut lines);
        }
        for dir in ["pods", "ingest"] {
            list(&self.state_dir.join(dir), &mut lines);
        }
        // host-local keeps the last address, its lock and an empty index: they belong to the network, not to a pod.
        let of_the_network = ["/lock", "/.owners"];
        lines.retain(|line| {
            !of_the_network.iter().any(|end| line.ends_with(end))
                && !line.contains("last_reserved_ip")
        });
        lines
    }

    /// The daemon's descriptors by kind: a path that grows with each pod is a leak.
    fn daemon_descriptors(&self) -> Vec<String> {
        let Ok(dir) = std::fs::read_dir(format!("/proc/{}/fd", self.daemon)) else {
            return Vec::new();
        };
        let mut kinds = std::collections::BTreeMap::<String, usize>::new();
        for fd in dir.flatten() {
            let Ok(target) = std::fs::read_link(fd.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            // Sockets and pipes carry inode numbers, and idle client connections come and go.
            let kind = target.split(':').next().unwrap_or_default().to_owned();
            if kind != "socket" {
                *kinds.entry(kind).or_default() += 1;
            }
        }
        kinds
            .into_iter()
            .map(|(kind, count)| format!("descriptors of davit-cri: {count} x {kind}"))
            .collect()
    }
}

/// Everything nftables holds, or nothing where the tool is missing.
fn ruleset() -> String {
    bin::genuine("nft").map_or_else(String::new, |nft| {
        command::run(nft, ["list", "ruleset"]).stdout
    })
}

/// crun makes plain directories below a tmpfs where it expects a hierarchy: those are no cgroups.
fn is_cgroup(root: &Path) -> bool {
    use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
    let kinds = [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];
    statfs(root).is_ok_and(|found| kinds.contains(&found.filesystem_type()))
}

/// Kills what is in one cgroup directory (v1 and v2 both list it in cgroup.procs).
fn kill_cgroup(dir: &Path) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// `dir` and every directory below it, parents first.
fn add_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        add_dirs(&entry.path(), found);
    }
}

/// Every file and every directory below `dir`, but not `dir` itself.
fn list(dir: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // A network's own directory of addresses stays when its last pod goes.
        if !(is_dir && dir.ends_with("networks")) {
            lines.push(format!("file {}", path.display()));
        }
        if is_dir {
            list(&path, lines);
        }
    }
}
