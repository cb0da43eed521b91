//! `delete`: lifecycle steps 12 and 13. Every step runs whatever happens to the others, and may run again.
use std::os::fd::AsFd;
use std::time::Duration;

use sys::cgroup::Cgroup;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::hooks::{self, Output};
use crate::id::ContainerId;
use crate::state::{State, Status};

/// How long a killed process may take to end, in milliseconds: as runc waits.
const PATIENCE_MS: i32 = 10_000;

/// `delete ID`
///
/// # Errors
/// The container still runs, or something of it cannot be removed.
pub fn run(global: &Global, id: &ContainerId, force: bool) -> Result<u8> {
    let state = match global.store.load(id) {
        Ok(state) => state,
        Err(error) => return without_state(global, id, force, error),
    };
    let status = global.store.status(id, &state)?;
    match status {
        Status::Stopped => {}
        // It never ran: nothing of value ends.
        Status::Created => kill(&state)?,
        // Who was making it has ended: half of a container is none.
        Status::Creating if !global.store.is_held(id) => {}
        _ if force => kill(&state)?,
        _ => {
            return Err(Error::new(format!(
                "cannot delete container {id} that is not stopped: {status}"
            ))
            .hint("\"kill\" it first, or use --force"));
        }
    }
    remove(global, id, &state, state.cgroup())?;
    Ok(0)
}

/// A directory without a state that can be read: half made, or broken. As with runc the one that is half made goes, and
/// still is no container that could be deleted.
fn without_state(global: &Global, id: &ContainerId, force: bool, error: Error) -> Result<u8> {
    let dir = global.store.dir(id);
    if dir.join("state.json").exists() {
        return Err(error);
    }
    if dir.exists() && (force || !global.store.is_held(id)) {
        global.store.remove(id)?;
    }
    if force { Ok(0) } else { Err(error) }
}

fn kill(state: &State) -> Result<()> {
    if let Ok(pidfd) = state.open_init() {
        super::kill::one(state, nix::libc::SIGKILL)
            .or_else(|error| if state.is_alive() { Err(error) } else { Ok(()) })?;
        let ended = sys::fd::wait_readable(&[pidfd.as_fd()], PATIENCE_MS)?;
        if ended != [true] {
            return Err(Error::new(format!(
                "process {} did not end within 10 s of SIGKILL",
                state.pid
            )));
        }
    }
    Ok(())
}

/// Removes a container whose first process has ended.
///
/// # Errors
/// Everything that could not be removed; what could be is gone, so that the next try has less to do.
pub fn remove(
    global: &Global,
    id: &ContainerId,
    state: &State,
    cgroup: Result<Cgroup>,
) -> Result<()> {
    let mut problems: Vec<Error> = Vec::new();
    match cgroup {
        Ok(cgroup) => {
            let unit = state.systemd.as_ref();
            // Nearly always all processes are gone. Without a pid namespace of its own some may be left.
            let removed = match unit {
                Some(unit) => crate::systemd::remove(unit, &cgroup),
                None => cgroup
                    .remove_within(Duration::ZERO)
                    .or_else(|_| cgroup.kill_all().and_then(|()| cgroup.remove()))
                    .map_err(Error::from),
            };
            problems.extend(
                removed
                    .err()
                    .map(|error| error.within("removing the cgroup")),
            );
        }
        Err(error) => problems.push(error),
    }
    problems.extend(crate::rdt::remove(state.rdt.as_ref()).err());
    if problems.is_empty() {
        // Last, since it is what a second try needs.
        problems.extend(global.store.remove(id).err());
    }
    if problems.is_empty() && !state.hooks.poststop.is_empty() {
        let input = state.hook_input(Status::Stopped);
        // The container is gone all the same: the spec wants a warning.
        let output = Output::open(&[&state.hooks.poststop], &state.annotations)
            .inspect_err(|error| global.warn(&error.message))
            .unwrap_or_default();
        for error in hooks::run_all("poststop", &state.hooks.poststop, &input, &output) {
            global.warn(&error.message);
        }
    }
    let mut problems = problems.into_iter();
    match problems.next() {
        None => Ok(()),
        Some(first) => Err(problems.fold(first, |mut all, one| {
            all.message = format!("{}; {}", all.message, one.message);
            all
        })),
    }
}
