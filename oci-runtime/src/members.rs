//! Which processes a container has: those of its cgroup; where it has none, those of its pid namespace.
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;
use sys::namespace::NamespaceKind;

use crate::error::{Error, Result};
use crate::state::State;

/// The ids of the container's processes as the caller sees them, in ascending order. None once all have ended.
///
/// # Errors
/// A list that cannot be read, or a container with neither a cgroup nor a pid namespace of its own.
pub fn processes(state: &State) -> Result<Vec<i32>> {
    let cgroup = state.cgroup()?;
    if !cgroup.is_none() {
        return Ok(cgroup.processes()?);
    }
    if !state.own_pid_namespace {
        return Err(Error::new(
            "the container has neither a cgroup nor a pid namespace of its own",
        )
        .hint("only its first process is known: signal that one"));
    }
    if !state.is_alive() {
        // The first process was the last one.
        return Ok(Vec::new());
    }
    Ok(of_pid_namespace(state.pid))
}

/// The processes of the pid namespace that `first` is in, and of those below it, whose ancestors are in it.
fn of_pid_namespace(first: i32) -> Vec<i32> {
    let namespace = |pid: i32| {
        let path = format!("/proc/{pid}/ns/{}", NamespaceKind::Pid);
        std::fs::metadata(path).ok().map(|meta| meta.ino())
    };
    let (Some(wanted), Ok(entries)) = (namespace(first), std::fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let all: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let (mut found, mut others): (Vec<i32>, Vec<i32>) = all
        .into_iter()
        .partition(|pid| namespace(*pid) == Some(wanted));
    loop {
        let parent =
            |pid: i32| sys::process::stat(Pid::from_raw(pid)).map_or(0, |stat| stat.parent);
        let below: Vec<i32> = others
            .extract_if(.., |pid| found.contains(&parent(*pid)))
            .collect();
        if below.is_empty() {
            found.sort_unstable();
            return found;
        }
        found.extend(below);
    }
}
