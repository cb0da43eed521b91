//! OCI runtimes by their common command line: ours and the genuine ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::bin;
use crate::bundle::Bundle;
use crate::command::{Outcome, outcome};

/// One runtime with a state directory of its own. Dropping it deletes its containers and their cgroups.
pub struct Runtime {
    name: String,
    path: PathBuf,
    root: tempfile::TempDir,
}

// === impl Runtime ===

impl Runtime {
    /// Our own runtime.
    #[must_use]
    pub fn ours() -> Runtime {
        Runtime::at("davit-oci", bin::ours("davit-oci"))
    }

    /// A genuine one from the distribution; `None` where it is not installed.
    #[must_use]
    pub fn genuine(name: &str) -> Option<Runtime> {
        bin::genuine(name).map(|path| Runtime::at(name, path))
    }

    fn at(name: &str, path: PathBuf) -> Runtime {
        let root = tempfile::Builder::new()
            .prefix("davit-runtime-")
            .tempdir()
            .expect("a temporary directory");
        Runtime {
            name: name.to_owned(),
            path,
            root,
        }
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its program is.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// A command with its state directory and these arguments.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(self.root.path()).args(args);
        command
    }

    /// Runs one of its commands to the end.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// `run` of a bundle in the foreground, under a fresh id.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle) -> Outcome {
        let dir = bundle.path().to_string_lossy();
        self.call(&["run", "--bundle", &dir, &fresh_id()])
    }

    /// `state` of a container.
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        self.call(&["state", id]).json()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let listed = self.call(&["list", "-q"]);
        for id in listed.stdout.split_whitespace() {
            let deleted = self.call(&["delete", "--force", id]);
            if deleted.code != 0 {
                eprintln!("{deleted}");
            }
        }
    }
}

/// Removes the cgroups that failed containers of this process left; crun leaves one whenever it refuses a host.
/// Only those that [`fresh_id`] named, and only empty ones.
pub fn remove_left_cgroups() {
    let prefix = format!("peer-{}-", std::process::id());
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let top = Path::new("/sys/fs/cgroup");
    for dir in std::iter::once(top.to_owned()).chain(entries(top).map(|entry| entry.path())) {
        for entry in
            entries(&dir).filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        {
            // One with a process in it is in use.
            std::fs::remove_dir(entry.path()).ok();
        }
    }
}

/// A container id that no other test uses.
#[must_use]
pub fn fresh_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("peer-{}-{number}", std::process::id())
}
