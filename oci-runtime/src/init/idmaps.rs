//! The id maps of a new user namespace: written directly, or by `newuidmap` and `newgidmap` for a caller that may not.
//! See `user_namespaces(7)`, `newuidmap(1)`.
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use sys::namespace::{self, NamespaceKind};
use sys::process::{CloneArgs, Forked, clone3};

use crate::error::{Error, Result, Within};
use crate::plan::{NamespacePlan, namespaces::map_text};
use crate::spec::IdMapping;

/// One of the two maps.
struct Kind<'a> {
    field: &'static str,
    file: &'static str,
    helper: &'static str,
    ranges: &'static str,
    map: &'a [IdMapping],
    own: u32,
}

/// Writes the id maps of the child's new user namespace.
///
/// # Errors
/// `EPERM` for ids that this user may not map.
pub fn write(pid: Pid, plan: &NamespacePlan) -> Result<()> {
    if !plan.is_new(NamespaceKind::User) {
        return Ok(());
    }
    let uids = Kind {
        field: "linux.uidMappings",
        file: "uid_map",
        helper: "newuidmap",
        ranges: "/etc/subuid",
        map: &plan.uid_map,
        own: nix::unistd::geteuid().as_raw(),
    };
    let gids = Kind {
        field: "linux.gidMappings",
        file: "gid_map",
        helper: "newgidmap",
        ranges: "/etc/subgid",
        map: &plan.gid_map,
        own: nix::unistd::getegid().as_raw(),
    };
    for kind in [uids, gids] {
        write_one(pid, &kind).within(|| kind.field.to_owned())?;
    }
    Ok(())
}

fn write_one(pid: Pid, kind: &Kind<'_>) -> Result<()> {
    let privileged = nix::unistd::geteuid().is_root();
    let itself = matches!(kind.map, [one] if one.host_id == kind.own && one.size == 1);
    if !privileged && !itself {
        return by_helper(pid, kind);
    }
    if !privileged && kind.file == "gid_map" {
        // An unprivileged user may map its group only where it cannot drop any.
        write_file(pid, "setgroups", "deny")?;
    }
    match write_file(pid, kind.file, &map_text(kind.map)) {
        // Root without CAP_SETUID, as in another container: the helpers may still know it.
        Err(error) if error.errno == Errno::EPERM && !itself => {
            by_helper(pid, kind).map_err(|other| Error::from(error).hint(other.message))
        }
        other => Ok(other?),
    }
}

fn write_file(pid: Pid, file: &str, content: &str) -> sys::Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, content)
        .map_err(|error| sys::Error::from_io(&error, format!("write({path:?})")))
}

/// The set-user-id programs of the package `uidmap` map what `/etc/subuid` and `/etc/subgid` give to the user.
fn by_helper(pid: Pid, kind: &Kind<'_>) -> Result<()> {
    let numbers = kind
        .map
        .iter()
        .flat_map(|range| [range.container_id, range.host_id, range.size]);
    let mut command = Command::new(kind.helper);
    command.arg(pid.to_string());
    command.args(numbers.map(|number| number.to_string()));
    let output = command.output().map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = Error::from(sys::Error::from_io(
            &error,
            format!("execve({:?})", kind.helper),
        ));
        if missing {
            error.hint(format!(
                "mapping other ids than the caller's own needs {}, of the package uidmap",
                kind.helper
            ))
        } else {
            error
        }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(1000).collect();
    Err(Error::new(format!("{}: {said}", kind.helper))
        .hint(format!("{} says which ids the caller may map", kind.ranges)))
}

/// A user namespace with these maps, for an id-mapped mount. Its only process is gone when this returns.
///
/// # Errors
/// `EPERM` for ids that this user may not map.
pub fn user_namespace(uid_map: &[IdMapping], gid_map: &[IdMapping]) -> Result<OwnedFd> {
    let (ours, theirs) = sys::fd::pipe()?;
    match clone3(&CloneArgs {
        namespaces: CloneFlags::CLONE_NEWUSER,
        ..CloneArgs::default()
    })? {
        Forked::Child => {
            drop(theirs);
            // Waits for the parent to let go of the pipe; what the read says does not matter.
            drop(sys::fd::read(&ours, &mut [0]));
            sys::process::exit_now(0)
        }
        Forked::Parent(child) => {
            drop(ours);
            let plan = NamespacePlan {
                new: CloneFlags::CLONE_NEWUSER,
                join: Vec::new(),
                uid_map: uid_map.to_vec(),
                gid_map: gid_map.to_vec(),
            };
            let fd = write(child.pid, &plan).and_then(|()| {
                namespace::open(
                    Path::new(&format!("/proc/{}/ns/user", child.pid)),
                    NamespaceKind::User,
                )
                .map_err(Error::from)
            });
            drop(theirs);
            sys::process::wait(&child.pidfd)?;
            fd
        }
    }
}
