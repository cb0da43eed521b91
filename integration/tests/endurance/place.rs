//! One runtime with one bundle, and everything that the containers in it may leave on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use integration::bin;
use integration::bundle::Bundle;
use integration::wait;

use crate::limited::{Ended, Limited};

/// Where the containers are.
pub(crate) struct Place {
    root: tempfile::TempDir,
    prefix: String,
    next: AtomicU32,
    /// Ends at once with code 0.
    pub(crate) truth: Bundle,
    /// Ends at once with code 7.
    pub(crate) seven: Bundle,
    /// Runs until it is killed.
    pub(crate) sleeper: Bundle,
}

impl Place {
    pub(crate) fn new() -> Place {
        let root = tempfile::Builder::new()
            .prefix("davit-endurance-")
            .tempdir()
            .unwrap();
        let prefix = format!("endurance-{}", std::process::id());
        Place {
            root,
            prefix,
            next: AtomicU32::new(0),
            truth: Bundle::new(&["/bin/true"]),
            seven: Bundle::new(&["/bin/sh", "-c", "exit 7"]),
            sleeper: Bundle::new(&["/bin/sleep", "100000"]),
        }
    }

    /// An id that was never used.
    pub(crate) fn id(&self) -> String {
        format!(
            "{}-{}",
            self.prefix,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// A command of the runtime.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin::ours("davit-oci"));
        command.arg("--root").arg(self.root.path()).args(args);
        command
    }

    /// Starts a command of the runtime.
    pub(crate) fn start(&self, args: &[&str]) -> Limited {
        Limited::start(self.command(args))
    }

    /// Starts `run` or `create` of a bundle.
    pub(crate) fn make(&self, verb: &str, bundle: &Bundle, id: &str) -> Limited {
        self.start(&[verb, "--bundle", &bundle.path().to_string_lossy(), id])
    }

    /// A command of the runtime, to its end.
    #[track_caller]
    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    /// `delete --force`, which must do it, and nothing of the container may be left then.
    ///
    /// # Panics
    /// With what is left.
    #[track_caller]
    pub(crate) fn delete(&self, id: &str) {
        let deleted = self.call(&["delete", "--force", id]);
        assert_eq!(deleted.code, 0, "{}", deleted.told);
        self.is_gone(id);
    }

    /// Checks that there is neither state nor cgroup of a container.
    #[track_caller]
    pub(crate) fn is_gone(&self, id: &str) {
        assert!(
            !self.root.path().join(id).exists(),
            "the state of {id} is left"
        );
        let left: Vec<_> = cgroups().filter(|dir| dir.ends_with(id)).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }

    /// Checks that no state, cgroup, mount or process is left of all the containers.
    ///
    /// # Panics
    /// With what is left.
    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        let mut left = Vec::new();
        let start = std::time::Instant::now();
        wait::until_true("nothing is left", Duration::from_secs(20), || {
            left = self.left();
            assert!(
                left.is_empty() || start.elapsed() < Duration::from_secs(10),
                "left: {left:#?}"
            );
            left.is_empty()
        });
    }

    fn left(&self) -> Vec<String> {
        let root = self.root.path();
        let states = std::fs::read_dir(root).unwrap().flatten();
        let mut left: Vec<String> = states
            .map(|entry| format!("state {}", entry.path().display()))
            .collect();
        let cgroups = cgroups().filter(|dir| {
            dir.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&self.prefix))
        });
        left.extend(cgroups.map(|dir| format!("cgroup {}", dir.display())));
        let ours: Vec<String> = [&self.truth, &self.seven, &self.sleeper]
            .map(|bundle| bundle.path().to_string_lossy().into_owned())
            .into_iter()
            .chain([root.to_string_lossy().into_owned()])
            .collect();
        let names_ours = |line: &str| ours.iter().any(|path| line.contains(path));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|line| names_ours(line))
                .map(|line| format!("mount {line}")),
        );
        left.extend(processes(names_ours, &self.prefix));
        left
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a failed test containers are left.
        let states = std::fs::read_dir(self.root.path()).into_iter().flatten();
        for entry in states.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            self.command(&["delete", "--force", &id]).status().ok();
        }
    }
}

/// Processes whose root or command line is ours, or that lie in a cgroup of ours.
fn processes(names_ours: impl Fn(&str) -> bool, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() || name == std::process::id().to_string() {
            continue;
        }
        let read = |what: &str| std::fs::read(entry.path().join(what)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let root_is_ours = mounts
            .lines()
            .any(|mount| mount.split(' ').nth(4) == Some("/") && names_ours(mount));
        if names_ours(&line) || root_is_ours || groups.contains(prefix) {
            found.push(format!("process {name} {line}"));
        }
    }
    found
}

/// Every cgroup directly below the root of a hierarchy, where containers without a path of their own are.
fn cgroups() -> impl Iterator<Item = PathBuf> {
    let dirs = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let top = dirs(Path::new("/sys/fs/cgroup"));
    let below: Vec<_> = top.iter().flat_map(|dir| dirs(dir)).collect();
    top.into_iter().chain(below)
}
