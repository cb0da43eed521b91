//! `exec`: another process in a running container.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use sys::cgroup::{Cgroup, Hierarchies};
use sys::namespace::{self, NamespaceKind};
use sys::process::{Child, CloneArgs, Forked, clone3};

use super::create::{self, absolute};
use super::foreground::{self, Relay};
use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::id::ContainerId;
use crate::init::exec_child::{self, Exec};
use crate::init::protocol::{self, FromChild, ToChild};
use crate::init::{Inherited, console, spawn};
use crate::plan::{Problems, ProcessPlan};
use crate::spec::{Capabilities, Process, Spec};
use crate::state::{self, State, Status};

/// `exec ID [COMMAND…]`
///
/// # Errors
/// The container does not run, or the program cannot be started.
pub fn run(global: &Global, id: &ContainerId, parsed: &Parsed) -> Result<u8> {
    for flag in ["pidfd-socket", "process-label", "apparmor", "cgroup"] {
        if parsed.get(flag).is_some_and(|value| !value.is_empty()) {
            return Err(Error::new(format!("--{flag}: not supported yet")));
        }
    }
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
    let plan = plan(global, &state, parsed)?;
    let detach = parsed.is_on("detach");
    let console_socket = parsed.get("console-socket").map(Path::new);
    check_terminal(&plan, detach, console_socket.is_some())?;
    if detach {
        let console = console_socket.map(console::connect).transpose()?;
        start(global, id, &state, &plan, parsed, console)?;
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
    let child = start(global, id, &state, &plan, parsed, theirs)?;
    let relay = ours.as_ref().map(Relay::receive).transpose()?;
    foreground::wait(&child, &signals, relay.as_ref())
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

/// What to run: the file of `--process`, or the container's own process with the flags' changes.
fn plan(global: &Global, state: &State, parsed: &Parsed) -> Result<ProcessPlan> {
    let process = match parsed.get("process") {
        Some(path) => read_process(Path::new(path))?,
        None => from_config(state, parsed)?,
    };
    let mut problems = Problems::default();
    let mut warnings = Vec::new();
    let plan = ProcessPlan::new(&process, &mut problems, &mut warnings);
    for warning in warnings {
        global.warn(&warning);
    }
    problems
        .into_result(plan)
        .map_err(|problems| Error::new(problems.to_string()))
}

fn read_process(path: &Path) -> Result<Process> {
    let text = std::fs::read(path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))
        .within(|| "--process".to_owned())?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(format!("--process {}: {error}", path.display())))
}

fn from_config(state: &State, parsed: &Parsed) -> Result<Process> {
    let path = state.bundle.join("config.json");
    let text = std::fs::read(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))?;
    let spec: Spec = serde_json::from_slice(&text)
        .map_err(|error| Error::new(format!("config.json: {error}")))?;
    let mut process = spec
        .process
        .ok_or_else(|| Error::new("config.json: process property must not be empty"))?;
    process.args = parsed.operands.get(1..).unwrap_or_default().to_vec();
    if process.args.is_empty() {
        return Err(
            Error::new("process args cannot be empty").hint("give a COMMAND, or --process FILE")
        );
    }
    process.terminal = parsed.is_on("tty");
    process.console_size = None;
    if let Some(cwd) = parsed.get("cwd").filter(|cwd| !cwd.is_empty()) {
        process.cwd = cwd.to_owned();
    }
    process.env.extend(parsed.all("env").map(str::to_owned));
    if parsed.get("no-new-privs").is_some() {
        process.no_new_privileges = parsed.is_on("no-new-privs");
    }
    if let Some(user) = parsed.get("user") {
        (process.user.uid, process.user.gid) = parse_user(user, process.user.gid)?;
    }
    for gid in parsed.all("additional-gids") {
        process.user.additional_gids.push(
            parse_id(gid)
                .ok_or_else(|| Error::new(format!("--additional-gids: {gid:?} is no group id")))?,
        );
    }
    add_capabilities(&mut process, parsed);
    Ok(process)
}

/// `--cap` adds to every set but the inheritable one, which stays empty (CVE-2022-29162); ambient only what is
/// inheritable already.
fn add_capabilities(process: &mut Process, parsed: &Parsed) {
    let added: Vec<String> = parsed.all("cap").map(str::to_owned).collect();
    if added.is_empty() {
        return;
    }
    let sets = process
        .capabilities
        .get_or_insert_with(Capabilities::default);
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(added.iter().cloned());
    }
    let inheritable = added
        .into_iter()
        .filter(|cap| sets.inheritable.contains(cap));
    sets.ambient.extend(inheritable.collect::<Vec<_>>());
}

/// `UID[:GID]`, numbers only: names would be looked up in files that the container controls.
fn parse_user(text: &str, default_gid: u32) -> Result<(u32, u32)> {
    let invalid = || {
        Error::new(format!(
            "--user: {text:?} is not UID or UID:GID, in numbers"
        ))
    };
    match text.split_once(':') {
        None => Ok((parse_id(text).ok_or_else(invalid)?, default_gid)),
        Some((uid, gid)) => Ok((
            parse_id(uid).ok_or_else(invalid)?,
            parse_id(gid).ok_or_else(invalid)?,
        )),
    }
}

/// An id in decimal digits alone, and not the one that means "unchanged".
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// Starts the process and lets it go.
fn start(
    global: &Global,
    id: &ContainerId,
    state: &State,
    plan: &ProcessPlan,
    parsed: &Parsed,
    console: Option<OwnedFd>,
) -> Result<Child> {
    let pid_file: Option<PathBuf> = parsed.get("pid-file").map(absolute).transpose()?;
    let preserved = create::preserved(parsed)?;
    let init = state.open_init()?;
    let namespaces = to_enter(state)?;
    let (socket, child_socket) = sys::fd::seqpacket_pair()?;
    let cgroup = cgroup_of(state)?;
    let inherited = Inherited {
        process: plan,
        socket: child_socket,
        parent_end: socket.as_raw_fd(),
        joiner: Some(cgroup.joiner()?).filter(|joiner| !joiner.is_empty()),
        console,
        preserved,
        keyring: create::keyring(id, false),
    };
    let child = give_birth(
        Exec {
            inherited,
            init: &init,
            namespaces,
        },
        &cgroup,
    )?;
    let finish = || -> Result<()> {
        spawn::set_oom_score(child.pid, plan)
            .or_else(|error| if global.rootless { Ok(()) } else { Err(error) })?;
        // A child that is gone already has left the reason behind.
        let told = protocol::tell_child(&socket, &ToChild::Go(child.pid.as_raw()));
        loop {
            match protocol::hear_child(&socket)? {
                Some(FromChild::Ready) => break,
                Some(FromChild::SetLimits) => {
                    spawn::set_rlimits(child.pid, plan)?;
                    protocol::tell_child(&socket, &ToChild::Continue)?;
                }
                Some(FromChild::Failed(error)) => return Err(error),
                _ => return Err(Error::new("the new process ended without a word")),
            }
        }
        told?;
        if let Some(path) = &pid_file {
            state::write_atomically(path, child.pid.to_string().as_bytes())
                .within(|| "--pid-file".to_owned())?;
        }
        protocol::tell_child(&socket, &ToChild::Continue)?;
        // The end of the socket is the success of execve; anything else is why it failed.
        match protocol::hear_child(&socket)? {
            Some(FromChild::Failed(error)) => Err(error),
            _ => Ok(()),
        }
    };
    match finish() {
        Ok(()) => Ok(child),
        Err(error) => {
            // It may have ended by itself; all that matters is that it is reaped.
            drop(sys::process::pidfd_send_signal(
                &child.pidfd,
                nix::libc::SIGKILL,
            ));
            drop(sys::process::wait(&child.pidfd));
            Err(error)
        }
    }
}

fn give_birth(exec: Exec<'_>, cgroup: &Cgroup) -> Result<Child> {
    // Entering a pid namespace concerns children only, so the parent does it; it makes no other child.
    let pid_namespace = exec.namespaces.contains(CloneFlags::CLONE_NEWPID);
    if pid_namespace {
        namespace::setns(exec.init, CloneFlags::CLONE_NEWPID)?;
    }
    let v2 = cgroup.dir_fd_v2()?;
    let args = CloneArgs {
        cgroup: v2.as_ref().map(AsFd::as_fd),
        ..CloneArgs::default()
    };
    let exec = Exec {
        namespaces: exec.namespaces - CloneFlags::CLONE_NEWPID,
        ..exec
    };
    match clone3(&args).within(|| "joining the container's cgroup".to_owned())? {
        Forked::Child => exec_child::run(exec),
        Forked::Parent(child) => Ok(child),
    }
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

/// The cgroup of the container; where its first process moved itself below it (v2), the one that it is in, since a
/// cgroup with children takes no processes.
fn cgroup_of(state: &State) -> Result<Cgroup> {
    let hierarchies = Hierarchies::detect()?;
    if let Some(dir) = state.cgroup_paths.get("") {
        let delegated = std::fs::read_to_string(dir.join("cgroup.subtree_control"))
            .is_ok_and(|text| !text.trim().is_empty());
        if delegated {
            return Ok(Cgroup::of_process(&hierarchies, state.pid)?);
        }
    }
    Ok(Cgroup::from_paths(&hierarchies, &state.cgroup_paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_nothing_else() {
        assert_eq!(parse_user("1", 5).unwrap(), (1, 5));
        assert_eq!(parse_user("1000:100", 5).unwrap(), (1000, 100));
        for bad in [
            "",
            "root",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "1x",
            " 1",
            "4294967295",
            "4294967296",
            "1:2:3",
        ] {
            assert!(parse_user(bad, 0).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_user_that_is_accepted_is_the_number_that_was_written(uid: u32, gid: u32) {
            proptest::prop_assume!(uid != u32::MAX && gid != u32::MAX);
            proptest::prop_assert_eq!(parse_user(&format!("{uid}:{gid}"), 7).unwrap(), (uid, gid));
            proptest::prop_assert_eq!(parse_user(&uid.to_string(), 7).unwrap(), (uid, 7));
        }

        #[test]
        fn no_text_is_taken_for_root_by_mistake(text in ".{0,12}") {
            if let Ok((0, _)) = parse_user(&text, 7) {
                proptest::prop_assert!(text.split(':').next().is_some_and(|uid| uid.bytes().all(|byte| byte == b'0')));
            }
        }
    }
}
