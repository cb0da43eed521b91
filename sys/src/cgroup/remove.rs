//! Removing a cgroup with what is below it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::node::{Node, rmdir};
use super::waiting::{Pause, wait_for_event};
use super::{Cgroup, Error, Result, Version};

/// How long killed processes may take to be gone.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes the cgroup and every one below it, in every hierarchy, waiting up to 10 s for dying processes.
    /// A cgroup that is gone is success. Every hierarchy is tried; the first error is returned.
    ///
    /// # Errors
    /// [`Error::Timeout`] names the processes that are still there.
    pub fn remove(&self) -> Result<()> {
        self.remove_within(REMOVE_DEADLINE)
    }

    /// As [`Cgroup::remove`] with another deadline.
    ///
    /// # Errors
    /// As [`Cgroup::remove`].
    pub fn remove_within(&self, patience: Duration) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let below = self.below_the_roots()?;
        let mut result = Ok(());
        for node in &below.nodes {
            let removed = remove_node(node, deadline);
            result = result.and(removed);
        }
        result
    }
}

fn remove_node(node: &Node, deadline: Instant) -> Result<()> {
    let mut pause = Pause::default();
    loop {
        // A new list each time: a process may make a cgroup of its own until it is dead.
        let Err((dir, errno)) = remove_tree(node)? else {
            return Ok(());
        };
        if !matches!(errno, Errno::EBUSY | Errno::ENOTEMPTY) {
            return Err(Error::call("rmdir", &dir, errno));
        }
        let in_time = match node.version {
            Version::V2 => {
                Instant::now() < deadline
                    && wait_for_event(&dir, "populated", 0, deadline)?
                    && pause.before(deadline)
            }
            Version::V1 => pause.before(deadline),
        };
        if !in_time {
            return Err(Error::Timeout {
                wanted: "empty",
                processes: node.processes()?,
                dir: node.dir.clone(),
            });
        }
    }
}

/// Removes what it can, children first; the first directory that stays, with its errno.
fn remove_tree(node: &Node) -> Result<std::result::Result<(), (PathBuf, Errno)>> {
    // Nearly always there are no children, and one rmdir is all.
    match rmdir(&node.dir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(Ok(())),
        Err(_) => {}
    }
    for dir in node.tree()? {
        match rmdir(&dir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Ok(Err((dir, errno))),
        }
    }
    Ok(Ok(()))
}
