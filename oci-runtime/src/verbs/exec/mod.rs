//! `exec`: another process in a running container.
use std::path::Path;

use super::create::{self, absolute};
use super::foreground::{self, Relay};
use super::pidfd::Receivers;
use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::init::console;
use crate::plan::ProcessPlan;
use crate::state::Status;
use start::{Entry, Request, start};

mod cgroup;
mod process;
mod start;

/// `exec ID [COMMAND…]`
///
/// # Errors
/// The container does not run, or the program cannot be started.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let state = global.store.load(id)?;
    match global.store.status(id, &state)? {
        Status::Stopped | Status::Creating => {
            return Err(Error::new("cannot exec in a stopped container"));
        }
        Status::Paused if !parsed.is_on("ignore-paused") => {
            return Err(Error::new(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    process::keep_readable(parsed)?;
    let plan = process::plan(global, &state, parsed)?;
    let detach = parsed.is_on("detach");
    let console_socket = parsed.get("console-socket").map(Path::new);
    check_terminal(&plan, detach, console_socket.is_some())?;
    let preserved = create::preserved(parsed)?;
    let request = Request {
        global,
        id,
        state: &state,
        plan: &plan,
        entry: Entry::new(global, id, &state, &plan, preserved)?,
        cgroup: cgroup::parse(parsed)?,
        pidfd_receivers: Receivers::connect(parsed.get("pidfd-socket").map(Path::new), None)?,
        pid_file: parsed.get("pid-file").map(absolute).transpose()?,
        preserved,
    };
    if detach {
        let console = console_socket.map(console::connect).transpose()?;
        start(&request, console)?;
        return Ok(0);
    }
    sys::process::set_child_subreaper(true)?;
    let signals = foreground::catch_signals()?;
    let (ours, theirs) = if plan.terminal {
        let (ours, theirs) = sys::fd::seqpacket_pair()?;
        (Some(ours), Some(theirs))
    } else {
        (None, None)
    };
    let child = start(&request, theirs)?;
    let relay = ours.as_ref().map(Relay::receive).transpose()?;
    foreground::wait(&child, &signals, relay, None)
}

fn check_terminal(plan: &ProcessPlan, detach: bool, socket: bool) -> Result<()> {
    if detach && plan.terminal && !socket {
        return Err(Error::new(
            "cannot allocate tty if runc will detach without setting console socket",
        ));
    }
    if socket && !(detach && plan.terminal) {
        return Err(Error::new(
            "cannot use console socket if runc will not detach or allocate tty",
        ));
    }
    Ok(())
}
