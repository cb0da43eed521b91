//! Handing a cgroup to the user of its container
//! (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cgroup-ownership>).

use std::os::unix::fs::chown;
use std::path::Path;

use nix::errno::Errno;

use super::{Cgroup, Error, Result, file};

/// Where the kernel lists the files that a delegated cgroup needs (Linux 4.15).
const LIST: &str = "/sys/kernel/cgroup";

/// What it listed first.
const FILES: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control";

impl Cgroup {
    /// Makes `uid` the owner of the cgroup's directory and of the files by which it is divided further; the limits stay
    /// the caller's. On a host with v1 nothing happens: v1 cannot be delegated safely.
    ///
    /// # Errors
    /// `EPERM` for another user's cgroup.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        match self.v2() {
            Some(node) if self.v1_nodes().next().is_none() => {
                let list = file::read(Path::new(LIST), "delegate");
                own(&node.dir, list.as_deref().unwrap_or(FILES), uid)
            }
            _ => Ok(()),
        }
    }
}

fn own(dir: &Path, list: &str, uid: u32) -> Result<()> {
    let owned = |path: &Path| {
        chown(path, Some(uid), None).map_err(|e| Error::call("chown", path, file::errno(&e)))
    };
    owned(dir)?;
    for name in list.lines().filter(|name| !name.contains('/')) {
        match owned(&dir.join(name)) {
            // The list is that of the kernel, not of this cgroup's controllers.
            Err(error) if error.is(Errno::ENOENT) => {}
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_the_listed_files_change_their_owner() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["cgroup.procs", "memory.max"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        own(dir.path(), "cgroup.procs\ncgroup.threads\n../x", 4711).unwrap();
        let owner = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().uid();
        assert_eq!(
            [owner(""), owner("cgroup.procs"), owner("memory.max")],
            [4711, 4711, 0]
        );
    }
}
