//! A process that `exec` adds to a container, from its birth to its program.
//!
//! ```text
//! parent                        intermediate                     the process
//!   clone3 ──────────────────▶ waits
//!   oom_score_adj
//!   ── Go ───────────────────▶ cgroups, namespaces, terminal,
//!                              ids, capabilities; lets go of the host
//!   ◀────────────── Pid ────── clone3(CLONE_PARENT) ──────────▶ session, terminal
//!   limits                     ends                ◀ SetLimits  (only where it lacks the rights)
//!   ── Continue ──────────────────────────────────────────────▶
//!   pid file                                       ◀───── Ready (or Failed, from either, at any moment)
//!   ── Continue ──────────────────────────────────────────────▶ execve
//! ```
//! **Invariant:** in the container's pid namespace there is never a process with more than the program will have. A
//! process of the container that may trace others (CAP_SYS_PTRACE) reaches everything of whatever has an id in its
//! namespace: `/proc/<pid>/root`, descriptors, memory, capabilities. So all that needs the host or its rights is done by
//! an intermediate process that the container cannot name, and the last thing that one does is to give birth.
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use sys::namespace;
use sys::path::{Proc, Root};
use sys::process::{Birth, CloneArgs, Forked, clone3};

use super::filter::Filter;
use super::program::Keeper;
use super::protocol::{self, FromChild, ToChild};
use super::{Inherited, console, identity, lsm, program, shared_mounts};
use crate::error::{Error, Result, Within};
use crate::plan::ExecutionPlan;

/// What it gets besides what every process gets.
#[derive(Debug)]
pub struct Exec<'a> {
    /// What every process gets.
    pub inherited: Inherited<'a>,
    /// The container's first process.
    pub init: &'a OwnedFd,
    /// The namespaces to enter.
    pub namespaces: CloneFlags,
    /// Execution domain and memory policy of the container.
    pub execution: &'a ExecutionPlan,
    /// What enters the pid namespace, if not this program.
    pub doorkeeper: Option<&'a OwnedFd>,
    /// The container's root, where it is not that of its mount namespace.
    pub root: Option<OwnedFd>,
}

/// Becomes the program, or tells the parent why not and ends.
pub fn run(exec: Exec<'_>) -> ! {
    let socket = exec.inherited.socket.try_clone();
    let reporter = socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let error = match steps(exec, reporter) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    super::child::report(socket.ok(), error);
    // What runc's exec ends with when the program did not start.
    sys::process::exit_now(255)
}

fn steps(exec: Exec<'_>, reporter: RawFd) -> Result<std::convert::Infallible> {
    let Exec {
        inherited,
        init,
        namespaces,
        execution,
        doorkeeper,
        root: other_root,
    } = exec;
    let Inherited {
        process,
        socket,
        parent_end,
        joiner,
        console,
        preserved,
        seccomp,
        keyring,
    } = inherited;
    let mut filter = Filter::new(seccomp, process);
    sys::fd::close_range_now(parent_end, parent_end)?;

    // 1. Nothing before the parent knows this process.
    let ToChild::Go(_) = protocol::hear_parent(&socket)? else {
        return Err(Error::new("expected Go"));
    };
    // 2. Before the container is entered: processes of its user may neither trace this one nor open its files.
    sys::process::set_dumpable(false)?;
    if let Some(name) = &keyring {
        lsm::join_keyring(name, process, None)?;
    }
    // 3. Into the v1 cgroups while /sys/fs/cgroup is the host's (on v2 it was born there).
    if let Some(joiner) = &joiner {
        joiner
            .join_self()
            .within(|| "joining the container's cgroup".to_owned())?;
    }
    // Only there the cpuset is the container's.
    identity::set_exec_affinity(process)?;
    // The labels of the program, by the host's own procfs: nothing else is executed until then.
    if lsm::has_labels(process) {
        lsm::apply(process, &Proc::host()?)?;
    }
    // 4. All namespaces at once: the kernel orders them by what each needs. The pid namespace only takes children.
    if !namespaces.is_empty() {
        namespace::setns(init, namespaces)
            .within(|| "joining the container's namespaces".to_owned())?;
    }
    if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        identity::become_namespace_root(process.keep_groups)?;
    }
    if let Some(root) = other_root {
        shared_mounts::change_root(&root)?;
    }
    let root = Root::open(Path::new("/"))?;
    // 5. The terminal is one of the container's.
    let terminal = process.terminal && console.is_some();
    if terminal && let Some(console) = &console {
        console::open(&root, process, console)?;
    }
    drop(console);
    // 6. While it still has the capabilities: stdio for its user, priorities, the working directory.
    identity::own_stdio(process)?;
    let outlasts_birth = process.scheduler.is_none_or(|one| one.is_inherited());
    if outlasts_birth {
        identity::set_priorities(process)?;
    } else {
        identity::set_io_priority(process)?;
    }
    identity::set_execution(execution)?;
    identity::enter_cwd(&root, process)?;
    let home = identity::home_of(&root, process.uid);
    // 7. Who the program is.
    filter.assume()?;
    sys::process::umask(nix::sys::stat::Mode::from_bits_truncate(process.umask));
    if process.no_new_privileges {
        sys::process::set_no_new_privs()?;
    }
    // 8. As that user: may it be where it is, and is its program there? The host is out of reach by now.
    drop((root, joiner));
    let keeper = doorkeeper.map_or(reporter, AsRawFd::as_raw_fd);
    program::let_go(preserved, &[socket.as_raw_fd(), reporter, keeper])?;
    identity::confirm_cwd(process)?;
    let program = program::find(process)?;
    // 9. As the doorkeeper, if that will do, who does what is left to do with a few instructions.
    if let Some(file) = doorkeeper {
        identity::set_limits(process, &socket)?;
        let env = program::environment(process, || home, preserved, 0);
        let keeper = Keeper {
            file,
            gate: &socket,
            birth: Some(Birth { terminal }),
        };
        keeper.prepare(process, preserved, seccomp)?;
        return Err(keeper.take_over(&program, process, &env));
    }
    // 10. Only now into the pid namespace: nothing is left here that the container must not see.
    if namespaces.contains(CloneFlags::CLONE_NEWPID) {
        filter.load_before_birth(preserved)?;
        be_born(&socket, "making the process in the container")?;
    }
    // 11. What belongs to one process only. The limits last, since they could have kept it from being born.
    sys::process::setsid()?;
    if terminal {
        console::take_control()?;
    }
    if outlasts_birth {
        identity::set_limits(process, &socket)?;
    } else {
        identity::ask_for_limits(&socket)?;
    }
    let pid = nix::unistd::getpid().as_raw();
    let env = program::environment(process, || home, preserved, pid);
    // 12. The parent writes the pid file before the program can end.
    protocol::write_parent(&socket, &FromChild::Ready)?;
    protocol::hear_continue(&socket)?;
    let filter = (&mut filter, Some(&socket));
    let error = program::start(&program, process, &env, preserved, filter);
    Err(error)
}

/// Continues as a sibling: a child of the same parent, in the namespaces that children of this process get.
/// `doing` is for the error.
///
/// # Errors
/// `EAGAIN` at a limit of processes.
pub(super) fn be_born(socket: &OwnedFd, doing: &str) -> Result<()> {
    let args = CloneArgs {
        sibling: true,
        ..CloneArgs::default()
    };
    match clone3(&args).within(|| doing.to_owned())? {
        Forked::Child => Ok(()),
        Forked::Parent(born) => {
            // A parent that cannot be told has ended, and the new process sees that as well.
            drop(protocol::tell_parent(
                socket,
                &FromChild::Pid(born.pid.as_raw()),
            ));
            sys::process::exit_now(0)
        }
    }
}
