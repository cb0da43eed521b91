//! `mounts add` and `mounts remove`, as crun has them: mounts of a running container that come and go.
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use nix::unistd::Pid;
use sys::namespace::{self, NamespaceKind};
use sys::process::{CloneArgs, Forked, clone3};

use crate::cli::Global;
use crate::cli::flags::Parsed;
use crate::error::{Error, Result, Within};
use crate::id::ContainerId;
use crate::init::idmaps;
use crate::init::late_mounts::{self, Change};
use crate::init::protocol::{self, FromChild};
use crate::plan::{IdMapPlan, MountPlan, MountSource, NamespacePlan, Problems};
use crate::spec::{self, IdMapping};
use crate::state::{State, Status};

/// The longest file with mounts.
const MAX_FILE: u64 = 4 << 20;

/// `mounts add|remove ID FILE`
///
/// # Errors
/// The container does not run, or a mount is refused; then none of the file is added.
pub fn run(global: &Global, parsed: &Parsed) -> Result<u8> {
    let [action, id, file] = parsed.operands.as_slice() else {
        return Err(Error::new("wants add|remove, ID and FILE"));
    };
    let remove = match action.as_str() {
        "add" => false,
        "remove" => true,
        other => return Err(Error::new(format!("{other:?} is neither add nor remove"))),
    };
    let id = ContainerId::new(id)?;
    let state = global.store.load(&id)?;
    if !matches!(
        global.store.status(&id, &state)?,
        Status::Created | Status::Running | Status::Paused
    ) {
        return Err(Error::new("container not running"));
    }
    if state.shares_mounts {
        return Err(Error::new(
            "the container has no mount namespace of its own: its mounts cannot be changed",
        ));
    }
    // The first process can be no other one while this is open.
    let init = state.open_init()?;
    let mounts = plan(global, &state, &read(file)?)?;
    let change = Change {
        idmaps: if remove {
            Vec::new()
        } else {
            id_maps(&mounts)?
        },
        mounts: &mounts,
        remove,
        users: users(&state)?,
        namespaces: others(&state)?,
    };
    drop(init);
    apply(&state, &change)?;
    Ok(0)
}

fn read(file: &str) -> Result<Vec<spec::Mount>> {
    use std::io::Read;
    let fail = |error: &std::io::Error| sys::Error::from_io(error, format!("read({file:?})"));
    let mut text = Vec::new();
    let source: Box<dyn Read> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| fail(&error))?)
    };
    source
        .take(MAX_FILE)
        .read_to_end(&mut text)
        .map_err(|error| fail(&error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(format!("{file}: {error}"))
            .hint("the file holds an array of mounts, as \"mounts\" of config.json does")
    })
}

/// Decides on each mount as `create` does.
fn plan(global: &Global, state: &State, mounts: &[spec::Mount]) -> Result<Vec<MountPlan>> {
    let users = user_plan(state)?;
    let (mut problems, mut warnings) = (Problems::default(), Vec::new());
    let mut planned = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        planned.extend(MountPlan::new(
            index,
            mount,
            &state.bundle,
            &users,
            &mut problems,
            &mut warnings,
        ));
    }
    for one in &planned {
        let field = format!("mounts[{}]", one.index);
        let root = one.destination == std::path::Path::new("/");
        problems.require(
            !root,
            &field,
            "the root of a running container cannot be covered",
        );
        let links = one.options.copy_symlink;
        problems.require(!links, &field, "copy-symlink is only for new containers");
        let cgroup = one.source == MountSource::Cgroup;
        problems.require(!cgroup, &field, "cgroups cannot be mounted later");
    }
    for warning in warnings {
        global.warn(&warning);
    }
    problems
        .into_result(planned)
        .map_err(|problems| Error::new(problems.to_string()))
}

fn has(state: &State, kind: NamespaceKind) -> bool {
    CloneFlags::from_bits_retain(state.namespaces).contains(kind.flag())
}

/// The users of the container, for id-mapped mounts.
fn user_plan(state: &State) -> Result<NamespacePlan> {
    let mut plan = NamespacePlan {
        new: CloneFlags::empty(),
        join: Vec::new(),
        uid_map: Vec::new(),
        gid_map: Vec::new(),
    };
    if has(state, NamespaceKind::User) {
        let path = format!("/proc/{}/ns/user", state.pid);
        plan.join.push((NamespaceKind::User, path.into()));
        plan.uid_map = read_map(state.pid, "uid_map")?;
        plan.gid_map = read_map(state.pid, "gid_map")?;
    }
    Ok(plan)
}

fn read_map(pid: i32, file: &str) -> Result<Vec<IdMapping>> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| sys::Error::from_io(&error, format!("read({path:?})")))?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(container_id)), Some(Ok(host_id)), Some(Ok(size))) => Some(IdMapping {
                container_id,
                host_id,
                size,
            }),
            _ => None,
        }
    };
    Ok(text.lines().filter_map(line).collect())
}

fn id_maps(mounts: &[MountPlan]) -> Result<Vec<(usize, OwnedFd)>> {
    let mut made = Vec::new();
    for one in mounts {
        let users = match &one.idmap {
            None => continue,
            Some(IdMapPlan::Maps { uids, gids }) => idmaps::user_namespace(uids, gids)
                .within(|| format!("mounts[{}].uidMappings", one.index))?,
            Some(IdMapPlan::Namespace(path)) => namespace::open(path, NamespaceKind::User)?,
        };
        made.push((one.index, users));
    }
    Ok(made)
}

fn users(state: &State) -> Result<Option<OwnedFd>> {
    if !has(state, NamespaceKind::User) {
        return Ok(None);
    }
    Ok(Some(namespace::of_process(
        state.init(),
        NamespaceKind::User,
    )?))
}

/// What new filesystems show depends on these; the mount namespace last, since it takes the host's tree away.
fn others(state: &State) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let kinds = [
        NamespaceKind::Ipc,
        NamespaceKind::Net,
        NamespaceKind::Cgroup,
        NamespaceKind::Mnt,
    ];
    kinds
        .into_iter()
        .filter(|kind| has(state, *kind))
        .map(|kind| Ok((kind, namespace::of_process(state.init(), kind)?)))
        .collect()
}

/// In a process of its own, which does not come back out of the namespaces.
fn apply(state: &State, change: &Change<'_>) -> Result<()> {
    if has(state, NamespaceKind::Pid) {
        // Only for the process below: a new procfs shows the processes of its maker's namespace.
        let processes = namespace::of_process(state.init(), NamespaceKind::Pid)?;
        match namespace::setns(processes, NamespaceKind::Pid.flag()) {
            // The namespace belongs to the container's users, whom this process has not become yet.
            Err(error) if error.errno == nix::errno::Errno::EPERM => {}
            other => other?,
        }
    }
    let (ours, theirs) = sys::fd::seqpacket_pair()?;
    match clone3(&CloneArgs::default())? {
        Forked::Child => {
            drop(ours);
            let answer = match late_mounts::run(change) {
                Ok(()) => FromChild::Ready,
                Err(error) => FromChild::Failed(error),
            };
            let told = protocol::tell_parent(&theirs, &answer);
            sys::process::exit_now(i32::from(told.is_err()))
        }
        Forked::Parent(helper) => {
            drop(theirs);
            let heard = protocol::hear_child(&ours)?;
            sys::process::wait(&helper.pidfd)?;
            match heard {
                Some(FromChild::Ready) => Ok(()),
                Some(FromChild::Failed(error)) => Err(error),
                _ => Err(Error::new(format!(
                    "the process in the namespaces of {} ended without a word",
                    Pid::from_raw(state.pid)
                ))),
            }
        }
    }
}
