//! `start`: lifecycle steps 6 to 9.
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::sys::stat::Mode;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::hooks::{self, Output};
use crate::id::ContainerId;
use crate::state::{State, Status, Store};
use crate::verbs::notify;

/// `start ID`
///
/// # Errors
/// There is no container in the state "created".
pub fn run(global: &Global, id: &ContainerId) -> Result<u8> {
    let state = global.store.load(id)?;
    match global.store.status(id, &state)? {
        Status::Created => {}
        Status::Creating => {
            return Err(Error::new(
                "cannot start a container that is still being created",
            ));
        }
        Status::Stopped => return Err(Error::new("cannot start a container that has stopped")),
        Status::Running | Status::Paused => {
            return Err(Error::new("cannot start an already running container"));
        }
    }
    let dir = global.store.dir(id);
    notify::around(
        &dir,
        state.pid,
        || state.open_init(),
        || {
            open(&global.store, id, &state)?;
            poststart(global, &state)
        },
    )?;
    Ok(0)
}

/// Opens the gate, once.
///
/// # Errors
/// Somebody else opened it, or nobody waits behind it.
pub fn open(store: &Store, id: &ContainerId, state: &State) -> Result<()> {
    let path = store.fifo(id);
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let gate = match sys::path::openat2(AT_FDCWD, &path, flags, Mode::empty(), ResolveFlag::empty())
    {
        Err(error) if error.errno == Errno::ENOENT => {
            return Err(Error::new("cannot start an already running container"));
        }
        // Nobody has it open for reading: the process is gone.
        Err(error) if error.errno == Errno::ENXIO => {
            return Err(Error::new("cannot start a container that has stopped"));
        }
        other => other?,
    };
    // Who removes the name is who starts: of two at once, the other finds nothing to remove.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new("cannot start an already running container"));
        }
        other => other.map_err(|error| sys::Error::from_io(&error, format!("unlink({path:?})")))?,
    }
    debug_assert!(state.pid > 0, "only a created container has a gate");
    match sys::fd::write_all(&gate, b"s") {
        // Killed since the gate was opened.
        Err(error) if error.errno == Errno::EPIPE => {
            return Err(Error::new("cannot start a container that has stopped"));
        }
        other => other?,
    }
    if !state.hooks.poststart.is_empty() {
        // Poststart hooks find the program running: the first process lets go of the gate when it becomes the program
        // (or ends, which its exit code tells).
        sys::fd::wait_unread(&gate)?;
    }
    Ok(())
}

/// Runs the `poststart` hooks; a failure ends the container.
///
/// # Errors
/// Which hook failed.
pub fn poststart(global: &Global, state: &State) -> Result<()> {
    if state.hooks.poststart.is_empty() {
        return Ok(());
    }
    let input = state.hook_input(Status::Running);
    let output = Output::open(&[&state.hooks.poststart], &state.annotations);
    let run =
        output.and_then(|output| hooks::run("poststart", &state.hooks.poststart, &input, &output));
    run.inspect_err(|_| {
        if let Ok(pidfd) = state.open_init() {
            // The hook's failure is what is reported; the container may have ended by itself.
            drop(sys::process::pidfd_send_signal(&pidfd, nix::libc::SIGKILL));
        }
        global.warn("a poststart hook failed: the container was killed");
    })
}
