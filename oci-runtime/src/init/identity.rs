//! Ids, capabilities and the rest of who the program is.
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use sys::creds::{self, CapSet};
use sys::path::Root;

use super::protocol::{self, FromChild};
use super::spawn;
use crate::error::{Error, Result, Within};
use crate::plan::{ExecutionPlan, ProcessPlan};

/// How much of a container's `/etc/passwd` is read: it is the container's, so it may be anything.
const MAX_PASSWD: u64 = 4 << 20;

/// Becomes the root of the user namespace, where there is one of its own: until then the ids are those of nobody.
///
/// # Errors
/// The maps do not map id 0.
pub(super) fn become_namespace_root(keep_groups: bool) -> Result<()> {
    let what = || "becoming root of the user namespace".to_owned();
    if !keep_groups {
        match creds::set_groups(&[]) {
            // "deny" in /proc/self/setgroups.
            Err(error) if error.errno == Errno::EPERM => {}
            other => other.within(what)?,
        }
    }
    creds::set_group(0).within(what)?;
    creds::set_user(0).within(what)
}

/// Gives stdin, stdout and stderr to the user of the process, so that `/dev/stdout` can be opened by it.
///
/// # Errors
/// A refusal that is not "this file cannot change its owner".
pub(super) fn own_stdio(process: &ProcessPlan) -> Result<()> {
    for number in 0..3 {
        let Ok(fd) = nix_borrow(number) else { continue };
        let Ok(stat) = nix::sys::stat::fstat(&fd) else {
            continue;
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        // A device is everybody's (/dev/null) or a terminal with its own rules.
        if stat.st_uid == process.uid || kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK {
            continue;
        }
        match nix::unistd::fchown(&fd, Some(process.uid.into()), None) {
            Ok(())
            | Err(
                Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS | Errno::EOPNOTSUPP,
            ) => {}
            Err(errno) => {
                return Err(sys::Error::new(
                    errno,
                    format!("fchown({number}, {}, -1)", process.uid),
                )
                .into());
            }
        }
    }
    Ok(())
}

/// Opens the container's `/dev/null` in place of the host's where the caller gave that as stdin, stdout or stderr: the
/// container has its own, and the host's would be one more file of the host in it.
///
/// # Errors
/// The descriptor cannot be replaced. Without a `/dev/null` that this process may open, the caller's stays.
pub(super) fn reopen_null(root: &Root) -> Result<()> {
    let null = |fd: &OwnedFd| {
        nix::sys::stat::fstat(fd).is_ok_and(|stat| {
            let device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
            device && stat.st_rdev == nix::sys::stat::makedev(1, 3)
        })
    };
    let given: Vec<u8> = (0..3)
        .filter(|number| nix_borrow(*number).is_ok_and(|fd| null(&fd)))
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    let path = Path::new("/dev/null");
    // Looked at before it is opened: what an image has there may be anything.
    let found = root.find(path, OFlag::O_PATH).ok().flatten();
    if !found.is_some_and(|found| null(&found)) {
        return Ok(());
    }
    match root.open_at(path, OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty()) {
        Ok(own) => given
            .into_iter()
            .try_for_each(|number| Ok(sys::fd::duplicate_onto(&own, i32::from(number))?)),
        Err(_) => Ok(()),
    }
}

/// A duplicate of one of the standard descriptors.
fn nix_borrow(number: u8) -> std::io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned(),
        1 => std::io::stdout().as_fd().try_clone_to_owned(),
        _ => std::io::stderr().as_fd().try_clone_to_owned(),
    }
}

/// Sets the resource limits; in a user namespace a hard limit can only be raised by the parent.
///
/// # Errors
/// The field and what the kernel says.
pub(super) fn set_limits(process: &ProcessPlan, socket: &OwnedFd) -> Result<()> {
    match spawn::set_rlimits(nix::unistd::Pid::from_raw(0), process) {
        Ok(()) => Ok(()),
        Err(_) => ask_for_limits(socket),
    }
}

/// Has the parent set the resource limits, and what of the scheduler only it can set.
///
/// # Errors
/// The parent has ended.
pub(super) fn ask_for_limits(socket: &OwnedFd) -> Result<()> {
    protocol::tell_parent(socket, &FromChild::SetLimits)?;
    protocol::hear_continue(socket)
}

/// Scheduler, I/O priority: while there is still a capability for them.
///
/// # Errors
/// The field and what the kernel says.
pub(super) fn set_priorities(process: &ProcessPlan) -> Result<()> {
    if let Some(scheduler) = process.scheduler {
        sys::process::set_scheduler(scheduler).within(|| "process.scheduler".to_owned())?;
    }
    set_io_priority(process)
}

/// The part of [`set_priorities`] that every child inherits.
///
/// # Errors
/// As there.
pub(super) fn set_io_priority(process: &ProcessPlan) -> Result<()> {
    if let Some((class, level)) = process.io_priority {
        sys::process::set_io_priority(class, level).within(|| "process.ioPriority".to_owned())?;
    }
    Ok(())
}

/// The processors of a process that `exec` adds, once it is in the container's cgroup. Where only those before are
/// given they stay, as the spec says; where none is, it does not inherit what its caller was bound to.
///
/// # Errors
/// The container's cpuset has none of them.
pub(super) fn set_exec_affinity(process: &ProcessPlan) -> Result<()> {
    match &process.affinity {
        // An outer filter may forbid it; then the program has fewer.
        None => drop(sys::process::reset_affinity()),
        Some(affinity) if affinity.last.is_empty() => {}
        Some(affinity) => {
            sys::process::set_affinity(nix::unistd::Pid::from_raw(0), &affinity.last)
                .within(|| "process.execCPUAffinity.final".to_owned())?;
        }
    }
    Ok(())
}

/// Execution domain and memory policy of the container, which every program inherits.
///
/// # Errors
/// The field and what the kernel says.
pub(super) fn set_execution(execution: &ExecutionPlan) -> Result<()> {
    if let Some(personality) = execution.personality {
        sys::process::set_personality(personality).within(|| "linux.personality".to_owned())?;
    }
    if let Some((mode, nodes)) = &execution.memory_policy {
        sys::process::set_memory_policy(*mode, nodes).map_err(|error| {
            let hint = match error.errno {
                Errno::EINVAL => Some("a node may not exist or be outside the cpuset, or the kernel does not know the mode with these flags"),
                Errno::ENOSYS => Some("the kernel knows no memory nodes (CONFIG_NUMA)"),
                _ => None,
            };
            let error = Error::from(error).within("linux.memoryPolicy");
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
    }
    Ok(())
}

/// Takes on the ids and capabilities of the process. The order is that of capabilities(7): the bounding set needs
/// CAP_SETPCAP, the ids need CAP_SETUID and CAP_SETGID, and changing the user id would clear what is permitted. What is
/// in `keep` stays besides, until [`set_capabilities`] takes it. Returns what there was.
///
/// # Errors
/// The field and what the kernel says.
pub(super) fn assume(process: &ProcessPlan, keep: CapSet) -> Result<CapSet> {
    let wanted = &process.capabilities;
    let (_, have, _) = creds::read_capabilities()?;
    // Without CAP_SETPCAP (number 8) the bounding set stays; what it would allow cannot be had either.
    if have.has(8) {
        creds::drop_bounding(wanted.bounding)
            .within(|| "process.capabilities.bounding".to_owned())?;
    }
    sys::process::set_keep_caps(true)?;
    if !process.keep_groups {
        match creds::set_groups(&process.groups) {
            Err(error) if error.errno == Errno::EPERM && process.groups.is_empty() => {}
            other => other.within(|| "process.user.additionalGids".to_owned())?,
        }
    }
    creds::set_group(process.gid).within(|| "process.user.gid".to_owned())?;
    creds::set_user(process.uid).within(|| "process.user.uid".to_owned())?;
    sys::process::set_keep_caps(false)?;
    set_capabilities(process, have, keep)?;
    creds::clear_ambient().within(|| "process.capabilities.ambient".to_owned())?;
    for number in process.capabilities.ambient.numbers() {
        match creds::raise_ambient(number) {
            // Not inheritable or not permitted: runc warns and goes on.
            Err(error) if error.errno == Errno::EPERM => {}
            other => other.within(|| "process.capabilities.ambient".to_owned())?,
        }
    }
    Ok(have)
}

/// Sets the capabilities of the process and those of `keep`. What leaves the permitted set leaves the ambient one.
///
/// # Errors
/// What the kernel says.
pub(super) fn set_capabilities(process: &ProcessPlan, have: CapSet, keep: CapSet) -> Result<()> {
    let wanted = &process.capabilities;
    // What this kernel, or an outer container, does not have cannot be given: runc leaves it out as well.
    let permitted = wanted.permitted.and(have);
    let effective = wanted.effective.and(permitted);
    let inheritable = wanted.inheritable.and(CapSet(have.0 | wanted.bounding.0));
    let kept = keep.and(have);
    let with = |set: CapSet| CapSet(set.0 | kept.0);
    creds::set_capabilities(with(effective), with(permitted), inheritable)
        .within(|| "process.capabilities".to_owned())
}

/// The home directory of a user in the container's `/etc/passwd`, or `/`.
pub(super) fn home_of(root: &Root, uid: u32) -> Vec<u8> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let Ok(passwd) = root.open_at(Path::new("/etc/passwd"), flags, Mode::empty()) else {
        return b"/".to_vec();
    };
    // Only a plain file: opening a device or a pipe of the container's choice must not stop us.
    if !nix::sys::stat::fstat(&passwd)
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits())
    {
        return b"/".to_vec();
    }
    let reader = BufReader::new(std::fs::File::from(passwd).take(MAX_PASSWD));
    find_home(reader, uid).unwrap_or_else(|| b"/".to_vec())
}

fn find_home(passwd: impl BufRead, uid: u32) -> Option<Vec<u8>> {
    for line in passwd.split(b'\n') {
        let line = line.ok()?;
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        if let [_, _, id, _, _, home, ..] = fields.as_slice()
            && std::str::from_utf8(id).ok()?.parse() == Ok(uid)
        {
            return home.starts_with(b"/").then(|| home.to_vec());
        }
    }
    None
}

/// Changes into the working directory, which is made where it is missing, and checks that it is inside the root:
/// a leaked descriptor of the host must not become a working directory (CVE-2024-21626).
///
/// # Errors
/// The directory cannot be made or entered.
pub(super) fn enter_cwd(root: &Root, process: &ProcessPlan) -> Result<()> {
    let what = || format!("process.cwd {:?}", process.cwd);
    let dir = open_cwd(root, process)?;
    match nix::unistd::fchdir(&dir) {
        // Readable only by the user that we are about to become: tried again then.
        Ok(()) | Err(Errno::EACCES | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Error::from(sys::Error::new(errno, "fchdir"))).within(what),
    }
}

/// Makes the working directory that [`enter_cwd`] enters, while the root can still be written.
///
/// # Errors
/// It cannot be made.
pub(super) fn make_cwd(root: &Root, process: &ProcessPlan) -> Result<()> {
    open_cwd(root, process).map(drop)
}

fn open_cwd(root: &Root, process: &ProcessPlan) -> Result<OwnedFd> {
    let cwd = &process.cwd;
    let opened = root.mkdir_all(cwd, Mode::from_bits_truncate(0o755));
    let opened = opened.map_err(|error| match error.errno {
        // From outside of the container's pid namespace even "self" leads nowhere.
        Errno::ELOOP | Errno::ENOENT if is_of_a_process(cwd) => Error::new(
            "outside of the container: links of /proc to what a process has open are not followed",
        )
        .hint("name the directory by its path in the container"),
        _ => Error::from(error),
    });
    opened.within(|| format!("process.cwd {cwd:?}"))
}

/// `/proc/self/fd/7`, `/proc/1/cwd` and the like.
fn is_of_a_process(path: &Path) -> bool {
    let mut parts = path.components().skip(2);
    let of_process = parts.next().is_some_and(|part| {
        let name = part.as_os_str().to_string_lossy();
        matches!(&*name, "self" | "thread-self") || name.parse::<u32>().is_ok()
    });
    path.starts_with("/proc") && of_process
}

/// The second try of [`enter_cwd`], as the user of the process, and the check.
///
/// # Errors
/// The directory cannot be entered by this user, or is not below the root.
pub(super) fn confirm_cwd(process: &ProcessPlan) -> Result<()> {
    let what = || format!("process.cwd {:?}", process.cwd);
    nix::unistd::chdir(&process.cwd)
        .map_err(|errno| sys::Error::new(errno, format!("chdir({:?})", process.cwd)))
        .within(what)?;
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(Error::new(
            "the working directory is outside the container's root",
        ))
        .within(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_processes_are_told_from_others() {
        for (path, expected) in [
            ("/proc/self/fd/7", true),
            ("/proc/17/cwd", true),
            ("/proc/thread-self/root", true),
            ("/proc/sys", false),
            ("/proc", false),
            ("/srv/self", false),
            ("/process/self", false),
        ] {
            assert_eq!(is_of_a_process(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn the_home_directory_is_that_of_the_user_id() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv:/bin/sh\nrel:x:5:5::home:/bin/sh\n".as_slice();
        assert_eq!(find_home(passwd, 33).as_deref(), Some(b"/srv".as_slice()));
        assert_eq!(find_home(passwd, 0).as_deref(), Some(b"/root".as_slice()));
        assert_eq!(find_home(passwd, 5), None, "a relative home is none");
        assert_eq!(find_home(passwd, 1), None);
    }
}
