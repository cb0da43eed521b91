//! The runtimes under test: ours, and the newest genuine ones that `cargo xtask bench` could get.

use std::path::{Path, PathBuf};
use std::process::Command;

use integration::bin;
use integration::host::Cgroups;

/// A runtime under test.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// The first line of its `--version`.
    pub(crate) version: String,
    pub(crate) path: PathBuf,
}

/// Ours first, then the genuine ones: of `DAVIT_PEERS` (a directory), else as installed.
pub(crate) fn all() -> Vec<Subject> {
    let peers = std::env::var_os("DAVIT_PEERS").map(PathBuf::from);
    let genuine = |name: &'static str| {
        let newest = peers.as_ref().map(|dir| dir.join(name));
        let path = newest
            .filter(|path| path.is_file())
            .or_else(|| bin::genuine(name))?;
        Some(Subject::new(name, path))
    };
    let ours = Subject::new("davit-oci", bin::ours("davit-oci"));
    std::iter::once(ours)
        .chain(["crun", "runc"].into_iter().filter_map(genuine))
        .collect()
}

// === impl Subject ===

impl Subject {
    fn new(name: &'static str, path: PathBuf) -> Subject {
        let output = Command::new(&path).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let version = text.lines().next().unwrap_or("version unknown").to_owned();
        Subject {
            name,
            version,
            path,
        }
    }

    /// Whether it refuses this kind of host; crun leaves a cgroup behind when it does.
    pub(crate) fn refuses(&self, cgroups: Cgroups) -> bool {
        self.name == "crun"
            && cgroups == Cgroups::AsIs
            && Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
    }
}
