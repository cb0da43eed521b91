//! Cgroups below a unit's, for the container and for what it manages itself.

use std::os::unix::fs::chown;
use std::path::Path;

use crate::cgroup::{Cgroup, Error, Result, file};

/// The files of a cgroup that whoever manages it writes to, where the kernel does not list them.
const MANAGED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

impl Cgroup {
    /// The cgroup at a relative path below this one; this one where the path is empty.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let mut below = self.clone();
        if !path.is_empty() {
            below
                .nodes
                .iter_mut()
                .for_each(|node| node.dir.push(path.trim_start_matches('/')));
        }
        below
    }

    /// Makes a user and a group the owners of the v2 cgroup, so that they can manage what is below it: the directory,
    /// and the files that the kernel lists in /sys/kernel/cgroup/delegate. Limits stay out of their reach.
    ///
    /// # Errors
    /// The caller may not give files away.
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(node) = self.v2() else { return Ok(()) };
        let files = file::read(Path::new("/sys/kernel/cgroup"), "delegate");
        let files = files.unwrap_or_else(|_| MANAGED.to_owned());
        let all = files.lines().map(|name| node.dir.join(name));
        for path in all.chain([node.dir.clone()]) {
            match chown(&path, Some(uid), Some(gid)) {
                // Not every kernel with the list has every file of it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(|e| Error::call("chown", &path, file::errno(&e)))?,
            }
        }
        Ok(())
    }
}
