//! What a test run may leave behind, by comparing the host before and after: each line of the difference is a leak.
//!
//! Only what appears is looked at; what was there before is somebody else's. Kernel objects can take a moment to
//! go (a network namespace is torn down by a worker), so the second look is repeated until a deadline.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::run;

/// How long the kernel may take to finish what was asked of it.
const SETTLE: Duration = Duration::from_secs(15);

/// Programs that must not outlive the tests that started them.
const PROGRAMS: &[&str] = &[
    "davit",
    "davit-oci",
    "davit-shim",
    "davit-cni",
    "davit-cri",
    "davit-sample",
    "runc",
    "crun",
    "podman",
    "conmon",
    "crictl",
    "docker-registry",
    "registry",
    "busybox",
    "strace",
    "qemu-system-x86",
];

/// Paths that come into being with a node or with a container of it.
const PLACES: &[&str] = &[
    "/run/davit",
    "/run/davit-oci",
    "/run/netns",
    "/var/lib/davit/pods",
    "/var/lib/cni/networks",
    "/var/lib/cni/results",
    "/var/run/cni",
];

/// One sentence per thing on the host that tests could forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(BTreeSet<String>);

impl Host {
    /// Looks at mounts, namespaces, links, nftables, cgroups, processes, loop devices and files.
    pub(crate) fn look() -> Host {
        let mut seen = BTreeSet::new();
        mounts(&mut seen);
        children("link", Path::new("/sys/class/net"), &mut seen);
        nftables(&mut seen);
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let neighbours = own_neighbourhoods(&membership);
        cgroups(Path::new("/sys/fs/cgroup"), &neighbours, &mut seen);
        processes(&mut seen);
        loop_devices(&mut seen);
        for place in PLACES {
            children("file", Path::new(place), &mut seen);
        }
        Host(seen)
    }

    /// What is there now and was not in `self`, once it no longer shrinks to nothing within the deadline.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let leaks: Vec<String> = Host::look().0.difference(&self.0).cloned().collect();
            if leaks.is_empty() || Instant::now() >= deadline {
                return leaks;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

fn mounts(seen: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines() {
        // 36 35 98:0 /root /mountpoint options ... - type source superoptions
        if let (Some(target), Some((_, tail))) = (line.split(' ').nth(4), line.split_once(" - ")) {
            // `ip netns add` bind-mounts its directory onto itself once and never takes that away.
            if target != "/run/netns" {
                seen.insert(format!(
                    "mount {target} ({})",
                    tail.split(' ').next().unwrap_or("?")
                ));
            }
        }
    }
}

fn nftables(seen: &mut BTreeSet<String>) {
    if !run::on_path("nft") {
        return;
    }
    let list = |args: &[&str]| run::output(Command::new("nft").args(args)).unwrap_or_default();
    for table in list(&["list", "tables"]).lines() {
        let words: Vec<&str> = table.split(' ').collect();
        if holds_something(&list(&[&["list"], words.as_slice()].concat())) {
            seen.insert(format!("nftables {table}"));
        }
    }
}

/// False for a table of base chains without a rule: `iptables`, which the reference plugins call, makes its tables at
/// its first use and never takes them away.
fn holds_something(table: &str) -> bool {
    table.lines().map(str::trim).any(|line| {
        !["", "}"].contains(&line)
            && !["table ", "chain ", "type "]
                .iter()
                .any(|start| line.starts_with(start))
    })
}

/// Every cgroup below the mounts, on v1, v2 and hybrid hosts alike, but for the neighbours of our own: whoever started
/// this process there (a session manager) starts others, too.
fn cgroups(dir: &Path, neighbours: &[PathBuf], seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !neighbours.contains(&entry.path())
        {
            seen.insert(format!("cgroup {}", entry.path().display()));
            cgroups(&entry.path(), neighbours, seen);
        }
    }
}

/// The directories in which our own cgroups lie, where those are not the root of their hierarchy.
fn own_neighbourhoods(membership: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    membership
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let parent = Path::new(path).parent()?.strip_prefix("/").ok()?;
            if parent.as_os_str().is_empty() {
                return None;
            }
            let hierarchy = match controllers {
                // v2: alone, or beside v1.
                "" if root.join("unified").is_dir() => "unified",
                named => named.trim_start_matches("name="),
            };
            Some(root.join(hierarchy).join(parent))
        })
        .collect()
}

/// Processes of our programs and of the tools that tests start, and the network namespaces that any process holds.
fn processes(seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if PROGRAMS.contains(&comm.trim()) {
            seen.insert(format!("process {name} ({})", comm.trim()));
        }
        if let Ok(namespace) = fs::metadata(entry.path().join("ns/net")) {
            seen.insert(format!(
                "network namespace net:[{}] of a process",
                namespace.ino()
            ));
        }
    }
}

fn loop_devices(seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            seen.insert(format!(
                "loop device {} on {}",
                entry.file_name().to_string_lossy(),
                file.trim()
            ));
        }
    }
}

fn children(what: &str, dir: &Path, seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        seen.insert(format!("{what} {}", entry.path().display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_empty_base_chains_holds_nothing_and_a_rule_is_something() {
        let empty = "table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t}\n}\n";
        assert!(!holds_something(empty));
        let rule = empty.replace("accept;\n", "accept;\n\t\tcounter masquerade\n");
        assert!(holds_something(&rule));
        assert!(holds_something(
            "table inet davit {\n\tmap subnets {\n\t}\n}\n"
        ));
    }

    #[test]
    fn the_neighbourhood_of_a_cgroup_is_its_parent_in_its_hierarchy() {
        let found =
            own_neighbourhoods("5:memory:/manager/one\n4:pids:/top\n1:name=systemd:/a/b/c\n");
        let expected = [
            "/sys/fs/cgroup/memory/manager",
            "/sys/fs/cgroup/systemd/a/b",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_look_sees_the_mounts_links_and_cgroups_of_this_host() {
        let Host(seen) = Host::look();
        assert!(
            seen.iter().any(|line| line.starts_with("mount / (")),
            "{seen:?}"
        );
        assert!(seen.contains("link /sys/class/net/lo"), "{seen:?}");
    }

    #[test]
    fn what_was_there_before_is_no_leak_and_what_is_new_is() {
        let mut before = Host::look();
        let gone = "link /sys/class/net/lo".to_owned();
        assert!(before.0.remove(&gone));
        let now = Host::look();
        assert!(now.0.difference(&before.0).any(|line| *line == gone));
        assert!(!now.0.difference(&now.0.clone()).any(|line| *line == gone));
    }
}
