//! The container's first process, from its birth to its program. One call per step; the comment says why it
//! stands where it does.
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use sys::cgroup::{Cgroup, Hierarchies};
use sys::namespace::{self, NamespaceKind};
use sys::path::Proc;

use super::bare_namespace::Bare;
use super::cgroup_mount::View;
use super::filter::Filter;
use super::furnished::{self, Furnished};
use super::program::Keeper;
use super::protocol::{self, FromChild, ToChild};
use super::shared_mounts::Shared;
use super::{
    Inherited, clocks, console, devices, identity, late_birth, lsm, mounts, program, rootfs,
};
use crate::error::{Error, Result, Within};
use crate::hooks;
use crate::plan::Plan;
use crate::state::{State, Status};

/// What the first process gets besides what every process gets.
#[derive(Debug)]
pub struct Init<'a> {
    /// The container.
    pub plan: &'a Plan,
    /// What every process gets.
    pub inherited: Inherited<'a>,
    /// Namespaces to join, already opened and checked.
    pub join: Vec<(NamespaceKind, OwnedFd)>,
    /// The state that hooks read, but for the id of this process.
    pub state: State,
    /// The cgroup filesystems of the host.
    pub hierarchies: &'a Hierarchies,
    /// The container's cgroup.
    pub cgroup: &'a Cgroup,
    /// The gate, open for reading and writing, so that neither side waits for the other to open it.
    pub gate: OwnedFd,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// What its mount namespace is made from, if that is not a copy of the host's that it was born in.
    pub bare: Option<Bare>,
    /// What to wait for `start` as, if not as this program.
    pub doorkeeper: Option<&'a OwnedFd>,
}

/// Becomes the container's program, or tells the parent why not and ends.
pub fn run(init: Init<'_>) -> ! {
    let socket = init.inherited.socket.try_clone();
    let reporter = socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let error = match steps(init, reporter) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    report(socket.ok(), error);
    sys::process::exit_now(1)
}

/// Tells the parent; after it has let go, whoever reads the container's stderr.
pub(super) fn report(socket: Option<OwnedFd>, error: Error) {
    let text = format!("davit-oci: {}\n", error.message);
    let error_is_ours = error.message != protocol::RUNTIME_ENDED;
    let told = socket
        .is_some_and(|socket| protocol::tell_parent(socket, &FromChild::Failed(error)).is_ok());
    if !told && error_is_ours {
        // With stderr closed as well, nobody is left to tell.
        drop(sys::fd::write_all(std::io::stderr(), text.as_bytes()));
    }
}

fn steps(init: Init<'_>, reporter: RawFd) -> Result<std::convert::Infallible> {
    let Init {
        plan,
        inherited,
        mut join,
        mut state,
        hierarchies,
        cgroup,
        gate,
        no_pivot,
        bare,
        doorkeeper,
    } = init;
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
    let in_user_namespace = plan.namespaces.has(NamespaceKind::User);

    // 1. Nothing before the parent has written the id maps: until then this process is nobody.
    let ToChild::Go(_) = protocol::hear_parent(&socket)? else {
        return Err(Error::new("expected Go"));
    };
    // Hooks in the container's namespaces read the id that this process has there.
    state.pid = nix::unistd::getpid().as_raw();
    // 2. Before anything of the container is entered: its processes may neither trace this one nor open its files.
    sys::process::set_dumpable(false)?;
    // 3. A session of its own, for a terminal of its own; and no key of the caller's session.
    sys::process::setsid()?;
    if let Some(name) = &keyring {
        // Programs may look for keys in it, whoever of the container made them.
        let permission = if in_user_namespace {
            sys::process::OTHER_SEARCH
        } else {
            sys::process::OWNER_SEARCH
        };
        lsm::join_keyring(name, process, Some(permission))?;
    }
    // 4. Into the v1 cgroups while /sys/fs/cgroup is the host's (on v2 it was born there).
    if let Some(joiner) = &joiner {
        joiner
            .join_self()
            .within(|| "linux.cgroupsPath".to_owned())?;
    }
    // Only there the cpuset is the container's: the processors that the caller was bound to concern nobody any more.
    // An outer filter may forbid it; then the program has fewer.
    drop(sys::process::reset_affinity());
    // 5. Existing namespaces; the user namespace was entered before this process was made. Of a mount namespace that is
    //    shared a copy, in which the root can be made.
    let shared = Shared::visit(plan, &mut join)?;
    for (kind, fd) in &join {
        namespace::setns(fd, kind.flag()).within(|| format!("joining the {kind} namespace"))?;
    }
    // Of the pid namespace only children are members: see step 19.
    let joins_pid = join.iter().find(|(kind, _)| *kind == NamespaceKind::Pid);
    let adapted = joins_pid.map(|(_, fd)| late_birth::adapt(plan, fd));
    let born_late = adapted.is_some();
    let plan = adapted.as_ref().unwrap_or(plan);
    // 6. Root of the user namespace: what is made from here on belongs to the container's root.
    if in_user_namespace {
        identity::become_namespace_root(process.keep_groups)?;
    }
    if !plan.time_offsets.is_empty() {
        clocks::enter_new(&socket)?;
    }
    // 7. A new cgroup namespace has the cgroup that its maker is in as its root: so after step 4.
    if plan.namespaces.is_new(NamespaceKind::Cgroup) {
        namespace::unshare(NamespaceKind::Cgroup.flag())?;
    }
    //    One below that is the container's own to manage is no root: so after it.
    if plan.cgroup.delegates() {
        protocol::tell_parent(&socket, &FromChild::Delegate)?;
        protocol::hear_continue(&socket)?;
    }
    // Programs that talk to themselves over `localhost` expect no network set-up of anybody.
    if plan.namespaces.is_new(NamespaceKind::Net) {
        sys::link::set_up("lo").within(|| "linux.namespaces[network]".to_owned())?;
    }
    // 8. Files are made with exactly the modes asked for.
    sys::process::umask(nix::sys::stat::Mode::empty());
    //    A procfs that no mount of the container can redirect, for steps 15 and 18.
    let proc = if plan.sysctl.is_empty() && !lsm::has_labels(process) {
        None
    } else {
        Some(Proc::open()?)
    };
    // 9. The root and everything mounted in it, while the sources on the host can still be reached.
    let maker = mounts::Maker {
        plan,
        view: View {
            hierarchies,
            cgroup,
        },
        parent: socket.as_fd(),
        detached: bare.is_some(),
    };
    let Furnished {
        mut root,
        mounted,
        host_dev,
    } = furnished::make(maker, bare.as_ref())?;
    // 10. The runtime's hooks see the namespaces and mounts, not yet the new root.
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        protocol::tell_parent(&socket, &FromChild::RunHooks)?;
        protocol::hear_continue(&socket)?;
    }
    // 11. The same from inside the container's namespaces, still with the host's paths; so is where hooks write to.
    let output = hooks::Output::open(
        &[&plan.hooks.create_container, &plan.hooks.start_container],
        &plan.annotations,
    )?;
    if !plan.hooks.create_container.is_empty() {
        let input = state.hook_input(Status::Creating);
        hooks::run(
            "createContainer",
            &plan.hooks.create_container,
            &input,
            &output,
        )?;
    }
    // 12. A terminal of the container's devpts; after the hooks, which have the caller's stdio.
    if process.terminal
        && let Some(console) = &console
    {
        let pty = console::open(&root, process, console)?;
        if !born_late {
            console::take_control()?;
        }
        console::bind_dev_console(&devices::open_dev(&root, &mounted)?, &pty)?;
    }
    drop(console);
    // 13. The working directory is made while the root can be written. Masks use the host's /dev/null, so before the host's tree is gone; after every other mount, so that none
    //     can uncover them.
    identity::make_cwd(&root, process)?;
    rootfs::make_readonly(&root, plan)?;
    rootfs::mask(&root, plan, host_dev)?;
    mounts::finish(&mounted)?;
    if let Some(shared) = &shared {
        root = shared.enter(&root)?;
    } else if no_pivot {
        rootfs::move_over_root(&root, &plan.rootfs)?;
    } else {
        rootfs::pivot(&root)?;
    }
    // 14. What can only be said of the root.
    rootfs::finish(&root, plan)?;
    // 15. Names and kernel parameters of the new namespaces.
    if !plan.hostname.is_empty() {
        sys::process::set_hostname(&plan.hostname).within(|| "hostname".to_owned())?;
    }
    if !plan.domainname.is_empty() {
        sys::process::set_domainname(&plan.domainname).within(|| "domainname".to_owned())?;
    }
    for one in &plan.sysctl {
        let proc = proc.as_ref().ok_or_else(|| Error::new("no procfs"))?;
        proc.write(&one.path, one.value.as_bytes())
            .map_err(|error| {
                let missing = error.errno == nix::errno::Errno::ENOENT;
                let error = Error::from(error);
                if missing {
                    error.hint("this kernel has no such parameter, or its module is not loaded")
                } else {
                    error
                }
            })
            .within(|| format!("linux.sysctl[{:?}]", one.name))?;
    }
    // 16. While it still has the capabilities: stdio for its user, priorities, the working directory.
    if plan.fill_dev {
        identity::reopen_null(&root)?;
    }
    identity::own_stdio(process)?;
    identity::set_priorities(process)?;
    identity::set_execution(&plan.execution)?;
    identity::enter_cwd(&root, process)?;
    let home = identity::home_of(&root, process.uid);
    // 17. Limits before the ids: another user's process may not be limited without CAP_SYS_RESOURCE.
    identity::set_limits(process, &socket)?;
    // 18. Who the program is.
    if let Some(proc) = &proc {
        lsm::apply(process, proc)?;
    }
    filter.assume()?;
    sys::process::umask(nix::sys::stat::Mode::from_bits_truncate(process.umask));
    if process.no_new_privileges {
        sys::process::set_no_new_privs()?;
    }
    // 19. As that user: may it be where it is, and is its program there? The host is out of reach by now.
    drop((root, mounted, proc, joiner, join, shared, bare));
    let keeper = doorkeeper.map_or(reporter, AsRawFd::as_raw_fd);
    let [out, err] = output.raw();
    program::let_go(
        preserved,
        &[
            socket.as_raw_fd(),
            gate.as_raw_fd(),
            reporter,
            keeper,
            out,
            err,
        ],
    )?;
    identity::confirm_cwd(process)?;
    let program = program::find(process)?;
    if born_late {
        filter.load_before_birth(preserved)?;
        late_birth::be_born(&socket, &mut state, process.terminal)?;
    }
    let pid = nix::unistd::getpid().as_raw();
    let env = program::environment(process, || home, preserved, pid);
    // 20. The filter, if it cannot wait: from here on only plain reading and writing.
    let keeper = doorkeeper.map(|file| Keeper {
        file,
        gate: &gate,
        birth: None,
    });
    if filter.is_early() && !filter.is_loaded() {
        match &keeper {
            Some(keeper) => keeper.prepare(process, preserved, None)?,
            None => program::seal(preserved)?,
        }
        filter.load(Some(&socket))?;
    }
    // 21. `create` returns; this process waits for `start`.
    protocol::write_parent(&socket, &FromChild::Ready)?;
    if let Some(keeper) = keeper {
        if !filter.is_loaded() {
            keeper.prepare(process, preserved, seccomp)?;
        }
        return Err(keeper.take_over(&program, process, &env));
    }
    drop(socket);
    // It stays open until the program runs, which `start` sees (poststart hooks come after that).
    wait_at_gate(&gate)?;
    // 22. Inside the container, as the container's user and filtered like it, right before its program.
    if !plan.hooks.start_container.is_empty() {
        filter.load_early(preserved, None)?;
        let input = state.hook_input(Status::Created);
        let hooks = hooks::with_env(&plan.hooks.start_container, &process.env);
        hooks::run("startContainer", &hooks, &input, &output)?;
    }
    Err(program::start(
        &program,
        process,
        &env,
        preserved,
        (&mut filter, None),
    ))
}

fn wait_at_gate(gate: &OwnedFd) -> Result<()> {
    let mut byte = [0_u8];
    // The gate is also open for writing here, so there is no end of file: only `start` wakes this process.
    sys::fd::read(gate, &mut byte)?;
    Ok(())
}
