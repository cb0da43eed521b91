//! How processes get into a cgroup.
//!
//! Moving another process, or one with several threads, makes the kernel wait for every fork and exec to pass: an RCU
//! grace period of 6 to 14 ms on an idle machine. Two ways do not wait: `clone3` with `CLONE_INTO_CGROUP`, which only
//! v2 has, and a single thread that moves *itself* by writing `0` to v1's `tasks`
//! (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c). A new process is a single thread, so both are open to it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Cgroup, Error, Hint, Result, file};

/// Files that take a new process into every v1 hierarchy. Opened by the parent, so that the child needs neither the
/// host's mounts nor its privileges any more.
#[derive(Debug)]
pub struct Joiner {
    files: Vec<(PathBuf, File)>,
}

impl Joiner {
    /// Moves the calling thread. Only for a process that has no other; it does not allocate unless it fails.
    ///
    /// # Errors
    /// The first hierarchy that refuses.
    pub fn join_self(&self) -> Result<()> {
        self.files.iter().try_for_each(|(path, file)| {
            file::write_open(file, "0").map_err(|errno| joined(path, "0", errno))
        })
    }

    /// Whether there is nothing to join: on v2, where `clone3` did it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl Cgroup {
    /// The v2 directory for `CLONE_INTO_CGROUP`, also beside v1 on a hybrid host.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn dir_fd_v2(&self) -> Result<Option<OwnedFd>> {
        let Some(node) = self.v2() else {
            return Ok(None);
        };
        let dir =
            File::open(&node.dir).map_err(|e| Error::call("open", &node.dir, file::errno(&e)))?;
        Ok(Some(dir.into()))
    }

    /// What a new process needs to take itself into the v1 hierarchies.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn joiner(&self) -> Result<Joiner> {
        let open = |dir: &PathBuf| -> Result<(PathBuf, File)> {
            let path = dir.join("tasks");
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(|e| Error::call("open", &path, file::errno(&e)))?;
            Ok((path, file))
        };
        Ok(Joiner {
            files: self
                .v1_nodes()
                .map(|node| open(&node.dir))
                .collect::<Result<_>>()?,
        })
    }

    /// Moves a process with all its threads. The writes stand back to back because the first one pays for all.
    ///
    /// # Errors
    /// The first hierarchy that refuses; `ESRCH` for a process that is gone.
    pub fn add_process(&self, pid: i32) -> Result<()> {
        self.add(pid, true)
    }

    /// As [`Cgroup::add_process`] without the v2 hierarchy, for a process that `clone3` put there.
    ///
    /// # Errors
    /// As [`Cgroup::add_process`].
    pub fn add_process_v1(&self, pid: i32) -> Result<()> {
        self.add(pid, false)
    }

    fn add(&self, pid: i32, with_v2: bool) -> Result<()> {
        let value = pid.to_string();
        let paths: Vec<PathBuf> = self
            .nodes
            .iter()
            .filter(|n| with_v2 || n.version == super::Version::V1)
            .map(|n| n.dir.join("cgroup.procs"))
            .collect();
        let open = |path: &PathBuf| {
            OpenOptions::new()
                .write(true)
                .open(path)
                .map_err(|e| Error::call("open", path, file::errno(&e)))
        };
        let files: Vec<File> = paths.iter().map(open).collect::<Result<_>>()?;
        let mut both = paths.iter().zip(&files);
        both.try_for_each(|(path, file)| {
            file::write_open(file, &value).map_err(|errno| joined(path, &value, errno))
        })
    }
}

/// What a refused join means.
fn joined(path: &Path, value: &str, errno: Errno) -> Error {
    let error = Error::write(path, value, errno);
    match errno {
        Errno::ENOSPC => error.with_hint(Hint::EmptyCpuset),
        Errno::EBUSY => error.with_hint(Hint::InternalProcesses),
        Errno::EINVAL => error.with_hint(Hint::NoRealtimeRuntime),
        _ => error,
    }
}
