//! `pause` and `resume`: stopping every process of a container where it stands.
use sys::cgroup::Cgroup;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::state::{State, Status};

/// `pause ID`
///
/// # Errors
/// The container does not run, or has no cgroup that can be frozen.
pub fn pause(global: &Global, id: &ContainerId) -> Result<u8> {
    let state = global.store.load(id)?;
    match global.store.status(id, &state)? {
        Status::Created | Status::Running => {}
        Status::Paused => {
            return Err(Error::new("container not running").hint("it is paused already"));
        }
        _ => return Err(Error::new("container not running")),
    }
    freezable(&state)?.freeze()?;
    Ok(0)
}

/// `resume ID`
///
/// # Errors
/// The container is not paused.
pub fn resume(global: &Global, id: &ContainerId) -> Result<u8> {
    let state = global.store.load(id)?;
    if global.store.status(id, &state)? != Status::Paused {
        return Err(Error::new("container not paused"));
    }
    freezable(&state)?.thaw()?;
    Ok(0)
}

fn freezable(state: &State) -> Result<Cgroup> {
    let cgroup = state.cgroup()?;
    if cgroup.is_none() {
        return Err(no_cgroup("only a cgroup can be frozen"));
    }
    Ok(cgroup)
}

/// The error of what needs a cgroup, in a container without one.
pub(super) fn no_cgroup(why: &str) -> Error {
    Error::new(format!("the container has no cgroup, and {why}")).hint(
        "it was created with --cgroup-manager disabled, or by a user to whom no cgroup is delegated",
    )
}
