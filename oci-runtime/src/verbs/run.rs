//! `run`: create, start, and in the foreground wait and delete.
use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result};
use crate::exe;
use crate::id::ContainerId;
use crate::verbs::create::{self, Options};
use crate::verbs::foreground::{self, Relay};
use crate::verbs::notify::{self, Proxy};
use crate::verbs::{delete, start};

/// `run ID`
///
/// # Errors
/// The container could not be made or started; nothing is left behind.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    let detach = parsed.is_on("detach");
    let mut options = Options::new(parsed)?;
    let plan = create::read_plan(global, id, &options)?;
    options.doorkeeper = exe::doorkeeper(&plan)?;
    let console = create::connect_console(&plan, options.console_socket.as_deref())?;
    if !detach && console.is_some() {
        return Err(Error::new(
            "cannot use console socket if runc will not detach or allocate tty",
        ));
    }
    if detach && plan.process.terminal && console.is_none() {
        return Err(Error::new(
            "cannot allocate tty if runc will detach without setting console socket",
        ));
    }
    if detach {
        let created = create::create(global, id, &plan, &options, console)?;
        let dir = global.store.dir(id);
        let pidfd = || notify::watch(&created.child);
        notify::around(&dir, created.state.pid, pidfd, || go(global, id, &created))?;
        return Ok(0);
    }
    if !parsed.is_on("no-subreaper") {
        sys::process::set_child_subreaper(true)?;
    }
    let signals = foreground::catch_signals()?;
    let (ours, theirs) = if plan.process.terminal {
        let (ours, theirs) = sys::fd::seqpacket_pair()?;
        (Some(ours), Some(theirs))
    } else {
        (None, None)
    };
    let created = create::create(global, id, &plan, &options, theirs)?;
    let code = ours
        .as_ref()
        .map(Relay::receive)
        .transpose()
        .and_then(|relay| {
            // Here it is this process that the manager shall watch.
            let own = nix::unistd::getpid().as_raw();
            let proxy = Proxy::bind(&global.store.dir(id), own)?;
            go(global, id, &created)?;
            foreground::wait(&created.child, &signals, relay, proxy.as_ref())
        });
    // Where the start failed it is gone already: once more would run its poststop hooks twice.
    let gone = !global.store.dir(id).exists();
    let removed = if parsed.is_on("keep") || gone {
        Ok(())
    } else {
        delete::remove(global, id, &created.state, Ok(created.cgroup.clone()))
    };
    let code = code?;
    removed?;
    Ok(code)
}

/// Starts what was created; if that fails the container goes again.
fn go(global: &Global, id: &ContainerId, created: &create::Created) -> Result<()> {
    let started = start::open(&global.store, id, &created.state)
        .and_then(|()| start::poststart(global, &created.state));
    if started.is_err() {
        // The failure to start is what is reported.
        drop(delete::run(global, id, true));
    }
    started
}
