//! The files of a shim in `<pod-dir>`, for the shim that makes them and the daemon that finds them again.
//!
//! ```text
//! <pod-dir>/shim.sock              the protocol's socket, 0600
//!           shim.pid               "<pid> <start time in clock ticks>\n"
//!           ns/{net,ipc,uts,pid}   pinned namespaces, bind mounts
//!           <container-id>/exit    how the container ended, JSON of protocol::Exit
//! ```
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::Exit;

/// The protocol's socket.
pub fn socket(pod_dir: &Path) -> PathBuf {
    pod_dir.join("shim.sock")
}

/// The pid file.
pub fn pid_file(pod_dir: &Path) -> PathBuf {
    pod_dir.join("shim.pid")
}

/// The directory of pinned namespaces.
pub fn namespaces(pod_dir: &Path) -> PathBuf {
    pod_dir.join("ns")
}

/// The exit file of a bundle.
pub fn exit_file(bundle: &Path) -> PathBuf {
    bundle.join("exit")
}

/// Reads the exit file of a bundle; `None` when there is none: the container did not end, or its shim died before it.
///
/// # Errors
/// The file is there and cannot be read or understood.
pub fn read_exit(bundle: &Path) -> io::Result<Option<Exit>> {
    match fs::read(exit_file(bundle)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a pod's shim lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// The process of the pid file runs.
    Alive {
        /// Its process id.
        pid: i32,
    },
    /// There is a pid file, and its process is gone: containers may run unsupervised, exits since then are lost.
    Dead,
    /// There is no pid file: the shim never became ready, or shut down in order.
    Absent,
}

/// Looks at the pid file of `pod_dir`. A recycled process id is told apart by the start time.
///
/// # Errors
/// The pid file exists and cannot be read.
pub fn probe(pod_dir: &Path) -> io::Result<Liveness> {
    let text = match fs::read_to_string(pid_file(pod_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Liveness::Absent),
        Err(error) => return Err(error),
    };
    let mut words = text.split_ascii_whitespace();
    let pid = words.next().and_then(|word| word.parse::<i32>().ok());
    let start = words.next().and_then(|word| word.parse::<u64>().ok());
    match (pid, start) {
        (Some(pid), Some(start)) if runs(pid, start) => Ok(Liveness::Alive { pid }),
        _ => Ok(Liveness::Dead),
    }
}

/// Whether a process with this id and start time runs (a zombie does not).
fn runs(pid: i32, start_time: u64) -> bool {
    sys::process::stat(sys::Pid::from_raw(pid))
        .is_ok_and(|stat| !stat.is_dead() && stat.start_time == start_time)
}
