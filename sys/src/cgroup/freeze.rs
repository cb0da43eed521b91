//! Stopping and continuing a cgroup: v1's freezer hierarchy, or `cgroup.freeze` on v2.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::waiting::{Pause, wait_for_event};
use super::{Cgroup, Error, Result, Version, file};

/// How long a cgroup may take to freeze; the kernel needs microseconds unless a task sits in uninterruptible I/O.
const FREEZE_DEADLINE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Stops every process, and waits until all stand still.
    ///
    /// # Errors
    /// A host without a freezer, a cgroup that is gone, or one that did not freeze in 5 s, which is then thawed again.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_DEADLINE)
    }

    pub(super) fn freeze_within(&self, patience: Duration) -> Result<()> {
        let below = self.below_the_roots()?;
        below.set_frozen(true, patience).inspect_err(|_| {
            // A cgroup frozen in part must not stay so; the error that matters is the first.
            below.set_frozen(false, patience).ok();
        })
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false, FREEZE_DEADLINE)
    }

    /// Whether the cgroup is frozen, or about to be. A cgroup that is gone is not.
    ///
    /// # Errors
    /// A state that cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        let state = match self.freezer()? {
            (Version::V1, dir) => file::read(dir, "freezer.state").map(|state| state != "THAWED"),
            (Version::V2, dir) => file::read(dir, "cgroup.freeze").map(|state| state == "1"),
        };
        match state {
            Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENODEV) => Ok(false),
            state => state,
        }
    }

    fn freezer(&self) -> Result<(Version, &Path)> {
        let node = self.v1_controller("freezer").or_else(|| self.v2());
        node.map(|n| (n.version, n.dir.as_path()))
            .ok_or(Error::NoController {
                controller: "freezer",
                path: None,
            })
    }

    fn set_frozen(&self, frozen: bool, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let done = match self.freezer()? {
            (Version::V1, dir) => set_frozen_v1(dir, frozen, deadline)?,
            (Version::V2, dir) => {
                file::write(dir, "cgroup.freeze", if frozen { "1" } else { "0" })?;
                wait_for_event(dir, "frozen", u64::from(frozen), deadline)?
            }
        };
        if done {
            return Ok(());
        }
        let (_, dir) = self.freezer()?;
        let wanted = if frozen { "frozen" } else { "thawed" };
        Err(Error::Timeout {
            wanted,
            dir: dir.to_owned(),
            processes: self.processes().unwrap_or_default(),
        })
    }

    /// Thaws this cgroup and those below it, which may have been frozen by themselves.
    pub(super) fn thaw_tree(&self) -> Result<()> {
        let Some(node) = self.v1_controller("freezer").or_else(|| self.v2()) else {
            return Ok(());
        };
        let (name, value) = if node.version == Version::V1 {
            ("freezer.state", "THAWED")
        } else {
            ("cgroup.freeze", "0")
        };
        for dir in node.tree()?.iter().rev() {
            match file::write(dir, name, value) {
                Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENODEV) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Asks until the state is there. v1's freezer may miss a task that forks while it freezes; writing again catches it.
fn set_frozen_v1(dir: &Path, frozen: bool, deadline: Instant) -> Result<bool> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let mut pause = Pause::default();
    loop {
        file::write(dir, "freezer.state", wanted)?;
        if file::read(dir, "freezer.state")? == wanted {
            return Ok(true);
        }
        if !pause.before(deadline) {
            return Ok(false);
        }
    }
}
