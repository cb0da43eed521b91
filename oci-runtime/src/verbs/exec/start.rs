//! The parent's side of `exec`: see [`exec_child`] for what the two sides tell each other.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use sys::cgroup::Cgroup;
use sys::namespace::{self, NamespaceKind};
use sys::path::Root;
use sys::process::{Child, CloneArgs, Forked, clone3};

use super::cgroup;
use crate::cli::Global;
use crate::error::{Error, Result, Within};
use crate::exe;
use crate::id::ContainerId;
use crate::init::exec_child::{self, Exec};
use crate::init::protocol::{self, FromChild, ToChild};
use crate::init::{Inherited, Preserved, spawn};
use crate::plan::ProcessPlan;
use crate::seccomp::{SeccompPlan, listener};
use crate::state::{self, State, Status};
use crate::verbs::create;
use crate::verbs::pidfd::Receivers;

/// What a start needs.
pub(super) struct Request<'a> {
    pub(super) global: &'a Global,
    pub(super) id: &'a ContainerId,
    pub(super) state: &'a State,
    pub(super) plan: &'a ProcessPlan,
    /// How it comes into the container.
    pub(super) entry: Entry,
    /// Where in the container's cgroup; empty for itself.
    pub(super) cgroup: Vec<(String, PathBuf)>,
    /// Where a descriptor of the process goes.
    pub(super) pidfd_receivers: Receivers,
    /// Where the id of the process goes.
    pub(super) pid_file: Option<PathBuf>,
    /// Descriptors of the caller that the program gets.
    pub(super) preserved: Preserved,
}

/// How a process comes into the container. Decided before anything is connected to: this program may have to start
/// again for it.
pub(super) struct Entry {
    namespaces: CloneFlags,
    seccomp: Option<SeccompPlan>,
    doorkeeper: Option<OwnedFd>,
}

impl Entry {
    /// # Errors
    /// The container's first process has ended, or its stored filter cannot be read.
    pub(super) fn new(
        global: &Global,
        id: &ContainerId,
        state: &State,
        plan: &ProcessPlan,
        preserved: Preserved,
    ) -> Result<Self> {
        let namespaces = to_enter(state)?;
        let seccomp = global.store.load_filter(id, state)?;
        // `LISTEN_PID` is the process's own id, which only itself knows.
        let enters = namespaces.contains(CloneFlags::CLONE_NEWPID) && preserved.listen == 0;
        let doorkeeper = exe::doorkeeper_for_exec(plan, seccomp.as_ref(), enters)?;
        Ok(Self {
            namespaces,
            seccomp,
            doorkeeper,
        })
    }
}

/// Starts the program and lets it go. Its terminal goes over `console`.
///
/// # Errors
/// Why it did not start; nothing of it is left.
pub(super) fn start(request: &Request<'_>, console: Option<OwnedFd>) -> Result<Child> {
    let Request { state, plan, .. } = *request;
    let init = state.open_init()?;
    let Entry {
        namespaces,
        seccomp,
        doorkeeper,
    } = &request.entry;
    let namespaces = *namespaces;
    let (socket, child_socket) = sys::fd::seqpacket_pair()?;
    let cgroup = cgroup::of(state, &request.cgroup)?;
    let exec = Exec {
        inherited: Inherited {
            process: plan,
            socket: child_socket,
            parent_end: socket.as_raw_fd(),
            joiner: Some(cgroup.joiner()?).filter(|joiner| !joiner.is_empty()),
            console,
            preserved: request.preserved,
            seccomp: seccomp.as_ref(),
            keyring: create::keyring(request.id, false),
        },
        init: &init,
        namespaces,
        execution: &state.exec_defaults.execution,
        doorkeeper: doorkeeper.as_ref(),
        root: root_of(state)?,
    };
    let (first, outside) = with_affinity(plan, || give_birth(exec, &cgroup, request))?;
    let mut birth = Birth {
        socket,
        // Without a pid namespace to enter the first process becomes the program itself.
        intermediate: namespaces.contains(CloneFlags::CLONE_NEWPID),
        by_doorkeeper: doorkeeper.is_some(),
        first: Some(first),
        process: None,
        outside,
    };
    match birth.finish(request) {
        Ok(child) => Ok(child),
        Err(error) => {
            birth.end();
            Err(error)
        }
    }
}

/// Makes a child that begins on the processors of `process.execCPUAffinity.initial`; this process stays where it is.
fn with_affinity<T>(plan: &ProcessPlan, birth: impl FnOnce() -> Result<T>) -> Result<T> {
    let within = || "process.execCPUAffinity.initial".to_owned();
    let initial = plan.affinity.as_ref().map(|affinity| &affinity.initial);
    let Some(initial) = initial.filter(|initial| !initial.is_empty()) else {
        return birth();
    };
    let own = sys::process::affinity().within(within)?;
    sys::process::set_affinity(Pid::from_raw(0), initial).within(within)?;
    let child = birth();
    sys::process::set_affinity(Pid::from_raw(0), &own).within(within)?;
    child
}

/// The first process: born in the container's cgroup where that is v2; and whether it still has to be moved there.
fn give_birth(exec: Exec<'_>, cgroup: &Cgroup, request: &Request<'_>) -> Result<(Child, bool)> {
    let within = || "joining the container's cgroup".to_owned();
    let mut exec = Some(exec);
    let mut born_in = |v2: Option<OwnedFd>| -> sys::Result<Child> {
        let args = CloneArgs {
            cgroup: v2.as_ref().map(AsFd::as_fd),
            ..CloneArgs::default()
        };
        match clone3(&args)? {
            Forked::Child => match exec.take() {
                Some(exec) => exec_child::run(exec),
                None => sys::process::exit_now(255),
            },
            Forked::Parent(child) => Ok(child),
        }
    };
    match born_in(cgroup.dir_fd_v2()?) {
        // A cgroup with children takes no processes: where the container's first process moved itself below, there.
        Err(error) if error.errno == Errno::EBUSY && request.cgroup.is_empty() => {
            let born = born_in(Some(cgroup::of_init_v2(request.state)?));
            Ok((born.within(within)?, false))
        }
        // From a login session a user may not move processes to the user's own systemd; that one may.
        Err(error) if error.errno == Errno::EACCES && request.state.systemd.is_some() => {
            Ok((born_in(None).within(within)?, true))
        }
        other => Ok((other.within(within)?, false)),
    }
}

/// How long a process whose end of the socket is closed may take to end, in milliseconds.
const END_MS: i32 = 10_000;

/// A process on its way into the container.
struct Birth {
    socket: OwnedFd,
    /// Whether the first process only makes the one that becomes the program.
    intermediate: bool,
    /// Whether it does so as the doorkeeper.
    by_doorkeeper: bool,
    first: Option<Child>,
    process: Option<Child>,
    /// Whether systemd has to move it into the container's cgroup.
    outside: bool,
}

impl Birth {
    fn finish(&mut self, request: &Request<'_>) -> Result<Child> {
        let Request { global, plan, .. } = *request;
        if let Some(first) = &self.first {
            if let Some(unit) = request.state.systemd.as_ref().filter(|_| self.outside) {
                let named = request.cgroup.first().map(|(_, below)| below.as_path());
                crate::systemd::attach(unit, named, first.pid)?;
            }
            spawn::set_oom_score(first.pid, plan)
                .or_else(|error| if global.rootless { Ok(()) } else { Err(error) })?;
            crate::rdt::join(request.state.rdt.as_ref(), first.pid.as_raw())?;
            // A child that is gone already has left the reason behind.
            let told = protocol::tell_child(&self.socket, &ToChild::Go(first.pid.as_raw()));
            if !self.intermediate {
                self.process = self.first.take();
            }
            self.wait_until_ready(plan)?;
            told?;
        }
        let Some(process) = self.process.take() else {
            return Err(Error::new("the new process ended without a word"));
        };
        let started = self.let_go(&process, request);
        self.process = Some(process);
        started?;
        self.reap_first();
        self.process
            .take()
            .ok_or_else(|| Error::new("the new process is gone"))
    }

    /// Answers the two until the one that becomes the program is known and ready.
    fn wait_until_ready(&mut self, plan: &ProcessPlan) -> Result<()> {
        let (mut ready, mut wants_limits) = (false, false);
        // With a doorkeeper everything is ready once it is born: what it says after that is not waited for.
        while !((ready || self.by_doorkeeper) && self.process.is_some()) {
            match protocol::hear_child(&self.socket)? {
                Some(FromChild::Ready) => ready = true,
                Some(FromChild::SetLimits) => wants_limits = true,
                Some(FromChild::Pid(pid)) if self.process.is_none() => {
                    let pid = Pid::from_raw(pid);
                    // Ours to reap, so the number means no other process.
                    self.process = Some(Child {
                        pid,
                        pidfd: sys::process::pidfd_open(pid)?,
                    });
                }
                Some(FromChild::Failed(error)) => return Err(error),
                _ => return Err(Error::new("the new process ended without a word")),
            }
            // The new process may be heard before its maker is; a doorkeeper's maker asks for both.
            let limited = if self.by_doorkeeper {
                &self.first
            } else {
                &self.process
            };
            if let Some(process) = limited.as_ref().filter(|_| wants_limits) {
                spawn::set_rlimits(process.pid, plan)?;
                spawn::set_scheduler(process.pid, plan)?;
                protocol::tell_child(&self.socket, &ToChild::Continue)?;
                wants_limits = false;
            }
        }
        Ok(())
    }

    /// Everything that must be done before the program can end, then the program.
    fn let_go(&self, process: &Child, request: &Request<'_>) -> Result<()> {
        request.pidfd_receivers.send(&process.pidfd, "setns")?;
        let state = request.state;
        if let Some(path) = &request.pid_file {
            state::write_atomically(path, process.pid.to_string().as_bytes())
                .within(|| "--pid-file".to_owned())?;
        }
        if let Err(error) = protocol::tell_child(&self.socket, &ToChild::Continue) {
            // Killed by somebody who knows it from the file: it ends as any process does that is killed.
            let ended = sys::fd::wait_readable(&[process.pidfd.as_fd()], END_MS)?;
            if ended != [true] {
                return Err(error);
            }
        }
        let mut heard = protocol::hear_child(&self.socket)?;
        if self.by_doorkeeper && matches!(heard, Some(FromChild::Ready)) {
            heard = protocol::hear_child(&self.socket)?;
        }
        if let Some(FromChild::Listening(fd)) = heard {
            let listener = state.seccomp.as_ref().and_then(|one| one.listener.as_ref());
            let listener = listener.ok_or_else(|| Error::new("unexpected listener"))?;
            let fd = sys::process::pidfd_getfd(&process.pidfd, fd)?;
            protocol::tell_child(&self.socket, &ToChild::Continue)?;
            listener::send(listener, state, Status::Running, process.pid.as_raw(), &fd)?;
            heard = protocol::hear_child(&self.socket)?;
        }
        // The end of the socket is the success of execve; anything else is why it failed.
        match heard {
            Some(FromChild::Failed(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn reap_first(&mut self) {
        if let Some(first) = self.first.take() {
            // It has nothing left to do but to end, and how it does means nothing.
            drop(sys::process::wait(&first.pidfd));
        }
    }

    /// Ends what there is of it. A process that this one has not heard of yet ends by itself: it waits for a word that
    /// cannot come any more.
    fn end(mut self) {
        for child in self.first.iter().chain(&self.process) {
            // It may have ended by itself; all that matters is that it is reaped.
            drop(sys::process::pidfd_send_signal(
                &child.pidfd,
                nix::libc::SIGKILL,
            ));
        }
        self.reap_first();
        if let Some(process) = self.process.take() {
            drop(sys::process::wait(&process.pidfd));
        }
    }
}

/// The container's root, which joining a mount namespace that it shares with others does not lead to.
fn root_of(state: &State) -> Result<Option<OwnedFd>> {
    if !state.shares_mounts {
        return Ok(None);
    }
    // Its first process is open, so the number means no other one while the caller finds it alive.
    let root = Root::open(Path::new(&format!("/proc/{}/root", state.init())))?;
    drop(state.open_init()?);
    Ok(Some(root.into()))
}

/// The namespaces of the container that are not ours already: entering one's own user namespace is an error.
fn to_enter(state: &State) -> Result<CloneFlags> {
    let recorded = CloneFlags::from_bits_retain(state.namespaces);
    let mut flags = CloneFlags::empty();
    for kind in NamespaceKind::ALL
        .into_iter()
        .filter(|kind| recorded.contains(kind.flag()))
    {
        let same = kind == NamespaceKind::User && {
            let own = namespace::identity(namespace::of_process(nix::unistd::Pid::this(), kind)?)?;
            own == namespace::identity(namespace::of_process(state.init(), kind)?)?
        };
        if !same {
            flags |= kind.flag();
        }
    }
    Ok(flags)
}
