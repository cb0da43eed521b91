//! The parent's side of a birth: one `clone3`, then what only the parent may do to the child.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use sys::namespace::{self, NamespaceKind};
use sys::process::{Child, CloneArgs, Forked, clone3};

use super::protocol::{self, FromChild};
use crate::error::{Error, Result, Within};
use crate::plan::{NamespacePlan, ProcessPlan, SysctlPlan};

/// Opens the namespaces that are joined by path and checks their kinds, before anything is made.
///
/// # Errors
/// A path that is missing or is a namespace of another kind.
pub fn open_namespaces(plan: &NamespacePlan) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let open = |(kind, path): &(NamespaceKind, std::path::PathBuf)| {
        let fd =
            namespace::open(path, *kind).within(|| format!("linux.namespaces[{kind}].path"))?;
        Ok((*kind, fd))
    };
    plan.join.iter().map(open).collect()
}

/// Refuses parameters of the network where the namespace that is joined is this process's own: they would be set for
/// the host.
///
/// # Errors
/// Which parameter.
pub fn check_net_sysctl(joined: &[(NamespaceKind, OwnedFd)], sysctl: &[SysctlPlan]) -> Result<()> {
    let is_net = |one: &&SysctlPlan| one.path.starts_with("sys/net");
    let net = joined.iter().find(|(kind, _)| *kind == NamespaceKind::Net);
    if let (Some(one), Some((kind, fd))) = (sysctl.iter().find(is_net), net) {
        let own = namespace::of_process(Pid::this(), *kind)?;
        if namespace::identity(own)? == namespace::identity(fd)? {
            return Err(Error::new("not allowed in host network namespace")
                .within(format!("linux.sysctl[{:?}]", one.name)));
        }
    }
    Ok(())
}

/// Namespaces that this process enters for a moment, so that its child is born in them; left again when dropped.
struct Visit(Vec<(NamespaceKind, OwnedFd)>);

impl Visit {
    /// Enters `kinds`. For the pid namespace this only concerns children.
    fn enter(kinds: &[(NamespaceKind, BorrowedFd<'_>)]) -> Result<Self> {
        let mut visit = Self(Vec::with_capacity(kinds.len()));
        for (kind, fd) in kinds {
            let own = namespace::of_process(Pid::this(), *kind)?;
            namespace::setns(fd, kind.flag()).within(|| format!("joining the {kind} namespace"))?;
            visit.0.push((*kind, own));
        }
        Ok(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for (kind, own) in self.0.drain(..).rev() {
            // Going back to where we came from needs no more rights than leaving did. Should it fail, what follows
            // (hooks, state files) does not depend on these kinds of namespaces.
            drop(namespace::setns(own, kind.flag()));
        }
    }
}

/// What a birth needs.
pub struct Birth<'a> {
    /// The namespaces.
    pub namespaces: &'a NamespacePlan,
    /// Existing namespaces, opened.
    pub joined: Vec<(NamespaceKind, OwnedFd)>,
    /// The cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether the child is outside of a pid namespace to join, and joins it with a child of its own.
    pub late: bool,
    /// Whether a new time namespace gets clocks of its own.
    pub sets_clocks: bool,
    /// Whether the child makes its mount namespace by itself.
    pub bare: bool,
}

/// Makes the child; `child` runs in it with the namespaces that it has to join itself, and never returns.
///
/// # Errors
/// A namespace that cannot be made or joined.
pub fn spawn(birth: Birth<'_>, child: impl FnOnce(Vec<(NamespaceKind, OwnedFd)>)) -> Result<Child> {
    // The cgroup namespace's root is its maker's cgroup, and the child reaches its v1 cgroups only by itself.
    let mut new = birth.namespaces.new - CloneFlags::CLONE_NEWCGROUP;
    if birth.sets_clocks {
        // Who is born into a time namespace fixes its clocks, so the child makes it and then enters.
        new -= namespace::CLONE_NEWTIME;
    }
    if birth.bare {
        new -= CloneFlags::CLONE_NEWNS;
    }
    let joins_user = birth
        .joined
        .iter()
        .any(|(kind, _)| *kind == NamespaceKind::User);
    if joins_user {
        return through_intermediate(new, birth.joined, child);
    }
    // In a new user namespace the child has no rights over namespaces of the host, so the parent goes first.
    let first = |kind: NamespaceKind| {
        (kind == NamespaceKind::Pid && !birth.late) || new.contains(CloneFlags::CLONE_NEWUSER)
    };
    let (before, after): (Vec<_>, Vec<_>) =
        birth.joined.into_iter().partition(|(kind, _)| first(*kind));
    let before: Vec<(NamespaceKind, BorrowedFd<'_>)> = before
        .iter()
        .map(|(kind, fd)| (*kind, fd.as_fd()))
        .collect();
    let visit = Visit::enter(&before)?;
    match clone_into(new, birth.cgroup)? {
        Forked::Child => {
            std::mem::forget(visit);
            child(after);
            sys::process::exit_now(1)
        }
        Forked::Parent(born) => {
            drop(visit);
            Ok(born)
        }
    }
}

fn clone_into(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    clone3(&CloneArgs {
        namespaces,
        cgroup,
        sibling: false,
    })
    .map_err(|error| {
        let hint = match error.errno {
            Errno::EPERM => Some(
                "making namespaces needs CAP_SYS_ADMIN, or a user namespace of the container's own",
            ),
            Errno::ENOSPC => Some("a limit in /proc/sys/user/max_*_namespaces is reached"),
            Errno::EUSERS => Some("user namespaces are nested too deep"),
            _ => None,
        };
        let error = Error::from(error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// With an existing user namespace the new ones must be owned by it, so their maker must be in it: a short-lived
/// process enters it and makes the child as its sibling, that is, as a child of ours.
fn through_intermediate(
    new: CloneFlags,
    joined: Vec<(NamespaceKind, OwnedFd)>,
    child: impl FnOnce(Vec<(NamespaceKind, OwnedFd)>),
) -> Result<Child> {
    let (ours, theirs) = sys::fd::seqpacket_pair()?;
    match clone3(&CloneArgs::default())? {
        Forked::Child => {
            drop(ours);
            let made = enter_all(joined).and_then(|()| {
                Ok(clone3(&CloneArgs {
                    namespaces: new,
                    cgroup: None,
                    sibling: true,
                })?)
            });
            match made {
                Ok(Forked::Child) => {
                    drop(theirs);
                    child(Vec::new());
                }
                // The parent hears the end of the socket if it cannot be told.
                Ok(Forked::Parent(born)) => {
                    drop(protocol::tell_parent(
                        &theirs,
                        &FromChild::Pid(born.pid.as_raw()),
                    ));
                }
                Err(error) => drop(protocol::tell_parent(&theirs, &FromChild::Failed(error))),
            }
            sys::process::exit_now(0)
        }
        Forked::Parent(intermediate) => {
            drop(theirs);
            let heard = protocol::hear_child(&ours)?;
            sys::process::wait(&intermediate.pidfd)?;
            match heard {
                Some(FromChild::Pid(pid)) => {
                    let pid = Pid::from_raw(pid);
                    Ok(Child {
                        pid,
                        pidfd: sys::process::pidfd_open(pid)?,
                    })
                }
                Some(FromChild::Failed(error)) => Err(error),
                _ => Err(Error::new(
                    "the process that joins the user namespace ended without a word",
                )),
            }
        }
    }
}

/// Enters all of them: those of the host first, which need the rights that entering the user namespace takes away.
/// What is refused is owned by that user namespace, and tried again from inside.
fn enter_all(joined: Vec<(NamespaceKind, OwnedFd)>) -> Result<()> {
    let (user, others): (Vec<_>, Vec<_>) = joined
        .into_iter()
        .partition(|(kind, _)| *kind == NamespaceKind::User);
    let mut later = Vec::new();
    for (kind, fd) in others {
        match namespace::setns(&fd, kind.flag()) {
            Err(error) if error.errno == Errno::EPERM => later.push((kind, fd)),
            other => other.within(|| format!("joining the {kind} namespace"))?,
        }
    }
    for (kind, fd) in user.into_iter().chain(later) {
        namespace::setns(&fd, kind.flag()).within(|| format!("joining the {kind} namespace"))?;
    }
    Ok(())
}

/// Sets `oom_score_adj` from outside: the child may no longer write it once it has another user.
///
/// # Errors
/// `EACCES` for a lower value without CAP_SYS_RESOURCE.
pub fn set_oom_score(pid: Pid, process: &ProcessPlan) -> Result<()> {
    let Some(value) = process.oom_score_adj else {
        return Ok(());
    };
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, value.to_string()).map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let error = Error::from(sys::Error::from_io(
            &error,
            format!("write({path:?}, \"{value}\")"),
        ))
        .within("process.oomScoreAdj");
        if denied {
            error.hint("a value below the caller's own needs CAP_SYS_RESOURCE")
        } else {
            error
        }
    })
}

/// Sets the resource limits of a process (0: the caller).
///
/// # Errors
/// `EPERM` for a hard limit above the present one without CAP_SYS_RESOURCE.
pub fn set_rlimits(pid: Pid, process: &ProcessPlan) -> Result<()> {
    for (resource, limit) in &process.rlimits {
        sys::creds::set_rlimit(pid, *resource, *limit).map_err(|error| {
            let denied = error.errno == Errno::EPERM;
            let name = sys::creds::rlimit_name(*resource);
            let error = Error::from(error).within(format!("process.rlimits[{name}]"));
            if denied {
                error.hint("raising a hard limit needs CAP_SYS_RESOURCE")
            } else {
                error
            }
        })?;
    }
    Ok(())
}

/// Sets the CPU scheduler of a process, where it is one that the process did not get from its maker.
///
/// # Errors
/// What the kernel says.
pub fn set_scheduler(pid: Pid, process: &ProcessPlan) -> Result<()> {
    match process.scheduler {
        Some(scheduler) if !scheduler.is_inherited() => {
            sys::process::set_scheduler_of(pid, scheduler).within(|| "process.scheduler".to_owned())
        }
        _ => Ok(()),
    }
}
