//! Who is in a cgroup, and killing them all.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::Node;
use super::{Cgroup, Error, Result, file};

/// How long killing waits for the processes to stand still before it does without.
const KILL_FREEZE_DEADLINE: Duration = Duration::from_millis(500);
/// How many lists of processes may show a new one while we kill.
const KILL_ROUNDS: usize = 200;

impl Cgroup {
    /// The processes of this cgroup and of every one below it; none where the cgroup is gone.
    ///
    /// A process that its container moved away in one v1 hierarchy still counts by the others.
    ///
    /// # Errors
    /// A list that cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        for node in &self.nodes {
            all.extend(node.processes()?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Sends SIGKILL to every process here and below, frozen ones included, so that none can fork away. It does not
    /// wait for them to be gone; [`Cgroup::remove`] does. A cgroup that is gone is success.
    ///
    /// # Errors
    /// A list that cannot be read, a process that may not be killed, or processes that multiply faster than we kill.
    pub fn kill_all(&self) -> Result<()> {
        if self.is_none() {
            return Ok(());
        }
        let below = self.below_the_roots()?;
        if below.processes()?.contains(&nix::unistd::getpid().as_raw()) {
            return Err(below.refused("holds the caller itself, which must not kill it"));
        }
        let at_once = below.kill_at_once()?;
        if at_once && below.v1_nodes().next().is_none() {
            return Ok(());
        }
        // Beside v1 nearly all are dead now; only those that left the v2 cgroup alone are still to be found.
        below.kill_by_list(!at_once)
    }

    /// `cgroup.kill` (Linux 5.14) reaches every process of the v2 cgroup, frozen and forking ones, too; whether it is there.
    fn kill_at_once(&self) -> Result<bool> {
        let Some(node) = self.v2() else {
            return Ok(false);
        };
        match file::write(&node.dir, "cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // An older kernel, a cgroup that is gone, or a threaded one.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP)
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Kills what is listed until a list shows nobody new. A killed process forks no more, so the lists end; freezing
    /// first makes one list enough.
    fn kill_by_list(&self, freeze: bool) -> Result<()> {
        if freeze && !self.processes()?.is_empty() {
            // Only a help: without a freezer, or with a task that does not freeze, the lists do it alone.
            self.freeze_within(KILL_FREEZE_DEADLINE).ok();
        }
        let killed = self.kill_new_ones();
        // Also after a failure: processes must never stay frozen behind our back. v1 lets a frozen one die only thawed.
        self.thaw_tree()?;
        killed
    }

    fn kill_new_ones(&self) -> Result<()> {
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let before = killed.len();
            for pid in self.processes()? {
                if killed.insert(pid) {
                    kill_one(pid)?;
                }
            }
            if killed.len() == before {
                return Ok(());
            }
        }
        Err(Error::Timeout {
            wanted: "empty",
            dir: self.nodes[0].dir.clone(),
            processes: self.processes()?,
        })
    }
}

impl Cgroup {
    /// The cgroup without the hierarchies whose root it is: whoever says "kill this cgroup" of a process that was
    /// never put into one must not kill the machine.
    pub(super) fn below_the_roots(&self) -> Result<Self> {
        let nodes: Vec<Node> = self
            .nodes
            .iter()
            .filter(|node| node.dir != node.mount)
            .cloned()
            .collect();
        if nodes.is_empty() {
            Err(self.refused("is the root of every hierarchy"))
        } else {
            Ok(Self { nodes })
        }
    }

    fn refused(&self, why: &'static str) -> Error {
        let path = self
            .nodes
            .first()
            .map(|node| node.dir.display().to_string())
            .unwrap_or_default();
        Error::InvalidPath { path, why }
    }
}

fn kill_one(pid: i32) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::Call {
            call: format!("kill({pid}, SIGKILL)"),
            errno,
            hint: None,
        }),
    }
}
