//! Freezing, killing and removing a cgroup.
//!
//! Nothing here sleeps blindly: v2 tells by `cgroup.events` when a cgroup froze or emptied, and v1, which cannot tell,
//! is asked again after 1 to 10 ms, up to a deadline.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::node::{Node, rmdir};
use super::{Cgroup, Error, Result, Version, file};

/// How long a cgroup may take to freeze; the kernel needs microseconds unless a task sits in uninterruptible I/O.
const FREEZE_DEADLINE: Duration = Duration::from_secs(5);
/// How long killing waits for that before it does without.
const KILL_FREEZE_DEADLINE: Duration = Duration::from_millis(500);
/// How long killed processes may take to be gone.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);
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

    /// Stops every process, and waits until all stand still.
    ///
    /// # Errors
    /// A host without a freezer, a cgroup that is gone, or one that did not freeze in 5 s, which is then thawed again.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(FREEZE_DEADLINE)
    }

    fn freeze_within(&self, patience: Duration) -> Result<()> {
        self.set_frozen(true, patience).inspect_err(|_| {
            // A cgroup frozen in part must not stay so; the error that matters is the first.
            self.set_frozen(false, patience).ok();
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

    /// Sends SIGKILL to every process here and below, frozen ones included, so that none can fork away. It does not
    /// wait for them to be gone; [`Cgroup::remove`] does. A cgroup that is gone is success.
    ///
    /// # Errors
    /// A list that cannot be read, a process that may not be killed, or processes that multiply faster than we kill.
    pub fn kill_all(&self) -> Result<()> {
        let at_once = self.kill_at_once()?;
        if at_once && self.v1_nodes().next().is_none() {
            return Ok(());
        }
        // Beside v1 nearly all are dead now; only those that left the v2 cgroup alone are still to be found.
        self.kill_by_list(!at_once)
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

    /// Thaws this cgroup and those below it, which may have been frozen by themselves.
    fn thaw_tree(&self) -> Result<()> {
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
        let deadline = Instant::now() + patience;
        let mut result = Ok(());
        for node in &self.nodes {
            let removed = remove_node(node, deadline);
            result = result.and(removed);
        }
        result
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
fn remove_tree(node: &Node) -> Result<std::result::Result<(), (std::path::PathBuf, Errno)>> {
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

/// Waits until `key` in `cgroup.events` is `value`; false at the deadline. A cgroup that is gone has no events left.
fn wait_for_event(dir: &Path, key: &str, value: u64, deadline: Instant) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let Ok(events) = File::open(&path) else {
        return Ok(true);
    };
    loop {
        // Reading also re-arms the notification.
        match file::read_again(&events) {
            Ok(text) if file::find_key(&text, key) == Some(value) => return Ok(true),
            Ok(_) => {}
            Err(Errno::ENODEV | Errno::ENOENT) => return Ok(true),
            Err(errno) => return Err(Error::call("read", &path, errno)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            timeout,
        ) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::call("poll", &path, errno)),
        }
    }
}

/// Pauses that grow from 1 to 10 ms.
#[derive(Default)]
struct Pause {
    taken: u64,
}

impl Pause {
    /// Pauses, unless the deadline has passed.
    fn before(&mut self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        self.taken += 1;
        std::thread::sleep(Duration::from_millis(self.taken.min(10)));
        true
    }
}
